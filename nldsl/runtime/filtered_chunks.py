"""A matrix memory whose rule remembers gradients, in one pass: one piece erases at its own key, one read.

Every further read is the general form's.  Shapes as in `matrix_memory`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.runtime.chunks import mask_out, padded
from nldsl.runtime.filtered import Kernels, Rows, filtered_pass
from nldsl.runtime.filters import MomentumFilter
from nldsl.runtime.matrix_chunks import Chunks, has_channels
from nldsl.runtime.matrix_tokens import Momentum, Side, States, Step, Write
from nldsl.runtime.state_filter import StateFilter


def one_key(steps: Sequence[Step], side: Side) -> bool:
    """Whether the pass knows these steps."""
    writes = [s for s in steps if isinstance(s, Write)]
    pieces = [p for w in writes for p in w.pieces]
    single = len(pieces) == 1 and pieces[0].along.shape[3] == 1
    if not single or side != "key" or pieces[0].seen is not pieces[0].along:
        return False
    looks = next(w for w in writes if w.pieces).mixed(1).of == (0,)
    return looks and not has_channels(steps)


class FilteredChunks(Chunks):
    """The pass for the first read, the general form for others."""

    def __init__(
        self,
        states: States,
        steps: Sequence[Step],
        momentum: Momentum | None,
        mask: Tensor | None,
        chunk: int,
    ) -> None:
        super().__init__(states, steps, momentum, mask, "key", chunk)
        ((self.number, self.piece),) = (
            (i, p) for i, s in enumerate(steps) if isinstance(s, Write) for p in s.pieces
        )
        self.start = torch.stack(states)
        self.passed: Tensor | None = None

    @property
    def last(self) -> States:
        """The states behind the last token."""
        return super().last if self.passed is None else self.passed.unbind(0)

    def read(self, q: Tensor, at: int) -> Tensor:
        """`[B, T, H, m, K]` to `[B, T, H, m, V]`."""
        if self.passed is not None or self.found is not None or q.shape[3] != 1:
            return super().read(q, at)
        assert isinstance(self.filter, MomentumFilter | StateFilter)
        lead = (self.layout.chunks, self.layout.batch * self.layout.heads)
        along, add, _, erase, _ = self.piece
        assert erase is not None
        missing = self.layout.chunks * self.layout.width - self.layout.tokens
        given = (padded(mask_out(x, self.mask), missing) for x in (q.squeeze(3), along, add, erase))
        made = self._kernels(self.filter, at)
        kernels = Kernels(*(None if x is None else x.unflatten(0, lead) for x in made))  # type: ignore[arg-type]
        y, self.passed = filtered_pass(Rows(*given), kernels, self.start)
        return y[:, : self.layout.tokens].unsqueeze(3)

    def _kernels(self, found: MomentumFilter | StateFilter, at: int) -> Kernels:
        (above, below), place = self.places[self.number], self._at(at)
        read, carried = found.weights((place,), (below,)), found.front((place,))
        end, total = found.behind((below,)), found.total.squeeze(-1)
        # The usual case: writes look at the state behind the token before, reads at that behind their own.
        if self.number == 0 and at == len(self.steps):
            first = torch.zeros_like(carried[:, :1])
            first[..., 0] = 1.0
            fading = torch.cat([first, carried[:, :-1]], 1)
            return Kernels(None, read, fading, carried, end, total)
        return Kernels(found.weights((above,), (below,)), read, found.front((above,)), carried, end, total)
