"""Segments of a training pass over samples in step: few passes over the fast weights.

With 64 tokens a segment, a pass over the weights of every sample costs about a twentieth of the matrix
products they take part in.  So the weights themselves are the variables, made once per period of C tokens:
their gradient is what is pending and, summed over the samples, the parameter's (first-order) gradient.
They lie in memory with their two axes exchanged, as the gradient of `z @ W.mT` comes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.kept_rows import Rows
from nldsl.runtime.segments import Segments, reset_all
from nldsl.runtime.state import map_tree
from nldsl.runtime.task import Key, PlacedTask, Weights, get_at, nothing, prepare, put_at
from nldsl.runtime.task_step import Due, apply_by_sample, apply_rule, step

WHOLE = "whole"
"""The entry of a task memory under which reads find its weights, parameter and delta in one."""


class Periods(Segments):
    """As `Segments`, for calls with `backward` in which all samples stand at the same count.

    Under `trunc` a segment is back-propagated at once, and the variables gather gradients until their period
    ends.  Under `exact` the graph stays: each segment reads an alias of the weights, by which its own
    loss is differentiated, and a last pass over all of it gives the parameters their gradients.
    """

    def __init__(self, tasks: list[PlacedTask], carry: str, backward: float, like: Tensor) -> None:
        super().__init__(tasks, carry, backward, like)
        owned = {task.keys: task.parameters for task in self.moving}
        self.moving = [
            replace(t, parameters={n: _flipped(p) for n, p in t.parameters.items()}) for t in self.moving
        ]
        self.owned = owned
        self.weights: dict[tuple[Key, ...], Weights] = {}
        """The variables (`trunc`) or what the aliases are of (`exact`), while a period lasts."""
        self.rows: dict[tuple[Key, ...], dict[str, Rows]] = {}
        """Where gradients of matrices are gathered."""
        self.every_rows: list[Rows] = []
        self.aliases: dict[tuple[Key, ...], Weights] = {}
        self.late: set[tuple[Key, ...]] = set()
        """Memories whose deltas are behind their weights: made up for at the end."""
        sources = {task.source for task in tasks}
        self.plain = {
            t.keys
            for t in tasks
            if not t.memory.reset and t.memory.toward == "zero" and t.keys not in sources
        }
        """Memories that are nothing but stepped: nobody looks at their deltas before the end."""

    def open(self, state: Any) -> Any:
        """The state with whole weights to read: `parameter + delta`, made where a period begins."""
        for task in self.moving:
            entry = get_at(state, task.keys)
            if task.keys not in self.weights:
                entry, moved = prepare(task, entry, self.like), entry["delta"] is not None
                self.weights[task.keys] = {
                    n: self._whole(task, n, d, moved) for n, d in entry["delta"].items()
                }
                self._gather_anew(task, moved)
            whole = self.weights[task.keys]
            if not self.at_once:
                whole = {name: weight.view_as(weight) for name, weight in whole.items()}
                self.aliases[task.keys] = whole
            for name, rows in self.rows[task.keys].items():
                rows.leaf = whole[name]
            whole = whole | {name: rows.weight() for name, rows in self.rows[task.keys].items()}
            state = put_at(state, task.keys, {**entry, WHOLE: whole})
        return state

    def _gather_anew(self, task: PlacedTask, moved: bool) -> None:
        """Rows for the matrices of a memory whose variables have just been made."""
        self.rows[task.keys] = {}
        for name, weight in self.weights[task.keys].items():
            start = task.parameters[name]
            # A tensor of another class is its own business.
            if weight.dim() > 2 and type(weight.detach()) is Tensor:
                shared = None if moved or start is None else start.detach()
                rows = Rows(weight, shared, None if self.at_once else start)
                self.rows[task.keys][name] = rows
                self.every_rows.append(rows)

    def _whole(self, task: PlacedTask, name: str, delta: Tensor, moved: bool) -> Tensor:
        start = task.parameters[name]
        if start is None:
            return delta.detach().requires_grad_()
        made = start + delta.detach() if moved else start.expand_as(delta)
        return made if made.requires_grad and not self.at_once else made.detach().requires_grad_()

    def close(self, state: Any, loss: Tensor, felt: int | Tensor, full: bool | Tensor) -> Any:
        """Back-propagate, or differentiate by the aliases; at the edge what is due steps and starts anew."""
        state = self.count(state, felt)
        state = self._at_once(state, loss) if self.at_once else self._apart(state, loss)
        if not self.tasks or full is False:
            return state
        due = Due()
        for task in self.moving:
            entry = get_at(state, task.keys)
            resets = bool(task.memory.reset) and due(entry, felt, task.memory.reset, task.memory.reset)
            if due(entry, felt, task.memory.every, task.memory.reset):
                state = put_at(state, task.keys, self._step(task, self._flush(task, entry)))
            elif resets:
                state = put_at(state, task.keys, self._flush(task, entry))
                del self.weights[task.keys]
        return reset_all(self.tasks, state, felt, due)

    def _at_once(self, state: Any, loss: Tensor) -> Any:
        if loss.requires_grad:
            (loss * self.backward).backward()
        return map_tree(lambda x: x.detach(), self._without(state))

    def _apart(self, state: Any, loss: Tensor) -> Any:
        aliases = [(task, self.aliases[task.keys]) for task in self.moving]
        state = self._without(state)
        leaves = [alias for _, whole in aliases for alias in whole.values()]
        if not leaves or not loss.requires_grad:
            return state
        found = iter(torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True))
        for task, whole in aliases:
            gathered: dict[str, Tensor | None] = {name: next(found) for name in whole}
            state = put_at(state, task.keys, _added(get_at(state, task.keys), gathered))
        return state

    def _without(self, state: Any) -> Any:
        for task in self.moving:
            entry = get_at(state, task.keys)
            state = put_at(state, task.keys, {k: v for k, v in entry.items() if k != WHOLE})
        return state

    @torch.no_grad()
    def _flush(self, task: PlacedTask, entry: dict[str, Any]) -> dict[str, Any]:
        """What the variables have gathered: to what is pending, and summed over samples to the parameter."""
        if not self.at_once:
            return _pending(entry, {name: rows.take() for name, rows in self.rows[task.keys].items()})
        gathered: dict[str, Tensor | None] = {}
        for name, weight in self.weights[task.keys].items():
            rows, parameter = self.rows[task.keys].get(name), self.owned[task.keys][name]
            g = weight.grad if rows is None else rows.take()
            weight.grad, gathered[name] = None, g
            if g is None:
                continue
            if parameter is not None and parameter.requires_grad:
                total = _over_samples(g)
                parameter.grad = total.contiguous() if parameter.grad is None else parameter.grad.add_(total)
            if self.backward != 1.0:
                g.div_(self.backward)
        return _pending(entry, gathered)

    @torch.no_grad()
    def _step(self, task: PlacedTask, entry: dict[str, Any]) -> dict[str, Any]:
        """The rule, on whole weights where nothing but the next reads depends on them."""
        if task.keys not in self.plain or not self.at_once:
            del self.weights[task.keys]
            return {**step(task, entry, True), "pending": {}}
        new: Weights = {}
        slots = dict(entry["slots"])
        for name, weight in self.weights[task.keys].items():
            rows = self.rows[task.keys].get(name)
            if rows is not None and not task.memory.remembered:
                made, kept = rows.values(), Weights()
                self._move(task, entry, name, made)
            else:
                made, kept = apply_rule(task, entry, name, weight.detach())
            new[name] = made.detach().requires_grad_()
            slots |= kept
            if rows is not None:
                rows.leaf, rows.shared = new[name], None
        self.weights[task.keys] = new
        self.late.add(task.keys)
        return {**entry, "pending": {}, "slots": slots}

    def _move(self, task: PlacedTask, entry: dict[str, Any], name: str, out: Tensor) -> None:
        """A rule without memories, in place of the old weights where these are nobody else's."""
        old = self.weights[task.keys][name].detach()
        if task.memory.descent is None:
            apply_by_sample(task, entry, name, old, out)
        else:
            torch.sub(old, entry["pending"][name], alpha=task.memory.descent, out=out)

    def replay(self) -> None:
        """Before the last pass of `exact`: what arrives now is for the parameters."""
        for rows in self.every_rows:
            rows.gathering = False

    @torch.no_grad()
    def finish(self, state: Any) -> Any:
        """Periods that go on in the next call leave what they have gathered; deltas catch up."""
        for task in self.moving:
            entry = get_at(state, task.keys)
            if task.keys in self.weights:
                entry = self._flush(task, entry)
            if task.keys in self.late:
                whole = {n: w.detach() for n, w in self.weights[task.keys].items()}
                starts = task.parameters
                # The weights are not needed any more: their place is taken by what they differ in.
                entry = {**entry, "delta": {n: _less(w, starts[n]) for n, w in whole.items()}}
            state = put_at(state, task.keys, prepare(task, entry, self.like) if entry["delta"] else entry)
        return map_tree(lambda x: x.detach(), state)


def _flipped(parameter: Tensor | None) -> Tensor | None:
    """The same values, the last two axes exchanged in memory."""
    if parameter is None or parameter.dim() < 2:
        return parameter
    return parameter.mT.contiguous().mT


def _over_samples(g: Tensor) -> Tensor:
    """The sum over the batch, as one product with ones: at these sizes much faster than `sum(0)`."""
    flat = g.mT if g.dim() > 2 else g
    if not flat.is_contiguous():
        return g.sum(0)
    total = torch.mv(flat.view(g.shape[0], -1).T, g.new_ones(g.shape[0])).view(flat.shape[1:])
    return total.mT if g.dim() > 2 else total


def _less(weight: Tensor, start: Tensor | None) -> Tensor:
    return weight if start is None else weight.sub_(start.detach())


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
