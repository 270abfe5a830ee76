"""What is left behind a chunk of every step inside it, for all chunks at once.

    D_t = a_t D_{t-1} + read_t m_t - rate_t g_t,   m_t = beta_t m_{t-1} - slot_rate_t g_t

with constant gradients `g_t`, seen from the end of the chunk:

    D_C = keep D_0 + back m_0 - sum reach_t g_t,   m_C = left m_0 - sum kept_t g_t,

and at every token of it, for reads of the running state:

    D_t = carried_t D_0 + lent_t m_0 - sum kernel_tj g_j.

Over a window of `c` tokens `g_t = sum w_j g_j` over its lessons, `C + c - 1` of a chunk (see `held_lessons`);
then `reach`, `kept` and the columns of `kernel` belong to lessons.

Shapes: `B` batch, `T` tokens, `H` heads (1 without), `N` chunks, `L` slots of all chunks (see `ChunkGrid`).
"""

from __future__ import annotations

from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.decay import DecayKernel, before, causal_mask, decay_kernel, decay_to_end
from nldsl.runtime.first_order import first_order
from nldsl.runtime.grid import ChunkGrid

Gate = Tensor | float | None
"""`[B, T, H]`, `[B, T, 1]` or one number."""


class Fading(NamedTuple):
    """`keep`, `back`, `left` `[B, H, N]`, `reach`, `kept` `[B, H, L]`; what is not there is `None`.

    Of a rule at the commit all five are `[B, H, N]`, and `weight [B, H, L']` is what every lesson counts for
    in the sum of gradients (see `held_commit`).
    """

    keep: Tensor | None
    reach: Tensor | None
    back: Tensor | None
    left: Tensor | None
    kept: Tensor | None
    weight: Tensor | None = None


class Following(NamedTuple):
    """`kernel [B, H, L, C]` (`C` the longest chunk), `carried`, `lent` `[B, H, L]`; `None`: 1 and nothing."""

    kernel: Tensor
    carried: Tensor | None
    lent: Tensor | None


class Lessons(NamedTuple):
    """How many tokens a window has; the weights of all lessons `[B, H, L']`, if they have any."""

    window: int = 1
    weight: Tensor | None = None

    def of(self, per_token: Tensor) -> Tensor:
        """From what counts for a step `[.., C]` to what counts for the lessons in its window."""
        if self.window > 1:
            tokens = per_token.shape[-1]
            ones = per_token.new_ones(tokens, tokens + self.window - 1)
            per_token = per_token @ ones.triu_().tril_(self.window - 1)
        if self.weight is None:
            return per_token
        return per_token * (self.weight if per_token.dim() == 4 else self.weight.unsqueeze(-2))


ALONE = Lessons()
"""Every token has its own lesson, of weight one."""


class Given(NamedTuple):
    """The gates of a memory; `beta`, `slot_rate`, `read` come together or not at all."""

    retain: Gate = None
    log_retain: Gate = None
    rate: Gate = None
    beta: Gate = None
    slot_rate: Gate = None
    read: Gate = None


class _Gates(NamedTuple):
    """The gates of chunks of one width `[B, H, n, C]`."""

    retain: Tensor | None
    log_retain: Tensor | None
    rate: Tensor | None
    beta: Tensor | None
    slot_rate: Tensor | None
    read: Tensor | None
    lessons: Lessons


def fading(grid: ChunkGrid, key: Tensor, *, lessons: Lessons = ALONE, **gates: Gate) -> Fading:
    """The numbers above for keys `[B, T, H, d]` and the gates of `Given`.

    >>> grid = ChunkGrid(torch.tensor([0]), None, 2, 2)
    >>> found = fading(grid, torch.ones(1, 2, 1, 1), retain=0.5, rate=0.25)
    >>> found.keep.item(), found.reach.flatten().tolist()
    (0.25, [0.125, 0.25])
    """
    parts = _chunks(grid, key, Given(**gates), lessons)
    return Fading(*_joined([_of_chunks(*one) for one in parts]))


