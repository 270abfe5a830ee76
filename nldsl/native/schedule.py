"""Which operations share a loop, and in which order all of them run."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from nldsl.native.graph import Operation, Point, Reduce

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


def operations_of(stages: list[Stage]) -> list[Operation]:
    """All operations, one behind the other."""
    return [o for s in stages for o in (s.members if isinstance(s, Loop) else [s])]


def last_reads(stages: list[Stage]) -> dict[int, int]:
    """The last stage that reads or writes every buffer."""
    found: dict[int, int] = {}
    for n, stage in enumerate(stages):
        for o in operations_of([stage]):
            for view in (o.out, *o.reads()):
                found[id(view.buffer)] = n
    return found


def kept_in_loops(stages: list[Stage]) -> set[int]:
    """Buffers that are written and read in one loop only: they are never stored."""
    written: dict[int, int] = {}
    read: dict[int, set[int]] = {}
    for n, stage in enumerate(stages):
        for o in operations_of([stage]):
            buffer = o.out.buffer
            once = isinstance(stage, Loop) and buffer.place == "room" and id(buffer) not in written
            written[id(buffer)] = n if once else -1
            for view in o.reads():
                read.setdefault(id(view.buffer), set()).add(n)
    return {b for b, n in written.items() if n >= 0 and read.get(b) == {n}}
