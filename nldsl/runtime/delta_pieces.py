"""The delta write of a chunk in pieces of a few tokens, one behind the other.

The system of `C` tokens asks for products of `C x C` matrices, which grow with the square of a piece; a piece
more asks for a few passes over the weight.  Between two pieces stands the weight itself, and what is left
of it, or of a write, at their border is an entry of the decays of the whole chunk: nothing is divided.

Shapes as in `memory`; `scores`, `carried`, `to_end`, `total` broadcast against the leading axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.delta_rows import Through, pays
from nldsl.runtime.delta_system import Flow, Solved, ended, flat, flow_of, solve
from nldsl.runtime.first_order import first_order
from nldsl.runtime.recompute import results_wanted
from nldsl.runtime.triangular import unit_lower_inverse

PIECE = 32
"""Tokens of a piece on a CPU."""
LARGEST = 96
"""The longer side of a weight up to which several pieces pay.

Forward and backward: three quarters of the time at 64 x 64 in chunks of 64; at 128 x 128 both take the same.
"""


def pieces_of(weight: Tensor, x: Tensor) -> list[slice]:
    """The tokens of every piece of a chunk `x [*lead, C, i]` for a weight `[*lead, o, i]`.

    >>> pieces_of(torch.ones(64, 64), torch.ones(48, 64))
    [slice(0, 32, None), slice(32, 48, None)]
    >>> pieces_of(torch.ones(256, 64), torch.ones(48, 64))
    [slice(0, 48, None)]
    """
    size = x.shape[-2]
    if x.device.type != "cpu" or max(weight.shape[-2:]) > LARGEST or pays(weight, x):
        return [slice(0, size)]
    return [slice(start, min(start + PIECE, size)) for start in range(0, max(size, 1), PIECE)]


def _gates(
    parts: Sequence[slice], scores: Tensor, carried: Tensor, to_end: Tensor, total: Tensor
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The decays inside every piece, all of them parts of those of the chunk."""
    if len(parts) == 1:
        return [(scores, carried, to_end, total)]
    found = []
    for at in parts:
        first, last = at.start == 0, at.stop == scores.shape[-1]
        before, behind = at.start - 1, at.stop
        # Row t of the scores is seen before token t, so row `behind` sees the piece from its end.
        whole = (
            carried[..., behind] if first else to_end[..., before] if last else scores[..., behind, before]
        )
        found.append(
            (
                scores[..., at, at],
                carried[..., at] if first else scores[..., at, before],
                to_end[..., at] if last else scores[..., behind, at],
                whole,
            )
        )
    return found


def solved_pieces(
    start: Tensor, inputs: Sequence[Tensor], inverses: Sequence[Tensor] = ()
) -> list[Solved | Through]:
    """Every piece of a chunk on `D`; `inverses` of their systems where they are known."""
    x, dy, erase, rate, *gate = inputs
    parts = pieces_of(start, x)
    found: list[Solved | Through] = []
    for n, (at, decays) in enumerate(zip(parts, _gates(parts, *gate), strict=True)):
        start = ended(found[-1]) if found else start
        rows = (x[..., at, :], dy[..., at, :], erase[..., at], rate[..., at])
        found.append(solve((start, *rows, *decays), inverses[n] if inverses else None))
    return found


def flow_through(
    solved: Sequence[Solved | Through], inputs: Sequence[Tensor], d_new: Tensor, whole: bool
) -> Flow:
    """The gradients of the weight in front of the chunk and of `inputs`; `whole`: decays too."""
    found: list[Flow] = []
    for piece in reversed(solved):
        found.insert(0, flow_of(piece, found[0].start if found else d_new, whole))
    if len(found) == 1:
        return found[0]
    d_gate = [torch.zeros_like(x) for x in inputs[4:]]
    scores, carried, to_end, total = d_gate
    if whole:
        parts = pieces_of(found[0].start, inputs[0])
        for flow, places in zip(found, _gates(parts, *d_gate), strict=True):
            for place, flown in zip(
                places, (flow.scores, flow.carried, flow.to_end, flow.total), strict=True
            ):
                assert flown is not None
                place += flown
    return Flow(
        found[0].start,
        torch.cat([f.x for f in found], -2),
        torch.cat([f.dy for f in found], -2),
        torch.cat([f.erase for f in found], -1),
        torch.cat([f.rate for f in found], -1),
        scores if whole else None,
        carried,
        to_end,
        total,
    )


