"""Products of few rows with a large matrix in C, tile by tile: what texts of such loops have in common."""

from __future__ import annotations

TILES = r"""
#include <stdlib.h>
#include <string.h>
/* A tile of HIGH x WIDE sums stays in registers. */
#ifdef __AVX512F__
#include <immintrin.h>
#define BYTES 64
#define HIGH 8
#else
#define BYTES 32
#define HIGH 6
#endif
#define LANES (BYTES / (long)sizeof(real))
#define WIDE (2 * LANES)
#define PAIR (2 * WIDE)
/* So few rows are one tile that is a vector wide, and so deep is what lies in the second cache meanwhile. */
#define FEW (2 * HIGH)
#define DEEP 32
/* So deep is a tile before more is fetched: never many lines at once. */
#define PART 64
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define PARALLEL _Pragma("omp parallel for num_threads(threads) if (threads > 1)")
typedef real vec __attribute__((vector_size(BYTES), aligned(sizeof(real)), may_alias));
#define AT(p) (*(vec *)(p))

static real *room(long count) {
  return aligned_alloc(64, (count * (long)sizeof(real) + 63) / 64 * 64);
}

/* `out = a b`, or `+=` if `more`: rows `a[i]`, elements `stride` apart, and a panel `b [depth, WIDE]`. */
static inline void tile(real out[HIGH][WIDE], const real *const a[HIGH], long stride, const real *b,
                        long depth, int more) {
  vec left[HIGH] = {0}, right[HIGH] = {0};
  for (int i = 0; more && i < HIGH; i++) left[i] = AT(out[i]), right[i] = AT(out[i] + LANES);
  for (long k = 0; k < depth; k++) {
    vec y = AT(b + k * WIDE), z = AT(b + k * WIDE + LANES);
#pragma GCC unroll 8
    for (int i = 0; i < HIGH; i++) {
      real x = a[i][k * stride];
      left[i] += x * y;
      right[i] += x * z;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < HIGH; i++) AT(out[i]) = left[i], AT(out[i] + LANES) = right[i];
}

/* The first columns of `x [rows, stride]` as a panel; zeros behind those that are `there`. */
static void panel(real *b, const real *x, long rows, long stride, long there) {
  for (long k = 0; k < rows; k++, b += WIDE, x += stride)
    if (there >= WIDE)
      AT(b) = AT(x), AT(b + LANES) = AT(x + LANES);
    else
      for (long j = 0; j < WIDE; j++) b[j] = j < there ? x[j] : 0;
}

/* Columns `j ..` of `y [R, L] = x [R, S] m [S, L]`: two panels, and the next two are fetched meanwhile. */
static void columns(const real *m, const real *x, real *y, long R, long S, long L, long j) {
  real *b = room(S * PAIR);
  long each = (S * HIGH + R - 1) / R, fetched = 0;
  for (long p = 0; p < 2; p++) panel(b + p * S * WIDE, m + MIN(j + p * WIDE, L), S, L, L - j - p * WIDE);
  for (long r = 0; r < R; r += HIGH, fetched += each)
    for (long p = 0; p < 2 && j + p * WIDE < L; p++) {
      real out[HIGH][WIDE];
      for (long k = 0; k < S; k += PART) {
        const real *a[HIGH];
        long from = fetched + (p * S + k) * each / (2 * S);
        long to = fetched + (p * S + k + PART) * each / (2 * S);
        for (int i = 0; i < HIGH; i++) a[i] = x + MIN(r + i, R - 1) * S + k;
        for (; j + 2 * PAIR <= L && from < MIN(to, S); from++)
          for (long c = 0; c < PAIR; c += LANES) __builtin_prefetch(m + from * L + j + PAIR + c, 0, 2);
        tile(out, a, 1, b + (p * S + k) * WIDE, MIN(PART, S - k), k > 0);
      }
      for (int i = 0; i < HIGH && r + i < R; i++)
        memcpy(y + (r + i) * L + j + p * WIDE, out[i], MIN(WIDE, L - j - p * WIDE) * sizeof(real));
    }
  free(b);
}

/* Columns `j .. to` of `y [R, L] = x [R, S] m [S, L]` of at most FEW rows: `m` is read as it lies, and the
   rows after the present ones are fetched meanwhile. */
static void thin(const real *m, const real *x, real *y, long R, long S, long L, long j, long to) {
  for (long k = 0; k < S; k += DEEP, m += DEEP * L, x += DEEP)
    for (long at = j, deep = MIN(DEEP, S - k), next = DEEP * (L + j); at < to; at += LANES) {
      vec sum[FEW] = {0};
      const real *a[FEW];
#pragma GCC unroll 16
      for (int i = 0; i < FEW; i++) a[i] = x + MIN(i, R - 1) * S;
      if (at + LANES > to) {
        for (long r = 0; r < R; r++)
          for (long c = at; c < to; c++) {
            real one = k ? y[r * L + c] : 0;
            for (long i = 0; i < deep; i++) one += a[r][i] * m[i * L + c];
            y[r * L + c] = one;
          }
        break;
      }
#pragma GCC unroll 16
      for (int i = 0; i < FEW; i++)
        if (k && i < R) sum[i] = AT(y + i * L + at);
      for (long i = 0; i < deep; i++, next += LANES) {
        vec row = AT(m + i * L + at);
        __builtin_prefetch(m + next, 0, 2);
#pragma GCC unroll 16
        for (int r = 0; r < FEW; r++) sum[r] += a[r][i] * row;
      }
#pragma GCC unroll 16
      for (int i = 0; i < FEW; i++)
        if (i < R) AT(y + i * L + at) = sum[i];
    }
}

#ifdef __AVX512F__
enum { STEPS = sizeof(real) == 4 ? 4 : 3 };
/* Which numbers of two vectors stand in the one and in the other when parts of `LANES >> (step + 1)` have
   changed places. */
typedef struct { __m512i low[STEPS], high[STEPS]; } Places;
static inline void places(Places *p) {
  for (int step = 0; step < STEPS; step++) {
    int few[2][LANES];
    long long many[2][LANES];
    for (int j = 0, d = LANES >> (step + 1); j < LANES; j++) {
      few[0][j] = many[0][j] = j & d ? LANES + j - d : j;
      few[1][j] = many[1][j] = j & d ? LANES + j : j + d;
    }
    p->low[step] = _mm512_loadu_si512(sizeof(real) == 4 ? (void *)few[0] : (void *)many[0]);
    p->high[step] = _mm512_loadu_si512(sizeof(real) == 4 ? (void *)few[1] : (void *)many[1]);
  }
}
static inline vec pick(vec a, __m512i from, vec b) {
  if (sizeof(real) == 4) return (vec)_mm512_permutex2var_ps((__m512)a, from, (__m512)b);
  return (vec)_mm512_permutex2var_pd((__m512d)a, from, (__m512d)b);
}
/* LANES x LANES numbers turned: halves change places, then quarters, and so on. */
static inline void turn(const Places *p, real *b, long wide, const real *x, long L) {
  vec v[LANES];
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i++) v[i] = AT(x + i * L);
#pragma GCC unroll 4
  for (int step = 0; step < STEPS; step++)
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
      if (!(i & (LANES >> (step + 1)))) {
        vec one = v[i], other = v[i + (LANES >> (step + 1))];
        v[i] = pick(one, p->low[step], other);
        v[i + (LANES >> (step + 1))] = pick(one, p->high[step], other);
      }
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i++) AT(b + i * wide) = v[i];
}
#endif

/* Rows `x [R, L]` as the columns of a panel `[L, wide]`. */
static void turned(real *b, const real *x, long R, long L, long wide) {
#ifdef __AVX512F__
  Places p;
  places(&p);
#endif
  for (long k = 0; k < L; k += LANES)
    for (long j = 0; j < wide; j += LANES) {
#ifdef __AVX512F__
      if (j + LANES <= R && k + LANES <= L) {
        turn(&p, b + k * wide + j, wide, x + j * L + k, L);
        continue;
      }
#endif
      for (long r = j; r < j + LANES; r++)
        for (long i = k; i < MIN(k + LANES, L); i++) b[i * wide + r] = r < R ? x[r * L + i] : 0;
    }
}

/* Columns `s ..` of `y [R, S] = x [R, L] m^T` of at most LANES rows, `b` the panel of `x`, a vector wide. */
static void across_thin(const real *m, const real *b, real *y, long R, long S, long L, long s) {
  vec sum[HIGH] = {0};
  const real *a[HIGH];
  for (int i = 0; i < HIGH; i++) a[i] = m + MIN(s + i, S - 1) * L;
  long next = s + 2 * HIGH <= S ? HIGH * L : 0;
  for (long k = 0; k < L; k += LANES) {
    for (int i = 0; i < HIGH; i++) __builtin_prefetch(a[i] + next + k, 0, 2);
    for (long l = k; l < MIN(k + LANES, L); l++) {
      vec row = AT(b + l * LANES);
#pragma GCC unroll 8
      for (int i = 0; i < HIGH; i++) sum[i] += a[i][l] * row;
    }
  }
  for (int i = 0; i < MIN(HIGH, S - s); i++)
    for (long j = 0; j < R; j++) y[j * S + s + i] = sum[i][j];
}

/* Columns `s ..` of `y [R, S] = x [R, L] m^T`, where `b` are the panels of `x`: HIGH rows of `m [S, L]`. */
static void across(const real *m, const real *b, real *y, long R, long S, long L, long s) {
  for (long r = 0; r < R; r += WIDE, b += L * WIDE) {
    real out[HIGH][WIDE];
    long from = s + 2 * HIGH <= S ? r * HIGH / R : HIGH, to = MIN(r + WIDE, R) * HIGH / R;
    for (long k = 0; k < L; k += PART) {
      const real *a[HIGH];
      for (int i = 0; i < HIGH; i++) a[i] = m + MIN(s + i, S - 1) * L + k;
      for (long i = from; i < to; i++)
        for (long c = 0; c < PART && k + c < L; c += LANES) __builtin_prefetch(a[i] + HIGH * L + c, 0, 2);
      tile(out, a, 1, b + k * WIDE, MIN(PART, L - k), k > 0);
    }
    for (long j = 0; j < MIN(WIDE, R - r); j++)
      for (int i = 0; i < MIN(HIGH, S - s); i++) y[(r + j) * S + s + i] = out[i][j];
  }
}
"""
"""Products of a tile and of one sample; begins a text."""
