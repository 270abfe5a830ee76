"""The gradients of `delta_write` from that of its result, without recording."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.delta_system import flow_of, solve
from nldsl.runtime.memory import Retention, alive, prepared


class Gradients(NamedTuple):
    """What `delta_write_pullback` returns: the gradients of the arguments of `delta_write`."""

    weight: Tensor
    x: Tensor
    dy: Tensor
    erase: Tensor
    rate: Tensor
    gate: Retention | None
    toward: Tensor | None


def delta_write_pullback(
    d: Tensor,
    weight: Tensor,
    x: Tensor,
    dy: Tensor,
    *,
    erase: Tensor,
    rate: Tensor,
    gate: Retention | None = None,
    toward: Tensor | None = None,
    valid: Tensor | None = None,
    inverse: Tensor | None = None,
) -> Gradients:
    """The gradients of `delta_write` from that of its result, `d`; `inverse` as `delta_write` kept it.

    With `u = -Y^T (X B D')`, `B` the decay to the end and `Y` the inverse: `dD = A D' + U^T (erase c X)`,
    `d(dy) = rate u`, `dN = tril(u d^T, -1)`, and so on: the adjoint of every line of `delta_write`.

    >>> one, half = torch.ones(1, 1, 1), torch.full((1, 1), 0.5)
    >>> found = delta_write_pullback(one, one, one, 0 * one, erase=half, rate=half)
    >>> found.weight.item(), found.erase.item()
    (0.5, -1.0)
    """
    inputs, folded = prepared(weight, x, dy, alive(erase, valid), alive(rate, valid), gate, toward)
    found = flow_of(solve(inputs, inverse), d.view(inputs[0].shape) if folded else d, gate is not None)
    d_start, d_x, d_dy, d_erase, d_rate, d_scores, d_carried, d_end, d_total = map(_known, found)
    if folded:
        d_start, d_x = d_start.view(weight.shape), d_x.unsqueeze(-3)
        d_dy = d_dy.unflatten(-1, weight.shape[-3:-1]).transpose(-3, -2)
        d_erase, d_rate = d_erase.unsqueeze(-2), d_rate.unsqueeze(-2)
    if folded and gate is not None:
        d_carried, d_end = d_carried.unsqueeze(-2), d_end.unsqueeze(-2)
        d_scores, d_total = d_scores.unsqueeze(-3), d_total.unsqueeze(-1)
    d_gate = None if gate is None else Retention(d_end, d_total, d_scores, d_carried)
    return Gradients(
        d_start,
        d_x.sum_to_size(x.shape),
        d_dy.sum_to_size(dy.shape),
        alive(d_erase.sum_to_size(erase.shape), valid),
        alive(d_rate.sum_to_size(rate.shape), valid),
        d_gate,
        None if toward is None else (d - d_start).sum_to_size(toward.shape),
    )


def _known(x: Tensor | None) -> Tensor:
    return torch.zeros(()) if x is None else x
