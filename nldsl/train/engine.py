"""What a run does once per process: where its model lives, which rows it sees, what it says and saves.

`Engine` is one process on one device.  `nldsl.train.parallel` has those of many processes; the loop knows
no other difference between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from nldsl.evaluate import LanguageModel
from nldsl.evaluate.bits import Windows
from nldsl.train import checkpoint as saved
from nldsl.train import memory as estimate
from nldsl.train.building import TrainableModel, step_of
from nldsl.train.config import RunConfig
from nldsl.train.errors import fault
from nldsl.train.groups import Claimed
from nldsl.train.log import RunLog, Silent
from nldsl.train.optimisers import OptimiserGroup, make_groups

Result = TypeVar("Result")
Parameters = Mapping[str, Tensor]


class Engine:
    """One process: every row is its own, and nothing has to be agreed.

    A step asks in this order: `passes` (around forward and backward), `mine`, `piece`, `exchange`, then
    `norm` and `scale`; the groups come from `groups`.
    """

    rank, world = 0, 1

    def __init__(self, device: str = "cpu") -> None:
        """Raises NL0992 for a device that is not there."""
        self.device = device_of(device)

    @property
    def first(self) -> bool:
        """Whether this process writes the log and the run's files."""
        return self.rank == 0

    def memory(self) -> int:
        """The bytes this process may use; 0 if the system does not say."""
        if self.device.type == "cuda":
            return int(torch.cuda.get_device_properties(self.device).total_memory)
        return estimate.available()

    def require_room(self, model: TrainableModel, config: RunConfig) -> None:
        """Raise NL0991 if a step takes more memory than there is."""
        step, plan = step_of(model, config), model.program.train
        size = {"batch": config.batch, "length": config.length}
        estimate.require_memory(model, plan, step, **size, have=self.memory())

    def require_shares(self, batch: int) -> None:
        """Raise NL0993 unless every process gets equally many rows of a batch."""

    def require_alike(self, config: str) -> None:
        """Raise NL0995 unless all processes were asked the same."""

    def prepare(self, model: Any) -> None:
        """Take the model to the device; here parameters get their final form."""
        if self.device.type != "cpu":
            model.to(self.device)

    def groups(self, claims: list[Claimed], model: nn.Module) -> list[OptimiserGroup]:
        """One optimiser per group."""
        return make_groups(claims, model)

    def face(self, model: LanguageModel) -> LanguageModel:
        """What is called in place of the model in a training pass."""
        return model

    def mine(self, rows: Tensor) -> Tensor:
        """The rows `[B, ...]` of a batch that this process works on, on its device."""
        return rows.to(self.device)

    def part(self, windows: Windows) -> Windows:
        """The held-out windows that this process reads."""
        return windows

    def summed(self, number: float) -> float:
        """The sum over the processes."""
        return number

    def passes(self) -> AbstractContextManager[None]:
        """Around all passes of a step and the exchange."""
        return nullcontext()

    def piece(self, last: bool) -> AbstractContextManager[None]:
        """Around one forward and backward pass; `last` of the step."""
        return nullcontext()

    def exchange(self, loss: float) -> float:
        """Sum the gradients, and the loss, over the processes."""
        return loss

    def norm(self, parameters: Parameters) -> Tensor:
        """The norm of all gradients together."""
        return nn.utils.get_total_norm([p.grad for p in parameters.values() if p.grad is not None])

    def scale(self, parameters: Parameters, largest: float, norm: Tensor) -> None:
        """Scale the gradients down to the norm `largest`."""
        nn.utils.clip_grads_with_norm_(parameters.values(), largest, norm)

    def whole(self) -> AbstractContextManager[None]:
        """Around what reads the model outside of a training step."""
        return nullcontext()

    def full(self, tensor: Tensor | None) -> Tensor | None:
        """All of a parameter or gradient."""
        return tensor

    def longest(self, seconds: float) -> float:
        """The most over the processes."""
        return seconds

    def agreed(self, *asked: bool) -> tuple[bool, ...]:
        """Whether any process says so."""
        return asked

    def led(self, work: Callable[[], Result]) -> Result:
        """`work()`, done by the first process before the others."""
        return work()

    def stop(self, error: Exception) -> Exception:
        """What to raise for an error that all processes have met: the first one says it."""
        return error

    def log(self, folder: Path, *, resumed_at: int, show: bool, board: bool = False) -> RunLog | Silent:
        """The log of the run, with `board` for TensorBoard too."""
        return RunLog(folder, resumed_at=resumed_at, show=show, board=board)

    def save(self, folder: Path, found: saved.Checkpoint, *, keep: int, wait: bool) -> Path:
        """Write a checkpoint; with `wait` it is there when the call returns."""
        return saved.save(folder, found, keep=keep)

    def settle(self, *, wait: bool = False) -> None:
        """Finish what is being saved, if all processes are done with it, or `wait` for it."""

    def load(self, folder: Path, into: Parameters, rows: int) -> saved.Checkpoint:
        """The newest checkpoint: what this process has of it; `into` is filled where it can be in place."""
        return saved.load_newest(folder)

    def place(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors on the device."""
        return {name: t.to(self.device) for name, t in tensors.items()}

    def close(self) -> None:
        """Leave the other processes."""

    def gone(self, error: RuntimeError) -> Exception | None:
        """What to raise if an error says that another process is gone."""
        return None


@contextmanager
def closing(engine: Engine) -> Iterator[Engine]:
    """Close the engine behind work that ends well or is interrupted; a fault ends the process anyway.

    Raises NL0998 where another process has gone away meanwhile.
    """
    try:
        yield engine
    except KeyboardInterrupt:
        engine.close()
        raise
    except RuntimeError as error:
        gone = engine.gone(error)
        if gone is None:
            raise
        raise gone from error
    engine.close()


def device_of(name: str) -> torch.device:
    """The device of this name.  Raises NL0992 for one that this machine, or this torch, has not.

    Example:
        >>> device_of("cpu")
        device(type='cpu')
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise fault(
            "NL0992",
            f"there is no device `{name}`: {str(error).splitlines()[0]}",
            help="leave `--device` out to train on the CPU",
        ) from error
    return device


def module_of(model: LanguageModel) -> nn.Module:
    """A language model as the module it is."""
    return cast(nn.Module, model)
