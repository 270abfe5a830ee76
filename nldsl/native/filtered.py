"""Matrix memories whose rules remember gradients (see `runtime.filtered`) with every chunk in C.

A chunk is two functions, the way forward and the way back, that C computes one head of one sample at a time.

Shapes: as in `runtime.filtered`, tensors of a chunk with `[B, H]` in front: `q [B, H, C, K]`, pieces
`[B, H, C, p, ..]`, kernels `[B, H, rows, ..]`, states `[B, H, n, V, K]`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from inspect import unwrap
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.native.lanes import AFTER, Lanes
from nldsl.native.steps import ordinary
from nldsl.runtime.filtered import Given
from nldsl.runtime.filtered_chunks import FilteredChunks
from nldsl.runtime.matrix_memory import MatrixMemory
from nldsl.runtime.module import Module
from nldsl.runtime.triangular import unit_lower_inverse

MEMORY = "MatrixMemory"
"""The name under which the files of emitted modules have what they call."""


def filters_of(block: type[Module]) -> bool:
    """Whether memories of a class of blocks are matrices whose rules remember something."""
    code = unwrap(block.forward).__code__
    words = {word for x in code.co_consts if isinstance(x, tuple) for word in x}
    return MEMORY in code.co_names and bool(words & {"momentum", "held"})


def quicken_filters(block: type[Module], after: int | None = None) -> NativeFilters:
    """Let such memories of a class of blocks, and of all of its file, run in lanes; `after` for `AFTER`."""
    names = unwrap(block.forward).__globals__
    if not isinstance(names[MEMORY], _Memories):
        names[MEMORY] = _Memories(NativeFilters())
    found: NativeFilters = names[MEMORY].filters
    found.after = after
    return found


class _Memories:
    """Makes matrix memories whose passes are in lanes."""

    def __init__(self, filters: NativeFilters) -> None:
        self.filters = filters

    def __call__(self, *given: Any, **options: Any) -> MatrixMemory:
        """See `MatrixMemory`."""
        memory = MatrixMemory(*given, **options)
        if isinstance(memory.form, FilteredChunks):
            memory.form.instead = self.filters
        return memory


def in_lanes(filters: NativeFilters) -> Callable[..., MatrixMemory]:
    """`MatrixMemory` with such passes."""
    return _Memories(filters)


class NativeFilters:
    """Passes over the chunks in lanes (see `runtime.filtered.Instead`)."""

    def __init__(self, after: int | None = None) -> None:
        self.ahead, self.behind = Lanes(_ahead, 2), Lanes(_behind, 2)
        self.after = after
        self.seen: Counter[int] = Counter()

    @property
    def reasons(self) -> dict[str, None]:
        """Why torch computes what it still does, each once."""
        return dict.fromkeys([*self.ahead.reasons.values(), *self.behind.reasons.values()])

    @property
    def count(self) -> int:
        """How many functions have been compiled so far."""
        return self.ahead.compiled + self.behind.compiled

    def takes(self, given: Given, state: Tensor) -> bool:
        """See `Instead`: ordinary numbers, in chunks of a width that has come up often enough."""
        known = [x for x in (*given, state) if x is not None]
        if self.reasons or torch.compiler.is_compiling() or not ordinary(known):
            return False
        count, width = given.read.shape[0], given.read.shape[2]
        if self.seen[width] < (AFTER if self.after is None else self.after):
            self.seen[width] += count
            return False
        return True

    def forward(self, given: Given, state: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """See `Instead`: states in front of a chunk, what it adds and its inverse are kept."""
        y, kept = given.q.new_empty(*given.q.shape[:3], state.shape[-2]), []
        now = state.movedim(0, 2).contiguous()
        for one, answer in zip(_chunks(given), _tokens(y, len(given.read)), strict=True):
            found, new, added, inverse = _all(self.ahead(*one, now))
            answer.copy_(found)
            kept += [now, added, inverse]
            now = new
        return y, now.movedim(2, 0), kept

    def backward(
        self, given: Given, kept: Sequence[Tensor], dy: Tensor, d_state: Tensor
    ) -> tuple[Given, Tensor]:
        """See `Instead`."""
        made = Given(*(None if x is None else _room(x) for x in given))  # type: ignore[arg-type]
        flow, count = d_state.movedim(0, 2).contiguous(), len(given.read)
        rows = zip(_chunks(given), _tokens(dy.contiguous(), count), _chunks(made), strict=True)
        for n, (one, answer, places) in reversed(list(enumerate(rows))):
            flow, *found = self.behind(*one, *kept[3 * n : 3 * n + 3], answer, flow)  # type: ignore[assignment]
            for place, flows in zip(places, found, strict=True):
                if place is not None and flows is not None:
                    place.copy_(flows)
        return made, flow.movedim(2, 0)


def _room(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _all(found: Sequence[Tensor | None]) -> list[Tensor]:
    return [x for x in found if x is not None]


def _tokens(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """Views `[B, H, C, ..]` of the chunks of `x [B, T, H, ..]`."""
    found: tuple[Tensor, ...] = x.unflatten(1, (count, -1)).transpose(2, 3).unbind(1)
    return found


def _chunks(given: Given) -> list[Given]:
    """Views of every chunk, `[B, H, ..]` in front."""
    count, lanes = len(given.read), (given.q.shape[0], given.q.shape[2])
    columns: list[Sequence[Tensor | None]] = []
    for i, x in enumerate(given):
        if x is None:
            columns.append([None] * count)
        else:
            columns.append(_tokens(x, count) if i < 5 else x.unflatten(1, lanes).unbind(0))
    return [Given(*row) for row in zip(*columns, strict=True)]


class _Chunk(NamedTuple):
    """What both ways make of a chunk, lanes joined; `rows` that write, then those that read."""

    given: Given
    rows: Tensor
    k: Tensor
    gram: Tensor
    shown: Tensor
    e: Tensor
    weights: Tensor
    """Of the states at all rows, with the rates of those that write."""


def _chunk(tensors: Sequence[Tensor | None]) -> _Chunk:
    joined = [None if x is None else x.flatten(0, 1) for x in tensors]
    given = Given(*joined)  # type: ignore[arg-type]
    k, e = given.k.flatten(1, 2), given.e.flatten(1, 2).unsqueeze(-1)
    rows = torch.cat([k if given.f is None else given.f.flatten(1, 2), given.q], 1)
    k = rows[:, : k.shape[1]] if given.f is None else k
    shown = given.seen
    if shown is None:
        # Rows that write see nothing of the last row that reads.
        shown = torch.cat([torch.zeros_like(given.read[:, :1]), given.read[:, :-1]], 1)
    weights = torch.cat([given.fading * e, given.carried], 1)
    return _Chunk(given, rows, k, torch.bmm(rows, k.mT), shown, e, weights)


def _weighed(parts: Sequence[Tensor], weights: Tensor) -> Tensor:
    """`sum_i weights_i parts_i` for weights `[X, rows, n]` of every state."""
    pairs = zip(parts, weights.split(1, -1), strict=True)
    first, *others = (x * weight for x, weight in pairs)
    for x in others:
        first = first + x
    found: Tensor = first
    return found


def _mixed(states: Sequence[Tensor], weights: Tensor) -> list[Tensor]:
    """`sum_j weights_ij Z_j` for all i."""
    flat = weights.flatten(1)[..., None].split(len(states), 1)
    return [_weighed(states, row.mT) for row in flat]


def _ahead(*tensors: Tensor | None) -> list[Tensor | None]:
    """Answers of a chunk, the states behind it, what it adds, its inverse."""
    at, states = _chunk(tensors[:11]), tensors[11]
    assert states is not None
    given, lead, size, count = at.given, states.shape[:2], at.k.shape[1], states.shape[2]
    whole = states.flatten(0, 1)
    met = torch.bmm(at.rows, whole.flatten(1, 2).mT).unflatten(2, (count, -1)).unbind(2)
    seen = _weighed(met, at.weights)
    inverse = unit_lower_inverse(at.gram[:, :size] * at.shown * at.e)
    added = torch.bmm(inverse, given.w.flatten(1, 2) - seen[:, :size])
    y = torch.baddbmm(seen[:, size:], at.gram[:, size:] * given.read, added)
    mixed = zip(_mixed(whole.unbind(1), given.total), given.end.split(1, -1), strict=True)
    new = torch.stack([torch.baddbmm(z, added.mT, end * at.k) for z, end in mixed], 1)
    return [x.unflatten(0, lead) for x in (y, new, added, inverse)]


def _behind(*tensors: Tensor | None) -> list[Tensor | None]:
    """The gradient of the states in front of a chunk, then those of what was given."""
    at, lead = _chunk(tensors[:11]), _all(tensors[11:12])[0].shape[:2]
    states, added, inverse, dy, flow = (x.flatten(0, 1) for x in _all(tensors[11:]))
    given, size, count = at.given, at.k.shape[1], states.shape[1]
    old, flows = states.unbind(1), flow.unbind(1)
    later = torch.bmm(at.k, flow.flatten(1, 2).mT).unflatten(2, (count, -1)).unbind(2)
    reads = (at.gram[:, size:] * given.read).mT
    d_wanted = torch.bmm(inverse.mT, torch.baddbmm(_weighed(later, given.end), reads, dy))
    d_met = torch.cat([-d_wanted, dy], 1)
    mixed = zip(_mixed(flows, given.total.mT), at.weights.split(1, -1), strict=True)
    d_old = torch.stack([torch.baddbmm(z, (d_met * weight).mT, at.rows) for z, weight in mixed], 1)
    d_total = torch.stack([torch.stack([(a * b).sum((-1, -2)) for b in old], -1) for a in flows], -2)
    spread, left = [torch.bmm(d_met, z) for z in old], [torch.bmm(added, z) for z in flows]
    d_weights, d_end = (
        torch.stack([(x * rows).sum(-1) for x in parts], -1)
        for rows, parts in ((at.rows, spread), (at.k, left))
    )
    d_gram = torch.bmm(d_met, added.mT)
    of_rate = (at.gram[:, :size] * d_gram[:, :size]).tril(-1)
    d_e = (of_rate * at.shown).sum(-1) + (d_weights[:, :size] * given.fading).sum(-1)
    d_shown, d_read = of_rate * at.e, at.gram[:, size:] * d_gram[:, size:]
    if given.seen is None:
        d_read = d_read + torch.cat([d_shown[:, 1:], torch.zeros_like(d_shown[:, :1])], 1)
    scores = torch.cat([(d_gram[:, :size] * at.shown * at.e).tril(-1), d_gram[:, size:] * given.read], 1)
    d_rows = torch.baddbmm(_weighed(spread, at.weights), scores, at.k)
    d_k = torch.baddbmm(_weighed(left, given.end), scores.mT, at.rows)
    d_f, d_q = d_rows[:, :size], d_rows[:, size:]
    own, pieces = given.f is None, given.k.shape[1:3]
    d_k, d_f, d_w, d_e = (x.unflatten(1, pieces) for x in (d_k + d_f if own else d_k, d_f, d_wanted, d_e))
    tokens = [d_old, d_q, d_k, d_w, d_e, None if own else d_f]
    kernels = [None if given.seen is None else d_shown, d_read, d_weights[:, :size] * at.e]
    found = [*tokens, *kernels, d_weights[:, size:], d_end, d_total]
    return [None if x is None else x.unflatten(0, lead) for x in found]
