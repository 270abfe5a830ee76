"""Attention of a few late queries in C: one head of one sample at a time, a block of keys after the other.

The weights of all pairs are never in memory.  A row of a block is one key and a column one query, so the
softmax is done for whole vectors of queries, and nothing is summed across a vector.

Shapes: `q`, `y` and their gradients `[B, T, H, d]`, pairs `[B, S, H, d]`, the last T of them the queries'
own; `logs [B, H, T]` are the logarithms of what the weights of a query sum up to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.runtime.c_calls import call
from nldsl.runtime.c_calls import loop as loop_of
from nldsl.runtime.native import Step

TEXT = r"""
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#define BYTES 64
#else
#define BYTES 32
#endif
#define HIGH 8
#define LANES (BYTES / (long)sizeof(real))
#define KEYS 64
#define UP(n) (((n) + LANES - 1) / LANES * LANES)
#define MIN(a, b) ((a) < (b) ? (a) : (b))
typedef real vec __attribute__((vector_size(BYTES), aligned(sizeof(real)), may_alias));
#define AT(p) (*(vec *)(p))
#define ALWAYS static inline __attribute__((always_inline))

/* e^x for x <= 0 or so; below the least normal number about 0. */
ALWAYS float expf_(float x) {
  float c = x >= -87.0f ? x : -87.0f, n = __builtin_rintf(c * 0x1.715476p+0f);
  float f = c - n * 0x1.63p-1f + n * 0x1.bd0106p-13f, p = 0x1.a0e2a6p-13f;
  p = p * f + 0x1.6e1bb0p-10f, p = p * f + 0x1.1110d8p-7f, p = p * f + 0x1.5554fep-5f;
  p = p * f + 0x1.555556p-3f, p = p * f + 0.5f, p = p * f * f + f;
  union { unsigned i; float f; } two = {((unsigned)(int)n + 127) << 23};
  return x != x ? x : (p + 1) * two.f;
}
ALWAYS double expd_(double x) {
  double c = x >= -708.0 ? x : -708.0, n = __builtin_rint(c * 0x1.71547652b82fep+0);
  double f = c - n * 0x1.62e42feep-1 - n * 0x1.a39ef35793c76p-33, p = 1.0 / 6227020800;
  p = p * f + 1.0 / 479001600, p = p * f + 1.0 / 39916800, p = p * f + 1.0 / 3628800;
  p = p * f + 1.0 / 362880, p = p * f + 1.0 / 40320, p = p * f + 1.0 / 5040, p = p * f + 1.0 / 720;
  p = p * f + 1.0 / 120, p = p * f + 1.0 / 24, p = p * f + 1.0 / 6, p = p * f + 0.5, p = p * f * f + f;
  union { double f; unsigned long long i; } two = {n + 0x1.8p52};
  two.i = (two.i + 1023) << 52;
  return x != x ? x : (p + 1) * two.f;
}
#define EXP(x) (sizeof(real) == 4 ? (real)expf_((float)(x)) : (real)expd_(x))

ALWAYS void tile(long high, const int vecs, long K, const real *a, long si, long sk, const real *b, long sb,
                 real *c, long sc, int more) {
  vec sum[HIGH][2];
  const real *rows[HIGH];
#pragma GCC unroll 8
  for (int i = 0; i < HIGH; i++) {
    rows[i] = a + MIN(i, high - 1) * si;
    for (int v = 0; v < vecs; v++)
      sum[i][v] = more ? AT(c + MIN(i, high - 1) * sc + v * LANES) : (vec){0};
  }
  for (long k = 0; k < K; k++, b += sb) {
    vec y[2];
    for (int v = 0; v < vecs; v++) y[v] = AT(b + v * LANES);
#pragma GCC unroll 8
    for (int i = 0; i < HIGH; i++)
      for (int v = 0; v < vecs; v++) sum[i][v] += rows[i][k * sk] * y[v];
  }
#pragma GCC unroll 8
  for (int i = 0; i < HIGH; i++)
    for (int v = 0; i < high && v < vecs; v++) AT(c + i * sc + v * LANES) = sum[i][v];
}

