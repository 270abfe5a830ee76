"""A matrix memory whose rule remembers gradients, in one pass: all its pieces erase, one read.

Every further read is the general form's.  Shapes as in `matrix_memory`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.runtime.chunks import mask_out, padded
from nldsl.runtime.filter_kernels import KernelForm, kernels_of
from nldsl.runtime.filtered import Instead, Kernels, Rows, filtered_pass
from nldsl.runtime.filters import MomentumFilter, Place, Places
from nldsl.runtime.matrix_chunks import Chunks, gates_of, has_channels
from nldsl.runtime.matrix_tokens import Momentum, Side, States, Step, Write
from nldsl.runtime.state_filter import StateFilter


def all_erase(steps: Sequence[Step], side: Side) -> bool:
    """Whether the pass knows these steps."""
    writes = [s for s in steps if isinstance(s, Write)]
    pieces = [p for w in writes for p in w.pieces]
    if side != "key" or has_channels(steps) or any(g.across for g in gates_of(steps)):
        return False
    looks = all(set(w.mixed(1).of) <= {0} for w in writes)
    return looks and all(p.seen is not None and p.along.shape[3] == 1 for p in pieces)


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
        self.start = torch.stack(states)
        self.instead: Instead | None = None
        self.passed: Tensor | None = None

    @property
    def last(self) -> States:
        """The states behind the last token."""
        return super().last if self.passed is None else self.passed.unbind(0)

    def read(self, q: Tensor, at: int) -> Tensor:
        """`[B, T, H, m, K]` to `[B, T, H, m, V]`."""
        if self.passed is not None or self.found is not None or q.shape[3] != 1:
            return super().read(q, at)
        pieces = self.standing()
        above, below = tuple(a for _, a, _ in pieces), tuple(b for _, _, b in pieces)
        late = len(pieces) == 1 and not above[0].step and at == len(self.steps)
        places, rows = (above, below, self._at(at), late), self._rows(q.squeeze(3))
        found = self._from_gates(rows, places)
        if found is None:
            assert isinstance(self.filter, MomentumFilter | StateFilter)
            kernels = Kernels(*self._laned(kernels_of(self.filter, *places)))  # type: ignore[arg-type]
            found = filtered_pass(rows, kernels, self.start, self.instead)
        y, self.passed = found
        return y[:, : self.layout.tokens].unsqueeze(3)

    def _from_gates(
        self, rows: Rows, places: tuple[Places, Places, Place, bool]
    ) -> tuple[Tensor, Tensor] | None:
        """The pass by what makes its kernels too, if that is there."""
        if self.instead is None or self.momentum is None:
            return None
        form, gates = self.momentum_gates(self.momentum)
        return self.instead.passed(rows, self._laned(gates), KernelForm(form, *places), self.start)

    def _laned(self, found: Sequence[Tensor | None]) -> list[Tensor | None]:
        lead = (self.layout.chunks, self.layout.batch * self.layout.heads)
        return [None if x is None else x.unflatten(0, lead) for x in found]

    def _rows(self, q: Tensor) -> Rows:
        """What stands in rows and columns, the pieces of a token side by side."""
        pieces = [piece for piece, _, _ in self.standing()]
        own = all(p.seen is p.along for p in pieces)
        kinds = [(p.along, p.add, p.erase, None if own else p.seen) for p in pieces]
        missing = self.layout.chunks * self.layout.width - self.layout.tokens

        def whole(parts: Sequence[Tensor | None]) -> Tensor | None:
            given = [x for x in parts if x is not None]
            joined = given[0] if len(given) == 1 else torch.cat(given, 3) if given else None
            return None if joined is None else padded(mask_out(joined, self.mask), missing)

        return Rows(whole([q]), *map(whole, zip(*kinds, strict=True)))  # type: ignore[arg-type]
