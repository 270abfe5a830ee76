"""Do for all memories of a family at once what they do alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from nldsl.emit.nodes import Expression, assign, call, name
from nldsl.library import PRIMITIVES
from nldsl.lowerings.apply import LAST_AXIS, lower_apply
from nldsl.lowerings.blocks import BlockCode
from nldsl.lowerings.gates import heads_of
from nldsl.lowerings.scope import Scope
from nldsl.lowerings.static import answer
from nldsl.spec.program import Apply, Memory, Read, Statement, Value


class Stack(Protocol):
    """Memories side by side; one alone has no axis of its own."""

    label: str

    @property
    def memories(self) -> tuple[Memory, ...]:
        """Its members, in order."""

    def visible(self) -> list[Expression]:
        """The weights that reads see."""


class Order(Protocol):
    """A body whose values are computed when first needed."""

    code: BlockCode
    scope: Scope
    steps: list[Statement]
    maker: dict[str, Apply | Read]
    done: set[str]

    def value(self, value: Value) -> Expression:
        """A value in scope, computed now if it is not there yet."""


@dataclass(frozen=True)
class Group:
    """The j-th reads of all members; `out` is the value that holds the stacked answers."""

    family: str
    reads: tuple[Read, ...]
    out: Value


class Stacker:
    """Emits reads, side by side where the members' reads do not depend on one another."""

    def __init__(self, step: Order, families: Mapping[str, Stack]) -> None:
        self.step, self.families = step, families
        self.groups: dict[str, Group] = {}
        self.stacks: dict[tuple[str, ...], Value] = {}
        for family in families.values():
            self._group(family)

    def _group(self, family: Stack) -> None:
        if len(family.memories) == 1:
            return
        reads = [
            [s for s in self.step.steps if isinstance(s, Read) and s.memory == m.name]
            for m in family.memories
        ]
        for j, tier in enumerate(zip(*reads, strict=False)):
            outs = {r.out.name for r in tier}
            if any(outs & self._ancestors(r.key) or _grouped(r, family) for r in tier):
                continue
            out = replace(tier[0].out, name=f"{family.label}_read_{j}" if j else f"{family.label}_read")
            group = Group(family.label, tuple(tier), out)
            for read in tier:
                self.groups[read.out.name] = group

    def _ancestors(self, value: Value) -> set[str]:
        """Names of everything inside the unit a value is computed from."""
        seen: set[str] = set()
        stack = [value.name]
        while stack:
            current = stack.pop()
            if current in seen:
                continue
            seen.add(current)
            maker = self.step.maker.get(current)
            if isinstance(maker, Apply):
                stack += [a.name for a in maker.args]
            elif isinstance(maker, Read):
                stack.append(maker.key.name)
        return seen

    # --- reads -------------------------------------------------------------------------------

    def read(self, read: Read) -> None:
        """Make the answer of one read a value in scope."""
        group = self.groups.get(read.out.name)
        if group is None:
            self._single(read)
            return
        stacked = self._stacked_read(group)
        scope = self.step.scope
        names = [scope.names.of(r.out) for r in group.reads]
        scope.add(assign(names, stacked.method("unbind", memory_axis(read.out))))
        self.step.done |= {r.out.name for r in group.reads}

    def _single(self, read: Read) -> None:
        """A read of its own: of the only member, or of one slice of the stack."""
        family = next(f for f in self.families.values() if read.memory in {m.name for m in f.memories})
        position = [m.name for m in family.memories].index(read.memory)
        weights = family.visible()
        if len(family.memories) > 1:
            weights = [w.method("select", -3, position) for w in weights]
        memory = family.memories[position]
        key = self.step.value(read.key)
        scope = self.step.scope
        value = answer(self.step.code, memory, read, key, weights)
        scope.add(assign(scope.names.of(read.out), value))

    def _stacked_read(self, group: Group) -> Expression:
        scope = self.step.scope
        if group.out.name not in scope.stacked:
            family = self.families[group.family]
            keys = self.stacked(tuple(r.key for r in group.reads))
            answers = self.step.code.map_call(family.memories[0], keys, family.visible())
            scope.add(assign(scope.names.of(group.out), answers))
            scope.stacked[group.out.name] = len(family.memories)
        return name(scope.names.of(group.out))

    # --- stacks ------------------------------------------------------------------------------

    def stacked(self, values: tuple[Value, ...]) -> Expression:
        """The values on a memory axis in front of the tokens; of size one if they are all the same."""
        made = self._stack(values)
        scope = self.step.scope
        if made.name in scope.stacked:
            return scope.ref(made)
        return scope.ref(made).method("unsqueeze", memory_axis(made))

    def _stack(self, values: tuple[Value, ...]) -> Value:
        """One value for all of them: shared, or stacked under a name of its own."""
        if len({v.name for v in values}) == 1:
            self.step.value(values[0])
            return values[0]
        key = tuple(v.name for v in values)
        if key not in self.stacks:
            self.stacks[key] = self._together(values) or self._side_by_side(values)
        return self.stacks[key]

    def _together(self, values: tuple[Value, ...]) -> Value | None:
        """Computed on the stack: a stacked read, or the same operation on stacked arguments."""
        group = self.groups.get(values[0].name)
        if group is not None and tuple(r.out.name for r in group.reads) == tuple(v.name for v in values):
            self._stacked_read(group)
            return group.out
        makers = [self.step.maker.get(v.name) for v in values]
        applies = [m for m in makers if isinstance(m, Apply)]
        if len(applies) < len(values) or not _alike(applies):
            return None
        columns = zip(*(a.args for a in applies), strict=True)
        arguments = tuple(self._stack(column) for column in columns)
        first = applies[0]
        out = replace(first.out, name=f"{first.out.name}_stack")
        scope = self.step.scope
        scope.stacked[out.name] = len(values)
        lower_apply(scope, replace(first, out=out, args=arguments))
        return out

    def _side_by_side(self, values: tuple[Value, ...]) -> Value:
        """`torch.stack` of values that were computed one by one."""
        scope = self.step.scope
        parts = tuple(self.step.value(v) for v in values)
        out = replace(values[0], name=f"{values[0].name}_stack")
        scope.add(assign(scope.names.of(out), call("torch.stack", parts, dim=memory_axis(out))))
        scope.stacked[out.name] = len(values)
        return out


def _grouped(read: Read, family: Stack) -> bool:
    """Whether several queries share one copy of the memory."""
    return heads_of(read.key) != family.memories[0].heads


def memory_axis(value: Value) -> int:
    """Where the memory axis of a stack stands, counted from the end: in front of the tokens."""
    return -3 if value.kind in ("headed", "vector") else -2


def _alike(applies: list[Apply]) -> bool:
    """The same stateless operation on the last axis or element by element, without parameters."""
    first = applies[0]
    primitive = PRIMITIVES[first.op]
    simple = primitive.elementwise or first.op in LAST_AXIS
    same = all((a.op, a.options, len(a.args)) == (first.op, first.options, len(first.args)) for a in applies)
    return simple and same and not primitive.stateful and not any(a.parameters for a in applies)
