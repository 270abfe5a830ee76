"""What `torch.compile` gives in training: CPU time of a step with and without it, and how long it takes.

    python -m benchmarks.compiled [MODEL ...] [--dim 128] [--depth 4] [--batch 4] [--length 256]

Every block with memories is compiled (`nldsl train --compile yes`), whatever the plan says of it.  Whole
steps, forward and backward, on one thread, the best of interleaved rounds.  *compiles*: seconds of the first
step, in which torch compiles; *plain* and *compiled*: CPU seconds of a step; *gain*: how many times faster.
The last column names the blocks that `nldsl train` compiles without being told, for they gain by it.
"""

from __future__ import annotations

import argparse
import time
import warnings

import torch

import nldsl
from benchmarks.measure import best_seconds, heading
from nldsl.train.manner import compile_blocks, verdicts
from nldsl.train.passes import backward_from

MODELS = (
    "transformer",
    "linear_attention",
    "gated_deltanet",
    "kimi_linear",
    "mamba2_hybrid",
    "hope_tiny",
    "samba",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    for name, value in (("dim", 128), ("depth", 4), ("batch", 4), ("length", 256), ("rounds", 6)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 256, (given.batch, given.length + 1), generator=generator)
    heading(__doc__)
    # What torch's compiler says of torch's own code.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
    print(f"{'model':18s} {'compiles':>9s} {'plain':>9s} {'compiled':>9s} {'gain':>6s}  the plan compiles")
    for name in given.models:
        plain, made = (nldsl.compile(name, dim=given.dim, depth=given.depth) for _ in range(2))
        compile_blocks(made, "yes")

        def step(model):
            model.zero_grad()
            return backward_from(model, tokens, None, 0)[0]

        begin = time.perf_counter()
        other = step(made)
        seconds = time.perf_counter() - begin
        assert abs(step(plain) - other) < 1e-4
        best = best_seconds({"plain": lambda m=plain: step(m), "made": lambda m=made: step(m)}, given.rounds)
        pays = ", ".join(v.class_name for v in verdicts(made) if v.pays) or "nothing"
        times = f"{seconds:7.0f} s {best['plain']:7.3f} s {best['made']:7.3f} s"
        print(f"{name:18s} {times} {best['plain'] / best['made']:6.2f}  {pays}", flush=True)


if __name__ == "__main__":
    main()
