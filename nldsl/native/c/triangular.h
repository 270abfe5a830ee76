/* The inverse of I + N for the strictly lower part of N, by substitution, row by row. */
static __attribute__((noinline)) void nl_unit_lower_inverse(
    int C, const real *N, long ld, real *out, long lo, real *room) {
  (void)room;
  for (int i = 0; i < C; i++) {
    for (int j = 0; j < C; j++) out[i * lo + j] = i == j;
    for (int k = 0; k < i; k++) {
      const real a = N[i * ld + k];
      for (int j = 0; j <= k; j++) out[i * lo + j] -= a * out[k * lo + j];
    }
  }
}
