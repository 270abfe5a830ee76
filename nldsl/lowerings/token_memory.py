"""A memory, or several side by side, in the loop over tokens: names, reads, writes, commits and resets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from nldsl.catalog.values import Shape
from nldsl.emit.nodes import Expression, If, Like, Statement, assign, call, name
from nldsl.lowerings.blocks import as_row, as_state
from nldsl.lowerings.gates import gate
from nldsl.lowerings.slots import bases_of, numbered_terms, restarts_from, slot_places
from nldsl.lowerings.static import answer
from nldsl.lowerings.token_lessons import TokenLessons
from nldsl.lowerings.token_steps import TokenSteps
from nldsl.spec.program import Memory, Read, Update, Value, Write

if TYPE_CHECKING:
    from nldsl.lowerings.sequential import TokenLoop

Names = dict[str, str]


class TokenMemory:
    """The emitted state of one memory, or of a family whose weights are stacked behind the heads.

    `carried` names live across tokens; `current` is the expression of each running weight at this
    point of the token.
    """

    def __init__(self, loop: TokenLoop, memories: tuple[Memory, ...]) -> None:
        self.loop, self.code, self.scope = loop, loop.code, loop.inner
        self.memories, memory = memories, memories[0]
        self.memory = memory
        assert memory.function is not None
        self.function = memory.function
        self.weights = [w.name for w in memory.function.weights]
        self.shapes = {w.name: w.shape for w in memory.function.weights}
        written = [s for s in loop.steps if isinstance(s, Write)]
        names = {m.name for m in memories}
        self.writes = [s for s in written if s.memory == memory.name]
        self.others = [next(s for s in written if s.memory == m.name) for m in memories[1:]]
        self.last = (
            memory.name if len(memories) == 1 else [s.memory for s in written if s.memory in names][-1]
        )
        self.terms = list(numbered_terms(self.writes))
        self.bases = bases_of(memory, self.writes)
        restarts = ["origin"] * (restarts_from(memory) is not None)
        self.groups = ["running", *["committed"] * (memory.clock.every > 1), *self.bases, *restarts]
        fresh = self.code.scope.names.fresh
        self.label = label = memory.name if len(memories) == 1 else fresh("memories")
        suffix = {"running": "", "committed": "_seen"}
        self.carried: dict[str, Names] = {
            g: {w: fresh(f"{label}_{w}{suffix.get(g, '_' + g)}") for w in self.weights} for g in self.groups
        }
        self.count = fresh(f"{label}_count")
        self.places = slot_places(memory, self.writes)
        self.slots = {p.key: fresh(f"{label}_{p.key.replace('.', '_')}") for p in self.places}
        self.gathered = {
            n: {w: fresh(f"{label}_{w}_gathered_{n + 1}") for w in self.weights}
            for n, write, _ in self.terms
            if write.at_commit
        }
        commits = "committed" in self.carried or any(w.at_commit for w in self.writes)
        clocks = [memory.clock.every] if commits else []
        clocks += [*self.bases.values(), *([memory.reset_every] if memory.reset == "tokens" else [])]
        self.ends = {c: fresh(f"{label}_ends_{c}") for c in clocks}
        self.starts: Names = {}
        self.gates: dict[tuple[str, str], str] = {}
        self.lessons = TokenLessons(self)
        self.stepping = TokenSteps(self)
        self.fresh: Names = {}
        self.current: dict[str, Expression] = {w: name(n) for w, n in self.carried["running"].items()}
        self.current_slots: dict[str, Expression] = {s: name(n) for s, n in self.slots.items()}
        self.current_gathered: dict[int, dict[str, Expression]] = {
            n: {w: name(m) for w, m in names.items()} for n, names in self.gathered.items()
        }

    def entries(self) -> Iterator[tuple[tuple[str, ...], Shape | None, str]]:
        """(path in the state, shape of a weight, local name) of everything carried."""
        for group, names in self.carried.items():
            yield from (((group, w), self.shapes[w], n) for w, n in names.items())
        yield from ((("slots", p.key), p.shape, self.slots[p.key]) for p in self.places)
        for number, names in self.gathered.items():
            yield from ((("gathered", str(number), w), self.shapes[w], n) for w, n in names.items())
        for (number, part), n in self.lessons.kept.items():
            yield ("windows", str(number), part), None, n

    def load(self) -> list[Statement]:
        """Local names for everything carried, before the loop."""
        source = self.code.scope.source
        made = [
            assign(
                n,
                self.code.runtime("token", "ends_of")(
                    name(self.count), name("mask"), source, c, *self._period()
                ),
            )
            for c, n in self.ends.items()
        ]
        states: list[Expression] = [name("state")[m.path] for m in self.memories]
        return [*self._taken(states), assign(self.count, states[0]["count"]), *made, *self._anchors()]

    def _anchors(self) -> list[Statement]:
        """What a family acts around, side by side."""
        if self.size == 1 or all(w.toward == "zero" for w in self.writes):
            return []
        made: list[Statement] = []
        for i, weight in enumerate(self.weights):
            self.starts[weight] = self.code.scope.names.fresh(f"{self.label}_{weight}_init")
            initials = [self.code.initial(m, i) for m in self.memories]
            made.append(assign(self.starts[weight], self._stack(initials, self._axis - 1)))
        return made

    def _stack(self, rows: list[Expression], axis: int) -> Expression:
        return call(self.code.runtime("stacks", "side_by_side"), tuple(rows), dim=axis)

    def _period(self) -> tuple[int, ...]:
        """The clock of its resets, if it has one."""
        return (self.memory.reset_every,) if self.memory.reset == "tokens" else ()

    def _taken(self, trees: list[Expression], names: dict[str, str] | None = None) -> list[Statement]:
        out: list[Statement] = []
        for path, shape, local in self.entries():
            values = []
            for value in trees:
                for key in path:
                    value = value[key]
                values.append(value if shape is None else as_row(shape, value))
            stacked = values[0] if self.size == 1 else self._stack(values, self._axis)
            out.append(assign(local if names is None else names[local], stacked))
        return out

    @property
    def size(self) -> int:
        """How many memories run side by side."""
        return len(self.memories)

    @property
    def _axis(self) -> int:
        """Where the axis of a family stands in a state."""
        return 2 if self.memory.per_head else 1

    def store(self) -> list[Statement]:
        """`new["S"] = {...}`, after the loop."""
        count: Expression = name(self.count)
        if not self.ticks:
            tick_all = self.code.runtime("token", "tick_all")
            count = call(tick_all, name(self.count), self.code.scope.mask, self.code.scope.source)
        out: list[Statement] = []
        for i, memory in enumerate(self.memories):
            entries: dict[str, Like] = {}
            for path, shape, local in self.entries():
                tree = entries
                for key in path[:-1]:
                    tree = tree.setdefault(key, {})  # type: ignore[assignment]
                kept = name(local) if self.size == 1 else name(local).method("select", self._axis, i)
                tree[path[-1]] = kept if shape is None else as_state(shape, kept)
            entries["count"] = count
            out.append(assign(name("new")[memory.path], entries))
        return out

    @property
    def ticks(self) -> bool:
        """Whether anything inside the loop asks how many tokens there have been."""
        asked = any(v.name == "step" for _, _, t in self.terms for v in t.rule.function.inputs)
        slow = any(p.twin_of for p in self.places)
        return asked or slow or self.memory.reset == "tokens" or any(w.at_commit for w in self.writes)

    # --- inside the loop ---------------------------------------------------------------------

    def visible(self) -> list[Expression]:
        """The weights a read sees."""
        if "committed" in self.carried:
            return [name(n) for n in self.carried["committed"].values()]
        return [self.current[w] for w in self.weights]

    def base(self, write: Write) -> list[Expression]:
        """The weights inner gradients are taken at."""
        every = write.base_every
        if every == 1:
            return [self.current[w] for w in self.weights]
        group = next((g for g, b in self.bases.items() if b == every), "committed")
        return [self.lasting(write, name(n)) for n in self.carried[group].values()]

    def gate(self, value: Value, axis: str = "scalar") -> Expression:
        """A gate or rate as rows of this token; with a family's axis of size one."""
        row = self.loop.row(value, self.memory, axis)
        rows = gate(self.scope, value, self.memory, axis) if row is None else row
        if self.size == 1 or value.name in self.scope.constants:
            return rows
        if (value.name, axis) not in self.gates:
            self.gates[value.name, axis] = self.scope.names.fresh(f"{value.name}_rows")
            self.scope.add(assign(self.gates[value.name, axis], rows.method("unsqueeze", -3)))
        return name(self.gates[value.name, axis])

    def read(self, read: Read, key: Expression) -> None:
        """`y = map(key, weights)`; m query heads on one copy read it together."""
        value = answer(self.code, self.memory, read, key, self.visible())
        self.scope.add(assign(self.scope.names.of(read.out), value))

    def update(self, update: Update) -> None:
        """`M *= a`, `M += e`, `M = e` on the running weights."""
        value = self.gate(update.value, update.axis)
        for weight in self.weights:
            old = self.current[weight]
            if update.op == "set":
                literal = update.value.name in self.scope.constants
                new = (
                    call("torch.full_like", old, value) if literal else call("torch.zeros_like", old) + value
                )
            else:
                new = old * value if update.op == "scale" else old + value
            self.assign(weight, new)

    def write(self, write: Write) -> None:
        """All terms first, then one step of every weight, or what the commit will step on."""
        own = [(n, term) for n, w, term in self.terms if w is write]
        if self.discarded(write):
            self._cut_off(write)
        found = {n: self.lessons.evidence(n, write, term) for n, term in own}
        if not write.at_commit:
            self.stepping.step(write, own, found, name(self.count))
            return
        for n, _ in own:
            for w in self.weights:
                fresh = self.scope.names.fresh(f"{self.gathered[n][w]}_next")
                self.scope.add(assign(fresh, self.current_gathered[n][w] + self.lessons.whole(found[n], w)))
                self.current_gathered[n][w] = name(fresh)

    def discarded(self, write: Write) -> bool:
        """Whether nothing sees what this write makes of a token behind which the memory is reset."""
        behind = self.loop.steps[self.loop.steps.index(write) :]
        reads = [s for s in behind if isinstance(s, Read)]
        seen = {s.memory for s in reads} | {s.solve[0] for s in reads if s.solve is not None}
        hidden = "committed" in self.carried or not seen & {m.name for m in self.memories}
        return self.memory.reset == "tokens" and hidden and not write.at_commit

    def lasting(self, write: Write, given: Expression) -> Expression:
        """What a write is given; where it is discarded, cut off for the samples reset behind the token."""
        if not self.discarded(write):
            return given
        of_lasting = self.code.runtime("grid", "of_lasting")
        return call(of_lasting, name(self.ends[self.memory.reset_every])[name("t")], given)

    def _cut_off(self, write: Write) -> None:
        """Weights and slots as a discarded write is given them."""
        for current, names in (self.current, self.carried["running"]), (self.current_slots, self.slots):
            for key, carried in names.items():
                fresh = self.scope.names.fresh(f"{carried}_lasting")
                self.scope.add(assign(fresh, self.lasting(write, current[key])))
                current[key] = name(fresh)

    def assign(self, weight: str, expression: Expression) -> None:
        """The weight from here on, inside this token."""
        fresh = self.scope.names.fresh(f"{self.label}_{weight}_next")
        self.scope.add(assign(fresh, expression))
        self.current[weight] = name(fresh)

    # --- behind the statements of a token ----------------------------------------------------

    def end_of_token(self) -> None:
        """Masked samples keep what they had; count; rules at the commit; commit what is due."""
        hold = self.code.runtime("token", "hold")
        for carried, new in self._moved():
            self.scope.add(assign(carried, call(hold, self.scope.mask, new, name(carried))))
        if self.ticks:
            tick = self.code.runtime("token", "tick")
            self.scope.add(assign(self.count, call(tick, name(self.count), self.scope.mask)))
        for write in self.writes:
            if write.at_commit:
                self._step_gathered(write)
        for group, every in (("committed", self.memory.clock.every), *self.bases.items()):
            for weight, carried in self.carried.get(group, {}).items():
                running = name(self.carried["running"][weight])
                self.scope.add(assign(carried, self._due(every, running, carried)))

    def _moved(self) -> Iterator[tuple[str, Expression]]:
        """What the statements of the token have moved: local name and new value."""
        yield from ((n, self.current[w]) for w, n in self.carried["running"].items())
        yield from ((n, self.current_slots[s]) for s, n in self.slots.items())
        for number, names in self.gathered.items():
            yield from ((n, self.current_gathered[number][w]) for w, n in names.items())
        yield from ((n, self.lessons.current[place]) for place, n in self.lessons.kept.items())

    def _due(self, every: int, new: Expression, carried: str) -> Expression:
        """`new` where this token completes a multiple of `every`."""
        choose = self.code.runtime("grid", "choose")
        return call(choose, name(self.ends[every])[name("t")], new, name(carried))

    def _step_gathered(self, write: Write) -> None:
        """The rule runs once, on the sum of the chunk's gradients, for the samples whose chunk ends."""
        every, outside = self.memory.clock.every, self.scope.body
        self.scope.body = []
        before = self.scope.names.fresh(f"{self.label}_commits")
        counted = call(self.code.runtime("token", "commits_before"), name(self.count), every, *self._period())
        self.scope.add(assign(before, counted))
        own = [(n, term) for n, w, term in self.terms if w is write]
        self.current = {w: name(n) for w, n in self.carried["running"].items()}
        self.current_slots = {s: name(n) for s, n in self.slots.items()}
        of_firing, due = self.code.runtime("grid", "of_firing"), name(self.ends[every])[name("t")]
        found: dict[int, dict[str, Expression]] = {
            n: {f"g_{w}": call(of_firing, due, name(self.gathered[n][w])) for w in self.weights}
            for n, _ in own
        }
        self.stepping.step(write, own, found, name(before))
        for weight, carried in self.carried["running"].items():
            self.scope.add(assign(carried, self._due(every, self.current[weight], carried)))
        for slot, carried in self.slots.items():
            if self.current_slots[slot] != name(carried):
                self.scope.add(assign(carried, self._due(every, self.current_slots[slot], carried)))
        for n, _ in own:
            for carried in self.gathered[n].values():
                empty = call("torch.zeros_like", name(carried))
                self.scope.add(assign(carried, self._due(every, empty, carried)))
        body, self.scope.body = self.scope.body, outside
        fires = self.code.runtime("grid", "fires")
        self.scope.add(If(call(fires, name(self.ends[every])[name("t")]), tuple(body)))

    def prepare_reset(self) -> list[Statement]:
        """Before the loop: where a reset begins anew."""
        if self.memory.reset != "tokens":
            return []
        fresh = self.code.scope.names.fresh
        tree = fresh(f"{self.label}_start")
        for _, _, local in self.entries():
            self.fresh[local] = fresh(f"{local}_start")
        batch = self.code.scope.source.attr("shape")[0]
        made = name("self").method("initial_state", batch)[self.memory.path]
        return [assign(tree, made), *self._taken([name(tree)], self.fresh)]

    def reset(self, source: Callable[[str], list[Expression]]) -> None:
        """Behind all commits: the samples whose period is over begin anew; `source(name)` is visible."""
        if self.memory.reset != "tokens":
            return
        starts: dict[str, Expression] = {local: name(n) for local, n in self.fresh.items()}
        origin = restarts_from(self.memory)
        if origin is not None:
            for weight, value in zip(self.weights, source(origin), strict=True):
                # A memory that never changes has no axis of samples.
                starts |= {
                    ns[weight]: value.method("expand_as", name(ns[weight])) for ns in self.carried.values()
                }
        every = self.memory.reset_every
        for _, _, local in self.entries():
            self.scope.add(assign(local, self._due(every, starts[local], local)))
        zero = call("torch.zeros_like", name(self.count))
        self.scope.add(assign(self.count, self._due(every, zero, self.count)))

    def shown(self) -> list[Expression]:
        """What reads see behind the token."""
        group = "committed" if "committed" in self.carried else "running"
        return [name(n) for n in self.carried[group].values()]
