/* Functions of one number without branches, so that loops over them become vectors.

   Errors in last places are in tests/unit/test_native_kernels.py. Of the type double `erf`, and of both types
   `sin`, `cos` and `pow`, are those of libm. Results below the least normal number may be 0. */
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define NL_FMAF(x, y, z) __builtin_fmaf(x, y, z)
#define NL_FMA(x, y, z) __builtin_fma(x, y, z)
#else
#define NL_FMAF(x, y, z) ((x) * (y) + (z))
#define NL_FMA(x, y, z) ((x) * (y) + (z))
#endif

NL_INLINE int nl_bits4(float x) { union { float f; int i; } u = {x}; return u.i; }
NL_INLINE float nl_of4(int x) { union { int i; float f; } u = {x}; return u.f; }
NL_INLINE unsigned long long nl_bits8(double x) { union { double f; unsigned long long i; } u = {x}; return u.i; }
NL_INLINE double nl_of8(unsigned long long x) { union { unsigned long long i; double f; } u = {x}; return u.f; }

/* expm1(f) - f for |f| <= ln(2) / 2, where x = n ln(2) + f. */
NL_INLINE float nl_reducedf(float x, float *n, float *rest) {
  *n = __builtin_rintf(x * 0x1.715476p+0f);
  const float f = NL_FMAF(*n, 0x1.bd0106p-13f, NL_FMAF(*n, -0x1.63p-1f, x));
  float p = 0x1.a0e2a6p-13f;
  p = NL_FMAF(p, f, 0x1.6e1bb0p-10f);
  p = NL_FMAF(p, f, 0x1.1110d8p-7f);
  p = NL_FMAF(p, f, 0x1.5554fep-5f);
  p = NL_FMAF(p, f, 0x1.555556p-3f);
  p = NL_FMAF(p, f, 0x1.000000p-1f);
  *rest = f;
  return p * f * f;
}
/* expm1(f). */
NL_INLINE double nl_reduced(double x, double *n) {
  *n = __builtin_rint(x * 0x1.71547652b82fep+0);
  const double f = NL_FMA(*n, -0x1.a39ef35793c76p-33, NL_FMA(*n, -0x1.62e42feep-1, x));
  double p = 1.0 / 6227020800;
  p = NL_FMA(p, f, 1.0 / 479001600);
  p = NL_FMA(p, f, 1.0 / 39916800);
  p = NL_FMA(p, f, 1.0 / 3628800);
  p = NL_FMA(p, f, 1.0 / 362880);
  p = NL_FMA(p, f, 1.0 / 40320);
  p = NL_FMA(p, f, 1.0 / 5040);
  p = NL_FMA(p, f, 1.0 / 720);
  p = NL_FMA(p, f, 1.0 / 120);
  p = NL_FMA(p, f, 1.0 / 24);
  p = NL_FMA(p, f, 1.0 / 6);
  p = NL_FMA(p, f, 0.5);
  return NL_FMA(p * f, f, f);
}
/* 2^n of a whole number n within the range of the exponents; 64 bits without a conversion that AVX2 lacks. */
NL_INLINE float nl_power2f(float n) { return nl_of4(((int)n + 127) << 23); }
NL_INLINE double nl_power2(double n) { return nl_of8((nl_bits8(n + 0x1.8p52) + 1023) << 52); }

NL_INLINE float nl_expf(float x) {
  float n, f, c = x >= -104.0f ? x : -104.0f;
  c = c <= 89.0f ? c : 89.0f;
  const float tail = nl_reducedf(c, &n, &f), most = 1 + f;
  /* What rounding 1 + f took goes to the tail: two errors of a quarter of the last place fewer. */
  const float p = most + ((f - (most - 1)) + tail);
  /* In two halves, so that neither leaves the range. */
  const float half = __builtin_floorf(n * 0.5f);
  const float y = p * nl_power2f(half) * nl_power2f(n - half);
  return x != x ? x : y;
}
NL_INLINE double nl_expd(double x) {
  double n, c = x >= -746.0 ? x : -746.0;
  c = c <= 710.0 ? c : 710.0;
  const double p = nl_reduced(c, &n) + 1.0;
  const double half = __builtin_floor(n * 0.5);
  const double y = p * nl_power2(half) * nl_power2(n - half);
  return x != x ? x : y;
}
/* 2 (2^(n-1) expm1(f) + (2^(n-1) - 1/2)): nothing is lost for n = 0, nothing overflows for the largest n. */
NL_INLINE float nl_expm1f(float x) {
  float n, f, c = x >= -20.0f ? x : -20.0f;
  c = c <= 89.0f ? c : 89.0f;
  const float tail = nl_reducedf(c, &n, &f), p = tail + f, s = nl_power2f(n - 1);
  return x != x ? x : 2 * NL_FMAF(s, p, s - 0.5f);
}
NL_INLINE double nl_expm1d(double x) {
  double n, c = x >= -44.0 ? x : -44.0;
  c = c <= 710.0 ? c : 710.0;
  const double p = nl_reduced(c, &n), s = nl_power2(n - 1);
  return x != x ? x : 2 * NL_FMA(s, p, s - 0.5);
}

