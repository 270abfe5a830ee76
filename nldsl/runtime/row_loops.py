"""Functions of the rows of a layer in C: convolutions over time, norms, gates, each way one pass over memory.

torch makes a pass of every product, sum and root, and keeps what lies between them.  Here a row stays in the
cache, and what the way back needs beside the arguments is computed again.  Where there is no compiler, the
arrays are small or of another type, or code is traced, torch does it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.runtime.arrays import room_like
from nldsl.runtime.c_calls import call, loop
from nldsl.runtime.c_rows import ROWS
from nldsl.runtime.native import Step

LEAST = 1 << 17
"""Numbers from which on a call of C is worth it."""
PARTS = 16
"""Parts of the rows whose sums are kept apart, however many threads there are: they decide nothing."""
CONV = 0
CONV_BACK = 1
NORM = 2
NORM_BACK = 3
GATE = 4
GATE_BACK = 5
SCALE = 6
SCALE_BACK = 7
UNIT = 8
UNIT_BACK = 9
ACTIVATIONS = ("", "silu", "sigmoid")
"""What a gate or what follows a convolution may be; the first is none."""
TEXT = (
    ROWS
    + r"""
#include <stdlib.h>
#include <string.h>
#define PARALLEL _Pragma("omp parallel for num_threads(threads) if (threads > 1)")
#define MIN(a, b) ((a) < (b) ? (a) : (b))
/* So many channels of a few tokens stay in the first cache. */
enum { WIDE = 128, MOST = 8 };

/* x [B, T, D] behind `past [B, W - 1, D]`, w [D, W]; nothing is added without a bias [D]. */
typedef struct {
  long B, T, D, sample, token, past_sample;
  const real *x, *past, *w, *bias;
} Seen;
INLINE const real *seen(const Seen *s, int W, long b, long t) {
  return t < 0 ? s->past + b * s->past_sample + (t + W - 1) * s->D : s->x + b * s->sample + t * s->token;
}

/* The taps of some channels side by side, and behind them what is added. */
INLINE void gather(const Seen *s, real w[MOST + 1][WIDE], int W, long from, long n) {
  for (int j = 0; j < W; j++)
    for (long c = 0; c < n; c++) w[j][c] = s->w[(from + c) * W + j];
  for (long c = 0; c < n; c++) w[W][c] = s->bias ? s->bias[from + c] : 0;
}

INLINE void conv_block(const Seen *s, real *y, int W, int act, long b, long from, long n) {
  real w[MOST + 1][WIDE];
  gather(s, w, W, from, n);
  for (long t = 0; t < s->T; t++) {
    const real *p[MOST];
    for (int j = 0; j < W; j++) p[j] = seen(s, W, b, t - W + 1 + j) + from;
    real *out = y + (b * s->T + t) * s->D + from;
    EACH(c, n) {
      real z = w[W][c];
      for (int j = 0; j < W; j++) z += w[j][c] * p[j][c];
      out[c] = active(act, z);
    }
  }
}

/* `to_w [B, D, W]`, `to_bias [B, D]`: of every sample what the taps and what is added are given. */
typedef struct { const real *dy; long sample, token; real *dx, *dpast, *to_w, *to_bias; } Back;

/* What reaches tokens t - W + 1 once those up to t have told theirs. */
INLINE void told(const Seen *s, const Back *k, real ring[MOST][WIDE], real w[MOST + 1][WIDE], int W, long b,
                 long t, long from, long n) {
  const long to = t - W + 1;
  real *out = (to < 0 ? k->dpast + (b * (W - 1) + to + W - 1) * s->D : k->dx + (b * s->T + to) * s->D) + from;
  const real *d[MOST];
  static const real none[WIDE];
  for (int j = 0; j < W; j++) d[j] = t - j < 0 || t - j >= s->T ? none : ring[(t - j) % W];
  EACH(c, n) {
    real sum = 0;
    for (int j = 0; j < W; j++) sum += w[j][c] * d[j][c];
    out[c] = sum;
  }
}

