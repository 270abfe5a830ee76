"""What learning from the task costs: `learn` of a continuum memory system against plain forward and backward.

    python -m benchmarks.cms [WIDTH]

A model of attention and continuum memories (width 64 unless said, perceptrons four times as wide, 1024
tokens, batch 4), trained by `learn(backward = 1)`.  *Plain* is the same whole model without task writes: one
forward pass over the whole sequence, cross-entropy, one backward pass.  CPU time of one thread, the best
of interleaved rounds.  The memory of freed tensors is kept, as `nldsl train` does it, for all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F

import nldsl
from benchmarks.measure import best_seconds
from nldsl.runtime.model import Model

WIDTH, DEPTH, TOKENS, BATCH, VOCAB = 64, 2, 1024, 4, 256
ROUNDS = 5
CHUNKS = ((64, 256, 1024), (64, 128, 256), (16, 64, 256))


def build(chunks: tuple[int, ...], width: int = WIDTH) -> Model:
    """Hope-Attention at the size of the benchmark."""
    sizes = {"dim": width, "depth": DEPTH, "heads": 4, "chunks": list(chunks), "vocab": VOCAB}
    model = nldsl.compile("hope_attention", **sizes)
    assert isinstance(model, Model)
    return model


def plain(model: Model, tokens: torch.Tensor) -> Callable[[], None]:
    """Forward and backward over the whole sequence."""

    def run() -> None:
        model.zero_grad(set_to_none=True)
        logits, _ = model(tokens[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum").backward()

    return run


def learning(model: Model, tokens: torch.Tensor, carry: str) -> Callable[[], None]:
    """`learn` with its one or two passes."""

    def run() -> None:
        model.carry = carry
        model.zero_grad(set_to_none=True)
        model.learn(tokens, backward=1.0)

    return run


def main() -> None:
    """Print one row per chunk sizes and carry."""
    torch.set_num_threads(1)
    nldsl.keep_freed_memory()
    tokens = torch.randint(0, VOCAB, (BATCH, TOKENS + 1), generator=torch.Generator().manual_seed(0))
    print("| chunks | plain | trunc | exact | trunc / plain | exact / plain |")
    print("|---|---|---|---|---|---|")
    for chunks in CHUNKS:
        model = build(chunks, *map(int, sys.argv[1:2]))
        cases = {"plain": plain(model, tokens)}
        cases |= {carry: learning(model, tokens, carry) for carry in ("trunc", "exact")}
        base, trunc, exact = (1e3 * seconds for seconds in best_seconds(cases, ROUNDS).values())
        name = ", ".join(map(str, chunks))
        print(
            f"| {name} | {base:.0f} ms | {trunc:.0f} ms | {exact:.0f} ms "
            f"| {trunc / base:.2f} x | {exact / base:.2f} x |"
        )


if __name__ == "__main__":
    main()
