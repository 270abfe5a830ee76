"""Runs of several processes on torch's own engines: the same batch, the same clocks, the same weights.

A batch is shared by rows: process r of N takes the r-th N-th of it, so the rows of a step do not depend on
N.  Each sums its gradients under the same `share`, and the sum over the processes is that of one process
but for the order of additions.  `Replicated` holds the whole model in every process (DDP), `Sharded` a
share of it (FSDP2).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.nn.parallel import DistributedDataParallel

from nldsl.diagnostics import SpecError
from nldsl.evaluate import LanguageModel, learns
from nldsl.evaluate.bits import PADDING, Windows
from nldsl.train import checkpoint as saved
from nldsl.train.building import TrainableModel
from nldsl.train.config import RunConfig
from nldsl.train.engine import Engine, Parameters
from nldsl.train.errors import fault
from nldsl.train.groups import Claimed
from nldsl.train.log import RunLog, Silent
from nldsl.train.optimisers import OptimiserGroup
from nldsl.train.parallel_rules import SharedGroup, Whole
from nldsl.train.reduce import sum_over
from nldsl.train.sharded_checkpoint import Saver, load_shares
from nldsl.train.spreading import refusal

Result = TypeVar("Result")
PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others before it gives up (`NLDSL_TIMEOUT` seconds instead)."""


def engine_of(kind: str, *, backend: str, device: str, async_save: bool) -> Engine:
    """Join the processes `torchrun` started.

    Raises NL0992 for a backend or device that is not there, NL0998 if the others do not come.
    """
    place = local_device(device)
    chosen = ("nccl" if place.startswith("cuda") else "gloo") if backend == "auto" else backend
    there = dist.is_gloo_available() if chosen == "gloo" else dist.is_nccl_available()
    if not there or (chosen == "nccl" and not place.startswith("cuda")):
        raise fault("NL0992", f"the backend `{chosen}` cannot work on `{place}` here", help="try the other")
    if place.startswith("cuda"):
        torch.cuda.set_device(place)
    try:
        if not dist.is_initialized():
            meet("gloo" if chosen == "gloo" else "cpu:gloo,cuda:nccl")
        if kind == "ddp":
            return Replicated(place, async_save=async_save)
        from nldsl.train.sharding import Sharded

        return Sharded(place, async_save=async_save)
    except RuntimeError as error:
        gone = left_alone(error)
        if gone is None:
            raise
        raise gone from error


def meet(backend: str) -> None:
    """Find the other processes.  Checkpoints are agreed upon over the CPU, whatever carries the gradients."""
    seconds = float(os.environ.get("NLDSL_TIMEOUT", PATIENCE.total_seconds()))
    dist.init_process_group(
        backend,
        store=meeting_place(timedelta(seconds=seconds)),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=seconds),
    )


def left_alone(error: RuntimeError) -> SpecError | None:
    """NL0998 for an error of the transport: of gloo, which has no type for it, or of torch; else nothing."""
    said = str(error).splitlines()[0] if str(error) else ""
    if not isinstance(error, dist.DistError) and "gloo" not in said:
        return None
    return fault(
        "NL0998",
        "another process of the run is gone, or does not answer",
        notes=(said,),
        help="the checkpoints are whole: start all processes again with `--resume`, "
        "or let `torchrun --max-restarts N` do it",
    )


def meeting_place(patience: timedelta) -> PrefixStore:
    """The store by which processes find each other, with names of its own for every attempt.

    `torchrun` keeps one store for all its attempts: without a prefix the processes of the second one would
    look for the ports of those that have died.
    """
    world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        world,
        is_master=rank == 0 and not agents,
        timeout=patience,
    )
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"nldsl/{world}/attempt_{attempt}", store)


