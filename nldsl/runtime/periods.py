"""Segments of a training pass over samples in step: few passes over the fast weights.

With 64 tokens a segment, a pass over the weights of every sample costs about a twentieth of the matrix
products they take part in.  So the weights themselves are the variables, made once per period of C tokens:
their gradient is what is pending and, summed over the samples, the parameter's (first-order) gradient.
They lie in memory with their longer axis last (`kept_rows.lying`).

`exact` goes through the sequence once more, from its end to its beginning: gradients are linear in what is
asked of a segment, and its own loss has been asked already.  What is left comes from later losses through
the state handed on, and so only through what lies below the uppermost state; nothing above is done twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.ahead import Ahead
from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.kept_rows import Rows, laid, lying
from nldsl.runtime.module import Module
from nldsl.runtime.segments import Segments, reset_all
from nldsl.runtime.state import map_tree
from nldsl.runtime.task import Key, PlacedTask, Weights, get_at, nothing, prepare, put_at, variable
from nldsl.runtime.task_step import Due, apply_by_sample, apply_rule, step

WHOLE = "whole"
"""The entry of a task memory under which reads find its weights, parameter and delta in one."""


class Periods(Segments):
    """As `Segments`, for calls with `backward` in which all samples stand at the same count.

    A segment is back-propagated at once, and the variables gather gradients until their period ends.  Under
    `exact` its graph stays, and the state that crosses an edge is cut: variables behind it, which gather
    what later losses ask of the state.
    """

    def __init__(self, tasks: list[PlacedTask], carry: str, backward: float, like: Tensor) -> None:
        super().__init__(tasks, carry, backward, like)
        self.owned = {task.keys: task.parameters for task in self.moving}
        self.moving = [
            replace(t, parameters={n: _constant(p) for n, p in t.parameters.items()}) for t in self.moving
        ]
        self.weights: dict[tuple[Key, ...], Weights] = {}
        """The variables, while a period lasts."""
        self.rows: dict[tuple[Key, ...], dict[str, Rows]] = {}
        """Where gradients of matrices are gathered."""
        self.totals: dict[tuple[Key, ...], Weights] = {}
        """Gradients of the parameters, so far."""
        self.used: list[tuple[PlacedTask, str, Tensor, Rows | None]] = []
        """Under `exact`: all variables of all periods."""
        self.edges: list[tuple[list[Tensor], list[Tensor]]] = []
        """Under `exact`: what came to an edge with a history, and the variables behind it."""
        self.done: Ahead | None = None
        """What stands in front of the first task memory."""
        self.late: set[tuple[Key, ...]] = set()
        """Memories whose deltas are behind their weights: made up for at the end."""
        sources = {task.source for task in tasks}
        self.plain = {
            t.keys
            for t in tasks
            if not t.memory.reset and t.memory.toward == "zero" and t.keys not in sources
        }
        """Memories that are nothing but stepped: nobody looks at their deltas before the end."""

    @property
    def at_once(self) -> bool:
        """Each segment is back-propagated as soon as it is done."""
        return True

    @property
    def exact(self) -> bool:
        """Whether what crosses an edge keeps its history."""
        return self.carry == "exact"

    def look_ahead(self, root: Module, streams: Sequence[Tensor], state: Any, grid: ChunkGrid) -> None:
        """Under `exact` nothing is cut in front of the first task memory: that is done at once."""
        if self.exact and self.tasks and len(grid) > 1 and grid.plain:
            self.done = Ahead(root, streams, state, grid.widths)

    def ahead(self, number: int) -> AbstractContextManager[None]:
        """The parts of one segment of what is done."""
        return nullcontext() if self.done is None else self.done.segment(number)

    def open(self, state: Any) -> Any:
        """The state with whole weights to read: `parameter + delta`, made where a period begins."""
        state = self._cut(state) if self.exact else state
        for task in self.moving:
            entry = get_at(state, task.keys)
            if task.keys not in self.weights:
                entry, moved = prepare(task, entry, self.like), entry["delta"] is not None
                self.weights[task.keys] = {
                    n: self._whole(task, n, d, moved) for n, d in entry["delta"].items()
                }
                self._gather_anew(task, moved)
            whole = self.weights[task.keys]
            whole = whole | {name: rows.weight() for name, rows in self.rows[task.keys].items()}
            state = put_at(state, task.keys, {**entry, WHOLE: whole})
        return state

    def _cut(self, state: Any) -> Any:
        """Variables in place of what has a history."""
        ends: list[Tensor] = []
        starts: list[Tensor] = []

        def cut(x: Tensor) -> Tensor:
            if not x.requires_grad:
                return x
            ends.append(x)
            starts.append(variable(x))
            return starts[-1]

        state = map_tree(cut, state)
        self.edges.append((ends, starts))
        return state

    def _gather_anew(self, task: PlacedTask, moved: bool) -> None:
        """Rows for the matrices of a memory whose variables have just been made."""
        self.rows[task.keys] = {}
        for name, weight in self.weights[task.keys].items():
            start = task.parameters[name]
            # A tensor of another class is its own business.
            if weight.dim() > 2 and type(weight.detach()) is Tensor:
                self.rows[task.keys][name] = Rows(weight, None if moved or start is None else start)
        self._note(task)

    def _note(self, task: PlacedTask) -> None:
        if self.exact:
            rows = self.rows[task.keys]
            self.used += [(task, n, weight, rows.get(n)) for n, weight in self.weights[task.keys].items()]

    def _whole(self, task: PlacedTask, name: str, delta: Tensor, moved: bool) -> Tensor:
        start = task.parameters[name]
        if start is None:
            return variable(delta)
        return variable(start + delta.detach() if moved else start.expand_as(delta))

    def close(self, state: Any, loss: Tensor, felt: int | Tensor, full: bool | Tensor, last: bool) -> Any:
        """Back-propagate; at the edge what is due steps and starts anew."""
        state = self._without(self.count(state, felt))
        if loss.requires_grad:
            (loss * self.backward).backward(retain_graph=self.exact and not last)
        if last or not self.exact:
            state = map_tree(lambda x: x.detach(), state)
        if not self.tasks or full is False:
            return state
        due = Due()
        for task in self.moving:
            entry = get_at(state, task.keys)
            resets = bool(task.memory.reset) and due(entry, felt, task.memory.reset, task.memory.reset)
            if due(entry, felt, task.memory.every, task.memory.reset):
                state = put_at(state, task.keys, self._step(task, self._flush(task, entry, True)))
            elif resets:
                state = put_at(state, task.keys, self._flush(task, entry))
                del self.weights[task.keys]
        return reset_all(self.tasks, state, felt, due)

    def _without(self, state: Any) -> Any:
        for task in self.moving:
            entry = get_at(state, task.keys)
            state = put_at(state, task.keys, {k: v for k, v in entry.items() if k != WHOLE})
        return state

    @torch.no_grad()
    def _flush(self, task: PlacedTask, entry: dict[str, Any], due: bool = False) -> dict[str, Any]:
        """What the variables have gathered: to what is pending, and summed over samples to the parameter.

        Rows that are `due` to move a weight by plain descent stay where they are: `_move` takes them.
        """
        gathered: dict[str, Tensor | None] = {}
        for name, weight in self.weights[task.keys].items():
            rows = self.rows[task.keys].get(name)
            if due and rows is not None and self._descends(task) and rows.descends:
                continue
            g = weight.grad if rows is None else rows.take()
            weight.grad, gathered[name] = None, g
            if g is None:
                continue
            self._add(task, name, g)
            if self.backward != 1.0:
                g.div_(self.backward)
        return _pending(entry, gathered)

    def _descends(self, task: PlacedTask) -> bool:
        memory = task.memory
        return task.keys in self.plain and memory.descent is not None and not memory.remembered

    def _add(self, task: PlacedTask, name: str, g: Tensor, each: bool = True) -> None:
        """Add to the gradient of a parameter that wants one, `g` of `each` sample or of all together."""
        parameter = self.owned[task.keys][name]
        if parameter is not None and parameter.requires_grad:
            totals = self.totals.setdefault(task.keys, {})
            total = totals.get(name)
            totals[name] = _over_samples(g, total) if each else g if total is None else total.add_(g)

    @torch.no_grad()
    def _step(self, task: PlacedTask, entry: dict[str, Any]) -> dict[str, Any]:
        """The rule, on whole weights where nothing but the next reads depends on them."""
        if task.keys not in self.plain:
            del self.weights[task.keys]
            return {**step(task, entry, True), "pending": {}}
        new: Weights = {}
        slots = dict(entry["slots"])
        for name, weight in self.weights[task.keys].items():
            rows = self.rows[task.keys].get(name)
            if rows is not None and not task.memory.remembered:
                # The graph of earlier segments still needs the old values under `exact`.
                made, kept = rows.values(anew=self.exact), Weights()
                self._move(task, entry, name, rows, made)
            else:
                made, kept = apply_rule(task, entry, name, weight.detach())
            new[name] = made.detach().requires_grad_()
            slots |= kept
            if rows is not None:
                rows.leaf, rows.shared = new[name], None
        self.weights[task.keys] = new
        self._note(task)
        self.late.add(task.keys)
        return {**entry, "pending": {}, "slots": slots}

    def _move(self, task: PlacedTask, entry: dict[str, Any], name: str, rows: Rows, out: Tensor) -> None:
        """A rule without memories, in place of the old weights where these are nobody else's."""
        old, rate = self.weights[task.keys][name].detach(), task.memory.descent
        if rate is None:
            apply_by_sample(task, entry, name, old, out)
            return
        pending = entry["pending"][name]
        if not rows.kept:
            torch.sub(old, pending, alpha=rate, out=out)
            return
        parameter, total = self.owned[task.keys][name], None
        if parameter is not None and parameter.requires_grad:
            totals = self.totals.setdefault(task.keys, {})
            if name not in totals:
                totals[name] = laid(out[0]).zero_()
            total = totals[name]
        rows.descend(out, rate / self.backward, total)
        # An earlier call may have left something of this period.
        if any(pending.stride()):
            out.sub_(pending, alpha=rate)

    def finish(self, state: Any) -> Any:
        """Periods that go on in the next call leave what they have gathered; deltas catch up."""
        for task in self.moving:
            if task.keys in self.weights:
                state = put_at(state, task.keys, self._flush(task, get_at(state, task.keys)))
        self._replay()
        self._give()
        for task in self.moving:
            entry = get_at(state, task.keys)
            if task.keys in self.late:
                whole = {n: w.detach() for n, w in self.weights[task.keys].items()}
                starts = task.parameters
                # The weights are not needed any more: their place is taken by what they differ in.
                entry = {**entry, "delta": {n: _less(w, starts[n]) for n, w in whole.items()}}
            state = put_at(state, task.keys, prepare(task, entry, self.like) if entry["delta"] else entry)
        return map_tree(lambda x: x.detach(), state)

    def _replay(self) -> None:
        """What later losses ask of each segment, the last edge first."""
        for _, _, _, rows in self.used:
            if rows is not None:
                rows.gathering = False
        while self.edges:
            ends, starts = self.edges.pop()
            asked = [(end, start.grad) for end, start in zip(ends, starts, strict=True)]
            asked = [(end, g) for end, g in asked if g is not None]
            if asked:
                torch.autograd.backward([end for end, _ in asked], [g for _, g in asked])
        if self.done is not None:
            self.done.back()
        for task, name, leaf, rows in self.used:
            if leaf.grad is not None:
                self._add(task, name, leaf.grad)
                leaf.grad = None
            if rows is not None and rows.asked is not None:
                self._add(task, name, rows.asked, each=False)
                rows.asked = None

    @torch.no_grad()
    def _give(self) -> None:
        """Their gradients to the parameters."""
        for keys, totals in self.totals.items():
            for name, total in totals.items():
                parameter = self.owned[keys][name]
                assert parameter is not None
                parameter.grad = total.contiguous() if parameter.grad is None else parameter.grad.add_(total)


