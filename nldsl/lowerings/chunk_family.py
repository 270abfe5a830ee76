"""What the loop over chunks carries for memories that run side by side.

Memories of one family differ in their targets only, so their weights are stacked on an axis behind
the heads, `[B, H, m, out, in]`, and one product serves all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nldsl.catalog.values import Shape
from nldsl.emit.nodes import Expression, If, Like, Statement, assign, call, name
from nldsl.lowerings.blocks import BlockCode, as_row, as_state
from nldsl.lowerings.scope import Scope
from nldsl.lowerings.slots import origin_of, slot_places
from nldsl.plan.chunk import starts_again
from nldsl.plan.details import ChunkDetail, ChunkMemory
from nldsl.spec.program import Memory


@dataclass
class Part:
    """One tensor of the state: where it is kept, and what it is called in `forward` and in the step.

    `new`: its name behind a step, if a step moves it.  `shape` of a weight (a bias is a row while
    the loop runs); `None` for what is no weight.
    """

    path: tuple[str, ...]
    shape: Shape | None
    outer: str
    new: str = ""
    inner: str = ""


class Family:
    """Memories side by side, and the names of everything they carry."""

    def __init__(self, code: BlockCode, detail: ChunkDetail, names: tuple[str, ...]) -> None:
        fresh = code.scope.names.fresh
        self.members: tuple[ChunkMemory, ...] = tuple(
            m for n in names for m in detail.members if m.memory.name == n
        )
        first = self.members[0]
        assert first.memory.function is not None
        self.memory, self.write, self.live = first.memory, first.write, first.live
        self.mirrored = first.mirrored
        self.label = names[0] if len(names) == 1 else fresh("memories")
        self.function = first.memory.function
        self.weights = tuple(w.name for w in self.function.weights)
        self.shapes = {w.name: w.shape for w in self.function.weights}
        self.fresh = fresh
        moves = not self.write.at_commit
        self.running = self._weights("running", "", moves)
        self.seen = {} if self.live else self._weights("committed", "_seen")
        own = self.write.base_every != self.memory.clock.every
        self.base = self._weights("base", "_base") if own else {}
        self.places = slot_places(self.memory, [self.write])
        self.slots = {p.key: self._part(("slots", p.key), p.shape, p.key, moves) for p in self.places}
        self.windows = {
            (n, part): self._part(("windows", str(n), part), None, f"{part}_{n + 1}", True)
            for n, term in enumerate(self.write.terms)
            if term.window > 1
            for part in ("key", "target", "weight")
        }
        self.gathered = {
            (n, w): self._part(("gathered", str(n), w), self.shapes[w], f"{w}_gathered_{n + 1}", True)
            for n in range(len(self.write.terms) if self.write.at_commit else 0)
            for w in self.weights
        }
        # What retention and the rules act around; it never changes, so the state does not hold it.
        origin = origin_of(self.memory, code.block.memories)
        self.toward = {
            w: self._part((), self.shapes[w], f"{w}_init", False)
            for i, w in enumerate(self.weights)
            if self.write.toward == "init" and origin.initial[i] is not None
        }

    def _weights(self, group: str, suffix: str, moves: bool = False) -> dict[str, Part]:
        return {w: self._part((group, w), self.shapes[w], f"{w}{suffix}", moves) for w in self.weights}

    def _part(self, path: tuple[str, ...], shape: Shape | None, wanted: str, moves: bool) -> Part:
        outer = self.fresh(f"{self.label}_{wanted}")
        return Part(path, shape, outer, self.fresh(f"{self.label}_{wanted}_new") if moves else "")

    @property
    def size(self) -> int:
        """How many memories run side by side."""
        return len(self.members)

    @property
    def memories(self) -> tuple[Memory, ...]:
        """Its members, in order."""
        return tuple(m.memory for m in self.members)

    def visible(self) -> list[Expression]:
        """The weights that reads see, inside the step."""
        return [name(p.inner) for p in self.seen.values()]

    @property
    def _stack_axis(self) -> int:
        """Where the memory axis goes in a weight of the state `[B, H, out, in]` or `[B, out, in]`."""
        return 2 if self.memory.per_head else 1

    def parts(self) -> Iterator[Part]:
        """Everything the state holds."""
        for group in (self.running, self.seen, self.base, self.slots, self.windows, self.gathered):
            yield from group.values()

    def given(self) -> list[Part]:
        """What the step needs: where gradients and reads look, and what the write moves."""
        look = [*(() if self.live else self.seen.values()), *self.base.values()]
        own = self.running if not self.mirrored else {}
        moved = () if self.write.at_commit else (*own.values(), *self.toward.values())
        slots = () if self.write.at_commit else self.slots.values()
        return [*look, *moved, *slots, *self.windows.values(), *self.gathered.values()]

    def moved(self) -> list[Part]:
        """What the step returns, in order."""
        return [p for p in self.parts() if p.new]

    # --- in `forward` ------------------------------------------------------------------------

    def load(self, code: BlockCode, grid: Expression) -> list[Statement]:
        """Local names for all of it, before the loop; stacked."""
        out: list[Statement] = []
        for part in self.parts():
            held = [_at(name("state")[m.memory.path], part.path) for m in self.members]
            rows = [as_row(part.shape, h) if part.shape is not None else h for h in held]
            out.append(assign(part.outer, self._stack(code, rows, self._stack_axis)))
        for w, part in self.toward.items():
            index = self.weights.index(w)
            initials = [code.initial(m.memory, index) for m in self.members]
            out.append(assign(part.outer, self._stack(code, initials, self._stack_axis - 1)))
        return [*out, *self._seeds(code, grid)]

    def _seeds(self, code: BlockCode, grid: Expression) -> list[Statement]:
        """Before its first step a dual is the weight itself."""
        choose = code.runtime("grid", "choose")
        out: list[Statement] = []
        for place in self.places:
            dual = self.members[0].steps[place.term][place.weight].dual if self.mirrored else None
            if dual is not None and dual.seeded:
                slot, weight = self.slots[place.key], self.running[self.weights[place.weight]]
                seeded = call(choose, grid.attr("unseen"), name(weight.outer), name(slot.outer))
                out.append(assign(slot.outer, seeded))
        return out

    def finish(self, code: BlockCode, grid: Expression) -> list[Statement]:
        """Behind the loop: the dual of a sample that has not seen a token yet is empty again."""
        choose = code.runtime("grid", "choose")
        out: list[Statement] = []
        for part in self.slots.values() if self.mirrored else ():
            empty = call("torch.zeros_like", name(part.outer))
            out.append(assign(part.outer, call(choose, grid.attr("begun")[-1], name(part.outer), empty)))
        return out

    def _stack(self, code: BlockCode, rows: Sequence[Expression], axis: int) -> Expression:
        return (
            rows[0] if self.size == 1 else call(code.runtime("stacks", "side_by_side"), tuple(rows), dim=axis)
        )

    def arguments(self) -> list[Expression]:
        """What the step is given."""
        return [name(p.outer) for p in self.given()]

    def parameter_names(self, scope: Scope) -> list[str]:
        """The same inside the step."""
        for part in self.given():
            part.inner = scope.names.fresh(part.outer)
        return [p.inner for p in self.given()]

    def advance(self, code: BlockCode, begun: Expression) -> list[Statement]:
        """What a step has moved, behind it; `begun`: whose first token has been (a dual has stepped)."""
        out: list[Statement] = []
        for part in self.moved():
            new: Expression = name(part.new)
            if self.mirrored and part in self.running.values():
                new = call(code.runtime("grid", "choose"), begun, new, name(part.outer))
            out.append(assign(part.outer, new))
        return out

    def settle(self, code: BlockCode, ends: Callable[[int], Expression]) -> list[Statement]:
        """Commits, bases and resets that fall on the end of a chunk; `ends(clock)` names whose."""
        choose = code.runtime("grid", "choose")
        out: list[Statement] = []
        for clock, shown in ((self.memory.clock.every, self.seen), (self.write.base_every, self.base)):
            for w, part in shown.items():
                moved = call(choose, ends(clock), name(self.running[w].outer), name(part.outer))
                out.append(assign(part.outer, moved))
        if self.memory.reset == "tokens" and not self.again:
            out.append(self.reset(code, ends(self.memory.reset_every)))
        return out

    @property
    def again(self) -> bool:
        """Whether every reset starts it from what another memory shows."""
        return starts_again(self.members[0])

    def shown(self, memory: str) -> list[Expression]:
        """What reads see of one of its memories, weight by weight, in `forward`."""
        place = [m.memory.name for m in self.members].index(memory)
        whole = [name(p.outer) for p in (self.seen or self.running).values()]
        return whole if self.size == 1 else [w.method("select", self._stack_axis, place) for w in whole]

    def reset(self, code: BlockCode, ends: Expression, origin: list[Expression] | None = None) -> Statement:
        """The samples whose period is over begin anew; `origin`: weights of another memory to begin with."""
        start = self.fresh("start")
        batch = code.scope.source.attr("shape")[0]
        made = name("self").method("initial_state", batch)[self.memory.path]
        body: list[Statement] = [assign(start, made)]
        taken = dict(zip(self.weights, origin or (), strict=False))
        for part in self.parts():
            fresh = _at(name(start), part.path)
            fresh = as_row(part.shape, fresh) if part.shape is not None else fresh
            if part.path[0] in ("running", "committed", "base"):
                fresh = taken.get(part.path[1], fresh)
            chosen = call(code.runtime("grid", "choose"), ends, fresh, name(part.outer))
            body.append(assign(part.outer, chosen))
        return If(call(code.runtime("grid", "fires"), ends), tuple(body))

    def store(self, count: Expression) -> list[Statement]:
        """The new state of every member."""
        out: list[Statement] = []
        if self.memory.reset == "tokens":
            count = count % self.memory.reset_every
        for i, member in enumerate(self.members):
            entries: dict[str, Like] = {}
            for part in self.parts():
                kept = name(part.outer)
                kept = kept if self.size == 1 else kept.method("select", self._stack_axis, i)
                _put(entries, part.path, kept if part.shape is None else as_state(part.shape, kept))
            entries["count"] = count
            out.append(assign(name("new")[member.memory.path], entries))
        return out


def _at(tree: Expression, path: tuple[str, ...]) -> Expression:
    for key in path:
        tree = tree[key]
    return tree


def _put(tree: dict[str, Like], path: tuple[str, ...], value: Expression) -> None:
    *above, last = path
    for key in above:
        tree = tree.setdefault(key, {})  # type: ignore[assignment]
    tree[last] = value
