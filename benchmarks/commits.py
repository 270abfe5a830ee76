"""A rule that steps once per chunk (`at commit`) against the same rule at every token of it, whole layers.

    python -m benchmarks.commits [--rounds 7]

Width 256, 4 heads, memories 64-128-64 with momentum and retention in chunks of 64, batch 4, 1024 tokens,
float32, one thread, forward and backward, projections included.  Medians of CPU time of the process, in
turns, and of the ratios to the first row; page faults and time of the kernel are those of one round.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import torch

import nldsl
from benchmarks.measure import heading
from nldsl.driver.compile import emit, plan_of
from nldsl.emit.loader import load_module
from nldsl.graph import open_program
from nldsl.runtime.model import Layer

BATCH, WIDTH, TOKENS = 4, 256, 1024
TEXT = """
block titans(x, heads = 4, chunk = 64) {
  level context every chunk tokens { memory M = mlp(2) per head(heads) }
  z = norm(x)
  q = l2norm(split(linear(z), heads))
  k = l2norm(split(linear(z), heads))
  M[k] <- split(linear(z), heads)  minimize l2
    by momentum(lr = sigmoid(linear(z, heads)) / chunk, beta = sigmoid(linear(z, heads)))
    retain sigmoid(linear(z, heads, bias = true)) CLAUSE
  return linear(merge(M[q] * sigmoid(linear(z, heads))))
}
"""


def layer(clause: str, family: str = "", native: bool = False) -> Layer:
    """The layer, its memory by one family of lowerings or by the first that takes it."""
    program = open_program(TEXT.replace("CLAUSE", clause), block="titans", x=WIDTH)
    made: Layer = load_module(emit(plan_of(program, family=family)), "commits").build(0)
    if native:
        nldsl.native(made, at_once=True)
    return made


def step(layer: Layer, x: torch.Tensor) -> None:
    """Forward, and gradients of everything."""
    y, _ = layer(x)
    torch.autograd.grad(y.sum(), [x, *layer.parameters()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    heading(__doc__)
    x = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)
    layers = {
        "at every token": layer(""),
        "at commit, in the loop over chunks": layer("at commit", "chunk"),
        "at commit": layer("at commit"),
        "at every token, native lanes": layer("", native=True),
        "at commit, native lanes": layer("at commit", native=True),
    }
    for one in layers.values():
        step(one, x)
        step(one, x)
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    kernel = {}
    for _ in range(rounds):
        for name, one in layers.items():
            before, started = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
            step(one, x)
            seconds[name].append(time.process_time() - started)
            now = resource.getrusage(resource.RUSAGE_SELF)
            kernel[name] = now.ru_minflt - before.ru_minflt, now.ru_stime - before.ru_stime
    first = seconds["at every token"]
    print(f"{'rule':36s} {'a pass':>10s} {'ratio':>6s}")
    for name, found in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(first, found, strict=True))
        faults, inside = kernel[name]
        print(
            f"{name:36s} {1e3 * statistics.median(found):7.1f} ms {ratio:6.2f}  "
            f"{faults:7d} page faults, {1e3 * inside:5.1f} ms in the kernel"
        )


if __name__ == "__main__":
    main()
