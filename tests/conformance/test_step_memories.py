"""Memories on a clock of steps: the trainer against the interpreter's gradients and printed recurrences."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import nldsl
from nldsl.diagnostics import SpecError
from nldsl.graph import build_graph, open_program
from nldsl.reference import Interpreter
from nldsl.train import checkpoint as saved
from nldsl.train import train
from nldsl.train.groups import claim, training_plan
from nldsl.train.loop import CHECKPOINTS
from nldsl.train.optimisers import make_groups
from nldsl.view.timeline import timeline

SLOTS = """block slots(x) {
  level fast every 4 tokens { memory A = mlp(1) }
  level slow every 3 steps { memory B = mlp(1); memory C = matrix(out = 2) per head(2) init learned }
  A minimizes task by gd(lr = 0.1)
  B minimizes task by gd(lr = 0.3)
  C minimizes task by momentum(lr = cosine(0.2, warmup = 2, floor = 0.1, steps = 8), beta = 0.5)
  x = x + A[norm(x)]
  x = x + B[norm(x)]
  return x + linear(merge(C[split(norm(x), 2)]))
}
model m(tokens, vocab = 7, dim = 4, depth = 2) {
  x = embed(tokens, vocab, dim)
  repeat depth { x = slots(x) }
  return head(x, vocab)
}
"""
TRAIN = """train m {
  task next_token
  level training every 1 step { matrices, embeddings, head, norms, rest by sgd(lr = 0.2) }
}
"""
WIDER = (SLOTS + TRAIN).replace("vocab = 7, dim = 4", "vocab = 256, dim = 8").replace("out = 2", "out = 4")
"""The same for bytes."""
STEPS = 8


def cosine(step: int) -> float:
    """Two steps of rise to 0.2, then half a wave down to a tenth of it at step 8."""
    if step < 2:
        return 0.2 * (step + 1) / 2
    return 0.2 * (0.1 + 0.9 * (1 + math.cos(math.pi * (step - 2) / 6)) / 2)


def test_the_trainer_gathers_and_steps_as_printed() -> None:
    """Eq. 71 on the outer clock: `W' = W - lr sum of 3 gradients`; momentum of Eq. 33 on the same clock."""
    model = nldsl.compile(SLOTS + TRAIN).double()
    paths = {p: t.requires_grad_() for p, t in model.parameter_paths().items()}
    groups = make_groups(claim(training_plan(model.program), paths, model.parameter_roles()), model)
    values = {p: t.detach().clone() for p, t in paths.items()}
    start = {p: t.clone() for p, t in values.items()}
    gathered = {p: torch.zeros_like(t) for p, t in values.items() if ".B." in p or ".C." in p}
    momentum = {p: torch.zeros_like(t) for p, t in values.items() if ".C." in p}
    assert len(gathered) == 2 * 3 and values["blocks[0].slots.C.weight"].dim() == 3
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        tokens = torch.randint(7, (2, 10), generator=generator)
        for t in paths.values():
            t.grad = None
        model.learn(tokens, backward=1 / 18)
        scheduled = [group.step(step, step / STEPS) for group in groups]
        leaves = {p: t.clone().requires_grad_() for p, t in values.items()}
        loss, _ = Interpreter(model.program, leaves, torch.float64).learn(tokens)
        grads = dict(zip(leaves, torch.autograd.grad(loss / 18, list(leaves.values())), strict=True))
        for p, g in grads.items():
            if p not in gathered:
                values[p] = values[p] - 0.2 * g
                continue
            gathered[p] += g
            if (step + 1) % 3:
                continue
            if ".C." in p:
                momentum[p] = 0.5 * momentum[p] - cosine(step) * gathered[p]
                values[p] = values[p] + momentum[p]
                assert {"lr": cosine(step)} in scheduled, scheduled
            else:
                values[p] = values[p] - 0.3 * gathered[p]
            gathered[p] = torch.zeros_like(gathered[p])
        for p, t in paths.items():
            torch.testing.assert_close(t.detach(), values[p], rtol=1e-10, atol=1e-10, msg=f"{p} at {step}")
        moved = not torch.equal(values["blocks[1].slots.B.W1"], start["blocks[1].slots.B.W1"])
        assert moved == (step >= 2)


def test_who_trains_it() -> None:
    """A group of its own in front of all others, also where nothing else is said."""
    program = open_program(SLOTS + TRAIN)
    assert program.train is not None
    found = {g.selectors: (g.rule, g.every) for g in program.train.groups}
    assert found["blocks[*].slots.B.*",] == ("gd", 3) and found["blocks[*].slots.C.*",] == ("momentum", 3)
    plain = nldsl.compile(SLOTS).program
    assert plain.train is None
    assert [g.rule for g in training_plan(plain).groups] == ["gd", "momentum", "adamw"]
    taken = SLOTS + TRAIN.replace("matrices,", '"*.B.W1" by sgd(lr = 1)\n    matrices,')
    with pytest.raises(SpecError) as caught:
        nldsl.compile(taken)
    assert caught.value.diagnostics[0].code == "NL0603"


def test_two_memories_whose_paths_look_alike_keep_their_clocks() -> None:
    text = """block slots(x) {
  for c, i in [2, 5] {
    level f every c steps { memory F = mlp(1) }
    F minimizes task by gd(lr = 0.1)
    x = x + F[norm(x)]
  }
  return x
}
model m(tokens, vocab = 7, dim = 4) { return head(slots(embed(tokens, vocab, dim)), vocab) }
"""
    groups = training_plan(nldsl.compile(text).program).groups
    assert [(g.selectors, g.every) for g in groups[:2]] == [(("slots.F[0].*",), 2), (("slots.F[1].*",), 5)]


def test_a_variant_moves_a_level_to_the_clock_of_steps() -> None:
    text = 'variant v of hope_attention(dim = 8, depth = 1, heads = 2) { level "cms.f[2]" every 10 steps }'
    program = nldsl.compile(text).program
    assert program.train is not None
    assert (program.train.groups[0].selectors, program.train.groups[0].every) == (
        ("blocks[*].cms.F[2].*",),
        10,
    )
    graph = build_graph(program)
    problem = next(p for p in graph.problems if p.name == "F[2]")
    assert (problem.clock.unit, problem.clock.every, problem.kind) == ("steps", 10, "task memory")
    assert problem.state_bytes == 0 and problem.parameters == 2 * 8 * 32
    level = next(lv for lv in graph.levels if problem.id in lv.problems)
    assert level.number.startswith("1") and level.clock.every == 10
    tracks = {t.names: t for t in timeline(program, tokens=64).tracks}
    assert list(tracks["F[2]",].commits) == [9, 19, 29] and tracks["F[2]",].unit == "steps"
    assert not any("initial states" in p.name and "@10" in p.id for p in graph.problems)


def test_optimiser_memories_of_such_a_level_are_drawn() -> None:
    program = open_program(SLOTS + TRAIN)
    graph = build_graph(program)
    memory = next(p for p in graph.problems if p.kind == "optimiser memory")
    assert (memory.name, memory.clock.every) == ("momentum.m", 3)
    ends = {(t.source, t.target) for t in graph.transfers if t.kind == "generate"}
    target = next(p.id for p in graph.problems if p.name == "C")
    assert {(target, memory.id), (memory.id, target)} <= ends


def test_a_run_resumes_bit_for_bit_with_what_it_has_gathered(tmp_path: Path) -> None:
    spec, data = tmp_path / "slots.nl", tmp_path / "text.txt"
    spec.write_text(WIDER)
    data.write_bytes(b"".join(b"%d green bottles on the wall\n" % i for i in range(400)))
    common: dict[str, Any] = {"data": str(data), "batch": 2, "length": 16, "seed": 1, "show": False}
    train(spec, out=tmp_path / "whole", steps=7, **common)
    train(spec, out=tmp_path / "parts", steps=4, **common)
    train(spec, out=tmp_path / "parts", steps=7, resume=True, **common)
    one, two = (saved.load_newest(tmp_path / run / CHECKPOINTS).tensors for run in ("whole", "parts"))
    assert one.keys() == two.keys() and any("B.W1:gathered" in path for path in one)
    assert all(torch.equal(t, two[path]) for path, t in one.items())
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert any("blocks[*].slots.C.*.lr" in record for record in log)


def block(clock: str, memory: str, write: str) -> str:
    return f"block b(x) {{\n  level s {clock} {{ memory F = {memory} }}\n  {write}\n  return F[norm(x)]\n}}"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (block("every 3 steps", "mlp(2)", "F[norm(x)] <- x by gd(lr = 0.1)"), "NL0509"),
        (block("every 3 steps", "matrix()", "F += outer(x, x)"), "NL0509"),
        (block("every 3 steps", "mlp(2)", ""), "NL0509"),
        (block("every 3 steps", "mlp(2)", "F minimizes task by gd(lr = sigmoid(linear(x, 1)))"), "NL0505"),
        (block("every 3 steps", "matrix(out = 8)", "F minimizes task by gd(lr = 0.1)"), "NL0505"),
        (block("every 3 steps", "mlp(2)", "F minimizes task by gd(lr = 0.1) retain 0.9"), "NL0505"),
        (block("every 3 steps", "mlp(2) reset every 8 tokens", "F minimizes task by gd(lr = 0.1)"), "NL0505"),
    ],
)
def test_what_has_no_meaning_there_is_refused(text: str, code: str) -> None:
    with pytest.raises(SpecError) as caught:
        nldsl.compile(text, dim=8)
    assert [d.code for d in caught.value.diagnostics] == [code]
    assert caught.value.diagnostics[0].help
