"""Cost per token against the length: time and peak memory of training, time and state of decoding.

    python -m benchmarks.lengths [--lengths 512 1024 ... 16384] [--rounds 3] [--native] [--single] [NAME ...]

Layers with projections, width 256, 4 heads, one sequence, float32, one thread.  *Training*: forward and
backward, the best CPU time per token of interleaved rounds, and the peak of resident memory above what was
there, per token at the longest sequence.  A turn takes 4096 tokens at least: a short sequence is called again
and again, as training does; with `--single` once, and behind a long one it finds nothing in the caches.
Times are taken with `nldsl.keep_freed_memory()`, as `nldsl train` does; `--fresh-pages` does without.
`--native`: chunks in C where that is possible (`nldsl.native`).
*Decoding*: CPU time of a token, the best of four runs of 64 tokens one by one, and the bytes of the state,
for a sequence that begins and for one with as many tokens behind it as the longest has.  *Spread*: by how
much the dearest length is above the cheapest.  Table and plot go to `build/`, anew after every layer.
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
from benchmarks.measure import about, aligned, best_seconds, heading, machine, needs_linux, rule
from nldsl.native.store import STORE

WIDTH, HEADS, DECODED = 256, 4, 64
TURN = 4096
"""Tokens of a turn, at least."""
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
Found = dict[str, list[float]]
"""Of every layer, a number for every length."""


def layer(name: str, native: bool = False) -> Any:
    arguments = {} if name == "mamba1" else {"heads": HEADS}
    made = nldsl.compile(name, block=name, dim=WIDTH, **arguments)
    if native:
        nldsl.native(made, at_once=True)
    return made


def training(module: Any, tokens: int, calls: int = 1) -> Callable[[], object]:
    """Forward and backward over one sequence, so many times."""
    x = torch.randn(1, tokens, WIDTH, requires_grad=True)

    def turn() -> None:
        for _ in range(calls):
            y, _ = module(x)
            y.backward(torch.ones_like(y))
            module.zero_grad()

    return turn


def peak_mib(run: Callable[[], object]) -> float:
    """The peak of resident memory while `run` runs, above what is resident before it."""
    libc = ctypes.CDLL(None)
    # Large blocks go back to the system when they are freed: M_MMAP_MAX, M_MMAP_THRESHOLD.
    libc.mallopt(-4, 1 << 16)
    libc.mallopt(-3, 1 << 16)
    libc.malloc_trim(0)
    # What native mode keeps from pass to pass would be there already.
    STORE.clear()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    run()
    found = (status("VmHWM") - before) / 1024
    # As far as glibc raises it by itself, so that what is timed behind this is as in a process of its own.
    libc.mallopt(-3, 1 << 25)
    return found


def allocator(fresh: bool) -> None:
    """What times are taken with: peaks leave a setting behind under which a pass fetches all its pages anew.

    fresh: as glibc has it, where it maps arrays above 32 MiB and keeps 64 MiB of what is free.
    """
    if not fresh:
        nldsl.keep_freed_memory()
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(-4, 1 << 16)
    libc.mallopt(-3, 32 << 20)
    libc.mallopt(-1, 64 << 20)


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
    cells = [
        *(name, LAYERS[name], *(f"{1e6 * t:.0f}" for t in times), f"{spread:.0%}"),
        *(f"{1024 * peaks[-1] / lengths[-1]:.1f}", f"{1e3 * early:.2f}", f"{1e3 * late:.2f}"),
        *(f"{small / 1024:.0f}", f"{large / 1024:.0f}"),
    ]
    return aligned(cells, widths(header(lengths)), named=2)


def header(lengths: list[int]) -> list[str]:
    """The names of the columns; `peak` is that of the longest sequence."""
    behind = f"at {lengths[-1]}"
    costs = ["spread", "peak, KiB/token", "decoding, ms", behind, "state, KiB", behind]
    return ["layer", "class", *(f"{t}, us" for t in lengths), *costs]


def widths(heads: list[str]) -> list[int]:
    """Of the columns, wide enough for every layer."""
    return [max(map(len, LAYERS)), max(map(len, LAYERS.values())), *(max(6, len(h)) for h in heads[2:])]


def memory_table(peaks: Found, lengths: list[int]) -> list[str]:
    """Peaks at every length."""
    heads = ["peak of a pass", *(f"{t}, MiB" for t in lengths)]
    wide = [max(map(len, LAYERS)), *(max(7, len(h)) for h in heads[1:])]
    rows = [aligned([n, *(f"{p:.1f}" for p in found)], wide) for n, found in peaks.items()]
    return [aligned(heads, wide), rule(wide), *rows]


def measured(
    module: Any, lengths: list[int], rounds: int, single: bool = False
) -> tuple[list[float], list[float]]:
    """Seconds per token, and peak MiB, of a layer at every length; `single`: turns of one call."""
    calls = {t: 1 if single else -(-TURN // t) for t in lengths}
    cases = {t: training(module, t, calls[t]) for t in lengths}
    seconds = best_seconds(cases, rounds)
    return [seconds[t] / (t * calls[t]) for t in lengths], [peak_mib(cases[t]) for t in lengths]


def write(out: Path, table: list[str], times: Found, peaks: Found, lengths: list[int]) -> None:
    """Tables and plot of what has been measured so far."""
    told = [about(__doc__).rstrip(), "\n".join(table), "\n".join(memory_table(peaks, lengths))]
    out.with_suffix(".md").write_text("\n\n".join(told) + "\n", encoding="utf-8")
    throughput = {n: [(t, 1 / s) for t, s in zip(lengths, found, strict=True)] for n, found in times.items()}
    memory = {n: [(t, p) for t, p in zip(lengths, found, strict=True)] for n, found in peaks.items()}
    panels = {"tokens per second, forward and backward": throughput, "peak memory of a pass, MiB": memory}
    note = f"width {WIDTH}, {HEADS} heads, one sequence, float32; {machine()}"
    picture = loglog(panels, "length of the sequence, tokens", note)
    out.with_suffix(".svg").write_text(picture, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(LAYERS)}")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--native", action="store_true", help="chunks in C")
    parser.add_argument("--single", action="store_true", help="one call of each length a turn")
    parser.add_argument("--fresh-pages", action="store_true", help="do not keep freed memory")
    parser.add_argument("--out", type=Path, default=OUT, help="where table and plot go, without a suffix")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in LAYERS]:
        parser.error(f"no layer {unknown[0]} here; there are {', '.join(LAYERS)}")
    if min(options.rounds, *options.lengths) < 1:
        parser.error("--rounds and --lengths take 1 or more")
    needs_linux()
    lengths = sorted(options.lengths)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    heading(__doc__)
    heads, times, peaks = header(lengths), Found(), Found()
    table = [aligned(heads, widths(heads), named=2), rule(widths(heads), named=2)]
    print("\n".join(table), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.names or LAYERS:
        allocator(options.fresh_pages)
        module = layer(name, options.native)
        # The peaks of the layer before have undone it.
        if not options.fresh_pages:
            nldsl.keep_freed_memory()
        times[name], peaks[name] = measured(module, lengths, options.rounds, options.single)
        table.append(row(name, times[name], peaks[name], lengths, module))
        print(table[-1], flush=True)
        write(options.out, table, times, peaks, lengths)
    print("\n".join(["", *memory_table(peaks, lengths)]))
    print(f"\nwrote {options.out}.md and {options.out}.svg")


if __name__ == "__main__":
    main()
