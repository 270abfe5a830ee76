"""What a run does is what its timeline predicts: every write, commit, move of a base and reset."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nldsl.certify.observe import observe
from nldsl.graph import open_program
from nldsl.view.observed import compare_observed, with_observed
from nldsl.view.timeline import timeline
from tests.conformance.test_task_memories import source

torch.set_num_threads(1)
RESETS = """
block b(x) {
  level slow every 6 tokens { memory A = matrix() reset every 9 tokens }
  level fast every 1 token { memory S = matrix();  memory W = softmax(window = 3) }
  k = l2norm(linear(x))
  W[k] <- x
  S[k] <- x by gd(lr = 0.3) gradient every 4 tokens
  A[k] <- x by gd(lr = 0.3)
  return A[k] + S[k] + W[k]
}
"""


@pytest.mark.parametrize("name", ["chain", "nested", "three_nested", "reset_between_steps"])
def test_task_memories(name: str) -> None:
    program = open_program(source(name, "trunc"))
    seen = observe(program, 19)
    assert len(seen) >= 3
    assert compare_observed(timeline(program, 19), seen) == []


def test_resets_bases_windows_and_copies() -> None:
    program = open_program(RESETS, block="b", x=6)
    line, seen = timeline(program, 21), observe(program, 21)
    assert compare_observed(line, seen) == []
    assert {s.path: s.resets for s in seen}["A"] == (8, 17)
    assert {s.path: s.bases for s in seen}["S"] == (3, 7, 11, 15, 19)
    copies = observe(open_program("hope", dim=8, heads=2, depth=2, chunks=[16], vocab=11), 17)
    assert len(copies) == 12 and {s.path.split(".")[0] for s in copies} == {"blocks[0]", "blocks[1]"}


def test_a_difference_is_told() -> None:
    program = open_program(RESETS, block="b", x=6)
    line, seen = timeline(program, 12), observe(program, 12)
    late = [replace(s, commits=s.commits[1:]) if s.path == "S" else s for s in seen]
    assert compare_observed(line, late) == ["S: commits missing at tokens 0"]
    assert with_observed(line, seen).name == "b, observed"


SHORT = """
block short(x, heads = 2) {
  level context every 1 token { memory S = matrix() per head init zero reset every 1 tokens }
  memory A = softmax() per head reset every 3 tokens
  S[x] <- linear(x)  minimize dot  by gd(lr = 1)
  A[x] <- linear(x)
  return linear(merge(S[x] + A[x]))
}
"""


def test_resets_of_every_token_and_of_attention_are_seen() -> None:
    program = open_program(SHORT, dim=4)
    seen = {s.path: s for s in observe(program, 9)}
    assert seen["S"].resets == tuple(range(9)) and seen["A"].resets == (2, 5, 8)
    assert not compare_observed(timeline(program, tokens=9), list(seen.values()))


STILL = """
block still(x, heads = 2) {
  level context every 1 token { memory S = matrix() per head init zero }
  level slow every 3 tokens { memory P = matrix() per head init zero }
  k = l2norm(split(shift(linear(x)), heads))
  S[k] <- linear(x)  by gd(lr = 0.5)
  P[k] <- P[k]  by gd(lr = 0.5)
  return linear(merge(S[k] + P[k]))
}
"""


def test_a_step_of_zero_leaves_no_trace_and_is_no_difference() -> None:
    program = open_program(STILL, dim=4)
    line, seen = timeline(program, tokens=7), observe(program, 7)
    assert compare_observed(line, seen) == []
    found = {s.path: s for s in seen}
    assert found["S"].writes == (1, 2, 3, 4, 5, 6) and found["S"].still == (0,)
    assert found["P"].writes == () and found["P"].still == tuple(range(7))
    lost = [replace(s, writes=s.writes[1:]) for s in seen]
    assert compare_observed(line, lost) == ["S: writes missing at tokens 1"]


CLEARED = """
rule cleared(lr) {
  memory m = like(W)
  m = 0.9 * m + g
  every 3 steps { m = 0 }
  W = W - lr * m
}
model clears(tokens, vocab = 7) {
  x = embed(tokens, vocab, 8)
  level f every 2 tokens { memory F = mlp(1) }
  F minimizes task  by cleared(lr = 0.01)
  x = x + F[norm(x)]
  return head(x, vocab)
}
"""


def test_a_task_memory_whose_own_rule_stands_still_is_no_difference() -> None:
    program = open_program(CLEARED)
    line, seen = timeline(program, tokens=14), observe(program, 14)
    assert seen[0].commits == (2, 4, 8, 10) and 6 in seen[0].unmoved and 12 in seen[0].unmoved
    assert compare_observed(line, seen) == []
    lost = [replace(s, commits=s.commits[1:]) for s in seen]
    assert compare_observed(line, lost) == ["F: commits missing at tokens 2"]
    idle = open_program(CLEARED.replace("0.9 * m + g", "0.9 * m"))
    assert compare_observed(timeline(idle, tokens=5), observe(idle, 5)) == []
