"""Functions with a window on the past: `conv`, `shift`, `position`, `add_position`, `rope`, `stretched_rope`.

Sequence layout `[B, T, ...]`.  Each takes its state (a small dictionary) and returns the new one.
A token that `mask [B, T]` leaves out is the identity: it is not seen by later tokens, the state
passes over it, and its output is of no account (`stand_in`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.runtime.chunks import stand_in
from nldsl.runtime.first_order import first_order
from nldsl.runtime.native import Step
from nldsl.runtime.row_loops import conv as convolved
from nldsl.runtime.row_loops import conv_back as convolved_back
from nldsl.runtime.row_loops import ready
from nldsl.runtime.turning import angles, angles_behind, turned

Cache = dict[str, Tensor]
CACHE = 2**19
"""Bytes of a stretch of tokens on a CPU: half of what is near a core."""
WINDOW = 8
"""The widest window that C takes."""


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    state: Cache,
    mask: Tensor | None,
    activation: str = "",
) -> tuple[Tensor, Cache]:
    """Causal depthwise convolution: `y_t[c] = f(bias[c] + sum_j weight[c, j] x_{t-window+1+j}[c])`.

    `x [B, T, d]`, `weight [d, window]`, state `{"tail": [B, window - 1, d]}`; `f` is `silu` or nothing.

    >>> x, tail = torch.tensor([[[1.0], [2.0]]]), torch.zeros(1, 1, 1)
    >>> y, state = conv(x, torch.tensor([[1.0, 10.0]]), state={"tail": tail}, mask=None)
    >>> y.flatten().tolist(), state["tail"].flatten().tolist()
    ([10.0, 21.0], [2.0])
    """
    real, order, tail = _with_tail(x, state["tail"], mask)
    given = (real, state["tail"], weight, *(() if bias is None else (bias,)))
    step = ready(*given) if 1 < weight.shape[1] <= WINDOW else None
    if step is not None:
        y: Tensor = _Convolved.apply(*given[:3], bias, activation, step)  # type: ignore[no-untyped-call]
    else:
        y = _plain(torch.cat([state["tail"], real], 1), weight, bias, activation)
    return _back(y, order, mask), {"tail": tail}


class _Convolved(torch.autograd.Function):
    """All taps, what is added and the activation in one pass each way; what is activated is not kept."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, past: Tensor, weight: Tensor, bias: Tensor | None, activation: str, step: Step
    ) -> Tensor:
        ctx.save_for_backward(x, past, weight, bias)
        ctx.activation = activation
        bias = None if bias is None else bias.contiguous()
        return convolved(step, x, past.contiguous(), weight.contiguous(), bias, activation)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        x, past, weight, bias = ctx.saved_tensors
        rows = (x, past, weight, bias)
        step = ready(*(t for t in (*rows, grads[0]) if t is not None))
        if step is not None:
            bias = None if bias is None else bias.contiguous()
            given = (x, past.contiguous(), weight.contiguous(), bias)
            return *convolved_back(step, *given, ctx.activation, grads[0]), None, None
        alone: list[Any] = [None if t is None else t.detach().requires_grad_() for t in rows]
        with torch.enable_grad():
            y = _plain(torch.cat([alone[1], alone[0]], 1), alone[2], alone[3], ctx.activation)
        found = torch.autograd.grad(y, [t for t in alone if t is not None], grads[0])
        return *found, *[None] * (6 - len(found))


