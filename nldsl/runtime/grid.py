"""Tokens laid on the chunks of a clock, however they arrive.

A memory `every C tokens` counts the unmasked tokens of each sample since its reset; a chunk ends where
the count is a multiple of C.  A call may begin in the middle of a chunk, samples may stand at
different counts, and masked tokens do not tick.  The grid cuts sequences at the chunk ends of
every sample, so that a loop over its pieces does each piece in parallel.

Layouts by kind: sequence `[B, T, H, d]`, `[B, T, H]`, `[B, T, d]`, `[B, T]`; piece, heads in front of
tokens, `[B, H, W, d]` (headed), `[B, H, W]` (heads), `[B, W, d]` (vector), `[B, W]` (scalar).
"""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate, islice
from typing import Literal

import torch
from torch import Tensor

from nldsl.runtime.chunks import anything, stand_in

Kind = Literal["headed", "heads", "vector", "scalar", "token"]
_HEAD_MAJOR = ("headed", "heads")


NOT_EXPORTED = "NL0702"


class ChunkGrid:
    """Cut sequences at multiples of `chunk` of each sample's token count, and join the pieces again.

    `count [B]` tokens seen before this call, `mask [B, T]` or `None`, `tokens` = T.
    `valid[n]` is `None` if every slot of piece n holds a token, else `[B, W]`.  `full[n]` says whose
    chunk ends with piece n: `True`, `False` or `[B]`.  `count` becomes the count behind the call.
    There is at least one piece.  If all samples stand at the same count and nothing is masked,
    pieces are views; no piece is wider than its tokens, so a single token costs a single token.

    >>> grid = ChunkGrid(torch.tensor([3]), None, 6, 4)
    >>> pieces = grid.cut(torch.arange(6.0).view(1, 6), "scalar")
    >>> [piece.tolist() for piece in pieces], grid.full, grid.count.tolist()
    ([[[0.0]], [[1.0, 2.0, 3.0, 4.0]], [[5.0]]], [True, True, False], [9])
    >>> grid.join(pieces, "scalar").tolist()
    [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]
    """

    def __init__(self, count: Tensor, mask: Tensor | None, tokens: int, chunk: int) -> None:
        if torch.compiler.is_exporting():
            raise RuntimeError(
                f"{NOT_EXPORTED}: chunks and commits end where the counts in the state say, which no program "
                "of `torch.export` can ask; `nldsl export --to hf` writes readable source instead"
            )
        # Samples that are not there stand at the start, and none of their tokens is masked.
        if mask is not None and tokens and (bool(mask.all()) or not count.numel()):
            mask = None
        self._tokens = tokens
        self._mask = mask
        self._column: Tensor | None = None
        self._source: Tensor | None = None
        together = not count.numel() or bool((count == count[0]).all())
        self._alike: int | None = None
        if mask is None and tokens and together:
            self._alike = int(count[0]) if count.numel() else 0
            self._cut_together(self._alike, chunk)
        else:
            self._cut_apart(count, chunk)
        self._before = count
        self._ends: dict[int, list[bool | Tensor]] = {}
        self.count = count + sum(self._held)
        self.full = self.ends(chunk)

    def __len__(self) -> int:
        return len(self._widths)

    def _cut_together(self, count: int, chunk: int) -> None:
        first = min(chunk - count % chunk, self._tokens)
        rest = self._tokens - first
        self._widths = [first, *(min(chunk, rest - start) for start in range(0, rest, chunk))]
        self._held: list[int | Tensor] = list(self._widths)
        self.valid: list[Tensor | None] = [None] * len(self._widths)

    def _cut_apart(self, count: Tensor, chunk: int) -> None:
        """A column for every token (left-justified in its piece), a source for every column."""
        batch, device = count.shape[0], count.device
        mask = self._mask
        if mask is None:
            mask = torch.ones(batch, self._tokens, dtype=torch.bool, device=device)
        offset, length = count % chunk, mask.sum(1)
        stop = offset + length
        pieces = max(1, -(-int(stop.max()) // chunk)) if batch else 1
        edges = torch.arange(pieces + 1, device=device) * chunk
        inner = torch.maximum(offset[:, None], torch.minimum(edges, stop[:, None]))
        held = inner[:, 1:] - inner[:, :-1]
        widths = held.amax(0).clamp_min(1) if batch else held.new_ones(pieces)
        starts = widths.cumsum(0) - widths
        place = offset[:, None] + mask.cumsum(1) - 1
        piece = (place // chunk).clamp(0, pieces - 1)
        slot = place - torch.maximum(offset[:, None], piece * chunk)
        total = int(widths.sum())
        self._column = torch.where(mask, starts[piece] + slot, total)
        source = torch.zeros(batch, total + 1, dtype=torch.long, device=device)
        source.scatter_(1, self._column, torch.arange(self._tokens, device=device).expand(batch, -1))
        self._source = source[:, :total]
        self._mask = mask
        self._widths = [int(width) for width in widths]
        per_piece = held.unbind(1)
        self._held = list(per_piece)
        slots = [
            torch.arange(width, device=device) < n[:, None]
            for width, n in zip(self._widths, per_piece, strict=True)
        ]
        self.valid = [None if bool(valid.all()) else valid for valid in slots]

    @cached_property
    def unseen(self) -> bool | Tensor:
        """Whose first token has not been before this call."""
        return _whose(self._before == 0)

    @cached_property
    def begun(self) -> list[bool | Tensor]:
        """For every piece: whose first token stands in it or before it."""
        return [_whose(self.behind(n) > 0) for n in range(len(self))]

    def held(self, n: int) -> int | Tensor:
        """How many tokens piece `n` holds: a number, or `[B]`."""
        return self._held[n]

    def behind(self, n: int) -> Tensor:
        """The count of every sample behind piece `n`, `[B]`."""
        return self._before + sum(self._held[: n + 1])

    def ends(self, clock: int) -> list[bool | Tensor]:
        """For every piece: whose count is a multiple of `clock` (a multiple of the chunk) behind it."""
        if clock in self._ends:
            return self._ends[clock]
        found: list[bool | Tensor] = []
        count = self._before
        if self._tokens and not count.numel():
            # Nobody says where a chunk ends: all do, and what is learnt in them has a gradient, of zero.
            found = [True] * len(self._held)
            self._ends[clock] = found
            return found
        if self._alike is not None:
            stops = accumulate(self._widths, initial=self._alike)
            found = [stop % clock == 0 for stop in islice(stops, 1, None)]
            self._ends[clock] = found
            return found
        for held in self._held:
            count = count + held
            found.append(_whose((count % clock == 0) & (torch.as_tensor(held, device=count.device) > 0)))
        self._ends[clock] = found
        return found

    @property
    def plain(self) -> bool:
        """Whether pieces are views of the sequence, one behind the other."""
        return self._column is None

    @property
    def widths(self) -> list[int]:
        """How many slots every piece has."""
        return self._widths

    @cached_property
    def slots(self) -> Tensor | None:
        """Which slots of all pieces hold a token, `[B, L]`; `None` if all of them do."""
        if all(v is None for v in self.valid):
            return None
        given = next(v for v in self.valid if v is not None)
        parts = [
            given.new_ones(given.shape[0], width) if v is None else v
            for v, width in zip(self.valid, self._widths, strict=True)
        ]
        return torch.cat(parts, 1)

    def lay(self, x: Tensor) -> Tensor:
        """A sequence `[B, T, ...]` on the slots of all pieces, `[B, L, ...]`; zeros without a token."""
        return x if self._source is None else self._gather(x)

    def fill(self, x: Tensor) -> Tensor:
        """The same, where slots without a token repeat the first one (see `cut`)."""
        return x if self._source is None else self._taken(x)

    def cut(self, x: Tensor, kind: Kind) -> list[Tensor]:
        """The pieces of a sequence; slots without a token repeat the first one.

        They write nothing (`valid`), but steps compute with them: from a value of a token follow numbers
        that are finite wherever the token's are, and `1 / x` of a zero is not.
        """
        x, axis = self.fill(x), 1
        if kind in _HEAD_MAJOR:
            x, axis = x.transpose(1, 2).contiguous(), 2
        return list(x.split(self._widths, axis))

    def join(self, pieces: list[Tensor], kind: Kind) -> Tensor:
        """The sequence of the pieces, `[B, T, ...]`; `stand_in` at masked tokens."""
        return self.unlay(
            torch.cat(pieces, 2).transpose(1, 2) if kind in _HEAD_MAJOR else torch.cat(pieces, 1)
        )

    def last(self, x: Tensor) -> Tensor:
        """A sequence `[B, T, ...]` at the last token of every piece, `[B, N, ...]`."""
        laid, stops = self.fill(x), torch.tensor(self._widths, device=x.device).cumsum(0)
        if self.plain:
            return laid.index_select(1, stops - 1)
        held = torch.stack([torch.as_tensor(h, device=x.device) for h in self._held], -1)
        place = stops - torch.tensor(self._widths, device=x.device) + held.clamp_min(1) - 1
        return laid[torch.arange(x.shape[0], device=x.device).unsqueeze(1), place]

    def unlay(self, y: Tensor) -> Tensor:
        """From slots `[B, L, ...]` back to the sequence `[B, T, ...]`; `stand_in` at masked tokens."""
        if self._column is None or self._mask is None:
            return y
        rows = torch.arange(y.shape[0], device=y.device).unsqueeze(1)
        y = y[rows, self._column.clamp_max(y.shape[1] - 1)]
        return stand_in(y, self._mask)

    def _gather(self, x: Tensor) -> Tensor:
        assert self._source is not None
        valid = torch.cat(
            [
                x.new_ones(x.shape[0], width, dtype=torch.bool) if v is None else v
                for v, width in zip(self.valid, self._widths, strict=True)
            ],
            1,
        )
        return self._taken(x).masked_fill(~_like(valid, x), 0)

    def _taken(self, x: Tensor) -> Tensor:
        """A token's values in every slot, the first token's in those without one."""
        assert self._source is not None
        if self._tokens == 0:
            # No row is a token's: one that can be divided by.
            return anything(x.new_empty(x.shape[0], self._source.shape[1], *x.shape[2:]))
        rows = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
        return x[rows, self._source]


def _whose(flags: Tensor) -> bool | Tensor:
    """`[B]`, or one answer for all samples."""
    return bool(flags[0]) if flags.numel() and bool((flags == flags[0]).all()) else flags


def _like(flags: Tensor, x: Tensor) -> Tensor:
    return flags.view(*flags.shape, *(1,) * (x.dim() - flags.dim()))


def choose(which: bool | Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` for the samples named by `which` (`True`, `False` or `[B]`), `old` for the others.

    >>> choose(torch.tensor([True, False]), torch.ones(2), torch.zeros(2)).tolist()
    [1.0, 0.0]
    """
    if isinstance(which, bool):
        return new if which else old
    return torch.where(_like(which, new), new, old)


def of_firing(which: bool | Tensor, x: Tensor) -> Tensor:
    """`x [B, ...]` with what a sample named by `which` has in the place of the others.

    For gradients that a rule is given: what it makes of the others is not taken (`choose`) but has to be
    finite, and a rule that divides by the norm of a gradient has no slope where nothing was gathered.

    >>> of_firing(torch.tensor([False, True]), torch.tensor([0.0, 2.0])).tolist()
    [2.0, 2.0]
    """
    if isinstance(which, bool):
        return x
    one = x.detach().index_select(0, which.to(torch.uint8).argmax(0, keepdim=True))
    return torch.where(_like(which, x), x, one)


def of_lasting(gone: bool | Tensor, x: Tensor) -> Tensor:
    """`x [B, ...]`, through which the samples named by `gone` send no gradient back.

    For what a write is given at a token whose reset discards it: a slope that is infinite there, times the
    zero that comes back from the discarded result, is no zero.

    >>> x, gone = torch.zeros(2, requires_grad=True), torch.tensor([True, False])
    >>> torch.where(gone, 0.0, of_lasting(gone, x)).sum().backward()
    >>> x.grad.tolist()
    [0.0, 1.0]
    """
    if isinstance(gone, bool):
        return x
    return torch.where(_like(gone, x), x.detach(), x)


def fires(which: bool | Tensor) -> bool:
    """Whether `which` names any sample at all."""
    return which if isinstance(which, bool) else bool(which.any())
