"""How fast the products of native lanes are, beside torch.bmm and the peak of this machine.

    python -m benchmarks.native_products [--rounds 20]

One thread, float32.  Operands take turns in about 600 KB, as the buffers of a lane do; torch multiplies the
same matrices in one batch (in brackets).  GFLOP/s by CPU time, the best of the rounds; of the other kernels,
which torch has not, microseconds per call.
"""

from __future__ import annotations

import argparse
import ctypes

import torch

from benchmarks.measure import best_seconds, heading
from benchmarks.peak import peak_gflops
from nldsl.native.kernels import kernel_text
from nldsl.runtime import native

SHAPES = (
    *((64, 64, 64), (64, 64, 16), (16, 64, 64), (64, 16, 64), (32, 32, 32), (16, 16, 16), (64, 48, 64)),
    *((128, 128, 128), (256, 256, 64), (64, 256, 64), (63, 65, 61), (64, 1, 64), (1, 64, 64), (64, 64, 1)),
)
"""Rows, columns, inner size."""
ROOM = 150_000
"""Numbers that operands take turns in."""
CALLS = """
int step(long tensors, const long *s, real **x, const double *d, int threads) {
  (void)tensors; (void)d; (void)threads;
  const long m = s[1], n = s[2], k = s[3], slot = s[4], slots = s[5];
  for (long i = 0; i < s[6]; i++) {
    real *a = x[0] + i * 3 % slots * slot, *b = x[0] + (i * 7 + 1) % slots * slot;
    real *c = x[1] + (i * 11 + 2) % slots * slot;
    switch (s[0]) {
      case 0: nl_product(m, n, k, a, k, 1, b, n, 1, c, n, 1, 0, x[2]); break;
      case 1: nl_product(m, n, k, a, 1, m, b, n, 1, c, n, 1, 0, x[2]); break;
      case 2: nl_product(m, n, k, a, k, 1, b, 1, k, c, n, 1, 0, x[2]); break;
      case 3: nl_transpose(m, n, a, n, c, m); break;
      case 4: nl_unit_lower_inverse(m, a, m, c, m, x[2]); break;
      case 5: nl_solve_unit_lower(m, n, a, m, c, n); break;
    }
  }
  return 0;
}
"""


class Kernels:
    """Calls of the kernels on matrices that take turns."""

    def __init__(self) -> None:
        step = native.compiled(kernel_text() + CALLS, "float")
        if step is None:
            raise SystemExit("this needs a C compiler")
        self.step = step
        self.given = [1e-3 * torch.randn(ROOM) for _ in range(2)] + [torch.zeros(2 * ROOM)]

    def calls(self, which: int, m: int, n: int, k: int, count: int):
        """A function that makes `count` calls of one kernel."""
        slot = (max(m * k, k * n, m * n) + 31) // 16 * 16
        sizes = (ctypes.c_long * 7)(which, m, n, k, slot, max(1, ROOM // (2 * slot)), count)
        arrays = (ctypes.c_void_p * 3)(*(t.data_ptr() for t in self.given))
        return lambda: self.step(3, sizes, arrays, (ctypes.c_double * 1)(), 1)


def torch_product(m: int, n: int, k: int, turned: tuple[bool, bool]):
    """The same product by torch, as many as lie in the same room, and how many those are."""
    count = max(1, ROOM // (m * k + k * n + m * n))
    a = torch.randn(count, k, m).mT if turned[0] else torch.randn(count, m, k)
    b = torch.randn(count, n, k).mT if turned[1] else torch.randn(count, k, n)
    out = torch.empty(count, m, n)
    return (lambda: torch.bmm(a, b, out=out)), count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    heading(__doc__)
    kernels = Kernels()
    print(f"{'peak of torch':24s} {peak_gflops(rounds=3)[0]:8.1f} GFLOP/s")
    print(f"{'rows x columns x inner':24s} {'A B':>15s} {'At B':>15s} {'A Bt':>15s}   (torch in brackets)")
    for m, n, k in SHAPES:
        work = 2e-9 * m * n * k
        count = max(20, round(4e-3 / (work + 1e-6)))
        cells = []
        for which, turned in enumerate(((False, False), (True, False), (False, True))):
            by_torch, batch = torch_product(m, n, k, turned)
            repeats = max(1, count // batch)

            def repeated(by_torch=by_torch, repeats=repeats):
                for _ in range(repeats):
                    by_torch()

            cases = {"own": kernels.calls(which, m, n, k, count), "torch": repeated}
            seconds = best_seconds(cases, rounds)
            own, other = work * count / seconds["own"], work * repeats * batch / seconds["torch"]
            cells.append(f"{own:7.1f} ({other:5.1f})")
        print(f"{f'{m} x {n} x {k}':24s} {' '.join(f'{c:>15s}' for c in cells)}")
    for name, which in {"transpose": 3, "inverse": 4, "solve": 5}.items():
        for size in (16, 64, 128):
            seconds = best_seconds({name: kernels.calls(which, size, size, size, 500)}, rounds)[name]
            print(f"{f'{name} {size}':24s} {seconds / 500 * 1e6:8.2f} us")


if __name__ == "__main__":
    main()
