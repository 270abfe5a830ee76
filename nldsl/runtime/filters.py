"""What is left of a write some steps later: the causal filters of a matrix memory inside a chunk.

A token is a list of steps: gates, which scale the memory, and writes.  A `Place` says how many gates stand
above a point of the token, and how many steps: a row there sees everything of earlier tokens, and of its own
token the writes of steps above it.  Shapes: `X` chunks x batch x heads, `C` tokens, `n`, `m` rows and columns
per token (flattened token by token), `K` channels of the side along which the memory is written.
"""

from __future__ import annotations

from itertools import accumulate
from math import prod
from operator import mul
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from nldsl.runtime.decay import decay_kernel
from nldsl.runtime.gram import Exponents, channel_apply, channel_gram, pick_base


class Place(NamedTuple):
    """Gates above a point of the token, and the number of the step it belongs to.

    With several states (`StateFilter`) `part` tells which of them a row looks at, and which of the ways to
    add to them a column has.
    """

    gates: int
    step: int
    part: int = 0


Places = tuple[Place, ...]


def seen_mask(width: int, rows: Places, columns: Places, like: Tensor) -> Tensor:
    """One where a row sees a column, `[C * n, C * m]`.

    >>> seen_mask(2, (Place(0, 0),), (Place(0, 0),), torch.zeros(1)).tolist()
    [[0.0, 0.0], [1.0, 0.0]]
    """
    earlier = torch.ones(width, width, dtype=like.dtype, device=like.device).tril_(-1)
    own = torch.tensor([[float(c.step < r.step) for c in columns] for r in rows], device=like.device)
    same = torch.eye(width, dtype=like.dtype, device=like.device)
    seen = earlier[:, None, :, None] + same[:, None, :, None] * own.to(like.dtype)[:, None, :]
    return seen.reshape(width * len(rows), width * len(columns))


class Filter(Protocol):
    """How writes and the state in front of the chunk fade."""

    @property
    def total(self) -> Tensor:
        """What is left of the state behind the chunk, `[X, 1, 1]` or `[X, 1, K]`.

        Of n states side by side `[X, n, n, 1]` or `[X, n, n, K]`.
        """
        ...

    def gram(self, rows: Tensor, at: Places, columns: Tensor, of: Places) -> Tensor:
        """`[X, C * n, C * m]`: products of rows and columns, faded, zero where not seen."""
        ...

    def spread(self, scores: Tensor, at: Places, columns: Tensor, of: Places) -> Tensor:
        """`[X, C * n, K]`: faded columns summed with `scores [X, C * n, C * m]`."""
        ...

    def carried(self, rows: Tensor, at: Places) -> Tensor:
        """Rows as they meet the state in front of the chunk."""
        ...

    def met(self, answers: Tensor, at: Places) -> Tensor:
        """What places see of the answers `[X, C * n, K]` of the state in front of the chunk."""
        ...

    def ended(self, columns: Tensor, of: Places) -> Tensor:
        """Columns as they are left behind the chunk."""
        ...


def _index(width: int, stages: int, places: Places, device: torch.device) -> Tensor:
    """Places as numbers of events: one leading event, then the gates of each token in order."""
    tokens = torch.arange(width, device=device).unsqueeze(1) * stages
    return (tokens + torch.tensor([p.gates for p in places], device=device)).flatten()


