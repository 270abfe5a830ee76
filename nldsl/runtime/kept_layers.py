"""Perceptrons of task memories, with the norm in front and the residual behind, as one loop in C each way.

A segment has few rows, so what torch does around the two products (calls, tensors that leave the cache
between them) costs as much as they do.  Here the hidden layer of some rows of one sample stays in the cache.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.runtime.c_calls import call, loop
from nldsl.runtime.c_rows import ROWS
from nldsl.runtime.c_tiles import TILES
from nldsl.runtime.first_order import first_order
from nldsl.runtime.kept_rows import KeptWeight, Rows
from nldsl.runtime.native import Step
from nldsl.runtime.values import norm

LEAST = 1 << 17
"""Multiplications from which on a call of C is worth it."""
GROUP = 16
"""Rows whose sums for the scale are kept apart: threads decide nothing."""
TEXT = (
    ROWS
    + TILES
    + r"""
/* So many rows of a sample are taken at once, or as many as the sides of the weights; and in such groups. */
enum { SOME = 64, GROUP = 16 };

/* One weight of every sample, or of all (`each` is 0), and its sides as they lie. */
typedef struct { const real *m; long each, S, L; } Weight;

/* `y = x m`, or `x m^T` if `over`, for `R` rows of sample `n`. */
static void rows_times(const Weight *w, int over, long n, const real *x, real *y, long R) {
  const real *m = w->m + n * w->each;
  const long S = w->S, L = w->L;
  if (!over && R <= FEW) thin(m, x, y, R, S, L, 0, L);
  if (!over && R > FEW)
    for (long j = 0; j < L; j += PAIR) columns(m, x, y, R, S, L, j);
  if (!over) return;
  const long wide = R <= LANES ? LANES : WIDE, panels = (R + wide - 1) / wide;
  real *b = room(panels * L * wide);
  for (long p = 0; p < panels; p++)
    turned(b + p * L * wide, x + p * wide * L, MIN(wide, R - p * wide), L, wide);
  for (long s = 0; s < S; s += HIGH)
    if (R <= LANES) across_thin(m, b, y, R, S, L, s);
    else across(m, b, y, R, S, L, s);
  free(b);
}

/* `V`, `W` as they lie; whether `h = z V^T` and `y = a W^T` are products with `m^T`; sizes of rows. */
typedef struct {
  Weight V, W;
  int over_V, over_W, residual;
  long in, hidden, out;
  real eps;
} Layers;

/* `z = norm(x)` if there is a scale, else `x`; `h = V z`, `a = silu(h)`, `y = W a`, and `+ x`. */
typedef struct { const real *scale, *x; real *z, *h, *a, *y; } There;
static void there(const Layers *k, const There *t, long n, long row, long count) {
  const real *x = t->x + row * k->in, *z = x;
  real *h = t->h + row * k->hidden, *a = t->a + row * k->hidden, *y = t->y + row * k->out;
  if (t->scale) {
    real *to = t->z + row * k->in;
    for (long i = 0; i < count; i++)
      norm(x + i * k->in, t->scale, to + i * k->in, k->in, (real)1 / k->in, k->eps);
    z = to;
  }
  rows_times(&k->V, k->over_V, n, z, h, count);
  EACH(i, count * k->hidden) a[i] = active(1, h[i]);
  rows_times(&k->W, k->over_W, n, a, y, count);
  if (k->residual) EACH(i, count * k->out) y[i] += x[i];
}

/* `dh = (W^T dy) silu'(h)`, `dz = V^T dh`, through the norm, and `+ dy`; sums for the scale in groups. */
typedef struct { const real *scale, *x, *h, *dy; real *dh, *dx, *totals; } Back;
static void back(const Layers *k, const Back *t, long n, long row, long count, real *totals) {
  const long in = k->in;
  const real *dy = t->dy + row * k->out, *h = t->h + row * k->hidden, *x = t->x + row * in;
  real *dh = t->dh + row * k->hidden, *dx = t->dx + row * in, *dz = t->scale ? room(count * in) : dx;
  rows_times(&k->W, !k->over_W, n, dy, dh, count);
  EACH(i, count * k->hidden) dh[i] *= slope(1, h[i]);
  rows_times(&k->V, !k->over_V, n, dh, dz, count);
  for (long i = 0; t->scale && i < count; i++) {
    real *total = totals + i / GROUP * in;
    norm_back(x + i * in, t->scale, dz + i * in, dx + i * in, total, in, (real)1 / in, k->eps);
  }
  if (k->residual) EACH(i, count * in) dx[i] += dy[i];
  if (t->scale) free(dz);
}

