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

from nldsl.native.lanes import Lanes
from nldsl.native.steps import ordinary
from nldsl.runtime.filtered import Given
from nldsl.runtime.filtered_chunks import FilteredChunks
from nldsl.runtime.matrix_memory import MatrixMemory
from nldsl.runtime.module import Module
from nldsl.runtime.triangular import unit_lower_inverse

AFTER = 4
"""How many chunks of one width torch computes before they are compiled: some come once and never again."""
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
    """What both ways make of a chunk; rows `f` that write and `q` that read, columns `k`."""

    f: Tensor
    q: Tensor
    k: Tensor
    shown: Tensor
    e: Tensor
    weights: Tensor
    """Of the states at the rows that write, with their rates."""


def _chunk(given: Given) -> _Chunk:
    k, e = given.k.flatten(2, 3), given.e.flatten(2, 3).unsqueeze(-1)
    f = k if given.f is None else given.f.flatten(2, 3)
    shown = given.seen
    if shown is None:
        # Rows that write see nothing of the last row that reads.
        shown = torch.cat([torch.zeros_like(given.read[:, :, :1]), given.read[:, :, :-1]], 2)
    return _Chunk(f, given.q, k, shown, e, given.fading * e)


def _each(weights: Tensor) -> tuple[Tensor, ...]:
    """Weights `[.., rows, n]` of every state, `[.., rows, 1]`."""
    found: tuple[Tensor, ...] = weights.split(1, -1)
    return found


def _mixed(states: Sequence[Tensor], weights: Tensor) -> list[Tensor]:
    """`sum_j weights_ij Z_j` for all i."""
    rows = range(len(states))
    return [_sum(z * weights[:, :, i, j, None, None] for j, z in enumerate(states)) for i in rows]


def _sum(parts: Any) -> Tensor:
    first, *rest = parts
    for x in rest:
        first = first + x
    found: Tensor = first
    return found


def _ahead(*tensors: Tensor | None) -> list[Tensor | None]:
    """Answers of a chunk, the states behind it, what it adds, its inverse."""
    given, old = Given(*tensors[:11]), _states(tensors[11])  # type: ignore[arg-type]
    at = _chunk(given)
    met = _sum(weight * (at.f @ z.mT) for weight, z in zip(_each(at.weights), old, strict=True))
    inverse = _inverse((at.f @ at.k.mT) * at.shown * at.e)
    added = inverse @ (given.w.flatten(2, 3) - met)
    carried = _sum(weight * (at.q @ z.mT) for weight, z in zip(_each(given.carried), old, strict=True))
    y = carried + ((at.q @ at.k.mT) * given.read) @ added
    mixed = zip(_mixed(old, given.total), _each(given.end), strict=True)
    new = torch.stack([z + added.mT @ (end * at.k) for z, end in mixed], 2)
    return [y, new, added, inverse]


def _states(whole: Tensor | None) -> tuple[Tensor, ...]:
    assert whole is not None
    return whole.unbind(2)


def _inverse(strict: Tensor) -> Tensor:
    found: Tensor = unit_lower_inverse(strict.flatten(0, 1)).unflatten(0, strict.shape[:2])
    return found


def _behind(*tensors: Tensor | None) -> list[Tensor | None]:
    """The gradient of the states in front of a chunk, then those of what was given."""
    given, old, flows = Given(*tensors[:11]), _states(tensors[11]), _states(tensors[15])  # type: ignore[arg-type]
    at, (added, inverse, dy) = _chunk(given), _all(tensors[12:15])
    gram_q, ends = at.q @ at.k.mT, _each(given.end)
    d_added = (gram_q * given.read).mT @ dy
    d_added = d_added + _sum(end * (at.k @ z.mT) for end, z in zip(ends, flows, strict=True))
    d_wanted = inverse.mT @ d_added
    d_old = []
    mixed = zip(_mixed(flows, given.total.mT), _each(at.weights), _each(given.carried), strict=True)
    for z, weight, carried in mixed:
        d_old.append(z - (d_wanted * weight).mT @ at.f + (dy * carried).mT @ at.q)
    met_f, met_q = [-(d_wanted @ z) for z in old], [dy @ z for z in old]
    left = [added @ z for z in flows]
    d_f, d_q, d_k = (
        _sum(weight * x for weight, x in zip(_each(weights), parts, strict=True))
        for weights, parts in ((at.weights, met_f), (given.carried, met_q), (given.end, left))
    )
    d_weights, d_carried, d_end = (
        torch.cat([(x * rows).sum(-1, keepdim=True) for x in parts], -1)
        for rows, parts in ((at.f, met_f), (at.q, met_q), (at.k, left))
    )
    d_total = torch.stack([torch.stack([(a * b).sum((-1, -2)) for b in old], -1) for a in flows], -2)
    # Products of rows and columns, and their kernels.
    from_f, from_q = -(d_wanted @ added.mT), dy @ added.mT
    of_rate = ((at.f @ at.k.mT) * from_f).tril(-1)
    d_e = (of_rate * at.shown).sum(-1) + (d_weights * given.fading).sum(-1)
    d_seen, d_read = of_rate * at.e, gram_q * from_q
    if given.seen is None:
        d_read = d_read + torch.cat([d_seen[:, :, 1:], torch.zeros_like(d_seen[:, :, :1])], 2)
    of_f, of_q = (from_f * at.shown * at.e).tril(-1), from_q * given.read
    d_f, d_q = d_f + of_f @ at.k, d_q + of_q @ at.k
    d_k = d_k + of_f.mT @ at.f + of_q.mT @ at.q
    own, pieces = given.f is None, given.k.shape[2:4]
    d_k, d_f, d_w = (x.unflatten(2, pieces) for x in (d_k + d_f if own else d_k, d_f, d_wanted))
    fading, seen = d_weights * at.e, None if given.seen is None else d_seen
    rows = [d_q, d_k, d_w, d_e.unflatten(2, pieces), None if own else d_f]
    return [torch.stack(d_old, 2), *rows, seen, d_read, fading, d_carried, d_end, d_total]
