"""The course of one weight over a chunk, where it and what its rules remember mix by numbers.

`Z = (W - r, slots of all terms)`, gradients held at the chunk's base:

    Z_t = A_t Z_{t-1} - sum over terms of b_t g_t - sum over erases of c_t (Z_{of, t-1} x_t) x_t^T

with `A_t [n, n]` and `b_t, c_t [n]` numbers: a `StateFilter`.  Shapes as in `course`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.filters import Place, Places
from nldsl.runtime.lessons import lessons_of, lessons_seen
from nldsl.runtime.memory import lift
from nldsl.runtime.state_filter import StateFilter
from nldsl.runtime.triangular import solve_unit_lower

Entry = Tensor | float
"""A number of every token `[*lead, C]`, or one for all."""


class Taken(NamedTuple):
    """The gradients of one term, `x [*lead, J, i]`, `dy [*lead, J, o]`, taken up in one of the ways."""

    x: Tensor
    dy: Tensor
    way: int
    weight: Tensor | None = None
    window: int = 1
    products: int = 1


class Erased(NamedTuple):
    """What state `of` has stored at `x [*lead, C, i]` is taken away from all states, in one of the ways."""

    x: Tensor
    way: int
    of: int


class Mixing:
    """`A_t` by rows and the ways `b_t, c_t` over a chunk of keys `[*lead, C, d]`, prepared once.

    >>> key, one = torch.ones(1, 2, 1), torch.ones(1, 2)
    >>> mixing = Mixing(key, ((1.0, 0.5 * one), (0.0, 0.5)), ((0.5, 1.0),))
    >>> mixing.behind(0).tolist(), mixing.total.tolist()
    ([[[1.0, 0.5], [0.5, 1.0]]], [[[1.0, 0.75], [0.0, 0.25]]])
    """

    def __init__(
        self,
        key: Tensor,
        rows: Sequence[Sequence[Entry]],
        ways: Sequence[Sequence[Entry]],
        valid: Tensor | None = None,
    ) -> None:
        self.lead, self.count = key.shape[:-2], len(rows)
        shape = key.shape[:-1]

        def spread(entries: Sequence[Entry], empty: Sequence[float]) -> Tensor:
            found = [e if isinstance(e, Tensor) else key.new_full((), e) for e in entries]
            made = torch.stack([e.expand(shape) for e in found], -1)
            if valid is None:
                return made
            nothing = key.new_tensor(empty)
            return torch.where(lift(valid, key[..., 0]).unsqueeze(-1), made, nothing)

        size = self.count
        unit = [float(i == j) for i in range(size) for j in range(size)]
        token = spread([e for row in rows for e in row], unit).unflatten(-1, (size, size, 1))
        into = [spread(way, [0.0] * size) for way in ways]
        flat = [x.flatten(0, len(self.lead) - 1) for x in (token, *into)]
        self.filter = StateFilter(flat[:1], flat[1:])
        self._kernels: dict[tuple[Places, Places], Tensor] = {}

    @cached_property
    def total(self) -> Tensor:
        """What is left of the states behind the chunk, `[*lead, n, n]`."""
        return self._headed(self.filter.total.squeeze(-1))

    def kernel(self, at: Places, of: Places) -> Tensor:
        """How much places see of what is taken up in some ways, `[*lead, C * r, C * s]`."""
        if (at, of) not in self._kernels:
            self._kernels[at, of] = self._headed(self.filter.weights(at, of))
        return self._kernels[at, of]

    def front(self, at: Places) -> Tensor:
        """What places see of the states in front of the chunk, `[*lead, C * r, n]`."""
        return self._headed(self.filter.front(at))

    def behind(self, way: int) -> Tensor:
        """What one of the ways leaves in the states behind the chunk, `[*lead, C, n]`."""
        return self._headed(self.filter.behind((_column(way),)))

    def _headed(self, flat: Tensor) -> Tensor:
        headed: Tensor = flat.unflatten(0, self.lead)
        return headed


def _column(way: int) -> Place:
    return Place(0, 0, way)


@dataclass
class StatesCourse:
    """One weight over one chunk, as `Course` has it.

    >>> x, key = torch.ones(1, 2, 1), torch.ones(1, 2, 1)
    >>> mixing = Mixing(key, ((1.0, 0.5), (0.0, 0.5)), ((0.5, 1.0),))
    >>> w, m = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
    >>> course = StatesCourse(w, (m,), (Taken(x, x, 0),), (), mixing)
    >>> [s.item() for s in course.close()], course.after(x).flatten().tolist()
    ([-0.5, -1.5], [0.5, -0.5])
    """

    weight: Tensor
    slots: Sequence[Tensor]
    taken: Sequence[Taken]
    erased: Sequence[Erased]
    mixing: Mixing
    toward: Tensor | None = None

    def end(self) -> Tensor:
        """The weight behind the chunk."""
        return self.close()[0]

    def close(self) -> tuple[Tensor, ...]:
        """The weight behind the chunk, and every slot."""
        held = torch.stack([x.expand(self._states[0].shape) for x in self._states], -3)
        new = (self.mixing.total @ held.flatten(-2)).view(held.shape)
        for one in self.taken:
            left = torch.stack(
                [lessons_of(one, n, False) for n in self.mixing.behind(one.way).unbind(-1)], -2
            )
            new = new - (one.dy.unsqueeze(-3) * left.unsqueeze(-1)).mT @ one.x.unsqueeze(-3)
        for n, gone in enumerate(self.erased):
            values = self._values[..., n :: len(self.erased), :].unsqueeze(-3)
            left = self.mixing.behind(gone.way).mT.unsqueeze(-1)
            new = new - (values * left).mT @ gone.x.unsqueeze(-3)
        first, *rest = new.unbind(-3)
        return (first if self.toward is None else first + self.toward, *rest)

    def after(self, z: Tensor) -> Tensor:
        """`z_t W_t^T`: what the weight makes of every token behind the token's own write."""
        return self._answer(z, Place(0, 1))

    def before(self, z: Tensor) -> Tensor:
        """`z_t W_{t-1}^T`: the same in front of the token's own write."""
        return self._answer(z, Place(0, 0))

    @cached_property
    def _states(self) -> tuple[Tensor, ...]:
        start = self.weight if self.toward is None else self.weight - self.toward
        return start, *self.slots

    def _forced(self, z: Tensor, at: Places) -> Tensor:
        """What states answer without the erases; rows `z` of every place of a token side by side."""
        front = self.mixing.front(at)
        y = (z @ self._states[0].mT) * front[..., :1]
        for n, state in enumerate(self._states[1:], 1):
            y = y + (z @ state.mT) * front[..., n : n + 1]
        for one in self.taken:
            kernel = lessons_seen(one, self.mixing.kernel(at, (_column(one.way),)))
            y = y - ((z @ one.x.mT) * kernel) @ one.dy
        return y

    @cached_property
    def _inputs(self) -> Tensor:
        """Inputs of all erases, those of a token together, `[*lead, C * s, i]`."""
        return torch.stack(torch.broadcast_tensors(*(e.x for e in self.erased)), -2).flatten(-3, -2)

    @cached_property
    def _columns(self) -> Places:
        return tuple(_column(e.way) for e in self.erased)

    @cached_property
    def _values(self) -> Tensor:
        """What every erase finds stored, `[*lead, C * s, o]`."""
        at = tuple(Place(0, 0, e.of) for e in self.erased)
        x = self._inputs
        system = (x @ x.mT) * self.mixing.kernel(at, self._columns)
        return solve_unit_lower(system, self._forced(x, at))

    def _answer(self, z: Tensor, at: Place) -> Tensor:
        y = self._forced(z, (at,))
        if self.erased:
            y = y - ((z @ self._inputs.mT) * self.mixing.kernel((at,), self._columns)) @ self._values
        return y if self.toward is None else y + z @ self.toward.mT
