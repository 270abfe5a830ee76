"""What `python -m benchmarks` runs, in this order, and about how long it takes.

Seconds are of one thread on two cores of an AMD EPYC.  `{out}` in arguments is the folder of the run.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Benchmark:
    """Arguments of every process, at full size and at small ones that show that it runs."""

    seconds: float
    quick_seconds: float
    runs: tuple[str, ...] = ("",)
    quick: tuple[str, ...] = ("",)
    plots: tuple[str, ...] = ()


PLAN = {
    "peak": Benchmark(6, 5, quick=("--rounds 1",)),
    "kernels": Benchmark(90, 30, runs=("--compiled",), quick=("--rounds 1",)),
    "token_loops": Benchmark(17, 8, quick=("--rounds 1 --tokens 8",)),
    "filters": Benchmark(13, 6, quick=("--rounds 1 --tokens 128",)),
    "titans_layer": Benchmark(12, 10, quick=("--rounds 1",)),
    "hope_layer": Benchmark(38, 27, quick=("--rounds 1",)),
    "live_layers": Benchmark(40, 30, quick=("--rounds 1",)),
    "commits": Benchmark(16, 11, quick=("--rounds 1",)),
    "lengths": Benchmark(
        275,
        12,
        runs=("--out {out}/lengths",),
        quick=("--lengths 64 128 --rounds 1 --out {out}/lengths",),
        plots=("lengths.svg",),
    ),
    "decode": Benchmark(
        75,
        12,
        runs=("--again --tokens 20000 --out {out}/decode", "--rates"),
        quick=("--again --tokens 100 --out {out}/decode", "--rates --rounds 1"),
        plots=("decode.svg",),
    ),
    "cms": Benchmark(26, 10, quick=("--rounds 1",)),
    "optimizers": Benchmark(75, 20, quick=("--rounds 2",)),
    "linears": Benchmark(9, 4, quick=("--rounds 1",)),
    "native_products": Benchmark(8, 5, quick=("--rounds 1",)),
    "compile_time": Benchmark(36, 13, quick=("--rounds 1",)),
    "compiled": Benchmark(
        200,
        20,
        runs=("transformer linear_attention gated_deltanet hope_tiny",),
        quick=("--rounds 1 --dim 32 --depth 1 --batch 1 --length 64 transformer",),
    ),
    "editor": Benchmark(12, 5, quick=("--rounds 1",)),
    "peers": Benchmark(40, 12, quick=("--rounds 1",)),
    "gpu": Benchmark(2, 2),
    "choices": Benchmark(5, 5),
}
"""Every benchmark by name."""


def title(name: str) -> str:
    """The first line of a benchmark's docstring; nothing of it is imported.

    >>> title("peak")
    'The matrix products this machine can do: the bound the kernels are measured against.'
    """
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]
