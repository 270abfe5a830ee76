/* Products of linear layers: rows x [M, K] and weights w [N, K] lie row by row.

   A part of the other operand is packed into panels that stay in the second cache while rows go by; sums are made
   in one order, however many threads there are. */
enum {
  NL_PANEL = NL_WIDEST * NL_BYTES / sizeof(real), /* columns of a panel, as wide as a tile */
  NL_TALLEST = 6,                                 /* rows of a tile */
  NL_PIECE = 2 * NL_TALLEST,                      /* rows between which something is brought nearer */
  NL_BAND = 8 * NL_TALLEST,                       /* rows that one panel after the other goes over */
  NL_DEEP = 1024,                                 /* the longest sum before it is put down */
  NL_GROUP = 16,                                  /* panels that are packed at a time */
  NL_TALL = 128,                                  /* rows whose products are summed at a time in a gradient */
  NL_SIDE = 480                                   /* rows of a gradient made at a time: no power of two */
};
#define NL_LEAST_OF(a, b) ((a) < (b) ? (a) : (b))

static real *nl_room(long count) { return aligned_alloc(64, (count * sizeof(real) + 63) / 64 * 64); }

/* Bring what step `t` of so many has to of `rows` with `count` numbers, `apart` from one another, into the second
   cache: a few lines at a time beside products, which would wait for them where all are asked for at once. */
NL_INLINE void nl_bring(long t, long steps, const real *first, long rows, long count, long apart) {
  for (long i = rows * t / steps; i < rows * (t + 1) / steps; i++)
    for (long j = 0; j < count; j += 64 / (long)sizeof(real)) __builtin_prefetch(first + i * apart + j, 0, 2);
}

/* y [M, N] = x [M, K] b, `turned`: b = w^T of w [N, K], else b [K, N]; added to y if `more`, to `bias` if given. */
static void nl_rows(
    long M, long N, long K, const real *x, const real *b, int turned, real *y, int more, const real *bias,
    int threads) {
  const long most = NL_LEAST_OF(K, NL_DEEP) * NL_LEAST_OF(NL_GROUP, N / NL_PANEL + 1) * NL_PANEL;
  real *packed = nl_room(most);
  for (long n0 = 0; n0 < N; n0 += NL_GROUP * NL_PANEL)
    for (long k0 = 0; k0 < K; k0 += NL_DEEP) {
      const long n1 = NL_LEAST_OF(N, n0 + NL_GROUP * NL_PANEL), deep = NL_LEAST_OF(K - k0, NL_DEEP);
      const bool thin = n1 - n0 < NL_PANEL || deep < NL_PANEL; /* not worth it */
      const int piece = thin ? NL_BAND : NL_PIECE;
      _Pragma("omp parallel num_threads(threads) if (threads > 1)") {
        _Pragma("omp for")
        for (long n = n0; n < n1; n += NL_PANEL) {
          real *panel = packed + (n - n0) * deep;
          const int wide = (int)NL_LEAST_OF(n1 - n, NL_PANEL);
          if (turned) nl_transpose(wide, (int)deep, b + n * K + k0, K, panel, wide);
          else
            for (long k = 0; k < deep; k++) memcpy(panel + k * wide, b + (k0 + k) * N + n, wide * sizeof(real));
        }
        real room[NL_DEEP];
        _Pragma("omp for")
        for (long m = 0; m < M; m += NL_BAND) {
          const long next = m + NL_BAND, left = next < M && !thin ? NL_LEAST_OF(M - next, NL_BAND) : 0;
          const long pieces = NL_BAND / NL_PIECE, steps = (n1 - n0 + NL_PANEL - 1) / NL_PANEL * pieces;
          for (long n = n0; n < n1; n += NL_PANEL) {
            const int wide = (int)NL_LEAST_OF(n1 - n, NL_PANEL), high = (int)NL_LEAST_OF(M - m, NL_BAND);
            for (int i = 0; bias && !k0 && i < high; i++) memcpy(y + (m + i) * N + n, bias + n, wide * sizeof(real));
            for (int i = 0; i < high; i += piece) {
              const long t = (n - n0) / NL_PANEL * pieces + i / NL_PIECE;
              nl_bring(t, steps, x + next * K + k0, left, deep, K);
              nl_bring(t, steps, y + next * N + n0, left, n1 - n0, N);
              nl_product(
                  NL_LEAST_OF(high - i, piece), wide, (int)deep, x + (m + i) * K + k0, K, 1,
                  packed + (n - n0) * deep, wide, 1, y + (m + i) * N + n, N, 1, more || k0 || bias, room);
            }
          }
        }
      }
    }
  free(packed);
}

