"""Processes for tests: `started(n, job, folder)` runs a job of this file in n of them and waits, never long.

They find each other as under `torchrun`, through a store on a free port of this machine.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from nldsl.cli import main
from nldsl.diagnostics import SpecError
from nldsl.runtime import newton_schulz
from nldsl.train import loop
from nldsl.train.config import RunConfig
from nldsl.train.joining import join
from nldsl.train.log import Silent
from nldsl.train.loop import Trainer
from nldsl.train.run import start

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 240
"""Seconds after which a test of processes has failed."""
HOPE = """
variant small of {base} {{
{levels}}}

train small {{
  task next_token{task}
  clip 0.5
  level pretraining every 1 step {{
    {groups}
  }}
}}
"""
RULES = {
    "adamw": "rest by adamw(lr = 1e-3)",
    "muon": "matrices by muon(lr = 3e-3) norms, embeddings, head, rest by adamw(lr = 1e-3)",
    "m3": "matrices by m3(lr = 1e-4, eps = 1e-2, slow = 3) norms, embeddings, head, rest by adamw(lr = 1e-3)",
    "shampoo": "matrices by shampoo(lr = 3e-3) norms, embeddings, head, rest by adamw(lr = 1e-3)",
    "dgd": "matrices by dgd(lr = 3e-3) norms, embeddings, head, rest by adamw(lr = 1e-3)",
    "dgd_momentum": "matrices by dgd_momentum(lr = 3e-3) norms, embeddings, head, rest by adamw(lr = 1e-3)",
    "slow": "matrices by muon(lr = 3e-3) norms, embeddings, head, rest by adamw(lr = 1e-3)",
}
MODELS = {
    "hope": ("hope(dim = 16, depth = 2, heads = 2, chunks = [8, 16])", '(carry = "exact")'),
    "hope_attention": (
        "hope_attention(dim = 16, depth = 2, heads = 2, chunks = [8, 16])",
        '(carry = "exact")',
    ),
    "transformer": ("transformer(dim = 16, depth = 2, heads = 2)", ""),
    "gated_deltanet": ("gated_deltanet(dim = 16, depth = 2, heads = 2)", ""),
    "hope_trunc": ("hope(dim = 16, depth = 1, heads = 2, chunks = [8, 16])", '(carry = "trunc")'),
}
HOPE_LEVELS = """  level "self_modifying_titans.projections" every 8 tokens
  level "self_modifying_titans.recall" every 16 tokens
"""


def spec(model: str, rule: str, folder: Path) -> str:
    """A small model with this rule, as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text").write_bytes(
        b"".join(b"%d bottles on the wall, %d left;\n" % (i, i * i) for i in range(3000))
    )
    base, task = MODELS[model]
    levels = HOPE_LEVELS if base.startswith("hope(") else ""
    groups = RULES[rule].replace(") norms", ")\n    norms")
    text = HOPE.format(base=base, levels=levels, task=task, groups=groups)
    if rule == "slow":
        text = text.replace("every 1 step", "every 3 steps")
    path = folder / f"{model}_{rule}.nl"
    path.write_text(text)
    return str(path)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    found = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    found |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1, "NLDSL_TIMEOUT": 60}
    kept = {name: value for name, value in os.environ.items() if name != "NLDSL_DEBUG"}
    return kept | {"PYTHONPATH": str(ROOT)} | {name: str(value) for name, value in found.items()}


def spawned(world: int, job: str, folder: Path, **given: Any) -> list[subprocess.Popen[str]]:
    """Processes at a job."""
    port = free_port()
    command = [sys.executable, "-m", "tests.conformance.processes", job, str(folder), json.dumps(given)]
    options: dict[str, Any] = {"cwd": ROOT, "text": True, "stdout": subprocess.PIPE}
    options |= {"stderr": subprocess.STDOUT}
    return [subprocess.Popen(command, env=environment(rank, world, port), **options) for rank in range(world)]


def started(world: int, job: str, folder: Path, **given: Any) -> list[str]:
    """What every process said; fails if one does not end well in time."""
    running = spawned(world, job, folder, **given)
    said = ended(running)
    assert all(p.returncode == 0 for p in running), "\n---\n".join(said)
    return said


def ended(running: list[subprocess.Popen[str]]) -> list[str]:
    """What processes said until they ended; killed after the limit."""
    try:
        return [p.communicate(timeout=LIMIT)[0] for p in running]
    except subprocess.TimeoutExpired:
        for p in running:
            p.kill()
        raise AssertionError("hung:\n" + "\n---\n".join(p.communicate()[0] for p in running)) from None


@dataclass(frozen=True)
class Case:
    """`take` steps of a run of `steps` in `folder`, from its beginning or from a checkpoint."""

    source: str
    folder: str
    kind: str = ""
    steps: int = 10
    take: int = 10
    resume: bool = False
    save: bool = False
    later: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def trainer(case: Case, folder: Path) -> Any:
    """A trainer of this process, alone or with the others."""
    torch.set_num_threads(1)
    # In bfloat16 the last bit of a sum decides where a singular value goes: 1e-3 instead of 1e-7.
    newton_schulz.fast_bfloat16 = lambda device: False  # type: ignore[assignment]
    given = {"batch": 4, "length": 32, "seed": 3, "data": str(folder / "text"), **case.options}
    engine = join(case.kind, async_save=case.later) if case.kind else None
    return start(RunConfig(case.source, steps=case.steps, **given), folder / case.folder, case.resume, engine)


