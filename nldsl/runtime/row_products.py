"""Products of few rows with a large matrix of every sample, and descent by what the rows give, in C.

With 64 rows a matrix is read for as few operations as a product can have: reading it in the order in which
it lies, one tile ahead of the arithmetic, is worth a fifth of the time.  A step reads and writes
every weight once, with the product that is its gradient still in registers.
Where there is no compiler, or the rows are few, torch does it.

Shapes: `B` samples, `R` rows of each, matrices `[S, L]`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nldsl.runtime.c_calls import call, loop
from nldsl.runtime.c_tiles import TILES

LEAST = 1 << 21
"""Multiplications from which on a call of C is worth it."""
FEWEST = 16
"""Rows of a sample from which on; fewer do not fill a tile."""
TEXT = (
    TILES
    + r"""
static void times(long B, long R, long S, long L, const real *m, const real *x, real *y, int threads) {
  long pairs = (L + PAIR - 1) / PAIR, each = (pairs + threads - 1) / threads;
  if (R <= FEW) {
    PARALLEL
    for (long t = 0; t < B * threads; t++) {
      long n = t / threads, j = t % threads * each * PAIR, to = MIN(j + each * PAIR, L);
      thin(m + n * S * L, x + n * R * S, y + n * R * L, R, S, L, j, to);
    }
    return;
  }
  PARALLEL
  for (long t = 0; t < B * pairs; t++) {
    long n = t / pairs;
    columns(m + n * S * L, x + n * R * S, y + n * R * L, R, S, L, t % pairs * PAIR);
  }
}

static void times_turned(long B, long R, long S, long L, const real *m, const real *x, real *y,
                         int threads) {
  long panels = (R + WIDE - 1) / WIDE;
  real *b = room(panels * L * WIDE);
  for (long n = 0; n < B; n++) {
    if (R <= LANES) {
      turned(b, x + n * R * L, R, L, LANES);
      PARALLEL
      for (long s = 0; s < S; s += HIGH) across_thin(m + n * S * L, b, y + n * R * S, R, S, L, s);
      continue;
    }
    PARALLEL
    for (long p = 0; p < panels; p++)
      turned(b + p * L * WIDE, x + (n * R + p * WIDE) * L, R - p * WIDE, L, WIDE);
    PARALLEL
    for (long s = 0; s < S; s += HIGH) across(m + n * S * L, b, y + n * R * S, R, S, L, s);
  }
  free(b);
}

/* What becomes of a gradient: `before` is added, and it is kept, or moves a weight and is summed.
   `shared`: `old` are the weights of every sample. */
typedef struct {
  const real *before, *old;
  real *kept, *made, *total;
  real rate;
  int shared;
} Fate;

#define MEET(T, n) { \
    T g = *(T *)out; \
    if (f->before) g += *(const T *)(f->before + at); \
    if (f->kept) *(T *)(f->kept + at) = g; \
    if (f->made) *(T *)(f->made + at) = *(const T *)(f->old + (f->shared ? once : at)) - f->rate * g; \
    if (f->total) *(T *)(f->total + once) += g; \
    out += n, at += n, once += n; \
  }
static inline void meet(const Fate *f, const real *out, long at, long once, long count) {
  for (; count >= LANES; count -= LANES) MEET(vec, LANES)
  for (; count > 0; count--) MEET(real, 1)
}

/* Columns `from .. to` of `g_n = p_n^T q_n`, tile by tile; `left`: tiles of all `p`, `b`: panels of `q`. */
static void gradient(const Fate *f, const real *left, const real *b, long B, long depth, long S, long L,
                     long from, long to) {
  long tiles = (S + HIGH - 1) / HIGH, panels = (to - from + WIDE - 1) / WIDE;
  const real *weight = f->made && !f->shared ? f->old : f->before;
  for (long s = 0; s < S; s += HIGH)
    for (long n = 0; n < B; n++) {
      const real *a[HIGH];
      long next = n + 1 < B ? (n + 1) * S + s : s + HIGH;
      for (int i = 0; i < HIGH; i++) a[i] = left + (n * tiles + s / HIGH) * depth * HIGH + i;
      for (long j = from; j < to; j += WIDE) {
        real out[HIGH][WIDE];
        for (int i = 0; weight && i < HIGH && next + i < B * S; i++)
          for (int p = 0; p < WIDE && j + p < L; p += LANES)
            __builtin_prefetch(weight + (next + i) * L + j + p, 0, 2);
        tile(out, a, HIGH, b + (n * panels + (j - from) / WIDE) * depth * WIDE, depth, 0);
        for (int i = 0; i < HIGH && s + i < S; i++)
          meet(f, out[i], (n * S + s + i) * L + j, (s + i) * L + j, MIN(WIDE, to - j));
      }
    }
}

