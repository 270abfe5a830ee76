"""Many weights under one element-wise rule, operation by operation: torch takes a list of tensors at a time.

A call of torch costs a few microseconds, and a launch on a GPU, whatever it computes; for a list it costs
one launch.  The emitted `update` is the same: its operands are `Many` instead of tensors, or, of small
weights, one vector that holds them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import FunctionType, ModuleType
from typing import Any, Self

import torch
from torch import Tensor

from nldsl.runtime.rule_kernel import Kernel

MOST = 1 << 22
"""Elements of weights that are taken at a time, for every intermediate result takes as much memory."""
SMALL = 1 << 12
"""Elements of a weight, on average, up to which weights are made one vector."""
ONE = {
    name: getattr(torch, f"_foreach_{name}") for name in "abs cos erf exp log neg sign sin sqrt tanh".split()
}
"""Functions of one operand that torch has for lists."""


class Many:
    """A tensor for every weight; arithmetic is that of tensors, with numbers or with another of these."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)

    def copy_(self, other: Many | float) -> Self:
        """Write into the tensors."""
        if isinstance(other, Many):
            torch._foreach_copy_(self.tensors, other.tensors)
        else:
            for tensor in self.tensors:
                tensor.fill_(other)
        return self

    def clone(self) -> Many:
        """The same numbers elsewhere."""
        return Many([tensor.clone() for tensor in self.tensors])

    def __neg__(self) -> Many:
        return Many(torch._foreach_neg(self.tensors))

    def __add__(self, other: Many | float) -> Many:
        return Many(torch._foreach_add(self.tensors, _operand(other)))

    __radd__ = __add__

    def __sub__(self, other: Many | float) -> Many:
        return Many(torch._foreach_sub(self.tensors, _operand(other)))

    def __rsub__(self, other: float) -> Many:
        return -self + other

    def __mul__(self, other: Many | float) -> Many:
        return Many(torch._foreach_mul(self.tensors, _operand(other)))

    __rmul__ = __mul__

    def __truediv__(self, other: Many | float) -> Many:
        return Many(torch._foreach_div(self.tensors, _operand(other)))

    def __rtruediv__(self, other: float) -> Many:
        return Many([other / tensor for tensor in self.tensors])

    def __pow__(self, other: Many | float) -> Many:
        return Many(torch._foreach_pow(self.tensors, _operand(other)))

    def __rpow__(self, other: float) -> Many:
        return Many(torch._foreach_pow(other, self.tensors))


def _operand(other: Many | float) -> Any:
    return other.tensors if isinstance(other, Many) else other


class _Lifted:
    """A module whose functions take `Many`."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.module, name)
        return _Lifted(found) if isinstance(found, ModuleType) else _lifted(found, ONE.get(name))


@cache
def _lifted(function: Callable[..., Any], of_lists: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A function of tensors for every tensor of `Many`."""

    def lifted(*args: Any, **options: Any) -> Any:
        sizes = {len(a.tensors) for a in args if isinstance(a, Many)}
        if not sizes:
            return function(*args, **options)
        if of_lists is not None:
            return Many(of_lists(args[0].tensors))
        (size,) = sizes
        return Many([function(*(_at(a, i) for a in args), **options) for i in range(size)])

    return lifted


def _at(operand: Any, index: int) -> Any:
    return operand.tensors[index] if isinstance(operand, Many) else operand


@cache
def _of_many(update: FunctionType) -> Callable[..., None]:
    """An emitted update with functions that take `Many`."""
    own = update.__globals__
    known = {name: own[name] for name in update.__code__.co_names if name in own}
    made = {n: _Lifted(f) if isinstance(f, ModuleType) else _lifted(f) for n, f in known.items()}
    return FunctionType(update.__code__, made)


def listed(weight: Tensor) -> bool:
    """Whether torch takes such weights by lists; it rounds numbers to half precision there on a CPU."""
    return type(weight) is Tensor and (not weight.is_cpu or weight.dtype in (torch.float32, torch.float64))


def update_many(kernel: Kernel, rows: Sequence[Sequence[Tensor]], numbers: Sequence[float]) -> None:
    """One application of an element-wise rule; a row is a weight, its gradient and its memories."""
    for part in _parts(rows):
        if kernel.memories and _small(part):  # of a rule without, the copies are most of it
            _as_one(kernel, part, numbers)
            continue
        _of_many(kernel.update)(*(Many(column) for column in zip(*part, strict=True)), *numbers)


def _small(rows: Sequence[Sequence[Tensor]]) -> bool:
    """Whether weights are so small that copies of them cost less than the calls they save.

    A memory that is one number for a weight of many elements has no place in a vector of all of them.
    """
    sizes = [{tensor.numel() for tensor in row} for row in rows]
    return all(len(size) == 1 for size in sizes) and sum(map(max, sizes)) <= SMALL * len(rows)


def _as_one(kernel: Kernel, rows: Sequence[Sequence[Tensor]], numbers: Sequence[float]) -> None:
    """The weights as one long vector, since no element sees another."""
    columns = [[tensor.reshape(-1) for tensor in column] for column in zip(*rows, strict=True)]
    vectors = [torch.cat(column) for column in columns]
    kernel.update(*vectors, *numbers)
    sizes = [row[0].numel() for row in rows]
    for place, (column, vector) in enumerate(zip(zip(*rows, strict=True), vectors, strict=True)):
        if place != 1:  # the gradient stays what it is
            found = [made.view_as(own) for made, own in zip(vector.split(sizes), column, strict=True)]
            torch._foreach_copy_(list(column), found)


def _parts(rows: Sequence[Sequence[Tensor]]) -> Iterator[list[Sequence[Tensor]]]:
    """Rows of at most `MOST` elements together, or one alone."""
    part, size = list[Sequence[Tensor]](), 0
    for row in rows:
        if part and size + row[0].numel() > MOST:
            yield part
            part, size = [], 0
        part.append(row)
        size += row[0].numel()
    if part:
        yield part
