/* C[M, N] = alpha A[M, K] B[K, N] + beta C; A and B of any strides, rows of C contiguous. */

/* -1 in the last places of a vector that starts `skip` numbers before the middle. */
static const unsigned char nl_late[2 * NL_BYTES] = {[NL_BYTES... 2 * NL_BYTES - 1] = 255};
#define nl_product_room(N, K) (((K) + 16) * ((N) + 64))

/* A tile of ROWS x (vectors of WIDTH numbers) kept in registers; the first `skip` columns of a tile of one vector
   stay as they are, so that the last columns of a row need no narrower tile. */
#define NL_TILE(VEC, WIDTH, ROWS, VECTORS) \
  do { \
    VEC sum[ROWS][VECTORS]; \
    for (int r = 0; r < ROWS; r++) \
      for (int v = 0; v < VECTORS; v++) sum[r][v] = (VEC){0}; \
    for (int k = 0; k < K; k++) { \
      VEC b[VECTORS]; \
      for (int v = 0; v < VECTORS; v++) b[v] = *(const VEC *)(B + k * bk + v * WIDTH); \
      for (int r = 0; r < ROWS; r++) { \
        const real a = A[(m + r) * am + k * ak]; \
        for (int v = 0; v < VECTORS; v++) sum[r][v] += a * b[v]; \
      } \
    } \
    for (int r = 0; r < ROWS; r++) \
      for (int v = 0; v < VECTORS; v++) { \
        VEC *c = (VEC *)(C + (m + r) * cm + v * WIDTH); \
        VEC made = beta == 0 ? sum[r][v] * alpha : *c * beta + sum[r][v] * alpha; \
        if (VECTORS == 1 && skip) made = (VEC)(((VEC##_bits)made & late) | ((VEC##_bits)*c & ~late)); \
        *c = made; \
      } \
  } while (0)

#define NL_COLUMNS(VEC, WIDTH, VECTORS) \
  NL_APART void VEC##_columns_##VECTORS( \
      int M, int K, const real *A, long am, long ak, const real *B, long bk, real *C, long cm, real alpha, \
      real beta, int skip) { \
    const VEC##_bits late = *(const VEC##_bits *)(nl_late + NL_BYTES - skip * sizeof(real)); \
    (void)late; \
    int m = 0; \
    for (; m + 6 <= M; m += 6) NL_TILE(VEC, WIDTH, 6, VECTORS); \
    if (m + 4 <= M) { NL_TILE(VEC, WIDTH, 4, VECTORS); m += 4; } \
    if (m + 2 <= M) { NL_TILE(VEC, WIDTH, 2, VECTORS); m += 2; } \
    if (m < M) NL_TILE(VEC, WIDTH, 1, VECTORS); \
  }

#define NL_BITS(VEC, bytes) \
  typedef __typeof__((VEC){0} < (VEC){0}) VEC##_plain_bits; \
  typedef VEC##_plain_bits VEC##_bits __attribute__((aligned(1), may_alias))

NL_BITS(nl_vec, NL_BYTES);
#if NL_BYTES == 64 || defined(__aarch64__)
#define NL_WIDEST 4
NL_COLUMNS(nl_vec, NL_V, 4)
NL_COLUMNS(nl_vec, NL_V, 3)
#else
#define NL_WIDEST 2
#endif
NL_COLUMNS(nl_vec, NL_V, 2)
NL_COLUMNS(nl_vec, NL_V, 1)
#if NL_BYTES > 32
NL_VECTOR(nl_vec32, real, 32);
NL_BITS(nl_vec32, 32);
NL_COLUMNS(nl_vec32, (int)(32 / sizeof(real)), 1)
#endif
#if NL_BYTES > 16
NL_VECTOR(nl_vec16, real, 16);
NL_BITS(nl_vec16, 16);
NL_COLUMNS(nl_vec16, (int)(16 / sizeof(real)), 1)
#endif
enum { NL_LEAST = 16 / sizeof(real) };

/* B[j, i] = A[i, j] on squares of WIDTH: each stage interleaves rows that lie half a square apart. */
#ifdef __clang__
#define NL_PICK16(a, b, h) __builtin_shufflevector(a, b, h, h + 16, h + 1, h + 17, h + 2, h + 18, h + 3, h + 19, \
  h + 4, h + 20, h + 5, h + 21, h + 6, h + 22, h + 7, h + 23)
#define NL_PICK8(a, b, h) __builtin_shufflevector(a, b, h, h + 8, h + 1, h + 9, h + 2, h + 10, h + 3, h + 11)
#define NL_PICK4(a, b, h) __builtin_shufflevector(a, b, h, h + 4, h + 1, h + 5)
#define NL_PICK2(a, b, h) __builtin_shufflevector(a, b, h, h + 2)
#else
#define NL_PICK16(a, b, h) __builtin_shuffle(a, b, (__typeof__(a)){h, h + 16, h + 1, h + 17, h + 2, h + 18, \
  h + 3, h + 19, h + 4, h + 20, h + 5, h + 21, h + 6, h + 22, h + 7, h + 23})
