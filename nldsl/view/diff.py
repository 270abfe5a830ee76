"""What two programs differ in: blocks, memories, clocks, slow parameters, training, levels, cost.

Blocks are matched by where they are called and in which order, so a mixer that is exchanged for another
is one block that changed, with memories of the same name held against each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

from nldsl.catalog.values import Options
from nldsl.graph import Problem, build_graph, open_program
from nldsl.graph.levels import frequency, spoken
from nldsl.graph.places import own_once
from nldsl.graph.problems import who_trains
from nldsl.graph.rule_labels import group_label
from nldsl.spec.program import Block, Parameter, Program, TrainPlan
from nldsl.view.align import Node, Pair, align, canonical
from nldsl.view.explain import Explanation, explain_program
from nldsl.view.words import spoken_flops, spoken_state

Sign = Literal["+", "-", "~"]
ALIKE = 0.34
"""Blocks with a smaller share of common lines are told apart by their names, not line by line."""
Subject = Literal["program", "block", "memory", "parameter", "training", "level", "cost"]


@dataclass(frozen=True)
class Change:
    """One difference: `what` of `subject` `name` in `block` was `before` and is `after`.

    `+`: only the second program has it; `-`: only the first; `~`: both have it, and it differs.
    """

    sign: Sign
    subject: Subject
    block: str
    name: str
    what: str = ""
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Difference:
    """Everything two programs differ in; `changes` is empty if they mean the same."""

    before: str
    after: str
    changes: tuple[Change, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether there is no difference."""
        return not self.changes

    def of(self, *subjects: Subject) -> tuple[Change, ...]:
        """The changes of some kinds."""
        return tuple(c for c in self.changes if c.subject in subjects)

    def to_json(self) -> dict[str, Any]:
        """Plain data: `{before after equal changes [{sign subject block name what before after}]}`."""
        changes = [asdict(c) for c in self.changes]
        return {"before": self.before, "after": self.after, "equal": self.equal, "changes": changes}


def diff(before: str | Path, after: str | Path, *, block: str | None = None, **arguments: Any) -> Difference:
    """Compare two specifications (names, files or texts), both with the same arguments.

    Raises:
        SpecError: one of them has errors.

    Example:
        >>> diff("hope", "hope").equal, diff("hope", "hope", depth=2).equal
        (True, True)
    """
    first, second = (open_program(s, block=block, **arguments) for s in (before, after))
    return diff_programs(first, second)


def diff_programs(before: Program, after: Program, labels: tuple[str, str] | None = None) -> Difference:
    """Compare two programs; `labels` is what they are called in the result, their names if left out."""
    sides = (_Side.of(before), _Side.of(after))
    changes = [change for pair in align(before, after) for change in _pair(pair, *sides)]
    changes += _training(before.train, after.train)
    changes += _levels(*sides)
    changes += _cost(sides[0].explanation, sides[1].explanation)
    return Difference(*(labels or (before.name, after.name)), tuple(changes))


@dataclass(frozen=True)
class _Side:
    """One program and what is known about it."""

    program: Program
    explanation: Explanation
    problems: Mapping[str, Problem]

    @staticmethod
    def of(program: Program) -> _Side:
        graph = build_graph(program)
        return _Side(program, explain_program(program, graph), {p.id: p for p in graph.problems})


# --- blocks ----------------------------------------------------------------------------------


def _pair(pair: Pair, a: _Side, b: _Side) -> Iterator[Change]:
    """The differences of one block."""
    if pair.before is None or pair.after is None:
        yield from _whole(pair, a, b)
        return
    old, new = pair.before, pair.after
    where = _where(old)
    is_root = old.block is a.program.root
    if old.block.name != new.block.name and not is_root and old.times == 1:
        yield Change("~", "block", where, where, "block", old.block.name, new.block.name)
    if old.times != new.times:
        yield Change("~", "block", where, where, "copies", str(old.times), str(new.times))
    found = [*_memories(old, new, a, b, where), *_parameters(old, new, a, b, where)]
    same = old.block.name == new.block.name or is_root
    options = list(_options(old.block.static, new.block.static, where)) if same else []
    yield from options
    yield from found
    if canonical(old.block) != canonical(new.block):
        lines = list(_lines(old.block, new.block, where))
        yield from lines
        if not lines and not found and not options and same:
            yield Change("~", "block", where, where, "computation", "", "the statements differ")


