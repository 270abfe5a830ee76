"""Which operations share a loop, and in which order all of them run."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from nldsl.native.graph import Operation, Point, Product, Reduce, View
from nldsl.native.tidy import rebound

AHEAD = 60
"""How far behind its first operation a loop looks for more."""


@dataclass(eq=False)
class Loop:
    """Element-wise operations and sums over the same places `domain` (without axes of size 1)."""

    domain: tuple[int, ...]
    members: list[Operation]


Stage = Loop | Operation
"""What runs at once."""


def domain_of(operation: Operation) -> tuple[int, ...] | None:
    """The places an operation walks over, `None` if it is no loop."""
    if isinstance(operation, Point):
        return tuple(n for n in operation.out.shape if n != 1)
    if isinstance(operation, Reduce):
        return tuple(n for n in operation.given.shape if n != 1)
    return None


def scheduled(operations: list[Operation]) -> list[Stage]:
    """Stages in an order in which everything is written before it is read."""
    before = _dependencies(operations)
    left, done, stages = list(operations), set[int](), list[Stage]()
    while left:
        first = left.pop(0)
        domain = domain_of(first)
        if domain is None:
            done.add(id(first))
            stages.append(first)
            continue
        loop = Loop(domain, [first])
        for candidate in left[:AHEAD]:
            if domain_of(candidate) == domain and _joins(candidate, loop, before, done):
                loop.members.append(candidate)
        inside = {id(m) for m in loop.members}
        left = [o for o in left if id(o) not in inside]
        done |= inside
        stages.append(loop)
    return stages


def _dependencies(operations: list[Operation]) -> dict[int, list[Operation]]:
    writers: dict[int, list[Operation]] = defaultdict(list)
    found: dict[int, list[Operation]] = {}
    for o in operations:
        buffers = {id(v.buffer) for v in o.reads()} | {id(o.out.buffer)}
        found[id(o)] = [w for b in buffers for w in writers[b]]
        writers[id(o.out.buffer)].append(o)
    return found


def _joins(operation: Operation, loop: Loop, before: dict[int, list[Operation]], done: set[int]) -> bool:
    """Whether an operation can run in a loop: what it needs is done or at the same place of the loop."""
    inside = {id(m) for m in loop.members}
    if any(id(w) not in done and id(w) not in inside for w in before[id(operation)]):
        return False
    written = {id(m.out.buffer): m for m in loop.members}
    if id(operation.out.buffer) in written:
        return False
    shares = False
    read = {id(v.buffer) for m in loop.members for v in m.reads()}
    for view in operation.reads():
        maker = written.get(id(view.buffer))
        if maker is not None and not (isinstance(maker, Point) and maker.out.at() == view.at()):
            return False
        shares |= maker is not None or id(view.buffer) in read
    return shares


def in_place(stages: list[Stage]) -> None:
    """Let products add to what they start from where nobody reads that any more."""
    last = last_reads(stages)
    for n, stage in enumerate(stages):
        if not isinstance(stage, Product) or stage.start is None:
            continue
        start, out = stage.start, stage.out
        rooms = start.buffer.place == out.buffer.place == "room"
        whole = start.elements == start.buffer.size and start.at()[1:] == out.at()[1:]
        alone = all(v.buffer is not start.buffer for v in (stage.a, stage.b))
        if rooms and whole and alone and last[id(start.buffer)] == n:
            _renamed(stages[n:], out, start)
            last[id(start.buffer)] = last.pop(id(out.buffer), n)


def _renamed(stages: list[Stage], old: View, new: View) -> None:
    place = View(new.buffer, 0, new.shape, new.strides)
    for operation in operations_of(stages):
        rebound(operation, {id(old.buffer): place})


def operations_of(stages: list[Stage]) -> list[Operation]:
    """All operations, one behind the other."""
    return [o for s in stages for o in (s.members if isinstance(s, Loop) else [s])]


def last_reads(stages: list[Stage]) -> dict[int, int]:
    """The last stage that reads or writes every buffer."""
    found: dict[int, int] = {}
    for n, stage in enumerate(stages):
        for o in stage.members if isinstance(stage, Loop) else [stage]:
            for view in (o.out, *o.reads()):
                found[id(view.buffer)] = n
    return found
