"""Two level graphs held against each other: what came, what went, what is different."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from nldsl.graph.levels import frequency, spoken
from nldsl.graph.model import Level, LevelGraph, Problem, Transfer, Zone

Status = Literal["added", "removed", "changed"]
Key = tuple[str, str, str, bool]
"""(kind, source, target, wraps) of a transfer."""

T = TypeVar("T")

_FIELDS = (
    "kind", "objective", "objective_equation", "context", "map", "map_equation", "rule", "rule_equation",
    "retention", "start", "reset", "copies", "multiplicity", "parameters", "state_bytes", "bytes_per_token",
)  # fmt: skip
_SECOND = {"objective_equation": "objective", "map_equation": "map", "rule_equation": "rule"}
"""An equation is told only if the name in front of it is the same."""


@dataclass(frozen=True)
class Change:
    """One difference: `what` was `before` and is `after` (empty where there is none)."""

    status: Status
    subject: Literal["problem", "transfer"]
    id: str
    name: str
    what: str = ""
    before: str = ""
    after: str = ""

    @property
    def sentence(self) -> str:
        """The change in words.

        Example:
            >>> Change("changed", "problem", "M", "M", "clock", "every 16 tokens", "every 64 tokens").sentence
            'M: clock every 16 tokens → every 64 tokens'
        """
        if self.status == "changed":
            return f"{self.name}: {self.what} {self.before or 'none'} → {self.after or 'none'}"
        return f"{self.name} {self.status}" + (f": {self.what}" if self.what else "")


@dataclass(frozen=True)
class Comparison:
    """Both graphs laid over each other, and the differences."""

    before: str
    after: str
    graph: LevelGraph
    problems: dict[str, Status]
    transfers: dict[Key, Status]
    changes: tuple[Change, ...]

    def status(self, transfer: Transfer) -> Status | Literal[""]:
        """What happened to a transfer; empty if it is in both."""
        return self.transfers.get(key(transfer), "")

    def to_json(self) -> dict[str, Any]:
        """Plain data: `{before after problems {id: status} changes [{status subject id ... sentence}]}`."""
        changes = [{**vars(change), "sentence": change.sentence} for change in self.changes]
        return {
            "before": self.before,
            "after": self.after,
            "problems": self.problems,
            "changes": changes,
        }


def key(transfer: Transfer) -> Key:
    """What makes two transfers the same one."""
    return transfer.kind, transfer.source, transfer.target, transfer.wraps


def compare(before: LevelGraph, after: LevelGraph) -> Comparison:
    """Lay `after` over `before`.

    Things are the same if they have the same id; the two roots count as one, whatever their names.
    """
    old = _renamed(before, after.name)
    problems = list(_problems(old, after))
    transfers = list(_transfers(old, after))
    changes = tuple(change for change in (*problems, *transfers))
    return Comparison(
        before.name,
        after.name,
        _union(old, after, f"{before.name} → {after.name}"),
        {c.id: c.status for c in problems},
        {_key_of(c.id): c.status for c in transfers},
        changes,
    )


def _renamed(graph: LevelGraph, name: str) -> LevelGraph:
    """The graph with its root called `name`."""
    if graph.name == name:
        return graph
    slow = f"slow({graph.name})"

    def id_of(id: str) -> str:
        return f"slow({name}){id.removeprefix(slow)}" if id == slow or id.startswith(f"{slow}@") else id

    def zone_of(zone: str) -> str:
        return name if zone == graph.name else zone

    return replace(
        graph,
        problems=tuple(replace(p, id=id_of(p.id), zone=zone_of(p.zone)) for p in graph.problems),
        transfers=tuple(replace(t, source=id_of(t.source), target=id_of(t.target)) for t in graph.transfers),
        levels=tuple(replace(v, problems=tuple(id_of(id) for id in v.problems)) for v in graph.levels),
        zones=tuple(replace(z, id=zone_of(z.id), label=zone_of(z.label)) for z in graph.zones),
    )


def _problems(old: LevelGraph, new: LevelGraph) -> Iterator[Change]:
    was = {p.id: p for p in old.problems}
    for problem in new.problems:
        if problem.id not in was:
            yield Change("added", "problem", problem.id, _called(problem), _in_short(problem))
            continue
        earlier = was.pop(problem.id)
        for what, a, b in _differences(earlier, problem):
            yield Change("changed", "problem", problem.id, _called(problem), what, a, b)
    for problem in was.values():
        yield Change("removed", "problem", problem.id, _called(problem), _in_short(problem))


def _differences(a: Problem, b: Problem) -> Iterator[tuple[str, str, str]]:
    if frequency(a.clock) != frequency(b.clock):
        yield "clock", spoken(a.clock), spoken(b.clock)
    for name in _FIELDS:
        first = _SECOND.get(name)
        if first and getattr(a, first) != getattr(b, first):
            continue
        one, other = getattr(a, name), getattr(b, name)
        if one != other:
            yield name.replace("_", " "), _shown(one), _shown(other)
    if a.tensors != b.tensors:
        yield from _shapes(a, b)


def _shapes(a: Problem, b: Problem) -> Iterator[tuple[str, str, str]]:
    one, other = ({t.name: str(list(t.shape)) for t in p.tensors} for p in (a, b))
    for name in dict.fromkeys([*one, *other]):
        if one.get(name) != other.get(name):
            yield f"shape of {name}", one.get(name, ""), other.get(name, "")


def _transfers(old: LevelGraph, new: LevelGraph) -> Iterator[Change]:
    was, now = ({key(t): t for t in graph.transfers} for graph in (old, new))
    names = {p.id: _called(p) for p in (*old.problems, *new.problems)}
    pairs: list[tuple[Status, dict[Key, Transfer], dict[Key, Transfer]]] = [
        ("added", now, was), ("removed", was, now),
    ]  # fmt: skip
    for status, these, those in pairs:
        for found in these:
            if found not in those:
                t = these[found]
                name = f"{names.get(t.source, t.source)} → {names.get(t.target, t.target)}"
                what = f"{t.kind} ({', '.join(t.carries)})" if t.carries else t.kind
                yield Change(status, "transfer", _id_of(found), name, what)
    for found in now:
        if found in was and set(was[found].carries) != set(now[found].carries):
            t = now[found]
            name = f"{names.get(t.source, t.source)} → {names.get(t.target, t.target)}"
            carried = ", ".join(was[found].carries), ", ".join(t.carries)
            yield Change("changed", "transfer", _id_of(found), name, f"{t.kind} carries", *carried)


def _id_of(found: Key) -> str:
    return "\t".join(str(part) for part in found)


def _key_of(id: str) -> Key:
    kind, source, target, wraps = id.split("\t")
    return kind, source, target, wraps == "True"


def _called(problem: Problem) -> str:
    """A name that tells slow parameters of different blocks apart."""
    block = problem.zone.rpartition(".")[2]
    if problem.kind == "slow parameters":
        return f"slow parameters of {block}"
    return problem.name if problem.kind == "optimiser memory" else f"{block} {problem.name}"


def _in_short(problem: Problem) -> str:
    parts = (problem.kind, spoken(problem.clock), problem.map, problem.objective, problem.rule)
    return ", ".join(part for part in parts if part)


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _union(old: LevelGraph, new: LevelGraph, name: str) -> LevelGraph:
    """Everything of both, the new form of what is in both, in an order that keeps neighbours."""
    problems = _woven(old.problems, new.problems, lambda p: p.id)
    zones = _woven(old.zones, new.zones, lambda z: z.id)
    frames = _woven(old.frames, new.frames, lambda f: f.id)
    return LevelGraph(
        name=name,
        kind=new.kind,
        task=new.task,
        problems=problems,
        ports=_woven(old.ports, new.ports, lambda p: p.id),
        transfers=_woven(old.transfers, new.transfers, key),
        levels=_levels(old, new, problems),
        zones=_training_last(zones, problems),
        frames=frames,
        sources=tuple(dict.fromkeys((*old.sources, *new.sources))),
    )


def _woven(old: Sequence[T], new: Sequence[T], of: Callable[[T], Hashable]) -> tuple[T, ...]:
    """`new`, and behind its predecessor whatever only `old` has."""
    known = {of(item) for item in new}
    after: dict[Hashable, list[T]] = {}
    last: Hashable = None
    for item in old:
        if of(item) in known:
            last = of(item)
        else:
            after.setdefault(last, []).append(item)
    woven = list(after.get(None, ()))
    for item in new:
        woven += [item, *after.get(of(item), ())]
    return tuple(woven)


def _training_last(zones: Iterable[Zone], problems: Iterable[Problem]) -> tuple[Zone, ...]:
    trains = {p.zone for p in problems if p.kind == "optimiser memory"}
    return tuple(sorted(zones, key=lambda zone: zone.id in trains))


def _levels(old: LevelGraph, new: LevelGraph, problems: Sequence[Problem]) -> tuple[Level, ...]:
    """Levels of the same clock and rank are one; what went keeps the level it had."""
    now = {id for level in new.levels for id in level.problems}
    found: dict[tuple[Any, int], Level] = {}
    for graph in (new, old):
        for level in graph.levels:
            ids = tuple(id for id in level.problems if graph is new or id not in now)
            if not ids:
                continue
            place = (frequency(level.clock), int((level.number.split(".") + ["1"])[1]))
            known = found.get(place)
            if known is None:
                only = "" if graph is new else f"only in {old.name}: "
                found[place] = replace(level, problems=ids, reason=only + level.reason)
            else:
                names = tuple(dict.fromkeys((*known.names, *level.names)))
                found[place] = replace(known, problems=(*known.problems, *ids), names=names)
    order = {p.id: i for i, p in enumerate(problems)}
    return tuple(
        replace(found[place], problems=tuple(sorted(found[place].problems, key=order.__getitem__)))
        for place in sorted(found)
    )


__all__ = ["Change", "Comparison", "Status", "compare", "key"]