/* w [N, K] = y^T x, with y [M, N] and x [M, K]. */
static void nl_weights(long M, long N, long K, const real *y, const real *x, real *w, int threads) {
  const long panels = (K + NL_PANEL - 1) / NL_PANEL, wide = N > NL_SIDE, parts = wide ? 1 : NL_LEAST_OF(panels, threads);
  /* Rows of w are shared out in equal sides, those of a wide y in sides that stay in the cache. */
  const long least = wide ? (N - 1) / NL_SIDE + 1 : 1, each = (threads + parts - 1) / parts;
  const long sides = (least + each - 1) / each * each, side = ((N - 1) / sides / NL_TALLEST + 1) * NL_TALLEST;
  _Pragma("omp parallel for collapse(2) schedule(dynamic) num_threads(threads) if (threads > 1)")
  for (long n = 0; n < N; n += side)
    for (long part = 0; part < parts; part++) {
      const long from = panels * part / parts * NL_PANEL, to = NL_LEAST_OF(K, panels * (part + 1) / parts * NL_PANEL);
      const long high = NL_LEAST_OF(N - n, side);
      /* Rows of y that are far apart are brought together. */
      real *near = wide ? nl_room(NL_TALL * high) : 0, room[NL_TALL];
      for (long m = 0; m < M; m += NL_TALL) {
        const long deep = NL_LEAST_OF(M - m, NL_TALL);
        for (long i = 0; near && i < deep; i++) memcpy(near + i * high, y + (m + i) * N + n, high * sizeof(real));
        const long next = m + NL_TALL, left = next < M && high >= NL_PANEL ? NL_LEAST_OF(M - next, NL_TALL) : 0;
        const long pieces = (high + NL_PIECE - 1) / NL_PIECE, steps = (to - from + NL_PANEL - 1) / NL_PANEL * pieces;
        for (long k = from; k < to; k += NL_PANEL)
          for (long i = 0; i < high; i += NL_PIECE) {
            const long t = (k - from) / NL_PANEL * pieces + i / NL_PIECE;
            nl_bring(t, steps, y + next * N + n, left, high, N);
            nl_bring(t, steps, x + next * K + from, left, to - from, K);
            nl_product(
                (int)NL_LEAST_OF(high - i, NL_PIECE), (int)NL_LEAST_OF(to - k, NL_PANEL), (int)deep,
                (near ? near : y + m * N + n) + i, 1, near ? high : N, x + m * K + k, K, 1, w + (n + i) * K + k, K, 1,
                m > 0, room);
          }
      }
      free(near);
    }
}

/* Whether these products are faster than those of torch, as was measured: MKL is not written for such machines. */
static int nl_faster(void) {
#if defined(__x86_64__) && NL_BYTES == 64
  return __builtin_cpu_is("amd");
#else
  return 0;
#endif
}

/* 0: y = x w^T + bias; 1: x = y w, or `+=` if `more`; 2: w = y^T x. */
static void nl_one(long what, const long *sizes, void **a, int threads) {
  const long M = sizes[0], N = sizes[1], K = sizes[2];
  if (what == 0) nl_rows(M, N, K, a[0], a[1], 1, a[2], 0, a[3], threads);
  if (what == 1) nl_rows(M, K, N, a[0], a[1], 0, a[2], (int)sizes[3], 0, threads);
  if (what == 2) nl_weights(M, N, K, a[0], a[1], a[2], threads);
}

/* One of these, or 3: whether they are worth it; 4: several, which and its four sizes and arrays each. */
int step(long what, const long *sizes, void **a, const double *numbers, int threads) {
  if (what == 3) return nl_faster();
  if (what < 3) nl_one(what, sizes, a, threads);
  else
    for (long i = 0; i < sizes[0]; i++) nl_one(sizes[5 * i + 1], sizes + 5 * i + 2, a + 4 * i, threads);
  return 0;
}
