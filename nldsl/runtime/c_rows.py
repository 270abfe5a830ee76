"""What loops in C over rows have in common: SiLU, sigmoid and the norm of a row, as vectors of numbers."""

from __future__ import annotations

ROWS = r"""
#include <math.h>
#define INLINE static inline __attribute__((always_inline))
#define FLOATS (sizeof(real) == 4)
#define EACH(c, n) _Pragma("omp simd") for (long c = 0; c < (n); c++)
/* 2^n as bits; n + 1.5 2^52 (2^23) has the whole number n in its last bits. */
INLINE float two_float(float n) {
  union { float f; int i; } u;
  u.i = ((int)n + 127) << 23;
  return u.f;
}
INLINE double two_double(double n) {
  union { double f; unsigned long long i; } u = {n + 0x1.8p52};
  u.i = (u.i + 1023) << 52;
  return u.f;
}
/* e^x within the range of normal numbers, x = n ln(2) + f. */
INLINE float exp_float(float x) {
  x = x > -87 ? x : -87;
  x = x < 88 ? x : 88;
  const float n = __builtin_rintf(x * 0x1.715476p+0f);
  const float f = n * 0x1.bd0106p-13f + (n * -0x1.63p-1f + x);
  float p = 1.0f / 5040;
  p = p * f + 1.0f / 720;
  p = p * f + 1.0f / 120;
  p = p * f + 1.0f / 24;
  p = p * f + 1.0f / 6;
  p = p * f + 0.5f;
  return (p * f * f + f + 1) * two_float(n);
}
INLINE double exp_double(double x) {
  x = x > -708 ? x : -708;
  x = x < 709 ? x : 709;
  const double n = __builtin_rint(x * 0x1.71547652b82fep+0);
  const double f = n * -0x1.a39ef35793c76p-33 + (n * -0x1.62e42feep-1 + x);
  double p = 1.0 / 6227020800;
  p = p * f + 1.0 / 479001600;
  p = p * f + 1.0 / 39916800;
  p = p * f + 1.0 / 3628800;
  p = p * f + 1.0 / 362880;
  p = p * f + 1.0 / 40320;
  p = p * f + 1.0 / 5040;
  p = p * f + 1.0 / 720;
  p = p * f + 1.0 / 120;
  p = p * f + 1.0 / 24;
  p = p * f + 1.0 / 6;
  p = p * f + 0.5;
  return (p * f * f + f + 1) * two_double(n);
}
/* Both arms of a choice have one type: a quotient of doubles takes four times as long.
   0 where e^-x is no number any more, so that it stays 0 times a large one. */
INLINE real sigmoid(real x) {
  const real e = FLOATS ? exp_float(-x) : exp_double(-x), y = 1 / (1 + e);
  return x == x ? (x < (FLOATS ? -88 : -709) ? 0 : y) : x;
}
/* `act` is 0: x itself, 1: silu, 2: sigmoid. */
INLINE real active(int act, real x) { return act == 0 ? x : act == 1 ? x * sigmoid(x) : sigmoid(x); }
INLINE real slope(int act, real x) {
  if (act == 0) return 1;
  const real s = sigmoid(x);
  return act == 1 ? s * (1 + x * (1 - s)) : s * (1 - s);
}

/* 1 / sqrt(share sum(x^2) + eps). */
INLINE real inverse(const real *x, long n, real share, real eps) {
  real sum = 0;
  _Pragma("omp simd reduction(+ : sum)")
  for (long c = 0; c < n; c++) sum += x[c] * x[c];
  return 1 / (FLOATS ? (real)sqrtf(share * sum + eps) : (real)sqrt(share * sum + eps));
}
/* y = x w / sqrt(share sum(x^2) + eps). */
INLINE void norm(const real *x, const real *w, real *y, long n, real share, real eps) {
  const real v = inverse(x, n, share, eps);
  EACH(c, n) y[c] = x[c] * v * w[c];
}
/* What x is given, and what is added to the sums for w. */
INLINE void norm_back(const real *x, const real *w, const real *dy, real *dx, real *total, long n, real share,
                      real eps) {
  const real v = inverse(x, n, share, eps);
  real sum = 0;
  _Pragma("omp simd reduction(+ : sum)")
  for (long c = 0; c < n; c++) sum += dy[c] * w[c] * x[c];
  const real along = sum * share * v * v * v;
  EACH(c, n) {
    total[c] += dy[c] * x[c] * v;
    dx[c] = dy[c] * w[c] * v - x[c] * along;
  }
}
"""
"""Begins a text: `sigmoid(x)`, `active(act, x)` and its `slope(act, x)`, `norm` and `norm_back` of a row."""
