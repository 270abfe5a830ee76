"""One pass over the chunks of a memory and what its rule remembers, the filter given as kernels.

    u = w - e ((k k^T * seen) u + sum_i f_i (k Z_i^T)),
    y = (q k^T * read) u + sum_i r_i (q Z_i^T),
    Z_i <- sum_j t_ij Z_j + (h_i u)^T k.

`Z_0` is the memory, the others are what its rule remembers.  The backward pass goes the same way once more.
Shapes: `N` chunks, `X` = batch x heads, `C` tokens, keys `K`, values `V`; the state is `[X, n, V, K]`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.attend import blocks
from nldsl.runtime.first_order import first_order
from nldsl.runtime.triangular import unit_lower_inverse


class Kernels(NamedTuple):
    """What is left of writes and of the state at the rows of a chunk, and behind it.

    `seen`, `read` `[N, X, C, C]` for the rows that write and that read (`seen` `None`: a row that writes sees
    what the row of the token before reads); `fading`, `carried` `[N, X, C, n]` of the states there;
    `end [N, X, C, n]`, `total [N, X, n, n]`.
    """

    seen: Tensor | None
    read: Tensor
    fading: Tensor
    carried: Tensor
    end: Tensor
    total: Tensor


def filtered_pass(
    q: Tensor, k: Tensor, w: Tensor, erase: Tensor, kernels: Kernels, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Answers `[N, X, C, V]` to `q [N, X, C, K]`, and the state behind the last chunk; `erase [N, X, C]`.

    >>> one, two = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 2)
    >>> kernels = Kernels(0 * one, one, two, two, two, torch.ones(1, 1, 2, 2))
    >>> y, last = filtered_pass(one, one, one, one[0], kernels, torch.zeros(1, 2, 1, 1))
    >>> y.item(), last.flatten().tolist()
    (1.0, [1.0, 1.0])
    """
    y, last = _FilteredPass.apply(q, k, w, erase, *kernels, state)  # type: ignore[no-untyped-call]
    return y, last


class _Given(NamedTuple):
    q: Tensor
    k: Tensor
    w: Tensor
    e: Tensor
    seen: Tensor | None
    read: Tensor
    fading: Tensor
    carried: Tensor
    end: Tensor
    total: Tensor

    def at(self, n: int, part: slice) -> _Given:
        """One chunk of some heads."""
        return _Given(*(None if x is None else x[n, part] for x in self))  # type: ignore[arg-type]

    @property
    def shown(self) -> Tensor:
        """What the rows that write see."""
        if self.seen is not None:
            return self.seen
        return torch.nn.functional.pad(self.read, (0, 0, 1, 0))[:, :-1]


class _FilteredPass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        given, state = _Given(*arguments[:10]), arguments[10]
        count, size, several = given.q.shape[0], given.q.shape[2], state.shape[1]
        states = state.new_empty(count + 1, *state.shape)
        states[0] = state
        y, added, inverses = (
            torch.empty_like(given.w),
            torch.empty_like(given.w),
            torch.empty_like(given.read),
        )
        # What the states answer the rows is kept: a fifth of the work of the way back.
        said = y.new_empty(*y.shape[:2], 2 * size, several * y.shape[3])
        for part in blocks(given.read[0], given.q[0]):
            for n in range(count):
                one, old = given.at(n, part), states[n, part]
                rows = torch.cat([one.k, one.q], 1)
                gram = torch.bmm(rows, one.k.mT)
                torch.bmm(rows, old.flatten(1, 2).mT, out=said[n, part])
                answers = said[n, part].unflatten(-1, (several, -1))
                strict = (gram[:, :size] * one.shown).mul_(one.e.unsqueeze(-1))
                inverses[n, part] = unit_lower_inverse(strict)
                held = _weighed(answers[:, :size], one.fading).mul_(one.e.unsqueeze(-1))
                u = torch.bmm(inverses[n, part], one.w - held, out=added[n, part])
                shown = _weighed(answers[:, size:], one.carried)
                torch.baddbmm(shown, gram[:, size:] * one.read, u, out=y[n, part])
                _move(one, old, u, states[n + 1, part])
        ctx.save_for_backward(*given, states, added, inverses, said)
        return y, states[-1]

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        *saved, states, added, inverses, said = ctx.saved_tensors
        given = _Given(*saved)
        made = _Given(*(None if x is None else torch.empty_like(x) for x in given))  # type: ignore[arg-type]
        dy, d_state = grads[0], grads[1].clone()
        for part in blocks(given.read[0], given.q[0]):
            flow = d_state[part]
            for n in range(given.q.shape[0] - 1, -1, -1):
                kept = states[n, part], added[n, part], inverses[n, part], said[n, part]
                flow = _back(given.at(n, part), kept, dy[n, part], flow, made.at(n, part))
            d_state[part] = flow
        return (*made, d_state)


