"""Emitted memories whose reads follow the running state, against the matmul bound and their per-token form.

    python -m benchmarks.live_layers [--chunk 16] [--rounds 4] [--profile] [NAME ...]

The memories of `specs/blocks/{titans_mlp,ttt_mlp,dla,yaad}.nl` with their maps, objectives, rules and gates;
keys, values, queries and what gates are made of are inputs, so nothing but the memory is timed.  Width 64 per
head, 4 heads, batch 4, T = 1024, float32, one thread, forward and backward.  FLOPs by a fixed formula of the
algorithm (backward = twice forward), per chunk of C tokens and head, for two weights of d x h:

    (3 + 2 s + 2 r) 2 C d h + 4 C^2 (d + h)

three products of the gradient, the writes into s = 1 matrices per weight (2 with a momentum), the read of
r = 1 (2 with a momentum or a learned start that it decays toward), and what it sees of the chunk.

`native`: chunks in C, one head of one sample at a time.  `loop over chunks` is the form of memories whose way
back is not derived (family `chunk`).  `x the token loop` says how many times as long the emitted per-token
form takes, on 32 tokens and scaled.  CPU time, the best of the rounds.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import nldsl
from benchmarks.measure import best_seconds, heading, saved_megabytes
from benchmarks.peak import peak_gflops
from nldsl.driver.compile import emit, plan_of
from nldsl.emit.loader import load_module
from nldsl.native import native

BATCH, HEADS, SIZE, TOKENS, SHORT = 4, 4, 64, 1024, 32
SPEC = """
block live(q, k, v, a, b, c, heads = 4, chunk = 16) {{
  level context every 1 token {{ memory M = {map}(expand) per head(heads) }}
  theta = {rate}
  eta   = sigmoid(b) / 2
  keep  = 1 - sigmoid(c) / chunk
  M[split(k, heads)] <- split(v, heads)  minimize {objective}  by {rule}
    gradient every chunk tokens {retain}
  return merge(M[split(q, heads)])
}}
"""


class Kind(NamedTuple):
    """What is written between the gates, how wide the map is, and `s`, `r` of the formula."""

    parts: dict[str, str]
    expand: int
    states: int
    seen: int


def _kind(expand: int, states: int, seen: int, *parts: str) -> Kind:
    return Kind(dict(zip(("map", "objective", "rule", "retain"), parts, strict=True)), expand, states, seen)


KINDS = {
    "titans_mlp": _kind(2, 2, 2, "mlp", "l2", "normalised_momentum(lr = theta, beta = eta)", "retain keep"),
    "ttt_mlp": _kind(4, 1, 1, "ttt_mlp", "l2", "gd(lr = theta)", ""),
    "dla": _kind(2, 1, 2, "mlp", "dot", "gd(lr = theta)", "retain keep toward init"),
    "yaad": _kind(2, 1, 1, "miras_mlp", "huber(delta = 1)", "gd(lr = theta)", "retain keep"),
}
RATES = {"ttt_mlp": "0.1 * sigmoid(a) / 64"}


def layer(name: str, chunk: int, **options: object) -> nldsl.Layer:
    """The emitted memory."""
    kind, width = KINDS[name], HEADS * SIZE
    text = SPEC.format(**kind.parts, rate=RATES.get(name, "sigmoid(a) / chunk"))
    text = text.replace("(expand)", f"({kind.expand})")
    sizes = {"q": width, "k": width, "v": width, "a": HEADS, "b": HEADS, "c": HEADS}
    return nldsl.compile(text, block="live", heads=HEADS, chunk=chunk, **sizes, **options)


def over_chunks(name: str, chunk: int) -> nldsl.Layer:
    """The same as a loop over chunks that automatic differentiation records."""
    plan = plan_of(layer(name, chunk).program, family="chunk")
    return load_module(emit(plan), f"{name}_over_chunks").build(0)


def inputs(tokens: int) -> list[Tensor]:
    """Keys and queries of unit length, values and gates."""
    q, k, v = (torch.randn(BATCH, tokens, HEADS, SIZE) for _ in range(3))
    q, k, v = (x.flatten(2) for x in (F.normalize(q, dim=-1), F.normalize(k, dim=-1), v))
    gates = [torch.randn(BATCH, tokens, HEADS) for _ in range(3)]
    return [x.requires_grad_() for x in (q, k, v, *gates)]


def flops(name: str, chunk: int) -> float:
    """Forward and backward, by the fixed formula."""
    kind = KINDS[name]
    hidden = kind.expand * SIZE
    weights = (3 + 2 * kind.states + 2 * kind.seen) * 2 * chunk * SIZE * hidden
    return 3.0 * BATCH * HEADS * TOKENS / chunk * (weights + 4 * chunk * chunk * (SIZE + hidden))


def both(module: nldsl.Layer, given: list[Tensor]):
    """Forward and backward once, through answers and last weights."""
    leaves, seed = [*given, *module.parameters()], torch.randn(*given[0].shape)

    def once() -> object:
        y, state = module(*given)
        weights = list(state.tree["root"]["M"]["running"].values())
        return torch.autograd.grad(
            (y, *weights), leaves, (seed, *(torch.ones_like(w) for w in weights)), allow_unused=True
        )

    return once


def report(name: str, chunk: int, rounds: int, bound: float) -> None:
    """One line per form."""
    given, short = inputs(TOKENS), inputs(SHORT)
    modules = {
        "as planned": layer(name, chunk),
        "native": layer(name, chunk),
        "loop over chunks": over_chunks(name, chunk),
    }
    native(modules["native"], at_once=True)
    cases = {n: both(m, given) for n, m in modules.items()}
    cases["token by token"] = both(layer(name, chunk, lowering="sequential"), short)
    seconds = best_seconds(cases, rounds)
    per_token = seconds.pop("token by token") / SHORT
    for form, spent in seconds.items():
        saved = saved_megabytes(lambda form=form: modules[form](*given))
        print(
            f"{name:12s}{chunk:4d}  {form:18s}{1e3 * spent:8.1f} ms {BATCH * TOKENS / spent:8.0f} tokens/s "
            f"{flops(name, chunk) / (bound * 1e9) / spent:6.1%} of the bound {saved:7.1f} MiB saved "
            f"{per_token * TOKENS / spent:6.1f} x the token loop",
            flush=True,
        )


def main() -> None:
    """Print milliseconds, share of the bound, saved activations and the ratio to the loop over tokens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--chunk", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    nldsl.keep_freed_memory()
    heading(__doc__)
    bound, _ = peak_gflops()
    print(f"bound {bound:.1f} GFLOP/s on one thread", flush=True)
    for name in options.names or KINDS:
        if not options.profile:
            report(name, options.chunk, options.rounds, bound)
            continue
        once = both(layer(name, options.chunk), inputs(TOKENS))
        once()
        with torch.profiler.profile() as profile:
            once()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))


if __name__ == "__main__":
    main()
