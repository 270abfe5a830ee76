"""What stands in front of the first task memory of a model, done once for all segments of a call.

No task memory moves it, so the blocks there see the whole sequence at once, as in a plain pass, and the
segments are given their part of what those blocks answer.  What segments ask of it is gathered in these
parts, and goes back through the blocks once, behind the last segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock, get_ident
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.module import Module
from nldsl.runtime.state import map_tree

Forward = Callable[..., Any]


NATIVE = "native_names"
"""What the forward pass of a block in native mode has: it answers as the one of its class does."""


class _ReachedError(Exception):
    """A block with task memories has been called."""


@dataclass
class _Answer:
    """What a block gave for the whole sequence: outputs `[B, T, ...]`, and its state behind them."""

    block: Module
    outputs: list[Tensor]
    state: Any
    parts: list[list[Tensor]]
    """For every segment so far, its part of every output."""


class Ahead:
    """The blocks of `root` that are called before the first one with task memories.

    `streams [B, T]`, `state` of the root, and the `widths` of the segments; nothing is masked.
    """

    def __init__(self, root: Module, streams: Sequence[Tensor], state: Any, widths: Sequence[int]) -> None:
        self.widths = widths
        self.answers: list[_Answer] = []
        self.blocks = list(_without_tasks(root, state))
        if not self.blocks or any(_changed(block) for block in _blocks(root)):
            return
        stops = {block: _stop for block in _blocks(root) if getattr(block, "tasks", ())}
        try:
            with _answering({**{block: self._record(block) for block in self.blocks}, **stops}):
                root(*streams, state, None)
        except _ReachedError:
            pass

    def _record(self, block: Module) -> Forward:
        forward = _own(block)

        def record(*given: Any) -> Any:
            *outputs, state = forward(*given)
            whole = given[0].shape[:2]
            if any(y.shape[:2] != whole for y in outputs):
                raise _ReachedError
            self.answers.append(_Answer(block, outputs, state, []))
            return *outputs, state

        return record

    @contextmanager
    def segment(self, number: int) -> Iterator[None]:
        """Inside, the pass forward of one segment runs: blocks that have answered give their part."""
        start, width = sum(self.widths[:number]), self.widths[number]
        waiting = iter(self.answers)

        def part(block: Module) -> Forward:
            forward = _own(block)

            def give(*given: Any) -> Any:
                answer = next(waiting, None)
                if answer is None:
                    return forward(*given)
                assert answer.block is block, "blocks are called in one order"
                parts = [_part(y, start, width) for y in answer.outputs]
                answer.parts.append(parts)
                last = number + 1 == len(self.widths)
                return *parts, map_tree(lambda x: x.detach(), answer.state if last else given[-2])

            return give

        with _answering({answer.block: part(answer.block) for answer in self.answers}):
            yield

    def back(self) -> None:
        """Back-propagate what all segments have asked."""
        asked = []
        for answer in self.answers:
            for y, *parts in zip(answer.outputs, *answer.parts, strict=True):
                if y.requires_grad and any(x.grad is not None for x in parts):
                    grads = [torch.zeros_like(x) if x.grad is None else x.grad for x in parts]
                    asked.append((y, torch.cat(grads, 1)))
        self.answers = []
        if asked:
            torch.autograd.backward([y for y, _ in asked], [g for _, g in asked])


def _part(y: Tensor, start: int, width: int) -> Tensor:
    return y.detach()[:, start : start + width].requires_grad_(y.requires_grad)


def _stop(*_: Any) -> Any:
    raise _ReachedError


def _changed(block: Module) -> bool:
    """Whether somebody has given a block another way to answer: it is left alone."""
    own = _native(block)
    return (own is not None and not hasattr(own, NATIVE)) or block._compiled_call_impl is not None


def _blocks(module: Module) -> Iterator[Module]:
    yield module
    for child in module.attached().values():
        yield from _blocks(child)


def _without_tasks(module: Module, state: Any) -> Iterator[Module]:
    """The uppermost blocks without task memories in them; none where a block above has states of its own.

    Those would be computed twice.
    """
    below = module.attached()
    names = {path.partition("[")[0] for path in below} | set(below)
    if getattr(module, "tasks", ()) or not set(state) <= names:
        return
    for path, child in below.items():
        name, _, index = path.partition("[")
        if path not in state and name not in state:
            own: Any = {}
        else:
            own = state[path] if path in state else state[name][int(index[:-1])]
        if any(getattr(block, "tasks", ()) for block in _blocks(child)):
            yield from _without_tasks(child, own)
        else:
            yield child


_turn = Lock()


class _Answering:
    """What answers in the place of a block: for each thread that has put something there, its own."""

    def __init__(self, block: Module, native: Forward | None) -> None:
        self.block, self.native = block, native
        self.threads: dict[int, Forward] = {}

    def __call__(self, *given: Any, **options: Any) -> Any:
        forward = self.threads.get(get_ident())
        return (_own(self.block) if forward is None else forward)(*given, **options)


@contextmanager
def _answering(forwards: dict[Module, Forward]) -> Iterator[None]:
    """Inside, and in this thread, these functions answer in the place of the blocks."""
    mine = get_ident()
    with _turn:
        for block, forward in forwards.items():
            there = block.__dict__.get("forward")
            if not isinstance(there, _Answering):
                block.__dict__["forward"] = there = _Answering(block, there)
            there.threads[mine] = forward
    try:
        yield
    finally:
        with _turn:
            for block in forwards:
                _leave(block, mine)


def _leave(block: Module, thread: int) -> None:
    """Take back what a thread has put there; behind the last one the block is as it was."""
    there = block.__dict__["forward"]
    del there.threads[thread]
    if not there.threads:
        del block.__dict__["forward"]
        if there.native is not None:
            block.__dict__["forward"] = there.native


def _native(block: Module) -> Forward | None:
    """The forward pass of a block in native mode, also while a thread has put an answer there."""
    own: Forward | None = block.__dict__.get("forward")
    return own.native if isinstance(own, _Answering) else own


def _own(block: Module) -> Forward:
    """What a block computes where nobody answers in its place."""
    native = _native(block)
    return partial(type(block).forward, block) if native is None else native
