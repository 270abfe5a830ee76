"""titans-pytorch: its neural memory with a perceptron, momentum and decay.

Its chunk is what shares one rate, momentum and decay; `batch_size` is how often gradients are taken anew
(never within a sequence, by default).  Ours has rates, momentum and decay of every token, as the paper, and
takes gradients anew every 64: the last row, whose weights theirs keeps for every token, so it is timed on
`SHORT` tokens.  The functions differ in norms and rates; the sizes do not.
"""

from __future__ import annotations

from titans_pytorch import NeuralMemory

import nldsl
from benchmarks.peer import CHUNK, HEADS, SIZE, TOKENS, WIDTH, Pair, passes, tokens

SHORT = 128


def pairs() -> list[Pair]:
    """Two approximations of theirs, and the recurrence of the paper."""
    x = tokens()
    ours = nldsl.compile("titans_mlp", block="titans_mlp", dim=WIDTH, heads=HEADS, chunk=CHUNK, expand=2)
    found = []
    for name, chunk, batch, count in (
        ("one step a chunk, gradients at the first weights", CHUNK, None, TOKENS),
        ("one step a chunk", CHUNK, CHUNK, TOKENS),
        ("a step a token", 1, CHUNK, SHORT),
    ):
        theirs = NeuralMemory(
            WIDTH,
            chunk_size=chunk,
            batch_size=batch,
            dim_head=SIZE,
            heads=HEADS,
            qk_rmsnorm=True,
            default_model_kwargs={"depth": 2, "expansion_factor": 2.0},
        )
        other = passes(theirs, tokens(count))
        found.append(Pair(f"64-128-64; theirs: {name}", passes(ours, x), other, scale=TOKENS / count))
    return found