def full(trained: Any) -> dict[str, torch.Tensor]:
    """All weights, whoever holds them."""
    return {path: trained.engine.full(p).detach().clone() for path, p in trained.parameters.items()}


def outcome(case: Case, folder: Path) -> dict[str, Any]:
    """Losses and norms of the steps of a case, the weights behind them and what they say of held-out text."""
    trained = trainer(case, folder)
    before = full(trained)
    records = [trained.train_step() for _ in range(case.take)]
    if case.save:
        trained.save(keep=3, wait=not case.later)
    trained.evaluate(Silent())
    if case.later:  # what is being written is what stood when it was asked for
        trained.train_step()
        trained.engine.settle(wait=True)
    told = [(r["loss"], r["gradient_norm"]) for r in records]
    return {"before": before, "weights": full(trained), "told": told, "bits": trained.heldout}


def runs(folder: Path, cases: list[dict[str, Any]]) -> None:
    """Leave what comes of every case in `<number>.pt`."""
    for number, case in enumerate(cases):
        result = outcome(Case(**case), folder)
        if os.environ["RANK"] == "0":
            torch.save(result, folder / f"{number}.pt")
    leave()


def together(world: int, cases: list[Case], folder: Path) -> list[dict[str, Any]]:
    """What comes of cases in so many processes."""
    started(world, "runs", folder, cases=[asdict(case) for case in cases])
    return [torch.load(folder / f"{number}.pt") for number in range(len(cases))]


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def command(folder: Path, words: list[str]) -> None:
    """The command itself."""
    sys.exit(main(words))


def flaky(folder: Path, words: list[str], at: int) -> None:
    """The command, whose second process dies at a step of the first attempt."""
    step = Trainer.train_step

    def dying(self: Trainer) -> dict[str, Any]:
        if self.step == at and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os._exit(9)
        return step(self)

    Trainer.train_step = dying  # type: ignore[method-assign]
    sys.exit(main(words))


def faults(folder: Path, cases: dict[str, dict[str, Any]]) -> None:
    """What each process meets in cases that must not run; in `poisoned` the rows of the second are NaN."""
    rank, met = os.environ["RANK"], {}
    passes = loop.backward_from

    def poisoned(*given: Any) -> Any:
        loss, state = passes(*given)
        return loss * float("nan") if rank == "1" else loss, state

    for name, case in cases.items():
        loop.backward_from = poisoned if name.startswith("poisoned") else passes
        own = {"seed": int(rank)} if name == "different" else {}
        chosen = Case(**case)
        try:
            trained = trainer(replace(chosen, options={**chosen.options, **own}), folder)
            met[name] = [r.get("skipped", "") for r in (trained.train_step() for _ in range(chosen.take))]
        except SpecError as error:
            met[name] = error.diagnostics[0].code
        except SystemExit:
            met[name] = "left"
    (folder / f"met{rank}.json").write_text(json.dumps(met))
    leave()


class Counted:
    """What this process receives through `torch.distributed`: rings move all but one share."""

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}
        self.world, self.rank = dist.get_world_size(), dist.get_rank()
        others = self.world - 1
        rings: dict[str, Callable[..., float]] = {
            "all_reduce": lambda t, *_, **__: 2 * others * t.nbytes / self.world,
            "broadcast": lambda t, src, **_: t.nbytes if src != self.rank else 0,
            "all_gather_single": lambda out=None, *a, output_tensor=None, **_: (
                (output_tensor if out is None else out).nbytes * others / self.world
            ),
            "reduce_scatter_single": lambda out=None, *a, output=None, **_: (
                (output if out is None else out).nbytes * others
            ),
            "all_to_all_single": lambda out, _, sizes, *__: (
                out.nbytes - sizes[self.rank] * out.element_size()
            ),
        }
        for name, size in rings.items():
            setattr(dist, name, self.counting(name, getattr(dist, name), size))

    def counting(self, name: str, real: Callable[..., Any], size: Callable[..., float]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            received = size(*given, **named)
            if received >= 256:  # flags, losses, norms and clocks are smaller
                self.bytes[name] = self.bytes.get(name, 0) + int(received)
            return real(*given, **named)

        return counted


def measured(folder: Path, cases: list[dict[str, Any]]) -> None:
    """What the first process holds, and receives in the second step, in bytes."""
    found, counted = [], None
    for case in cases:
        trained = trainer(Case(**case), folder)
        counted = counted or Counted()
        trained.train_step()
        counted.bytes.clear()
        trained.train_step()
        received = dict(counted.bytes)
        held = [local(p) for p in trained.parameters.values()]
        memories = [local(t) for group in trained.groups for t in group.state().values()]
        masters = [t for group in trained.groups for t in group.owned.values()]
        sizes = {"parameters": held, "optimiser": memories, "masters": masters}
        found.append({n: sum(t.nbytes for t in ts) for n, ts in sizes.items()} | {"received": received})
    if os.environ["RANK"] == "0":
        (folder / "measured.json").write_text(json.dumps(found))
    leave()


def local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


JOBS: dict[str, Callable[..., None]] = {
    "runs": runs,
    "command": command,
    "flaky": flaky,
    "faults": faults,
    "measured": measured,
}

if __name__ == "__main__":
    JOBS[sys.argv[1]](Path(sys.argv[2]), **json.loads(sys.argv[3]))