def _weighed(answers: Tensor, weights: Tensor) -> Tensor:
    """The answers of all states with their weights."""
    first, *rest = answers.unbind(2)
    total = first * weights[..., :1]
    for i, answer in enumerate(rest, 1):
        total.addcmul_(answer, weights[..., i : i + 1])
    return total


def _ended(u: Tensor, end: Tensor) -> Tensor:
    """Values as they are left behind the chunk in all states, `[X, C, n V]`."""
    return (u.unsqueeze(-2) * end.unsqueeze(-1)).flatten(-2)


def _move(one: _Given, old: Tensor, u: Tensor, out: Tensor) -> None:
    torch.bmm(one.total, old.flatten(2), out=out.flatten(2))
    out += torch.bmm(_ended(u, one.end).mT, one.k).view(out.shape)


def _back(
    one: _Given, kept: tuple[Tensor, Tensor, Tensor, Tensor], dy: Tensor, d_new: Tensor, made: _Given
) -> Tensor:
    """Fill the gradients of one chunk; return that of the state in front of it."""
    old, u, inverse, said = kept
    size, answers = dy.shape[1], said.unflatten(-1, (old.shape[1], -1))
    rows = torch.cat([one.k, one.q], 1)
    gram = torch.bmm(rows, one.k.mT)
    torch.bmm(d_new.flatten(2), old.flatten(2).mT, out=made.total)
    flat = d_new.flatten(1, 2)
    at_end = torch.bmm(one.k, flat.mT).unflatten(-1, (old.shape[1], -1))
    torch.linalg.vecdot(at_end, u.unsqueeze(-2), out=made.end)
    du = _weighed(at_end, one.end).baddbmm_((gram[:, size:] * one.read).mT, dy)
    torch.bmm(inverse.mT, du, out=made.w)
    d_seen = torch.cat([made.w.neg(), dy], 1)
    d_gram = torch.bmm(d_seen, u.mT)
    _to_kernels(one, gram, answers, d_gram, d_seen, made)
    d_gram[:, :size].mul_(one.shown).mul_(one.e.unsqueeze(-1)).tril_(-1)
    d_gram[:, size:].mul_(one.read)
    weights = torch.cat([one.fading * one.e.unsqueeze(-1), one.carried], 1)
    d_answers = _ended(d_seen, weights)
    d_rows = torch.bmm(d_answers, old.flatten(1, 2)).baddbmm_(d_gram, one.k)
    torch.add(d_rows[:, :size], torch.bmm(_ended(u, one.end), flat), out=made.k)
    made.k.baddbmm_(d_gram.mT, rows)
    made.q.copy_(d_rows[:, size:])
    d_old = torch.bmm(d_answers.mT, rows).view(old.shape)
    d_old.flatten(2).baddbmm_(one.total.mT, d_new.flatten(2))
    return d_old


def _to_kernels(
    one: _Given, gram: Tensor, answers: Tensor, d_gram: Tensor, d_seen: Tensor, made: _Given
) -> None:
    """Gradients of the kernels and of the rate; `d_gram` are those of the products with their weights."""
    size = one.k.shape[1]
    torch.mul(d_gram, gram, out=gram)
    of_rate = gram[:, :size].tril_(-1)
    torch.linalg.vecdot(of_rate, one.shown, out=made.e)
    of_rate.mul_(one.e.unsqueeze(-1))
    made.read.copy_(gram[:, size:])
    if made.seen is None:
        made.read[:, :-1] += of_rate[:, 1:]
    else:
        made.seen.copy_(of_rate)
    at_rows = torch.linalg.vecdot(answers, d_seen.unsqueeze(-2))
    made.e.add_((at_rows[:, :size] * one.fading).sum(-1))
    torch.mul(at_rows[:, :size], one.e.unsqueeze(-1), out=made.fading)
    made.carried.copy_(at_rows[:, size:])
