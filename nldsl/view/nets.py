"""Bundle transfers into nets, so that twenty arrows become one bus that says the same.

Transfers of one kind from one source form a net; nets with the same targets join.  Both steps keep
the meaning: a net stands for exactly the pairs (source, target) that were transfers.  Gradients
converge, so `backpropagate` is bundled from its target.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from nldsl.graph import LevelGraph, Transfer
from nldsl.graph.compare import Comparison, Status
from nldsl.view.geometry import KINDS, Net

Pair = tuple[str, str]

_STATES: tuple[Status | Literal[""], ...] = ("", "added", "changed", "removed")


def bundle(graph: LevelGraph, comparison: Comparison | None = None) -> tuple[Net, ...]:
    """The nets of a graph, in the order of the legend; transfers between copies are left out.

    With a comparison, what it treats differently is bundled apart.
    """
    if comparison is not None:
        groups = {
            status: [t for t in graph.transfers if comparison.status(t) == status] for status in _STATES
        }
        parts = [(status, replace(graph, transfers=tuple(groups[status]))) for status in _STATES]
        nets = [replace(net, status=status) for status, part in parts for net in bundle(part)]
        return tuple(sorted(nets, key=lambda net: KINDS.index(net.kind)))
    family = {p.id for p in graph.problems if p.kind == "optimiser memory"}
    found: list[Net] = []
    for kind in KINDS:
        transfers = [t for t in graph.transfers if t.kind == kind and drawn(t)]
        carried = {(t.source, t.target): t.carries for t in transfers}
        # What goes to or comes from an optimiser or a port stays apart from what memories exchange.
        apart = sorted({_family(t, family) for t in transfers})
        for wanted in apart:
            pairs = [(t.source, t.target) for t in transfers if _family(t, family) == wanted]
            found.extend(_net(kind, *group, carried) for group in _grouped(kind, pairs))
    return tuple(found)


def _family(transfer: Transfer, optimisers: set[str]) -> tuple[bool, bool, bool]:
    port = transfer.source.startswith("input:") or transfer.target == "output"
    return port, transfer.source in optimisers, transfer.target in optimisers


def _grouped(kind: str, pairs: list[Pair]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    if kind != "backpropagate":
        return _bicliques(pairs)
    return [(many, one) for one, many in _bicliques((t, s) for s, t in pairs)]


def _net(
    kind: str, sources: tuple[str, ...], targets: tuple[str, ...], carried: dict[Pair, tuple[str, ...]]
) -> Net:
    pairs = tuple((s, t, carried[s, t]) for s in sources for t in targets)
    return Net(next(k for k in KINDS if k == kind), sources, targets, pairs)


def _bicliques(pairs: Iterable[Pair]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Group pairs by their first member, then join groups that have the same second members."""
    reached: dict[str, dict[str, None]] = {}
    for first, second in pairs:
        reached.setdefault(first, {})[second] = None
    joined: dict[frozenset[str], tuple[list[str], tuple[str, ...]]] = {}
    for first, seconds in reached.items():
        joined.setdefault(frozenset(seconds), ([], tuple(seconds)))[0].append(first)
    return [(tuple(firsts), seconds) for firsts, seconds in joined.values()]


def expand(nets: Iterable[Net]) -> set[tuple[str, str, str]]:
    """The (kind, source, target) that nets stand for: the inverse of `bundle`, for checking it."""
    return {(net.kind, s, t) for net in nets for s in net.sources for t in net.targets}


def drawn(transfer: Transfer) -> bool:
    """Whether a transfer is a line of the picture; the others are said by the badge of the repeat."""
    return not transfer.wraps
