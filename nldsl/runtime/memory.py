"""Writing a chunk into the weights of a memory whose gradients are taken at the chunk's base.

With gradients at the base, every weight follows a recurrence of its own over the tokens of a chunk,
and only its end is needed.  `D = W - r`, `r` what retention decays toward:

* `decay_write`     `D_t = a_t D_{t-1} - rate_t dy_t x_t^T`                                     (gd)
* `delta_write`     `D_t = a_t D_{t-1} - erase_t (D_{t-1} x_t) x_t^T - rate_t dy_t x_t^T`       (dgd)

Shapes.  Weight `[*lead, o, i]`, its inputs `x [*lead, C, i]`, gradients at its outputs
`dy [*lead, C, o]`, rates and gates `[*lead, C]`; `lead` is `B`, `B, H` or, for memories side by side,
`B, H, m`.  Any of `x`, rates and gates may have size 1 where the weight has more; `x` and all
rates of size 1 in the last axis of `lead` share one product and one inverse for all `m`.
`valid [B, C]`: slots without a token change nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.decay import before, causal_mask, decay_kernel, decay_to_end
from nldsl.runtime.delta_pieces import DeltaWrite, less, packed, solved_pieces
from nldsl.runtime.delta_system import ended, flat


class Retention(NamedTuple):
    """What retention does over a chunk: `to_end [*lead, C]`, `total [*lead]`; for `delta_write` also
    `scores [*lead, C, C]`, `carried [*lead, C]`, as seen before a token's own step.
    """

    to_end: Tensor
    total: Tensor
    scores: Tensor | None = None
    carried: Tensor | None = None


def retention(
    *, retain: Tensor | None = None, log_retain: Tensor | None = None, valid: Tensor | None = None
) -> Retention:
    """The gates of a chunk prepared for `decay_write`, from plain or from log gates `[*lead, C]`.

    >>> retention(retain=torch.tensor([[0.5, 0.5]])).total.item()
    0.25
    """
    return Retention(*decay_to_end(*valid_gates(retain, log_retain, valid)))


def retention_kernel(
    *, retain: Tensor | None = None, log_retain: Tensor | None = None, valid: Tensor | None = None
) -> Retention:
    """The gates of a chunk prepared for `delta_write`; prepare them once for all weights they act on."""
    kernel = decay_kernel(*valid_gates(retain, log_retain, valid))
    return Retention(kernel.to_end, kernel.total, *before(kernel))


def decay_write(
    weight: Tensor,
    x: Tensor,
    dy: Tensor,
    *,
    rate: Tensor,
    gate: Retention | None = None,
    toward: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """The weight behind a chunk of gradient steps: `D_C = A D_0 - sum_t (a_{t+1} .. a_C) rate_t dy_t x_t^T`.

    >>> w, x, dy = torch.ones(1, 1, 1), torch.ones(1, 2, 1), torch.ones(1, 2, 1)
    >>> decay_write(w, x, dy, rate=torch.tensor([[0.1, 0.2]])).item()
    0.699...
    """
    rate = alive(rate, valid)
    start = weight if toward is None else weight - toward
    if gate is not None:
        rate = rate * gate.to_end
        start = start * gate.total[..., None, None]
    new = start - (dy * rate.unsqueeze(-1)).mT @ x
    return new if toward is None else new + toward


def delta_write(
    weight: Tensor,
    x: Tensor,
    dy: Tensor,
    *,
    erase: Tensor,
    rate: Tensor,
    gate: Retention | None = None,
    toward: Tensor | None = None,
    valid: Tensor | None = None,
    kept: list[Tensor | None] | None = None,
) -> Tensor:
    """The weight behind a chunk of delta gradient descent (each token erases what it will write over).

    The values really added solve `(I + N) d = -erase c (D_0 x) - rate dy` with
    `N_tj = erase_t (x_t . x_j) L_tj`; `D_C = A D_0 + sum_t (a_{t+1} .. a_C) d_t x_t^T`.
    `gate` from `retention_kernel`.  With a list `kept` nothing is recorded, and the inverses of the systems
    of its pieces are appended to it; `None` for a single token, which has none.

    >>> w, x, dy = torch.ones(1, 1, 1), torch.ones(1, 2, 1), torch.zeros(1, 2, 1)
    >>> half = torch.full((1, 2), 0.5)
    >>> delta_write(w, x, dy, erase=half, rate=half).item()
    0.25
    """
    erase, rate = alive(erase, valid), alive(rate, valid)
    if x.shape[-2] == 1:
        if kept is not None:
            kept.append(None)
        return _one_token(weight, x, dy, erase, rate, gate, toward)
    inputs, folded = prepared(weight, x, dy, erase, rate, gate)
    origin = toward
    if folded and toward is not None:
        origin = toward.expand(*toward.shape[:-3], *weight.shape[-3:]).flatten(-3, -2)
    if kept is None:
        new: Tensor = DeltaWrite.apply(origin, *inputs)  # type: ignore[no-untyped-call]
    else:
        solved = solved_pieces(less(inputs[0], origin), inputs[1:])
        kept.append(packed(solved))
        # Not recorded and its own tensor.
        new = ended(solved[-1]) if origin is None else ended(solved[-1]).add_(origin)
    return new.view(weight.shape) if folded else new


def _one_token(
    weight: Tensor,
    x: Tensor,
    dy: Tensor,
    erase: Tensor,
    rate: Tensor,
    gate: Retention | None,
    toward: Tensor | None,
) -> Tensor:
    """The recurrence as written: what is stored along the input is taken away with the gradient."""
    stored, kept = apply_weight(x, weight), weight
    if toward is not None:
        stored = stored - _shared_answer(x, toward)
    if gate is not None:
        total = gate.total[..., None, None]
        kept = weight * total if toward is None else torch.lerp(toward, weight, total)
    taken = erase.unsqueeze(-1) * stored + rate.unsqueeze(-1) * dy
    rows = x.expand(*taken.shape[:-1], x.shape[-1])
    factors = flat(taken).mT, flat(rows)
    if gate is None:
        return torch.baddbmm(flat(kept), *factors, alpha=-1).view(weight.shape)
    # What a gate has left is a new tensor.
    return flat(kept).baddbmm_(*factors, alpha=-1).view(weight.shape)


def _shared_answer(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight^T` for one token; a weight without an axis of samples answers all in one product."""
    if weight.dim() == x.dim():
        return apply_weight(x, weight)
    rows = x.squeeze(-2).movedim(0, -2)
    return apply_weight(rows, weight).movedim(-2, 0).unsqueeze(-2)


