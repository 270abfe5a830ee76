"""The level graph: optimisation problems, what passes between them, and how often each fires.

All of it is frozen and plain: strings, numbers, tuples.  `LevelGraph.network` gives networkx.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import networkx as nx

from nldsl.spec.program import Clock

ProblemKind = Literal["memory", "task memory", "attention", "slow parameters", "optimiser memory"]
TransferKind = Literal["condition", "non-parametric", "backpropagate", "initialise", "generate"]

TRANSFERS: dict[TransferKind, str] = {
    "condition": "what one problem holds conditions the forward pass of another (Eq. 24-26)",
    "non-parametric": "the output of a non-parametric problem conditions another (Eq. 27)",
    "backpropagate": "both lie in one gradient flow and update at different frequencies",
    "initialise": "the slower problem learns where the faster one starts (Eq. 28)",
    "generate": "one problem makes the other's context: keys, values, rates, gradients, updates",
}
"""The five knowledge transfers (Sec. 3.3 of the paper), in the order of every legend."""


PAINTERS: dict[str, Callable[[LevelGraph], str]] = {}
"""How a graph is drawn, by the kind of picture; `nldsl.view` says it, which this room knows nothing of."""


@dataclass(frozen=True)
class Tensor:
    """A named tensor of a problem, for one copy."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Problem:
    """One optimisation problem: `argmin` of an objective over a context, at a frequency.

    `id` is the absolute path with `[*]` for the index of a repeat; `name` what a picture shows.
    `copies` counts heads, `multiplicity` repeated blocks.  `parameters` counts slow parameters
    (all copies); `state_bytes` is what one sequence carries in one repeated copy (float32), of which
    `bytes_per_token` grows with the sequence (an unbounded attention cache).
    """

    id: str
    name: str
    kind: ProblemKind
    zone: str
    clock: Clock
    level: str = ""
    objective: str = ""
    objective_equation: str = ""
    context: str = ""
    map: str = ""
    map_equation: str = ""
    rule: str = ""
    rule_equation: str = ""
    retention: str = ""
    start: str = ""
    reset: str = ""
    copies: int = 1
    multiplicity: int = 1
    tensors: tuple[Tensor, ...] = ()
    parameters: int = 0
    state_bytes: int = 0
    bytes_per_token: int = 0
    source: str = ""
    text: str = ""


@dataclass(frozen=True)
class Port:
    """Where the graph meets the outside: an input stream or the output."""

    id: str
    name: str
    kind: Literal["input", "output"]


@dataclass(frozen=True)
class Transfer:
    """Knowledge passes from `source` to `target`; `carries` names what (key, value, rate, ...).

    `wraps`: from one copy of a repeated block to the next copy.
    """

    source: str
    target: str
    kind: TransferKind
    carries: tuple[str, ...] = ()
    wraps: bool = False


@dataclass(frozen=True)
class Level:
    """The problems of one frequency and dependency rank (Definition 2); level 1 is the slowest."""

    number: str
    names: tuple[str, ...]
    clock: Clock
    frequency: str
    problems: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Zone:
    """A block where it is called: the problems that belong together in a picture.

    `frames` are the ids of the repeats around it, outermost first.
    """

    id: str
    label: str
    frames: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frame:
    """A repeat, kept as one copy."""

    id: str
    label: str
    count: int


@dataclass(frozen=True)
class LevelGraph:
    """Every optimisation problem of a program, the transfers between them and their levels.

    `levels` run from the slowest to the fastest.  `parts` are the strongly connected parts of the
    memories of one copy under conditioning and generation: what has to be computed together.
    """

    name: str
    kind: Literal["model", "block"]
    task: str
    problems: tuple[Problem, ...]
    ports: tuple[Port, ...]
    transfers: tuple[Transfer, ...]
    levels: tuple[Level, ...]
    zones: tuple[Zone, ...]
    frames: tuple[Frame, ...]
    parts: tuple[tuple[str, ...], ...] = ()
    sources: tuple[tuple[str, str], ...] = field(default=())

    @cached_property
    def network(self) -> nx.MultiDiGraph[str]:
        """The problems and ports as networkx nodes, the transfers as keyed edges."""
        graph: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        graph.add_nodes_from((p.id, {"problem": p}) for p in self.problems)
        graph.add_nodes_from((p.id, {"port": p}) for p in self.ports)
        for t in self.transfers:
            graph.add_edge(t.source, t.target, key=(t.kind, t.wraps), transfer=t)
        return graph

    def _repr_svg_(self) -> str | None:
        """The picture a notebook shows, once `nldsl.view` or `nldsl` was imported."""
        paint = PAINTERS.get("svg")
        return paint(self) if paint is not None else None

    def problem(self, id: str) -> Problem:
        """The problem with this id.

        Raises:
            KeyError: there is none.
        """
        found = next((p for p in self.problems if p.id == id), None)
        if found is None:
            raise KeyError(f"no problem `{id}` in `{self.name}`")
        return found

    def level_of(self, id: str) -> Level:
        """The level that holds problem `id`."""
        return next(level for level in self.levels if id in level.problems)

    def between(self, source: str, target: str) -> tuple[Transfer, ...]:
        """The transfers from `source` to `target`."""
        return tuple(t for t in self.transfers if (t.source, t.target) == (source, target))