class ScalarFilter:
    """One number per gate: `gates [X, C, S]`, as logarithms or (any sign, zero too) as they are."""

    def __init__(self, gates: Tensor, is_log: bool) -> None:
        self.width, self.stages = gates.shape[1], gates.shape[2]
        events = gates.flatten(1)
        first = events.new_full((events.shape[0], 1), 0.0 if is_log else 1.0)
        events = torch.cat([first, events], 1)
        self.kernel = decay_kernel(events) if is_log else decay_kernel(None, events)
        self.total = self.kernel.total[:, None, None]

    def weights(self, at: Places, of: Places) -> Tensor:
        """`[X, C * n, C * m]`: what is left of each write, zero where it is not seen."""
        after = self.kernel.after
        seen = seen_mask(self.width, at, of, after)
        rows, columns = (_index(self.width, self.stages, p, after.device) for p in (at, of))
        return after[:, rows[:, None], columns] * seen

    def gram(self, rows: Tensor, at: Places, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        return (rows @ columns.mT) * self.weights(at, of)

    def spread(self, scores: Tensor, at: Places, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        return (scores * self.weights(at, of)) @ columns

    def fading(self, at: Places) -> Tensor:
        """What is left of the state in front of the chunk, `[X, C * n]`."""
        return self.kernel.carried[:, _index(self.width, self.stages, at, self.kernel.carried.device)]

    def carried(self, rows: Tensor, at: Places) -> Tensor:
        """See `Filter`."""
        return rows * self.fading(at).unsqueeze(-1)

    met = carried

    def ended(self, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        left = self.kernel.to_end[:, _index(self.width, self.stages, of, columns.device)]
        return columns * left.unsqueeze(-1)


class PlainFilter:
    """No gate: nothing fades."""

    def __init__(self, width: int, like: Tensor) -> None:
        self.width, self.total = width, like.new_ones(1, 1, 1)

    def gram(self, rows: Tensor, at: Places, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        return (rows @ columns.mT) * seen_mask(self.width, at, of, rows)

    def spread(self, scores: Tensor, at: Places, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        return (scores * seen_mask(self.width, at, of, scores)) @ columns

    def carried(self, rows: Tensor, at: Places) -> Tensor:
        """See `Filter`."""
        return rows

    met = carried

    def ended(self, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        return columns


class ChannelFilter:
    """One number per channel and gate: log decays `[X, C, S, K]`; `base` as in `gram.pick_base`."""

    def __init__(self, logs: Tensor) -> None:
        self.width, self.dtype = logs.shape[1], logs.dtype
        token = logs.sum(2)
        lower = torch.ones(self.width, self.width, dtype=logs.dtype, device=logs.device).tril_()
        sums = lower @ token
        self.base = pick_base(sums - token, token, logs.dtype)
        if self.base < self.width and logs.dtype != torch.float64:
            # Large sums: their small differences count.
            logs, token = logs.double(), token.double()
            sums = token.cumsum(1)
        self.end, self.front = sums[:, -1:], (sums - token)
        inside = logs.cumsum(2)
        self.stages = [self.front, *((self.front + x) for x in inside.unbind(2))]
        self.total = self.end.exp().to(self.dtype)

    def sums(self, places: Places) -> Tensor:
        """Running sums at some places, `[X, C, n, K]`."""
        return torch.stack([self.stages[p.gates] for p in places], 2)

    def _at(self, at: Places, of: Places) -> Exponents:
        return Exponents(self.sums(at), self.sums(of), self.front.detach())

    def gram(self, rows: Tensor, at: Places, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        seen = seen_mask(self.width, at, of, rows)
        n, m = ((self.width, len(p)) for p in (at, of))
        return channel_gram(rows.unflatten(1, n), columns.unflatten(1, m), self._at(at, of), seen, self.base)

    def spread(self, scores: Tensor, at: Places, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        seen = seen_mask(self.width, at, of, scores)
        columns = columns.unflatten(1, (self.width, len(of)))
        return channel_apply(scores, columns, self._at(at, of), seen, self.base).flatten(1, 2)

    def carried(self, rows: Tensor, at: Places) -> Tensor:
        """See `Filter`."""
        return rows * self.sums(at).flatten(1, 2).exp().to(self.dtype)

    met = carried

    def ended(self, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        return columns * (self.end - self.sums(of).flatten(1, 2)).exp().to(self.dtype)


class MomentumFilter:
    """`P_t = beta P_{t-1} + U_t`, `M_t = M_{t-1} + read P_t` between the gates (Titans, Eq. 33).

    Both filters are scalar, so their product is one kernel `G = L_gates diag(read) L_beta`: the exact
    recurrence of one token after the other, whatever the write looks at.  The state is `[M | P]`.
    `gates [X, C, S]`, `momentum [X, C]` as logarithms or as they are, `read [X, C]` (`None`: one), `write`
    the place where the memory takes up `P_t`.
    """

    def __init__(
        self,
        gates: Tensor,
        gates_log: bool,
        momentum: Tensor,
        momentum_log: bool,
        read: Tensor | None,
        write: Place,
    ) -> None:
        self.width, self.count, self.write = gates.shape[1], gates.shape[2], write
        plain = gates.exp() if gates_log else gates
        token = gates.sum(2) if gates_log else prod(gates.unbind(2), start=torch.ones_like(momentum))
        kept = decay_kernel(token) if gates_log else decay_kernel(None, token)
        self.slow = decay_kernel(momentum) if momentum_log else decay_kernel(None, momentum)
        self.above: list[Tensor | None] = [None, *accumulate(plain.unbind(2), mul)]
        later = plain[:, :, write.gates :]
        self.taken = [read, *(x if read is None else read * x for x in accumulate(later.unbind(2), mul))]
        taken = self.taken[-1]
        own = self.slow.after if taken is None else self.slow.after * taken.unsqueeze(-1)
        held = self.slow.carried if taken is None else self.slow.carried * taken
        self.end = kept.after @ own
        self.fading_end = torch.stack([kept.carried, (kept.after @ held.unsqueeze(-1)).squeeze(-1)], -1)
        below = torch.stack([torch.zeros_like(self.slow.total), self.slow.total], -1)
        self.total = torch.stack([self.fading_end[:, -1], below], 1).unsqueeze(-1)

    def faded_before(self) -> Tensor:
        """What is left of `[M | P]` in front of each token, `[X, C, 2]`."""
        first = torch.zeros_like(self.fading_end[:, :1])
        first[..., 0] = 1.0
        return torch.cat([first, self.fading_end[:, :-1]], 1)

    def rows(self, place: Place) -> tuple[Tensor, Tensor]:
        """What a place of each token sees of the tokens `[X, C, C]`, and of `[M | P]`, `[X, C, 2]`."""
        taken = place.step > self.write.step
        if taken and place.gates == self.count:
            return self.end, self.fading_end
        pad = torch.nn.functional.pad
        seen, fading = pad(self.end, (0, 0, 1, 0))[:, :-1], self.faded_before()
        above = self.above[place.gates]
        if above is not None:
            seen, fading = seen * above.unsqueeze(-1), fading * above.unsqueeze(-1)
        if not taken:
            return seen, fading
        own, held = self.slow.after, pad(self.slow.carried.unsqueeze(-1), (1, 0))
        part = self.taken[place.gates - self.write.gates]
        if part is not None:
            own, held = own * part.unsqueeze(-1), held * part.unsqueeze(-1)
        return seen + own, fading + held

    def _stacked(self, at: Places) -> tuple[Tensor, Tensor]:
        if len(at) == 1:
            return self.rows(at[0])
        rows = {place: self.rows(place) for place in at}
        seen, fading = (torch.stack([rows[p][i] for p in at], 2).flatten(1, 2) for i in (0, 1))
        return seen, fading

    def weights(self, at: Places, of: Places) -> Tensor:
        """`[X, C * n, C * m]`; all columns stand at the one write."""
        seen = self._stacked(at)[0]
        return seen if len(of) == 1 else seen.repeat_interleave(len(of), -1)

    def front(self, at: Places) -> Tensor:
        """What places see of the states in front of the chunk, `[X, C * n, 2]`."""
        return self._stacked(at)[1]

    def behind(self, of: Places) -> Tensor:
        """What pieces leave in the states behind the chunk, `[X, C * m, 2]`."""
        left = torch.stack([self.end[:, -1], self.slow.to_end], -1)
        return left if len(of) == 1 else left.repeat_interleave(len(of), 1)

    def gram(self, rows: Tensor, at: Places, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        return (rows @ columns.mT) * self.weights(at, of)

    def spread(self, scores: Tensor, at: Places, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        return (scores * self.weights(at, of)) @ columns

    def carried(self, rows: Tensor, at: Places) -> Tensor:
        """See `Filter`; meets `[M | P]`."""
        return (rows.unsqueeze(-2) * self.front(at).unsqueeze(-1)).flatten(-2)

    def met(self, answers: Tensor, at: Places) -> Tensor:
        """See `Filter`."""
        shown: Tensor = answers.unflatten(-1, (2, -1)) * self.front(at).unsqueeze(-1)
        return shown.sum(-2)

    def ended(self, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`; adds to `[M | P]`."""
        return (columns.unsqueeze(-2) * self.behind(of).unsqueeze(-1)).flatten(-2)