/* `c [M, N] = a b`, or `+=` if `more`; `a(i, k) = a[i si + k sk]`, N whole vectors. */
static void product(long M, long N, long K, const real *a, long si, long sk, const real *b, long sb, real *c,
                    long sc, int more) {
  long j = 0;
  for (; j + 2 * LANES <= N; j += 2 * LANES)
    for (long i = 0; i < M; i += HIGH)
      tile(MIN(HIGH, M - i), 2, K, a + i * si, si, sk, b + j, sb, c + i * sc + j, sc, more);
  for (; j < N; j += LANES)
    for (long i = 0; i < M; i += HIGH)
      tile(MIN(HIGH, M - i), 1, K, a + i * si, si, sk, b + j, sb, c + i * sc + j, sc, more);
}

/* Rows `x`, `stride` apart, beside one another, `wide` numbers each, zeros behind their own `d`. */
static void packed(real *out, const real *x, long rows, long stride, long d, long wide, real times) {
  for (long r = 0; r < rows; r++, out += wide, x += stride) {
    for (long j = 0; j < d; j++) out[j] = x[j] * times;
    for (long j = d; j < wide; j++) out[j] = 0;
  }
}

/* The same rows as columns `[d, wide]`. */
static void turned(real *out, const real *x, long rows, long stride, long d, long wide, real times) {
  for (long j = 0; j < d; j++)
    for (long r = 0; r < wide; r++) out[j * wide + r] = r < rows ? x[r * stride + j] * times : 0;
}

static void put(real *out, const real *x, long rows, long stride, long d, long wide) {
  for (long r = 0; r < rows; r++, out += stride, x += wide) memcpy(out, x, d * sizeof(real));
}

typedef struct { long B, T, S, H, K, V, from, kept; const real *q, *k, *v; real scale; } Call;
#define ROW(x, b, row, h, tokens, d) ((x) + (((b) * (tokens) + (row)) * c->H + (h)) * (d))
/* The memory of keys and values may have room for more pairs than there are. */
#define PAIR(x, s, d) ROW(x, b, s, h, c->kept, d)

/* Weights [n, wide] of the keys `s ..` without what the softmax takes off: later pairs are left to `hide`. */
static void scores(const Call *c, long b, long h, long s, long n, const real *q, long wide, real *keys,
                   real *p) {
  packed(keys, PAIR(c->k, s, c->K), n, c->H * c->K, c->K, UP(c->K), 1);
  product(n, wide, c->K, keys, UP(c->K), 1, q, wide, p, wide, 0);
}

/* Queries do not see pairs behind their own. */
static void hide(const Call *c, long s, long n, long wide, real *p, real with) {
  for (long j = 0; j < n; j++)
    for (long t = 0; t < MIN(s + j - (c->S - c->T), wide); t++) p[j * wide + t] = with;
}