INLINE void conv_block_back(const Seen *s, const Back *k, int W, int act, long b, long from, long n) {
  real ring[MOST][WIDE], w[MOST + 1][WIDE], sums[MOST + 1][WIDE] = {{0}};
  gather(s, w, W, from, n);
  for (long t = 0; t < s->T; t++) {
    const real *p[MOST], *dy = k->dy + b * k->sample + t * k->token + from;
    for (int j = 0; j < W; j++) p[j] = seen(s, W, b, t - W + 1 + j) + from;
    real *now = ring[t % W];
    EACH(c, n) {
      real z = w[W][c];
      for (int j = 0; j < W; j++) z += w[j][c] * p[j][c];
      const real d = dy[c] * slope(act, z);
      now[c] = d;
      for (int j = 0; j < W; j++) sums[j][c] += d * p[j][c];
      sums[W][c] += d;
    }
    told(s, k, ring, w, W, b, t, from, n);
  }
  for (long t = s->T; t < s->T + W - 1; t++) told(s, k, ring, w, W, b, t, from, n);
  for (long c = 0; c < n; c++)
    for (int j = 0; j < W; j++) k->to_w[(b * s->D + from + c) * W + j] = sums[j][c];
  if (k->to_bias) memcpy(k->to_bias + b * s->D + from, sums[W], n * sizeof(real));
}

#define WINDOWS(call, act) \
  switch (W) { \
    case 4: call(4, act); break; \
    default: call(W, act); \
  }
#define FORWARD(W, act) conv_block(s, y, W, act, b, from, MIN(WIDE, s->D - from))
#define BACK(W, act) conv_block_back(s, k, W, act, b, from, MIN(WIDE, s->D - from))
static void conv(const Seen *s, real *y, const Back *k, int W, int act, int threads) {
  const long blocks = (s->D + WIDE - 1) / WIDE;
  PARALLEL
  for (long i = 0; i < s->B * blocks; i++) {
    const long b = i / blocks, from = i % blocks * WIDE;
    if (k && act) { WINDOWS(BACK, 1) }
    else if (k) { WINDOWS(BACK, 0) }
    else if (act) { WINDOWS(FORWARD, 1) }
    else { WINDOWS(FORWARD, 0) }
  }
}

/* Rows of arrays of up to three axes in front: `steps` of array a are at 3 a. */
typedef struct { const long *sizes, *steps; void **arrays; } Rows;
INLINE real *row(const Rows *r, int a, long i) {
  const long k = i % r->sizes[2], j = i / r->sizes[2] % r->sizes[1], l = i / r->sizes[2] / r->sizes[1];
  const long *s = r->steps + 3 * a;
  return (real *)r->arrays[a] + l * s[0] + j * s[1] + k * s[2];
}

/* Arrays x, w, y, or x, w, dy, dx, and the sums of a part for w. */
INLINE void norm_row(const Rows *r, long i, long n, real share, real eps) {
  norm(row(r, 0, i), r->arrays[1], row(r, 2, i), n, share, eps);
}
INLINE void norm_row_back(const Rows *r, long i, long n, real share, real eps, real *total) {
  norm_back(row(r, 0, i), r->arrays[1], row(r, 2, i), row(r, 3, i), total, n, share, eps);
}

/* y = v x with v = 1 / sqrt(sum(x^2) + eps); arrays x, y, v, or y, v, dy, dx. */
INLINE void unit_row(const Rows *r, long i, long n, real eps) {
  const real *x = row(r, 0, i), v = inverse(x, n, 1, eps);
  real *y = row(r, 1, i);
  *row(r, 2, i) = v;
  EACH(c, n) y[c] = x[c] * v;
}
INLINE void unit_row_back(const Rows *r, long i, long n) {
  const real *y = row(r, 0, i), v = *row(r, 1, i), *dy = row(r, 2, i);
  real *dx = row(r, 3, i), sum = 0;
  _Pragma("omp simd reduction(+ : sum)")
  for (long c = 0; c < n; c++) sum += dy[c] * y[c];
  EACH(c, n) dx[c] = v * (dy[c] - y[c] * sum);
}

