"""Whole layers and optimisers against the packages a person would use instead, side by side in one run.

    python -m venv peers && peers/bin/pip install torch -e . transformers titans-pytorch nested-learning
    peers/bin/python -m benchmarks.peers [--rounds 7] [--native] [--threads 1] [NAME ...]

Width 256, B 4, T 1024, float32, forward and backward, projections included.  Every round times ours and the
other right after one another, in turns; a ratio, theirs to ours, is the median over the rounds of the ratios.
On one thread times are CPU time of the process; on several, which both sides then have, elapsed time (other
jobs on the machine lengthen it).  Where both compute the same function they get the same weights, and the
largest difference of their outputs is printed.  A package that is not installed is skipped, and said.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version

import torch

from benchmarks import peer
from benchmarks.measure import heading
from benchmarks.peer import Pair, Peers

PEERS = {
    "transformers": ("benchmarks.peers_transformers", "transformers"),
    "titans": ("benchmarks.peers_titans", "titans-pytorch"),
    "hope": ("benchmarks.peers_nested", "nested-learning"),
}


def seconds(run: Callable[[], object]) -> float:
    """CPU time on one thread; elapsed time on several, whose CPU times would add up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    run()
    return clock() - started


def paired(pair: Pair, rounds: int) -> tuple[float, float, float]:
    """Medians: seconds of ours, seconds of the other, their ratio; after one call each to warm up."""
    pair.ours()
    pair.other()
    mine, others = [], []
    for index in range(min(rounds, pair.most)):
        for run, found in ((pair.ours, mine), (pair.other, others))[:: 1 if index % 2 else -1]:
            found.append(seconds(run))
    ratios = [b * pair.scale / a for a, b in zip(mine, others, strict=True)]
    return statistics.median(mine), statistics.median(others) * pair.scale, statistics.median(ratios)


def report(name: str, module: str, package: str, rounds: int) -> None:
    """A line for every pair of one package."""
    try:
        found: Peers = import_module(module).pairs
    except ModuleNotFoundError as error:
        print(f"{name}: left out, `{error.name}` is not installed (pip install {package})")
        return
    print(f"{package} {version(package)}")
    for pair in found():
        said = pair.check()
        ours, other, ratio = paired(pair, rounds)
        print(
            f"  {pair.name:78s} {1e3 * ours:8.1f} ms {1e3 * other:10.1f} ms {ratio:7.1f} x  {said}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*PEERS, []], help="packages; all if none is named")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--native", action="store_true", help="ours in native lanes, where they have some")
    parser.add_argument("--threads", type=int, default=1, help="of both sides; elapsed time if several")
    options = parser.parse_args()
    if options.threads < 1:
        parser.error("--threads takes 1 or more")
    peer.native = options.native
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    heading(__doc__, options.threads)
    kind = "CPU time, 1 thread" if options.threads == 1 else f"elapsed time, {options.threads} threads each"
    print(f"{kind:80s} {'ours':>11s} {'other':>13s} {'ratio':>9s}", flush=True)
    for name in options.names or PEERS:
        report(name, *PEERS[name], options.rounds)


if __name__ == "__main__":
    main()
