"""A model as a function of tensors alone: one token and the state in, logits and the state out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from nldsl.diagnostics import SpecError
from nldsl.exchange.errors import refused
from nldsl.runtime.model import Model
from nldsl.runtime.state import State
from nldsl.spec.program import Block, Call, Repeat, Write

CACHE = {"keys", "values", "valid"}
UNSEEN = 2
"""Slots that a cache begins with and nobody sees: an exported program takes sizes 0 and 1 as constants."""
EXAMPLE = 5
"""Tokens that the state of the example has seen."""


class Step(nn.Module):
    """One token `[1, 1]` and the tensors of a state, in the order of `names`, to logits and the next ones."""

    def __init__(self, model: Model, like: State) -> None:
        super().__init__()
        self.model = model
        self.structure = like.structure()
        self.names = list(like.tensors())

    def forward(self, tokens: Tensor, tensors: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits, and the tensors of the state behind the token."""
        given = dict(zip(self.names, tensors, strict=True))
        state = State.restore(self.structure, given.__getitem__, program=self.model.name)
        logits, after = self.model(tokens, state)
        found = after.tensors()
        return logits, tuple(found[name] for name in self.names)


class Whole(nn.Module):
    """Tokens `[1, T]` of a new sequence to logits `[1, T, vocab]`."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.model(tokens)[0]
        return logits


def frozen(model: Model) -> Model:
    """The model without gradients, on the CPU: what is exported only computes."""
    return model.cpu().eval().requires_grad_(False)


def beginning(model: Model) -> State:
    """The state of one new sequence, its caches with `UNSEEN` slots that are masked."""
    state = model.init_state(1)
    return State(_with_slots(state.tree), program=state.program).map(
        lambda x: x.detach().clone().contiguous()
    )


def _with_slots(tree: Any) -> Any:
    if isinstance(tree, dict) and set(tree) == CACHE:
        rooms = {name: tree[name].new_zeros(1, UNSEEN, *tree[name].shape[2:]) for name in ("keys", "values")}
        return rooms | {"valid": torch.zeros(1, UNSEEN, dtype=torch.bool)}
    if isinstance(tree, dict):
        return {key: _with_slots(value) for key, value in tree.items()}
    return [_with_slots(value) for value in tree] if isinstance(tree, list) else tree


def grows(name: str) -> bool:
    """Whether a tensor of the state has one row for each token of a cache."""
    return name.rpartition("/")[2] in CACHE


def example(model: Model, start: State) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Arguments of `Step` some tokens into a sequence."""
    tokens = torch.arange(EXAMPLE).unsqueeze(0) % 2
    with torch.no_grad():
        _, state = model(tokens, start)
    return torch.zeros(1, 1, dtype=torch.int64), tuple(x.contiguous() for x in state.tensors().values())


def variable_sizes(start: State) -> tuple[Any, Any]:
    """Which axes of the arguments of `Step` change from call to call."""
    auto = torch.export.Dim.AUTO
    return {}, tuple({1: auto} if grows(name) else {} for name in start.tensors())


def require_steps(model: Model) -> None:
    """Raise NL1108 for memories that commit every so many tokens.

    Whether one does at a token depends on its counter, and an exported program has no such branch.
    """
    slow = list(dict.fromkeys(_chunked(cast(Any, model).program.root)))
    if slow:
        listed = ", ".join(f"`{name}` every {every} tokens" for name, every in slow)
        raise _no_step(model, f"it has memories that commit at some tokens and not at others: {listed}")


def _no_step(model: Model, reason: str) -> SpecError:
    return refused(
        "NL1108",
        f"`{model.name}` cannot be exported as a program of tensors: {reason}",
        help="`nldsl export --to hf` writes it as readable source, which runs anywhere with torch",
    )


def _chunked(block: Block) -> Iterator[tuple[str, int]]:
    """Memories with a token clock above 1, or gradients held for longer, by name and clock."""
    clocks = {memory.name: memory.clock for memory in block.memories}
    for statement in block.body:
        if isinstance(statement, Call | Repeat):
            yield from _chunked(statement.block)
        elif isinstance(statement, Write):
            clock = clocks[statement.memory]
            every = max(clock.every if clock.unit == "tokens" else 1, statement.base_every)
            if every > 1:
                yield statement.memory, every


def unsupported(model: Model, wrong: Exception) -> SpecError:
    """NL1108 for what the exporter says it cannot do."""
    lines = [line.strip() for line in str(wrong).splitlines() if line.strip()]
    return _no_step(model, f"{type(wrong).__name__}: {lines[0][:200] if lines else ''}")
