"""What is left of every step behind a chunk, against the recurrence itself."""

from __future__ import annotations

import torch
from torch import Tensor

from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.held_commit import committing
from nldsl.runtime.held_gates import Following, Lessons, fading, following, sums_behind


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_sums_behind_has_its_gradient() -> None:
    added, gates = drawn(2, 5).requires_grad_(), drawn(3, 2, 5)[0].clone()
    gates[0, 2] = 0.0
    assert torch.autograd.gradcheck(sums_behind, (added, gates.requires_grad_()))


def test_fading_is_the_recurrence() -> None:
    """Gates of any sign and zero, a first and a last chunk that are short, masked tokens."""
    mask = torch.rand(2, 9, generator=torch.Generator().manual_seed(5)) > 0.2
    for given in (None, mask):
        grid = ChunkGrid(torch.tensor([1, 1 if given is None else 2]), given, 9, 4)
        gates = {
            n: drawn(2, 9, 3 + i)[..., :3] for i, n in enumerate(("retain", "rate", "beta", "slot_rate"))
        }
        gates["retain"][0, 3] = 0.0
        read, key = drawn(2, 9, 1), drawn(2, 9, 3, 1)
        found = fading(grid, key, **gates, read=read)
        ways = [following(grid, key, **gates, read=read, before=strict) for strict in (False, True)]
        g = grid.lay(drawn(2, 9, 3))
        at = {n: grid.lay(x.expand(2, 9, 3)) for n, x in (*gates.items(), ("read", read))}
        live = torch.ones(2, g.shape[1], dtype=torch.bool) if grid.slots is None else grid.slots
        start = 0
        for n, width in enumerate(grid.widths):
            stop = start + width
            D, m = drawn(2, 3), drawn(4, 2, 3)[1]
            first, steps = (D, m), g[:, start:stop].transpose(1, 2)
            for t in range(start, stop):
                alive = live[:, t, None]
                torch.testing.assert_close(_at(ways[1], t, first, steps)[live[:, t]], D[live[:, t]])
                m_new = at["beta"][:, t] * m - at["slot_rate"][:, t] * g[:, t]
                D_new = at["retain"][:, t] * D + at["read"][:, t] * m_new - at["rate"][:, t] * g[:, t]
                D, m = torch.where(alive, D_new, D), torch.where(alive, m_new, m)
                torch.testing.assert_close(_at(ways[0], t, first, steps)[live[:, t]], D[live[:, t]])
            ends = found.keep[..., n] * first[0] + found.back[..., n] * first[1]
            ends = ends - (found.reach[..., start:stop] * steps).sum(-1)
            torch.testing.assert_close(ends, D)
            left = found.left[..., n] * first[1] - (found.kept[..., start:stop] * steps).sum(-1)
            torch.testing.assert_close(left, m)
            start = stop


def _at(way: Following, t: int, first: tuple[Tensor, Tensor], steps: Tensor) -> Tensor:
    """What a way says of the weight at one token."""
    assert way.carried is not None
    assert way.lent is not None
    added = (way.kernel[:, :, t, : steps.shape[-1]] * steps).sum(-1)
    return way.carried[..., t] * first[0] + way.lent[..., t] * first[1] - added


def test_a_commit_is_one_step() -> None:
    """With the numbers of the token that commits: pieces that begin anywhere, masked tokens, two windows."""
    mask = torch.rand(2, 11, generator=torch.Generator().manual_seed(6)) > 0.3
    for given, counts, window in ((None, [1, 1], 1), (mask, [1, 3], 1), (mask, [0, 2], 3)):
        grid = ChunkGrid(torch.tensor(counts), given, 11, 4)
        retain, beta, rate = drawn(2, 11, 3), drawn(2, 11, 1), drawn(2, 11, 3) + 1.0
        told = Lessons(window, None)
        found = committing(
            grid,
            4,
            drawn(2, 11, 3, 1),
            lessons=told,
            scale=0.5,
            retain=retain,
            beta=beta,
            slot_rate=rate,
            read=1.0,
        )
        wholes = (found.keep, found.left, found.kept)
        for b in range(2):
            live = [t for t in range(11) if given is None or bool(given[b, t])]
            for n in range(len(grid)):
                behind = int(grid.behind(n)[b])
                idle = behind % 4 != 0 or not int(torch.as_tensor(grid.held(n)).flatten().expand(2)[b])
                if idle and found.back is None:
                    continue
                t = 0 if idle else live[behind - counts[b] - 1]
                expected = (retain[b, t] - 0.5, beta[b, t].expand(3), rate[b, t])
                for x, y, z in zip(wholes, expected, (1.0, 1.0, 0.0), strict=True):
                    assert x is not None
                    torch.testing.assert_close(x[b, :, n], torch.full_like(y, z) if idle else y)
        _counts_lessons(grid, found.weight, window)


def _counts_lessons(grid: ChunkGrid, weight: Tensor | None, window: int) -> None:
    """A lesson counts once for every token of the piece that has it in its window."""
    if window == 1 and grid.slots is None:
        assert weight is None
        return
    assert weight is not None
    start, at = 0, 0
    for width in grid.widths:
        live = torch.ones(2, 11, dtype=torch.bool) if grid.slots is None else grid.slots
        for j in range(width + window - 1):
            seen = [t for t in range(width) if t <= j <= t + window - 1]
            expected = live[:, [at + t for t in seen]].sum(1).double()
            torch.testing.assert_close(weight[:, :, start + j], expected[:, None].expand(2, 3))
        start, at = start + width + window - 1, at + width


def test_following_without_gates() -> None:
    """Nothing fades: every token sees the steps up to its own, and all of the start."""
    grid, key = ChunkGrid(torch.tensor([0]), None, 3, 3), drawn(1, 3, 1, 1)
    for strict, rows in ((False, [1.0, 2.0, 3.0]), (True, [0.0, 1.0, 2.0])):
        way = following(grid, key, rate=1.0, before=strict)
        assert way.kernel.sum(-1).flatten().tolist() == rows
        assert way.carried is None
        assert way.lent is None


def test_logarithms_are_the_same() -> None:
    grid, key = ChunkGrid(torch.tensor([0]), None, 7, 3), drawn(1, 7, 2, 1)
    gates = torch.rand(1, 7, 2, dtype=torch.float64)
    plain, logs = (
        fading(grid, key, retain=gates, rate=0.5),
        fading(grid, key, log_retain=gates.log(), rate=0.5),
    )
    torch.testing.assert_close(plain.keep, logs.keep)
    torch.testing.assert_close(plain.reach, logs.reach)
