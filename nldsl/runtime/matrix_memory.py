"""Any matrix memory that is written every token by rank-one pieces, chunk by chunk.

A token is a list of steps.  A gate scales the memory, `M <- M diag(a)`; a write adds pieces,
`M <- a M + sum_p (w_p - e_p (M s_p)) c_p^T`, all of which see the memory above the write.  Inside a chunk
the values really added, `u = w - e (M s)`, solve one unit lower triangular system, whatever the causal
filter between the tokens is: gates per head or per channel of the key, several writes per token, momentum.
With `side = "value"` the memory is written along its values, `M <- M + c (w - e (M^T s))^T` (Oja), with
gates per channel of the value.

Shapes: `B` batch, `T` tokens, `H` heads, `p` pieces alike, `A` size of the side along which is written, `D`
of the other one; `X` = chunks x batch x heads, `C` tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.catalog.widths import WIDTH, pass_width
from nldsl.runtime.across import Walk
from nldsl.runtime.chunks import stand_in
from nldsl.runtime.filtered_chunks import FilteredChunks, all_erase
from nldsl.runtime.matrix_chunks import Chunks, chunk_for, gates_of
from nldsl.runtime.matrix_tokens import (
    Momentum,
    Side,
    States,
    Step,
    Tokens,
    tokens_of,
    widened,
    with_axis,
    with_momentum,
)
from nldsl.runtime.quick_chunks import QuickChunks, quick


class MatrixMemory:
    """A memory after a sequence of tokens: reads at any place of every token, and the state behind them.

    In bfloat16 or float16 everything is computed in float32, the state stays so, and reads are cast back.
    `state [B, H, V, K]`; `start`: the state toward which gates pull and from which erases measure the
    distance; `mask [B, T]`: false tokens leave the state alone and read zero.  `held`: what the rules of its
    writes remember, `[B, H, V, K]` each (see `Mixing`); one `momentum` has a kernel of its own.

    >>> from nldsl.runtime.matrix_tokens import Piece, Write
    >>> k = torch.eye(2).view(1, 2, 1, 2)
    >>> memory = MatrixMemory(torch.zeros(1, 1, 2, 2), (Write((Piece(k, 3.0 * k),)),), mask=None)
    >>> memory.read(k, at=1).flatten().tolist(), memory.read(k, at=0).flatten().tolist()
    ([3.0, 0.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0])
    """

    def __init__(
        self,
        state: Tensor,
        steps: Sequence[Step],
        *,
        mask: Tensor | None,
        side: Side = "key",
        start: Tensor | None = None,
        momentum: Momentum | None = None,
        held: States = (),
        chunk: int | None = None,
    ) -> None:
        # State, gates, sums and inverses want more digits than the half-wide types have.
        state, steps = widened(state), widened(tuple(steps))
        start, momentum, held = widened(start), widened(momentum), widened(held)
        self.mask, self.side, self.start = mask, side, start
        self.before = state if start is None else state - start
        if side == "value":
            self.before = self.before.mT
            start = None if start is None else start.mT
        # In one pass pieces need no axis of pieces alike: each would be a view, and a node on the way back.
        steps = list(steps) if start is None else [with_axis(s, start) for s in steps]
        held = held if momentum is None else (momentum.state,)
        states = (self.before, *(x.mT if side == "value" else x for x in held))
        self.form: Tokens | Chunks | QuickChunks | Walk
        several = tokens_of(steps) > 1
        if several and not held and quick(steps, side):
            self.form = QuickChunks(self.before, steps, mask, chunk)
            return
        steps = [with_axis(s, None) for s in steps]
        if not several:
            self.form = Tokens(states, with_momentum(steps, momentum), mask, side)
        elif any(g.across for g in gates_of(steps)):
            self.form = self._across(steps, chunk or WIDTH)
        elif held and all_erase(steps, side) and not torch.compiler.is_compiling():
            width = chunk or pass_width(True, state.device.type)
            self.form = FilteredChunks(states, steps, momentum, mask, width)
        else:
            self.form = Chunks(states, steps, momentum, mask, side, chunk or WIDTH)

    def _across(self, steps: Sequence[Step], chunk: int) -> Chunks | Walk:
        """Chunks as wide as the gates of the call allow."""
        width = chunk_for(steps, self.mask, chunk)
        if not width:
            return Walk((self.before,), steps, self.mask, self.side)
        return Chunks((self.before,), steps, None, self.mask, self.side, width)

    @property
    def state(self) -> Tensor:
        """The state behind the last token, `[B, H, V, K]`."""
        last = self._last[0]
        return last if self.start is None else last + self.start

    @property
    def _last(self) -> States:
        return tuple(x.mT for x in self.form.last) if self.side == "value" else self.form.last

    @property
    def momentum(self) -> Tensor:
        """What the filter of a rule with momentum holds behind the last token."""
        return self._last[1]

    @property
    def held(self) -> States:
        """What its rules remember behind the last token, in the order in which it was given."""
        return self._last[1:]

    def read(self, q: Tensor, *, at: int) -> Tensor:
        """`M q` after the first `at` steps of each token; `q [B, T, m * H, K]` with m queries per copy."""
        return stand_in(self._read(q, at), self.mask)

    def _read(self, q: Tensor, at: int) -> Tensor:
        heads = self.before.shape[1]
        if isinstance(self.form, QuickChunks) and self.start is None and q.shape[2] == heads:
            return self.form.read_one(widened(q), at).to(q.dtype)
        grouped = widened(q).unflatten(2, (heads, -1))
        y = self.form.read(grouped, at)
        if self.start is not None:
            y = y + grouped @ self.start.mT
        return y.flatten(2, 3).to(q.dtype)

    def solve(self, q: Tensor, *, at: int, ridge: float, iterations: int) -> Tensor:
        """`iterations` steps of conjugate gradients from zero for `(M + ridge) x = q` (MesaNet)."""
        kind, q = q.dtype, widened(q)
        x, r, p = torch.zeros_like(q), q, q
        size = (r * r).sum(-1, keepdim=True)
        # Below the rounding of its type a residual is noise, whose quotients have no gradient: it stays.
        least = size.detach() * torch.finfo(size.dtype).eps ** 2
        for _ in range(iterations):
            image = self._read(p, at) + ridge * p
            done = size <= least
            rate = size / (p * image).sum(-1, keepdim=True).masked_fill(done, 1.0)
            rate = rate.masked_fill(done, 0.0)
            x, r = x + rate * p, r - rate * image
            left = (r * r).sum(-1, keepdim=True)
            p = r + left / size.masked_fill(done, 1.0) * p
            size = left
        return x.to(kind)
