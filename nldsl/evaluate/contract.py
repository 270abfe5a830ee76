"""What evaluation and training ask of a compiled model, and nothing more."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nldsl.spec.program import Block as ProgramBlock
from nldsl.spec.program import Call, Program, Repeat, TaskWrite


class LanguageModel(Protocol):
    """A compiled model: `forward` never performs a task write, `learn` does."""

    program: Program

    def __call__(self, tokens: Tensor, state: Any = None, mask: Tensor | None = None) -> tuple[Tensor, Any]:
        """Tokens `[B, T]` to logits `[B, T, vocab]` and the state behind them."""

    def learn(
        self,
        tokens: Tensor,
        state: Any = None,
        mask: Tensor | None = None,
        *,
        backward: float = 0.0,
        label: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """The summed loss (nats) of the task on `[B, T]` under the task writes it performs, and the state.

        `backward = s` adds the gradient of `s * loss` to the parameters on the way, and detaches.
        """


def device_of(model: LanguageModel) -> torch.device:
    """Where the model computes: its tokens are put there.

    Example:
        >>> import nldsl
        >>> device_of(nldsl.compile("hope_tiny", dim=16, depth=1))
        device(type='cpu')
    """
    known = getattr(model, "device", None)
    if isinstance(known, torch.device):
        return known
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


def labelled(program: Program) -> bool:
    """Whether the task is `label`: every token is scored by a label of its own."""
    return program.train is not None and program.train.task == "label"


def learns(program: Program) -> bool:
    """Whether a pass of training is a call of `learn`: for task writes, and for labels."""
    return labelled(program) or writes_task(program)


def writes_task(program: Program) -> bool:
    """Whether some memory of the program minimises the task, so that only `learn` performs its writes."""
    return block_writes_task(program.root)


def block_writes_task(block: ProgramBlock) -> bool:
    """Whether the block, or one it calls, holds a task write."""
    for statement in block.body:
        if isinstance(statement, TaskWrite):
            return True
        if isinstance(statement, Call | Repeat) and block_writes_task(statement.block):
            return True
    return False
