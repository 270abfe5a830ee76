"""What the interpreter says, asked once: outputs, and the state after every token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from nldsl.reference import Event, Interpreter, State
from nldsl.spec.program import Program

LARGEST = 1e50
"""Beyond it a reference has diverged: what is left after such numbers cancel is rounding."""
TAME = 1e6
"""Gradients, and `learn`, are compared while states stay below."""


@dataclass
class Forward:
    """A run without learning: `outputs[i] [B, T, ...]`, `states[t]` behind t tokens; where it `diverges`."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    states: list[State]
    events: list[Event]
    diverges: int | None = None
    gradients: dict[tuple[str, ...], list[Tensor]] = field(default_factory=dict)
    """Of the projection all benches share, by the outputs and states that it is made of; asked for once."""

    @property
    def tokens(self) -> int:
        """How many tokens there are to compare."""
        return len(self.states) - 1

    @property
    def batch(self) -> int:
        """How many sequences."""
        return len(self.states[0].samples)

    @cached_property
    def tame(self) -> int:
        """How many tokens the states stay below `TAME`, at least one."""
        found = (t for t in range(1, self.tokens + 1) if not _below(TAME, _tensors(self.states[t])))
        return max(1, next(found, self.tokens + 1) - 1)


@dataclass
class Learning:
    """A run of `learn`: per call its end, its loss, and the state behind it; `scored` targets in all."""

    tokens: Tensor
    cuts: tuple[int, ...]
    losses: list[Tensor] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    scored: int = 0
    after: tuple[Tensor, ...] = ()
    """Outputs of a `run` on `more` behind the last call."""
    more: tuple[Tensor, ...] = ()
    gradients: list[Tensor] | None = None


def run_forward(
    program: Program, parameters: dict[str, Tensor], inputs: tuple[Tensor, ...], say: Callable[[int], None]
) -> Forward:
    """The interpreter token by token; it stops where its numbers leave the range of float64."""
    events: list[Event] = []
    machine = Interpreter(program, parameters, torch.float64, events)
    batch, length = inputs[0].shape[:2]
    states, rows, diverges = [machine.initial_state(batch)], [], None
    for t in range(length):
        mark = len(events)
        y, state = machine.run(tuple(s[:, t : t + 1] for s in inputs), states[-1])
        outputs = y if isinstance(y, tuple) else (y,)
        if not _below(LARGEST, [*outputs, *_tensors(state)]):
            diverges = t
            del events[mark:]
            break
        events[mark:] = [e._replace(token=t) for e in events[mark:]]
        rows.append(outputs)
        states.append(state)
        say(t + 1)
    joined = tuple(
        torch.cat([row[i] for row in rows], 1)
        if rows
        else torch.zeros(batch, 0, *value.shape, dtype=torch.float64)
        for i, value in enumerate(program.root.outputs)
    )
    return Forward(inputs, joined, states, events, diverges)


def run_learning(
    program: Program,
    parameters: dict[str, Tensor],
    tokens: Tensor,
    cuts: Sequence[int],
    more: tuple[Tensor, ...] = (),
) -> Learning:
    """`learn` in calls that end at `cuts`, then, if there is `more`, a `run` that learns nothing."""
    events: list[Event] = []
    machine = Interpreter(program, parameters, torch.float64, events)
    found = Learning(tokens, tuple(cuts), events=events, more=more)
    state: State | None = None
    for start, end in zip((0, *cuts), cuts, strict=False):
        loss, state = machine.learn(tokens[:, start:end], state)
        found.losses.append(loss)
        found.states.append(state)
        found.scored += state.scored
    if more and state is not None:
        y, _ = machine.run(more, state)
        found.after = y if isinstance(y, tuple) else (y,)
    return found


def _tensors(state: State) -> Iterable[Tensor]:
    for sample in state.samples:
        for memory in sample.memories.values():
            yield from (tensor for name, tensor in memory.entries() if name.startswith("running"))


def _below(limit: float, tensors: Iterable[Tensor]) -> bool:
    """Whether every number is finite and not above `limit`."""
    largest = [x.detach().abs().amax() for x in tensors if x.numel()]
    return not largest or bool((torch.stack(largest) <= limit).all())
