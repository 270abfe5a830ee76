"""The course of one weight over a chunk, when its gradients are held at the chunk's base.

Every term of a write moves the weight; with the gradients constant, all of it is a causal filter.
`D = W - r`, `r` what retention decays toward:

    g_t = sum over the window of t of  w_j (dy_j x_j^T + G)
    m_t = beta_t m_{t-1} - slot_rate_t g_t - slot_erase_t (D_{t-1} x_t) x_t^T
    D_t = a_t D_{t-1} + sum over terms of ( read_t m_t - rate_t g_t - erase_t (D_{t-1} x_t) x_t^T )

Shapes.  Weight `[*lead, o, i]`; inputs `x [*lead, J, i]` and gradients at the outputs `dy [*lead, J, o]`
of the J = C + c - 1 lessons in the windows of C tokens (J = C without a window); rates and gates
`[*lead, C]`; `G [*lead, o, i]`, if there is one, is the same for every lesson; `lead` broadcasts.
`valid [B, C]`: tokens stand in front, empty slots behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.course_channels import answer, channel_filters
from nldsl.runtime.decay import DecayKernel, before, causal_mask, decay_kernel
from nldsl.runtime.filtered_write import filtered_write
from nldsl.runtime.lessons import lessons_of, lessons_seen
from nldsl.runtime.memory import Retention, alive, lift, valid_gates
from nldsl.runtime.triangular import solve_unit_lower


class Filter(NamedTuple):
    """A filter of gradients (and of an erase) on the way to the weight; prepared once for all behind it."""

    kernel: DecayKernel
    rate: Tensor
    read: Tensor
    erase: Tensor | None = None


class Momentum(NamedTuple):
    """What one weight has of a filter: the state it keeps."""

    slot: Tensor
    filter: Filter


def momentum_filter(
    beta: Tensor, rate: Tensor, read: Tensor, erase: Tensor | None = None, valid: Tensor | None = None
) -> Filter:
    """Decay, rate, reading and erase of a momentum over a chunk, `[*lead, C]` each.

    >>> half = torch.full((1, 2), 0.5)
    >>> momentum_filter(half, half, half).kernel.total.item()
    0.25
    """
    kernel = decay_kernel(*valid_gates(beta, None, valid))
    erased = None if erase is None else alive(erase, valid)
    return Filter(kernel, alive(rate, valid), alive(read, valid), erased)


class Impulse(NamedTuple):
    """One term of a write, seen from one weight: a rate or a momentum at least; `weight [*lead, J]`.

    A gradient that is a sum of several outer products has the rows of each below one another.
    `constant [*lead, o, i]` is part of the gradient of every lesson.
    """

    x: Tensor
    dy: Tensor
    rate: Tensor | None = None
    erase: Tensor | None = None
    momentum: Momentum | None = None
    weight: Tensor | None = None
    window: int = 1
    products: int = 1
    constant: Tensor | None = None


class Channels(NamedTuple):
    """Retention per channel: `to_end, retain [*lead, C, n]`, `total [*lead, n]` along the keys or values."""

    to_end: Tensor
    total: Tensor
    axis: Literal["key", "value"]
    retain: Tensor


def gate_kernel(
    *, retain: Tensor | None = None, log_retain: Tensor | None = None, valid: Tensor | None = None
) -> DecayKernel:
    """The gates of a chunk `[*lead, C]`, prepared once for all weights they act on.

    >>> gate_kernel(retain=torch.tensor([[0.5, 0.5]])).total.item()
    0.25
    """
    return decay_kernel(*valid_gates(retain, log_retain, valid))


def channel_gates(retain: Tensor, axis: Literal["key", "value"], valid: Tensor | None = None) -> Channels:
    """Gates per channel `[*lead, C, n]`, prepared for a weight.

    >>> channel_gates(torch.tensor([[[0.5, 1.0], [0.5, 0.0]]]), "key").total.tolist()
    [[0.25, 0.0]]
    """
    if valid is not None:
        retain = retain.masked_fill(~lift(valid, retain[..., 0]).unsqueeze(-1), 1.0)
    from_end = retain.flip(-2).cumprod(-2).flip(-2)
    behind = torch.cat([from_end[..., 1:, :], torch.ones_like(from_end[..., :1, :])], -2)
    return Channels(behind, from_end[..., 0, :], axis, retain)


@dataclass
class Course:
    """One weight over one chunk: where it ends (`end`, `close`), and what it answers on the way.

    >>> w, x = torch.ones(1, 1, 1), torch.ones(1, 2, 1)
    >>> course = Course(w, (Impulse(x, x, rate=torch.tensor([[0.1, 0.2]])),))
    >>> course.end().item(), course.after(x).flatten().tolist(), course.before(x).flatten().tolist()
    (0.699..., [0.899..., 0.699...], [1.0, 0.899...])
    """

    weight: Tensor
    impulses: Sequence[Impulse]
    gate: DecayKernel | Retention | Channels | None = None
    toward: Tensor | None = None
    valid: Tensor | None = None

    def end(self) -> Tensor:
        """The weight behind the chunk."""
        return self.close()[0]

    def close(self) -> tuple[Tensor, ...]:
        """The weight behind the chunk, and the momentum of every term that has one."""
        new, slots = self._start, []
        keep = None if self.gate is None else self.gate.total
        # A momentum that comes first decays the weight on its way.
        if isinstance(self.gate, Channels) or self.impulses[0].momentum is None:
            new, keep = self._decayed(new), None
        for one in self.impulses:
            reach = self._reach(one)
            if one.momentum is None:
                new = new - self._gathered(one, reach)
                continue
            inner, rate, *_ = one.momentum.filter
            kept = lessons_of(one, inner.to_end * rate, False)
            if one.constant is None and not isinstance(self.gate, Channels):
                read = torch.linalg.vecdot(self._read(one.momentum), inner.carried)
                factors = (read, inner.total, reach, kept)
                new, slot = filtered_write(new, one.momentum.slot, (one.x, one.dy), factors, keep)
                keep = None
                slots.append(slot - self._erased_from_slot(one))
                continue
            if keep is not None:
                new, keep = self._decayed(new), None
            new = new + self._from_slot(one.momentum) - self._gathered(one, reach)
            slot = inner.total[..., None, None] * one.momentum.slot - _summed(one, kept)
            slots.append(slot - self._erased_from_slot(one))
        if self._erased is not None:
            values, inputs = self._erased
            new = new - (values * self._side_by_side(self._left).unsqueeze(-1)).mT @ inputs
        return (new if self.toward is None else new + self.toward), *slots

    def after(self, z: Tensor) -> Tensor:
        """`z_t W_t^T`: what the weight makes of every token behind the token's own write."""
        return self._answer(z, strict=False)

    def before(self, z: Tensor) -> Tensor:
        """`z_t W_{t-1}^T`: the same in front of the token's own write."""
        return self._answer(z, strict=True)

    # --- parts -------------------------------------------------------------------------------

    @property
    def _tokens(self) -> int:
        first = self.impulses[0]
        return first.x.shape[-2] // first.products - first.window + 1

    @property
    def _start(self) -> Tensor:
        return self.weight if self.toward is None else self.weight - self.toward

    @property
    def _to_end(self) -> Tensor:
        """What is left at the end of what a token adds, `[*lead, C]`, or `[*lead, C, n]` per channel."""
        return self.weight.new_ones(self._tokens) if self.gate is None else self.gate.to_end

    def _decayed(self, start: Tensor) -> Tensor:
        if self.gate is None:
            return start
        total = self.gate.total
        if isinstance(self.gate, Channels):
            return start * (total.unsqueeze(-2) if self.gate.axis == "key" else total.unsqueeze(-1))
        return start * total[..., None, None]

    def _read(self, momentum: Momentum) -> Tensor:
        """What a token's step adds of the momentum, at the end of the chunk."""
        read = momentum.filter.read
        return self._to_end * (read.unsqueeze(-1) if isinstance(self.gate, Channels) else read)

    def _reach(self, one: Impulse) -> Tensor:
        """What is left of every lesson's gradient at the end: `[*lead, J]`, or `[*lead, J, n]`."""
        wide = isinstance(self.gate, Channels)
        parts = []
        if one.rate is not None:
            rate = alive(one.rate, self.valid)
            parts.append(self._to_end * (rate.unsqueeze(-1) if wide else rate))
        if one.momentum is not None:
            (inner, rate, *_), read = one.momentum.filter, self._read(one.momentum)
            if wide:
                parts.append((inner.after.mT @ read) * rate.unsqueeze(-1))
            else:
                parts.append((read.unsqueeze(-2) @ inner.after).squeeze(-2) * rate)
        return lessons_of(one, sum(parts[1:], parts[0]), wide)

    def _gathered(self, one: Impulse, reach: Tensor) -> Tensor:
        if isinstance(self.gate, Channels):
            if self.gate.axis == "key":
                return one.dy.mT @ (one.x * reach)
            return (one.dy * reach).mT @ one.x
        return _summed(one, reach)

    def _from_slot(self, momentum: Momentum) -> Tensor:
        gate, carried = self.gate, momentum.filter.kernel.carried
        if not isinstance(gate, Channels):
            read: Tensor = torch.linalg.vecdot(self._read(momentum), carried)
            return read[..., None, None] * momentum.slot
        left = (self._read(momentum) * carried.unsqueeze(-1)).sum(-2)
        return momentum.slot * (left.unsqueeze(-2) if gate.axis == "key" else left.unsqueeze(-1))

    # --- on the way --------------------------------------------------------------------------

    def _decay(self, strict: bool) -> tuple[Tensor, Tensor]:
        """What is left at every token of earlier steps `[*lead, C, C]`, and of the start `[*lead, C]`."""
        if self.gate is None:
            size = self._tokens
            return causal_mask(size, self.weight, strict=strict), self.weight.new_ones(size)
        assert isinstance(self.gate, DecayKernel), "gates per channel or of the end alone have no kernel"
        return before(self.gate) if strict else (self.gate.after, self.gate.carried)

    def _forced(self, z: Tensor, strict: bool, repeat: int = 1) -> Tensor:
        """What the weight answers without the erase terms; `repeat` rows of `z` stand for one token."""
        if isinstance(self.gate, Channels):
            pushed = [(i.x, i.dy, self._added(i)) for i in self.impulses]
            filters = channel_filters(self.gate.retain, strict)
            momenta = [i.momentum for i in self.impulses if i.momentum is not None]
            slots = [(m.slot, m.filter.read * m.filter.kernel.carried) for m in momenta]
            return answer(z, self._start, filters, self.gate.axis, pushed, slots)
        decay, carried = self._decay(strict)
        y = (z @ self._start.mT) * _rows(carried, repeat, -1).unsqueeze(-1)
        for one in self.impulses:
            kernel = 0.0 if one.rate is None else decay * alive(one.rate, self.valid).unsqueeze(-2)
            if one.momentum is not None:
                inner, rate, read, _ = one.momentum.filter
                filtered = inner.after * read.unsqueeze(-1) * rate.unsqueeze(-2)
                kernel = kernel + decay @ filtered
                from_slot = (decay @ (read * inner.carried).unsqueeze(-1)).squeeze(-1)
                y = y + (z @ one.momentum.slot.mT) * _rows(from_slot, repeat, -1).unsqueeze(-1)
            assert isinstance(kernel, Tensor)
            kernel = _rows(lessons_seen(one, kernel), repeat, -2)
            y = y - ((z @ one.x.mT) * kernel) @ one.dy
            if one.constant is not None:
                y = y - (z @ one.constant.mT) * _once(one, kernel).unsqueeze(-1)
        return y

    def _added(self, one: Impulse) -> Tensor:
        """How much of every lesson a token's step adds, `[*lead, C, J]`."""
        made: Tensor | float = 0.0 if one.rate is None else torch.diag_embed(alive(one.rate, self.valid))
        if one.momentum is not None:
            inner, rate, read, _ = one.momentum.filter
            made = made + inner.after * read.unsqueeze(-1) * rate.unsqueeze(-2)
        assert isinstance(made, Tensor)
        return lessons_seen(one, made)

    # --- erases ------------------------------------------------------------------------------

    @cached_property
    def _erasing(self) -> tuple[Impulse, ...]:
        return tuple(i for i in self.impulses if _erase(i) is not None)

    @cached_property
    def _erased(self) -> tuple[Tensor, Tensor] | None:
        """What every erase term really takes away, and its inputs; terms of one token side by side.

        `(I + N) e = erase (D_{t-1} x without erase)`, `N` strictly lower over the tokens.
        """
        if not self._erasing:
            return None
        count = len(self._erasing)
        inputs = torch.broadcast_tensors(*(i.x[..., -self._tokens :, :] for i in self._erasing))
        x = torch.stack(inputs, -2).flatten(-3, -2)
        erase = self._side_by_side(lambda one: alive(_known(_erase(one)), self.valid)).unsqueeze(-1)
        seen = self._forced(x, True, count) * erase
        system = (x @ x.mT) * _rows(self._taken(True), count, -2) * erase
        values = solve_unit_lower(system, seen)
        return values, x.expand(*values.shape[:-2], *x.shape[-2:])

    def _side_by_side(self, of: Callable[[Impulse], Tensor]) -> Tensor:
        """Numbers `[*lead, C]` of every term that erases, those of a token together."""
        return torch.stack(torch.broadcast_tensors(*(of(i) for i in self._erasing)), -1).flatten(-2)

    def _taken(self, strict: bool) -> Tensor:
        """What is left at every token of what earlier ones took away, `[*lead, C, C terms]`."""
        decay = self._decay(strict)[0]

        def kernel(one: Impulse) -> Tensor:
            if one.erase is not None or one.momentum is None:
                return decay
            inner, _, read, _ = one.momentum.filter
            return decay @ (inner.after * read.unsqueeze(-1))

        return torch.stack(torch.broadcast_tensors(*(kernel(i) for i in self._erasing)), -1).flatten(-2)

    def _left(self, one: Impulse) -> Tensor:
        """What is left at the end of what a token took away, `[*lead, C]`."""
        if one.erase is not None or one.momentum is None:
            return self._to_end
        return (self._read(one.momentum).unsqueeze(-2) @ one.momentum.filter.kernel.after).squeeze(-2)

    def _erased_from_slot(self, one: Impulse) -> Tensor | float:
        """What erases inside a momentum leave in its memory."""
        if self._erased is None or one.momentum is None or one.momentum.filter.erase is None:
            return 0.0
        values, inputs = self._erased
        count = len(self._erasing)
        place = next(n for n, i in enumerate(self._erasing) if i is one)
        mine, x = (r[..., place::count, :] for r in (values, inputs))
        return (mine * one.momentum.filter.kernel.to_end.unsqueeze(-1)).mT @ x

    def _answer(self, z: Tensor, strict: bool) -> Tensor:
        y = self._forced(z, strict)
        if self._erased is not None:
            values, inputs = self._erased
            y = y - ((z @ inputs.mT) * self._taken(strict)) @ values
        return y if self.toward is None else y + z @ self.toward.mT


