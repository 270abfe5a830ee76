"""State handed from step to step while the rows of a batch read on: truncated back-propagation in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from nldsl.runtime.state import State
from nldsl.train.errors import fault


class Sequential(Protocol):
    """What has a state that can begin anew."""

    def new_sequence(self, state: State) -> State:
        """The state at the start of the next sequence."""


@dataclass
class Carried:
    """The detached state behind the last step, one for every batch whose gradients a step sums."""

    states: list[State | None] = field(default_factory=list)

    def before(self, model: Sequential, batch: int, fresh: Tensor) -> State | None:
        """The state that batch number `batch` begins with; rows where `fresh [B]` begin a new document.

        Memories with `reset never` keep what they have, as everywhere between sequences.
        """
        state = self.states[batch] if batch < len(self.states) else None
        if state is None or not bool(fresh.any()):
            return state
        anew = model.new_sequence(state).tensors()
        merged = {path: begun(x, anew.get(path), fresh) for path, x in state.tensors().items()}
        return State.restore(state.structure(), merged.__getitem__, program=state.program)

    def after(self, states: list[State], model: Sequential) -> None:
        """Keep the states behind a step.  Raises NL0990 if one grows with what is read."""
        self.states = [fixed(state.detach(), model) for state in states]

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint: every tensor as `number/path`, none sharing its memory with another."""
        known = [(i, s.clone()) for i, s in enumerate(self.states) if s is not None]
        return {f"{i}/{path}": x for i, s in known for path, x in s.tensors().items()}

    def structures(self) -> list[Any]:
        """For a checkpoint: what the tensors are parts of, and whose state it is."""
        return [[s.program, s.structure()] for s in self.states if s is not None]

    def restore(self, structures: list[Any], tensors: Mapping[str, Tensor]) -> None:
        """Go back to what `tensors` and `structures` gave."""
        self.states = [
            State.restore(structure, lambda path, i=i: tensors[f"{i}/{path}"], program=program)  # type: ignore[misc]
            for i, (program, structure) in enumerate(structures)
        ]


def begun(old: Tensor, new: Tensor | None, fresh: Tensor) -> Tensor:
    """`new` in the rows that begin (zero where a fresh state has no such part yet), `old` in the others.

    Example:
        >>> begun(torch.tensor([1, 2]), torch.tensor([7, 8]), torch.tensor([True, False]))
        tensor([7, 2])
    """
    if old.dim() == 0 or len(old) != len(fresh):
        return old
    mask = fresh.view(-1, *(1,) * (old.dim() - 1))
    return torch.where(mask, torch.zeros_like(old) if new is None else new, old)


def fixed(state: State, model: Sequential) -> State:
    """`state` without the token that `learn` holds back: the next window begins with it.  Raises NL0990."""
    kept = State({name: part for name, part in state.tree.items() if name != "held"}, program=state.program)
    found = kept.tensors()
    for path, x in model.new_sequence(kept).tensors().items():
        if path in found and x.shape != found[path].shape:
            raise fault(
                "NL0990",
                f"the state `{path}` grows with what is read and cannot be carried from step to step",
                help="train without `--stream`, or use memories of a fixed size instead of attention",
            )
    return kept
