"""How fast the products of linear layers are in native mode, beside torch's.

    python -m benchmarks.linears [--rounds 9] [--threads 1]

float32.  GFLOP/s of `y = x w^T`, `dx = dy w` and `dw = dy^T x`, torch's in brackets, the best of the rounds;
by CPU time on one thread, by elapsed time on several.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from benchmarks.measure import heading
from nldsl.native import linears
from nldsl.native.kernels import linears_text
from nldsl.runtime.native import built

SHAPES = (
    *((4096, 256, 256), (4096, 1024, 256), (4096, 256, 1024), (4096, 640, 256), (4096, 256, 512)),
    *((1024, 4096, 256), (4096, 64, 64), (4096, 4, 256), (256, 256, 256), (64, 256, 256), (16, 256, 256)),
)
"""Rows, outputs, inputs."""


def seconds(cases: dict[str, Callable[[], object]], rounds: int, repeats: int) -> dict[str, float]:
    """The best of interleaved rounds."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, case in cases.items():
            started = clock()
            for _ in range(repeats):
                case()
            best[name] = min(best[name], (clock() - started) / repeats)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    heading(__doc__, options.threads)
    step = built(linears_text(), "float")
    if isinstance(step, str):
        raise SystemExit(step)
    print(f"used by native mode on this machine: {'yes' if linears.faster(step) else 'no'}")
    print(f"{'rows x outputs x inputs':24s} {'y':>15s} {'dx':>15s} {'dw':>15s}   (torch in brackets)")
    for rows, outputs, inner in SHAPES:
        x, w, dy = torch.randn(rows, inner), torch.randn(outputs, inner), torch.randn(rows, outputs)
        work = 2e-9 * rows * outputs * inner
        cases: dict[str, Callable[[], object]] = {
            "y": lambda x=x, w=w: linears.rows(step, x, w),
            "y torch": lambda x=x, w=w: torch.nn.functional.linear(x, w),
            "dx": lambda dy=dy, w=w: linears.inputs(step, dy, w),
            "dx torch": lambda dy=dy, w=w: dy @ w,
            "dw": lambda dy=dy, x=x: linears.weights(step, dy, x),
            "dw torch": lambda dy=dy, x=x: dy.mT @ x,
        }
        best = seconds(cases, options.rounds, max(1, round(1 / (work * 50))))
        cells = [f"{work / best[n]:7.1f} ({work / best[n + ' torch']:5.1f})" for n in ("y", "dx", "dw")]
        print(f"{f'{rows} x {outputs} x {inner}':24s} {' '.join(f'{c:>15s}' for c in cells)}")


if __name__ == "__main__":
    main()
