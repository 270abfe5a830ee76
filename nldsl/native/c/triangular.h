/* Inverse of and solution by I + N for the strictly lower part of N: substitution on blocks, joined by products. */
enum { NL_BLOCK = 16, NL_BLOCK_VECTORS = NL_BLOCK / (NL_BYTES / sizeof(real)) };

/* The inverse of one full block. As soon as a row is known, its share is taken from all rows below. */
NL_APART void nl_invert_block(const real *N, long ld, real *out, long lo) {
  nl_vec row[NL_BLOCK][NL_BLOCK_VECTORS];
  real eye[2 * NL_BLOCK] = {[NL_BLOCK] = 1};
  for (int i = 0; i < NL_BLOCK; i++)
    for (int v = 0; v < NL_BLOCK_VECTORS; v++) row[i][v] = *(const nl_vec *)(eye + NL_BLOCK - i + v * NL_V);
#pragma GCC unroll 16
  for (int k = 0; k < NL_BLOCK - 1; k++)
#pragma GCC unroll 16
    for (int i = k + 1; i < NL_BLOCK; i++) {
      const real a = N[i * ld + k];
      for (int v = 0; v < NL_BLOCK_VECTORS; v++) row[i][v] -= a * row[k][v];
    }
  for (int i = 0; i < NL_BLOCK; i++)
    for (int v = 0; v < NL_BLOCK_VECTORS; v++) *(nl_vec *)(out + i * lo + v * NL_V) = row[i][v];
}

/* `room`: C * C / 4 + nl_product_room(C / 2, C / 2) numbers. */
NL_APART void nl_unit_lower_inverse(int C, const real *N, long ld, real *out, long lo, real *room) {
  if (C == NL_BLOCK) {
    nl_invert_block(N, ld, out, lo);
    return;
  }
  if (C < NL_BLOCK) {
    real given[NL_BLOCK * NL_BLOCK] = {0}, made[NL_BLOCK * NL_BLOCK];
    for (int i = 1; i < C; i++) memcpy(given + i * NL_BLOCK, N + i * ld, i * sizeof(real));
    nl_invert_block(given, NL_BLOCK, made, NL_BLOCK);
    for (int i = 0; i < C; i++) memcpy(out + i * lo, made + i * NL_BLOCK, C * sizeof(real));
    return;
  }
  int top = NL_BLOCK;
  while (2 * top < C) top *= 2;
  const int rest = C - top;
  real *below = out + top * lo, *middle = room, *more = room + (long)rest * top;
  nl_unit_lower_inverse(top, N, ld, out, lo, room);
  nl_unit_lower_inverse(rest, N + top * ld + top, ld, below + top, lo, room);
  nl_product(rest, top, top, N + top * ld, ld, 1, out, lo, 1, middle, top, 1, 0, more);
  nl_product(rest, top, rest, below + top, lo, 1, middle, top, 1, below, lo, -1, 0, more);
  for (int i = 0; i < top; i++) memset(out + i * lo + top, 0, rest * sizeof(real));
}

/* X[C, n] = (I + tril(N, -1))^-1 X, in place; rows of X contiguous. */
NL_APART void nl_solve_unit_lower(int C, int n, const real *N, long ld, real *X, long lx) {
  for (int i = 0; i < C; i += NL_BLOCK) {
    const int rows = C - i < NL_BLOCK ? C - i : NL_BLOCK;
    if (i && n >= NL_LEAST) nl_product_rows(rows, n, i, N + i * ld, ld, 1, X, lx, X + i * lx, lx, -1, 1);
    for (int r = 0; r < rows; r++)
      for (int k = n >= NL_LEAST ? i : 0; k < i + r; k++) {
        const real a = N[(i + r) * ld + k];
        real *to = X + (i + r) * lx;
        const real *from = X + k * lx;
        int j = 0;
        for (; j + NL_V <= n; j += NL_V) *(nl_vec *)(to + j) -= a * *(const nl_vec *)(from + j);
        for (; j < n; j++) to[j] -= a * from[j];
      }
  }
}