def local_device(device: str) -> str:
    """`cuda` is the device of the local rank."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


class Processes(Engine):
    """What several processes have in common, however they hold the model."""

    sharded = False
    """Whether each holds a share of the weights."""

    def __init__(self, device: str, *, async_save: bool = False) -> None:
        super().__init__(device)
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.saver = Saver(self.device, later=async_save)

    def memory(self) -> int:
        """Processes of one machine share its memory."""
        here = 1 if self.device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return super().memory() // here

    def require_room(self, model: TrainableModel, config: RunConfig) -> None:
        """Raise NL0991 if a process holds more than it may use in a step, NL0994 for compiling shares."""
        if self.sharded and config.compiled != "no":
            raise fault(
                "NL0994",
                f"`--compile {config.compiled}` is not for `fsdp`, which gathers weights around passes",
                help="use `--parallel ddp`, or leave it out",
            )
        error = refusal(model, config, self.world, sharded=self.sharded, have=self.memory())
        if error is not None:
            raise self.stop(error)

    def part(self, windows: Windows) -> Windows:
        """The r-th N-th, filled up with windows of padding: all read equally many."""
        each = -(-len(windows) // self.world)
        mine = windows[self.rank * each : (self.rank + 1) * each]
        rows = (0, each - len(mine))
        return np.pad(mine, (rows, *((0, 0),) * (mine.ndim - 1)), constant_values=PADDING)

    def require_shares(self, batch: int) -> None:
        """Raise NL0993 unless every process gets equally many rows of a batch."""
        if batch % self.world:
            raise fault(
                "NL0993",
                f"`--batch {batch}` windows cannot be shared by {self.world} processes",
                help=f"use a multiple of {self.world}; `--accumulate` sums batches",
            )

    def require_alike(self, config: str) -> None:
        """Raise NL0995 unless all processes were asked the same."""
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, sha256(config.encode()).hexdigest())
        different = [r for r, digest in enumerate(found) if digest != found[0]]
        if different:
            raise fault("NL0995", f"process {different[0]} was started differently from process 0")

    def mine(self, rows: Tensor) -> Tensor:
        """The r-th N-th of the rows."""
        each = len(rows) // self.world
        return rows[self.rank * each : (self.rank + 1) * each].to(self.device)

    def longest(self, seconds: float) -> float:
        """The most over the processes: the same clock for `minutes` everywhere."""
        found = torch.tensor([seconds], dtype=torch.float64, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return float(found)

    def agreed(self, *asked: bool) -> tuple[bool, ...]:
        """Whether any process says so."""
        found = torch.tensor([float(a) for a in asked], device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(bool(f) for f in found)

    def summed(self, number: float) -> float:
        """The sum over the processes."""
        found = torch.tensor([number], dtype=torch.float64, device=self.device)
        dist.all_reduce(found)
        return float(found)

    def led(self, work: Callable[[], Result]) -> Result:
        """`work()`, done by the first process before the others; its error ends them all."""
        result, error = None, None
        if self.first:
            try:
                result = work()
            except SpecError as found:
                error = found
        (failed,) = self.agreed(error is not None)
        if failed:
            raise error or SystemExit(1)
        return cast(Result, result) if self.first else work()

    def stop(self, error: Exception) -> Exception:
        """All processes have met it: the first one says it, the others leave."""
        return error if self.first else cast(Exception, SystemExit(1))

    def log(self, folder: Path, *, resumed_at: int, show: bool, board: bool = False) -> RunLog | Silent:
        """The first process writes the log."""
        if not self.first:
            return Silent()
        return super().log(folder, resumed_at=resumed_at, show=show, board=board)

    def save(self, folder: Path, found: saved.Checkpoint, *, keep: int, wait: bool) -> Path:
        """Every process writes what it holds; the first one gives the whole its name."""
        return self.saver.save(folder, found, keep=keep, wait=wait)

    def settle(self, *, wait: bool = False) -> None:
        """Give a checkpoint its name once all processes have written theirs."""
        self.saver.settle(wait=wait)

    def load(self, folder: Path, into: Parameters, rows: int) -> saved.Checkpoint:
        """What this process has of the newest checkpoint, whoever wrote it and however many they were."""
        return load_shares(folder, into, rows, self)

    def close(self) -> None:
        """Leave the other processes."""
        dist.destroy_process_group()

    def gone(self, error: RuntimeError) -> Exception | None:
        """What to raise if an error says that another process is gone."""
        return left_alone(error)


class Passes(nn.Module):
    """A model's passes, each of which hands on a state without its history.

    Otherwise the wrapper takes what writes a memory that this pass does not read for a part of it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, state: Any, mask: Tensor | None) -> tuple[Tensor, Any]:
        """Logits and state."""
        logits, state = self.model(tokens, state, mask)
        return logits, state.detach()


class Face:
    """A model whose passes go through `DistributedDataParallel`."""

    def __init__(self, model: LanguageModel, wrapped: nn.Module) -> None:
        self.program = model.program
        self.learn = model.learn
        self.wrapped = wrapped

    def __call__(self, tokens: Tensor, state: Any = None, mask: Tensor | None = None) -> tuple[Tensor, Any]:
        """Logits and state."""
        found: tuple[Tensor, Any] = self.wrapped(tokens, state, mask)
        return found


class Replicated(Processes):
    """Every process holds the whole model.

    Where gradients come from one backward pass, torch's `DistributedDataParallel` sums them while it runs.
    `learn` goes through a sequence in segments and puts gradients of its own in place; then they are summed
    behind the last one, in buckets.
    """

    wrapped: DistributedDataParallel | None = None

    def prepare(self, model: Any) -> None:
        """The model on the device; wrapped where its gradients come from one pass."""
        super().prepare(model)
        self.parameters: Callable[[], dict[str, nn.Parameter]] = model.parameter_paths
        if not learns(model.program):
            # Some weights may have no part in some pass: those that no process used keep no gradient.
            self.wrapped = DistributedDataParallel(
                Passes(model),
                forward_sync_buffers=False,
                find_unused_parameters=True,
                gradient_as_bucket_view=True,
            )
            self.wrapped.register_comm_hook(None, _summing())

    def groups(self, claims: list[Claimed], model: nn.Module) -> list[OptimiserGroup]:
        """Rules for elements everywhere, rules for matrices by owners."""
        layout = Whole(self.rank, self.world)
        return [SharedGroup(claimed, layout, model) for claimed in claims]

    def face(self, model: LanguageModel) -> LanguageModel:
        """The model, or its wrapper."""
        return model if self.wrapped is None else cast(LanguageModel, Face(model, self.wrapped))

    def piece(self, last: bool) -> AbstractContextManager[None]:
        """The last backward pass of a step sums the gradients of all."""
        if self.wrapped is None or last:
            return nullcontext()
        return cast(AbstractContextManager[None], self.wrapped.no_sync())

    def exchange(self, loss: float) -> float:
        """Sum the gradients, if the wrapper has not, and the loss."""
        if self.wrapped is None:
            sum_over(list(self.parameters().values()))
        return self.summed(loss)


def _summing() -> Callable[[object, Any], Any]:
    """The plain sum: every gradient has been divided by the targets of the whole batch already."""

    def hook(_, bucket):  # type: ignore[no-untyped-def]  # torch looks at annotations, and these are text here
        done = dist.all_reduce(bucket.buffer(), async_op=True)
        return done.get_future().then(lambda found: found.value()[0])

    return hook
