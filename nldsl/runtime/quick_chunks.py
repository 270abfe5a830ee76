"""A matrix memory in one pass over its chunks: one write of at most two pieces, at most one gate, one read.

The pass takes gates whose products stay in the range of the numbers around one anchor per chunk; the values
of the call decide how wide its chunks are (`chunk_widths.fitting`).  Everything else, every further read, and
all of `torch.compile`, which does not follow results written into views, is the general form's.
Shapes as in `matrix_memory`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.catalog.widths import WIDTH, pass_width
from nldsl.runtime.chunk_buffers import Reading
from nldsl.runtime.chunk_pass import Instead, chunk_pass
from nldsl.runtime.chunk_sums import Width
from nldsl.runtime.chunk_widths import fitting, widest
from nldsl.runtime.chunks import layout_of, mask_out
from nldsl.runtime.matrix_chunks import Chunks, gate_of, places_of
from nldsl.runtime.matrix_tokens import Gate, Side, States, Step, Write, with_axis


def quick(steps: Sequence[Step], side: Side) -> bool:
    """Whether the pass knows these steps, their values aside."""
    writes = [s for s in steps if isinstance(s, Write)]
    gates = [g for g in map(gate_of, steps) if g is not None]
    if side != "key" or len(writes) != 1 or len(gates) > 1 or isinstance(steps[-1], Gate):
        return False
    pieces = writes[0].pieces
    erasing = [p for p in pieces if p.seen is not None]
    single = all(p.along.dim() == 4 or p.along.shape[3] == 1 for p in pieces)
    few = len(erasing) <= 1 and len(pieces) - len(erasing) <= 1
    return single and few and all(g.log is not None and not g.across for g in gates)


class QuickChunks:
    """The pass where it applies, the general form where not; pieces with an axis of one alike, or without."""

    def __init__(self, state: Tensor, steps: Sequence[Step], mask: Tensor | None, chunk: int | None) -> None:
        self.given = state, steps, mask, chunk or WIDTH
        pieces = next(s for s in steps if isinstance(s, Write)).pieces
        width = chunk or pass_width(any(p.seen is not None for p in pieces), state.device.type)
        self.width: Width = layout_of(pieces[0].along, width).width
        self.found: Tensor | None = None
        self.chunks: Chunks | None = None
        self.places = places_of(steps)
        gate = next((g for g in map(gate_of, steps) if g is not None), None)
        self.sums: Tensor | None = None
        self.instead: Instead | None = None
        if torch.compiler.is_compiling():
            self.general()
        elif gate is not None and gate.log is not None:
            found = fitting(self._masked(gate.log), widest(self.width))
            if found is None:
                self.general()
            else:
                sums, self.width = found
                self.sums = sums if sums.dim() == 4 else sums.unsqueeze(-1)

    def general(self) -> Chunks:
        """The form that knows everything, made when first needed."""
        if self.chunks is None:
            state, steps, mask, chunk = self.given
            steps = [with_axis(s, None) for s in steps]
            self.chunks = Chunks((state,), steps, None, mask, "key", chunk)
        return self.chunks

    def _masked(self, x: Tensor) -> Tensor:
        """What tokens that do not count have is nothing."""
        return mask_out(x, self.given[2])

    @property
    def last(self) -> States:
        """The state behind the last token."""
        if self.found is None or self.chunks is not None:
            return self.general().last
        return (self.found,)

    def read(self, q: Tensor, at: int) -> Tensor:
        """`[B, T, H, m, K]` to `[B, T, H, m, V]`."""
        if self.chunks is not None or self.found is not None or q.shape[3] != 1:
            return self.general().read(q, at)
        return self.read_one(q.squeeze(3), at).unsqueeze(3)

    def read_one(self, q: Tensor, at: int) -> Tensor:
        """`[B, T, H, K]` to `[B, T, H, V]`."""
        if self.chunks is not None or self.found is not None:
            return self.general().read(q.unsqueeze(3), at).squeeze(3)
        y, self.found = self._pass(q, at)
        return y

    def _pass(self, q: Tensor, at: int) -> tuple[Tensor, Tensor]:
        state, steps, _, _ = self.given
        number, write = next((i, s) for i, s in enumerate(steps) if isinstance(s, Write))
        erase = plain = None
        for piece in write.pieces:
            # Where there is no axis of pieces alike there are no views, each a node on the way back.
            if piece.along.dim() == 5:
                piece = piece.alone()
            along, add = self._masked(piece.along), self._masked(piece.add)
            if piece.seen is None or piece.erase is None:
                plain = along, add
                continue
            seen = along if piece.seen is piece.along else self._masked(piece.seen)
            erase = seen, self._masked(piece.erase), along, add
        gates = self.places[at - 1][1].gates if at else 0
        reads = Reading(early=self.sums is not None and not gates, strict=at <= number)
        early = self.sums is not None and not self.places[number][0].gates
        q = self._masked(q)
        return chunk_pass(
            q,
            erase,
            plain,
            self.sums,
            state,
            reads=reads,
            early_erase=early,
            width=self.width,
            instead=self.instead,
        )
