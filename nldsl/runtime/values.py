"""Functions of one token's value, with any axes in front: `[B, T, ...]`, `[B, H, C, ...]`, or none."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.runtime.arrays import room_like
from nldsl.runtime.c_calls import traced
from nldsl.runtime.each_gradient import each_gradient
from nldsl.runtime.first_order import first_order
from nldsl.runtime.row_loops import NORM, NORM_BACK, PARTS, UNIT, UNIT_BACK, over_rows, ready
from nldsl.runtime.rule_rows import rows_linear

Number = Tensor | float
FEW = 1 << 12
"""Numbers from which on a norm is worth a call of C: torch needs ten operations."""


def constant(*, value: float) -> float:
    """A number of the program."""
    return value


def _pair(a: Number, b: Number) -> tuple[Tensor, Tensor]:
    """Both as tensors of the type and device of the one that is a tensor."""
    like = a if isinstance(a, Tensor) else b
    assert isinstance(like, Tensor)
    first = a if isinstance(a, Tensor) else torch.as_tensor(a, dtype=like.dtype, device=like.device)
    second = b if isinstance(b, Tensor) else torch.as_tensor(b, dtype=like.dtype, device=like.device)
    return first, second


def maximum(a: Number, b: Number) -> Tensor:
    """The larger one; where both are equal they share the gradient.

    >>> maximum(torch.tensor([-1.0, 2.0]), 0)
    tensor([0., 2.])
    """
    return torch.maximum(*_pair(a, b))


def minimum(a: Number, b: Number) -> Tensor:
    """The smaller one; where both are equal they share the gradient."""
    return torch.minimum(*_pair(a, b))


def lt(a: Number, b: Number) -> Tensor:
    """`a < b` as 0 or 1.

    >>> lt(torch.tensor([-1.0, 2.0]), 0)
    tensor([1., 0.])
    """
    a, b = _pair(a, b)
    return (a < b).to(a.dtype)


def le(a: Number, b: Number) -> Tensor:
    """`a <= b` as 0 or 1."""
    a, b = _pair(a, b)
    return (a <= b).to(a.dtype)


def gt(a: Number, b: Number) -> Tensor:
    """`a > b` as 0 or 1."""
    a, b = _pair(a, b)
    return (a > b).to(a.dtype)


def ge(a: Number, b: Number) -> Tensor:
    """`a >= b` as 0 or 1."""
    a, b = _pair(a, b)
    return (a >= b).to(a.dtype)


def eq(a: Number, b: Number) -> Tensor:
    """`a == b` as 0 or 1."""
    a, b = _pair(a, b)
    return (a == b).to(a.dtype)


def ne(a: Number, b: Number) -> Tensor:
    """`a != b` as 0 or 1."""
    a, b = _pair(a, b)
    return (a != b).to(a.dtype)


def where(condition: Number, a: Number, b: Number) -> Tensor:
    """`a` where the condition is not 0, else `b`; two numbers take the type of the condition.

    >>> where(torch.ones(1, dtype=torch.bfloat16), 0.5, 1).dtype
    torch.bfloat16
    """
    if not isinstance(condition, Tensor):
        condition = (a if isinstance(a, Tensor) else torch.as_tensor(b)).new_full((), condition)
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        a = condition.new_full((), a)
    return torch.where(condition != 0, a, b)


def softplus(x: Tensor) -> Tensor:
    """`log(1 + exp(x))` at every `x`; torch's own turns linear above a threshold.

    >>> softplus(torch.zeros(1))
    tensor([0.6931])
    """
    if not x.requires_grad or not torch.is_grad_enabled() or traced():
        return torch.logaddexp(x, x.new_zeros(()))
    y: Tensor = _Softplus.apply(x)  # type: ignore[no-untyped-call]
    return y


class _Softplus(torch.autograd.Function):
    """The slope is one sigmoid; that of `logaddexp` takes torch four passes, four times as long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.logaddexp(x, x.new_zeros(()))

    @staticmethod
    @each_gradient
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,), (dy,) = ctx.saved_tensors, grads
        slope = torch.sigmoid(x)
        return slope * dy if torch.is_grad_enabled() else slope.mul_(dy)


