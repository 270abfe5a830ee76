"""From a specification to its module, in a fresh process: `nldsl compile SPEC`, without `torch.compile`.

    python -m benchmarks.compile_time [--rounds 3] [SPEC ...]

CPU and elapsed seconds of the whole process, its start and the import of torch included, the best of the
rounds.  Ends with an error if one takes more than 10 seconds of CPU time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from benchmarks.measure import heading

LIMIT = 10.0


def seconds(spec: str) -> tuple[float, float]:
    """CPU and wall seconds of one process, its start and the import of torch included."""
    before, started = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "nldsl", "compile", spec], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("specs", nargs="*", default=["hope", "gated_deltanet", "titans_mlp"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    heading(__doc__)
    print(f"{'specification':20s} {'CPU time':>10s} {'elapsed':>10s}   limit {LIMIT:.0f} s", flush=True)
    over = []
    for spec in options.specs:
        spent, wall = min(seconds(spec) for _ in range(options.rounds))
        print(f"{spec:20s} {spent:8.2f} s {wall:8.2f} s", flush=True)
        over += [spec] if spent > LIMIT else []
    if over:
        sys.exit(f"over the limit of {LIMIT:.0f} s: {', '.join(over)}")


if __name__ == "__main__":
    main()
