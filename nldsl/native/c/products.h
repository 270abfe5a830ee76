/* C[M, N] = alpha A[M, K] B[K, N] + beta C; A and B of any strides, rows of C contiguous. */
#if defined(__AVX512F__)
#define NL_BYTES 64
#elif defined(__AVX__)
#define NL_BYTES 32
#else
#define NL_BYTES 16
#endif
typedef real nl_vec __attribute__((vector_size(NL_BYTES), aligned(sizeof(real))));
#define NL_V ((int)(NL_BYTES / sizeof(real)))

static inline __attribute__((always_inline)) void nl_tile(
    int rows, int vectors, int K, const real *A, long am, long ak, const real *B, long bk, real *C, long cm,
    real alpha, real beta) {
  nl_vec sum[6][4];
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < vectors; v++) sum[r][v] = (nl_vec){0};
  for (int k = 0; k < K; k++) {
    nl_vec b[4];
    for (int v = 0; v < vectors; v++) b[v] = *(const nl_vec *)(B + k * bk + v * NL_V);
    for (int r = 0; r < rows; r++) {
      const real a = A[r * am + k * ak];
      for (int v = 0; v < vectors; v++) sum[r][v] += a * b[v];
    }
  }
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < vectors; v++) {
      nl_vec *c = (nl_vec *)(C + r * cm + v * NL_V);
      *c = beta == 0 ? sum[r][v] * alpha : *c * beta + sum[r][v] * alpha;
    }
}

#define NL_TILE(R, V)                                                                                       \
  static __attribute__((noinline)) void nl_tile_##R##_##V(                                                  \
      int K, const real *A, long am, long ak, const real *B, long bk, real *C, long cm, real alpha, real beta) { \
    nl_tile(R, V, K, A, am, ak, B, bk, C, cm, alpha, beta);                                                 \
  }
NL_TILE(6, 4) NL_TILE(4, 4) NL_TILE(2, 4) NL_TILE(1, 4)
NL_TILE(6, 2) NL_TILE(2, 2) NL_TILE(1, 2) NL_TILE(6, 1) NL_TILE(2, 1) NL_TILE(1, 1)

/* B[j, i] = A[i, j]. */
static __attribute__((noinline)) void nl_transpose(int M, int N, const real *A, long am, real *B, long bm) {
  int i = 0;
  for (; i + 16 <= M; i += 16)
    for (int j = 0; j < N; j++)
      for (int r = 0; r < 16; r++) B[j * bm + i + r] = A[(i + r) * am + j];
  for (; i < M; i++)
    for (int j = 0; j < N; j++) B[j * bm + i] = A[i * am + j];
}

#define NL_ROWS(V)                                                                                          \
  for (; n + V * NL_V <= N; n += V * NL_V) {                                                                \
    int m = 0;                                                                                              \
    for (; m + 6 <= M; m += 6) nl_tile_6_##V(K, A + m * am, am, ak, B + n, bk, C + m * cm + n, cm, alpha, beta); \
    for (; m + 2 <= M; m += 2) nl_tile_2_##V(K, A + m * am, am, ak, B + n, bk, C + m * cm + n, cm, alpha, beta); \
    for (; m < M; m++) nl_tile_1_##V(K, A + m * am, am, ak, B + n, bk, C + m * cm + n, cm, alpha, beta);    \
  }

static __attribute__((noinline)) void nl_product(
    int M, int N, int K, const real *A, long am, long ak, const real *B, long bk, long bn, real *C, long cm,
    real alpha, real beta, real *room) {
  if (bn != 1 && N > 1) {
    if (bk == 1) nl_transpose(N, K, B, bn, room, N);
    else
      for (int k = 0; k < K; k++)
        for (int n = 0; n < N; n++) room[k * N + n] = B[k * bk + n * bn];
    B = room;
    bk = N;
  }
  int n = 0;
  NL_ROWS(4)
  NL_ROWS(2)
  NL_ROWS(1)
  for (; n < N; n++)
    for (int m = 0; m < M; m++) {
      real sum = 0;
      for (int k = 0; k < K; k++) sum += A[m * am + k * ak] * B[k * bk + n];
      C[m * cm + n] = beta == 0 ? alpha * sum : alpha * sum + beta * C[m * cm + n];
    }
}
