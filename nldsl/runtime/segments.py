"""Segments of `learn`: variables before each, gradients, rules and resets behind it (Eq. 71-72)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.module import Module
from nldsl.runtime.state import map_tree
from nldsl.runtime.task import PlacedTask, gather, get_at, prepare, put_at, reopen, variables
from nldsl.runtime.task_step import Due, reset, step


class Segments:
    """The general way: samples may stand anywhere in their segments, and the loss stays differentiable.

    The deltas of a segment are its variables.  `carry` and `backward` as in `Model.learn`.
    """

    def __init__(self, tasks: list[PlacedTask], carry: str, backward: float, like: Tensor) -> None:
        self.tasks = tasks
        self.moving = [task for task in tasks if not task.memory.idle]
        self.carry = carry
        self.backward = backward
        self.like = like

    @property
    def at_once(self) -> bool:
        """Whether each segment is back-propagated as soon as it is done."""
        return bool(self.backward) and self.carry == "trunc"

    def look_ahead(self, root: Module, streams: Sequence[Tensor], state: Any, grid: ChunkGrid) -> None:
        """Before the first segment: what can be done for all of them."""

    def ahead(self, number: int) -> AbstractContextManager[None]:
        """Around the pass forward of one segment, for what has been done ahead of it."""
        return nullcontext()

    def open(self, state: Any) -> Any:
        """The state with the variables of the piece that comes."""
        for task in self.moving:
            state = put_at(state, task.keys, prepare(task, get_at(state, task.keys), self.like))
        return state

    def close(self, state: Any, loss: Tensor, felt: int | Tensor, full: bool | Tensor, last: bool) -> Any:
        """Gradients to what is pending; at the segment's edge the rules that are due, resets, constants."""
        ended, due = bool(self.tasks) and full is not False, Due()
        state = self.count(state, felt)
        found = [get_at(state, task.keys) for task in self.moving]
        gradients = iter(self._gradients(loss, [leaf for entry in found for leaf in variables(entry)]))
        if ended and self.carry == "trunc":
            state = map_tree(lambda x: choose(full, x.detach(), x) if x.requires_grad else x, state)
        for task, old in zip(self.moving, found, strict=True):
            entry = gather(old, gradients)
            if ended:
                entry = step(task, entry, due(entry, felt, task.memory.every, task.memory.reset))
            state = put_at(state, task.keys, entry)
        if ended:
            state = reset_all(self.tasks, state, felt, due)
            for task, old in zip(self.moving, found, strict=True):
                state = put_at(state, task.keys, reopen(get_at(state, task.keys), old["delta"], full))
        return map_tree(lambda x: x.detach(), state) if self.at_once else state

    def finish(self, state: Any) -> Any:
        """The state behind the last piece."""
        return state

    def count(self, state: Any, felt: int | Tensor) -> Any:
        """So many more errors are known."""
        for task in self.tasks:
            entry = get_at(state, task.keys)
            state = put_at(state, task.keys, {**entry, "count": entry["count"] + felt})
        return state

    def _gradients(self, loss: Tensor, leaves: list[Tensor]) -> list[Tensor | None]:
        if not loss.requires_grad:
            return [None] * len(leaves)
        if not self.at_once:
            if not leaves:
                return []
            return list(torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True))
        for leaf in leaves:
            leaf.grad = None
        (loss * self.backward).backward()
        found = [leaf.grad for leaf in leaves]
        return found if self.backward == 1.0 else [None if g is None else g / self.backward for g in found]


def reset_all(tasks: list[PlacedTask], state: Any, felt: int | Tensor, due: Due) -> Any:
    """Task memories whose `reset every N tokens` is over start anew, those that others start from first."""
    waiting = [t for t in tasks if t.memory.reset]
    while waiting:
        after = {t.keys for t in waiting}
        task = next(t for t in waiting if t.source not in after)
        waiting.remove(task)
        entry = get_at(state, task.keys)
        source: Any = None if task.source is None else get_at(state, task.source)
        over = due(entry, felt, task.memory.reset, task.memory.reset)
        state = put_at(state, task.keys, reset(task, entry, source, over))
    return state