def _whole(pair: Pair, a: _Side, b: _Side) -> Iterator[Change]:
    """A block that only one of them has."""
    node, side, sign = (pair.before, a, "-") if pair.before is not None else (pair.after, b, "+")
    assert node is not None
    where = _where(node)
    count = f"{node.times} copies" if node.times > 1 else node.block.name
    made: Sign = "-" if sign == "-" else "+"
    yield Change(made, "block", where, where, "block", *(("", count) if sign == "+" else (count, "")))
    for memory in node.block.memories:
        yield _lone(made, side.problems[node.place.memory_id(memory)], where)


def _where(node: Node) -> str:
    return node.place.path or node.block.name


def _lone(sign: Sign, problem: Problem, where: str) -> Change:
    parts = (spoken(problem.clock), problem.map, problem.objective, problem.rule)
    text = ", ".join(part for part in parts if part)
    sides = ("", text) if sign == "+" else (text, "")
    return Change(sign, "memory", where, problem.name, "memory", *sides)


def _options(before: Options, after: Options, where: str) -> Iterator[Change]:
    """Arguments of the block: those that both have."""
    old, new = dict(before), dict(after)
    for name in (n for n in old if n in new):
        if old[name] != new[name]:
            yield Change("~", "block", where, where, f"`{name}`", str(old[name]), str(new[name]))


def _lines(before: Block, after: Block, where: str) -> Iterator[Change]:
    """Source lines of statements that differ; none if the blocks have little in common."""
    old, new = _texts(before), _texts(after)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    if matcher.ratio() < ALIKE:
        return
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            continue
        gone, come = old[i:i_end], new[j:j_end]
        for n in range(max(len(gone), len(come))):
            first, second = (x[n] if n < len(x) else "" for x in (gone, come))
            sign: Sign = "~" if first and second else ("-" if first else "+")
            yield Change(sign, "block", where, where, "computes", first, second)


def _texts(block: Block) -> list[str]:
    """The lines statements were written on, each once, in order."""
    found: dict[str, None] = {}
    for step in block.body:
        if step.span is not None:
            line = step.span.file.text.splitlines()[step.span.line - 1]
            found.setdefault(" ".join(line.partition("#")[0].split()).rstrip(" {"))
    return list(found)


# --- memories and parameters -----------------------------------------------------------------

_FIELDS = (
    "level", "map", "map_equation", "objective", "objective_equation", "rule", "rule_equation", "retention",
    "start", "reset", "context",
)  # fmt: skip
_UNDER = {"map_equation": "map", "objective_equation": "objective", "rule_equation": "rule"}
"""An equation is told only if the name in front of it is the same."""


def _memories(old: Node, new: Node, a: _Side, b: _Side, where: str) -> Iterator[Change]:
    ours = {m.name: a.problems[old.place.memory_id(m)] for m in old.block.memories}
    theirs = {m.name: b.problems[new.place.memory_id(m)] for m in new.block.memories}
    for name, problem in ours.items():
        if name in theirs:
            yield from _memory(problem, theirs[name], a, b, where)
        else:
            yield _lone("-", problem, where)
    yield from (_lone("+", problem, where) for name, problem in theirs.items() if name not in ours)


def _memory(old: Problem, new: Problem, a: _Side, b: _Side, where: str) -> Iterator[Change]:
    def change(what: str, before: object, after: object) -> Change:
        return Change("~", "memory", where, old.name, what, str(before), str(after))

    if frequency(old.clock) != frequency(new.clock):
        yield change("clock", spoken(old.clock), spoken(new.clock))
    for name in _FIELDS:
        above = _UNDER.get(name)
        if above is not None and getattr(old, above) != getattr(new, above):
            continue
        if getattr(old, name) != getattr(new, name):
            yield change(name.replace("_", " "), getattr(old, name), getattr(new, name))
    if old.copies != new.copies:
        yield change("heads", old.copies, new.copies)
    shapes = [", ".join(f"{t.name} {list(t.shape)}" for t in p.tensors) for p in (old, new)]
    if shapes[0] != shapes[1]:
        yield change("shapes", *shapes)
    for what, was, now in _dynamics(old.id, new.id, a, b):
        yield change(what, was, now)


def _dynamics(old: str, new: str, a: _Side, b: _Side) -> Iterator[tuple[str, str, str]]:
    """What follows from the changes: the name of the recurrence, and the factor along a key."""
    first, second = (
        next((d for d in s.explanation.equations if d.id == id), None) for s, id in ((a, old), (b, new))
    )
    if first is None or second is None:
        return
    if first.known_as != second.known_as:
        yield "known as", first.known_as, second.known_as
    was, now = (" ".join(f"{t.factor} in {t.range}" for _, t in d.transitions[:1]) for d in (first, second))
    if was != now:
        yield "along a key", was, now