def _plain(seen: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    y: Tensor = _Taps.apply(seen, weight)  # type: ignore[no-untyped-call]
    if bias is not None:
        y = y + bias
    return F.silu(y) if activation else y


class _Taps(torch.autograd.Function):
    """`y_t = sum_j weight[:, j] x_{t+j}`, one pass for each tap; faster than `conv1d` on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        tokens = x.shape[1] - weight.shape[1] + 1
        y = x[:, :tokens] * weight[:, 0]
        for j in range(1, weight.shape[1]):
            y.addcmul_(x[:, j : j + tokens], weight[:, j])
        return y

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor]:
        (dy,) = grads
        x, weight = ctx.saved_tensors
        at_least = torch.promote_types(weight.dtype, torch.float32)
        dx, d_weight = torch.zeros_like(x), torch.zeros_like(weight, dtype=at_least)
        for some, start, stop in _stretches(dy):
            flow = dy[some, start:stop]
            for j in range(weight.shape[1]):
                seen = slice(start + j, stop + j)
                dx[some, seen].addcmul_(flow, weight[:, j])
                d_weight[:, j] += (flow * x[some, seen]).sum((0, 1), dtype=d_weight.dtype)
        return dx, d_weight.to(weight.dtype)


def _stretches(dy: Tensor) -> Iterator[tuple[slice, int, int]]:
    """Samples and tokens that are gone through together: on a CPU what stays in the cache for all taps."""
    batch, tokens, width = dy.shape
    if dy.device.type != "cpu" or torch.compiler.is_compiling():
        yield slice(None), 0, tokens
        return
    step = max(1, CACHE // (width * dy.element_size()))
    for sample in range(batch):
        for start in range(0, tokens, step):
            yield slice(sample, sample + 1), start, min(tokens, start + step)


def shift(x: Tensor, *, by: int, state: Cache, mask: Tensor | None) -> tuple[Tensor, Cache]:
    """The value `by` tokens ago, zero at the start; `x [B, T, ...]`, state `{"tail": [B, by, ...]}`.

    >>> x = torch.tensor([[1.0, 2.0, 3.0]])
    >>> y, state = shift(x, by=1, state={"tail": torch.zeros(1, 1)}, mask=None)
    >>> y.tolist(), state["tail"].tolist()
    ([[0.0, 1.0, 2.0]], [[3.0]])
    """
    seen, order, tail = with_past(x, state["tail"], mask)
    return _back(seen[:, : x.shape[1]], order, mask), {"tail": tail}


def position(like: Tensor, *, state: Cache, mask: Tensor | None) -> tuple[Tensor, Cache]:
    """How many tokens stand in front of each one since the reset, `[B, T]`; state `{"count": [B]}`.

    >>> y, state = position(torch.zeros(1, 3, 2), state={"count": torch.tensor([4])}, mask=None)
    >>> y.tolist(), state["count"].tolist()
    ([[4.0, 5.0, 6.0]], [7])
    """
    places, count = _places(like, state["count"], mask)
    places = stand_in(places, mask)
    return places.to(like.dtype), {"count": count}


def add_position(x: Tensor, weight: Tensor, *, state: Cache, mask: Tensor | None) -> tuple[Tensor, Cache]:
    """`x [B, T, d]` plus the row of `weight [n, d]` for the position, the last one from n on.

    State `{"count": [B]}`.

    >>> x, rows = torch.zeros(1, 3, 1), torch.tensor([[1.0], [2.0]])
    >>> y, state = add_position(x, rows, state={"count": torch.tensor([0])}, mask=None)
    >>> y.flatten().tolist(), state["count"].tolist()
    ([1.0, 2.0, 2.0], [3])
    """
    places, count = _places(x, state["count"], mask)
    y = x + F.embedding(places.clamp(max=weight.shape[0] - 1), weight)
    return stand_in(y, mask), {"count": count}


def rope(x: Tensor, *, base: float, state: Cache, mask: Tensor | None) -> tuple[Tensor, Cache]:
    """Rotate the pairs `(i, i + d/2)` of the last axis by `position * base^(-2i/d)`.

    `x [B, T, d]` or `[B, T, H, d]`, `d` even; state `{"count": [B]}`.

    >>> x = torch.ones(1, 1, 2)
    >>> y, _ = rope(x, base=10000.0, state={"count": torch.tensor([0])}, mask=None)
    >>> y.tolist()
    [[[1.0, 1.0]]]
    """
    return _turned(x, (base,), lambda: _frequencies(x, base), state, mask)


def stretched_rope(
    x: Tensor,
    *,
    base: float,
    factor: float,
    low: float,
    high: float,
    original: float,
    state: Cache,
    mask: Tensor | None,
) -> tuple[Tensor, Cache]:
    """`rope` with the frequencies `f (s + (1 - s) / factor)`, where `s` is 0 for waves longer than
    `original / low` tokens, 1 for those shorter than `original / high`, linear in the frequency between; with
    `original` 0 it is 0 for all.

    >>> x = torch.ones(1, 1, 2)
    >>> turn = dict(base=10.0, factor=2.0, low=0.0, high=0.0, original=0.0, mask=None)
    >>> y, _ = stretched_rope(x, state={"count": torch.tensor([4])}, **turn)
    >>> torch.equal(y, rope(x, base=10.0, state={"count": torch.tensor([2])}, mask=None)[0])
    True
    """
    form = (base, factor, low, high, original)
    return _turned(x, form, lambda: _stretched(x, *form), state, mask)


def _frequencies(x: Tensor, base: float) -> Tensor:
    """`base^(-2i/d)` for every pair of channels, in float64."""
    exponent = torch.arange(x.shape[-1] // 2, dtype=torch.float64, device=x.device) * (-2.0 / x.shape[-1])
    found: Tensor = base**exponent
    return found


def _stretched(x: Tensor, base: float, factor: float, low: float, high: float, original: float) -> Tensor:
    frequency = _frequencies(x, base)
    kept = torch.zeros_like(frequency)
    if original:
        kept = ((original / math.tau * frequency - low) / (high - low)).clamp(0.0, 1.0)
    return frequency * (kept + (1 - kept) / factor)


def _turned(
    x: Tensor, form: tuple[float, ...], frequency: Callable[[], Tensor], state: Cache, mask: Tensor | None
) -> tuple[Tensor, Cache]:
    """The pairs `(i, i + d/2)` of the last axis turned by `position * frequency_i`."""
    if mask is None:
        turn = angles_behind(x, state["count"], form, frequency)
        return turned(x, turn), {"count": state["count"] + x.shape[1]}
    places, count = _places(x, state["count"], mask)
    return stand_in(turned(x, angles(x, places, frequency())), mask), {"count": count}


def _places(like: Tensor, count: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The position of each token `[B, T]` and the new count `[B]`."""
    tokens = like.shape[1]
    if mask is None:
        return count.unsqueeze(1) + torch.arange(tokens, device=count.device), count + tokens
    ticks = mask.to(count.dtype)
    return count.unsqueeze(1) + ticks.cumsum(1) - ticks, count + ticks.sum(1)


def with_past(x: Tensor, tail: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """The tail and the real tokens behind it (real ones first), their order, and the new tail."""
    real, order, last = _with_tail(x, tail, mask)
    return torch.cat([tail, real], 1), order, last


def _with_tail(x: Tensor, tail: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """The real tokens first, their order, and the new tail."""
    window, tokens = tail.shape[1], x.shape[1]
    if mask is None:
        kept = x[:, max(tokens - window, 0) :]
        # A copy: a view would keep all of the sequence, and change with the array of a caller.
        return x, None, kept.clone() if tokens >= window else torch.cat([tail[:, tokens:], kept], 1)
    order = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    real = taken(x, order)
    last = mask.sum(1, keepdim=True) + torch.arange(window, device=x.device)
    return real, order, taken(torch.cat([tail, real], 1), last)


def _back(y: Tensor, order: Tensor | None, mask: Tensor | None) -> Tensor:
    """Tokens back in their places."""
    return y if order is None else stand_in(taken(y, order.argsort(1)), mask)


def taken(x: Tensor, index: Tensor) -> Tensor:
    """Tokens of `x [B, T, ...]` by their numbers `[B, S]`."""
    return x[torch.arange(x.shape[0], device=x.device).unsqueeze(1), index]
