/* Functions of one number without branches, so that loops over them become vectors. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static inline float nl_expf(float x) {
  /* 2^n exp(f), |f| <= ln(2)/2; n in two halves, so that neither leaves the range. */
  const float n = __builtin_rintf(x * 0x1.715476p+0f);
  const float f = __builtin_fmaf(n, -0x1.7f7d1cp-20f, __builtin_fmaf(n, -0x1.62e400p-1f, x));
  float p = 0x1.a0e2a6p-13f;
  p = __builtin_fmaf(p, f, 0x1.6e1bb0p-10f);
  p = __builtin_fmaf(p, f, 0x1.1110d8p-7f);
  p = __builtin_fmaf(p, f, 0x1.5554fep-5f);
  p = __builtin_fmaf(p, f, 0x1.555556p-3f);
  p = __builtin_fmaf(p, f, 0x1.000000p-1f);
  p = __builtin_fmaf(p * f, f, f) + 1.0f;
  const float m = n < -150.0f ? -150.0f : n > 129.0f ? 129.0f : n;
  const int k = (int)m, half = k >> 1;
  union { int i; float f; } low = {(half + 127) << 23}, high = {(k - half + 127) << 23};
  const float y = p * low.f * high.f;
  return x != x ? x : x > 89.0f ? (float)INFINITY : x < -104.0f ? 0.0f : y;
}

#define nl_float (sizeof(real) == sizeof(float))
static inline real nl_exp(real x) { if (nl_float) return nl_expf(x); return exp(x); }
static inline real nl_expm1(real x) { if (nl_float) return expm1f(x); return expm1(x); }
static inline real nl_log(real x) { if (nl_float) return logf(x); return log(x); }
static inline real nl_log1p(real x) { if (nl_float) return log1pf(x); return log1p(x); }
static inline real nl_tanh(real x) { if (nl_float) return tanhf(x); return tanh(x); }
static inline real nl_erf(real x) { if (nl_float) return erff(x); return erf(x); }
static inline real nl_sqrt(real x) { if (nl_float) return __builtin_sqrtf(x); return __builtin_sqrt(x); }
static inline real nl_sin(real x) { if (nl_float) return sinf(x); return sin(x); }
static inline real nl_cos(real x) { if (nl_float) return cosf(x); return cos(x); }
static inline real nl_pow(real x, real y) { if (nl_float) return powf(x, y); return pow(x, y); }
static inline real nl_abs(real x) { if (nl_float) return __builtin_fabsf(x); return __builtin_fabs(x); }
static inline real nl_rsqrt(real x) { return 1 / nl_sqrt(x); }
static inline real nl_sigmoid(real x) { return 1 / (1 + nl_exp(-x)); }
static inline real nl_silu(real x) { return x / (1 + nl_exp(-x)); }
static inline real nl_gelu_erf(real x) { return x * (real)0.5 * (1 + nl_erf(x * (real)0.70710678118654752440)); }
static inline real nl_gelu_tanh(real x) {
  return x * (real)0.5 * (1 + nl_tanh((real)0.79788456080286535588 * (x + (real)0.044715 * x * x * x)));
}
