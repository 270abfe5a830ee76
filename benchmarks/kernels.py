"""Time of the runtime's kernels, forward and backward, against the matrix products they consist of.

    python -m benchmarks.kernels [--rounds 5] [--profile delta]

Cases (B 4, H 4, d 64, T 1024, chunk 64, float32, one thread): `linear` (class D: Mamba-2), `delta`
(class R: Gated DeltaNet), `linear_channel` (GLA), `delta_channel` (KDA), `delta_block` (RWKV-7, DPLR),
`filtered` (Titans with a matrix memory, momentum and decay), `hope` (class N: five residual-MLP memories
side by side, without and with checkpoints per chunk).

For each: CPU milliseconds, tokens per second, share of the bound
(FLOPs of the algorithm, backward counted twice the forward, at the rate of `benchmarks.peak`), MiB
saved for backward, and the time of a loop over tokens in units of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmarks.hope_step import step, token_step
from benchmarks.matrix_kernels import channel_cases
from benchmarks.measure import best_seconds, saved_megabytes
from benchmarks.peak import peak_gflops
from nldsl.runtime.recurrence import delta_recurrence, linear_recurrence

B, H, D, T, C = 4, 4, 64, 1024, 64
LOOP = 64
"""Tokens of the loops over tokens; their time grows in proportion to the tokens."""


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


def matrix_cases() -> dict[str, Case]:
    """Class D and class R, and their loops over tokens."""
    q, k, v = (torch.randn(B, T, H, D) for _ in range(3))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    log_decay, beta, state = -0.1 * torch.rand(B, T, H), torch.rand(B, T, H), torch.zeros(B, H, D, D)

    def linear(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        return linear_recurrence(q, k, v, state, log_decay=g)[0]

    def delta(q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor) -> Tensor:
        added = v * b.unsqueeze(-1)
        return delta_recurrence(q, k, added, b, state, log_decay=g, feedback="decayed")[0]

    def loop(q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor | None = None) -> Tensor:
        M, rows = state, []
        for t in range(q.shape[1]):
            M = M * g[:, t, :, None, None].exp()
            key, added = k[:, t, :, :, None], v[:, t, :, :, None]
            if b is not None:
                added = b[:, t, :, None, None] * (added - M @ key)
            M = M + added * key.mT
            rows.append((M @ q[:, t, :, :, None])[..., 0])
        return torch.stack(rows, 1)

    chunks = B * H * T / C
    inputs, short = leaves(q, k, v, log_decay, beta), [x[:, :LOOP] for x in (q, k, v, log_decay, beta)]
    return {
        "linear": Case(linear, inputs[:4], chunks * (4 * C * C * D + 4 * C * D * D)),
        "delta": Case(delta, inputs, chunks * (10 * C * C * D + 8 * C * D * D + 2 * D**3 + 2 * C**3)),
        "linear loop": Case(loop, leaves(*short[:4]), 0.0, LOOP),
        "delta loop": Case(loop, leaves(*short), 0.0, LOOP),
    }


def more_matrix_cases() -> dict[str, Case]:
    """Gates per channel, several pieces, momentum; the loop is that of the form with scalar gates."""
    return {name: Case(*parts) for name, parts in channel_cases(B, H, D, T, C).items()}


def hope_cases() -> dict[str, Case]:
    """Hope's memories without and with checkpoints, and the loop over tokens."""
    h, m = 64, 5
    u, q = torch.randn(B, H, T, D), F.normalize(torch.randn(B, H, T, D), dim=-1)
    W1, W2 = torch.randn(H, m, D, h) / 8, torch.randn(H, m, h, D) / 8
    readouts = [
        0.1 * torch.randn(H, 1, D),
        torch.zeros(H, 1),
        0.1 * torch.randn(H, 1, D),
        torch.full((H, 1), 4.0),
    ]

    def hope(save: bool) -> Callable[..., Tensor]:
        def run(u: Tensor, q: Tensor, start1: Tensor, start2: Tensor, *gates: Tensor) -> Tensor:
            W1, W2, rows = start1.expand(B, -1, -1, -1, -1), start2.expand(B, -1, -1, -1, -1), []
            for u_n, q_n in zip(u.split(C, 2), q.split(C, 2), strict=True):
                arguments = (W1, W2, u_n, q_n, (start1, start2), list(gates))
                if save:
                    y, W1, W2 = step(*arguments)
                else:
                    y, W1, W2 = checkpoint(step, *arguments, use_reentrant=False, preserve_rng_state=False)
                rows.append(y)
            return torch.cat(rows, 2)

        return run

    def loop(u: Tensor, q: Tensor, start1: Tensor, start2: Tensor, *gates: Tensor) -> Tensor:
        W1, W2, rows = start1.expand(B, -1, -1, -1, -1), start2.expand(B, -1, -1, -1, -1), []
        base = (W1, W2)
        for t, (u_t, q_t) in enumerate(zip(u.split(1, 2), q.split(1, 2), strict=True)):
            if t % C == 0:
                base = (W1, W2)
            y, W1, W2 = token_step(W1, W2, base, u_t, q_t, (start1, start2), list(gates))
            rows.append(y)
        return torch.cat(rows, 2)

    per_chunk = (
        90 * C * D * h + 2 * C * C * D + 10 * C * C * h + 5 * (2 * C * C * h + 2 * C * C * D) + 12 * C**3
    )
    flops = B * H * T / C * per_chunk
    inputs = leaves(u, q, W1, W2, *readouts)
    return {
        "hope": Case(hope(True), inputs, flops),
        "hope checkpointed": Case(hope(False), inputs, flops),
        "hope loop": Case(loop, leaves(u[:, :, :LOOP], q[:, :, :LOOP], W1, W2, *readouts), 0.0, LOOP),
    }


def report(rounds: int) -> None:
    bound, _ = peak_gflops()
    cases = matrix_cases() | more_matrix_cases() | hope_cases()
    seconds = best_seconds({name: case.both for name, case in cases.items()}, rounds)
    print(f"bound {bound:.1f} GFLOP/s on one thread")
    for name, case in cases.items():
        if not case.flops:
            continue
        own = f"{name.split()[0].split('_')[0]} loop"
        slower = "-"
        if own in cases:
            slower = f"{seconds[own] / cases[own].tokens * case.tokens / seconds[name]:.1f} x"
        share = 3 * case.flops / (bound * 1e9) / seconds[name]
        saved = saved_megabytes(lambda case=case: case.run(*case.inputs))
        print(
            f"{name:18s} {seconds[name] * 1e3:7.1f} ms {B * case.tokens / seconds[name]:8.0f} tokens/s "
            f"{share:5.0%} of the bound  {saved:6.1f} MiB saved  loop {slower:>7s}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", metavar="CASE", help="print where the time of one case goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.profile is None:
        return report(options.rounds)
    case = (matrix_cases() | more_matrix_cases() | hope_cases())[options.profile]
    case.both()
    with torch.profiler.profile() as profile:
        case.both()
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))
    return None


if __name__ == "__main__":
    main()
