"""Whole layers on a GPU, forward and backward: time, tokens per second, against the loop over tokens.

    python -m benchmarks.gpu [--tokens 4096] [--batch 4] [--dim 1024] [--heads 16] [--compile] [--seconds 120]

Every class of memory as a layer with its projections, in float32 (TF32 off), in bfloat16, and as the
sequential form (float32, `LOOP` tokens, scaled to the length).  `--compile` adds `torch.compile` for some at
1024 tokens.  What does not fit in `--seconds` is left out, and said.  Without CUDA it says so and stops.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from torch import Tensor

import nldsl

LAYERS = {
    "attention": "S",
    "mamba2": "D, a gate per head",
    "gla": "D, a gate per channel",
    "gated_deltanet": "R, a gate per head",
    "kda": "R, a gate per channel",
    "rwkv7": "R, a diagonal and a piece (DPLR)",
    "titans_linear": "R under momentum",
    "mamba1": "a decay per entry",
    "titans_mlp": "N",
    "self_modifying_titans": "self-referential (Hope)",
}
LOOP = 128
COMPILED = ("gated_deltanet", "gla", "mamba2", "self_modifying_titans")
SHORT = 1024


def layer(name: str, dim: int, heads: int, kind: torch.dtype, **options: Any) -> Any:
    arguments = {} if name == "mamba1" else {"heads": heads}
    return nldsl.compile(name, block=name, device="cuda", dtype=kind, dim=dim, **arguments, **options)


def milliseconds(run: Any, x: Tensor, rounds: int = 5) -> float:
    """The median of `rounds` passes forward and backward, by events on the device."""
    times = []
    for index in range(rounds + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        y = run(x)[0]
        y.backward(torch.ones_like(y))
        end.record()
        torch.cuda.synchronize()
        if index > 1:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def measured(name: str, kind: torch.dtype, tokens: int, options: argparse.Namespace, **more: Any) -> str:
    """One cell: milliseconds, thousand tokens per second, peak memory; or why there is none."""
    try:
        run = layer(name, options.dim, options.heads, kind, **more)
        x = torch.randn(options.batch, tokens, options.dim, device="cuda", dtype=kind, requires_grad=True)
        torch.cuda.reset_peak_memory_stats()
        spent = milliseconds(run, x, rounds=2 if more else 5)
    except (RuntimeError, torch.OutOfMemoryError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"
    if more:
        return f"{spent / tokens * options.tokens:9.0f} ms"
    peak = torch.cuda.max_memory_allocated() / 2**20
    return f"{spent:8.1f} ms {options.batch * tokens / spent:7.0f} k/s {peak:6.0f} MiB"


def compiled(name: str, options: argparse.Namespace) -> str:
    """`torch.compile` against eager at `SHORT` tokens, in float32."""
    run = layer(name, options.dim, options.heads, torch.float32)
    x = torch.randn(options.batch, SHORT, options.dim, device="cuda", requires_grad=True)
    eager = milliseconds(run, x)
    began = time.monotonic()
    try:
        fast = milliseconds(torch.compile(run), x)
    except Exception as error:  # what the compiler raises is of many kinds, and is the answer here
        return f"{name:22s} eager {eager:8.1f} ms  {type(error).__name__}: {str(error).splitlines()[0][:60]}"
    return (
        f"{name:22s} eager {eager:8.1f} ms  compiled {fast:8.1f} ms, after {time.monotonic() - began:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option, value in (("tokens", 4096), ("batch", 4), ("dim", 1024), ("heads", 16), ("seconds", 120)):
        parser.add_argument(f"--{option}", type=int, default=value)
    parser.add_argument("--compile", action="store_true", help="also torch.compile, at 1024 tokens")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing measured")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, B {options.batch}, T {options.tokens}")
    print(f"width {options.dim}, {options.heads} heads; forward and backward, median of 5")
    end, missing = time.monotonic() + options.seconds, []
    for name, kind in LAYERS.items():
        if time.monotonic() > end:
            missing.append(name)
            continue
        print(
            f"{name:22s} {kind:32s} float32 {measured(name, torch.float32, options.tokens, options)}",
            flush=True,
        )
        print(f"{'':55s} bfloat16 {measured(name, torch.bfloat16, options.tokens, options)}", flush=True)
        if name != "attention":
            loop = measured(name, torch.float32, LOOP, options, lowering="sequential")
            print(f"{'':55s} loop over tokens {loop}", flush=True)
    for name in COMPILED if options.compile else ():
        if time.monotonic() > end:
            missing.append(f"{name} compiled")
            continue
        print(compiled(name, options), flush=True)
    if missing:
        print(f"left out, no time: {', '.join(missing)}")


if __name__ == "__main__":
    main()
