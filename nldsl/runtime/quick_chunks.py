"""A matrix memory in one pass over its chunks: one write of at most two pieces, at most one gate, one read.

The pass takes gates whose products stay in the range of the numbers around one anchor per chunk; the values
of the call decide (`chunk_pass.fits`).  Everything else, and every further read, is the general form's.
Shapes as in `matrix_memory`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.catalog.widths import WIDTH, pass_width
from nldsl.runtime.chunk_pass import Pass, Reading, chunk_pass, fits
from nldsl.runtime.chunks import cut, layout_of, mask_out, tokens
from nldsl.runtime.matrix_chunks import Chunks, gate_of, places_of
from nldsl.runtime.matrix_tokens import Gate, Side, States, Step, Write


def quick(steps: Sequence[Step], side: Side) -> bool:
    """Whether the pass knows these steps, their values aside."""
    writes = [s for s in steps if isinstance(s, Write)]
    gates = [g for g in map(gate_of, steps) if g is not None]
    if side != "key" or len(writes) != 1 or len(gates) > 1 or isinstance(steps[-1], Gate):
        return False
    pieces = writes[0].pieces
    erasing = [p for p in pieces if p.seen is not None]
    single = all(p.along.shape[3] == 1 for p in pieces)
    few = len(erasing) <= 1 and len(pieces) - len(erasing) <= 1
    return single and few and all(g.log is not None for g in gates)


class QuickChunks:
    """The pass where it applies, the general form where not."""

    def __init__(self, state: Tensor, steps: Sequence[Step], mask: Tensor | None, chunk: int | None) -> None:
        self.given = state, steps, mask, chunk or WIDTH
        pieces = next(s for s in steps if isinstance(s, Write)).pieces
        width = chunk or pass_width(any(p.seen is not None for p in pieces), state.device.type)
        self.layout = layout_of(pieces[0].along, width)
        self.made: Pass | None = None
        self.chunks: Chunks | None = None
        self.places = places_of(steps)
        gate = next((g for s in steps if (g := gate_of(s)) is not None), None)
        self.sums = None if gate is None or gate.log is None else self._sums(gate.log)
        if self.sums is not None and not fits(self.sums):
            self.general()

    def general(self) -> Chunks:
        """The form that knows everything, made when first needed."""
        if self.chunks is None:
            state, steps, mask, chunk = self.given
            self.chunks = Chunks((state,), steps, None, mask, "key", chunk)
        return self.chunks

    def _cut(self, x: Tensor) -> Tensor:
        """`[B, T, H, ...]` as `[N, X, C, ...]`."""
        lead = (self.layout.chunks, self.layout.batch * self.layout.heads)
        cells: Tensor = cut(mask_out(x, self.given[2]), self.layout).unflatten(0, lead)
        return cells

    def _sums(self, log: Tensor) -> Tensor:
        """Running sums inside each chunk, `[N, X, C, K]` or `[N, X, C, 1]`."""
        cells = self._cut(log)
        if cells.dim() == 3:
            return cells.double().cumsum(-1).to(cells.dtype).unsqueeze(-1)
        width = cells.shape[2]
        return torch.ones(width, width, dtype=cells.dtype, device=cells.device).tril_() @ cells

    @property
    def last(self) -> States:
        """The state behind the last token."""
        if self.made is None or self.chunks is not None:
            return self.general().last
        return (self.made.last.view_as(self.given[0]),)

    def read(self, q: Tensor, at: int) -> Tensor:
        """`[B, T, H, m, K]` to `[B, T, H, m, V]`."""
        if self.chunks is not None or self.made is not None or q.shape[3] != 1:
            return self.general().read(q, at)
        self.made = self._pass(q.squeeze(3), at)
        y = tokens(self.made.y.flatten(0, 1), self.layout, None)
        return y.unsqueeze(3)

    def _pass(self, q: Tensor, at: int) -> Pass:
        state, steps, _, _ = self.given
        number, write = next((i, s) for i, s in enumerate(steps) if isinstance(s, Write))
        erase = plain = None
        for piece in write.pieces:
            along, add = self._cut(piece.along.squeeze(3)), self._cut(piece.add.squeeze(3))
            if piece.seen is None or piece.erase is None:
                plain = along, add
                continue
            seen = along if piece.seen is piece.along else self._cut(piece.seen.squeeze(3))
            erase = seen, self._cut(piece.erase.squeeze(3)), along, add
        gates = self.places[at - 1][1].gates if at else 0
        reads = Reading(early=self.sums is not None and not gates, strict=at <= number)
        early = self.sums is not None and not self.places[number][0].gates
        return chunk_pass(
            self._cut(q), erase, plain, self.sums, state.flatten(0, 1), reads=reads, early_erase=early
        )