def following(
    grid: ChunkGrid, key: Tensor, *, lessons: Lessons = ALONE, before: bool = False, **given: Gate
) -> Following:
    """The same at every token, behind its own step or `before` it.

    >>> grid = ChunkGrid(torch.tensor([0]), None, 2, 2)
    >>> found = following(grid, torch.ones(1, 2, 1, 1), retain=0.5, rate=0.25)
    >>> found.carried.flatten().tolist(), found.kernel.flatten().tolist()
    ([0.5, 0.25], [0.25, 0.0, 0.125, 0.25])
    """
    widest = max(grid.widths) + lessons.window - 1
    kernels, numbers = [], []
    for gates in _chunks(grid, key, Given(**given), lessons):
        kernel, carried, lent = _at_tokens(gates, before)
        wide = torch.nn.functional.pad(kernel, (0, widest - kernel.shape[-1]))
        kernels.append(wide.flatten(2, 3))
        numbers.append(tuple(None if x is None else x.flatten(-2) for x in (carried, lent)))
    return Following(torch.cat(kernels, 2), *_joined(numbers))


def gate_rows(key: Tensor, gate: Tensor | float) -> Tensor:
    """A gate as rows `[B, T, H, 1]` beside keys `[B, T, H, d]`.

    >>> gate_rows(torch.ones(1, 2, 1, 3), 0.5).shape
    torch.Size([1, 2, 1, 1])
    """
    given = gate if isinstance(gate, Tensor) else key.new_full((1, 1, 1), gate)
    return given.expand(key.shape[:3]).unsqueeze(-1)


def _chunks(grid: ChunkGrid, key: Tensor, given: Given, lessons: Lessons) -> list[_Gates]:
    """Runs of chunks of one width."""
    # Where no token is nothing fades and nothing is added.
    empty = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    rows = [_rows(grid, key, x, e) for x, e in zip(given, empty, strict=True)]
    parts, at, seen = [], 0, 0
    for width, same in groupby(grid.widths):
        count, wide = len(list(same)), width + lessons.window - 1
        told = Lessons(lessons.window, _run(lessons.weight, seen, count, wide))
        retain, log_retain, rate, beta, slot_rate, read = (_run(x, at, count, width) for x in rows)
        parts.append(_Gates(retain, log_retain, rate, beta, slot_rate, read, told))
        at, seen = at + count * width, seen + count * wide
    return parts


def _run(x: Tensor | None, start: int, count: int, width: int) -> Tensor | None:
    """`count` chunks of one width, `[B, H, n, C]`."""
    return None if x is None else x[..., start : start + count * width].unflatten(-1, (count, width))


def _joined(parts: list[tuple[Tensor | None, ...]]) -> tuple[Tensor | None, ...]:
    if len(parts) == 1:
        return parts[0]
    return tuple(
        None if x[0] is None else torch.cat([t for t in x if t is not None], -1)
        for x in zip(*parts, strict=True)
    )


def _rows(grid: ChunkGrid, key: Tensor, gate: Gate, empty: float) -> Tensor | None:
    """`[B, H, L]`."""
    if gate is None:
        return None
    batch, tokens, heads = key.shape[:3]
    spread = gate if isinstance(gate, Tensor) else key.new_full((1, 1, 1), gate)
    laid = grid.lay(spread.expand(batch, tokens, heads)).transpose(1, 2)
    return laid if grid.slots is None else laid.masked_fill(~grid.slots.unsqueeze(1), empty)


