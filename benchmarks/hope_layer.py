"""The emitted self-modifying memories of Hope against the matmul bound and against their per-token form.

    python -m benchmarks.hope_layer [--rounds 4] [--compiled]

Width 256, 4 heads, expand 1, chunks 64/64, batch 4, T = 1024, float32, one thread, forward and backward.
FLOPs are counted by a fixed formula of the algorithm (backward = twice forward), never from the code:
per chunk and head `90 C d h + 2 C^2 d + 10 C^2 h + 5 (2 C^2 h + 2 C^2 d) + 12 C^3`.  `memories` are what
the formula counts: the five memories with their targets, rates and gates, inputs and queries given.
`layer` is the whole of `self_modifying_titans`, whose projections, norms and convolution are timed but not
counted.  `native`: chunks in C; `checkpoints`: activations are made again on the way back.
`x the token loop` says how many times as long the emitted per-token form of the memories takes, on 64 tokens
and scaled; `token_loops` holds that against a loop written by hand.  CPU time, the best of the rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

import nldsl
from benchmarks.measure import best_seconds, heading, saved_megabytes
from benchmarks.peak import peak_gflops

BATCH, WIDTH, HEADS, TOKENS, CHUNK, SHORT = 4, 256, 4, 1024, 64, 64


MEMORIES = """
block hope_memories(x, q, heads = 4, chunk = 64, expand = 1) {
  level memories every chunk tokens { memory Mk, Mv, Me, Ma, M = residual_mlp(expand) per head }
  z     = split(x, heads)
  k     = l2norm(Mk[z])
  v     = l2norm(Mv[z])
  alpha = sigmoid(readout(Ma[z], start = 4))
  eta   = (1 + alpha) * sigmoid(readout(Me[z]))
  y     = M[split(q, heads)]
  write each of Mk, Mv, Me, Ma, M {
    [k] <- l2norm(self[v])  minimize dot  by dgd(lr = eta, rate = "normalised")  retain alpha toward init
  }
  return merge(y)
}
"""
"""What `self_modifying_titans` does with its memories, and nothing else."""


def memories(**options: object) -> nldsl.Layer:
    """The emitted memories alone."""
    sizes = {"x": WIDTH, "q": WIDTH}
    return nldsl.compile(MEMORIES, block="hope_memories", heads=HEADS, chunk=CHUNK, **sizes, **options)


def inputs(tokens: int) -> list[Tensor]:
    """What the memories take in, and queries of unit length."""
    q = torch.nn.functional.normalize(torch.randn(BATCH, tokens, HEADS, WIDTH // HEADS), dim=-1).flatten(2)
    return [torch.randn(BATCH, tokens, WIDTH, requires_grad=True), q.requires_grad_()]


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


def both(module: nldsl.Layer, *given: Tensor) -> Callable[[], object]:
    """Forward and backward once, also through the weights behind the call."""
    inputs = [*given, *module.parameters()]
    seed = torch.randn(*given[0].shape)

    def once() -> object:
        y, state = module(*given)
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
    heading(__doc__)
    # As `nldsl train` does.
    nldsl.keep_freed_memory()
    bound, _ = peak_gflops()
    given, short = inputs(TOKENS), inputs(SHORT)
    modules = {"memories": memories(), "memories, checkpoints": memories(checkpoint=True)}
    modules |= {"memories, native": memories(), "memories, native, checkpoints": memories(checkpoint=True)}
    modules |= {"layer": layer(), "layer, checkpoints": layer(checkpoint=True), "layer, native": layer()}
    for name, module in modules.items():
        if "native" in name:
            nldsl.native(module, at_once=True)
    if options.compiled:
        modules["memories, compiled step"] = memories()
        compile_steps(modules["memories, compiled step"])
    taken = {name: given if name.startswith("memories") else given[:1] for name in modules}
    cases = {name: both(module, *taken[name]) for name, module in modules.items()}
    cases["token by token"] = both(memories(lowering="sequential"), *short)
    seconds = best_seconds(cases, options.rounds)
    per_token = seconds.pop("token by token")
    print(f"bound {bound:.1f} GFLOP/s on one thread")
    for name, spent in seconds.items():
        saved = saved_megabytes(lambda name=name: modules[name](*taken[name]))
        print(
            f"{name:29s} {1e3 * spent:7.1f} ms  {BATCH * TOKENS / spent:7.0f} tokens/s  "
            f"{flops() / (bound * 1e9) / spent:5.1%} of the bound  {saved:6.1f} MiB saved  "
            f"{per_token / SHORT * TOKENS / spent:5.1f} x the token loop"
        )


if __name__ == "__main__":
    main()
