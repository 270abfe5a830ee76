"""What learning from the task costs: `learn` of a continuum memory system against plain forward and backward.

    python -m benchmarks.cms [WIDTH] [--rounds 5]

A model of attention and continuum memories (width 64 unless said, perceptrons four times as wide, 1024
tokens, batch 4), trained by `learn(backward = 1)`.  *Plain* is the same whole model without task writes: one
forward pass over the whole sequence, cross-entropy, one backward pass.  CPU time of one thread, the best
of interleaved rounds.  *Trunc* and *exact* are the two carries of `learn`.  The memory of freed tensors is
kept, as `nldsl train` does it, for all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F

import nldsl
from benchmarks.measure import aligned, best_seconds, heading, rule
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("width", nargs="?", type=int, default=WIDTH)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    heading(__doc__)
    nldsl.keep_freed_memory()
    tokens = torch.randint(0, VOCAB, (BATCH, TOKENS + 1), generator=torch.Generator().manual_seed(0))
    heads = ["chunks", "plain, ms", "trunc, ms", "exact, ms", "trunc / plain", "exact / plain"]
    widths = [13, *map(len, heads[1:])]
    print(aligned(heads, widths), rule(widths), sep="\n", flush=True)
    for chunks in CHUNKS:
        model = build(chunks, options.width)
        cases = {"plain": plain(model, tokens)}
        cases |= {carry: learning(model, tokens, carry) for carry in ("trunc", "exact")}
        base, trunc, exact = (1e3 * seconds for seconds in best_seconds(cases, options.rounds).values())
        name = ", ".join(map(str, chunks))
        cells = [f"{base:.0f}", f"{trunc:.0f}", f"{exact:.0f}", f"{trunc / base:.2f}", f"{exact / base:.2f}"]
        print(aligned([name, *cells], widths), flush=True)


if __name__ == "__main__":
    main()
