"""Matrix memories under rules that remember gradients: chunks against the token form of the same memory.

    python -m benchmarks.filters [--tokens 1024] [--rounds 2] [NAME ...]

Keys, values, queries and gates are inputs, so nothing but the memory is timed: 4 heads of width 64, batch 4,
float32, one thread, forward and backward; CPU time, the best of the rounds.  The token form runs 64 tokens
and is scaled: it costs the same per token.  The ratio says how many times as long it takes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import nldsl
from benchmarks.measure import best_seconds, heading

BATCH, HEADS, SIZE, SHORT = 4, 4, 64, 64
SPEC = """
rule two(lr, fast, slow) {{
  memory m, n = like(W)
  m = fast * m + (1 - fast) * g
  n = slow * n + (1 - slow) * g
  W = W - lr * (m + n)
}}
block memory(q, k, v, a, b, c, heads = 4) {{
  level context every 1 token {{ memory S = matrix() per head(heads) init zero }}
  rate = 0.5 * sigmoid(a)
  mu   = sigmoid(b)
  keep = sigmoid(c + 4)
  {write}
  return merge(S[split(q, heads)])
}}
"""
PAIR = "S[split(k, heads)] <- split(v, heads)"
WRITES = {
    "momentum": f"{PAIR} minimize l2 by momentum(lr = rate, beta = mu) retain keep",
    "nesterov": f"{PAIR} minimize l2 by nesterov(lr = rate, beta = mu) retain keep",
    "two momenta": f"{PAIR} minimize l2 by two(lr = rate, fast = mu, slow = 0.98) retain keep",
    "two momenta, a sum": f"{PAIR} minimize dot by two(lr = rate, fast = mu, slow = 0.98) retain keep",
    "two terms": (
        "write S { [split(k, heads)] <- split(v, heads) minimize l2 by momentum(lr = rate, beta = mu); "
        "[split(q, heads)] <- 0 minimize l2 by nesterov(lr = 0.1, beta = mu) } retain keep"
    ),
    "momentum, a sum, a gate per channel": (
        f"{PAIR} minimize dot by momentum(lr = rate, beta = mu) retain sigmoid(split(k, heads) + 4)"
    ),
}


def step(write: str, tokens: int, lowering: str) -> Callable[[], None]:
    """Forward and backward of one layer."""
    width = HEADS * SIZE
    sizes = {"q": width, "k": width, "v": width, "a": HEADS, "b": HEADS, "c": HEADS}
    layer = nldsl.compile(SPEC.format(write=write), block="memory", lowering=lowering, heads=HEADS, **sizes)
    draw = torch.Generator().manual_seed(0)
    made = [torch.randn(BATCH, tokens, n, generator=draw) for n in sizes.values()]
    for i in (0, 1):
        made[i] = F.normalize(made[i].unflatten(-1, (HEADS, SIZE)), dim=-1).flatten(-2)
    inputs: list[Tensor] = [x.requires_grad_() for x in made]

    def run() -> None:
        outputs, _ = layer(*inputs)
        torch.autograd.grad(outputs.sum(), inputs, allow_unused=True)

    return run


def main() -> None:
    """Print one line per rule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(WRITES))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    heading(__doc__)
    print(f"{'rule':36} {'chunks':>10}  {'token by token':>25}  {'ratio':>5}", flush=True)
    for name in chosen.names or WRITES:
        cases = {
            "chunks": step(WRITES[name], chosen.tokens, "auto"),
            "tokens": step(WRITES[name], SHORT, "sequential"),
        }
        best = best_seconds(cases, chosen.rounds)
        tokens = best["tokens"] * chosen.tokens / SHORT
        print(f"{name:36} {1e3 * best['chunks']:7.0f} ms  {1e3 * tokens:22.0f} ms  "
              f"{tokens / best['chunks']:5.1f} x", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