/* log(1 + f) + e ln(2) + c for sqrt(1/2) <= 1 + f < sqrt(2): the series of fdlibm in f / (2 + f). */
NL_INLINE float nl_log_fromf(float f, float e, float c) {
  const float s = f / (2 + f), z = s * s, half = 0.5f * f * f;
  float r = 0x1.f13c4cp-3f;
  r = NL_FMAF(r, z, 0x1.23d3dcp-2f);
  r = NL_FMAF(r, z, 0x1.999c26p-2f);
  r = NL_FMAF(r, z, 0x1.555554p-1f);
  return NL_FMAF(e, 0x1.62e3p-1f, f - (half - NL_FMAF(s, NL_FMAF(r, z, half), NL_FMAF(e, 0x1.2fefa2p-17f, c))));
}
NL_INLINE double nl_log_from(double f, double e, double c) {
  const double s = f / (2 + f), z = s * s, half = 0.5 * f * f;
  double r = 1.479819860511658591e-01;
  r = NL_FMA(r, z, 1.531383769920937332e-01);
  r = NL_FMA(r, z, 1.818357216161805012e-01);
  r = NL_FMA(r, z, 2.222219843214978396e-01);
  r = NL_FMA(r, z, 2.857142874366239149e-01);
  r = NL_FMA(r, z, 3.999999999940941908e-01);
  r = NL_FMA(r, z, 6.666666666666735130e-01);
  const double low = NL_FMA(e, 1.90821492927058770002e-10, c);
  return NL_FMA(e, 6.93147180369123816490e-01, f - (half - NL_FMA(s, NL_FMA(r, z, half), low)));
}
/* x = 2^e (1 + f) for a positive normal x. */
NL_INLINE float nl_partsf(float x, float *e) {
  const int i = nl_bits4(x) - 0x3f3504f3;
  *e = (float)(i >> 23);
  return nl_of4((i & 0x7fffff) + 0x3f3504f3) - 1;
}
NL_INLINE double nl_parts(double x, double *e) {
  const unsigned long long sqrt_half = 0x3fe6a09e667f3bcdull, bias = 0x3ff0000000000000ull;
  const unsigned long long i = nl_bits8(x) - sqrt_half + bias;
  *e = nl_of8((i >> 52) + 0x4330000000000000ull) - (0x1p52 + 1023);
  return nl_of8((i & 0xfffffffffffffull) + sqrt_half) - 1;
}
NL_INLINE float nl_logf(float x) {
  const int small = x < 0x1p-126f;
  float e;
  const float f = nl_partsf(small ? x * 0x1p23f : x, &e);
  float y = nl_log_fromf(f, small ? e - 23 : e, 0);
  y = x == 0 ? -(float)INFINITY : y;
  y = x < 0 ? (float)NAN : y;
  return x < (float)INFINITY ? y : x;
}
NL_INLINE double nl_logd(double x) {
  const int small = x < 0x1p-1022;
  double e;
  const double f = nl_parts(small ? x * 0x1p52 : x, &e);
  double y = nl_log_from(f, small ? e - 52 : e, 0);
  y = x == 0 ? -(double)INFINITY : y;
  y = x < 0 ? (double)NAN : y;
  return x < (double)INFINITY ? y : x;
}
/* u = 1 + x rounded; what the rounding took is added as its share of the logarithm. */
NL_INLINE float nl_log1pf(float x) {
  const float u = 1 + x, lost = x < 1 ? x - (u - 1) : 1 - (u - x);
  float e;
  const float f = nl_partsf(u, &e);
  float y = e == 0 ? nl_log_fromf(x, 0, 0) : nl_log_fromf(f, e, lost / u);
  y = x == -1 ? -(float)INFINITY : y;
  y = x < -1 ? (float)NAN : y;
  return x < (float)INFINITY ? y : x;
}
NL_INLINE double nl_log1pd(double x) {
  const double u = 1 + x, lost = x < 1 ? x - (u - 1) : 1 - (u - x);
  double e;
  const double f = nl_parts(u, &e);
  double y = nl_log_from(e == 0 ? x : f, e, e == 0 ? 0 : lost / u);
  y = x == -1 ? -(double)INFINITY : y;
  y = x < -1 ? (double)NAN : y;
  return x < (double)INFINITY ? y : x;
}

