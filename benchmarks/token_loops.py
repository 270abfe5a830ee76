"""The emitted per-token form of every class of memory against a loop written by hand with the same numbers.

    python -m benchmarks.token_loops [--rounds 5] [--tokens 64] [NAME ...]

Batch 4, 4 heads of 64, float32, one thread, CPU time; inputs and gates are given, so nothing but the memory
is timed, the best of the rounds.  A ratio of 1.3 says that the emitted loop takes 1.3 times as long as
`hand_loops`; more it must not be.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import nldsl
from benchmarks import hand_loops, hope_layer, titans_layer
from benchmarks.measure import best_seconds, heading

BATCH, HEADS, SIZE, CHUNK, MUST = 4, 4, 64, 64, 1.3
WIDTH = HEADS * SIZE
HEAD = "heads = 4) {\n  level context every 1 token { memory S = matrix() per head(heads) init zero }\n"
READ = "  return merge(S[split(q, heads)])\n}\n"


def _matrix(arguments: str, *lines: str) -> str:
    """A block around the write of one matrix; its read stands below."""
    return f"block memory({arguments}, {HEAD}" + "".join(f"  {line}\n" for line in lines) + READ


KEY = "S[split(k, heads)] <- split(v, heads)"
SPECS = {
    "linear": _matrix("q, k, v, gate", f"{KEY}  minimize dot  by gd(lr = 1)  retain sigmoid(gate)"),
    "linear_channel": _matrix(
        "q, k, v, gate", f"{KEY}  minimize dot  by gd(lr = 1)  retain split(sigmoid(gate), heads)"
    ),
    "delta": _matrix(
        "q, k, v, gate, rate", "S *= sigmoid(gate)", f"{KEY}  minimize l2  by gd(lr = sigmoid(rate))"
    ),
    "delta_channel": _matrix(
        "q, k, v, gate, rate",
        "S *= split(sigmoid(gate), heads)",
        f"{KEY}  minimize l2  by gd(lr = sigmoid(rate))",
    ),
    "delta_block": _matrix(
        "q, k, v, gate, rate, kappa",
        "write S {",
        "  [split(kappa, heads)] <- 0  minimize l2  by gd(lr = split(sigmoid(rate), heads))",
        "  [split(k, heads)] <- split(v, heads)  minimize dot  by gd(lr = 1)",
        "}  retain split(sigmoid(gate), heads)",
    ),
    "filtered": _matrix(
        "q, k, v, theta, eta, alpha",
        f"{KEY}  minimize l2  by momentum(lr = sigmoid(theta), beta = sigmoid(eta))  retain sigmoid(alpha)",
    ),
}
"""A matrix, written at every token and read behind the write."""
WIDE = {
    "linear_channel": ("gate",),
    "delta_channel": ("gate",),
    "delta_block": ("gate", "rate"),
}
"""Gates with one number per key channel."""
LOOPS = {
    "linear": hand_loops.linear,
    "linear_channel": hand_loops.linear,
    "delta": hand_loops.delta,
    "delta_channel": hand_loops.delta,
    "delta_block": hand_loops.delta_block,
    "filtered": hand_loops.filtered,
}


@dataclass
class Pair:
    """Both loops as functions without arguments: reads and last weights."""

    emitted: Callable[[], tuple[Tensor, ...]]
    by_hand: Callable[[], tuple[Tensor, ...]]
    leaves: list[Tensor]

    def both(self, run: Callable[[], tuple[Tensor, ...]]) -> Callable[[], object]:
        """Forward and backward once."""

        def once() -> tuple[Tensor, ...]:
            ends = run()
            return torch.autograd.grad(ends, self.leaves, [torch.ones_like(e) for e in ends])

        return once


def matrix_module(name: str, **options: object) -> nldsl.Layer:
    """The emitted memory of one class of matrices."""
    return nldsl.compile(SPECS[name], block="memory", heads=HEADS, **_sizes(name), **options)


def _sizes(name: str) -> dict[str, int]:
    arguments = SPECS[name].partition("(")[2].partition(", heads")[0].split(", ")
    wide = {"q", "k", "v", "kappa", *WIDE.get(name, ())}
    return {a: WIDTH if a in wide else HEADS for a in arguments}


def matrix_inputs(name: str, tokens: int) -> list[Tensor]:
    """Keys and queries of unit length, values, gates in front of their sigmoids."""
    made = []
    for argument, width in _sizes(name).items():
        x = torch.randn(BATCH, tokens, width)
        if argument in ("q", "k", "kappa"):
            x = F.normalize(x.unflatten(2, (HEADS, SIZE)), dim=-1).flatten(2)
        made.append((x + 2 if argument in ("gate", "alpha") else x).requires_grad_())
    return made


def _matrix_pair(name: str, tokens: int) -> Pair:
    module, inputs = matrix_module(name, lowering="sequential"), matrix_inputs(name, tokens)
    start = torch.zeros(BATCH, HEADS, SIZE, SIZE)

    def emitted() -> tuple[Tensor, ...]:
        y, state = module(*inputs)
        return y, *state.tree["root"]["S"]["running"].values()

    def by_hand() -> tuple[Tensor, ...]:
        y, ends = LOOPS[name](start.to(inputs[0].dtype), *inputs)
        return y, *ends

    return Pair(emitted, by_hand, inputs)


def _titans_pair(tokens: int) -> Pair:
    module, inputs = titans_layer.layer(lowering="sequential"), titans_layer.inputs(tokens)
    weights = [module.root.M.W2, module.root.M.W1]

    def emitted() -> tuple[Tensor, ...]:
        y, state = module(*inputs)
        running = state.tree["root"]["M"]["running"]
        return y, running["W2"], running["W1"]

    def by_hand() -> tuple[Tensor, ...]:
        starts = (w.expand(BATCH, *w.shape) for w in weights)
        y, ends = hand_loops.titans(*starts, *inputs, chunk=CHUNK)
        return y, *ends

    return Pair(emitted, by_hand, [*inputs, *weights])


def _hope_pair(tokens: int) -> Pair:
    module, inputs = hope_layer.memories(lowering="sequential"), hope_layer.inputs(tokens)
    root = module.root
    order = (root.Mk, root.Mv, root.Me, root.Ma, root.M)
    readouts = (root.eta.readout, root.alpha.readout)

    def emitted() -> tuple[Tensor, ...]:
        y, state = module(*inputs)
        held = [state.tree["root"][m]["running"] for m in ("Mk", "Mv", "Me", "Ma", "M")]
        return y, *(torch.stack([h[w] for h in held], 2) for w in ("W1", "W2"))

    def by_hand() -> tuple[Tensor, ...]:
        W1, W2 = (torch.stack([getattr(m, w) for m in order], 1) for w in ("W1", "W2"))
        gates = [p for r in readouts for p in (r.weight[:, None], r.bias[:, None])]
        y, ends = hand_loops.hope(W1, W2, *inputs, gates, chunk=CHUNK)
        return y, *ends

    return Pair(emitted, by_hand, [*inputs, *module.parameters()])


NAMES = (*SPECS, "titans", "hope")


def pair(name: str, tokens: int) -> Pair:
    """Both loops of one class."""
    made = {"titans": _titans_pair, "hope": _hope_pair}
    return made[name](tokens) if name in made else _matrix_pair(name, tokens)


def main() -> None:
    """Print microseconds per token of both loops and their ratio: forward alone, and with backward."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    heading(__doc__)
    found = {name: pair(name, options.tokens) for name in options.names or NAMES}
    cases = {}
    for name, loops in found.items():
        for kind, run in (("emitted", loops.emitted), ("hand", loops.by_hand)):
            cases[name, kind, "both"] = loops.both(run)
            cases[name, kind, "forward"] = torch.no_grad()(run)
    seconds = best_seconds(cases, options.rounds)
    print(f"{'microseconds per token':24s}{'forward and backward':>31s}{'forward alone':>31s}")
    print(f"{'':24s}" + (2 * f"{'emitted':>9s} by hand  ratio      ").rstrip())
    for name in found:
        line = f"{name:24s}"
        for way in ("both", "forward"):
            ours, theirs = (seconds[name, kind, way] / options.tokens * 1e6 for kind in ("emitted", "hand"))
            line += f"{ours:9.0f} {theirs:7.0f} {ours / theirs:6.2f} x    "
        print(line.rstrip())


if __name__ == "__main__":
    main()
