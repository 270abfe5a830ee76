"""Rates of writes that follow the steps of training: every step as with a number, saved, logged, resumed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import nldsl
from nldsl.certify import verify
from nldsl.cli import main
from nldsl.reference import Interpreter
from nldsl.review import check
from nldsl.train import checkpoint as saved
from nldsl.train import train
from nldsl.train.config import RunConfig
from nldsl.train.loop import CHECKPOINTS
from nldsl.train.run import start

SPEC = """block slots(x) {{
  level fast every 4 tokens {{ memory A = mlp(1); memory S = matrix() }}
  k = l2norm(linear(x))
  S[k] <- linear(x)  minimize l2  by gd(lr = {0})
  A minimizes task by gd(lr = {1})
  x = x + A[norm(x)] + S[k]
  return x
}}
model m(tokens, vocab = 256, dim = 8, depth = 2) {{
  x = embed(tokens, vocab, dim)
  repeat depth {{ x = slots(x) }}
  return head(norm(x), vocab)
}}
train m {{
  task next_token
  level training every 1 step {{ matrices, embeddings, head, norms by sgd(lr = 0.1) }}
}}
"""
TEXT = SPEC.format("warmup(0.2, warmup = 4)", "cosine(0.1, warmup = 2, floor = 0.5, steps = 6)")


def rates(step: int) -> tuple[float, float]:
    """Of `S` and of `A` at a step, 0 first."""
    falls = 0.1 * (0.5 + 0.5 * (1 + math.cos(math.pi * min(1.0, (step - 2) / 4))) / 2)
    return min(1.0, (step + 1) / 4) * 0.2, 0.1 * (step + 1) / 2 if step < 2 else falls


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "m.nl").write_text(TEXT)
    (tmp_path / "text.txt").write_bytes(b"".join(b"%d green bottles on the wall\n" % i for i in range(400)))
    return {"data": str(tmp_path / "text.txt"), "batch": 2, "length": 12, "seed": 1}


def test_every_step_learns_at_the_rate_of_its_schedule(run: dict[str, Any], tmp_path: Path) -> None:
    """The loss of each step is the interpreter's, of a program with the numbers in place of the schedules."""
    trainer = start(RunConfig(str(tmp_path / "m.nl"), steps=7, **run), tmp_path / "run", resume=False)
    for step in range(7):
        of_s, of_a = rates(step)
        values = {p: t.detach().clone().double() for p, t in trainer.parameters.items() if "_lr" not in p}
        record = trainer.train_step()
        found = {p: v for p, v in record.items() if "_lr" in p}
        assert len(found) == 4
        assert all(v == pytest.approx(of_s if "S_lr" in p else of_a) for p, v in found.items())
        if step in (0, 3, 6):
            trainer.step -= 1
            tokens, _ = trainer.windows()
            trainer.step += 1
            twin = nldsl.compile(SPEC.format(of_s, of_a)).program
            loss, state = Interpreter(twin, values, torch.float64).learn(tokens)
            assert record["loss"] == pytest.approx(float(loss.detach()) / state.scored, rel=1e-5)
    lasting = {p: float(t) for p, t in trainer.parameters.items() if "_lr" in p}
    assert all(v == pytest.approx(0.2 if "S_lr" in p else 0.05) for p, v in lasting.items())


def test_a_run_resumes_bit_for_bit_and_says_its_rates(run: dict[str, Any], tmp_path: Path) -> None:
    spec = tmp_path / "m.nl"
    train(spec, out=tmp_path / "whole", steps=6, show=False, **run)
    train(spec, out=tmp_path / "parts", steps=3, show=False, **run)
    train(spec, out=tmp_path / "parts", steps=6, show=False, resume=True, **run)
    one, two = (saved.load_newest(tmp_path / name / CHECKPOINTS).tensors for name in ("whole", "parts"))
    assert one.keys() == two.keys() and all(torch.equal(t, two[path]) for path, t in one.items())
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert any(any("A_lr" in key for key in record) for record in log)


def test_it_is_checked_and_verified() -> None:
    assert not [d for d in check(TEXT) if d.code == "NL0431"]
    assert verify(TEXT).passed


def test_the_schedule_is_explained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "m.nl").write_text(TEXT)
    with pytest.raises(SystemExit):
        main(["explain", str(tmp_path / "m.nl")])
    assert "eta_t = warmup(0.2, warmup = 4), of the training step" in capsys.readouterr().out


def test_a_variant_may_move_it_to_the_clock_of_steps() -> None:
    """What followed the steps as a number does so in a group of its own then."""
    text = TEXT.replace(
        "memory S = matrix() }", "memory S = matrix() }\n  level own every 4 tokens { memory B = mlp(1) }"
    )
    text = text.replace(
        "  return x\n", "  B minimizes task by gd(lr = cosine(0.3))\n  return x + B[norm(x)]\n", 1
    )
    model = nldsl.compile(text + 'variant v of m { level "own" every 5 steps }', block="v")
    assert model.program.train is not None
    assert model.program.train.groups[0].schedules[0][:2] == ("lr", "cosine")
    assert not any("B_lr" in path for path in model.parameter_paths())
