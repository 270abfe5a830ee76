"""Two processes that write a checkpoint are killed, or cannot write: the one before stays, nothing hangs."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint.filesystem as torch_files

from nldsl.diagnostics import SpecError
from nldsl.train import checkpoint as saved
from nldsl.train import join
from nldsl.train.config import RunConfig
from nldsl.train.engine import closing
from nldsl.train.loop import CHECKPOINTS
from nldsl.train.run import start
from tests.conformance.processes import environment, free_port, spec
from tests.unit.test_train_faults import die_at, needs_fork

pytestmark = needs_fork
STEPS = 12
PATIENCE = 60.0
"""Seconds after which a process that should have ended has hung."""
Work = Callable[[int], None]


@dataclass(frozen=True)
class Job:
    """A run of two processes in a folder, which saves behind every second step."""

    source: str
    folder: Path
    kind: str
    later: bool

    @property
    def checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS

    def go_on(self, rank: int) -> None:
        """Train to the end from wherever the folder is; the first process tells what is surely saved."""
        os.environ["TORCHELASTIC_RESTART_COUNT"] = "1"  # as torchrun starts them anew
        torch.set_num_threads(1)
        config = RunConfig(
            self.source, steps=STEPS, batch=4, length=16, data=str(Path(self.source).parent / "text")
        )
        with closing(join(self.kind, async_save=self.later)) as engine:
            trainer = start(config, self.folder, False, engine)
            saver: Any = trainer.engine
            while trainer.step < STEPS:
                trainer.train_step()
                engine.settle()
                if trainer.step % 2 == 0:
                    trainer.save(keep=2, wait=not self.later)
                    asked = trainer.step
                if trainer.step % 2 == 0 and rank == 0 and saver.saver.pending is None:
                    (self.folder / "told").write_text(str(asked))
            engine.settle(wait=True)
            if rank == 0:
                (self.folder / "told").write_text(str(STEPS))


def two(work: Work, folder: Path) -> list[int]:
    """Two children at a job; their numbers.  What they say stands in `said0` and `said1`."""
    port, found = free_port(), []
    for rank in range(2):
        child = os.fork()
        if not child:
            try:
                with (folder / f"said{rank}").open("w") as said:
                    os.dup2(said.fileno(), 1)
                    os.dup2(said.fileno(), 2)
                    sys.stdout = sys.stderr = said
                    os.environ.update(environment(rank, 2, port) | {"NLDSL_TIMEOUT": "20"})
                    work(rank)
                os._exit(0)
            except BaseException:
                with (folder / f"said{rank}").open("a") as said:
                    traceback.print_exc(file=said)
                os._exit(1)
        found.append(child)
    return found


def ended(children: list[int], folder: Path) -> list[int]:
    """How children ended, as `waitpid` says; fails if one hangs."""
    found: dict[int, int] = {}
    until = time.monotonic() + PATIENCE
    while len(found) < len(children) and time.monotonic() < until:
        for child in set(children) - found.keys():
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                found[child] = status
        time.sleep(0.02)
    hung = [rank for rank, child in enumerate(children) if child not in found]
    for rank in hung:
        os.kill(children[rank], signal.SIGKILL)
        os.waitpid(children[rank], 0)
    said = "\n---\n".join((folder / f"said{rank}").read_text() for rank in hung)
    assert not hung, f"process {hung} hung:\n{said}"
    return [found[child] for child in children]


def well(work: Work, folder: Path) -> None:
    """Two children do a job to its end."""
    found = ended(two(work, folder), folder)
    said = "\n---\n".join((folder / f"said{rank}").read_text() for rank in range(2))
    assert found == [0, 0], said


def check_nothing_is_lost(job: Job) -> list[int]:
    """Every checkpoint is whole, the newest at least what was told to be saved; their steps."""
    steps = [saved.load(path).step for path in saved.checkpoints(job.checkpoints)]
    told = job.folder / "told"
    assert max(steps, default=0) >= int((told.read_text() if told.is_file() else "") or 0)
    return steps


def check_same(one: Job, other: Job) -> None:
    """Two runs ended in the same weights and memories, bit for bit."""
    mine, theirs = (saved.load_newest(job.checkpoints) for job in (one, other))
    assert mine.step == theirs.step == STEPS and mine.tensors.keys() == theirs.tensors.keys()
    for name, t in mine.tensors.items():
        assert torch.equal(t, theirs.tensors[name]), name


def check_kills(folder: Path, kind: str, later: bool, kills: int, seed: int) -> None:
    """Kill one process or both, at any moment or within a save; the run ends as one left alone."""
    source = spec("gated_deltanet", "slow", folder)
    whole, run = (Job(source, folder / name, kind, later) for name in ("whole", "run"))
    begun = time.monotonic()
    well(whole.go_on, folder)
    took, draw, died = time.monotonic() - begun, random.Random(seed), 0
    for number in range(kills):
        victims = draw.choice([(0,), (1,), (0, 1)])
        if number % 2:
            call = draw.randrange(1, 60)

            def work(rank: int, call: int = call, victims: tuple[int, ...] = victims) -> None:
                if rank in victims:
                    die_at(call)
                run.go_on(rank)

            children = two(work, folder)
        else:
            children = two(run.go_on, folder)
            time.sleep(took * draw.uniform(0.2, 0.9))
            for rank in victims:
                os.kill(children[rank], signal.SIGKILL)
        found = ended(children, folder)
        died += any(os.WIFSIGNALED(status) for status in found)
        for rank, status in enumerate(found):  # who is left says so, and no traceback of gloo
            said = (folder / f"said{rank}").read_text()
            assert os.WIFSIGNALED(status) or not status or "error[NL0998]" in said, said
        if STEPS in check_nothing_is_lost(run):
            check_same(whole, run)
            shutil.rmtree(run.folder)
    assert died >= kills // 3
    well(run.go_on, folder)
    check_same(whole, run)


@pytest.mark.long
def test_killed_in_the_middle_of_a_save(tmp_path: Path) -> None:
    check_kills(tmp_path, "fsdp", True, kills=3, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("later", [False, True], ids=["at once", "while training"])
def test_fifty_kills(kind: str, later: bool, tmp_path: Path) -> None:
    check_kills(tmp_path, kind, later, kills=13, seed=2 + later)


# --- disks ----------------------------------------------------------------------------------------


def full() -> None:
    """The system writes no more than a few bytes to a file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))


