"""How wide the chunks of a pass are: as wide as one anchor serves, narrower where decays are steeper.

Running sums `g` of log decays start anew in every chunk; its middle token is the anchor.  Where an exponent
leaves the range of the numbers, that chunk alone is halved until it does not: a few steep tokens of a long
sequence do not make all its chunks narrow, so what a token costs does not depend on how many there are.

Shapes: `B` batch, `T` tokens, `H` heads, `C` tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nldsl.runtime.chunk_sums import Width, far_chunks, step_for, summed
from nldsl.runtime.gram import limit_of

LEAST = 8
"""Tokens of the narrowest chunk that all decays may be given; no mixture makes more chunks than that."""


def widest(width: Width) -> int:
    """Tokens of the widest chunk."""
    return width if isinstance(width, int) else max(width)


def sums_of(log: Tensor, width: int) -> Tensor:
    """Running sums of `log [B, T, H, ...]` inside each chunk of `width` tokens.

    >>> sums_of(torch.ones(1, 3, 1), 2).flatten().tolist()
    [1.0, 2.0, 1.0]
    """
    if (step := step_for(log)) is not None:
        return summed(step, log, width)
    batch, tokens = log.shape[:2]
    whole = tokens - tokens % width
    # Sizes are spelt out: of no samples at all -1 could be any.
    chunks = log[:, :whole].reshape(batch * (whole // width), width, *log.shape[2:])
    made = [_summed(chunks).reshape(log[:, :whole].shape)] if whole else []
    made += [_summed(log[:, whole:])] if whole < tokens else []
    return made[0] if len(made) == 1 else torch.cat(made, 1)


def _summed(x: Tensor) -> Tensor:
    if x.dim() == 3:
        return x.double().cumsum(1).to(x.dtype)
    width = x.shape[1]
    lower = torch.ones(width, width, dtype=x.dtype, device=x.device).tril_()
    return (lower @ x.flatten(2)).view(x.shape)


def fitting(log: Tensor, width: int) -> tuple[Tensor, Width] | None:
    """Running sums of `log [B, T, H, ...]` in the widest chunks that one anchor serves, and their widths.

    Chunks of `width` tokens or of halves of it; where few of them are too wide, these alone are halved.
    `None` if that makes too many: a few calls more per token cost less than steep decays taken apart channel
    by channel (a third, measured in chunks of 16 and of 8).  Where calls are what is dear, on an accelerator,
    only the first width is tried; nothing is known under `torch.compile`.

    >>> steep = torch.full((1, 64, 1), -3.0)
    >>> [None if (found := fitting(log, 64)) is None else found[1] for log in (steep / 3, steep, 9 * steep)]
    [64, 32, None]
    >>> steep[:, 60:] = -20.0
    >>> fitting(steep, 64)[1]
    (32, 16, 8, 8)
    """
    tokens = log.shape[1]
    while not torch.compiler.is_compiling():
        even = -(-tokens // -(-tokens // width))
        sums = sums_of(log, even)
        steep = steep_chunks(sums, even)
        if not steep:
            return sums, even
        if log.device.type != "cpu":
            return None
        if 2 * len(steep) * even <= tokens and (mixed := _halved(log, sums, even, steep)) is not None:
            return mixed
        width //= 2
        if width < LEAST:
            return None
    return None


def steep_chunks(sums: Tensor, width: int) -> list[int]:
    """Which chunks of `sums [B, T, ...]` no one anchor serves."""
    if (step := step_for(sums)) is not None:
        return far_chunks(step, sums, width)
    whole = sums.shape[1] - sums.shape[1] % width
    parts = (sums[:, :whole].unflatten(1, (-1, width)), sums[:, whole:].unsqueeze(1))
    flags = [flag for x in parts if x.numel() for flag in _far(x).cpu().tolist()]
    return [n for n, far in enumerate(flags) if far]


def _far(sums: Tensor) -> Tensor:
    """Of which chunks `[B, n, C, ...]` a sum is too far from that in the middle, which scales the state."""
    sums, limit = sums.detach(), limit_of(sums.dtype)
    middle = sums[:, :, sums.shape[2] // 2]
    apart = (middle, sums.amax(2).sub_(middle), sums.amin(2).sub_(middle))
    # No number at all is no number that fits.
    near = [(x.abs() <= limit).movedim(1, 0).flatten(1).all(1) for x in apart]
    return ~(near[0] & near[1] & near[2])


def _halved(log: Tensor, sums: Tensor, width: int, steep: Iterable[int]) -> tuple[Tensor, Width] | None:
    """The sums with steep chunks in halves, in halves of those..., and the widths of all chunks."""
    tokens, step = log.shape[1], step_for(log)
    looked_at = log if step is None else log.detach()
    widths = {start: min(width, tokens - start) for start in range(0, tokens, width)}
    most, open_ = -(-tokens // LEAST), [(n * width, widths[n * width]) for n in steep]
    while open_:
        if len(widths) + len(open_) > most or min(size for _, size in open_) == 1:
            return None
        halves = [(at, -(-size // 2)) for at, size in open_]
        halves += [(at + -(-size // 2), size // 2) for at, size in open_]
        widths |= dict(halves)
        open_ = []
        for size in {size for _, size in halves}:
            starts = torch.tensor([at for at, one in halves if one == size], device=log.device)
            places = (starts.unsqueeze(1) + torch.arange(size, device=log.device)).flatten()
            part = sums_of(looked_at[:, places], size)
            open_ += [(int(starts[n]), size) for n in steep_chunks(part, size)]
            sums = sums.index_copy(1, places, part) if step is None else sums
    several = tuple(widths[at] for at in sorted(widths))
    return sums if step is None else summed(step, log, several), several