def l2norm(x: Tensor, *, eps: float) -> Tensor:
    """`x / sqrt(sum(x^2) + eps)` along the last axis.

    >>> l2norm(torch.tensor([3.0, 4.0]), eps=0.0)
    tensor([0.6000, 0.8000])
    """
    unit: Tensor = _UnitLength.apply(x, eps)  # type: ignore[no-untyped-call]
    return unit


class _UnitLength(torch.autograd.Function):
    """Half the time of the composed form, and it saves the result instead of three intermediates."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        if (step := ready(x)) is not None:
            unit, inverse = room_like(x, *x.shape), x.new_empty(*x.shape[:-1], 1)
            over_rows(step, UNIT, (x,), (unit, inverse), numbers=(1.0, eps))
        else:
            inverse = torch.rsqrt(torch.linalg.vecdot(x, x).unsqueeze(-1) + eps)
            unit = x * inverse
        ctx.save_for_backward(unit, inverse)
        return unit

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        unit, inverse = ctx.saved_tensors
        (dy,) = grads
        if (step := ready(unit, inverse, dy)) is not None:
            dx = room_like(dy, *dy.shape)
            over_rows(step, UNIT_BACK, (unit, inverse, dy), (dx,))
            return dx, None
        along = torch.linalg.vecdot(dy, unit).unsqueeze(-1)
        return torch.addcmul(dy, unit, along, value=-1).mul_(inverse), None


def norm(x: Tensor, weight: Tensor, *, eps: float) -> Tensor:
    """RMSNorm: `x / sqrt(mean(x^2) + eps) * weight` along the last axis.

    >>> norm(torch.tensor([3.0, 3.0]), torch.tensor([1.0, 2.0]), eps=0.0)
    tensor([1., 2.])
    """
    scaled: Tensor = _RootMeanSquare.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return scaled


class _RootMeanSquare(torch.autograd.Function):
    """Saves its input and one number per row; torch's own keeps three tensors of the size of the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        size = x.shape[-1]
        ctx.eps = eps
        if weight.shape == (size,) and (step := ready(x, weight, least=FEW)) is not None:
            ctx.save_for_backward(x, weight, None)
            y = room_like(x, *x.shape)
            over_rows(step, NORM, (x, weight.contiguous()), (y,), numbers=(1.0 / size, eps))
            return y
        inverse = torch.rsqrt(torch.linalg.vecdot(x, x).unsqueeze(-1) / size + eps)
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor | None, None]:
        x, weight, inverse = ctx.saved_tensors
        (dy,) = grads
        size = x.shape[-1]
        if inverse is None and (step := ready(x, weight, dy, least=FEW)) is not None:
            dx, totals = room_like(x, *x.shape), x.new_zeros(PARTS, size)
            arrays = (x, weight.contiguous(), dy)
            over_rows(step, NORM_BACK, arrays, (dx,), numbers=(1.0 / size, ctx.eps), totals=totals)
            return dx, totals.sum(0), None
        if inverse is None:
            inverse = torch.rsqrt(torch.linalg.vecdot(x, x).unsqueeze(-1) / size + ctx.eps)
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = (dy * x).mul_(inverse).sum_to_size(weight.shape)
        scaled = dy * weight
        along = torch.linalg.vecdot(scaled, x).unsqueeze(-1) * (inverse**3 / size)
        return scaled.mul_(inverse).addcmul_(x, along, value=-1), to_weight, None


