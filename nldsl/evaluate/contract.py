"""What evaluation and training ask of a compiled model, and nothing more."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from nldsl.spec.program import Block as ProgramBlock
from nldsl.spec.program import Call, Program, Repeat, TaskWrite


class LanguageModel(Protocol):
    """A compiled model: `forward` never performs a task write, `learn` does."""

    program: Program

    def __call__(self, tokens: Tensor, state: Any = None, mask: Tensor | None = None) -> tuple[Tensor, Any]:
        """Tokens `[B, T]` to logits `[B, T, vocab]` and the state behind them."""

    def learn(
        self, tokens: Tensor, state: Any = None, mask: Tensor | None = None, *, backward: float = 0.0
    ) -> tuple[Tensor, Any]:
        """The summed next-token loss (nats) of `[B, T]` under the task writes it performs, and the state.

        `backward = s` adds the gradient of `s * loss` to the parameters on the way, and detaches.
        """


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
