"""One memory inside the loop over tokens: its state names, reads, writes and commits."""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.catalog.values import Shape
from nldsl.emit.nodes import Expression, Statement, assign, call, name
from nldsl.lowerings.blocks import BlockCode, as_row
from nldsl.lowerings.functions import slow_parameters
from nldsl.lowerings.gates import gate, target_rows
from nldsl.lowerings.scope import Scope
from nldsl.lowerings.slots import SlotPlace, slot_places
from nldsl.lowerings.static import answer
from nldsl.spec.program import Function, Memory, Read, Term, Update, Write
from nldsl.spec.program import Statement as Step

COLON = slice(None)


class TokenMemory:
    """The emitted state of one memory.

    `carried` names live across tokens; `current` is the expression of each running weight at this
    point of the token.
    """

    def __init__(self, code: BlockCode, scope: Scope, memory: Memory, steps: Sequence[Step]) -> None:
        self.code, self.scope, self.memory = code, scope, memory
        assert memory.function is not None
        self.weights = [w.name for w in memory.function.weights]
        self.shapes = {w.name: w.shape for w in memory.function.weights}
        self.writes = [s for s in steps if isinstance(s, Write) and s.memory == memory.name]
        base = self.writes[0].base_every if self.writes else memory.clock.every
        self.committed = memory.clock.every > 1
        self.own_base = base not in (1, memory.clock.every)
        self.base_every = base
        self.groups = ["running"] + ["committed"] * self.committed + ["base"] * self.own_base
        suffix = {"running": "", "committed": "_seen", "base": "_base"}
        fresh = code.scope.names.fresh
        self.carried = {
            g: {w: fresh(f"{memory.name}_{w}{suffix[g]}") for w in self.weights} for g in self.groups
        }
        self.count = fresh(f"{memory.name}_count")
        self.places = slot_places(memory, self.writes)
        self.slots = {p.key: fresh(f"{memory.name}_{p.key.replace('.', '_')}") for p in self.places}
        self.current: dict[str, Expression] = {w: name(n) for w, n in self.carried["running"].items()}
        self.current_slots: dict[str, Expression] = {s: name(n) for s, n in self.slots.items()}

    @property
    def state(self) -> Expression:
        """`state["S"]`."""
        return name("state")[self.memory.path]

    def load(self) -> list[Statement]:
        """Local names for everything carried, before the loop."""
        out: list[Statement] = []
        for group, names in self.carried.items():
            out += [assign(n, as_row(self.shapes[w], self.state[group][w])) for w, n in names.items()]
        out += [assign(self.slots[p.key], as_row(p.shape, self.state["slots"][p.key])) for p in self.places]
        return [*out, assign(self.count, self.state["count"])]

    def store(self) -> list[Statement]:
        """`new["S"] = {...}`, after the loop."""
        entries: dict[str, object] = {
            g: {w: _kept(self.shapes[w], n) for w, n in ns.items()} for g, ns in self.carried.items()
        }
        if self.slots:
            entries["slots"] = {p.key: _kept(p.shape, self.slots[p.key]) for p in self.places}
        entries["count"] = name(self.count)
        return [assign(name("new")[self.memory.path], entries)]  # type: ignore[arg-type]

    # --- inside the loop ---------------------------------------------------------------------

    def visible(self) -> list[Expression]:
        """The weights a read sees."""
        if self.committed:
            return [name(n) for n in self.carried["committed"].values()]
        return [self.current[w] for w in self.weights]

    def base(self) -> list[Expression]:
        """The weights inner gradients are taken at."""
        if self.own_base:
            return [name(n) for n in self.carried["base"].values()]
        if self.base_every == 1:
            return [self.current[w] for w in self.weights]
        return [name(n) for n in self.carried["committed"].values()]

    def read(self, read: Read) -> None:
        """`y = map(key, weights)`; m query heads on one copy read it together."""
        value = answer(self.code, self.memory, read, self.scope.ref(read.key), self.visible())
        self.scope.add(assign(self.scope.names.of(read.out), value))

    def update(self, update: Update) -> None:
        """`M *= a`, `M += e`, `M = e` on the running weights."""
        value = gate(self.scope, update.value, self.memory, update.axis)
        for weight in self.weights:
            old = self.current[weight]
            if update.op == "set":
                literal = update.value.name in self.scope.constants
                new = (
                    call("torch.full_like", old, value) if literal else call("torch.zeros_like", old) + value
                )
            else:
                new = old * value if update.op == "scale" else old + value
            self._assign(weight, new)

    def write(self, write: Write) -> None:
        """All terms first, then one step of every weight."""
        first = sum(len(w.terms) for w in self.writes[: self.writes.index(write)])
        numbers = range(first, first + len(write.terms))
        terms = [self._term(term) for term in write.terms]
        toward = self._toward(write)
        stepped: dict[str, Expression] = {}
        for i, weight in enumerate(self.weights):
            given = self.current[weight] if toward is None else self.current[weight] - toward[i]
            if toward is not None:
                offset = self.scope.names.fresh(f"{self.memory.name}_{weight}_offset")
                self.scope.add(assign(offset, given))
                given = name(offset)
            steps = [
                self._rule(t, g, (n, i), given) for n, t, g in zip(numbers, write.terms, terms, strict=True)
            ]
            stepped[weight] = self._combine(write, steps, given, None if toward is None else toward[i])
        for weight, expression in stepped.items():
            self._assign(weight, expression)

    def end_of_token(self) -> None:
        """Masked samples keep what they had; count; commit what is due."""
        live = self.scope.mask
        hold, runtime = self.code.runtime("token", "hold"), self.code.runtime
        for weight, carried in self.carried["running"].items():
            self.scope.add(assign(carried, call(hold, live, self.current[weight], name(carried))))
        for slot, carried in self.slots.items():
            self.scope.add(assign(carried, call(hold, live, self.current_slots[slot], name(carried))))
        self.scope.add(assign(self.count, call(runtime("token", "tick"), name(self.count), live)))
        for group, every in (("committed", self.memory.clock.every), ("base", self.base_every)):
            if group in self.carried:
                self._commit(group, every)

    def _commit(self, group: str, every: int) -> None:
        commit = self.code.runtime("token", "commit")
        for weight, carried in self.carried[group].items():
            running = name(self.carried["running"][weight])
            value = call(commit, name(self.count), every, self.scope.mask, running, name(carried))
            self.scope.add(assign(carried, value))

    # --- one write ---------------------------------------------------------------------------

    def _assign(self, weight: str, expression: Expression) -> None:
        fresh = self.scope.names.fresh(f"{self.memory.name}_{weight}_next")
        self.scope.add(assign(fresh, expression))
        self.current[weight] = name(fresh)

    def _toward(self, write: Write) -> list[Expression] | None:
        if write.toward == "zero":
            return None
        return [self.code.initial(self.memory, i) for i in range(len(self.weights))]

    def _term(self, term: Term) -> dict[str, Expression]:
        """Names of what the gradient function returns: per weight `x`, `dy`, or the gradient `g`."""
        key = self.scope.ref(term.key)
        target = target_rows(self.scope, term.target, key, self.memory)
        gradient = self.code.gradient(self.memory, term.objective)
        arguments = (key, target, *self.base(), *slow_parameters(self._map, ""))
        results = {r: self.scope.names.fresh(f"{self.memory.name}_{r}") for r in gradient.results}
        names = list(results.values())
        self.scope.add(assign(names if len(names) > 1 else names[0], call(gradient.function, *arguments)))
        found: dict[str, Expression] = {r: name(n) for r, n in results.items()}
        for weight in self.weights:
            if f"g_{weight}" not in found:
                found[f"g_{weight}"] = found[f"dy_{weight}"].attr("mT") @ found[f"x_{weight}"]
        return found

    @property
    def _map(self) -> Function:
        assert self.memory.function is not None
        return self.memory.function

    def _rule(
        self, term: Term, found: dict[str, Expression], place: tuple[int, int], given: Expression
    ) -> Expression:
        """The rule's new weight; its slots step on the way.  `place`: number of the term, of the weight."""
        rule, weight = term.rule, self.weights[place[1]]
        axes = {v.name: "key" if v.kind == "vector" else "scalar" for v in rule.function.inputs}
        own = [p for p in self.places if (p.term, p.weight) == place]
        known: dict[str, Expression] = {
            "W": given,
            "g": found[f"g_{weight}"],
            "step": call(self.code.runtime("token", "next_step"), name(self.count), given),
            **{p.name: self.current_slots[p.key] for p in own},
            **{n: gate(self.scope, v, self.memory, axes.get(n, "scalar")) for n, v in rule.arguments},
        }
        for part in ("x", "dy"):
            if f"{part}_{weight}" in found:
                known[part] = found[f"{part}_{weight}"]
        result = call(self.code.functions.rule(rule), *(known[v.name] for v in rule.function.inputs))
        if not own:
            return result
        stepped = self.scope.names.fresh(f"{self.memory.name}_{weight}_step")
        returned = [p for p in own if not p.twin_of]
        fresh = [self.scope.names.fresh(f"{self.slots[p.key]}_next") for p in returned]
        self.scope.add(assign([stepped, *fresh], result))
        self.current_slots |= {p.key: name(n) for p, n in zip(returned, fresh, strict=True)}
        for twin in (p for p in own if p.twin_of):
            self._show(twin)
        return name(stepped)

    def _show(self, twin: SlotPlace) -> None:
        """What others see of a slot on a slow clock moves behind every N-th step."""
        old, new = self.current_slots[twin.key], self.current_slots[twin.twin_of]
        chosen = self.scope.names.fresh(f"{self.slots[twin.key]}_next")
        commit = self.code.runtime("token", "commit")
        self.scope.add(assign(chosen, call(commit, name(self.count) + 1, twin.every, None, new, old)))
        self.current_slots[twin.key] = name(chosen)

    def _combine(
        self, write: Write, steps: list[Expression], given: Expression, toward: Expression | None
    ) -> Expression:
        """`r + a D + sum of (step - D)` for `D = W - r`."""
        total = steps[0]
        for step in steps[1:]:
            total = total + step
        repeats = len(steps) - 1
        if write.retain is not None:
            kept = gate(self.scope, write.retain, self.memory, write.retain_axis)
            total = total + (kept - float(repeats + 1)) * given
        elif repeats:
            total = total - float(repeats) * given
        return total if toward is None else total + toward


def _kept(shape: Shape, chosen: str) -> Expression:
    """A weight as the state holds it: a bias has no axis of rows there."""
    return name(chosen).method("squeeze", -2) if len(shape) == 1 else name(chosen)
