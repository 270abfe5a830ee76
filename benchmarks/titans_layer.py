"""The emitted Titans memory (an MLP with momentum and decay) against the matmul bound and its per-token form.

    python -m benchmarks.titans_layer [--rounds 4] [--compiled] [--profile]

Width 64 per head, 4 heads, hidden 128, chunk 64, batch 4, T = 1024, float32, one thread, forward and
backward; keys, values and gates are inputs, so nothing but the memory is timed.  FLOPs by a fixed
formula of the algorithm (backward = twice forward): per chunk and head `9 (2 C d h)`: three products of
the gradient, four of the writes into weights and momenta, two of the read.

`loop over chunks` is the form that memories take whose way back is not derived (family `chunk`).  `compiled`:
`torch.compile` of the map and the gradient on the rows of a chunk, and of their ways back.  `native`: chunks
in C, one head of one sample at a time (`nldsl.native`).
`x the token loop` says how many times as long the emitted per-token form takes, on 64 tokens and scaled;
`token_loops` holds that against a loop written by hand.  CPU time, the best of the rounds.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

import nldsl
from benchmarks.measure import best_seconds, heading, saved_megabytes
from benchmarks.peak import peak_gflops
from nldsl.driver.compile import emit, plan_of
from nldsl.emit.loader import load_module
from nldsl.native import native
from nldsl.train.manner import row_functions

BATCH, HEADS, SIZE, HIDDEN, TOKENS, CHUNK, SHORT = 4, 4, 64, 128, 1024, 64, 64
"""The loops over `SHORT` tokens are differentiated through the weights behind them too: else they would
have no way back."""
SPEC = """
block titans(q, k, v, theta, eta, alpha, heads = 4, chunk = 64) {
  level context every chunk tokens { memory M = mlp(2) per head(heads) }
  y = M[split(q, heads)]
  M[split(k, heads)] <- split(v, heads)  minimize l2
    by momentum(lr = 0.01 * sigmoid(theta), beta = sigmoid(eta))  retain sigmoid(alpha)
  return merge(y)
}
"""


def layer(**options: object) -> nldsl.Layer:
    """The emitted memory."""
    width = HEADS * SIZE
    sizes = {"q": width, "k": width, "v": width, "theta": HEADS, "eta": HEADS, "alpha": HEADS}
    return nldsl.compile(SPEC, block="titans", heads=HEADS, chunk=CHUNK, **sizes, **options)


def over_chunks() -> nldsl.Layer:
    """The same as a loop over chunks that automatic differentiation records."""
    plan = plan_of(layer().program, family="chunk")
    return load_module(emit(plan), "titans_over_chunks").build(0)


def compile_rows(module: nldsl.Layer) -> None:
    """`torch.compile` of the functions on the rows of a chunk: whole graphs would unroll every chunk."""
    for functions, name in list(row_functions(module.root)):
        functions[name] = torch.compile(functions[name], dynamic=False)


def inputs(tokens: int) -> list[Tensor]:
    """Keys and queries of unit length, values and gates."""
    q, k, v = (torch.randn(BATCH, tokens, HEADS, SIZE) for _ in range(3))
    q, k, v = (x.flatten(2) for x in (F.normalize(q, dim=-1), F.normalize(k, dim=-1), v))
    gates = [torch.randn(BATCH, tokens, HEADS) for _ in range(3)]
    return [x.requires_grad_() for x in (q, k, v, *gates)]


def flops() -> float:
    """Forward and backward, by the fixed formula."""
    return 3.0 * BATCH * HEADS * TOKENS / CHUNK * 9 * 2 * CHUNK * SIZE * HIDDEN


def of_layer(module: nldsl.Layer):
    """The same of an emitted layer: answers and last weights."""

    def run(*given: Tensor):
        y, state = module(*given)
        running = state.tree["root"]["M"]["running"]
        return y, (running["W2"], running["W1"])

    return run


def both(run, given: list[Tensor], leaves: list[Tensor]):
    """Forward and backward once."""
    seed = torch.randn(*given[0].shape)

    def once() -> object:
        y, weights = run(*given)
        ends = [torch.ones_like(w) for w in weights]
        return torch.autograd.grad((y, *weights), leaves, (seed, *ends))

    return once


def main() -> None:
    """Print milliseconds, share of the bound, saved activations and the ratios to loops over tokens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--compiled", action="store_true", help="also time torch.compile of the rows")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    heading(__doc__)
    given, short = inputs(TOKENS), inputs(SHORT)
    modules = {"eager": layer(), "native": layer(), "loop over chunks": over_chunks()}
    native(modules["native"], at_once=True)
    if options.compiled:
        modules["compiled"] = layer()
        compile_rows(modules["compiled"])
    cases = {n: both(of_layer(m), given, [*given, *m.parameters()]) for n, m in modules.items()}
    if options.profile:
        cases["eager"]()
        with torch.profiler.profile() as profile:
            cases["eager"]()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))
        return
    loop = layer(lowering="sequential")
    cases["token by token"] = both(of_layer(loop), short, [*short, *loop.parameters()])
    bound, _ = peak_gflops()
    seconds = best_seconds(cases, options.rounds)
    per_token = seconds.pop("token by token")
    print(f"bound {bound:.1f} GFLOP/s on one thread")
    for name, spent in seconds.items():
        saved = saved_megabytes(lambda module=modules[name]: module(*given))
        print(
            f"{name:22s} {1e3 * spent:7.1f} ms  {BATCH * TOKENS / spent:7.0f} tokens/s  "
            f"{flops() / (bound * 1e9) / spent:5.1%} of the bound  {saved:6.1f} MiB saved  "
            f"{per_token / SHORT * TOKENS / spent:5.1f} x the token loop"
        )


if __name__ == "__main__":
    main()