def _constant(parameter: Tensor | None) -> Tensor | None:
    """The same values as a constant, laid out as weights of task memories are."""
    if parameter is None or parameter.dim() < 2:
        return None if parameter is None else parameter.detach()
    constant = parameter.detach()
    return lying(lying(constant, constant).contiguous(), constant)


def _over_samples(g: Tensor, total: Tensor | None) -> Tensor:
    """`total` and the sum of `g` over the batch, as one product with ones: much faster than `sum(0)`."""
    flat = lying(g, g) if g.dim() > 2 else g
    if type(g) is not Tensor or not flat.is_contiguous():
        return g.sum(0) if total is None else total.add_(g.sum(0))
    if total is None:
        total = laid(g[0]).zero_() if g.dim() > 2 else torch.zeros_like(g[0])
    place = lying(total, g) if g.dim() > 2 else total
    place.view(-1).addmv_(flat.view(g.shape[0], -1).T, g.new_ones(g.shape[0]))
    return total


def _less(weight: Tensor, start: Tensor | None) -> Tensor:
    return weight if start is None else weight.sub_(start)


def _added(entry: dict[str, Any], gathered: dict[str, Tensor | None]) -> dict[str, Any]:
    """Gathered gradients added to those pending."""
    pending = dict(entry["pending"])
    for name, g in gathered.items():
        if g is not None:
            pending[name] = g if name not in pending else pending[name] + g
    return {**entry, "pending": pending}


def _pending(entry: dict[str, Any], gathered: dict[str, Tensor | None]) -> dict[str, Any]:
    """The same, and zeros where nothing is pending: what has just stepped has no entry."""
    found = _added(entry, gathered)
    missing = {
        n: nothing(d.detach(), *d.shape) for n, d in entry["delta"].items() if n not in found["pending"]
    }
    return {**found, "pending": found["pending"] | missing}
