"""Products with gates: `a f(b)` of equal shapes, and rows times a number each."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.runtime.arrays import room_like
from nldsl.runtime.each_gradient import each_gradient
from nldsl.runtime.native import Step
from nldsl.runtime.row_loops import GATE, GATE_BACK, SCALE, SCALE_BACK, over_rows, ready

Number = Tensor | float


def times_silu(a: Number, b: Tensor) -> Tensor:
    """`a silu(b)`.

    >>> times_silu(torch.tensor([3.0]), torch.tensor([0.0])).item()
    0.0
    """
    return _gated("silu", a, b)


def times_sigmoid(a: Number, b: Tensor) -> Tensor:
    """`a sigmoid(b)`.

    >>> times_sigmoid(torch.tensor([3.0]), torch.tensor([0.0])).item()
    1.5
    """
    return _gated("sigmoid", a, b)


def scaled(a: Number, x: Tensor) -> Tensor:
    """`a x`, where `a [..., 1]` has a number for every row of `x [..., d]`, or for several.

    >>> scaled(torch.tensor([[2.0], [3.0]]), torch.ones(2, 2)).tolist()
    [[2.0, 2.0], [3.0, 3.0]]
    """
    if not isinstance(a, Tensor) or not a.dim() or a.shape[-1] != 1 or x.shape[-1] == 1:
        return a * x
    try:
        rates = a.expand(*x.shape[:-1], 1)
    except RuntimeError:
        return a * x
    step = ready(x, rates)
    if step is None:
        return a * x
    found: Tensor = _Scaled.apply(rates, x, step)  # type: ignore[no-untyped-call]
    return found


def _gated(name: str, a: Number, b: Tensor) -> Tensor:
    step = ready(a, b) if isinstance(a, Tensor) and a.shape == b.shape else None
    if step is None:
        gate: Tensor = _GATES[name](b)
        return a * gate
    found: Tensor = _Gated.apply(a, b, name, step)  # type: ignore[no-untyped-call]
    return found


_GATES: dict[str, Any] = {"silu": F.silu, "sigmoid": torch.sigmoid}


class _Gated(torch.autograd.Function):
    """Keeps its arguments only, and goes over memory once each way."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, name: str, step: Step) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.name = name
        y = room_like(a, *a.shape)
        over_rows(step, GATE, (a, b), (y,), name)
        return y

    @staticmethod
    @each_gradient
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        a, b = ctx.saved_tensors
        (dy,) = grads
        step = ready(a, b, dy)
        if step is None or torch.is_grad_enabled():
            gate = torch.sigmoid(b)
            bend = gate * (1 - gate)
            if ctx.name == "silu":
                return dy * (b * gate), dy * a * (gate + b * bend), None, None
            return dy * gate, dy * a * bend, None, None
        da, db = room_like(a, *a.shape), room_like(a, *a.shape)
        over_rows(step, GATE_BACK, (a, b, dy), (da, db), ctx.name)
        return da, db, None, None


class _Scaled(torch.autograd.Function):
    """The numbers of the rows are given sums, not products that are summed behind."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor, step: Step) -> Tensor:
        ctx.save_for_backward(a, x)
        y = room_like(x, *x.shape)
        over_rows(step, SCALE, (a, x), (y,))
        return y

    @staticmethod
    @each_gradient
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        a, x = ctx.saved_tensors
        (dy,) = grads
        step = ready(x, a, dy)
        if step is None or torch.is_grad_enabled():
            return (dy * x).sum(-1, keepdim=True), a * dy, None
        da, dx = x.new_empty(*x.shape[:-1], 1), room_like(x, *x.shape)
        over_rows(step, SCALE_BACK, (a, x, dy), (da, dx))
        return da, dx, None
