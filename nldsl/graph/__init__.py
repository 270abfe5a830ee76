"""The level graph of a program.

The package is callable: `nldsl.graph("hope")` is the public way to a `LevelGraph`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from nldsl.graph.build import build_graph
from nldsl.graph.export import to_json
from nldsl.graph.model import TRANSFERS, Frame, Level, LevelGraph, Port, Problem, Tensor, Transfer, Zone
from nldsl.graph.open import open_program, open_sized

__all__ = [
    "TRANSFERS",
    "Frame",
    "Level",
    "LevelGraph",
    "Port",
    "Problem",
    "Tensor",
    "Transfer",
    "Zone",
    "build_graph",
    "graph_of",
    "open_program",
    "open_sized",
    "to_json",
]


def graph_of(source: str | Path, *, block: str | None = None, **arguments: Any) -> LevelGraph:
    """The level graph of a library name, a file, or the text of a specification.

    Raises:
        SpecError: the specification has errors.
    """
    return build_graph(open_program(source, block=block, **arguments))


class _CallablePackage(ModuleType):
    """`nldsl.graph` is a room and, in the public API, a verb: both have this one name."""

    def __call__(self, source: str | Path, *, block: str | None = None, **arguments: Any) -> LevelGraph:
        return graph_of(source, block=block, **arguments)


sys.modules[__name__].__class__ = _CallablePackage
