"""Faults: a killed process, a full or read-only disk, a damaged file, NaN and spikes lose no checkpoint."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nldsl.diagnostics import Diagnostic, SpecError
from nldsl.spec.program import GroupRule
from nldsl.train import checkpoint as saved
from nldsl.train.config import RunConfig
from nldsl.train.data import Corpus, prepare
from nldsl.train.guard import SKIPS_IN_A_ROW
from nldsl.train.log import read_log
from nldsl.train.loop import CHECKPOINTS, Trainer
from tests.unit.standin import ADAMW, StandIn, plan_of

TEXT = b"".join(b"%d bottles on the wall, %d bottles\n" % (i, i) for i in range(500))
STEPS = 40
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    (tmp_path / "text").write_bytes(TEXT)
    return prepare(str(tmp_path / "text"), tmp_path / "shards", length=12)


def trainer_of(corpus: Corpus, folder: Path, **changes: object) -> Trainer:
    """A trainer with a slow level: cuts fall inside its window."""
    folder.mkdir(exist_ok=True)
    slow = GroupRule(("out.*",), "momentum", (("lr", 0.01), ("beta", 0.8)), every=3)
    config = RunConfig("standin", data="text", batch=2, length=12, seed=3, **({"steps": STEPS} | changes))
    return Trainer(StandIn(plan_of(slow, ADAMW, clip=1.0)), corpus, config, folder)


def finding_of(caught: pytest.ExceptionInfo[SpecError]) -> Diagnostic:
    return caught.value.diagnostics[0]


# --- killed ---------------------------------------------------------------------------------------


def in_a_child(work: Callable[[], None], after: float | None = None) -> int:
    """Run `work` in a process of its own, kill it after so many seconds; the signal it died of, or 0."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0
    return 0


def go_on(corpus: Corpus, folder: Path) -> None:
    """Train to the end from wherever the folder is, saving after every second step."""
    trainer = trainer_of(corpus, folder, accumulate=2)
    if saved.checkpoints(folder / CHECKPOINTS):
        trainer.restore()
    while trainer.progress < 1:
        trainer.train_step()
        if trainer.step % 2 == 0:
            trainer.save(keep=2)
            (folder / "told").write_text(str(trainer.step))


def die_at(call: int) -> None:
    """In this process, die at the `call`-th of the operations that a save consists of."""
    left = [call]

    def mortal(function: Callable[..., object]) -> Callable[..., object]:
        def called(*given: object, **named: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*given, **named)

        return called

    os.fsync, os.rename, os.replace = mortal(os.fsync), mortal(os.rename), mortal(os.replace)
    os.unlink, os.rmdir, os.mkdir = mortal(os.unlink), mortal(os.rmdir), mortal(os.mkdir)
    saved.save_file, saved.digest_of = mortal(saved.save_file), mortal(saved.digest_of)


def check_nothing_is_lost(folder: Path) -> None:
    """Every checkpoint is whole, and the newest is at least what the process last said it had saved."""
    found = saved.checkpoints(folder / CHECKPOINTS)
    told = int((folder / "told").read_text() or 0) if (folder / "told").exists() else 0
    steps = [saved.load(path).step for path in found]
    assert max(steps, default=0) >= told


def check_kills(corpus: Corpus, folder: Path, kills: int, seed: int) -> None:
    """Kill a run `kills` times, half of them in a write; it ends in the weights of one left alone."""
    whole = trainer_of(corpus, folder / "whole", accumulate=2)
    go_on(corpus, folder / "whole")
    whole.restore()
    draw, begin = random.Random(seed), time.monotonic()
    in_a_child(lambda: go_on(corpus, folder / "timed"))
    took, died = time.monotonic() - begin, 0
    for number in range(kills):
        if number % 2:
            call = draw.randrange(1, 60)
            died += in_a_child(lambda call=call: (die_at(call), go_on(corpus, folder / "run"))) != 0
        else:
            died += in_a_child(lambda: go_on(corpus, folder / "run"), took * draw.random() / 2) != 0
        check_nothing_is_lost(folder / "run")
        newest = saved.checkpoints(folder / "run" / CHECKPOINTS)[-1:]
        if newest and newest[0].name == f"step-{STEPS:08d}":
            check_same(whole, folder / "run", corpus)
            shutil.rmtree(folder / "run")
    assert died >= kills // 3
    in_a_child(lambda: go_on(corpus, folder / "run"))
    check_same(whole, folder / "run", corpus)


def check_same(whole: Trainer, folder: Path, corpus: Corpus) -> None:
    other = trainer_of(corpus, folder, accumulate=2)
    other.restore()
    assert other.step == STEPS
    for path, weight in whole.parameters.items():
        assert torch.equal(weight, other.parameters[path]), path