def apply_weight(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight^T` for `x [*lead, C, i]` and a weight `[*lead, o, i]`.

    Inputs shared by the memories side by side (size 1 in the last axis of `lead`) make one product
    with the weights below one another.

    >>> apply_weight(torch.ones(1, 1, 3, 2), torch.ones(1, 5, 4, 2)).shape
    torch.Size([1, 5, 3, 4])
    """
    if weight.dim() < 3 or x.shape[-3] != 1 or weight.shape[-3] == 1:
        return x @ weight.mT
    below = weight.flatten(-3, -2)
    y: Tensor = (x.squeeze(-3) @ below.mT).unflatten(-1, weight.shape[-3:-1])
    return y.transpose(-3, -2)


def lift(flags: Tensor, like: Tensor) -> Tensor:
    """`[B, C]` to `[B, 1, .., 1, C]`, as many axes as `like`."""
    return flags.view(flags.shape[0], *(1,) * (like.dim() - 2), flags.shape[1])


def alive(rate: Tensor, valid: Tensor | None) -> Tensor:
    return rate if valid is None else rate.masked_fill(~lift(valid, rate), 0.0)


def valid_gates(
    retain: Tensor | None, log_retain: Tensor | None, valid: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Log gates and plain gates, the identity where no token is."""
    if valid is None:
        return log_retain, retain
    if log_retain is not None:
        return log_retain.masked_fill(~lift(valid, log_retain), 0.0), None
    assert retain is not None
    return None, retain.masked_fill(~lift(valid, retain), 1.0)


def _fold(
    weight: Tensor, x: Tensor, dy: Tensor, erase: Tensor, rate: Tensor, gate: Retention | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Retention | None] | None:
    """Memories side by side with the same inputs and rates are one memory with more outputs."""
    if weight.dim() < 4 or weight.shape[-3] == 1:
        return None
    gates = () if gate is None else gate[:2]
    if x.shape[-3] != 1 or any(g.shape[-2] != 1 for g in (erase, rate, *gates[:1])):
        return None
    if gate is not None:
        assert gate.scores is not None and gate.carried is not None
        scores, carried = gate.scores.squeeze(-3), gate.carried.squeeze(-2)
        gate = Retention(gate.to_end.squeeze(-2), gate.total.squeeze(-1), scores, carried)
    return (
        weight.flatten(-3, -2),
        x.squeeze(-3),
        dy.transpose(-3, -2).flatten(-2),
        erase.squeeze(-2),
        rate.squeeze(-2),
        gate,
    )


def prepared(
    weight: Tensor,
    x: Tensor,
    dy: Tensor,
    erase: Tensor,
    rate: Tensor,
    gate: Retention | None,
) -> tuple[tuple[Tensor, ...], bool]:
    """The arguments of `DeltaWrite` behind `toward`, and whether memories side by side became one."""
    folded = _fold(weight, x, dy, erase, rate, gate)
    if folded is not None:
        weight, x, dy, erase, rate, gate = folded
    lead, size = weight.shape[:-2], x.shape[-2]
    x, dy = x.expand(*lead, *x.shape[-2:]), dy.expand(*lead, *dy.shape[-2:])
    erase, rate = erase.expand(*lead, size), rate.expand(*lead, size)
    if gate is None:
        scores, ones = causal_mask(size, x, strict=True), x.new_ones(size)
        gate = Retention(ones, x.new_ones(()), scores, ones)
    assert gate.scores is not None and gate.carried is not None
    numbers = gate.scores, gate.carried, gate.to_end, gate.total
    return (weight, x, dy, erase, rate, *numbers), folded is not None