def kept_through(
    d_new: Tensor, x: Tensor, erase: Tensor, gate: Sequence[Tensor], inverse: Tensor | None
) -> Tensor:
    """The gradient of the weight in front of a chunk through what writes leave of it, piece by piece."""
    parts = pieces_of(d_new, x)
    inverses = unpacked(inverse, d_new, x)
    found = list(zip(parts, _gates(parts, *gate), strict=True))
    for n, (at, (scores, carried, to_end, total)) in reversed(list(enumerate(found))):
        rows, rate = x[..., at, :], erase[..., at]
        x_ = flat(rows)
        if inverses:
            solved = inverses[n]
        else:
            gram = torch.bmm(x_, x_.mT).view(*rows.shape[:-1], rows.shape[-2])
            solved = unit_lower_inverse(flat((gram * scores).mul_(rate.unsqueeze(-1))))
        against = torch.bmm(x_, flat(d_new).mT).view(*rows.shape[:-1], d_new.shape[-2])
        flow = torch.bmm(solved.mT, flat(against.mul_(to_end.unsqueeze(-1))))
        d_new = (d_new * total[..., None, None]).contiguous()
        flat(d_new).baddbmm_(flow.mT, flat(rows * (rate * carried).unsqueeze(-1)), alpha=-1)
    return d_new


class DeltaWrite(torch.autograd.Function):
    """`delta_write` on `W` that decays `toward` a tensor, or nothing; the other arguments as for `solve`.

    `D = W - toward` is computed again on the way back: another tensor kept costs more than the difference.
    """

    @staticmethod
    def forward(ctx: Any, toward: Tensor | None, weight: Tensor, *inputs: Tensor) -> Tensor:
        solved = solved_pieces(less(weight, toward), inputs)
        if results_wanted():
            new = ended(solved[-1])
            new = new if toward is None else new.add_(toward)
        else:
            new = torch.zeros((), dtype=weight.dtype, device=weight.device).expand_as(weight)
        # Behind its nine arguments a piece has what was made of them.
        made = [x for piece in solved for x in piece[9:]]
        ctx.save_for_backward(toward, weight, *inputs, *made, *(piece.start for piece in solved[1:]))
        ctx.forms = [type(piece) for piece in solved]
        return new

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        toward, weight, *saved = ctx.saved_tensors
        inputs, made, forms = saved[:8], saved[8:], ctx.forms
        starts = [less(weight, toward), *made[3 * len(forms) :]]
        parts = pieces_of(weight, inputs[0])
        solved = []
        for n, (form, at, decays) in enumerate(zip(forms, parts, _gates(parts, *inputs[4:]), strict=True)):
            x, dy, erase, rate = inputs[:4]
            rows = (x[..., at, :], dy[..., at, :], erase[..., at], rate[..., at])
            solved.append(form(starts[n], *rows, *decays, *made[3 * n : 3 * n + 3]))
        found = flow_through(solved, inputs, grads[0], ctx.needs_input_grad[6])
        asked = toward is not None and ctx.needs_input_grad[0]
        return left_over(grads[0], found.start, toward.shape) if asked else None, *found


def less(weight: Tensor, toward: Tensor | None) -> Tensor:
    """`D = W - r`, what decays."""
    return weight if toward is None else weight - toward


def left_over(d_new: Tensor, d_start: Tensor, shape: torch.Size) -> Tensor:
    """The gradient at `r` of `D' + r` with `D = W - r`: sums first, a difference of matrices is dear."""
    return d_new.sum_to_size(shape) - d_start.sum_to_size(shape)


def packed(solved: Sequence[Solved | Through]) -> Tensor:
    """The inverses of all pieces, `[X, n]`."""
    inverses = [piece.inverse.flatten(1) for piece in solved]
    return inverses[0] if len(inverses) == 1 else torch.cat(inverses, 1)


def unpacked(inverses: Tensor | None, weight: Tensor, x: Tensor) -> list[Tensor]:
    """What `packed` has put together, for a chunk `x` written into `weight`."""
    if inverses is None:
        return []
    sizes = [at.stop - at.start for at in pieces_of(weight, x)]
    parts = inverses.split([size * size for size in sizes], 1)
    return [part.unflatten(1, (size, size)) for part, size in zip(parts, sizes, strict=True)]