static void forward(const Call *c, long b, long h, real *out, real *logs) {
  long wide = UP(c->T), K = UP(c->K), V = UP(c->V), size = wide * (c->K + KEYS + V + 3) + KEYS * (K + V);
  real *q = aligned_alloc(64, (size * sizeof(real) + 63) / 64 * 64), *p = q + wide * c->K;
  real *y = p + KEYS * wide, *most = y + wide * V, *sum = most + wide, *by = sum + wide;
  real *keys = by + wide, *values = keys + KEYS * K;
  turned(q, ROW(c->q, b, 0, h, c->T, c->K), c->T, c->H * c->K, c->K, wide, c->scale);
  for (long t = 0; t < wide; t++) most[t] = -INFINITY, sum[t] = 0;
  for (long s = 0; s < c->S; s += KEYS) {
    long n = MIN(KEYS, c->S - s);
    scores(c, b, h, s, n, q, wide, keys, p);
    hide(c, s, n, wide, p, -INFINITY);
    for (long t = 0; t < wide; t++) by[t] = most[t];
    for (long j = 0; j < n; j++)
      for (long t = 0; t < wide; t++) most[t] = p[j * wide + t] > most[t] ? p[j * wide + t] : most[t];
    for (long t = 0; t < wide; t++) by[t] = by[t] == most[t] ? 1 : EXP(by[t] - most[t]), sum[t] *= by[t];
    for (long j = 0; j < n; j++)
      for (long t = 0; t < wide; t++) {
        real seen = p[j * wide + t] == -INFINITY ? 0 : EXP(p[j * wide + t] - most[t]);
        p[j * wide + t] = seen, sum[t] += seen;
      }
    for (long t = 0; s && t < c->T; t++)
      for (long j = 0; j < V; j++) y[t * V + j] *= by[t];
    packed(values, PAIR(c->v, s, c->V), n, c->H * c->V, c->V, V, 1);
    product(c->T, V, n, p, 1, wide, values, V, y, V, s > 0);
  }
  for (long t = 0; t < c->T; t++) {
    logs[(b * c->H + h) * c->T + t] = most[t] + (real)log(sum[t]);
    for (long j = 0; j < c->V; j++) y[t * V + j] /= sum[t];
  }
  put(ROW(out, b, 0, h, c->T, c->V), y, c->T, c->H * c->V, c->V, V);
  free(q);
}

/* `d`: gradients of queries, and of the pairs from `from` on. */
static void backward(const Call *c, long b, long h, const real *y, const real *logs, const real *dy,
                     real **d) {
  long wide = UP(c->T), K = UP(c->K), V = UP(c->V), T = c->T;
  long size = wide * (c->K + c->V + 2 * (K + V) + 2 * KEYS + 2) + KEYS * (2 * K + V);
  real *q = aligned_alloc(64, (size * sizeof(real) + 63) / 64 * 64), *dyt = q + wide * c->K;
  real *rows = dyt + wide * c->V, *dys = rows + wide * K, *dq = dys + wide * V, *p = dq + wide * (K + V);
  real *flow = p + wide * KEYS, *log_ = flow + wide * KEYS, *own = log_ + wide;
  real *keys = own + wide, *values = keys + KEYS * K, *made = values + KEYS * V;
  const real *asked = ROW(dy, b, 0, h, T, c->V), *found = ROW(y, b, 0, h, T, c->V);
  turned(q, ROW(c->q, b, 0, h, T, c->K), T, c->H * c->K, c->K, wide, c->scale);
  packed(rows, ROW(c->q, b, 0, h, T, c->K), T, c->H * c->K, c->K, K, c->scale);
  turned(dyt, asked, T, c->H * c->V, c->V, wide, 1);
  packed(dys, asked, T, c->H * c->V, c->V, V, 1);
  for (long t = 0; t < wide; t++) {
    log_[t] = t < T ? logs[(b * c->H + h) * T + t] : 0, own[t] = 0;
    for (long j = 0, at = t * c->H * c->V; t < T && j < c->V; j++, at++) own[t] += asked[at] * found[at];
  }
  for (long s = 0; s < c->S; s += KEYS) {
    long n = MIN(KEYS, c->S - s), first = MIN(s > c->from ? 0 : c->from - s, n);
    scores(c, b, h, s, n, q, wide, keys, p);
    packed(values, PAIR(c->v, s, c->V), n, c->H * c->V, c->V, V, 1);
    product(n, wide, c->V, values, V, 1, dyt, wide, flow, wide, 0);
    for (long j = 0; j < n; j++)
      for (long t = 0; t < wide; t++) p[j * wide + t] = EXP(p[j * wide + t] - log_[t]);
    hide(c, s, n, wide, p, 0);
    for (long j = 0; j < n; j++)
      for (long t = 0; t < wide; t++) flow[j * wide + t] = p[j * wide + t] * (flow[j * wide + t] - own[t]);
    product(T, K, n, flow, 1, wide, keys, K, dq, K, s > 0);
    if (first == n) continue;
    long place = s + first - c->from, left = n - first, pairs = c->S - c->from;
    product(left, K, T, flow + first * wide, wide, 1, rows, K, made, K, 0);
    put(ROW(d[1], b, place, h, pairs, c->K), made, left, c->H * c->K, c->K, K);
    product(left, V, T, p + first * wide, wide, 1, dys, V, values, V, 0);
    put(ROW(d[2], b, place, h, pairs, c->V), values, left, c->H * c->V, c->V, V);
  }
  for (long i = 0; i < T * K; i++) dq[i] *= c->scale;
  put(ROW(d[0], b, 0, h, T, c->K), dq, T, c->H * c->K, c->K, K);
  free(q);
}

