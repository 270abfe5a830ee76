"""Rules at the commit: the gradients of a chunk are summed up, and the rule steps once where it ends.

With `G` what waits from earlier pieces of the chunk and `w` what every lesson counts for,

    G' = G + (dy * w)^T x,    m' = left m - kept G',    W' = keep W + back m' - reach G',

all numbers those of the token that commits; `G` is empty again behind it.  Where a chunk does not end only
`G` moves.  One product per weight, where a step per token takes two (see `held_gates`).

Shapes: `B` batch, `T` tokens, `H` heads (1 without), `N` chunks, `L'` lessons of all; one chunk: `Groups`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.held_gates import ALONE, Fading, Gate, Lessons, fading
from nldsl.runtime.held_parts import Groups, Kind


def committing(
    grid: ChunkGrid,
    clock: int,
    key: Tensor,
    *,
    lessons: Lessons = ALONE,
    scale: Gate = None,
    retain: Gate = None,
    rate: Gate = None,
    beta: Gate = None,
    slot_rate: Gate = None,
    read: Gate = None,
) -> Fading:
    """The numbers above for keys `[B, T, H, d]`: the gates of `Given`; `scale`: what the rule leaves of `W`.

    >>> grid = ChunkGrid(torch.tensor([0]), None, 4, 2)
    >>> found = committing(grid, 2, torch.ones(1, 4, 1, 1), retain=0.5, rate=torch.arange(4.0).view(1, 4, 1))
    >>> found.keep.flatten().tolist(), found.reach.flatten().tolist(), found.weight
    ([0.5, 0.5], [1.0, 3.0], None)
    """
    ends = grid.ends(clock)
    apart = any(isinstance(which, Tensor) for which in ends)

    def at(gate: Gate, idle: float) -> Tensor | None:
        """At the tokens that commit `[B, H, N]`; `idle` for samples whose chunk does not end."""
        if gate is None:
            return None
        spread = gate if isinstance(gate, Tensor) else key.new_full((1, 1, 1), gate)
        batch, tokens, heads = key.shape[:3]
        found = grid.last(spread.expand(batch, tokens, spread.shape[2])).transpose(1, 2)
        found = found.expand(batch, heads, len(ends))
        if not apart:
            return found
        flags = [torch.as_tensor(which, device=key.device).expand(batch) for which in ends]
        return torch.where(torch.stack(flags, -1).unsqueeze(1), found, idle)

    keep = at(retain, 1.0)
    if scale is not None:
        left = at(scale, 1.0)
        keep = left if keep is None or left is None else keep + left - 1.0
    # A momentum that is added as it is has no factor, but where some samples do not add it.
    back = None if isinstance(read, float) and read == 1.0 and not apart else at(read, 0.0)
    return Fading(keep, at(rate, 0.0), back, at(beta, 1.0), at(slot_rate, 0.0), _counted(grid, key, lessons))


def _counted(grid: ChunkGrid, key: Tensor, lessons: Lessons) -> Tensor | None:
    """What every lesson counts for; `None`: one."""
    if lessons.window == 1 and lessons.weight is None and grid.slots is None:
        return None
    return fading(grid, key, lessons=lessons, rate=1.0).reach


def commit_chunk(
    kind: Kind, given: Groups, pairs: Sequence[tuple[Tensor, Tensor]]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Weights and momenta behind a chunk, none where nothing steps, and the sums `G'`."""
    fade = given.fade
    gathered = [_gathered(g, pair, fade.weight) for g, pair in zip(given.gathered, pairs, strict=True)]
    if fade.reach is None and fade.kept is None:
        return [], [], gathered
    running, slots = [], []
    for i, (weight, total) in enumerate(zip(given.running, gathered, strict=True)):
        if fade.keep is None:
            new = weight.clone()
        else:
            new = torch.lerp(given.anchors[i], weight, fade.keep) if given.anchors else weight * fade.keep
        if kind.filtered:
            assert fade.left is not None
            assert fade.kept is not None
            slots.append((given.slots[i] * fade.left).addcmul_(total, fade.kept))
            new = new.add_(slots[i]) if fade.back is None else new.addcmul_(slots[i], fade.back)
        running.append(new if fade.reach is None else new.addcmul_(total, fade.reach))
    return running, slots, gathered


def _gathered(waiting: Tensor | None, pair: tuple[Tensor, Tensor], weight: Tensor | None) -> Tensor:
    """`G + (dy * w)^T x`."""
    x, dy = pair
    if weight is not None:
        x, dy = (x * weight, dy) if x.shape[-1] <= dy.shape[-1] else (x, dy * weight)
    return torch.bmm(dy.mT, x) if waiting is None else torch.baddbmm(waiting, dy.mT, x)
