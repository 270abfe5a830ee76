"""The matrix products this machine can do: the bound the kernels are measured against.

    python -m benchmarks.peak [--threads 1] [--rounds 5]

GFLOP/s of one large product and of the batched products the kernels are made of, by CPU time, the best of
the rounds; the bound is the best of them.  float32.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.measure import best_seconds, heading
from nldsl.train.bound import product

SHAPES = ((1, 2048, 2048, 2048), (1, 1024, 1024, 1024), (16, 64, 64, 64), (80, 64, 64, 64), (256, 64, 64, 64))
"""Products measured: batch, rows, inner size, columns."""


def peak_gflops(threads: int = 1, rounds: int = 5) -> tuple[float, dict[str, float]]:
    """The best rate (GFLOP/s, all threads together), and the rate of every shape."""
    torch.set_num_threads(threads)
    cases, work = {}, {}
    for batch, rows, inner, columns in SHAPES:
        name = f"{batch} x [{rows}, {inner}] x [{inner}, {columns}]"
        once, flops = product(batch, rows, inner, columns)
        repeat = max(1, round(4e8 / flops))

        def repeated(once=once, repeat=repeat):
            for _ in range(repeat):
                once()

        cases[name] = repeated
        work[name] = 1e-9 * repeat * flops
    seconds = best_seconds(cases, rounds)
    # CPU time adds up over threads.
    rates = {name: work[name] / seconds[name] * threads for name in cases}
    return max(rates.values()), rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    heading(__doc__, options.threads)
    best, rates = peak_gflops(options.threads, options.rounds)
    for name, rate in rates.items():
        print(f"{name:36s} {rate:7.1f} GFLOP/s")
    print(f"{'bound':36s} {best:7.1f} GFLOP/s")


if __name__ == "__main__":
    main()
