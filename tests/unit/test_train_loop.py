"""Runs: N + N steps are 2N, checkpoints are whole or absent, interruption saves, divergence is named."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from nldsl.diagnostics import SpecError
from nldsl.spec.program import GroupRule
from nldsl.train import checkpoint as saved
from nldsl.train.config import RunConfig, read_config, require_same
from nldsl.train.data import Corpus, prepare
from nldsl.train.loop import CHECKPOINTS, Trainer, backward
from tests.unit.standin import ADAMW, MUON, StandIn, plan_of

TEXT = b"".join(b"%d bottles on the wall, %d bottles\n" % (i, i) for i in range(3000))
COSINE = (("lr", "cosine", (("value", 0.02), ("warmup", 3))),)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    (tmp_path / "text").write_bytes(TEXT)
    return prepare(str(tmp_path / "text"), tmp_path / "shards", length=24)


def config_of(steps: int = 8, **changes: object) -> RunConfig:
    return RunConfig(source="standin", data="text", batch=4, length=24, seed=3, steps=steps, **changes)


def trainer_of(corpus: Corpus, folder: Path, steps: int = 8, **changes: object) -> Trainer:
    folder.mkdir(exist_ok=True)
    slow = GroupRule(("out.*",), "momentum", (("beta", 0.8),), every=3, schedules=COSINE)
    plan = plan_of(slow, GroupRule(("matrices",), "muon", (), schedules=COSINE), ADAMW, clip=1.0, **changes)
    return Trainer(StandIn(plan), corpus, config_of(steps), folder)


def code_of(caught: pytest.ExceptionInfo[SpecError]) -> str:
    return caught.value.diagnostics[0].code


@pytest.mark.parametrize("stop_at", [1, 4, 7])
@pytest.mark.parametrize("truncate", [0, 10])
def test_resuming_is_bit_exact(corpus: Corpus, tmp_path: Path, stop_at: int, truncate: int) -> None:
    whole = trainer_of(corpus, tmp_path / "whole", truncate=truncate)
    whole.run(keep=3, show=False)
    first = trainer_of(corpus, tmp_path / "parts", truncate=truncate)
    for _ in range(stop_at):
        first.train_step()
    first.save(keep=3)
    torch.manual_seed(99)
    second = trainer_of(corpus, tmp_path / "parts", truncate=truncate)
    second.restore()
    assert second.step == stop_at
    second.run(keep=3, show=False)
    for path, parameter in whole.parameters.items():
        assert torch.equal(parameter, second.parameters[path]), path
    assert whole.loss == second.loss and whole.heldout == second.heldout
    for mine, other in zip(whole.groups, second.groups, strict=True):
        assert mine.state().keys() == other.state().keys()
        assert all(torch.equal(t, other.state()[name]) for name, t in mine.state().items())


def test_training_learns_and_leaves_log_plot_and_checkpoints(corpus: Corpus, tmp_path: Path) -> None:
    result = trainer_of(corpus, tmp_path / "run", steps=40).run(keep=2, show=False)
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [r["loss"] for r in records if "loss" in r]
    heldout = [r["heldout_bits_per_byte"] for r in records if "heldout_bits_per_byte" in r]
    assert len(losses) == 40 and losses[-1] < losses[0] - 0.5
    assert len(heldout) == 10 and heldout[-1] == result.heldout_bits_per_byte < heldout[0]
    assert result.tokens == 40 * 4 * 24 and result.steps == 40
    assert len(saved.checkpoints(tmp_path / "run" / CHECKPOINTS)) == 2
    ElementTree.parse(tmp_path / "run" / "loss.svg")


def test_log_records_after_the_resumed_step_are_made_again(corpus: Corpus, tmp_path: Path) -> None:
    first = trainer_of(corpus, tmp_path / "run")
    first.run(keep=99, show=False)
    newest = saved.checkpoints(tmp_path / "run" / CHECKPOINTS)[-1]
    newest.rename(tmp_path / "elsewhere")
    second = trainer_of(corpus, tmp_path / "run")
    second.restore()
    second.run(keep=99, show=False)
    steps = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in steps if "loss" in r] == list(range(1, 9))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_saves_and_goes_on(
    corpus: Corpus,
    tmp_path: Path,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trainer = trainer_of(corpus, tmp_path / "run", steps=1000)
    step = Trainer.train_step

    def interrupted(self: Trainer) -> dict[str, object]:
        if self.step == 4:
            os.kill(os.getpid(), number)
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(keep=3, show=True)
    assert "saved step 5: the same command with --resume" in capsys.readouterr().err
    assert signal.getsignal(number) is before
    assert saved.load_newest(tmp_path / "run" / CHECKPOINTS).step == 5


def test_damaged_checkpoints_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    trainer = trainer_of(corpus, tmp_path / "run")
    folder = tmp_path / "run" / CHECKPOINTS
    with pytest.raises(SpecError) as caught:
        trainer.restore()
    assert code_of(caught) == "NL0970"
    trainer.run(keep=2, show=False)
    tensors = saved.checkpoints(folder)[-1] / saved.TENSORS
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    with pytest.raises(SpecError) as caught:
        trainer.restore()
    assert code_of(caught) == "NL0971" and "step-0000000" in caught.value.diagnostics[0].help
    state = saved.checkpoints(folder)[-2] / saved.STATE
    state.write_text(state.read_text().replace('"loss": ', '"loss": 1'))
    with pytest.raises(SpecError) as caught:
        saved.load(state.parent)
    assert code_of(caught) == "NL0971"


def test_nothing_is_pickled(corpus: Corpus, tmp_path: Path) -> None:
    trainer_of(corpus, tmp_path / "run").run(keep=1, show=False)
    names = {p.name for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert names == {"log.jsonl", "loss.svg", saved.TENSORS, saved.STATE}


def test_weights_of_another_model_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    trainer_of(corpus, tmp_path / "run").save(keep=1)
    other = Trainer(StandIn(plan_of(MUON, ADAMW), dim=8), corpus, config_of(), tmp_path / "run")
    with pytest.raises(SpecError) as caught:
        other.restore()
    assert code_of(caught) == "NL0986"


def test_configuration(tmp_path: Path) -> None:
    config = config_of(arguments={"chunks": (4, 8), "dim": 32})
    config.write(tmp_path)
    assert read_config(tmp_path) == config
    require_same(config, config_of(99, arguments={"chunks": (4, 8), "dim": 32}))
    with pytest.raises(SpecError) as caught:
        require_same(config, config_of(arguments={"dim": 64}))
    assert code_of(caught) == "NL0983"
    with pytest.raises(SpecError) as caught:
        config_of(0)
    assert code_of(caught) == "NL0981"
    with pytest.raises(SpecError) as caught:
        read_config(tmp_path / "nothing")
    assert code_of(caught) == "NL0982"


def test_truncation_cuts_the_history_but_not_the_loss() -> None:
    tokens = torch.randint(0, 256, (2, 25), generator=torch.Generator().manual_seed(0))
    whole, cut = StandIn(), StandIn()
    assert backward(whole, tokens, 0) == pytest.approx(backward(cut, tokens, 7), rel=1e-6)
    assert torch.allclose(whole.v.grad, cut.v.grad, atol=1e-6)
    assert not torch.allclose(whole.w.grad, cut.w.grad, atol=1e-6)
