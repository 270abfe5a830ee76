"""One memory inside the loop over tokens: its state names, reads, writes, commits and resets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from nldsl.catalog.values import Shape
from nldsl.emit.nodes import Expression, If, Like, Statement, assign, call, name
from nldsl.lowerings.blocks import BlockCode, as_row, as_state
from nldsl.lowerings.chunk_commit import argument_axes
from nldsl.lowerings.gates import gate
from nldsl.lowerings.scope import Scope
from nldsl.lowerings.slots import bases_of, numbered_terms, restarts_from, slot_places
from nldsl.lowerings.static import answer
from nldsl.lowerings.stepping import adds_only, apply_rule, combine, projected
from nldsl.lowerings.token_lessons import TokenLessons
from nldsl.spec.program import Memory, Read, Term, Update, Write
from nldsl.spec.program import Statement as Step

Names = dict[str, str]


class TokenMemory:
    """The emitted state of one memory.

    `carried` names live across tokens; `current` is the expression of each running weight at this
    point of the token.
    """

    def __init__(self, code: BlockCode, scope: Scope, memory: Memory, steps: Sequence[Step]) -> None:
        self.code, self.scope, self.memory = code, scope, memory
        assert memory.function is not None
        self.function = memory.function
        self.weights = [w.name for w in memory.function.weights]
        self.shapes = {w.name: w.shape for w in memory.function.weights}
        self.writes = [s for s in steps if isinstance(s, Write) and s.memory == memory.name]
        self.terms = list(numbered_terms(self.writes))
        self.bases = bases_of(memory, self.writes)
        restarts = ["origin"] * (restarts_from(memory) is not None)
        self.groups = ["running", *["committed"] * (memory.clock.every > 1), *self.bases, *restarts]
        fresh = code.scope.names.fresh
        suffix = {"running": "", "committed": "_seen"}
        self.carried: dict[str, Names] = {
            g: {w: fresh(f"{memory.name}_{w}{suffix.get(g, '_' + g)}") for w in self.weights}
            for g in self.groups
        }
        self.count = fresh(f"{memory.name}_count")
        self.places = slot_places(memory, self.writes)
        self.slots = {p.key: fresh(f"{memory.name}_{p.key.replace('.', '_')}") for p in self.places}
        self.gathered = {
            n: {w: fresh(f"{memory.name}_{w}_gathered_{n + 1}") for w in self.weights}
            for n, write, _ in self.terms
            if write.at_commit
        }
        commits = "committed" in self.carried or any(w.at_commit for w in self.writes)
        clocks = [memory.clock.every] if commits else []
        clocks += [*self.bases.values(), *([memory.reset_every] if memory.reset == "tokens" else [])]
        self.ends = {c: fresh(f"{memory.name}_ends_{c}") for c in clocks}
        self.lessons = TokenLessons(self)
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
        state, source = name("state")[self.memory.path], self.code.scope.source
        made = [
            assign(
                n,
                self.code.runtime("token", "ends_of")(
                    name(self.count), name("mask"), source, c, *self._period()
                ),
            )
            for c, n in self.ends.items()
        ]
        return [*self._taken(state), assign(self.count, state["count"]), *made]

    def _period(self) -> tuple[int, ...]:
        """The clock of its resets, if it has one."""
        return (self.memory.reset_every,) if self.memory.reset == "tokens" else ()

    def _taken(self, tree: Expression, names: dict[str, str] | None = None) -> list[Statement]:
        out: list[Statement] = []
        for path, shape, local in self.entries():
            value = tree
            for key in path:
                value = value[key]
            value = value if shape is None else as_row(shape, value)
            out.append(assign(local if names is None else names[local], value))
        return out

    def store(self) -> list[Statement]:
        """`new["S"] = {...}`, after the loop."""
        entries: dict[str, Like] = {}
        for path, shape, local in self.entries():
            tree = entries
            for key in path[:-1]:
                tree = tree.setdefault(key, {})  # type: ignore[assignment]
            tree[path[-1]] = name(local) if shape is None else as_state(shape, name(local))
        entries["count"] = name(self.count)
        return [assign(name("new")[self.memory.path], entries)]

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
        return [name(n) for n in self.carried[group].values()]

    def read(self, read: Read, key: Expression) -> None:
        """`y = map(key, weights)`; m query heads on one copy read it together."""
        value = answer(self.code, self.memory, read, key, self.visible())
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
        """All terms first, then one step of every weight, or what the commit will step on."""
        own = [(n, term) for n, w, term in self.terms if w is write]
        found = {n: self.lessons.evidence(n, write, term) for n, term in own}
        if not write.at_commit:
            self._step(write, own, found, name(self.count))
            return
        for n, _ in own:
            for w in self.weights:
                fresh = self.scope.names.fresh(f"{self.gathered[n][w]}_next")
                self.scope.add(assign(fresh, self.current_gathered[n][w] + found[n][f"g_{w}"]))
                self.current_gathered[n][w] = name(fresh)

    def _step(
        self,
        write: Write,
        terms: list[tuple[int, Term]],
        found: dict[int, dict[str, Expression]],
        steps: Expression,
    ) -> None:
        """`W' = r + a (W - r) + sum of deltas`; `steps` counts how often the rules had run."""
        toward = self._toward(write)
        stepped: dict[str, Expression] = {}
        kept = None
        if write.retain is not None:
            kept = gate(self.scope, write.retain, self.memory, write.retain_axis)
        alone = kept is not None and len(terms) == 1
        for i, weight in enumerate(self.weights):
            given = self.current[weight] if toward is None else self.current[weight] - toward[i]
            if toward is not None:
                offset = self.scope.names.fresh(f"{self.memory.name}_{weight}_offset")
                self.scope.add(assign(offset, given))
                given = name(offset)
            anchor = None if toward is None else toward[i]
            if alone and kept is not None and adds_only(terms[0][1].rule, self.shapes[weight]):
                # The rule leaves what it is given alone, so it may be given what retention has left.
                n, term = terms[0]
                stepped_on = self._rule(term, found[n], (n, i), kept * given, steps)
                total = combine(write, None, [stepped_on], given, anchor)
            else:
                made = [self._rule(term, found[n], (n, i), given, steps) for n, term in terms]
                total = combine(write, kept, made, given, anchor)
            stepped[weight] = projected(self.scope, write, total)
        for weight, expression in stepped.items():
            self._assign(weight, expression)

    def _rule(
        self,
        term: Term,
        found: dict[str, Expression],
        place: tuple[int, int],
        given: Expression,
        steps: Expression,
    ) -> Expression:
        """The rule's new weight; its slots step on the way.  `place`: number of the term, of the weight."""
        rule, weight = term.rule, self.weights[place[1]]
        axes = argument_axes(rule)
        own = [p for p in self.places if (p.term, p.weight) == place]
        known: dict[str, Expression] = {
            "W": given,
            "g": found[f"g_{weight}"],
            "step": call(self.code.runtime("token", "next_step"), steps, given),
            **{n: gate(self.scope, v, self.memory, axes.get(n, "scalar")) for n, v in rule.arguments},
        }
        known |= {part: found[f"{part}_{weight}"] for part in ("x", "dy") if f"{part}_{weight}" in found}
        label = (self.memory.name, weight)
        return apply_rule(self.code, self.scope, rule, known, own, self.current_slots, steps, label)

    def _assign(self, weight: str, expression: Expression) -> None:
        fresh = self.scope.names.fresh(f"{self.memory.name}_{weight}_next")
        self.scope.add(assign(fresh, expression))
        self.current[weight] = name(fresh)

    def _toward(self, write: Write) -> list[Expression] | None:
        if write.toward == "zero":
            return None
        if "origin" in self.carried:
            return [name(n) for n in self.carried["origin"].values()]
        return [self.code.initial(self.memory, i) for i in range(len(self.weights))]

    # --- behind the statements of a token ----------------------------------------------------

    def end_of_token(self) -> None:
        """Masked samples keep what they had; count; rules at the commit; commit what is due."""
        hold, tick = self.code.runtime("token", "hold"), self.code.runtime("token", "tick")
        for carried, new in self._moved():
            self.scope.add(assign(carried, call(hold, self.scope.mask, new, name(carried))))
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
        before = self.scope.names.fresh(f"{self.memory.name}_commits")
        counted = call(self.code.runtime("token", "commits_before"), name(self.count), every, *self._period())
        self.scope.add(assign(before, counted))
        own = [(n, term) for n, w, term in self.terms if w is write]
        self.current = {w: name(n) for w, n in self.carried["running"].items()}
        self.current_slots = {s: name(n) for s, n in self.slots.items()}
        found = {n: {f"g_{w}": name(self.gathered[n][w]) for w in self.weights} for n, _ in own}
        self._step(write, own, found, name(before))
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
        tree = fresh(f"{self.memory.name}_start")
        for _, _, local in self.entries():
            self.fresh[local] = fresh(f"{local}_start")
        batch = self.code.scope.source.attr("shape")[0]
        made = name("self").method("initial_state", batch)[self.memory.path]
        return [assign(tree, made), *self._taken(name(tree), self.fresh)]

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