def room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def refusing(owner: Any, name: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """What makes a function fail as on a read-only disk, and what takes that back."""
    kept = getattr(owner, name)

    def fail(*given: object, **named: object) -> Any:
        if any("step-" in str(x) for x in given):  # what has been saved can be read
            return kept(*given, **named)
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    return lambda: setattr(owner, name, fail), lambda: setattr(owner, name, kept)


FAULTS: dict[str, tuple[tuple[Callable[[], None], Callable[[], None]], tuple[int, ...], str]] = {
    "full, both": ((full, room), (0, 1), "file too large"),
    "full, first": ((full, room), (0,), "file too large"),
    "full, second": ((full, room), (1,), "file too large"),
    "read-only, tensors": (refusing(torch_files.FileSystem, "create_stream"), (1,), "read-only"),
    "read-only, folder": (refusing(os, "mkdir"), (0,), "read-only"),
    "read-only, name": (refusing(saved, "write_state"), (0,), "read-only"),
    "unreadable, second": (refusing(saved, "digest_of"), (1,), "read-only"),
}


def meet(rank: int, job: Job) -> None:
    """A save that works, one with every fault, and one that works again."""
    torch.set_num_threads(1)
    config = RunConfig(job.source, steps=40, batch=4, length=16, data=str(Path(job.source).parent / "text"))
    trainer = start(config, job.folder, False, join(job.kind, async_save=job.later))
    trainer.train_step()
    trainer.save(keep=1, wait=True)
    for name, ((broken, mended), ranks, reason) in FAULTS.items():
        before = trainer.step
        trainer.train_step()
        (broken if rank in ranks else mended)()
        try:
            trainer.save(keep=1, wait=not job.later)
            trainer.train_step()
            trainer.engine.settle(wait=True)
            raise AssertionError(f"{name}: nothing was said")
        except SpecError as error:
            found = error.diagnostics[0]
            said = (name, found.code, found.message, found.notes, found.help)
            assert found.code == "NL0973" and reason in found.message.lower(), said
            assert f"step-{before:08d}" in found.notes[0] and "--resume" in (found.help or ""), said
        finally:
            mended()
        assert [saved.load(p).step for p in saved.checkpoints(job.checkpoints)] == [before], name
        assert trainer.save(keep=1, wait=True).is_dir()
        # Nothing half written stays.
        assert [p.name for p in job.checkpoints.iterdir()] == [f"step-{trainer.step:08d}"], name
    trainer.engine.close()


LATER = pytest.param(True, marks=pytest.mark.long)


@pytest.mark.parametrize("later", [False, LATER], ids=["at once", "while training"])
def test_a_disk_that_takes_nothing(later: bool, tmp_path: Path) -> None:
    """Full or read-only, for one process or both: all say why, and what had been saved is what there is."""
    source = spec("gated_deltanet", "slow", tmp_path)
    job = Job(source, tmp_path / "run", "fsdp", later)
    well(lambda rank: meet(rank, job), tmp_path)
