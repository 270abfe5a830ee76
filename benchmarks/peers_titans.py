"""titans-pytorch: its neural memory with a perceptron, momentum and decay.

Its chunk is what shares one step, momentum and decay, and reads see the weights of the chunk before: the
gradients of a chunk are summed up, each with a rate of its token, and momentum and decay are one number.
`batch_size` is how often gradients are taken anew: never within a sequence, by default.  `EVERY_CHUNK` says
the same of ours by `weighted` and `at commit`; the numbers are those of the last token, theirs of the mean
over the chunk.  `titans_mlp` is the recurrence of the paper: reads follow every token, only gradients are
held for a chunk; for that theirs keeps its weights at every token, so it is timed on
`SHORT` tokens.  The functions differ in norms and in how rates are bounded; the sizes do not.
The last rows have the sizes of its README: two sequences of width 384, a memory of 384-1536-384 for each.
"""

from __future__ import annotations

import torch
from titans_pytorch import NeuralMemory

from benchmarks.peer import CHUNK, HEADS, SIZE, TOKENS, WIDTH, Pair, ours, passes, tokens

SHORT = 128
README = 384
EVERY_CHUNK = """
block titans(x, heads = 4, chunk = 64) {
  level context every chunk tokens { memory M = mlp(2) per head(heads) }
  z = norm(x)
  q = l2norm(split(linear(z), heads))
  k = l2norm(split(linear(z), heads))
  M[k] <- split(linear(z), heads)  minimize l2  weighted sigmoid(linear(z, heads)) / chunk
    by momentum(lr = 1, beta = sigmoid(linear(z, heads)))
    retain sigmoid(linear(z, heads, bias = true))  at commit
  return linear(merge(M[q] * sigmoid(linear(z, heads))))
}
"""


def pairs() -> list[Pair]:
    """Two approximations of theirs, and the recurrence of the paper."""
    x = tokens()
    chunked = ours(EVERY_CHUNK, block="titans", x=WIDTH, heads=HEADS, chunk=CHUNK)
    exact = ours("titans_mlp", block="titans_mlp", dim=WIDTH, heads=HEADS, chunk=CHUNK, expand=2)
    found = []
    for name, mine, chunk, batch, count in (
        ("reads and steps every chunk; theirs: gradients never anew", chunked, CHUNK, None, TOKENS),
        ("reads and steps every chunk", chunked, CHUNK, CHUNK, TOKENS),
        ("reads and steps every token", exact, 1, CHUNK, SHORT),
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
        found.append(Pair(f"64-128-64, {name}", passes(mine, x), other, scale=TOKENS / count))
    return found + _of_its_readme()


def _of_its_readme() -> list[Pair]:
    """What its README shows, as it is called there and with gradients anew every chunk."""
    text = EVERY_CHUNK.replace("mlp(2)", "mlp(4)")
    mine = ours(text, block="titans", x=README, heads=1, chunk=CHUNK)
    x = torch.randn(2, TOKENS, README)
    return [
        Pair(
            f"384-1536-384, reads and steps every chunk{note}",
            passes(mine, x.clone()),
            passes(NeuralMemory(README, chunk_size=CHUNK, batch_size=batch), x.clone()),
        )
        for batch, note in ((None, "; theirs: gradients never anew"), (CHUNK, ""))
    ]