int step(long what, const long *sizes, void **arrays, const double *numbers, int threads) {
  const long B = sizes[0], R = sizes[1], in = sizes[2], H = sizes[3], out = sizes[4];
  const int over_V = (int)sizes[7], over_W = (int)sizes[8];
  const Layers k = {{arrays[0], sizes[5], over_V ? H : in, over_V ? in : H},
                    {arrays[1], sizes[6], over_W ? out : H, over_W ? H : out},
                    over_V, over_W, (int)sizes[9], in, H, out, numbers[0]};
  void **rest = arrays + 2;
  const There t = {rest[0], rest[1], rest[2], rest[3], rest[4], rest[5]};
  const Back d = {rest[0], rest[1], rest[2], rest[3], rest[4], rest[5], rest[6]};
  long count = in < out ? out : in;
  if (count < SOME) count = SOME;
  while (count > 2 * GROUP && B * ((R + count - 1) / count) < threads) count /= 2;
  count = (count + GROUP - 1) / GROUP * GROUP;
  const long blocks = (R + count - 1) / count, groups = (R + GROUP - 1) / GROUP;
  PARALLEL
  for (long i = 0; i < B * blocks; i++) {
    const long n = i / blocks, r = i % blocks * count, some = MIN(count, R - r);
    if (what == 0) there(&k, &t, n, n * R + r, some);
    if (what == 1) back(&k, &d, n, n * R + r, some, d.totals + (n * groups + r / GROUP) * in);
  }
  return 0;
}
"""
)
THERE = 0
BACK = 1


def silu_perceptron(
    x: Tensor, V: Tensor, W: Tensor, *, scale: Tensor | None = None, eps: float = 0.0, residual: bool = False
) -> Tensor:
    """`W silu(V z)`, or `x + W silu(V z)` if `residual`, with `z = x`, or `norm(x)` if there is a `scale`.

    A perceptron of a memory that learns from the task: rows `x [..., R, in]`, `V [..., h, in]`,
    `W [..., out, h]`, and the scale `[in]` and `eps` of the norm.

    Example:
        >>> import torch
        >>> silu_perceptron(torch.zeros(2, 3), torch.ones(4, 3), torch.ones(5, 4)).shape
        torch.Size([2, 5])
    """
    step = _loop(x, V, W, scale, residual)
    if step is not None:
        first, second = V.rows, W.rows  # type: ignore[attr-defined]
        how = _How(step, first, second, eps, residual)
        found: Tensor = _Layers.apply(x, scale, first.leaf, second.leaf, how)  # type: ignore[no-untyped-call]
        return found
    y = F.silu((x if scale is None else norm(x, scale, eps=eps)) @ V.mT) @ W.mT
    return x + y if residual else y


def _loop(x: Tensor, V: Tensor, W: Tensor, scale: Tensor | None, residual: bool) -> Step | None:
    """The loop in C, if it takes these: rows and weights of `learn`."""
    if type(V) is not KeptWeight or type(W) is not KeptWeight or V.turned or W.turned:
        return None
    if type(x) is not Tensor or x.dim() != 3 or not (V.rows.takes(x) and W.rows.takes(x)):
        return None
    into, out = V.rows.read, W.rows.read
    if x.numel() * into.shape[-2] < LEAST or out.shape[-1] != into.shape[-2]:
        return None
    if residual and out.shape[-2] != x.shape[-1]:
        return None
    if scale is not None and (scale.shape != x.shape[-1:] or scale.dtype != x.dtype):
        return None
    if not all(m.is_contiguous() or m.mT.is_contiguous() for m in (into, out)):
        return None
    return loop(TEXT, x)


class _How:
    """All that is not differentiated."""

    def __init__(self, step: Step, first: Rows, second: Rows, eps: float, residual: bool) -> None:
        self.step, self.first, self.second, self.eps, self.residual = step, first, second, eps, residual
        self.weights = first.read, second.read

    def run(self, what: int, x: Tensor, *arrays: Tensor | None) -> None:
        """One way of all rows."""
        (V, W), batch = self.weights, x.shape[:2]
        each = (0 if m.dim() == 2 else m[0].numel() for m in self.weights)
        # As it lies, `V` is `[in, h]` or `[h, in]`.
        over = (not V.mT.is_contiguous(), not W.mT.is_contiguous())
        sizes = (*batch, V.shape[-1], V.shape[-2], W.shape[-2], *each, *over, self.residual)
        call(self.step, what, sizes, (V, W, *arrays), self.eps)


class _Layers(torch.autograd.Function):
    """Keeps what it is given and the hidden layer before and behind SiLU; rows go to those who keep them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor | None, V: Tensor, W: Tensor, how: _How) -> Tensor:
        x = x.contiguous()
        scale = None if scale is None else scale.contiguous()
        z = x if scale is None else x.new_empty(x.shape)
        h = x.new_empty(*x.shape[:2], V.shape[-2])
        a, y = x.new_empty(h.shape), x.new_empty(*x.shape[:2], W.shape[-2])
        how.run(THERE, x, scale, x, z, h, a, y)
        ctx.save_for_backward(x, scale, z, h, a)
        ctx.how = how
        return y

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, scale, z, h, a), dy, how = ctx.saved_tensors, grads[0].contiguous(), ctx.how
        dh, dx, totals = x.new_empty(h.shape), x.new_empty(x.shape), None
        if scale is not None:
            totals = x.new_zeros(x.shape[0] * -(-x.shape[1] // GROUP), x.shape[2])
        how.run(BACK, x, scale, x, h, dy, dh, dx, totals)
        how.first.meet(z.detach(), dh)
        how.second.meet(a, dy)
        return dx, None if totals is None else totals.sum(0), None, None, None
