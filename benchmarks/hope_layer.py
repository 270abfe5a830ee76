"""The emitted self-modifying layer of Hope against the matmul bound and against its per-token form.

    python -m benchmarks.hope_layer [--rounds 4] [--compiled]

Width 256, 4 heads, expand 1, chunks 64/64, batch 4, T = 1024, float32, one thread, forward and backward.
FLOPs are counted by a fixed formula of the algorithm (backward = twice forward), never from the code:
per chunk and head `90 C d h + 2 C^2 d + 10 C^2 h + 5 (2 C^2 h + 2 C^2 d) + 12 C^3`.  The layer's
projections, norms and convolution are timed but not counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

import nldsl
from benchmarks.measure import best_seconds, saved_megabytes
from benchmarks.peak import peak_gflops

BATCH, WIDTH, HEADS, TOKENS, CHUNK, SHORT = 4, 256, 4, 1024, 64, 64


def layer(**options: object) -> nldsl.Layer:
    """The emitted layer; every memory on one clock of 64."""
    return nldsl.compile(
        "hope",
        block="self_modifying_titans",
        x=WIDTH,
        heads=HEADS,
        chunk=CHUNK,
        memory_chunk=CHUNK,
        expand=1,
        **options,
    )


def flops() -> float:
    """Forward and backward, by the fixed formula."""
    C, d, h = CHUNK, WIDTH // HEADS, WIDTH // HEADS
    per_chunk = (
        90 * C * d * h + 2 * C * C * d + 10 * C * C * h + 5 * (2 * C * C * h + 2 * C * C * d) + 12 * C**3
    )
    return 3.0 * BATCH * HEADS * TOKENS / CHUNK * per_chunk


def both(module: nldsl.Layer, x: Tensor) -> Callable[[], object]:
    """Forward and backward once, also through the weights behind the call."""
    inputs = [x, *module.parameters()]
    seed = torch.randn(*x.shape)

    def once() -> object:
        y, state = module(x)
        memories = state.tree["root"].values()
        ends = [w for m in memories if "running" in m for w in m["running"].values()]
        return torch.autograd.grad((y, *ends), inputs, (seed, *map(torch.ones_like, ends)))

    return once


def compile_steps(module: nldsl.Layer) -> None:
    """`torch.compile` of the chunk step alone: whole-graph compilation would unroll every chunk."""
    for name in dir(type(module.root)):
        if name.startswith("_step_"):
            setattr(module.root, name, torch.compile(getattr(module.root, name), dynamic=False))


def main() -> None:
    """Print milliseconds, share of the bound, saved activations and the ratio to the token loop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--compiled", action="store_true", help="also time torch.compile of the chunk step")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bound, _ = peak_gflops()
    x, short = (torch.randn(BATCH, n, WIDTH, requires_grad=True) for n in (TOKENS, SHORT))
    modules = {"eager": layer(), "checkpoint per chunk": layer(checkpoint=True)}
    if options.compiled:
        modules["compiled step"] = layer()
        compile_steps(modules["compiled step"])
    cases = {name: both(module, x) for name, module in modules.items()}
    cases["token by token"] = both(layer(lowering="sequential"), short)
    seconds = best_seconds(cases, options.rounds)
    per_token = seconds.pop("token by token") / SHORT
    print(f"bound {bound:.1f} GFLOP/s on one thread")
    for name, spent in seconds.items():
        saved = saved_megabytes(lambda module=modules[name]: module(x))
        print(
            f"{name:22s} {1e3 * spent:7.1f} ms  {BATCH * TOKENS / spent:7.0f} tokens/s  "
            f"{flops() / (bound * 1e9) / spent:5.1%} of the bound  {saved:6.1f} MiB saved  "
            f"{per_token * TOKENS / spent:5.1f} x the token loop"
        )


if __name__ == "__main__":
    main()