@needs_fork
def test_killed_at_any_moment_a_run_loses_no_checkpoint(corpus: Corpus, tmp_path: Path) -> None:
    check_kills(corpus, tmp_path, kills=8, seed=1)


@needs_fork
@pytest.mark.long
def test_fifty_kills(corpus: Corpus, tmp_path: Path) -> None:
    check_kills(corpus, tmp_path, kills=50, seed=2)


@needs_fork
def test_killed_at_every_operation_of_a_save(corpus: Corpus, tmp_path: Path) -> None:
    """Every single operation of the first saves, among them those that delete an old checkpoint."""
    for call in range(1, 40):
        folder = tmp_path / f"at{call}"
        died = in_a_child(lambda call=call, folder=folder: (die_at(call), three_saves(corpus, folder)))
        check_nothing_is_lost(folder)
        trainer_of(corpus, folder).save(keep=1)
        left = {p.name for p in (folder / CHECKPOINTS).iterdir()}
        assert len(left) == 1, left  # and nothing half written stays
        shutil.rmtree(folder)
        if not died:
            break
    assert call > 20


def three_saves(corpus: Corpus, folder: Path) -> None:
    trainer = trainer_of(corpus, folder)
    for step in (1, 2, 3):
        trainer.step = step
        trainer.save(keep=1)
        (folder / "told").write_text(str(step))


