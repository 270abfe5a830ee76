"""The gradients of `delta_write` from that of its result, without recording."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.delta_pieces import flow_through, kept_through, left_over, less, solved_pieces, unpacked
from nldsl.runtime.delta_system import Flow
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
    """The gradients of `delta_write` from that of its result, `d`; `inverse` is what `delta_write` has kept.

    With `u = -Y^T (X B D')`, `B` the decay to the end and `Y` the inverse: `dD = A D' + U^T (erase c X)`,
    `d(dy) = rate u`, `dN = tril(u d^T, -1)`, and so on: the adjoint of every line of `delta_write`.

    >>> one, half = torch.ones(1, 1, 1), torch.full((1, 1), 0.5)
    >>> found = delta_write_pullback(one, one, one, 0 * one, erase=half, rate=half)
    >>> found.weight.item(), found.erase.item()
    (0.5, -1.0)
    """
    inputs, folded = prepared(less(weight, toward), x, dy, alive(erase, valid), alive(rate, valid), gate)
    start, *rest = inputs
    solved = solved_pieces(start, rest, unpacked(inverse, start, rest[0]))
    found = flow_through(solved, rest, d.view(start.shape) if folded else d, gate is not None)
    if folded:
        found = _unfolded(found, weight.shape)
    d_gate = None
    if gate is not None:
        d_gate = Retention(found.to_end, found.total, found.scores, found.carried)
    return Gradients(
        found.start,
        found.x.sum_to_size(x.shape),
        found.dy.sum_to_size(dy.shape),
        alive(found.erase.sum_to_size(erase.shape), valid),
        alive(found.rate.sum_to_size(rate.shape), valid),
        d_gate,
        None if toward is None else left_over(d, found.start, toward.shape),
    )


def delta_kept_pullback(
    d: Tensor,
    weight: Tensor,
    x: Tensor,
    *,
    erase: Tensor,
    gate: Retention | None = None,
    toward: Tensor | None = None,
    valid: Tensor | None = None,
    inverse: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The gradients of the weight and of `toward` where all that `delta_write` writes is constant.

    What is left of `D = W - toward` is linear in it: `D' = A D - U^T (erase c X D^T) + ..`, so that
    `dD = A dD' - Z^T (erase c X)` with `Z = Y^T (X B dD'^T)`; `B`, `Y` as in `delta_write_pullback`.

    >>> one, half = torch.ones(1, 1, 1), torch.full((1, 1), 0.5)
    >>> delta_kept_pullback(one, one, one, erase=half)[0].item()
    0.5
    """
    erase = alive(erase, valid)
    nothing = x.new_zeros(()).expand(*weight.shape[:-2], x.shape[-2], weight.shape[-2])
    (start, x, _, erase, _, *gates), folded = prepared(weight, x, nothing, erase, erase, gate)
    flow = kept_through(d.view(start.shape) if folded else d, x, erase, gates, inverse)
    d_weight = flow.view(weight.shape) if folded else flow
    return d_weight, None if toward is None else left_over(d, d_weight, toward.shape)


def _unfolded(found: Flow, shape: torch.Size) -> Flow:
    """Memories side by side again, `[B, H, m, o, i]`; what they share has size 1 there."""
    return Flow(
        found.start.view(shape),
        found.x.unsqueeze(-3),
        found.dy.unflatten(-1, shape[-3:-1]).transpose(-3, -2),
        found.erase.unsqueeze(-2),
        found.rate.unsqueeze(-2),
        None if found.scores is None else found.scores.unsqueeze(-3),
        found.carried.unsqueeze(-2),
        found.to_end.unsqueeze(-2),
        found.total.unsqueeze(-1),
    )