/* Rows come in pieces: `counts[c]` of them for every sample, `p_c [B, count, S]` and `q_c [B, count, L]`. */
static void descend(const Fate *f, long B, long S, long L, long pieces, const long *counts, void **rows,
                    int threads) {
  long depth = 0, tiles = (S + HIGH - 1) / HIGH, done = 0;
  for (long c = 0; c < pieces; c++) depth += counts[c];
  real *left = room(B * tiles * HIGH * depth);
  for (long c = 0; c < pieces; done += counts[c++]) {
    const real *p = rows[2 * c];
    PARALLEL
    for (long t = 0; t < B * tiles; t++)
      for (long k = 0; k < counts[c]; k++)
        for (long i = 0, s = t % tiles * HIGH; i < HIGH; i++, s++)
          left[(t * depth + done + k) * HIGH + i] = s < S ? p[(t / tiles * counts[c] + k) * S + s] : 0;
  }
  /* So many panels that those of one sample lie in the second cache. */
  long wide = (depth < 512 ? 512 / depth : 1) * WIDE;
  PARALLEL
  for (long from = 0; from < L; from += wide) {
    long to = MIN(from + wide, L), panels = (to - from + WIDE - 1) / WIDE;
    real *b = room(B * panels * depth * WIDE), *at = b;
    for (long n = 0; n < B; n++)
      for (long j = from; j < to; j += WIDE)
        for (long c = 0; c < pieces; at += counts[c++] * WIDE)
          panel(at, (const real *)rows[2 * c + 1] + n * counts[c] * L + j, counts[c], L, to - j);
    gradient(f, left, b, B, depth, S, L, from, to);
    free(b);
  }
  free(left);
}

int step(long what, const long *sizes, void **arrays, const double *numbers, int threads) {
  long B = sizes[0], R = sizes[1], S = sizes[2], L = sizes[3];
  if (what == 0) times(B, R, S, L, arrays[0], arrays[1], arrays[2], threads);
  if (what == 1) times_turned(B, R, S, L, arrays[0], arrays[1], arrays[2], threads);
  if (what == 2) {
    Fate f = {arrays[0], arrays[1], arrays[2], arrays[3], arrays[4], numbers[0], numbers[1] > 0};
    descend(&f, B, S, L, R, sizes + 4, arrays + 5, threads);
  }
  return 0;
}
"""
)
TIMES = 0
TURNED = 1
DESCEND = 2


def product(x: Tensor, m: Tensor) -> Tensor:
    """`x m` for rows `x [B, R, S]` and `m [B, S, L]`, or one `[S, L]` for all samples.

    Example:
        >>> import torch
        >>> product(torch.ones(2, 3, 4), torch.ones(4, 5))[1, 2].tolist()
        [4.0, 4.0, 4.0, 4.0, 4.0]
    """
    flat, turned = m.is_contiguous(), m.mT.is_contiguous()
    rows = x.shape[-2] if m.dim() > 2 else x[..., 0].numel()
    large = rows >= FEWEST and x.numel() * m.shape[-1] >= LEAST
    if not large or not (flat or turned) or x.dim() != 3 or m.dim() > 3 or type(x) is not Tensor:
        return x @ m
    step = loop(TEXT, x)
    if step is None:
        return x @ m
    y, x = x.new_empty(*x.shape[:2], m.shape[-1]), x.contiguous()
    batch, inner = (1 if m.dim() == 2 else m.shape[0]), (m if flat else m.mT).shape[-2:]
    call(step, TIMES if flat else TURNED, (batch, rows, *inner), (m, x, y))
    return y


def gathers(like: Tensor, rows: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether `descend` takes these `rows`, for matrices `like [B, S, L]`."""
    count = sum(p.shape[-2] for p, _ in rows)
    large = like.dim() == 3 and count >= FEWEST and like.numel() * count >= LEAST
    return large and loop(TEXT, like) is not None


def descend(
    rows: Sequence[tuple[Tensor, Tensor]],
    before: Tensor | None,
    *,
    kept: Tensor | None = None,
    step: tuple[Tensor, Tensor, float] | None = None,
    total: Tensor | None = None,
) -> None:
    """`g = before + sum p^T q` over pieces of rows `p [B, R, S]`, `q [B, R, L]`, and what becomes of it.

    `kept [B, S, L]` is given `g`; of a `step = (old, made, rate)`, `made` is given `old - rate g`, where
    `old` may be one `[S, L]` for all; the sum of `g` over the samples is added to `total [S, L]`.  All are
    contiguous; `kept` may be `before`, `made` may be `old`.
    """
    old, made, rate = step if step is not None else (None, None, 0.0)
    rows = [(p.contiguous(), q.contiguous()) for p, q in rows]
    (first, second), counts = rows[0], [p.shape[1] for p, _ in rows]
    sizes = (first.shape[0], len(rows), first.shape[2], second.shape[2], *counts)
    run = loop(TEXT, first)
    assert run is not None
    shared = float(old is not None and old.dim() == 2)
    arrays = (before, old, kept, made, total, *(x for pair in rows for x in pair))
    call(run, DESCEND, sizes, arrays, rate, shared)