def _erase(one: Impulse) -> Tensor | None:
    """The rate at which a term erases, by itself or inside its momentum."""
    if one.erase is not None or one.momentum is None:
        return one.erase
    return one.momentum.filter.erase


def _known(rate: Tensor | None) -> Tensor:
    assert rate is not None
    return rate


def gather(
    total: Tensor,
    x: Tensor,
    dy: Tensor,
    *,
    weight: Tensor | None = None,
    window: int = 1,
    products: int = 1,
    constant: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """`total` and the gradients of a chunk, for a rule that runs at the commit.

    >>> x = torch.ones(1, 2, 1)
    >>> gather(torch.ones(1, 1, 1), x, x, weight=torch.tensor([[0.5, 2.0]])).item()
    3.5
    """
    one = Impulse(x, dy, weight=weight, window=window, products=products, constant=constant)
    tokens = x.shape[-2] // products - window + 1
    ticks = x.new_ones(tokens) if valid is None else lift(valid, x[..., 0]).to(x.dtype)
    return total + _summed(one, lessons_of(one, ticks, False))


def together(*rows: Tensor) -> Tensor:
    """The rows of several outer products below one another."""
    return torch.cat(torch.broadcast_tensors(*rows), -2)


def _summed(one: Impulse, by: Tensor) -> Tensor:
    """The gradients of the lessons, times the numbers `[*lead, J products]`."""
    total = (one.dy * by.unsqueeze(-1)).mT @ one.x
    return total if one.constant is None else total + one.constant * _once(one, by)[..., None, None]


def _once(one: Impulse, by: Tensor) -> Tensor:
    """The sum of numbers that stand once for every outer product of a lesson, each lesson counted once."""
    return by[..., : by.shape[-1] // one.products].sum(-1)


def _rows(x: Tensor, repeat: int, axis: int) -> Tensor:
    return x if repeat == 1 else x.repeat_interleave(repeat, axis)