def _parameters(old: Node, new: Node, a: _Side, b: _Side, where: str) -> Iterator[Change]:
    """Slow parameters of the block itself, by their path in it; an initial state has its memory's size."""
    ours, theirs = (_facts(n, s) for n, s in ((old, a), (new, b)))
    starts = {p.path for n in (old, new) for m in n.block.memories for p in m.initial if p is not None}
    for path, facts in ours.items():
        if path not in theirs:
            if path in starts:
                continue
            yield Change("-", "parameter", where, path, "parameter", facts[0], "")
            continue
        for what, was, now in zip(("shape", "role", "start", "trained by"), facts, theirs[path], strict=True):
            if was != now and not (path in starts and what == "shape"):
                yield Change("~", "parameter", where, path, what, was, now)
    for path, facts in theirs.items():
        if path not in ours and path not in starts:
            yield Change("+", "parameter", where, path, "parameter", "", facts[0])


def _facts(node: Node, side: _Side) -> dict[str, tuple[str, str, str, str]]:
    """Shape, role, first value and rule of every parameter of a block."""
    return {
        p.path: (
            str(list(p.shape)),
            p.role,
            _drawn(p),
            who_trains(side.program, node.place.parameter_path(p), p),
        )
        for p in own_once(node.block)
    }


def _drawn(parameter: Parameter) -> str:
    """How a parameter is drawn; a scale that follows from its size is no difference of its own."""
    init = parameter.init
    fan_in = (
        init.kind == "normal"
        and init.scale > 0
        and parameter.shape
        and abs(init.scale**-2 - parameter.shape[-1]) < 1e-6
    )
    return f"{init.kind} fan-in" if fan_in else f"{init.kind} {init.scale:g}"


# --- training, levels, cost ------------------------------------------------------------------


def _training(old: TrainPlan | None, new: TrainPlan | None) -> Iterator[Change]:
    if old is None or new is None:
        if old is not new:
            yield Change("-" if old else "+", "training", "", "train")
        return
    for name in ("task", "carry", "truncate", "clip"):
        was, now = getattr(old, name), getattr(new, name)
        if was != now:
            yield Change("~", "training", "", "train", name, str(was), str(now))
    ours, theirs = (
        {", ".join(g.selectors): (f"{group_label(g)} every {g.every}", g.level) for g in train.groups}
        for train in (old, new)
    )
    for name in dict.fromkeys([*ours, *theirs]):
        (was, level), (now, other) = ours.get(name, ("", "")), theirs.get(name, ("", ""))
        if was != now:
            sign: Sign = "~" if was and now else ("-" if was else "+")
            yield Change(sign, "training", "", name, "rule", was, now)
        if was and now and level != other:
            yield Change("~", "training", "", name, "level", level, other)


def _levels(a: _Side, b: _Side) -> Iterator[Change]:
    """Levels that came or went, by their clock."""
    ours, theirs = ({level.clock: ", ".join(level.names) for level in s.explanation.levels} for s in (a, b))
    for clock in dict.fromkeys([*ours, *theirs]):
        if clock not in theirs:
            yield Change("-", "level", "", clock, "level", ours[clock], "")
        elif clock not in ours:
            yield Change("+", "level", "", clock, "level", "", theirs[clock])


def _cost(a: Explanation, b: Explanation) -> Iterator[Change]:
    first, second = a.parameter_count, b.parameter_count
    said = [("parameters", first, second, f"{first:,}", f"{second:,}")]
    said.append(("state", a.cost.state, b.cost.state, _state(a) or "0 B", _state(b) or "0 B"))
    for name, was, now in (
        ("decode", a.cost.decode, b.cost.decode),
        ("training", a.cost.training, b.cost.training),
    ):
        said.append((name, was.fixed, now.fixed, spoken_flops(was) or "0", spoken_flops(now) or "0"))
    for name, first, second, before, after in said:
        if first != second or before != after:
            yield Change("~", "cost", "", name, _percent(first, second), before, after)


def _state(explanation: Explanation) -> str:
    return spoken_state(explanation.state_bytes, explanation.cost.state_per_token * 4)


def _percent(first: int, second: int) -> str:
    """By how much, in percent; of what does not grow with the context."""
    if not first or first == second:
        return ""
    return f"{100 * (second - first) / first:+.1f}%"
