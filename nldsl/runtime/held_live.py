"""Weights as their writes have left them in front of every token of a chunk, for reads of a running state.

With gradients `g_j = dy_j x_j^T` held at a base (see `held_gates`)

    W_t = carried_t W + lent_t m + (1 - carried_t) r - sum over j of kernel_tj dy_j x_j^T,

so a product `W_t z_t` is one with every matrix in front of the chunk and two with what the chunk has written:
no weight of a token is ever made.  `m` the momentum, `r` what retention moves toward.

Shapes: `X` samples x heads, `C` tokens; rows `z [X, C, i]`, weights `[X, o, i]`, a bias `[X, 1, o]`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.runtime.held_gates import Following
from nldsl.runtime.held_parts import Groups, Kind

State = tuple[Tensor, Tensor | None]
"""A matrix in front of the chunk, and what is left of it at every token `[X, C, 1]`; `None`: all of it."""


def states_of(way: Following, matrices: Sequence[Tensor | None]) -> list[State]:
    """Weight, momentum and anchor (what is not there is `None`) with what is left of each."""
    weight, slot, anchor = matrices
    assert weight is not None
    found: list[State] = [(weight, way.carried)]
    if slot is not None:
        found.append((slot, way.lent))
    if anchor is not None and way.carried is not None:
        found.append((anchor, 1.0 - way.carried))
    return found


class LiveWeight:
    """`W(z)` for `W_t z_t`, `W.back(d)` for `W_t^T d_t`, then `gather` for all other gradients.

    >>> one, rows = torch.ones(1, 1, 1), torch.ones(1, 2, 1)
    >>> kernel = torch.tensor([[[0.25, 0.0], [0.25, 0.25]]])
    >>> LiveWeight([(one, None)], (rows, rows), kernel)(rows).flatten().tolist()
    [0.75, 0.5]
    """

    def __init__(
        self,
        states: list[State],
        pair: tuple[Tensor, Tensor],
        kernel: Tensor,
        scores: Tensor | None = None,
    ) -> None:
        self.states, self.kernel, self.scores = states, kernel, scores
        self.x, self.dy = pair

    def __call__(self, z: Tensor) -> Tensor:
        """Rows `[X, C, o]`."""
        self.scores = torch.bmm(z, self.x.mT)
        y: Tensor | None = None
        for matrix, left in self.states:
            rows = z if left is None else z * left
            y = torch.bmm(rows, matrix.mT) if y is None else y.baddbmm_(rows, matrix.mT)
        assert y is not None
        return y.baddbmm_(self.scores * self.kernel, self.dy, alpha=-1)

    def back(self, d: Tensor) -> Tensor:
        """From gradients at what it answered to those at what it was asked."""
        self.seen = torch.bmm(d, self.dy.mT)
        self.weighed = self.seen * self.kernel
        self.at = [torch.bmm(d, matrix) for matrix, _ in self.states]
        first, left = self.at[0], self.states[0][1]
        dz = torch.baddbmm(first, self.weighed, self.x, alpha=-1) if left is None else first * left
        for at, (_, more) in zip(self.at[1:], self.states[1:], strict=True):
            assert more is not None
            dz.addcmul_(at, more)
        return dz if left is None else dz.baddbmm_(self.weighed, self.x, alpha=-1)

    def gather(
        self, d: Tensor, z: Tensor | None, flows: Sequence[Tensor], seeds: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Add gradients to those of its states (`flows`) and of `x, dy` (`seeds`), behind `back`.

        Returns those at the kernel and at what is left of every state, `[X, C]`.
        """
        assert z is not None
        assert self.scores is not None
        for flow, (_, left) in zip(flows, self.states, strict=True):
            flow.baddbmm_(d.mT, z if left is None else z * left)
        seeds[0].baddbmm_(self.weighed.mT, z, alpha=-1)
        seeds[1].baddbmm_((self.scores * self.kernel).mT, d, alpha=-1)
        to_left = [
            torch.linalg.vecdot(at, z)
            for at, (_, left) in zip(self.at, self.states, strict=True)
            if left is not None
        ]
        return self.seen.mul_(self.scores).neg_(), to_left


class LiveBias:
    """The same of a bias, whose input is 1: a row for every token.

    >>> one, rows = torch.ones(1, 1, 1), torch.ones(1, 2, 1)
    >>> LiveBias([(one, None)], rows, torch.ones(1, 2, 2).tril()).rows().flatten().tolist()
    [0.0, -1.0]
    """

    def __init__(self, states: list[State], dy: Tensor, kernel: Tensor) -> None:
        self.states, self.dy, self.kernel = states, dy, kernel

    def rows(self) -> Tensor:
        """`[X, C, o]`."""
        (first, left), *rest = self.states
        y = torch.baddbmm(first if left is None else first * left, self.kernel, self.dy, alpha=-1)
        for row, more in rest:
            assert more is not None
            y.addcmul_(row, more)
        return y

    def gather(
        self, d: Tensor, z: Tensor | None, flows: Sequence[Tensor], seeds: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """See `LiveWeight.gather`."""
        assert z is None
        for flow, (_, left) in zip(flows, self.states, strict=True):
            if left is None:
                flow.add_(d.sum(1, keepdim=True))
            else:
                flow.baddbmm_(left.mT, d)
        seeds[0].baddbmm_(self.kernel.mT, d, alpha=-1)
        to_left = [torch.linalg.vecdot(d, row) for row, left in self.states if left is not None]
        return torch.bmm(d, self.dy.mT).neg_(), to_left


def live_weights(
    kind: Kind,
    given: Groups,
    way: Following,
    pairs: Sequence[tuple[Tensor, Tensor]],
    scores: Sequence[Tensor | None] = (),
) -> list[LiveWeight | LiveBias]:
    """Every weight of a chunk, on its way; `scores`: of a read that has been."""
    found: list[LiveWeight | LiveBias] = []
    for i, pair in enumerate(pairs):
        slot, anchor = (group[i] if group else None for group in (given.slots, given.anchors))
        states = states_of(way, (given.running[i], slot, anchor))
        if i in kind.biases:
            found.append(LiveBias(states, pair[0], way.kernel))
        else:
            found.append(LiveWeight(states, pair, way.kernel, scores[i] if scores else None))
    return found
