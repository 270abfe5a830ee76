"""The classes of memories, forward and backward, against the matrix products they consist of.

    python -m benchmarks.kernels [--rounds 5] [--compiled] [--profile delta] [NAME ...]

B 4, H 4, d 64, T 1024, chunk 64, float32, one thread.  Matrix memories call the runtime's kernels as emitted
code does; `titans` and `hope` are emitted memories (`titans_layer`, `hope_layer`), their inputs given.

For each class: CPU milliseconds (the best of the rounds), tokens per second, share of the bound (FLOPs of the
algorithm by fixed formulas, backward counted twice the forward, at the rate of `benchmarks.peak`) beside what
it must reach and what it aims at, MiB saved for backward, and the time of the emitted per-token form of the
same class in units of it (`loop`; `token_loops` holds that against loops written by hand).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import nldsl
from benchmarks import hope_layer, titans_layer, token_loops
from benchmarks.matrix_kernels import channel_cases
from benchmarks.measure import best_seconds, heading, saved_megabytes
from benchmarks.peak import peak_gflops
from nldsl.native.filtered import Memories, NativeFilters
from nldsl.native.matrix_passes import NativeMatrices
from nldsl.runtime.matrix_memory import MatrixMemory
from nldsl.runtime.recurrence import delta_recurrence, linear_recurrence

B, H, D, T, C = 4, 4, 64, 1024, 64
LOOP = 64
"""Tokens of the loops over tokens; their time grows in proportion to the tokens."""


CLASSES = {
    "linear": ("D scalar (RetNet, Mamba-2)", 0.34, 0.55),
    "linear native": ("the same, its chunks in C", 0.34, 0.55),
    "linear_channel": ("D channel (GLA)", 0.18, 0.35),
    "linear_channel native": ("the same, its chunks in C", 0.18, 0.35),
    "delta": ("R scalar (Gated DeltaNet)", 0.40, 0.60),
    "delta native": ("the same, its chunks in C", 0.40, 0.60),
    "delta_channel": ("R channel (KDA)", 0.23, 0.45),
    "delta_channel native": ("the same, its chunks in C", 0.23, 0.45),
    "delta_block": ("DPLR (RWKV-7)", 0.18, 0.45),
    "delta_block native": ("the same, its chunks in C", 0.18, 0.45),
    "filtered": ("kernelised R (Titans, matrix)", 0.24, 0.50),
    "filtered native": ("the same, its chunks in C", 0.24, 0.50),
    "titans": ("N (Titans, MLP of 128)", 0.41, 0.60),
    "titans compiled": ("the same, compiled by torch", 0.41, 0.60),
    "hope": ("self-referential (Hope)", 0.44, 0.63),
    "hope checkpointed": ("Hope, backward pass written out", 0.44, 0.63),
    "hope native": ("Hope, its steps in C", 0.44, 0.63),
    "hope native checkpointed": ("the same, keeping inverses alone", 0.44, 0.63),
    "hope compiled": ("the same, compiled by torch", 0.44, 0.63),
}
"""What every case stands for, the share of the bound it must reach, and the one it aims at."""


@dataclass
class Case:
    """A function of its inputs; `flops` forward, over `tokens` tokens."""

    run: Callable[..., Tensor]
    inputs: list[Tensor]
    flops: float
    tokens: int = T

    def both(self) -> None:
        """Forward and backward."""
        y = self.run(*self.inputs)
        torch.autograd.grad(y, self.inputs, torch.ones_like(y), allow_unused=True)


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().clone().requires_grad_() for t in tensors]


def matrix_cases(instead: NativeMatrices | None = None) -> dict[str, Case]:
    """Class D and class R; `instead`: what computes their passes in the place of torch."""
    q, k, v = (torch.randn(B, T, H, D) for _ in range(3))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    log_decay, beta, state = -0.1 * torch.rand(B, T, H), torch.rand(B, T, H), torch.zeros(B, H, D, D)

    def linear(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        return linear_recurrence(q, k, v, state, log_decay=g, instead=instead)[0]

    def delta(q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor) -> Tensor:
        added, options = v * b.unsqueeze(-1), {"log_decay": g, "instead": instead}
        return delta_recurrence(q, k, added, b, state, feedback="decayed", **options)[0]  # type: ignore[arg-type]

    chunks = B * H * T / C
    inputs = leaves(q, k, v, log_decay, beta)
    return {
        "linear": Case(linear, inputs[:4], chunks * (4 * C * C * D + 4 * C * D * D)),
        "delta": Case(delta, inputs, chunks * (10 * C * C * D + 8 * C * D * D + 2 * D**3 + 2 * C**3)),
    }


def more_matrix_cases(make: Callable[..., MatrixMemory] = MatrixMemory) -> dict[str, Case]:
    """Gates per channel, several pieces, momentum; `make` makes the memories."""
    return {name: Case(*parts) for name, parts in channel_cases(B, H, D, T, C, make=make).items()}


def native_cases() -> dict[str, Case]:
    """The same with their chunks in C."""
    memories, passes = Memories(NativeFilters(after=0)), NativeMatrices(after=0)
    memories.passes = passes
    found = matrix_cases(passes) | more_matrix_cases(memories)
    return {f"{name} native": case for name, case in found.items()}


def emitted_cases() -> dict[str, Case]:
    """Memories with several weights, as emitted."""
    forms = (
        ("titans", titans_layer.layer, titans_layer.inputs, titans_layer.flops),
        ("hope", hope_layer.memories, hope_layer.inputs, hope_layer.flops),
    )
    cases = {}
    for name, layer, inputs, flops in forms:
        cases[name] = _emitted(layer(), inputs(T), flops() / 3)
    saving = hope_layer.memories(checkpoint=True)
    cases["hope checkpointed"] = _emitted(saving, hope_layer.inputs(T), hope_layer.flops() / 3)
    for name, checkpoint in (("hope native", False), ("hope native checkpointed", True)):
        native = hope_layer.memories(checkpoint=checkpoint)
        nldsl.native(native, at_once=True)
        cases[name] = _emitted(native, hope_layer.inputs(T), hope_layer.flops() / 3)
    return cases


def compiled_cases() -> dict[str, Case]:
    """What `torch.compile` makes of the steps of Hope's memories and of the functions on rows of Titans'.

    The first call takes a minute or two.
    """
    module, titans = hope_layer.memories(), titans_layer.layer()
    hope_layer.compile_steps(module)
    titans_layer.compile_rows(titans)
    return {
        "titans compiled": _emitted(titans, titans_layer.inputs(T), titans_layer.flops() / 3),
        "hope compiled": _emitted(module, hope_layer.inputs(T), hope_layer.flops() / 3),
    }


def _emitted(module: nldsl.Layer, inputs: list[Tensor], flops: float, tokens: int = T) -> Case:
    """A layer as a function of its inputs and weights; the weights behind the call count as an answer."""
    parameters, count = list(module.parameters()), len(inputs)

    def run(*given: Tensor) -> Tensor:
        y, state = module(*given[:count])
        ends = [w for m in state.tree["root"].values() for w in m["running"].values()]
        return y.sum() + sum(w.sum() for w in ends)

    return Case(run, [*inputs, *parameters], flops, tokens)


def loop_cases() -> dict[str, Case]:
    """The emitted per-token form of every class."""
    found = {}
    for name in token_loops.NAMES:
        loops = token_loops.pair(name, LOOP)

        def run(*_: Tensor, emitted: Callable[[], tuple[Tensor, ...]] = loops.emitted) -> Tensor:
            return torch.stack([part.sum() for part in emitted()]).sum()

        found[f"{name} loop"] = Case(run, loops.leaves, 0.0, LOOP)
    return found


def all_cases() -> dict[str, Case]:
    """Every case by name; `NAME loop` belongs to `NAME`."""
    return matrix_cases() | more_matrix_cases() | native_cases() | emitted_cases() | loop_cases()


def report(rounds: int, wanted: list[str], compiled: bool = False) -> None:
    heading(__doc__)
    bound, _ = peak_gflops()
    shown = {*(wanted or CLASSES)} | {f"{name.split()[0]} loop" for name in wanted or CLASSES}
    cases = {name: case for name, case in all_cases().items() if name in shown}
    cases |= compiled_cases() if compiled else {}
    seconds = best_seconds({name: case.both for name, case in cases.items()}, rounds)
    print(f"bound {bound:.1f} GFLOP/s on one thread")
    heads = ("ms", "tokens/s", "share", "must", "aim", "MiB", "loop")
    print(f"{'class':32s}" + "".join(f"{head:>9s}" for head in heads))
    for name in (name for name in CLASSES if name in cases):
        case = cases[name]
        own = f"{name.split()[0]} loop"
        slower = "-"
        if own in cases:
            slower = f"{seconds[own] / cases[own].tokens * case.tokens / seconds[name]:.1f} x"
        share = 3 * case.flops / (bound * 1e9) / seconds[name]
        saved = saved_megabytes(lambda case=case: case.run(*case.inputs))
        title, must, aim = CLASSES[name]
        print(
            f"{title:32s}{seconds[name] * 1e3:9.1f}{B * case.tokens / seconds[name]:9.0f}"
            f"{share:9.0%}{must:9.0%}{aim:9.0%}{saved:9.1f}{slower:>9s}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CLASSES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", metavar="CASE", help="print where the time of one case goes")
    parser.add_argument("--compiled", action="store_true", help="also Hope's steps under torch.compile")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # As `nldsl train` does.
    nldsl.keep_freed_memory()
    if options.profile is None:
        return report(options.rounds, options.names, options.compiled)
    case = all_cases()[options.profile]
    case.both()
    with torch.profiler.profile() as profile:
        case.both()
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))
    return None


if __name__ == "__main__":
    main()
