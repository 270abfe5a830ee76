"""How the arguments of a chunk step come into lanes: one lane is one head of one sample.

Steps take arguments `[B, H, ...]`, or `[B, ...]` where there are no heads, and weights that all samples share
without the axis of samples.  Lanes want all lane axes in front, of size 1 where an argument is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nldsl.native.graph import UnsupportedError

Tensors = Sequence[Tensor | None]


class Place(NamedTuple):
    """Which lane axes a tensor has: of the samples, of the heads."""

    batch: bool
    head: bool

    def laned(self, x: Tensor, axes: int) -> Tensor:
        """`x` with all lane axes, of size 1 where it has none.

        >>> Place(False, True).laned(torch.ones(4, 7), 2).shape
        torch.Size([1, 4, 7])
        """
        if axes == 2 and not self.head:
            x = x.unsqueeze(1 if self.batch else 0)
        return x if self.batch else x.unsqueeze(0)

    def own(self, x: Tensor, axes: int) -> Tensor:
        """What `laned` was given."""
        x = x if self.batch else x.squeeze(0)
        return x if axes == 1 or self.head else x.squeeze(1 if self.batch else 0)

    def summed(self, d: Tensor, axes: int) -> Tensor:
        """The gradient of `x` from that of `laned(x)` with lane axes of any size.

        >>> Place(False, True).summed(torch.ones(3, 4, 7), 2)[0, 0]
        tensor(3.)
        """
        if axes == 2 and not self.head:
            d = d.sum(1)
        return d if self.batch else d.sum(0)


class Named:
    """Stands for a module whose tensors are given: `self.alpha.readout.weight` by that path.

    >>> Named({"q[1].weight": 3}).q[1].weight
    3
    """

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._values, self._path = values, path

    def __getattr__(self, name: str) -> Any:
        return self._at(f"{self._path}.{name}" if self._path else name)

    def __getitem__(self, index: int) -> Any:
        return self._at(f"{self._path}[{index}]")

    def _at(self, path: str) -> Any:
        if path in self._values:
            return self._values[path]
        if any(p.startswith((f"{path}.", f"{path}[")) for p in self._values):
            return Named(self._values, path)
        raise AttributeError(path)


class Watched:
    """Stands for a module in front of it and notes which tensors are read, by their paths."""

    def __init__(self, module: Any, read: dict[str, Tensor], path: str = "") -> None:
        self._module, self._read, self._path = module, read, path

    def __getattr__(self, name: str) -> Any:
        return self._found(getattr(self._module, name), f"{self._path}.{name}" if self._path else name)

    def __getitem__(self, index: int) -> Any:
        return self._found(self._module[index], f"{self._path}[{index}]")

    def _found(self, value: Any, path: str) -> Any:
        if isinstance(value, nn.Module):
            return Watched(value, self._read, path)
        if isinstance(value, Tensor):
            self._read[path] = value
            return value
        raise UnsupportedError(f"its step asks its module for `{path}`, which is no tensor")


def places_of(
    arguments: Sequence[Tensor | None], shared: Sequence[int], parameters: Sequence[Tensor], axes: int
) -> tuple[list[Place], list[Place]]:
    """Where arguments and parameters have lanes, by their sizes; whether that is so is seen when they run.

    Raises `UnsupportedError` if no argument can have heads.
    """
    if axes == 1:
        found = [Place(i not in shared, False) for i in range(len(arguments))]
        return found, [Place(False, False)] * len(parameters)
    batched = [x for i, x in enumerate(arguments) if x is not None and i not in shared]
    widest = max(batched, key=lambda x: x.dim())
    if widest.dim() < 4:
        raise UnsupportedError("its memories have no heads")
    heads = widest.shape[1]
    found = []
    for i, x in enumerate(arguments):
        axis = 0 if i in shared else 1
        # Flags and numbers of tokens, `[B, C]`, are the same for all heads.
        headed = x is not None and x.is_floating_point() and x.dim() >= axis + 2 and x.shape[axis] == heads
        found.append(Place(i not in shared, headed))
    return found, [Place(False, p.dim() > 0 and p.shape[0] == heads) for p in parameters]


def one_by_one(function: Callable[..., Tensors], laned: Tensors, axes: int) -> Tensors:
    """What a function of lanes gives, called for each alone."""
    given = [x for x in laned if x is not None]
    lanes = [max(x.shape[i] for x in given) for i in range(axes)]

    def lane(x: Tensor | None, at: tuple[int, ...]) -> Tensor | None:
        for axis, i in enumerate(at):
            x = None if x is None else x.narrow(axis, i if x.shape[axis] > 1 else 0, 1)
        return x

    found = [function(*(lane(x, at) for x in laned)) for at in product(*map(range, lanes))]
    return [
        None if column[0] is None else torch.cat([x.flatten(0, axes - 1) for x in column]).unflatten(0, lanes)
        for column in zip(*found, strict=True)
    ]
