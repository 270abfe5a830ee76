"""What is said about rules: their memories, their schedules, and where a rule is no program."""

from __future__ import annotations

from pathlib import Path

import pytest

import nldsl
from nldsl import SpecError
from nldsl.cli import main

RULE = """
rule trio(lr, fast = 0.9, slow = 0.99) {
  memory a, b = like(W)
  memory s = like(sum(W))
  a = fast * a + (1 - fast) * g
  b = slow * b + (1 - slow) * g
  s = 0.95 * s + 0.05 * mean(g ** 2)
  W = W - lr * (a + b) / expand_last(sqrt(s) + 1e-8, W)
}
"""
MODEL = """
model m(tokens, vocab = 16, dim = 8) { return head(norm(linear(embed(tokens, vocab, dim), 4)), vocab) }
train m {
  task next_token
  matrices                      by trio(lr = cosine(1e-2, warmup = 5, floor = 0.01))
  norms, embeddings, head, rest by sgd(lr = warmup(0.1, warmup = 3))
}
"""


def test_schedules_are_told_as_one_writes_them() -> None:
    rules = {p.rule for p in nldsl.graph(RULE + MODEL).problems if p.kind == "optimiser memory"}
    assert rules == {"trio(lr = cosine(0.01, warmup = 5, floor = 0.01))"}
    rows = {row.trained_by for row in nldsl.explain(RULE + MODEL).parameters}
    assert rows == {"trio(lr = cosine(0.01, warmup = 5, floor = 0.01))", "sgd(lr = warmup(0.1, warmup = 3))"}


def test_memories_of_rules_have_their_own_size() -> None:
    """`linear` is 4 x 8: two memories like it, one with a number per row."""
    graph = nldsl.graph(RULE + MODEL)
    sizes = {p.name: p.tensors[0].shape for p in graph.problems if p.kind == "optimiser memory"}
    assert sizes == {"trio.a": (32,), "trio.b": (32,), "trio.s": (4,)}
    maps = {p.name: p.map for p in graph.problems if p.kind == "optimiser memory"}
    assert maps == {"trio.a": "like W", "trio.b": "like W", "trio.s": "a shape of its own"}


@pytest.mark.parametrize(
    ("statement", "idle"),
    [
        ("c = mean(abs(g))", True),
        ("every 5 steps { c = c + g }", True),
        ("if rank(W) == 2 { c = 0.9 * c + g }", True),
        ("c += g", True),
        ("d = 0.9 * d + c; c = g", True),  # read by another one that is idle
        ("every 5 steps { c = g; m = 0.5 * c }", False),
        ("t = 2 * c; m = m + t; c = g", False),
        ("if rank(W) == 2 { m = m + c } else { m = m }; c = g", False),
    ],
)
def test_a_memory_that_the_weight_does_not_depend_on_is_found(statement: str, idle: bool) -> None:
    body = f"memory m, c, d = like(W)\nm = 0.9 * m + g\n{statement}\nW = W - lr * (m + d)\nd = 0 * d"
    body = body.replace(" + d)", ")").replace("\nd = 0 * d", "") if "d = 0.9" in statement else body
    found = [f for f in nldsl.check(f"rule r(lr) {{\n{body}\n}}") if f.code == "NL0411"]
    assert (any("memory `c` of rule `r`" in f.message for f in found)) is idle
    assert all(f.severity == "warning" for f in found)


def test_no_rule_of_the_library_keeps_an_idle_memory() -> None:
    folder = Path(__file__).parents[2] / "specs" / "rules"
    files = sorted(folder.glob("*.nl"))
    assert len(files) > 20
    assert [f for path in files for f in nldsl.check(path) if f.code == "NL0411"] == []


@pytest.mark.parametrize(("name", "kind"), [("adamw", "a rule"), ("l2", "an objective"), ("mlp", "a map")])
def test_what_is_no_program_is_told_by_its_kind(name: str, kind: str) -> None:
    with pytest.raises(SpecError, match=f"`{name}` is {kind}, expected a block or a model") as caught:
        nldsl.explain(name)
    (finding,) = caught.value.diagnostics
    assert finding.span is not None and finding.span.text == name
    with pytest.raises(SpecError, match="`trio` is a rule"):
        nldsl.explain(RULE + MODEL, block="trio")


def test_a_run_is_told_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run" / "spec").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "spec" / "mine.nl").write_text("block f(x) { return x }")
    with pytest.raises(SystemExit):
        main(["explain", str(tmp_path / "run")])
    assert f"its specification is `{tmp_path / 'run' / 'spec' / 'mine.nl'}`" in capsys.readouterr().err