/* y = a f(b); arrays a, b, y, or a, b, dy, da, db. */
INLINE void gate_row(const Rows *r, long i, long n, int act) {
  const real *a = row(r, 0, i), *b = row(r, 1, i);
  real *y = row(r, 2, i);
  EACH(c, n) y[c] = a[c] * active(act, b[c]);
}
INLINE void gate_row_back(const Rows *r, long i, long n, int act) {
  const real *a = row(r, 0, i), *b = row(r, 1, i), *dy = row(r, 2, i);
  real *da = row(r, 3, i), *db = row(r, 4, i);
  EACH(c, n) {
    const real s = sigmoid(b[c]), d = dy[c];
    da[c] = d * (act == 1 ? b[c] * s : s);
    db[c] = d * a[c] * (act == 1 ? s * (1 + b[c] * (1 - s)) : s * (1 - s));
  }
}

/* y = a x for a number a of every row; arrays a, x, y, or a, x, dy, da, dx. */
INLINE void scale_row(const Rows *r, long i, long n) {
  const real a = *row(r, 0, i), *x = row(r, 1, i);
  real *y = row(r, 2, i);
  EACH(c, n) y[c] = a * x[c];
}
INLINE void scale_row_back(const Rows *r, long i, long n) {
  const real a = *row(r, 0, i), *x = row(r, 1, i), *dy = row(r, 2, i);
  real *dx = row(r, 4, i), sum = 0;
  _Pragma("omp simd reduction(+ : sum)")
  for (long c = 0; c < n; c++) sum += dy[c] * x[c];
  *row(r, 3, i) = sum;
  EACH(c, n) dx[c] = a * dy[c];
}

static void rows(long what, const Rows *r, long n, int act, real share, real eps, real *totals, long parts,
                 int threads) {
  const long count = r->sizes[0] * r->sizes[1] * r->sizes[2];
  PARALLEL
  for (long part = 0; part < parts; part++)
    for (long i = count * part / parts; i < count * (part + 1) / parts; i++) {
      if (what == 2) norm_row(r, i, n, share, eps);
      if (what == 3) norm_row_back(r, i, n, share, eps, totals + part * n);
      if (what == 4 && act == 1) gate_row(r, i, n, 1);
      if (what == 4 && act == 2) gate_row(r, i, n, 2);
      if (what == 5 && act == 1) gate_row_back(r, i, n, 1);
      if (what == 5 && act == 2) gate_row_back(r, i, n, 2);
      if (what == 6) scale_row(r, i, n);
      if (what == 7) scale_row_back(r, i, n);
      if (what == 8) unit_row(r, i, n, eps);
      if (what == 9) unit_row_back(r, i, n);
    }
}

