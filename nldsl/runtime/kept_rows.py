"""Weights of task memories whose gradient is one product per period, not one per segment.

While a period lasts its weights stand still, so the rows that met them, `z` on the way forward and `dy` on
the way back, are kept, and `dW = sum dy z^T` is formed from several segments at once: a product of 256
rows runs twice as fast as four of 64 that each write the whole of `dW`.  Samples whose weights are still
the same, before the first step, share one product forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.first_order import first_order
from nldsl.runtime.row_products import descend, gathers, product

ROWS = 256
"""So many rows of a sample are kept before they become a gradient."""
PIECE = 2**20
"""Bytes of a gradient that are made, summed and applied before the next: they stay in the cache."""
PRODUCTS = (Tensor.matmul, Tensor.__matmul__, torch.matmul)


def lying(x: Tensor, weight: Tensor) -> Tensor:
    """`x [..., out, in]` as `weight` lies in memory, or back again: with the longer axis last.

    Products with few rows read a weight fastest that way, forwards and backwards.

    >>> wide, tall = torch.zeros(3, 8), torch.zeros(8, 3)
    >>> lying(wide, wide).shape, lying(tall, tall).shape
    (torch.Size([3, 8]), torch.Size([3, 8]))
    """
    return x.mT if weight.shape[-2] >= weight.shape[-1] else x


def laid(like: Tensor) -> Tensor:
    """Room of the shape of `like`, laid so."""
    return lying(torch.empty_like(lying(like, like), memory_format=torch.contiguous_format), like)


class Rows:
    """The gradient of one weight `[B, ..., out, in]` in the making.

    `leaf` is the variable for whatever else is done with the weight than a product with rows; `shared`
    are the values of the parameter, as long as every sample has them.  What rows give when they are not
    `gathering` any more is summed over the samples in `asked`.
    """

    def __init__(self, leaf: Tensor, shared: Tensor | None) -> None:
        self.leaf = leaf
        self.shared = shared
        self.gathering = True
        self.asked: Tensor | None = None
        """`[..., out, in]`: what later losses ask of the parameter."""
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.total: Tensor | None = None
        """`[B, ..., out, in]`: what rows have given so far."""
        self.room: Tensor | None = None
        """Memory for the next total: fresh pages cost as much as the product."""

    def weight(self) -> Tensor:
        """What a read gets."""
        made = Tensor._make_subclass(KeptWeight, self.leaf.detach())
        made.rows, made.turned = self, False
        return made

    def product(self, z: Tensor) -> Tensor:
        """`z W^T`, row by row; the gradient of `W` arrives here."""
        return _Product.apply(z, self.leaf, self)  # type: ignore[no-untyped-call, no-any-return]

    def takes(self, z: Tensor) -> bool:
        """Whether `z` are rows of one kind with the weight, a block of them for every matrix of it."""
        same = z.dtype == self.leaf.dtype and z.shape[:-2] == self.leaf.shape[:-2]
        return same and not torch.is_autocast_enabled(z.device.type)

    @property
    def read(self) -> Tensor:
        """The weights as loops read them, of every sample or of all: constants."""
        return self.leaf.detach() if self.shared is None else self.shared

    def values(self, anew: bool = False) -> Tensor:
        """Memory for the next values of the weight: its own, if no parameter lies there, or `anew`."""
        if self.shared is None and not anew:
            return self.leaf.detach()
        return laid(self.leaf.detach())

    def meet(self, z: Tensor, dy: Tensor) -> None:
        """Rows that have met the weight there and back: kept as long as they are gathered."""
        if self.gathering:
            self.keep(z, dy)
        else:
            self.ask(z, dy)

    def keep(self, z: Tensor, dy: Tensor) -> None:
        """Rows `[B, ..., C, in]` and `[B, ..., C, out]`."""
        if sum(rows.shape[-2] for rows, _ in self.kept) >= ROWS:
            self._multiply()
        self.kept.append((z, dy))

    def ask(self, z: Tensor, dy: Tensor) -> None:
        """`sum dy z^T` over rows and samples: one product, or one for every head."""
        if z.dim() > 3:
            left, right = self._sides(z, dy)
            given = lying(left.mT @ right, self.leaf).sum(0)
            self.asked = given if self.asked is None else self.asked.add_(given)
            return
        left, right = self._sides(z.flatten(0, -2), dy.flatten(0, -2))
        if self.asked is None:
            self.asked = lying(left.mT @ right, self.leaf)
        else:
            lying(self.asked, self.leaf).addmm_(left.mT, right)

    def _sides(self, z: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        """Rows `left`, `right`, so that `left^T right` is the gradient as it lies."""
        return (z, dy) if self.leaf.shape[-2] >= self.leaf.shape[-1] else (dy, z)

    def take(self) -> Tensor | None:
        """The gradient gathered since the last time, `None` if nothing reached the weight."""
        if self.kept:
            self._multiply()
        total, self.total = self.total, None
        other = self.leaf.grad if self.leaf.is_leaf else None
        if other is not None:
            self.leaf.grad = None
        if total is None:
            return other
        self.room = total
        return total if other is None else other.add_(total)

    @property
    def descends(self) -> bool:
        """Whether `descend` is the way: matrices, one per sample, that are large."""
        large = self.leaf.dim() == 3 and 2 * self.leaf[0].numel() * self.leaf.element_size() > PIECE
        large = large or gathers(self.leaf, self.kept)
        return large and self.leaf.is_cpu and bool(self.kept) and self.leaf.grad is None

    @torch.no_grad()
    def descend(self, new: Tensor, rate: float, total: Tensor | None) -> None:
        """`W - rate g` into `new [B, out, in]`, and the sum of `g` over the samples onto `total [out, in]`.

        `g` is the gradient gathered since the last time; it is formed piece by piece and not kept.
        """
        gathered = None if self.total is None else lying(self.total, new)
        old = lying(self.leaf.detach() if self.shared is None else self.shared, new)
        made = lying(new, new)
        total = None if total is None else lying(total, new)
        self.room, self.total = self.room if self.total is None else self.total, None
        if gathers(made, self.kept) and _lie_plainly(old, made, total):
            descend(self._pairs(), gathered, step=(old, made, rate), total=total)
            return
        lefts, rights = self._joined()
        shorter, longer = made.shape[1:]
        old = old.expand_as(made)
        room = lefts.new_empty(max(PIECE // lefts.element_size(), shorter))
        for across, along in _pieces(shorter, longer, len(room)):
            part = None if total is None else total[across, along]
            for b, (left, right) in enumerate(zip(lefts[:, across], rights[:, :, along], strict=True)):
                if gathered is None:
                    place = room[: left.shape[0] * right.shape[1]].view(left.shape[0], right.shape[1])
                    g = torch.mm(left, right, out=place)
                else:
                    g = gathered[b, across, along].addmm_(left, right)
                if part is not None:
                    part.add_(g)
                torch.sub(old[b, across, along], g, alpha=rate, out=made[b, across, along])

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        """The rows kept, those of the shorter side of the matrix first; they are kept no more."""
        kept, self.kept = self.kept, []
        return [self._sides(z, dy) for z, dy in kept]

    def _joined(self) -> tuple[Tensor, Tensor]:
        """The rows kept, `left [X, n, R]` and `right [X, R, m]` for every matrix; they are kept no more."""
        z, dy = (torch.cat(rows, -2) if len(rows) > 1 else rows[0] for rows in zip(*self.kept, strict=True))
        self.kept = []
        left, right = self._sides(z.flatten(0, -3), dy.flatten(0, -3))
        return left.mT, right

    @torch.no_grad()
    def _multiply(self) -> None:
        made = self.room if self.total is None else self.total
        made = laid(self.leaf.detach()) if made is None else made
        place = lying(made, self.leaf)
        if gathers(place, self.kept) and _lie_plainly(place):
            descend(self._pairs(), None if self.total is None else place, kept=place)
            self.room = self.total = made
            return
        left, right = self._joined()
        place = place.view(-1, *place.shape[-2:])
        if self.total is None:
            torch.bmm(left, right, out=place)
        else:
            place.baddbmm_(left, right)
        self.room = self.total = made


def _lie_plainly(*arrays: Tensor | None) -> bool:
    return all(x is None or x.is_contiguous() for x in arrays)


def _pieces(inner: int, outer: int, most: int) -> Iterator[tuple[slice, slice]]:
    """A matrix in pieces of at most `most` elements, cut across its longer side."""
    shorter, longer = sorted((inner, outer))
    step = max(1, most // shorter)
    whole = slice(0, shorter)
    for start in range(0, longer, step):
        part = slice(start, min(start + step, longer))
        yield (part, whole) if inner > outer else (whole, part)


class KeptWeight(Tensor):
    """A weight that knows its `rows`; `turned`: its transpose is meant.

    A product of rows with the transpose is the one of `Rows`; in everything else the variable stands for it.
    """

    rows: Rows
    turned: bool

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        first: Any = args[0] if args else None
        if func == Tensor.mT.__get__:  # type: ignore[attr-defined]
            made = first.rows.weight()
            made.turned = not first.turned
            return made
        if func in PRODUCTS and len(args) == 2 and isinstance(args[1], KeptWeight) and args[1].turned:
            if not isinstance(first, KeptWeight) and args[1].rows.takes(first):
                return args[1].rows.product(first)
        return func(*map(_variable, args), **{k: _variable(v) for k, v in (kwargs or {}).items()})


def _variable(value: Any) -> Any:
    """The variable in place of a weight, inside of lists too."""
    if isinstance(value, KeptWeight):
        return value.rows.leaf.mT if value.turned else value.rows.leaf
    if isinstance(value, list | tuple):
        return type(value)(map(_variable, value))
    return value


class _Product(torch.autograd.Function):
    """`y = z W^T`; backward: `dz = dy W`, and the rows of `dW` to whoever keeps them."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, rows: Rows) -> Tensor:
        ctx.save_for_backward(z)
        ctx.weight = rows.read
        ctx.rows = rows
        return product(z, ctx.weight.mT)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        (z,), dy = ctx.saved_tensors, grads[0]
        ctx.rows.meet(z.detach(), dy)
        return product(dy, ctx.weight) if ctx.needs_input_grad[0] else None, None, None
