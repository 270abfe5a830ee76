"""From a specification to its module, in a fresh process: `nldsl compile SPEC`, the best of three.

python -m benchmarks.compile_time [SPEC ...]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time


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
    for spec in parser.parse_args().specs:
        spent, wall = min(seconds(spec) for _ in range(3))
        print(f"{spec:20s} {spent:6.2f} s of CPU time, {wall:6.2f} s")


if __name__ == "__main__":
    main()
