"""An emitted chunk step and its backward pass as functions of lanes, for arguments of one form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from nldsl.native.graph import UnsupportedError
from nldsl.native.lanes import Lanes, layout_of
from nldsl.native.pairs import Pair, paired
from nldsl.native.places import Named, Place, Tensors, one_by_one

FEW = 2
"""Samples whose lanes torch computes one by one, before C is asked."""


class StepForm:
    """A step with `axes` lane axes; `paths` are the tensors that it reads of its module."""

    def __init__(
        self,
        step: Callable[..., Any],
        back: Callable[..., Any],
        axes: int,
        places: tuple[list[Place], list[Place]],
        paths: Sequence[str],
        asked: Sequence[int],
        found: tuple[int, int, bool],
    ) -> None:
        """`asked`: which of `paths` the parameters are whose gradients the backward pass returns.

        `found`: how many results the step has, how many inverses it keeps, whether its results are a tuple.
        """
        self.step, self.back, self.axes, self.paths = step, back, axes, tuple(paths)
        self.arguments, self.parameters = places
        self.count = len(self.arguments)
        self.sent = [*self.arguments[:-1], *(self.parameters[i] for i in asked)]
        """Where the gradients go: to the arguments but `valid`, then to parameters."""
        self.results, self.writes, self.many = found
        # What torch compiles around a step calls lanes, and does not look into them.
        self._called, self._called_back = (
            torch.compiler.disable(self._step),
            torch.compiler.disable(self._back),
        )
        self.ahead, self.behind = Lanes(self._ahead, axes=axes), Lanes(self._behind, axes=axes)
        self.pairs: dict[object, Pair | None] = {}
        """The two, keeping more between them, for every type and layout of arguments."""
        self.lean: dict[str, None] = {}
        """Why there is no such pair for some."""
        self._lock = RLock()

    def bound(self, values: Sequence[Tensor], spare: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The step and its backward pass as they are called where they are emitted, with these `paths`.

        `spare`: they keep no more than the emitted ones do.
        """
        # The way back is that of this way forward, however what is kept lies in memory when it comes back.
        taken: list[Pair | None] = []
        return partial(self._called, values, spare, taken), partial(self._called_back, values, taken)

    def _step(self, values: Sequence[Tensor], spare: bool, taken: list[Pair | None], *given: Any) -> Any:
        arguments = given[: self.count]
        taken[:] = [None if spare else self.pair(arguments, values)]
        if len(given) == self.count:
            # Nobody asks for what is kept.
            return self._given(self.ahead(*self._laned(arguments, values)))
        found, kept = self.forward(arguments, values, taken[0])
        for inverses in given[self.count :]:
            inverses += kept
        return found

    def _back(self, values: Sequence[Tensor], taken: list[Pair | None], *given: Any) -> list[Tensor | None]:
        kept, *grads = given[self.count :]
        return self.backward(given[: self.count], values, kept, grads, taken[0])

    def pair(self, arguments: Tensors, values: Tensors) -> Pair | None:
        """The two for such arguments; `None` where there are none: then each goes alone, or torch does."""
        given = self._laned(arguments, values)
        key = layout_of(given, self.axes)
        with self._lock:
            if key not in self.pairs:
                self.pairs[key] = None
                try:
                    self.pairs[key] = paired(self._ahead, self._behind, given, self.axes, self.results)
                except UnsupportedError as error:
                    self.lean[str(error)] = None
            return self.pairs[key]

    def by_lanes(self, arguments: Tensors, values: Tensors) -> list[Tensor]:
        """What the step gives for the first samples, each lane alone, by torch."""
        given = self._laned([self._first(i, x) for i, x in enumerate(arguments)], values)
        found = one_by_one(self._ahead, given, self.axes)[: self.results]
        return [x for x in found if x is not None]

    def _first(self, place: int, x: Tensor | None) -> Tensor | None:
        # A copy: a step may write over what it was given.
        return None if x is None else (x[:FEW] if self.arguments[place].batch else x).clone()

    def forward(
        self, arguments: Tensors, values: Tensors, pair: Pair | None = None
    ) -> tuple[Any, list[Tensor | None]]:
        """What the step returns, and what it keeps: as without lanes, and with a `pair` more behind it."""
        given, more = self._laned(arguments, values), list[Tensor]()
        if pair is None:
            found = self.ahead(*given)
        else:
            found, more = pair.forward(given)
        packed = [None if x is None else x.flatten(0, self.axes) for x in found[self.results :]]
        return self._given(found), [*packed, *more]

    def _given(self, found: Tensors) -> Any:
        """What the step returns, of what lanes give."""
        return tuple(found[: self.results]) if self.many else found[0]

    def backward(
        self,
        arguments: Tensors,
        values: Tensors,
        kept: Tensors,
        grads: Sequence[Tensor],
        pair: Pair | None = None,
    ) -> list[Tensor | None]:
        """What the backward pass returns, with the `pair` of the way forward."""
        lanes, own = grads[0].shape[: self.axes], kept[: self.writes]
        unpacked = [None if x is None else x.unflatten(0, (*lanes, -1)) for x in own]
        rest = [*unpacked, *(g.contiguous() for g in grads)]
        given = [*self._laned(arguments, values), *rest]
        if pair is None:
            flows = self.behind(*given)
        else:
            flows = pair.backward(given, [x for x in kept[self.writes :] if x is not None])
        return [
            None if d is None else place.summed(d, self.axes)
            for place, d in zip(self.sent, flows, strict=True)
        ]

    def _laned(self, arguments: Tensors, values: Tensors) -> list[Tensor | None]:
        places = (*self.arguments, *self.parameters)
        given = (*arguments, *values)
        return [
            None if x is None else place.laned(x, self.axes) for place, x in zip(places, given, strict=True)
        ]

    def _own(self, laned: Tensors) -> tuple[Named, list[Tensor | None]]:
        """The module and the arguments of a step, from those of lanes."""
        places = (*self.arguments, *self.parameters)
        own = [None if x is None else p.own(x, self.axes) for p, x in zip(places, laned, strict=True)]
        return Named(dict(zip(self.paths, own[self.count :], strict=True))), own[: self.count]

    def _ahead(self, *laned: Tensor | None) -> list[Tensor | None]:
        """Of lanes: results, then inverses."""
        module, arguments = self._own(laned)
        kept: list[Tensor | None] = []
        found = self.step(module, *arguments, kept)
        results = list(found) if self.many else [found]
        lanes = results[0].shape[: self.axes]
        return [*results, *(None if x is None else x.unflatten(0, (*lanes, -1)) for x in kept)]

    def _behind(self, *laned: Tensor | None) -> Tensors:
        """Of lanes: gradients, each with all lane axes."""
        if max(x.shape[: self.axes].numel() for x in laned if x is not None) > 1:
            # What lanes share gets the sum of all gradients, and each is asked for its own.
            return one_by_one(self._behind, laned, self.axes)
        given = self.count + len(self.paths)
        module, arguments = self._own(laned[:given])
        rest = laned[given:]
        kept = [None if x is None else x.flatten(0, self.axes) for x in rest[: self.writes]]
        flows = self.back(module, *arguments, kept, *rest[self.writes :])
        return [
            None if d is None else place.laned(d, self.axes)
            for place, d in zip(self.sent, flows, strict=True)
        ]