#define NL_PICK8(a, b, h) __builtin_shuffle(a, b, (__typeof__(a)){h, h + 8, h + 1, h + 9, h + 2, h + 10, h + 3, h + 11})
#define NL_PICK4(a, b, h) __builtin_shuffle(a, b, (__typeof__(a)){h, h + 4, h + 1, h + 5})
#define NL_PICK2(a, b, h) __builtin_shuffle(a, b, (__typeof__(a)){h, h + 2})
#endif

/* The last square of a row or a column overlaps the one before. */
#define NL_TURN(NAME, WORD, WIDTH) \
  NL_VECTOR(NAME##_row, WORD, WIDTH * sizeof(WORD)); \
  NL_INLINE void NAME(int M, int N, const WORD *A, long am, WORD *B, long bm) { \
    for (int i0 = 0; i0 < M; i0 += WIDTH) \
      for (int j0 = 0; j0 < N; j0 += WIDTH) { \
        const int i = i0 + WIDTH <= M ? i0 : M - WIDTH, j = j0 + WIDTH <= N ? j0 : N - WIDTH; \
        NAME##_row x[WIDTH], y[WIDTH]; \
        for (int r = 0; r < WIDTH; r++) x[r] = *(const NAME##_row *)(A + (i + r) * am + j); \
        for (int stage = 1; stage < WIDTH; stage *= 2) { \
          for (int r = 0; r < WIDTH / 2; r++) { \
            y[2 * r] = NL_PICK##WIDTH(x[r], x[r + WIDTH / 2], 0); \
            y[2 * r + 1] = NL_PICK##WIDTH(x[r], x[r + WIDTH / 2], WIDTH / 2); \
          } \
          for (int r = 0; r < WIDTH; r++) x[r] = y[r]; \
        } \
        for (int r = 0; r < WIDTH; r++) *(NAME##_row *)(B + (j + r) * bm + i) = x[r]; \
      } \
  }
NL_TURN(nl_turn_floats, int, 4)
NL_TURN(nl_turn_doubles, long long, 2)
#if NL_BYTES == 64
NL_TURN(nl_turn_many_floats, int, 16)
NL_TURN(nl_turn_many_doubles, long long, 8)
#endif

NL_APART void nl_transpose(int M, int N, const real *A, long am, real *B, long bm) {
  const int least = M < N ? M : N;
  const bool floats = sizeof(real) == sizeof(float);
#if NL_BYTES == 64
  if (floats && least >= 16) { nl_turn_many_floats(M, N, (const int *)A, am, (int *)B, bm); return; }
  if (!floats && least >= 8) { nl_turn_many_doubles(M, N, (const long long *)A, am, (long long *)B, bm); return; }
#endif
  if (floats && least >= 4) { nl_turn_floats(M, N, (const int *)A, am, (int *)B, bm); return; }
  if (!floats && least >= 2) { nl_turn_doubles(M, N, (const long long *)A, am, (long long *)B, bm); return; }
  for (int i = 0; i < M; i++)
    for (int j = 0; j < N; j++) B[j * bm + i] = A[i * am + j];
}

/* The product where the rows of B are contiguous and not shorter than the narrowest vector. */
#define NL_NEXT(COUNT) \
  for (; n + COUNT * NL_V <= N; n += COUNT * NL_V) \
  nl_vec_columns_##COUNT(M, K, A, am, ak, B + n, bk, C + n, cm, alpha, beta, 0)
#define NL_TWICE(VEC) \
  if (N * sizeof(real) >= sizeof(VEC)) { \
    const int width = sizeof(VEC) / sizeof(real), rest = N - width; \
    VEC##_columns_1(M, K, A, am, ak, B, bk, C, cm, alpha, beta, 0); \
    if (rest) VEC##_columns_1(M, K, A, am, ak, B + rest, bk, C + rest, cm, alpha, beta, width - rest); \
    return; \
  }
NL_APART void nl_product_rows(
    int M, int N, int K, const real *A, long am, long ak, const real *B, long bk, real *C, long cm, real alpha,
    real beta) {
  if (N >= NL_V) {
    int n = 0;
#if NL_WIDEST == 4
    NL_NEXT(4);
    NL_NEXT(3);
#endif
    NL_NEXT(2);
    NL_NEXT(1);
    const int skip = n + NL_V - N;
    if (n < N) nl_vec_columns_1(M, K, A, am, ak, B + n - skip, bk, C + n - skip, cm, alpha, beta, skip);
    return;
  }
#if NL_BYTES > 32
  NL_TWICE(nl_vec32)
#endif
#if NL_BYTES > 16
  NL_TWICE(nl_vec16)
#endif
}

NL_INLINE void nl_put(real *c, real sum, real alpha, real beta) {
  *c = beta == 0 ? alpha * sum : alpha * sum + beta * *c;
}

/* c[m] = alpha sum_k A[m, k] x[k] + beta c[m]; numbers of c are `cm` apart. */
NL_APART void nl_product_vector(
    int M, int K, const real *A, long am, long ak, const real *x, long xk, real *c, long cm, real alpha, real beta,
    real *room) {
  if (xk != 1 && K > 1) {
    for (int k = 0; k < K; k++) room[k] = x[k * xk];
    x = room;
  }
  int m = 0;
  if (am == 1 && M >= NL_LEAST && cm == 1) {
    nl_product_rows(1, M, K, x, 0, 1, A, ak, c, 0, alpha, beta);
    return;
  }
  if (am == 1 && M >= NL_LEAST) {
    enum { PART = 64 };
    real made[PART];
    for (; M - m >= NL_LEAST; m += M - m < PART ? M - m : PART) {
      const int count = M - m < PART ? M - m : PART;
      nl_product_rows(1, count, K, x, 0, 1, A + m, ak, made, 0, alpha, 0);
      for (int i = 0; i < count; i++) nl_put(c + (m + i) * cm, made[i], 1, beta);
    }
  }
  if (ak == 1 && K >= NL_V)
    for (; m + 4 <= M; m += 4) {
      nl_vec part[4] = {{0}};
      int k = 0;
      for (; k + NL_V <= K; k += NL_V) {
        const nl_vec b = *(const nl_vec *)(x + k);
        for (int r = 0; r < 4; r++) part[r] += *(const nl_vec *)(A + (m + r) * am + k) * b;
      }
      for (int r = 0; r < 4; r++) {
        real sum = nl_across(part[r]);
        for (int j = k; j < K; j++) sum += A[(m + r) * am + j] * x[j];
        nl_put(c + (m + r) * cm, sum, alpha, beta);
      }
    }
  for (; m < M; m++) {
    if (K >= NL_V) { nl_put(c + m * cm, nl_dot(K, A + m * am, ak, x, 1), alpha, beta); continue; }
    real sum = 0;
    for (int k = 0; k < K; k++) sum += A[m * am + k * ak] * x[k];
    nl_put(c + m * cm, sum, alpha, beta);
  }
}

/* `room`: nl_product_room(N, K) numbers, where B is copied to if its rows are not contiguous. */
NL_APART void nl_product(
    int M, int N, int K, const real *A, long am, long ak, const real *B, long bk, long bn, real *C, long cm,
    real alpha, real beta, real *room) {
  if (N < NL_LEAST) {
    for (int n = 0; n < N; n++) nl_product_vector(M, K, A, am, ak, B + n * bn, bk, C + n, cm, alpha, beta, room);
    return;
  }
  if (bn != 1 && M < 4) {
    for (int m = 0; m < M; m++) nl_product_vector(N, K, B, bn, bk, A + m * am, ak, C + m * cm, 1, alpha, beta, room);
    return;
  }
  if (bn != 1) {
    if (bk == 1) nl_transpose(N, K, B, bn, room, N);
    else
      for (int k = 0; k < K; k++)
        for (int n = 0; n < N; n++) room[(long)k * N + n] = B[k * bk + n * bn];
    B = room;
    bk = N;
  }
  nl_product_rows(M, N, K, A, am, ak, B, bk, C, cm, alpha, beta);
}

/* How many threads share what one lane does. */
static _Thread_local __attribute__((unused)) int nl_team = 1;

/* The same, its columns or rows shared; every number is the sum that one thread makes of it. */
NL_APART void nl_product_shared(
    int M, int N, int K, const real *A, long am, long ak, const real *B, long bk, long bn, real *C, long cm,
    real alpha, real beta, real *room) {
  enum { WIDE = NL_WIDEST * NL_BYTES / sizeof(real), TALL = 6 };
  const int columns = N / WIDE, rows = M / TALL;
  /* Few columns are copied to the room, of which there is one. */
  const bool by_rows = bn == 1 && N >= NL_LEAST && columns < nl_team && rows > columns;
  const int most = by_rows ? rows : columns, parts = most < nl_team ? most : nl_team;
  if (parts < 2) {
    nl_product(M, N, K, A, am, ak, B, bk, bn, C, cm, alpha, beta, room);
    return;
  }
  const int last = by_rows ? M : N, unit = by_rows ? TALL : WIDE;
  _Pragma("omp parallel for num_threads(parts)")
  for (int part = 0; part < parts; part++) {
    const long from = (long)most * part / parts * unit;
    const long to = part + 1 < parts ? (long)most * (part + 1) / parts * unit : last;
    if (by_rows) nl_product((int)(to - from), N, K, A + from * am, am, ak, B, bk, bn, C + from * cm, cm, alpha, beta, room);
    /* A part is copied to as much of the room as it has of B. */
    else nl_product(M, (int)(to - from), K, A, am, ak, B + from * bn, bk, bn, C + from, cm, alpha, beta, room + from * K);
  }
}

/* A transpose, its rows shared. */
NL_APART void nl_transpose_shared(int M, int N, const real *A, long am, real *B, long bm) {
  const int most = M / 64, parts = most < nl_team ? most : nl_team;
  if (parts < 2) {
    nl_transpose(M, N, A, am, B, bm);
    return;
  }
  _Pragma("omp parallel for num_threads(parts)")
  for (int part = 0; part < parts; part++) {
    const long from = (long)most * part / parts * 64, to = part + 1 < parts ? (long)most * (part + 1) / parts * 64 : M;
    nl_transpose((int)(to - from), N, A + from * am, am, B + from, bm);
  }
}
