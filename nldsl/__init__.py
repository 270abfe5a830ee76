"""A language and compiler for nested learning: architectures and optimisers as memories on clocks.

The public names are loaded when they are first used, so `import nldsl` costs nothing and checking a
specification never imports torch.

Example:
    >>> import nldsl
    >>> nldsl.check("hope")
    []
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nldsl.certify import verify
    from nldsl.diagnostics import Diagnostic, SpecError
    from nldsl.driver import compile, optimizer
    from nldsl.graph import LevelGraph
    from nldsl.graph import graph_of as graph
    from nldsl.graph import open_program as program
    from nldsl.native import native
    from nldsl.review import check
    from nldsl.runtime.allocator import keep_freed_memory
    from nldsl.runtime.model import Layer, Model
    from nldsl.runtime.state import State
    from nldsl.train import Run
    from nldsl.train import load_run as load
    from nldsl.view import Explanation, explain

__version__ = "0.1.0"

_HOMES = {
    "Diagnostic": "nldsl.diagnostics",
    "Explanation": "nldsl.view",
    "Layer": "nldsl.runtime.model",
    "LevelGraph": "nldsl.graph",
    "Model": "nldsl.runtime.model",
    "Run": "nldsl.train",
    "SpecError": "nldsl.diagnostics",
    "State": "nldsl.runtime.state",
    "check": "nldsl.review",
    "compile": "nldsl.driver",
    "explain": "nldsl.view",
    "keep_freed_memory": "nldsl.runtime.allocator",
    "load": "nldsl.train",
    "optimizer": "nldsl.driver",
    "program": "nldsl.graph",
    "verify": "nldsl.certify",
}
"""Where a public name lives.  `graph` is the package of that name, which is callable."""

_RENAMED = {"load": "load_run", "program": "open_program"}

__all__ = [
    "Diagnostic",
    "Explanation",
    "Layer",
    "LevelGraph",
    "Model",
    "Run",
    "SpecError",
    "State",
    "__version__",
    "check",
    "compile",
    "explain",
    "graph",
    "keep_freed_memory",
    "load",
    "native",
    "optimizer",
    "program",
    "verify",
]


def __getattr__(name: str) -> object:
    """The public name `name`, loaded now."""
    if name == "graph":
        import_module("nldsl.view")  # so that a graph can draw itself in a notebook
        return import_module("nldsl.graph")
    if name == "native":
        return import_module("nldsl.native")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), _RENAMED.get(name, name))
    raise AttributeError(f"module `nldsl` has no attribute `{name}`")


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext nldsl`: the cell magic `%%nldsl`, and models and graphs that show themselves."""
    import_module("nldsl.notebook").load(shell)


def __dir__() -> list[str]:
    return sorted(__all__)
