"""Cost per token against the length: time and peak memory of training, time and state of decoding.

    python -m benchmarks.lengths [--lengths 512 1024 ... 16384] [--rounds 3] [--native] [NAME ...]

Layers with projections, width 256, 4 heads, one sequence, float32, one thread.  *Training*: forward and
backward, the best CPU time of interleaved rounds, and the peak of resident memory above what was there.
Times are taken with `nldsl.keep_freed_memory()`, as `nldsl train` does; `--fresh-pages` does without.
`--native`: chunks in C where that is possible (`nldsl.native`).
*Decoding*: CPU time of a token, the best of four runs of 64 tokens one by one, and the bytes of the state,
for a sequence that begins and for one with `lengths[-1]` tokens behind it.  Table and plot go to `build/`.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import nldsl
from benchmarks.loglog import loglog
from benchmarks.measure import best_seconds

WIDTH, HEADS, DECODED = 256, 4, 64
LENGTHS = [512, 1024, 2048, 4096, 8192, 16384]
LAYERS = {
    "mamba2": "D, a gate per head",
    "gla": "D, a gate per channel",
    "gated_deltanet": "R, a gate per head",
    "kda": "R, a gate per channel",
    "rwkv7": "R, a diagonal and a piece",
    "mamba1": "a decay per entry",
    "titans_linear": "R under momentum",
    "titans_mlp": "N",
    "self_modifying_titans": "self-referential (Hope)",
    "sliding_window_attention": "S, a window of 64",
    "attention": "S, all tokens",
}
OUT = Path("build/lengths")


def layer(name: str, native: bool = False) -> Any:
    arguments = {} if name == "mamba1" else {"heads": HEADS}
    made = nldsl.compile(name, block=name, dim=WIDTH, **arguments)
    if native:
        nldsl.native(made, at_once=True)
    return made


def training(module: Any, tokens: int) -> Callable[[], object]:
    """Forward and backward over one sequence."""
    x = torch.randn(1, tokens, WIDTH, requires_grad=True)

    def once() -> None:
        y, _ = module(x)
        y.backward(torch.ones_like(y))
        module.zero_grad()

    return once


def peak_mib(run: Callable[[], object]) -> float:
    """The peak of resident memory while `run` runs, above what is resident before it."""
    libc = ctypes.CDLL(None)
    # Large blocks go back to the system when they are freed: M_MMAP_MAX, M_MMAP_THRESHOLD.
    libc.mallopt(-4, 1 << 16)
    libc.mallopt(-3, 1 << 16)
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    run()
    return (status("VmHWM") - before) / 1024


def status(name: str) -> int:
    """KiB of a line of /proc/self/status."""
    rows = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text().splitlines())
    return int(rows[name].split()[0])


@torch.no_grad()
def decoding(module: Any, behind: int) -> tuple[float, int]:
    """Seconds of a token and bytes of the state, with so many tokens behind."""
    state, best = None, float("inf")
    for start in range(0, behind, 1024):
        state = module(torch.randn(1, min(1024, behind - start), WIDTH), state)[1]
    for _ in range(4):
        rows, after = torch.randn(1, DECODED, WIDTH).split(1, 1), state
        started = time.process_time()
        for row in rows:
            after = module(row, after)[1]
        best = min(best, (time.process_time() - started) / DECODED)
    return best, after.bytes()


def row(name: str, times: list[float], peaks: list[float], lengths: list[int], module: Any) -> str:
    """A line of the table."""
    spread = max(times) / min(times) - 1
    (early, small), (late, large) = decoding(module, 0), decoding(module, lengths[-1])
    return (
        f"| {name} | {LAYERS[name]} | "
        + " | ".join(f"{1e6 * t:.0f}" for t in times)
        + f" | {spread:.0%} | {1024 * peaks[-1] / lengths[-1]:.1f} | {1e3 * early:.2f} | {1e3 * late:.2f} "
        f"| {small / 1024:.0f} | {large / 1024:.0f} |"
    )


def measured(
    names: list[str], lengths: list[int], rounds: int, native: bool
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds per token, and peak MiB, of every layer at every length."""
    modules = {name: layer(name, native) for name in names}
    cases = {(n, t): training(m, t) for n, m in modules.items() for t in lengths}
    seconds = best_seconds({f"{n} {t}": run for (n, t), run in cases.items()}, rounds)
    times = {n: [seconds[f"{n} {t}"] / t for t in lengths] for n in names}
    peaks = {n: [peak_mib(cases[n, t]) for t in lengths] for n in names}
    return times, peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(LAYERS)}")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--native", action="store_true", help="chunks in C")
    parser.add_argument("--fresh-pages", action="store_true", help="do not keep freed memory")
    options = parser.parse_args()
    if not options.fresh_pages:
        nldsl.keep_freed_memory()
    names, lengths = options.names or list(LAYERS), sorted(options.lengths)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    times, peaks = measured(names, lengths, options.rounds, options.native)
    table = [
        "| layer | class | "
        + " | ".join(f"{t} tokens, us" for t in lengths)
        + " | spread | peak, KiB/token | decoding, ms | after all | state, KiB | after all |",
        "|---|---|" + "---:|" * (len(lengths) + 6),
    ]
    print("\n".join(table), flush=True)
    for name in names:
        table.append(row(name, times[name], peaks[name], lengths, layer(name, options.native)))
        print(table[-1], flush=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.with_suffix(".md").write_text("\n".join(table) + "\n", encoding="utf-8")
    throughput = {n: [(t, 1 / s) for t, s in zip(lengths, times[n], strict=True)] for n in names}
    memory = {n: [(t, p) for t, p in zip(lengths, peaks[n], strict=True)] for n in names}
    panels = {"tokens per second, forward and backward": throughput, "peak memory, MiB": memory}
    OUT.with_suffix(".svg").write_text(loglog(panels, "tokens"), encoding="utf-8")
    print(f"wrote {OUT}.md and {OUT}.svg")


if __name__ == "__main__":
    main()