int step(long what, const long *sizes, void **arrays, const double *numbers, int threads) {
  if (what < 2) {
    const Seen s = {sizes[0], sizes[1], sizes[2], sizes[5], sizes[6], sizes[7],
                    arrays[0], arrays[1], arrays[2], arrays[3]};
    const long far = what ? sizes[8] : 0, near = what ? sizes[9] : 0;
    const Back k = {arrays[4], far, near, arrays[5], arrays[6], arrays[7], arrays[8]};
    conv(&s, arrays[4], what ? &k : 0, (int)sizes[3], (int)sizes[4], threads);
  } else {
    const Rows r = {sizes, sizes + 6, arrays + 1};
    rows(what, &r, sizes[3], (int)sizes[4], numbers[0], numbers[1], arrays[0], sizes[5], threads);
  }
  return 0;
}
"""
)


def ready(*tensors: Tensor, least: int | None = None) -> Step | None:
    """The functions in C, if they take tensors like these and nobody looks at what is done to them."""
    return loop_for(TEXT, *tensors, least=min(LEAST, least or LEAST))


def loop_for(text: str, *tensors: Tensor, least: int) -> Step | None:
    """The functions of `text`, if the first of the tensors has so many numbers; see `ready`."""
    first = tensors[0]
    if torch.compiler.is_compiling() or first.numel() < least:
        return None
    kind = first.dtype
    # A loop, for this is asked a hundred times in every step.
    for x in tensors:
        if type(x) not in _PLAIN or x.dtype != kind or not x.is_cpu or x.is_neg():
            return None
    return loop(text, first)


_PLAIN = (Tensor, torch.nn.Parameter)


def conv(step: Step, x: Tensor, past: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """`f(bias + sum_j weight[:, j] x_{t-W+1+j})`.

    `x [B, T, d]` behind `past [B, W - 1, d]`, `weight [d, W]`, `bias [d]`, all of them contiguous but `x`.
    """
    x = _dense(x)
    y = room_like(x, *x.shape)
    arrays = [x, past, weight, bias, y, *[None] * 4]
    call(step, CONV, _sizes(x, past, weight, activation), arrays)
    return y


def conv_back(
    step: Step,
    x: Tensor,
    past: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str,
    dy: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What `x`, `past`, `weight` and `bias` are given."""
    x, dy = _dense(x), _dense(dy)
    dx, to_past = room_like(x, *x.shape), x.new_empty(past.shape)
    # What one sample gives is the sum.
    lead = () if len(x) == 1 else (len(x),)
    to_weight = x.new_empty(*lead, *weight.shape)
    to_bias = None if bias is None else x.new_empty(*lead, *bias.shape)
    sizes = [*_sizes(x, past, weight, activation), dy.stride(0), dy.stride(1)]
    call(step, CONV_BACK, sizes, [x, past, weight, bias, dy, dx, to_past, to_weight, to_bias])
    if lead:
        to_weight, to_bias = to_weight.sum(0), None if to_bias is None else to_bias.sum(0)
    return dx, to_past, to_weight, to_bias


def _sizes(x: Tensor, past: Tensor, weight: Tensor, activation: str) -> list[int]:
    window, act = weight.shape[1], ACTIVATIONS.index(activation)
    return [*x.shape, window, act, x.stride(0), x.stride(1), past.stride(0)]


def over_rows(
    step: Step,
    what: int,
    arrays: Sequence[Tensor],
    made: Sequence[Tensor],
    activation: str = "",
    numbers: tuple[float, float] = (0.0, 0.0),
    totals: Tensor | None = None,
) -> None:
    """Function `what` of every row: of `arrays`, whose rows have one shape, into those `made`, contiguous.

    An array with one axis beside others of several is the same for all rows; where the last axis is 1, a
    row is a number.
    """
    first, given = next(x for x in made if x.shape[-1] > 1 or made[-1] is x), [*arrays, *made]
    size, several = first.shape[-1], first.dim() > 1
    if all(x.is_contiguous() for x in given):
        lead: Sequence[int] = (1, 1, first.numel() // max(size, 1))
        steps = [s for x in given for s in (0, 0, 0 if x.dim() == 1 and several else x.shape[-1])]
    else:
        given = [x if x.dim() == 1 and several else _front(x) for x in given]
        shape = _front(first).shape
        # Axes in front that are not there are one number long.
        lead = (*(1,) * (4 - len(shape)), *shape[:-1])
        steps = [s for x in given for s in (*(0,) * (4 - x.dim()), *x.stride()[:-1])]
    sizes = [*lead, size, ACTIVATIONS.index(activation), PARTS, *steps]
    call(step, what, sizes, [totals, *given], *numbers)


def _front(x: Tensor) -> Tensor:
    """At most three axes in front of the last, whose numbers lie side by side."""
    return _dense(x.flatten(0, x.dim() - 4) if x.dim() > 4 else x)


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
