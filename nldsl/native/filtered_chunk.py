"""One chunk of a matrix memory whose rule remembers gradients, both ways, for lanes (see `native.filtered`).

Shapes: as in `runtime.filtered`, tensors of a chunk with `[B, H]` in front: `q [B, H, C, K]`, pieces
`[B, H, C, p, ..]`, kernels `[B, H, rows, ..]` or gates `[B, H, C, ..]`, states `[B, H, n, V, K]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.filter_kernels import KernelForm
from nldsl.runtime.filtered import Given, Kernels
from nldsl.runtime.triangular import unit_lower_inverse

Tensors = Sequence[Tensor | None]
ROWS = 5
"""Tensors of tokens of a pass; what kernels are made from comes behind them."""


class FilteredChunk:
    """The two functions; `form`: how kernels come from gates, `None` where they are given."""

    def __init__(self, form: KernelForm | None) -> None:
        self.form = form
        self.more = len(Kernels._fields) if form is None else 3

    def ahead(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """Answers of a chunk, the states behind it, what it adds, its inverse."""
        *given, states = tensors
        joined = _joined(given)
        assert states is not None
        return _ahead(_given(joined[:ROWS], self._kernels(joined[ROWS:])), states)

    def behind(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """The gradient of the states in front of a chunk, then those of what was given."""
        joined, rest = _joined(tensors[: ROWS + self.more]), tensors[ROWS + self.more :]
        rows, more, leaves = joined[:ROWS], joined[ROWS:], list[Tensor]()
        if self.form is not None:
            leaves = [x.detach().requires_grad_() for x in more if x is not None]
            more = _spread(leaves, more)
        with torch.set_grad_enabled(bool(leaves)):
            kernels = self._kernels(more)
        found = _behind(_given(rows, [None if x is None else x.detach() for x in kernels]), rest)
        flows = found[1 + ROWS :]
        if leaves:
            pairs = [(x, d) for x, d in zip(kernels, flows, strict=True) if x is not None and d is not None]
            made = torch.autograd.grad(
                [x for x, _ in pairs], leaves, [d for _, d in pairs], allow_unused=True
            )
            flows = _spread(made, more)
        lead = next(x for x in rest if x is not None).shape[:2]
        return [None if x is None else x.unflatten(0, lead) for x in (*found[: 1 + ROWS], *flows)]

    def _kernels(self, more: Tensors) -> Tensors:
        return more if self.form is None else self.form.kernels(*more)  # type: ignore[arg-type]


def _given(rows: Tensors, kernels: Tensors) -> Given:
    return Given(*rows, *kernels)  # type: ignore[arg-type]


def _joined(tensors: Tensors) -> list[Tensor | None]:
    """Lanes as one axis."""
    return [None if x is None else x.flatten(0, 1) for x in tensors]


def _spread(found: Tensors, like: Tensors) -> list[Tensor | None]:
    """What was found, at the places of what there is."""
    rest = iter(found)
    return [None if x is None else next(rest) for x in like]


class _Chunk(NamedTuple):
    """What both ways make of a chunk, lanes joined; `rows` that write, then those that read."""

    rows: Tensor
    k: Tensor
    gram: Tensor
    shown: Tensor
    e: Tensor
    weights: Tensor
    """Of the states at all rows, with the rates of those that write."""


def _chunk(given: Given) -> _Chunk:
    k, e = given.k.flatten(1, 2), given.e.flatten(1, 2).unsqueeze(-1)
    rows = torch.cat([k if given.f is None else given.f.flatten(1, 2), given.q], 1)
    k = rows[:, : k.shape[1]] if given.f is None else k
    shown = given.seen
    if shown is None:
        # Rows that write see nothing of the last row that reads.
        shown = torch.cat([torch.zeros_like(given.read[:, :1]), given.read[:, :-1]], 1)
    weights = torch.cat([given.fading * e, given.carried], 1)
    return _Chunk(rows, k, torch.bmm(rows, k.mT), shown, e, weights)


def _weighed(parts: Sequence[Tensor], weights: Tensor) -> Tensor:
    """`sum_i weights_i parts_i` for weights `[X, rows, n]` of every state."""
    pairs = zip(parts, weights.split(1, -1), strict=True)
    first, *others = (x * weight for x, weight in pairs)
    for x in others:
        first = first + x
    found: Tensor = first
    return found


def _mixed(states: Sequence[Tensor], weights: Tensor) -> list[Tensor]:
    """`sum_j weights_ij Z_j` for all i."""
    flat = weights.flatten(1)[..., None].split(len(states), 1)
    return [_weighed(states, row.mT) for row in flat]


def _ahead(given: Given, states: Tensor) -> list[Tensor | None]:
    at, lead = _chunk(given), states.shape[:2]
    size, count = at.k.shape[1], states.shape[2]
    whole = states.flatten(0, 1)
    met = torch.bmm(at.rows, whole.flatten(1, 2).mT).unflatten(2, (count, -1)).unbind(2)
    seen = _weighed(met, at.weights)
    inverse = unit_lower_inverse(at.gram[:, :size] * at.shown * at.e)
    added = torch.bmm(inverse, given.w.flatten(1, 2) - seen[:, :size])
    y = torch.baddbmm(seen[:, size:], at.gram[:, size:] * given.read, added)
    mixed = zip(_mixed(whole.unbind(1), given.total), given.end.split(1, -1), strict=True)
    new = torch.stack([torch.baddbmm(z, added.mT, end * at.k) for z, end in mixed], 1)
    return [x.unflatten(0, lead) for x in (y, new, added, inverse)]


def _behind(given: Given, rest: Tensors) -> list[Tensor | None]:
    at = _chunk(given)
    states, added, inverse, dy, flow = (x.flatten(0, 1) for x in rest if x is not None)
    size, count = at.k.shape[1], states.shape[1]
    old, flows = states.unbind(1), flow.unbind(1)
    later = torch.bmm(at.k, flow.flatten(1, 2).mT).unflatten(2, (count, -1)).unbind(2)
    reads = (at.gram[:, size:] * given.read).mT
    d_wanted = torch.bmm(inverse.mT, torch.baddbmm(_weighed(later, given.end), reads, dy))
    d_met = torch.cat([-d_wanted, dy], 1)
    mixed = zip(_mixed(flows, given.total.mT), at.weights.split(1, -1), strict=True)
    d_old = torch.stack([torch.baddbmm(z, (d_met * weight).mT, at.rows) for z, weight in mixed], 1)
    d_total = torch.stack([torch.stack([(a * b).sum((-1, -2)) for b in old], -1) for a in flows], -2)
    spread, left = [torch.bmm(d_met, z) for z in old], [torch.bmm(added, z) for z in flows]
    d_weights, d_end = (
        torch.stack([(x * rows).sum(-1) for x in parts], -1)
        for rows, parts in ((at.rows, spread), (at.k, left))
    )
    d_gram = torch.bmm(d_met, added.mT)
    of_rate = (at.gram[:, :size] * d_gram[:, :size]).tril(-1)
    d_e = (of_rate * at.shown).sum(-1) + (d_weights[:, :size] * given.fading).sum(-1)
    d_shown, d_read = of_rate * at.e, at.gram[:, size:] * d_gram[:, size:]
    if given.seen is None:
        d_read = d_read + torch.cat([d_shown[:, 1:], torch.zeros_like(d_shown[:, :1])], 1)
    scores = torch.cat([(d_gram[:, :size] * at.shown * at.e).tril(-1), d_gram[:, size:] * given.read], 1)
    d_rows = torch.baddbmm(_weighed(spread, at.weights), scores, at.k)
    d_k = torch.baddbmm(_weighed(left, given.end), scores.mT, at.rows)
    d_f, d_q = d_rows[:, :size], d_rows[:, size:]
    own, pieces = given.f is None, given.k.shape[1:3]
    d_k, d_f, d_w, d_e = (x.unflatten(1, pieces) for x in (d_k + d_f if own else d_k, d_f, d_wanted, d_e))
    tokens = [d_old, d_q, d_k, d_w, d_e, None if own else d_f]
    kernels = [None if given.seen is None else d_shown, d_read, d_weights[:, :size] * at.e]
    return [*tokens, *kernels, d_weights[:, size:], d_end, d_total]
