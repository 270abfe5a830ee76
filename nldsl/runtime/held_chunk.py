"""One chunk of a memory whose gradients look at the last commit: from tensors to tensors (see `held_pass`).

Shapes: `X` samples x heads, `C` tokens; see `Groups`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.held_commit import commit_chunk
from nldsl.runtime.held_gates import Fading
from nldsl.runtime.held_live import LiveBias, LiveWeight, live_weights
from nldsl.runtime.held_parts import Groups, Kept, Kind, sides


class Passed(NamedTuple):
    """Answers `[X, C, d]`, weights and momenta behind the chunk (none where they stay), what the way back
    needs, and gathered gradients.
    """

    answers: list[Tensor]
    running: list[Tensor]
    slots: list[Tensor]
    kept: Kept
    gathered: list[Tensor]


def pass_chunk(kind: Kind, given: Groups) -> Passed:
    """A chunk's reads and writes."""
    answers, kept = look(kind, given)
    pairs = kind.pairs(kept.learnt)
    if kind.commits:
        running, slots, gathered = commit_chunk(kind, given, pairs)
        kept = kept._replace(gathered=gathered if running and kind.sums else [])
        return Passed(answers, running, slots, kept, gathered)
    moved = [
        _move(
            w,
            given.slots[i] if kind.filtered else None,
            pairs[i],
            given.fade,
            given.anchors[i] if given.anchors else None,
        )
        for i, w in enumerate(given.running)
    ]
    slots = [slot for _, slot in moved if slot is not None]
    return Passed(answers, [new for new, _ in moved], slots, kept, [])


def look(kind: Kind, given: Groups) -> tuple[list[Tensor], Kept]:
    """Everything but the weights behind the chunk."""
    learn = kind.functions[1]
    learnt = list(learn.forward(*given.inputs, *given.committed, *given.shared))
    kept = Kept([], [], learnt[learn.outputs :], learnt[: learn.outputs], [])
    pairs = kind.pairs(kept.learnt)
    return [_answer(kind, given, i, pairs, kept) for i in range(kind.queries)], kept


def _answer(kind: Kind, given: Groups, i: int, pairs: Sequence[tuple[Tensor, Tensor]], kept: Kept) -> Tensor:
    """What a query is answered; what its way back needs is kept."""
    read, q = kind.functions[0], given.queries[i]
    if not kind.live:
        answer, *more = read.forward(q, *given.committed, *given.shared)
        kept.live.append([])
    else:
        weights = live_weights(kind, given, given.ways[kind.live[i]], pairs)
        seen = [w.rows() if isinstance(w, LiveBias) else w for w in weights]
        answer, *more = read.forward(q, *seen, *given.shared)
        kept.live.append([w.scores if isinstance(w, LiveWeight) else w for w in seen])
    kept.reads.append(more)
    return answer


def _move(
    weight: Tensor, slot: Tensor | None, pair: tuple[Tensor, Tensor], fade: Fading, anchor: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """A weight and its momentum behind a chunk."""
    narrow, wide, _ = sides(pair[0], pair[1], weight)
    turned = narrow is not pair[0]
    assert fade.reach is not None

    def stepped(matrix: Tensor, factors: Tensor) -> Tensor:
        scaled = narrow * factors
        left, x = (scaled, wide) if turned else (wide, scaled)
        return matrix.baddbmm_(left.mT, x)

    if fade.keep is None:
        new = weight.clone()
    else:
        new = weight * fade.keep if anchor is None else torch.lerp(anchor, weight, fade.keep)
    if slot is None or fade.kept is None or fade.back is None or fade.left is None:
        return stepped(new, fade.reach), None
    new.addcmul_(slot, fade.back)
    return stepped(new, fade.reach), stepped(slot * fade.left, fade.kept)
