"""Memories that minimise the task: continuum memory systems (Eq. 70-74), and the segments of `learn`.

A task memory is the learned parameter plus a `delta` of the sequence's own, zero at the start.  Its
clock counts the tokens whose error it has felt: the error of position t is known when token t+1
arrives and counts then; `run` never moves it.  In `learn` the sequence is cut into segments, as long
as the smallest task clock.  At the end of a segment the gradient of its summed loss with respect to
the deltas is added to what is `pending`; at the end of a memory's own period of C tokens its rule runs
once on the pending gradient (Eq. 71, reading P9: exactly C tokens, summed).  Deltas are constants of
the outer problem, so the parameter receives the first-order meta-gradient through `parameter + delta`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from nldsl.reference.functions import Weights
from nldsl.reference.heads import gated, per_copy, stack, unstack
from nldsl.reference.inner import Scope, step_rule
from nldsl.reference.memory import ParametricMemory
from nldsl.reference.states import TaskState
from nldsl.spec.program import Memory, TaskWrite


class TaskMemory:
    """The meaning of one memory under `F minimizes task by rule`.

    Arguments of the rule that are values, and the gate of `retain`, are those of the last token
    before the step, as constants.
    """

    def __init__(self, memory: Memory, write: TaskWrite, scope: Scope, dtype: torch.dtype) -> None:
        if memory.clock.unit != "tokens":
            raise ValueError(f"`{memory.name}` minimises the task, so its clock must count tokens")
        self.memory = memory
        self.write = write
        self.scope = scope
        self.every = memory.clock.every
        self.map = ParametricMemory(memory, (), scope, dtype)
        self.source: TaskMemory | None = None

    @property
    def parameter(self) -> Weights:
        """The learned start: its own, or that of the memory it starts from (Eq. 72)."""
        return self.map.learned() if self.source is None else self.source.parameter

    def initial(self, source: TaskState | None = None) -> TaskState:
        """The state at a reset: delta zero, or for `init M2` the delta of M2."""
        parameter = self.parameter
        zero = {n: torch.zeros_like(w, requires_grad=False) for n, w in parameter.items()}
        delta = dict(zero) if source is None else dict(source.delta)
        slots = {
            name: {n: self.map.slot_start(slot, n, w) for n, w in zero.items()}
            for slot in self.write.rule.slots
            for name in (slot.name, slot.visible)
            if name
        }
        return TaskState(dict(delta), dict(zero), variables(delta), dict(delta), slots)

    def visible(self, state: TaskState) -> Weights:
        """`parameter + delta`, the delta being the variable of the segment under way."""
        return {n: w + state.leaf[n] for n, w in self.parameter.items()}

    def read(self, state: TaskState, key: Tensor) -> Tensor:
        """`F[key]`."""
        return self.map.answer(self.visible(state), key)

    def note(self, state: TaskState, values: Mapping[str, Tensor]) -> None:
        """The `minimizes` statement at a token: remember the rule's values."""
        state.arguments = {k: values[v.name].detach() for k, v in self.write.rule.arguments}
        state.gate = None if self.write.retain is None else values[self.write.retain.name].detach()

    def step(self, state: TaskState) -> None:
        """`W' = r + a (W - r) + delta` on the pending gradient; the new delta is a constant."""
        state.step += 1
        parameter = {n: w.detach() for n, w in self.parameter.items()}
        zero = {n: torch.zeros_like(w) for n, w in parameter.items()}
        start = {n: parameter[n] + state.anchor[n] for n in parameter}
        anchor = start if self.write.toward == "init" else zero
        kept = {n: parameter[n] + state.delta[n] - anchor[n] for n in parameter}
        gradients = unstack(state.pending, self.memory)
        slots = {name: unstack(w, self.memory) for name, w in state.slots.items()}
        gates = None
        if state.gate is not None and self.write.retain is not None:
            gates = per_copy(state.gate, self.memory, self.write.retain.kind)
        kinds = {k: v.kind for k, v in self.write.rule.arguments}
        arguments = {k: per_copy(v, self.memory, kinds[k]) for k, v in state.arguments.items()}
        result: list[Weights] = []
        with torch.no_grad():
            for h, copy in enumerate(unstack(kept, self.memory)):
                own = {k: v[h] for k, v in arguments.items()}
                new: Weights = {}
                for name, weight in copy.items():
                    before = {s: w[h][name] for s, w in slots.items()}
                    seen = {"g": gradients[h][name]}
                    stepped, after = step_rule(
                        self.write.rule, weight, seen, before, own, state.step, self.scope
                    )
                    for s, value in after.items():
                        slots[s][h][name] = value
                    retained = weight if gates is None else gated(weight, gates[h], "scalar")
                    new[name] = retained + stepped - weight
                result.append(new)
        moved = stack(result, self.memory)
        state.delta = {n: anchor[n] + moved[n] - parameter[n] for n in moved}
        state.slots = {name: stack(w, self.memory) for name, w in slots.items()}
        state.pending = zero


def variables(delta: Weights) -> Weights:
    """Fresh variables with the values of `delta`: what a segment differentiates by."""
    return {n: w.detach().clone().requires_grad_() for n, w in delta.items()}


def feel(states: Iterable[TaskState], loss: Tensor) -> None:
    """Add the gradient of `loss` with respect to the deltas to what is pending."""
    found = list(states)
    leaves = [leaf for s in found for leaf in s.leaf.values()]
    if not leaves or not loss.requires_grad:
        return
    grads = iter(torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True))
    for state in found:
        for name in state.leaf:
            g = next(grads)
            if g is not None:
                state.pending = {**state.pending, name: state.pending[name] + g.detach()}