def _of_chunks(
    retain: Tensor | None,
    log_retain: Tensor | None,
    rate: Tensor | None,
    beta: Tensor | None,
    slot_rate: Tensor | None,
    read: Tensor | None,
    lessons: Lessons,
) -> tuple[Tensor | None, ...]:
    """Chunks of one width: everything `[B, H, n, C]`."""
    to_end = keep = None
    if log_retain is not None:
        to_end, keep = decay_to_end(log_retain)
    elif retain is not None:
        to_end = products_behind(retain)
        keep = retain[..., 0] * to_end[..., 0]
    reach = None if rate is None else (rate if to_end is None else rate * to_end)
    if beta is None or slot_rate is None or read is None:
        assert reach is not None, "neither a rate nor a momentum"
        return keep, lessons.of(reach).flatten(-2), None, None, None
    seen = sums_behind(read if to_end is None else read * to_end, beta)
    through, behind = slot_rate * seen, products_behind(beta)
    reach = through if reach is None else reach + through
    back, left = beta[..., 0] * seen[..., 0], beta[..., 0] * behind[..., 0]
    kept = lessons.of(slot_rate * behind)
    return keep, lessons.of(reach).flatten(-2), back, left, kept.flatten(-2)


def _at_tokens(gates: _Gates, strict: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Kernel `[B, H, n, C, C]`, carried and lent `[B, H, n, C]` of chunks of one width."""
    given = next(x for x in (gates.rate, gates.beta) if x is not None)
    after, carried = causal_mask(given.shape[-1], given), None
    if gates.retain is not None or gates.log_retain is not None:
        after, carried, *_ = decay_kernel(gates.log_retain, gates.retain)
    kernel = None if gates.rate is None else after * gates.rate.unsqueeze(-2)
    lent = None
    if gates.beta is not None and gates.slot_rate is not None and gates.read is not None:
        inner = decay_kernel(None, gates.beta)
        filtered = inner.after * gates.read.unsqueeze(-1) * gates.slot_rate.unsqueeze(-2)
        through = after @ filtered
        kernel = through if kernel is None else kernel + through
        lent = (after @ (gates.read * inner.carried).unsqueeze(-1)).squeeze(-1)
    assert kernel is not None, "neither a rate nor a momentum"
    if not strict:
        return gates.lessons.of(kernel), carried, lent
    at_start = torch.ones_like(given) if carried is None else carried
    kernel, shifted = before(DecayKernel(kernel, at_start, at_start, at_start))
    lent = None if lent is None else torch.nn.functional.pad(lent, (1, 0))[..., :-1]
    return gates.lessons.of(kernel), None if carried is None else shifted, lent


def products_behind(gates: Tensor) -> Tensor:
    """The product of all later gates along the last axis; zeros and signs are exact.

    >>> products_behind(torch.tensor([0.5, 0.0, 2.0])).tolist()
    [0.0, 2.0, 1.0]
    """
    last = torch.zeros_like(gates)
    last[..., -1] = 1.0
    return sums_behind(last, gates)


def sums_behind(added: Tensor, gates: Tensor) -> Tensor:
    """`r_j = added_j + gates_{j+1} r_{j+1}` along the last axis.

    >>> sums_behind(torch.ones(3), torch.tensor([9.0, 0.5, 2.0])).tolist()
    [2.5, 3.0, 1.0]
    """
    result: Tensor = _SumsBehind.apply(added, gates)  # type: ignore[no-untyped-call]
    return result


class _SumsBehind(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, added: Tensor, gates: Tensor) -> Tensor:
        gates = gates.movedim(-1, 0).contiguous()
        made = added.movedim(-1, 0).clone(memory_format=torch.contiguous_format)
        rows, factors = made.unbind(0), gates.unbind(0)
        for j in range(len(rows) - 2, -1, -1):
            rows[j].addcmul_(factors[j + 1], rows[j + 1])
        ctx.save_for_backward(gates, made)
        return made.movedim(0, -1)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor]:
        gates, made = ctx.saved_tensors
        flow = grads[0].movedim(-1, 0).clone(memory_format=torch.contiguous_format)
        rows, factors = flow.unbind(0), gates.unbind(0)
        for j in range(1, len(rows)):
            rows[j].addcmul_(factors[j], rows[j - 1])
        to_gates = torch.zeros_like(gates)
        torch.mul(flow[:-1], made[1:], out=to_gates[1:])
        return flow.movedim(0, -1), to_gates.movedim(0, -1)
