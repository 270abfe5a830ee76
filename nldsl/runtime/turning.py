"""Pairs of channels turned by angles that grow with the position: what rotary positions do, both ways.

Shapes: `x [B, T, d]` or `[B, T, H, d]`, cosines and sines `[B, T, d / 2]` or `[B, T, 1, d / 2]`; 1 in the
place of B where all samples stand at the same position.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.c_calls import call, loop, traced
from nldsl.runtime.each_gradient import each_gradient
from nldsl.runtime.native import Step

LEAST = 1 << 10
"""Numbers from which on a call of C is worth it."""
TEXT = r"""
/* Products are rounded before they are summed, as torch does it: the last bit is the same everywhere. */
#pragma GCC optimize("fp-contract=off")
#ifdef __clang__
#pragma clang fp contract(off)
#endif
#define EACH(c, n) _Pragma("omp simd") for (long c = 0; c < (n); c++)

/* Rows x [B, T, H, 2 n] with steps, angles [B or 1, T, n] with a step from sample to sample. */
int step(long back, const long *sizes, void **arrays, const double *numbers, int threads) {
  const long B = sizes[0], T = sizes[1], H = sizes[2], n = sizes[3], *steps = sizes + 4;
  const real *x = arrays[0], *cosines = arrays[1], *sines = arrays[2];
  real *y = arrays[3];
  _Pragma("omp parallel for num_threads(threads) if (threads > 1)")
  for (long i = 0; i < B * T; i++) {
    const long angle = i / T * steps[3] + i % T * n;
    const real *c = cosines + angle, *s = sines + angle, *p = x + i / T * steps[0] + i % T * steps[1];
    real *q = y + i * H * 2 * n;
    for (long h = 0; h < H; h++, p += steps[2], q += 2 * n)
      if (back)
        EACH(k, n) q[k] = p[k] * c[k] + p[n + k] * s[k], q[n + k] = p[n + k] * c[k] - p[k] * s[k];
      else
        EACH(k, n) q[k] = p[k] * c[k] - p[n + k] * s[k], q[n + k] = p[n + k] * c[k] + p[k] * s[k];
  }
  return 0;
}
"""
SMALL = 1 << 16
"""Up to so many angles are kept for the next call: queries and keys, and every layer, ask for the same."""
Turn = tuple[Tensor, Tensor]


class _Last(threading.local):
    """The angles of this thread's last call."""

    key: Hashable = None
    turn: Turn | None = None


_last = _Last()


def angles(x: Tensor, places: Tensor, frequency: Tensor) -> Turn:
    """Cosine and sine of `place * frequency_i`; angles in float64, which keeps them exact in their last turn.

    >>> cos, sin = angles(torch.ones(1, 1, 2), torch.tensor([[0]]), torch.ones(1, dtype=torch.float64))
    >>> cos.item(), sin.item()
    (1.0, 0.0)
    """
    angle = places.to(torch.float64).unsqueeze(-1) * frequency
    angle = angle.view(*places.shape, *(1,) * (x.dim() - 3), frequency.shape[0])
    return angle.cos().to(x.dtype), angle.sin().to(x.dtype)


def angles_behind(x: Tensor, count: Tensor, form: Hashable, frequency: Callable[[], Tensor]) -> Turn:
    """The same behind `count [B]` tokens; `form` says which `frequency` it is.

    >>> count, ones = torch.tensor([0, 0]), lambda: torch.ones(1, dtype=torch.float64)
    >>> angles_behind(torch.ones(2, 3, 2), count, "ones", ones)[1][:, 1].tolist()
    [[0.841...]]
    """
    if not x.is_cpu or not _plain(x, count):
        return angles(x, count.unsqueeze(1) + torch.arange(x.shape[1], device=count.device), frequency())
    before = count.cpu().tolist()
    before = before[:1] if len(set(before)) == 1 else before
    key = (form, tuple(before), x.shape[1], x.shape[-1], x.dim(), x.dtype)
    if _last.key == key and _last.turn is not None:
        return _last.turn
    # Values that outlive a call belong to no mode of it.
    with torch.inference_mode(False):
        places = torch.tensor(before, dtype=count.dtype, device="cpu").unsqueeze(1)
        places = places + torch.arange(x.shape[1], device="cpu")
        turn = angles(x, places, frequency())
    if turn[0].numel() <= SMALL:
        _last.key, _last.turn = key, turn
    return turn


def turned(x: Tensor, turn: Turn) -> Tensor:
    """The pairs `(i, i + d/2)` of the last axis turned.

    >>> turned(torch.tensor([[[1.0, 2.0]]]), (torch.zeros(1, 1, 1), torch.ones(1, 1, 1))).tolist()
    [[[-2.0, 1.0]]]
    """
    if not _plain(x):
        cos, sin = turn
        first, second = _halves(x)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
    y: Tensor = _Turned.apply(x, *turn, False)  # type: ignore[no-untyped-call]
    return y


def _plain(*tensors: Tensor) -> bool:
    """Whether operations on these are only done, not written down or changed."""
    return not traced() and all(type(x) is Tensor for x in tensors)


def _halves(x: Tensor) -> Turn:
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def _loop(x: Tensor, cos: Tensor) -> Step | None:
    """The loop in C, if it takes such rows."""
    if x.numel() < LEAST or not _plain(x, cos) or cos.dtype != x.dtype:
        return None
    if x.dim() not in (3, 4) or x.stride(-1) != 1 or x.is_neg():
        return None
    angles = (x.shape[0], x.shape[1], *(1,) * (x.dim() - 3), x.shape[-1] // 2)
    if cos.shape not in (angles, (1, *angles[1:])):
        return None
    return loop(TEXT, x)


def _call(step: Step, x: Tensor, cos: Tensor, sin: Tensor, y: Tensor, back: bool) -> None:
    (batch, tokens), half = x.shape[:2], x.shape[-1] // 2
    heads, between = (x.shape[2], x.stride(2)) if x.dim() > 3 else (1, 0)
    cos, sin = cos.contiguous(), sin.contiguous()
    apart = tokens * half if cos.shape[0] > 1 else 0
    sizes = (batch, tokens, heads, half, x.stride(0), x.stride(1), between, apart)
    call(step, int(back), sizes, (x, cos, sin, y))


class _Turned(torch.autograd.Function):
    """Backward: the same, `back`; recorded, the backward pass of a slice fills a tensor of zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, back: bool) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.back = back
        y = x.new_empty(x.shape)
        if (step := _loop(x, cos)) is not None:
            _call(step, x, cos, sin, y, back)
            return y
        (first, second), (left, right) = _halves(x), _halves(y)
        # One operation after the other: with both in one, the last bit depends on where a number stands.
        torch.mul(first, cos, out=left)
        torch.mul(second, cos, out=right)
        (left.add_ if back else left.sub_)(second * sin)
        (right.sub_ if back else right.add_)(first * sin)
        return y

    @staticmethod
    @each_gradient
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        cos, sin = ctx.saved_tensors
        return _Turned.apply(grads[0], cos, sin, not ctx.back), None, None, None  # type: ignore[no-untyped-call]
