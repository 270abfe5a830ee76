"""Accumulation: several batches are one large one, and a signal among them lets the step end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from nldsl.spec.program import GroupRule
from nldsl.train import loop
from nldsl.train.config import RunConfig
from nldsl.train.data import Corpus, prepare
from nldsl.train.loop import Trainer, backward_from
from tests.unit.standin import ADAMW, StandIn, plan_of

TEXT = b"".join(b"%d bottles on the wall, %d bottles\n" % (i, i) for i in range(500))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    (tmp_path / "text").write_bytes(TEXT)
    return prepare(str(tmp_path / "text"), tmp_path / "shards", length=12)


def trainer_of(corpus: Corpus, folder: Path) -> Trainer:
    folder.mkdir(exist_ok=True)
    slow = GroupRule(("out.*",), "momentum", (("lr", 0.01), ("beta", 0.8)), every=3)
    config = RunConfig("standin", data="text", batch=2, accumulate=3, length=12, seed=3, steps=40)
    return Trainer(StandIn(plan_of(slow, ADAMW, clip=1.0)), corpus, config, folder)


@pytest.mark.parametrize("truncate", [0, 5])
def test_accumulated_batches_are_one_large_batch(corpus: Corpus, tmp_path: Path, truncate: int) -> None:
    def gradients(batch: int, accumulate: int) -> tuple[dict[str, torch.Tensor], float, int]:
        config = RunConfig("standin", data="text", batch=batch, accumulate=accumulate, length=12, steps=3)
        model = StandIn(plan_of(ADAMW, GroupRule(("rest",), "adamw", ()), truncate=truncate)).double()
        trainer = Trainer(model, corpus, config, tmp_path)
        trainer.step = 1
        trainer.gradients()
        return {path: p.grad for path, p in trainer.parameters.items()}, trainer.loss, trainer.tokens

    (whole, loss, tokens), (parts, summed, same) = gradients(6, 1), gradients(2, 3)
    assert tokens == same == 72
    assert summed == pytest.approx(loss, rel=1e-13)
    for path, g in whole.items():
        assert torch.allclose(g, parts[path], rtol=1e-11, atol=1e-14), path


def test_a_signal_within_an_accumulation_lets_the_step_end(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer_of(corpus, tmp_path / "whole")
    for _ in range(8):
        whole.train_step()
    calls = []

    def interrupted(*given: object) -> object:
        calls.append(None)
        if len(calls) == 3 * 4 + 2:  # in step 5, the second of three batches
            os.kill(os.getpid(), signal.SIGTERM)
        return backward_from(*given)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop, "backward_from", interrupted)
        trainer_of(corpus, tmp_path / "run").run(keep=3, show=False)
    again = trainer_of(corpus, tmp_path / "run")
    again.restore()
    assert again.step == 5
    for _ in range(3):
        again.train_step()
    assert all(torch.equal(p, again.parameters[path]) for path, p in whole.parameters.items())
