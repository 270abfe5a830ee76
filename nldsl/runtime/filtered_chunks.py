"""A matrix memory with momentum in one pass over its chunks: one piece that erases at its own key, one read.

Every further read is the general form's.  Shapes as in `matrix_memory`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.runtime.chunks import tokens
from nldsl.runtime.filtered import Kernels, filtered_pass
from nldsl.runtime.filters import MomentumFilter
from nldsl.runtime.matrix_chunks import Chunks
from nldsl.runtime.matrix_tokens import Momentum, Side, Step, Write


def one_key(steps: Sequence[Step], side: Side) -> bool:
    """Whether the pass knows these steps."""
    pieces = [p for s in steps if isinstance(s, Write) for p in s.pieces]
    single = len(pieces) == 1 and pieces[0].along.shape[3] == 1
    return single and side == "key" and pieces[0].seen is pieces[0].along


class FilteredChunks(Chunks):
    """The pass for the first read, the general form for others."""

    def __init__(
        self, state: Tensor, steps: Sequence[Step], momentum: Momentum, mask: Tensor | None, chunk: int
    ) -> None:
        super().__init__(state, steps, momentum, mask, "key", chunk)
        self.number, write = next((i, s) for i, s in enumerate(steps) if isinstance(s, Write))
        (self.piece,) = write.pieces
        self.start = torch.stack([state, momentum.state], 2)
        self.passed: Tensor | None = None

    @property
    def last(self) -> Tensor:
        """The state behind the last token."""
        return super().last if self.passed is None else self.passed[:, :, 0]

    @property
    def last_momentum(self) -> Tensor:
        """What the filter holds behind the last token."""
        return super().last_momentum if self.passed is None else self.passed[:, :, 1]

    def read(self, q: Tensor, at: int) -> Tensor:
        """`[B, T, H, m, K]` to `[B, T, H, m, V]`."""
        if self.passed is not None or self.found is not None or q.shape[3] != 1:
            return super().read(q, at)
        assert isinstance(self.filter, MomentumFilter)
        lead = (self.layout.chunks, self.layout.batch * self.layout.heads)
        along, add, _, erase, _ = self.piece
        assert erase is not None
        cells = (q.squeeze(3), along.squeeze(3), add.squeeze(3), erase.squeeze(3))
        q, k, w, e = (self._cut(x).unflatten(0, lead) for x in cells)
        made = self._kernels(self.filter, at)
        kernels = Kernels(*(None if x is None else x.unflatten(0, lead) for x in made))  # type: ignore[arg-type]
        y, last = filtered_pass(q, k, w, e, kernels, self.start.flatten(0, 1))
        self.passed = last.view(self.start.shape)
        return tokens(y.flatten(0, 1), self.layout, None).unsqueeze(3)

    def _kernels(self, found: MomentumFilter, at: int) -> Kernels:
        write, place = self.places[self.number][0], self._at(at)
        read, carried = found.rows(place)
        # The usual case: writes look at the state behind the token before, reads at that behind their own.
        usual = not write.gates and place.gates == found.count and place.step > found.write.step
        seen, fading = (None, found.faded_before()) if usual else found.rows(write)
        end = torch.stack([found.end[:, -1], found.slow.to_end], -1)
        return Kernels(seen, read, fading, carried, end, torch.stack(found.totals, -1), found.mix.flatten())
