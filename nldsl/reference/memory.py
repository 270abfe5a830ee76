"""A memory with weights: the state machine of section 2 of the language.

Running state, committed state for `every C tokens` with C > 1, base of the inner gradient, program
order, and the commit after all statements of a token.  One object is one memory of one block; the
state of a sample is passed in and changed in place (it is private to the interpreter).

Order behind the last statement of a token: the count moves; at a multiple of C rules `at commit` run
and the running state becomes visible; at a multiple of b it becomes the base; at the end of its
period a memory with `reset every N tokens` starts anew with count 0, and what it had not committed is
lost.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nldsl.reference.functions import Weights, join
from nldsl.reference.heads import copies, gated, per_copy, shares, stack, unstack
from nldsl.reference.inner import Evidence, Lesson, Scope, add, evidence, read_map, slot_names, step_rule
from nldsl.reference.primitives import meaning
from nldsl.reference.states import ParametricState
from nldsl.spec.program import Function, Memory, Slot, Term, Update, Write

Values = Mapping[str, Tensor]


class ParametricMemory:
    """The meaning of reads, writes, updates and ticks of one memory.

    On a clock of steps it never changes in a sequence: its weights are parameters, which training moves.
    """

    def __init__(self, memory: Memory, writes: tuple[Write, ...], scope: Scope, dtype: torch.dtype) -> None:
        if memory.function is None:
            raise ValueError(f"`{memory.name}` has no map")
        self.memory = memory
        self.function: Function = memory.function
        self.writes = writes
        self.scope = scope
        self.dtype = dtype
        self.every = memory.clock.every if memory.clock.unit == "tokens" else 0
        self.first_term: dict[int, int] = {}
        for write in writes:
            self.first_term[id(write)] = sum(len(w.terms) for w in writes[: len(self.first_term)])

    # --- states ------------------------------------------------------------------------------

    def initial(self, origin: Weights | None = None) -> ParametricState:
        """The state at a reset; `origin` is the visible state of M2 for `init M2` (Eq. 72)."""
        known = self.learned() if origin is None else dict(origin)
        # States are values: a step of an optimizer, which changes parameters in place, leaves them alone.
        start = {n: w.clone() for n, w in known.items()}
        slots = {
            self.slot_name(number, name): {n: self.slot_start(slot, n, w) for n, w in start.items()}
            for number, term in self.numbered_terms()
            for slot in term.rule.slots
            for name in (slot.name, slot.visible)
            if name
        }
        windows: dict[int, list[list[Lesson]]] = {
            n: [[] for _ in range(copies(self.memory))] for n, t in self.numbered_terms() if t.window > 1
        }
        return ParametricState(
            running=dict(start),
            origin=known,
            committed=dict(start) if self.every != 1 else None,
            bases={w.base_every: dict(start) for w in self.writes if w.base_every != 1},
            slots=slots,
            steps={n: 0 for n, _ in self.numbered_terms()},
            windows=windows,
            gathered={
                self.first_term[id(w)] + i: {n: torch.zeros_like(s) for n, s in start.items()}
                for w in self.writes
                if w.at_commit
                for i in range(len(w.terms))
            },
            learned=origin is None,
        )

    def slot_start(self, slot: Slot, name: str, weight: Tensor) -> Tensor:
        """What a rule remembers at first: zero, or learned; in the shape of the weight or in its own."""
        if slot.initial is not None:
            return self.scope.parameters[join(self.scope.prefix, slot.initial.path)].clone()
        if slot.shape is None:
            return torch.zeros_like(weight)
        index = [w.name for w in self.function.weights].index(name)
        shape = slot.shapes[index] if slot.shapes else slot.shape
        return weight.new_zeros((*((self.memory.heads,) if self.memory.per_head else ()), *shape))

    def learned(self) -> Weights:
        """The declared initial state: zero, or the learned parameter."""
        lead = (self.memory.heads,) if self.memory.per_head else ()
        start: Weights = {}
        for index, weight in enumerate(self.function.weights):
            parameter = self.memory.initial[index] if index < len(self.memory.initial) else None
            if parameter is None:
                start[weight.name] = torch.zeros(*lead, *weight.shape, dtype=self.dtype)
            else:
                path = f"{self.scope.prefix}.{parameter.path}" if self.scope.prefix else parameter.path
                start[weight.name] = self.scope.parameters[path]
                if parameter.fixed:
                    start[weight.name] = start[weight.name].detach()
        return start

    def numbered_terms(self) -> list[tuple[int, Term]]:
        """Every term that writes this memory, numbered in program order."""
        return list(enumerate(t for w in self.writes for t in w.terms))

    @staticmethod
    def slot_name(number: int, name: str) -> str:
        """The rule memories of the second term carry `_2`, and so on."""
        return name if number == 0 else f"{name}_{number + 1}"

    def visible(self, state: ParametricState) -> Weights:
        """What reads see: running if C = 1, else committed; on a clock of steps the parameters."""
        if self.memory.trained is not None:
            return self.learned()
        return state.running if state.committed is None else state.committed

    def base(self, state: ParametricState, write: Write) -> Weights:
        """Where inner gradients are taken: the running state as of the last multiple of b tokens."""
        return state.running if write.base_every == 1 else state.bases[write.base_every]

    # --- statements --------------------------------------------------------------------------

    def read(self, state: ParametricState, key: Tensor) -> Tensor:
        """`M[key]` at the visible state; heads side by side."""
        return self.answer(self.visible(state), key)

    def answer(self, weights: Weights, key: Tensor) -> Tensor:
        """The map of every copy at its share of the key."""
        queries = shares(key, self.memory, self.memory.key_size)
        outs = [
            read_map(self.function, copy, q, self.scope)
            for copy, group in zip(unstack(weights, self.memory), queries, strict=True)
            for q in group
        ]
        return torch.stack(outs) if self.memory.per_head else outs[0]

    def solve(self, state: ParametricState, query: Tensor, ridge: float, iterations: int) -> Tensor:
        """`(H + ridge I)^-1 q` with the visible matrix H of every copy (MesaNet).

        With `iterations = n`, n steps of conjugate gradients from zero; with 0 the exact solution.
        """
        queries = shares(query, self.memory, self.memory.key_size)
        outs: list[Tensor] = []
        for copy, group in zip(unstack(self.visible(state), self.memory), queries, strict=True):
            (matrix,) = copy.values()
            system = matrix + ridge * torch.eye(matrix.shape[0], dtype=matrix.dtype)
            outs.extend(_solved(system, q, iterations) for q in group)
        return torch.stack(outs) if self.memory.per_head else outs[0]

    def update(self, state: ParametricState, update: Update, values: Values) -> None:
        """`M *= a`, `M += e`, `M = e`: the running state, directly."""
        value = values[update.value.name]
        parts = per_copy(value, self.memory, update.value.kind)
        result = []
        for copy, part in zip(unstack(state.running, self.memory), parts, strict=True):
            if update.op == "scale":
                result.append({n: gated(w, part, update.axis) for n, w in copy.items()})
            elif update.op == "add":
                result.append({n: w + part for n, w in copy.items()})
            else:
                result.append({n: torch.zeros_like(w) + part for n, w in copy.items()})
        state.running = stack(result, self.memory)

    def write(self, state: ParametricState, write: Write, values: Values) -> None:
        """One `write`: evaluate all terms at the base, then step together (or gather, `at commit`)."""
        found = [
            self.evidence(state, write, term, self.first_term[id(write)] + i, values)
            for i, term in enumerate(write.terms)
        ]
        if not write.at_commit:
            self.step(state, write, found, values)
            return
        for i, copies_of_term in enumerate(found):
            number = self.first_term[id(write)] + i
            g = stack([e.g for e in copies_of_term], self.memory)
            state.gathered[number] = {n: w + g[n] for n, w in state.gathered[number].items()}

    def evidence(
        self, state: ParametricState, write: Write, term: Term, number: int, values: Values
    ) -> list[Evidence]:
        """What one term tells every copy.

        `over c tokens weighted gamma` (Omega rule, Eq. 68): the lessons of the last c tokens (fewer at
        the start) are kept with the weight gamma each had when it was written, and all of their
        gradients are taken anew at the present base.  `x` and `dy` are the present token's.
        """
        keys = shares(values[term.key.name], self.memory, self.memory.key_size)
        targets = shares(values[term.target.name], self.memory, self.memory.value_size)
        blank: list[Tensor | None] = [None] * len(keys)
        weights = (
            blank
            if term.weight is None
            else per_copy(values[term.weight.name], self.memory, term.weight.kind)
        )
        found = []
        for h, base in enumerate(unstack(self.base(state, write), self.memory)):
            wanted = targets[h] if len(targets[h]) == len(keys[h]) else targets[h] * len(keys[h])
            lessons = [Lesson(tuple(keys[h]), tuple(wanted), weights[h])]
            if term.window > 1:
                state.windows[number][h] = lessons = (state.windows[number][h] + lessons)[-term.window :]
            first = self.memory.init == "first"
            found.append(
                add([evidence(self.function, term.objective, base, x, self.scope, first) for x in lessons])
            )
        return found

    def step(self, state: ParametricState, write: Write, found: list[list[Evidence]], values: Values) -> None:
        """`W' = r + a (W - r) + sum of deltas`, `delta = rule(W - r) - (W - r)` (Eq. 57, 65, 88; P22).

        `found[i][h]` is the evidence of term i for copy h.  The gate `a` acts on what was before the
        token; the rules see the running state that the statements above have left.
        """
        origins = unstack(state.origin, self.memory)
        gates = None
        if write.retain is not None:
            gates = per_copy(values[write.retain.name], self.memory, write.retain.kind)
        slots = {name: unstack(w, self.memory) for name, w in state.slots.items()}
        for i in range(len(write.terms)):
            state.steps[self.first_term[id(write)] + i] += 1
        result = []
        for h, copy in enumerate(unstack(state.running, self.memory)):
            new: Weights = {}
            for name, weight in copy.items():
                anchor = origins[h][name] if write.toward == "init" else torch.zeros_like(weight)
                kept = weight - anchor
                total = anchor + (kept if gates is None else gated(kept, gates[h], write.retain_axis))
                for i in range(len(write.terms)):
                    total = total + self.delta(state, write, i, found[i][h], (h, name, kept), slots, values)
                new[name] = _projected(write.project, total)
            result.append(new)
        state.running = stack(result, self.memory)
        state.slots = {name: stack(w, self.memory) for name, w in slots.items()}

    def delta(
        self,
        state: ParametricState,
        write: Write,
        i: int,
        seen: Evidence,
        place: tuple[int, str, Tensor],
        slots: dict[str, list[Weights]],
        values: Values,
    ) -> Tensor:
        """What the rule of term `i` adds to one weight of one copy; its slots step too."""
        h, name, kept = place
        rule, number = write.terms[i].rule, self.first_term[id(write)] + i
        named = {"g": seen.g, "x": seen.x, "dy": seen.dy}
        own = {k: v[name] for k, v in named.items() if name in v}
        before = {s: slots[self.slot_name(number, s)][h][name] for s in slot_names(rule)}
        arguments = {k: per_copy(values[v.name], self.memory, v.kind)[h] for k, v in rule.arguments}
        new, after = step_rule(rule, kept, own, before, arguments, state.steps[number], self.scope)
        for slot, value in after.items():
            slots[self.slot_name(number, slot)][h][name] = value
        return new - kept

    # --- time --------------------------------------------------------------------------------

    def tick(self, state: ParametricState, values: Values) -> bool:
        """After all statements of an unmasked token; true if the memory commits at this token."""
        state.count += 1
        commits = self.every > 0 and state.count % self.every == 0
        if commits:
            for write in self.writes:
                if write.at_commit:
                    self.step_gathered(state, write, values)
            if state.committed is not None:
                state.committed = dict(state.running)
        for b in state.bases:
            if state.count % b == 0:
                state.bases[b] = dict(state.running)
        return commits

    def step_gathered(self, state: ParametricState, write: Write, values: Values) -> None:
        """`at commit`: the rule runs once, on the sum of the chunk's weighted gradients.

        Gate and arguments are those of the committing token; there is no single `x` or `dy`.
        """
        found = []
        for i in range(len(write.terms)):
            number = self.first_term[id(write)] + i
            found.append([Evidence(g, {}, {}) for g in unstack(state.gathered[number], self.memory)])
            state.gathered[number] = {n: torch.zeros_like(w) for n, w in state.gathered[number].items()}
        self.step(state, write, found, values)


def _projected(project: str | None, weight: Tensor) -> Tensor:
    """`project rownorm`: the named matrix function of the weight after its step."""
    return weight if project is None else meaning(project)([weight], ["matrix"], {}, [])


def _solved(system: Tensor, q: Tensor, iterations: int) -> Tensor:
    """Exact, or `iterations` steps of conjugate gradients from zero."""
    if iterations == 0:
        exact: Tensor = torch.linalg.solve(system, q)
        return exact
    x, r, p = torch.zeros_like(q), q, q
    for _ in range(iterations):
        image = system @ p
        size = (r * r).sum()
        if float(size.detach()) == 0.0:
            break
        rate = size / (p * image).sum()
        x, r = x + rate * p, r - rate * image
        p = r + (r * r).sum() / size * p
    return x