# --- disks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("at", ["save_file", "write_text", "sync_folder"])
def test_a_save_that_fails_is_named_and_changes_nothing(
    corpus: Corpus, tmp_path: Path, number: int, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(corpus, tmp_path / "run")
    trainer.save(keep=1)
    trainer.train_step()

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken, pytest.raises(SpecError) as caught:
        broken.setattr(saved, at, fail)
        trainer.save(keep=1)
    found = finding_of(caught)
    assert found.code == "NL0973" and os.strerror(number).lower() in found.message
    assert "step-0000000" in found.notes[0] and "--resume" in found.help
    assert saved.load_newest(tmp_path / "run" / CHECKPOINTS).step in (0, 1)
    trainer.save(keep=1)
    assert saved.load_newest(tmp_path / "run" / CHECKPOINTS).step == 1


@needs_fork
def test_a_disk_that_is_really_full(corpus: Corpus, tmp_path: Path) -> None:
    """The system itself refuses to write more than so many bytes to a file."""
    trainer = trainer_of(corpus, tmp_path / "run")
    trainer.save(keep=3)
    size = (saved.checkpoints(tmp_path / "run" / CHECKPOINTS)[0] / saved.TENSORS).stat().st_size

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
        trainer.train_step()
        with pytest.raises(SpecError) as caught:
            trainer.save(keep=3)
        assert finding_of(caught).code == "NL0973"

    assert in_a_child(fill) == 0
    assert [p.name for p in (tmp_path / "run" / CHECKPOINTS).iterdir()] == ["step-00000000"]
    trainer.restore()


@pytest.mark.parametrize("name", [saved.TENSORS, saved.STATE])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_truncated_files_are_refused_and_the_one_before_is_named(
    corpus: Corpus, tmp_path: Path, name: str, keep: float
) -> None:
    trainer = trainer_of(corpus, tmp_path / "run")
    for _ in range(3):
        trainer.save(keep=3)
        trainer.train_step()
    found = saved.checkpoints(tmp_path / "run" / CHECKPOINTS)
    for path in found[1:]:
        data = (path / name).read_bytes()
        (path / name).write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(SpecError) as caught:
        trainer.restore()
    assert finding_of(caught).code == "NL0971" and "`step-00000000`" in finding_of(caught).help
    for path in found[1:]:
        shutil.rmtree(path)
    trainer.restore()
    assert trainer.step == 0


# --- NaN and spikes -------------------------------------------------------------------------------


def poison(
    monkeypatch: pytest.MonkeyPatch, steps: set[int], path: str, value: float, times: bool = False
) -> None:
    """At these steps (0 first) the gradient of one parameter is this number, or so many times itself."""
    gradients = Trainer.gradients

    def poisoned(self: Trainer) -> torch.Tensor:
        gradients(self)
        if self.step in steps:
            g = self.parameters[path].grad
            g.mul_(value) if times else g.view(-1)[:1].fill_(value)
        return torch.nn.utils.get_total_norm([p.grad for p in self.parameters.values()])

    monkeypatch.setattr(Trainer, "gradients", poisoned)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_saved_and_named(
    corpus: Corpus, tmp_path: Path, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {6}, "blocks[0].decay", value)
    trainer = trainer_of(corpus, tmp_path / "run")
    with pytest.raises(SpecError) as caught:
        trainer.run(keep=1, show=False)
    found = finding_of(caught)
    assert found.code == "NL0985" and "step 7" in found.message and "`blocks[0].decay`" in found.message
    said = " ".join(found.notes)
    assert "at byte" in said and "trained by `embeddings+head+norms+rest`" in said and "step-00000006" in said
    # What is saved is what stood before the step, and what had been saved is still there.
    steps = [saved.load(p).step for p in saved.checkpoints(tmp_path / "run" / CHECKPOINTS)]
    assert steps == [4, 6]
    again = trainer_of(corpus, tmp_path / "run")
    again.restore()
    assert all(torch.equal(p, again.parameters[path]) for path, p in trainer.parameters.items())
    with pytest.raises(SpecError):  # the same step is met again
        again.run(keep=1, show=False)


def test_weights_that_are_not_finite_are_not_saved(corpus: Corpus, tmp_path: Path) -> None:
    wild = plan_of(GroupRule(("rest",), "sgd", (("lr", 1e38),)))
    config = RunConfig("standin", data="text", batch=2, length=12, steps=20)
    (tmp_path / "run").mkdir()
    trainer = Trainer(StandIn(wild), corpus, config, tmp_path / "run")
    with torch.no_grad():
        trainer.parameters["blocks[0].decay"].fill_(float("inf"))
        trainer.parameters["out.head.weight"][0, 0] = float("nan")
    with pytest.raises(SpecError) as caught:
        trainer.run(keep=3, show=False)
    said = " ".join(finding_of(caught).notes)
    assert "`out.head.weight` is not finite already" in said.replace("`blocks[0].decay`, ", "")
    assert not saved.checkpoints(tmp_path / "run" / CHECKPOINTS)


def test_a_spike_stops_and_names_what_jumped(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {30}, "out.head.weight", 1e4, times=True)
    with pytest.raises(SpecError) as caught:
        trainer_of(corpus, tmp_path / "run", spike=50.0).run(keep=3, show=False)
    found = finding_of(caught)
    assert (
        found.code == "NL0989" and "step 31" in found.message and "`out.head.weight` is 100%" in found.message
    )
    assert trainer_of(corpus, tmp_path / "calm").run(keep=3, show=False).steps == STEPS  # none is looked for


@pytest.mark.parametrize("stop_at", [0, 7, 9])
def test_skipped_steps_change_no_weight_and_resume_exactly(
    corpus: Corpus, tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {6, 7, 8}, "blocks[0].M.W1", float("nan"))
    trainer = trainer_of(corpus, tmp_path / "run", on_fault="skip")
    kept = {}
    for _ in range(12):
        before = {path: p.detach().clone() for path, p in trainer.parameters.items()}
        record = trainer.train_step()
        same = [path for path, p in trainer.parameters.items() if torch.equal(p, before[path])]
        if record.get("skipped"):
            # The slow level fires at step 9 with nothing gathered: nothing changes at all.
            assert len(same) == len(before) and record["skipped"] == "not finite"
        kept[trainer.step] = record.get("skipped", "")
        if trainer.step == stop_at:
            trainer.save(keep=3)
            trainer = trainer_of(corpus, tmp_path / "run", on_fault="skip")
            trainer.restore()
    assert [step for step, said in kept.items() if said] == [7, 8, 9]
    whole = trainer_of(corpus, tmp_path / "whole", on_fault="skip")
    for _ in range(12):
        whole.train_step()
    assert all(torch.equal(p, trainer.parameters[path]) for path, p in whole.parameters.items())


def test_skipping_ends_after_too_many_in_a_row(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, set(range(5, 100)), "blocks[0].decay", float("nan"))
    with pytest.raises(SpecError) as caught:
        trainer_of(corpus, tmp_path / "run", on_fault="skip").run(keep=3, show=False)
    assert finding_of(caught).code == "NL0985"
    assert f"step {6 + SKIPS_IN_A_ROW}:" in finding_of(caught).message
    assert [r["skipped"] for r in read_log(tmp_path / "run") if "skipped" in r] == ["not finite"] * 20


@pytest.mark.parametrize("bad", [{"spike": 0.5}, {"spike": -1.0}, {"on_fault": "shrug"}, {"accumulate": 0}])
def test_bad_numbers(bad: dict[str, object]) -> None:
    with pytest.raises(SpecError) as caught:
        RunConfig("standin", steps=1, **bad)
    assert finding_of(caught).code == "NL0981"