NL_INLINE float nl_tanhf(float x) {
  const float a = __builtin_fabsf(x), z = x * x;
  float p = -5.70498872745e-3f;
  p = NL_FMAF(p, z, 2.06390887954e-2f);
  p = NL_FMAF(p, z, -5.37397155531e-2f);
  p = NL_FMAF(p, z, 1.33314422036e-1f);
  p = NL_FMAF(p, z, -3.33332819422e-1f);
  const float near = NL_FMAF(p * z, x, x), far = 1 - 2 / (nl_expf(2 * a) + 1);
  return a < 0.625f ? near : __builtin_copysignf(far, x);
}
NL_INLINE double nl_tanhd(double x) {
  const double a = __builtin_fabs(x), t = nl_expm1d(2 * (a <= 22 ? a : 22));
  return x != x ? x : __builtin_copysign(t / (t + 2), x);
}
/* After N. Juffa: a polynomial near 0, 1 - exp(polynomial) beyond. */
NL_INLINE float nl_erff(float x) {
  const float t = __builtin_fabsf(x), s = x * x, b = t < 4.0f ? t : 4.0f, c = b * b;
  float r = NL_FMAF(-1.72853470e-5f, b, 3.83197126e-4f);
  r = NL_FMAF(r, c, NL_FMAF(-3.88396438e-3f, b, 2.42546219e-2f));
  r = NL_FMAF(r, b, -1.06777877e-1f);
  r = NL_FMAF(r, b, -6.34846687e-1f);
  r = NL_FMAF(r, b, -1.28717512e-1f);
  const float far = __builtin_copysignf(1 - nl_expf(NL_FMAF(r, b, -b)), x);
  float p = -5.96761703e-4f;
  p = NL_FMAF(p, s, 4.99119423e-3f);
  p = NL_FMAF(p, s, -2.67681349e-2f);
  p = NL_FMAF(p, s, 1.12819925e-1f);
  p = NL_FMAF(p, s, -3.76125336e-1f);
  p = NL_FMAF(p, s, 1.28379166e-1f);
  return t > 0.927734375f ? far : NL_FMAF(p, x, x);
}

#define nl_float (sizeof(real) == sizeof(float))
NL_INLINE real nl_exp(real x) { return nl_float ? nl_expf(x) : nl_expd(x); }
NL_INLINE real nl_expm1(real x) { return nl_float ? nl_expm1f(x) : nl_expm1d(x); }
NL_INLINE real nl_log(real x) { return nl_float ? nl_logf(x) : nl_logd(x); }
NL_INLINE real nl_log1p(real x) { return nl_float ? nl_log1pf(x) : nl_log1pd(x); }
NL_INLINE real nl_tanh(real x) { return nl_float ? nl_tanhf(x) : nl_tanhd(x); }
NL_INLINE real nl_erf(real x) { if (nl_float) return nl_erff(x); return erf(x); }
NL_INLINE real nl_sqrt(real x) { if (nl_float) return __builtin_sqrtf(x); return __builtin_sqrt(x); }
NL_INLINE real nl_sin(real x) { if (nl_float) return sinf(x); return sin(x); }
NL_INLINE real nl_cos(real x) { if (nl_float) return cosf(x); return cos(x); }
NL_INLINE real nl_pow(real x, real y) { if (nl_float) return powf(x, y); return pow(x, y); }
NL_INLINE real nl_abs(real x) { return x < 0 ? -x : x + 0; }
NL_INLINE real nl_rsqrt(real x) { return 1 / nl_sqrt(x); }
/* 1 / (1 + 2^n (1 + expm1(f))), without what `nl_expf` does at the ends of the range: there it is 0 or 1. */
NL_INLINE float nl_sigmoidf(float x) {
  float n, f, c = x < -88.0f ? -88.0f : x;
  c = c > 87.0f ? 87.0f : c;
  const float tail = nl_reducedf(-c, &n, &f), s = nl_power2f(n);
  const float y = 1 / (NL_FMAF(s, f + tail, 1) + s);
  return x < -88.0f ? 0 : y;
}
NL_INLINE real nl_sigmoid(real x) {
  if (nl_float) return nl_sigmoidf(x);
  const real e = nl_exp(-nl_abs(x)), q = e / (1 + e);
  return x < 0 ? e - e * q : 1 - q;
}
NL_INLINE real nl_silu(real x) { return x / (1 + nl_exp(-x)); }
NL_INLINE real nl_logsigmoid(real x) { return (x < 0 ? x : x != x ? x : 0) - nl_log1p(nl_exp(-nl_abs(x))); }
NL_INLINE real nl_softplus(real x) { return (x > 0 ? x : x != x ? x : 0) + nl_log1p(nl_exp(-nl_abs(x))); }
NL_INLINE real nl_gelu_erf(real x) { return x * (real)0.5 * (1 + nl_erf(x * (real)0.70710678118654752440)); }
/* (1 + tanh(u)) / 2 = sigmoid(2 u). */
NL_INLINE real nl_gelu_tanh(real x) {
  return x * nl_sigmoid((real)1.59576912160573071176 * (x + (real)0.044715 * x * x * x));
}
