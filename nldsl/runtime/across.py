"""Gates per channel of the other side: rows of a memory that fade apart and are written along common keys.

    M_t = diag(g_t) M_{t-1} (I - e_t s_t c_t^T) + w_t c_t^T

Scaling rows and erasing along columns commute.  With `G_t = g_1 ... g_t` the rows `M_t / G_t` follow the
recurrence without these gates, whose values are `w_t / G_t`: one triangular system for all rows.  Inside a
chunk everything is taken around an anchor in its middle, as in `gram`; a chunk is as narrow as the decays of
the call ask for, and where even a single token leaves the range of the numbers the recurrence is walked.
Shapes as in `matrix_memory`; `E` gates of all tokens in order, `X` = chunks x batch x heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.runtime.chunk_widths import steep_chunks, sums_of
from nldsl.runtime.chunks import mask_out
from nldsl.runtime.filters import Places
from nldsl.runtime.matrix_tokens import Gate, Side, States, Step, at_token, kept, one_token, tokens_of


class Across:
    """What gates do to rows inside a chunk: `logs [X, C, S, D]`, zero where a gate is not of this kind."""

    def __init__(self, logs: Tensor, lead: tuple[int, int]) -> None:
        count, self.width, self.stages, size = logs.shape
        # Running sums are large where their differences are small.
        sums = torch.nn.functional.pad(logs.double().flatten(1, 2).cumsum(1), (0, 0, 1, 0))
        anchor = sums[:, (sums.shape[1] + 1) // 2, None]
        self.near = (sums - anchor).to(logs.dtype)
        first, rest = (anchor.to(logs.dtype), (sums[:, -1:] - anchor).to(logs.dtype))
        self.first, rest = (x.view(*lead, size) for x in (first, rest))
        following = torch.cat([self.first[1:], torch.zeros_like(self.first[:1])])
        self.between = (rest + following).unsqueeze(-1)

    def _at(self, places: Places) -> Tensor:
        """Logarithms at some places of every token, around the anchor, `[X, C * n, D]`."""
        tokens = torch.arange(self.width, device=self.near.device).unsqueeze(1) * self.stages
        gates = torch.tensor([p.gates for p in places], device=self.near.device)
        return self.near[:, (tokens + gates).flatten()]

    def begun(self, state: Tensor) -> Tensor:
        """The state `[X, D, A]` in front of the first chunk, around its anchor."""
        return state * self.first[0].exp().unsqueeze(-1)

    def written(self, add: Tensor, of: Places) -> Tensor:
        """Values `[X, C * m, D]` as they are written around the anchor."""
        return add * self._at(of).neg().exp()

    def shown(self, rows: Tensor, at: Places) -> Tensor:
        """What stands around the anchor, `[X, C * n, D]`, as places see it."""
        return rows * self._at(at).exp()


def logs_of(gates: Sequence[Gate]) -> list[Tensor | None]:
    """The logarithms of the gates of this kind, `None` for others."""
    return [g.log if g.across else None for g in gates]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def anchored(gates: Sequence[Gate], mask: Tensor | None, width: int) -> bool:
    """Whether one anchor serves every chunk of `width` tokens; a compiled graph ends in front of it.

    >>> steep = torch.full((1, 64, 1, 1), -3.0)
    >>> [anchored([Gate(log=k * steep, across=True)], None, 16) for k in (1, 2)]
    [True, False]
    """
    # What one token writes is multiplied by what another one sees, in the way back both ways round.
    logs = [2 * mask_out(x.detach(), mask) for x in logs_of(gates) if x is not None]
    events = torch.stack(logs, 2).flatten(1, 2)
    return not steep_chunks(sums_of(events, width * len(logs)), width * len(logs))


class Walk:
    """The recurrence as written, for any number of tokens."""

    def __init__(self, states: States, steps: Sequence[Step], mask: Tensor | None, side: Side) -> None:
        self.side, self.last = side, states
        self.places: list[list[Tensor]] = []
        for t in range(tokens_of(steps)):
            found = one_token(self.last, [at_token(s, t) for s in steps], side)
            self.places.append([x[0] for x in found])
            self.last = kept(None if mask is None else mask[:, t, None, None, None], found[-1], self.last)

    def read(self, q: Tensor, at: int) -> Tensor:
        """`[B, T, H, m, K]` to `[B, T, H, m, V]`."""
        memory = torch.stack([x[at] for x in self.places], 1)
        return q @ (memory if self.side == "value" else memory.mT)
