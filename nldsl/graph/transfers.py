"""The edges of the level graph: the five knowledge transfers, derived from the data flow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import networkx as nx

from nldsl.graph.flow import Flow, Link, Point
from nldsl.graph.model import Problem, Transfer, TransferKind

OUTPUT = "output"


def derive_transfers(flow: Flow, problems: Mapping[str, Problem]) -> tuple[Transfer, ...]:
    """The transfers among memories, slow parameters and ports.

    Conditioning along the residual stream is kept between neighbours only: what reaches a problem
    through another one is not drawn past it.
    """
    links = [link for link in flow.links if not link.wraps]
    direct = [link for link in links if not _across(link)]
    across = [link for link in links if _across(link)]
    forward = [*_without_shortcuts(direct, problems), *_led_by_memories(_nearest(across, flow), problems)]
    found = [
        *(_named(link, problems) for link in forward),
        *(_named(link, problems) for link in _led_by_memories(list(_wrapping(flow)), problems)),
        *_to_output(flow, problems),
        *_back(links, forward, problems),
    ]
    return merged(found)


def optimiser_transfers(slots: Iterable[tuple[Problem, tuple[str, ...]]]) -> Iterator[Transfer]:
    """Architecture makes gradients for the optimiser, the optimiser makes updates for the architecture."""
    for slot, served in slots:
        for slow in served:
            yield Transfer(slow, slot.id, "generate", ("gradient",))
            yield Transfer(slot.id, slow, "generate", ("update",))


def merged(transfers: Iterable[Transfer]) -> tuple[Transfer, ...]:
    """One transfer per ends and kind, with everything it carries."""
    carried: dict[tuple[str, str, TransferKind, bool], dict[str, None]] = {}
    for t in transfers:
        carried.setdefault((t.source, t.target, t.kind, t.wraps), {}).update(dict.fromkeys(t.carries))
    return tuple(Transfer(s, t, kind, tuple(c), wraps) for (s, t, kind, wraps), c in carried.items())


def _named(link: Link, problems: Mapping[str, Problem]) -> Transfer:
    source = link.source.point[0]
    return Transfer(source, link.target[0], _kind(link, problems), (link.carries,), link.wraps)


def _kind(link: Link, problems: Mapping[str, Problem]) -> TransferKind:
    if link.carries == "initial state":
        return "initialise"
    maker = problems.get(link.source.point[0])
    if maker is not None and maker.kind == "attention":
        return "non-parametric"
    return "generate" if link.makes and not link.source.crossed else "condition"


def _across(link: Link) -> bool:
    """Whether a link leads from one block to another."""
    return link.source.crossed or link.carries == "input"


def _nearest(links: list[Link], flow: Flow) -> list[Link]:
    """The links across blocks that do not run past another problem on the way."""
    kept = []
    order = flow.order.copy()
    for link in links:
        source, target = link.source.point, link.target
        if _other_way(order, source, target):
            if order.has_edge(source, target):
                order.remove_edge(source, target)
            continue
        kept.append(link)
    return kept


def _led_by_memories(links: list[Link], problems: Mapping[str, Problem]) -> list[Link]:
    """A block speaks to the next one through its memories; through its slow parameters if it has none."""
    speaks: dict[Point, set[str]] = {}
    for link in links:
        if _is_memory(link.source.point, problems):
            speaks.setdefault(link.target, set()).add(problems[link.source.point[0]].zone)
    return [k for k in links if not _is_silent(k, speaks.get(k.target, set()), problems)]


def _is_silent(link: Link, speaking: set[str], problems: Mapping[str, Problem]) -> bool:
    problem = problems.get(link.source.point[0])
    return problem is not None and problem.kind == "slow parameters" and problem.zone in speaking


def _without_shortcuts(links: list[Link], problems: Mapping[str, Problem]) -> list[Link]:
    """Drop queries between memories of one block that run past another memory (a residual chain)."""
    chain: nx.DiGraph[Point] = nx.DiGraph()
    queries = [k for k in links if k.carries == "query" and _is_memory(k.source.point, problems)]
    chain.add_edges_from((k.source.point, k.target) for k in queries if k.source.point != k.target)
    past = {(k.source.point, k.target) for k in queries if _other_way(chain, k.source.point, k.target)}
    return [k for k in links if k.carries != "query" or (k.source.point, k.target) not in past]


def _other_way(graph: nx.DiGraph[Point], source: Point, target: Point) -> bool:
    """Whether `target` is reached from `source` through a third point."""
    if source not in graph or target not in graph or source == target:
        return False
    for middle in graph.successors(source):
        if middle not in (source, target) and _reaches_avoiding(graph, middle, target, source):
            return True
    return False


def _reaches_avoiding(graph: nx.DiGraph[Point], start: Point, end: Point, avoid: Point) -> bool:
    seen, todo = {start, avoid}, [start]
    while todo:
        for after in graph.successors(todo.pop()):
            if after == end:
                return True
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return False


def _wrapping(flow: Flow) -> Iterator[Link]:
    """From one copy of a repeat to the next: only to what the next copy meets first."""
    wraps = [link for link in flow.links if link.wraps]
    first: dict[Point, set[Point]] = {}
    for link in wraps:
        first.setdefault(link.source.point, set()).add(link.target)
    for link in wraps:
        others = first[link.source.point] - {link.target}
        if not any(nx.has_path(flow.order, o, link.target) for o in others if _known(flow, o, link.target)):
            yield link


def _known(flow: Flow, first: Point, then: Point) -> bool:
    """Whether `first` comes before `then` and not the other way round as well."""
    order = flow.order
    return first in order and then in order and not nx.has_path(order, then, first)


def _to_output(flow: Flow, problems: Mapping[str, Problem]) -> Iterator[Transfer]:
    """What shapes the output; slow parameters of a block only if no memory of that block does."""
    ids = list(dict.fromkeys(s.point[0] for s in sorted(flow.outputs, key=lambda s: s.point)))
    zones = {problems[i].zone for i in ids if i in problems and problems[i].kind != "slow parameters"}
    for id in ids:
        problem = problems.get(id)
        if problem is not None and problem.kind == "slow parameters" and problem.zone in zones:
            continue
        kind: TransferKind = "non-parametric" if problem and problem.kind == "attention" else "condition"
        yield Transfer(id, OUTPUT, kind, ("output",))


def _back(links: list[Link], forward: list[Link], problems: Mapping[str, Problem]) -> Iterator[Transfer]:
    """One gradient flow, different frequencies: slow parameters through memories, and task memories."""
    for link in forward:
        slow, memory = problems.get(link.source.point[0]), problems.get(link.target[0])
        if slow is None or memory is None or not link.source.grad:
            continue
        if slow.kind == "slow parameters" and memory.kind != "slow parameters":
            yield Transfer(memory.id, slow.id, "backpropagate", ("gradient",))
    yield from _task_chain(links, problems)


def _task_chain(links: list[Link], problems: Mapping[str, Problem]) -> Iterator[Transfer]:
    """From each task memory back to the task memories before it, with none between."""
    back: nx.DiGraph[Point] = nx.DiGraph()
    back.add_edges_from((k.target, k.source.point) for k in links if k.source.grad)
    chain = [(id, 0) for id, p in problems.items() if p.kind == "task memory"]
    reach: dict[Point, set[Point]] = {
        p: set(nx.descendants(back, p)) & set(chain) for p in chain if p in back
    }
    for later, earlier in reach.items():
        for other in sorted(earlier):
            between = any(other in reach.get(middle, ()) for middle in earlier - {other})
            if not between and problems[other[0]].clock != problems[later[0]].clock:
                yield Transfer(later[0], other[0], "backpropagate", ("error",))


def _is_memory(point: Point, problems: Mapping[str, Problem]) -> bool:
    problem = problems.get(point[0])
    return problem is not None and problem.kind != "slow parameters"