int step(long what, const long *sizes, void **arrays, const double *numbers, int threads) {
  Call c = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7],
            arrays[0], arrays[1], arrays[2], numbers[0]};
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long n = 0; n < c.B * c.H; n++)
    if (what)
      backward(&c, n / c.H, n % c.H, arrays[3], arrays[4], arrays[5], (real **)arrays + 6);
    else
      forward(&c, n / c.H, n % c.H, arrays[3], arrays[4]);
  return 0;
}
"""


def loop(like: Tensor) -> Step | None:
    """The functions in C for numbers like these, if there are any."""
    return loop_of(TEXT, like)


def read(step: Step, q: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """What the queries read, and the logarithms of the sums of their weights.

    Example:
        >>> one = torch.ones(1, 16, 1, 1)
        >>> step = loop(one)
        >>> step is None or read(step, one, one, 2.0 * one, 1.0)[0][0, 15].tolist() == [[2.0]]
        True
    """
    y, logs = q.new_empty(*q.shape[:3], values.shape[3]), q.new_empty(q.shape[0], q.shape[2], q.shape[1])
    _call(step, 0, (q, keys, values, y, logs), 0, scale)
    return y, logs


def back(
    step: Step, saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor], dy: Tensor, first: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, of pairs from the `first` on.

    `saved`: queries, keys, values, what was read and the logarithms of `read`.
    """
    q, keys, values, *_ = saved
    dk, dv = (x.new_empty(x.shape[0], x.shape[1] - first, *x.shape[2:]) for x in (keys, values))
    dq = torch.empty_like(q, memory_format=torch.contiguous_format)
    _call(step, 1, (*saved, dy, dq, dk, dv), first, scale)
    return dq, dk, dv


def _call(step: Step, what: int, arrays: Sequence[Tensor], first: int, scale: float) -> None:
    q, keys, values, *others = arrays
    keys, values = _rows(keys), _rows(values)
    if keys.stride(0) * values.shape[3] != values.stride(0) * keys.shape[3]:
        keys, values = keys.contiguous(), values.contiguous()
    pair = keys.shape[2] * keys.shape[3]
    room = keys.stride(0) // pair if keys.shape[0] > 1 and pair else keys.shape[1]
    sizes = (*q.shape[:2], keys.shape[1], q.shape[2], q.shape[3], values.shape[3], first, room)
    # Kept by their names until the call is over.
    plain = [q.contiguous(), keys, values, *(x.contiguous() for x in others)]
    call(step, what, sizes, plain, scale)


def _rows(pairs: Tensor) -> Tensor:
    """Pairs whose rows lie behind one another; samples may have room between them."""
    heads, size = pairs.shape[2:]
    plain = pairs.stride()[1:] == (heads * size, size, 1) and pairs.stride(0) % max(1, heads * size) == 0
    return pairs if plain else pairs.contiguous()