def layernorm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """`(x - mean) / sqrt(variance + eps) * weight + bias` along the last axis."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def softmax(x: Tensor) -> Tensor:
    """Softmax along the last axis."""
    return torch.softmax(x, -1)


def mean(x: Tensor) -> Tensor:
    """The mean over the last axis."""
    return x.mean(-1)


def sum(x: Tensor) -> Tensor:  # noqa: A001 - the name the language gives it
    """The sum over the last axis."""
    return x.sum(-1)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product along the last axis.

    >>> dot(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    tensor(11.)
    """
    product: Tensor = torch.linalg.vecdot(a, b)
    return product


def expand_last(x: Tensor, like: Tensor) -> Tensor:
    """Repeat `x` along the last axis of `like`."""
    return x.unsqueeze(-1).expand(torch.broadcast_shapes((*x.shape, 1), like.shape))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`weight @ x (+ bias)`, weight `[out, in]`.

    >>> linear(torch.ones(2), torch.tensor([[1.0, 2.0]]))
    tensor([3.])
    """
    return rows_linear(x, weight, bias)


def embed(tokens: Tensor, weight: Tensor) -> Tensor:
    """The row of `weight` for every token."""
    return F.embedding(tokens, weight)


def lookup(tokens: Tensor, table: Tensor) -> Tensor:
    """The row of a shared table `[..., vocab, d]` for every token; the table is the same for all."""
    return F.embedding(tokens, table)


def head(x: Tensor, weight: Tensor) -> Tensor:
    """Logits: `weight @ x`, weight `[vocab, d]`."""
    return rows_linear(x, weight)


def weight(weight: Tensor) -> Tensor:
    """A slow parameter as a value."""
    return weight


def readout(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One number per head: `sum_d(x * weight) + bias`; `x [..., H, d]`, weight `[H, d]`, bias `[H]`."""
    return dot(x, weight) + bias


def split(x: Tensor, *, n: int) -> Tensor:
    """`[..., d]` to `[..., n, d / n]`.

    >>> split(torch.arange(4.0), n=2)
    tensor([[0., 1.],
            [2., 3.]])
    """
    heads: Tensor = x.unflatten(-1, (n, x.shape[-1] // n))
    return heads


def share(x: Tensor, *, n: int) -> Tensor:
    """`[..., d]` to `[..., n, d]`, the same for every head.

    >>> share(torch.arange(2.0), n=2)
    tensor([[0., 1.],
            [0., 1.]])
    """
    return x.unsqueeze(-2).expand(*x.shape[:-1], n, x.shape[-1])


def kron(a: Tensor, b: Tensor) -> Tensor:
    """All products of the last axes: `[..., m]` and `[..., n]` to `[..., m * n]`.

    >>> kron(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    tensor([3., 4., 6., 8.])
    """
    products: Tensor = (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2)
    return products


def index(*, size: int, like: Tensor) -> Tensor:
    """0, 1, .., size - 1, of the type and on the device of `like`."""
    return torch.arange(size, dtype=like.dtype, device=like.device)


def merge(x: Tensor) -> Tensor:
    """`[..., n, d]` to `[..., n * d]`."""
    return x.flatten(-2)


def parts(x: Tensor, *, sizes: tuple[int, ...], index: int) -> Tensor:
    """Piece `index` of the last axis, cut into `sizes`.

    >>> parts(torch.arange(4.0), sizes=(1, 3), index=1)
    tensor([1., 2., 3.])
    """
    pieces: tuple[Tensor, ...] = x.split(sizes, -1)
    return pieces[index]


def concat(*values: Tensor) -> Tensor:
    """Values one behind the other along the last axis."""
    return torch.cat(values, -1)


def multiple_of(x: Tensor | float, of: int) -> Tensor:
    """One where a count is a multiple of `of`, else zero.

    >>> multiple_of(torch.tensor([1.0, 2.0, 4.0]), 2)
    tensor([0., 1., 1.])
    """
    count = torch.as_tensor(x)
    return (torch.remainder(count, of) == 0).to(count.dtype)
