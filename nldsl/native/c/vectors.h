/* Vectors of `real`, as wide as the machine has them, and sums over many numbers. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define NL_BYTES 64
#elif defined(__AVX__)
#define NL_BYTES 32
#else
#define NL_BYTES 16
#endif
#define NL_INLINE static inline __attribute__((always_inline, unused))
#define NL_APART static __attribute__((noinline, unused))
#define NL_VECTOR(name, element, bytes) \
  typedef element name __attribute__((vector_size(bytes), aligned(sizeof(element)), may_alias))
NL_VECTOR(nl_vec, real, NL_BYTES);
#define NL_V ((int)(NL_BYTES / sizeof(real)))

/* Brings lines of the cache near; nothing happens where nothing lies. */
NL_INLINE void nl_fetch(const char *from, int lines) {
  for (int i = 0; i < lines; i++) __builtin_prefetch(from + 64 * i, 0, 2);
}

/* The sum of the numbers of a vector, by halves. */
NL_VECTOR(nl_least, real, 16);
NL_INLINE real nl_across(nl_vec x) {
  union { nl_vec all; nl_least part[NL_BYTES / 16]; } u = {x};
  for (int half = NL_BYTES / 32; half; half /= 2)
    for (int i = 0; i < half; i++) u.part[i] += u.part[i + half];
  const nl_least y = u.part[0];
  return sizeof(real) == 4 ? (y[0] + y[2 % (16 / sizeof(real))]) + (y[1] + y[3 % (16 / sizeof(real))]) : y[0] + y[1];
}

/* The sum of n numbers that lie `stride` apart. */
NL_APART real nl_sum(long n, const real *x, long stride) {
  real sum = 0;
  long i = 0;
  if (stride == 1) {
    nl_vec part[4] = {{0}};
    for (; i + 4 * NL_V <= n; i += 4 * NL_V)
      for (int v = 0; v < 4; v++) part[v] += *(const nl_vec *)(x + i + v * NL_V);
    for (; i + NL_V <= n; i += NL_V) part[0] += *(const nl_vec *)(x + i);
    sum = nl_across((part[0] + part[1]) + (part[2] + part[3]));
  } else {
    real part[4] = {0};
    for (; i + 4 <= n; i += 4)
      for (int v = 0; v < 4; v++) part[v] += x[(i + v) * stride];
    sum = (part[0] + part[1]) + (part[2] + part[3]);
  }
  for (; i < n; i++) sum += x[i * stride];
  return sum;
}

/* The sum of the products of n numbers each. */
NL_APART real nl_dot(long n, const real *x, long sx, const real *y, long sy) {
  real sum = 0;
  long i = 0;
  if (sx == 1 && sy == 1) {
    nl_vec part[4] = {{0}};
    for (; i + 4 * NL_V <= n; i += 4 * NL_V)
      for (int v = 0; v < 4; v++)
        part[v] += *(const nl_vec *)(x + i + v * NL_V) * *(const nl_vec *)(y + i + v * NL_V);
    for (; i + NL_V <= n; i += NL_V) part[0] += *(const nl_vec *)(x + i) * *(const nl_vec *)(y + i);
    sum = nl_across((part[0] + part[1]) + (part[2] + part[3]));
  } else {
    real part[4] = {0};
    for (; i + 4 <= n; i += 4)
      for (int v = 0; v < 4; v++) part[v] += x[(i + v) * sx] * y[(i + v) * sy];
    sum = (part[0] + part[1]) + (part[2] + part[3]);
  }
  for (; i < n; i++) sum += x[i * sx] * y[i * sy];
  return sum;
}

/* The largest of n numbers; one that is none makes the result none; of no numbers it is -inf. */
NL_APART real nl_max(long n, const real *x, long stride) {
  enum { PARTS = 64 };
  real part[PARTS], most = -(real)INFINITY;
  long i = 0;
  if (stride == 1 && n >= PARTS) {
    memcpy(part, x, sizeof part);
    for (i = PARTS; i + PARTS <= n; i += PARTS)
      for (int v = 0; v < PARTS; v++) part[v] = (x[i + v] > part[v]) | (x[i + v] != x[i + v]) ? x[i + v] : part[v];
    for (int v = 0; v < PARTS; v++) most = part[v] > most || part[v] != part[v] ? part[v] : most;
  }
  for (; i < n; i++) most = x[i * stride] > most || x[i * stride] != x[i * stride] ? x[i * stride] : most;
  return most;
}
