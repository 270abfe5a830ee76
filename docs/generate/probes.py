"""Programs that show a file: models as they stand, blocks on a width, the rest in a small block."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from docs.generate.library import Spec
from nldsl.diagnostics import SpecError
from nldsl.graph import open_program
from nldsl.spec.loader import standard_library
from nldsl.spec.program import Program
from nldsl.spec.streams import stream_names, walk
from nldsl.syntax import tree

WIDTH = 64
HEADS = 4


@dataclass(frozen=True)
class Shown:
    """What is shown of a file: how to open it again, and in which words."""

    source: str
    block: str | None
    arguments: tuple[tuple[str, Any], ...]
    note: str

    def open(self) -> Program:
        """The program."""
        return open_program(self.source, block=self.block, **dict(self.arguments))


@cache
def shown(spec: Spec) -> Shown:
    """What stands for a file; small blocks for what is no program by itself."""
    kind, name = spec.main
    if kind == "model":
        return Shown(name, None, (), "at its default size")
    if kind == "block":
        return _block(name, _definition(kind, name))
    text = {"map": _map, "objective": _objective, "rule": _rule}[kind](name, _definition(kind, name))
    return Shown(text, "example", (("dim", WIDTH),), "in a block of one memory")


def _definition(kind: str, name: str) -> tree.Definition:
    unit = standard_library().unit(kind, name)
    assert unit is not None
    item = unit.own[kind, name]
    assert isinstance(item, tree.Definition)
    return item


def _block(name: str, item: tree.Definition) -> Shown:
    """A block on `WIDTH` channels; parameters that are no input and have no default are numbers of heads."""
    streams = stream_names(item)
    free = [p.name.id for p in item.params if p.default is None and p.name.id not in streams]
    arguments = (("dim", WIDTH), *((parameter, HEADS) for parameter in free))
    said = ", ".join(f"{parameter} = {HEADS}" for parameter in free)
    return Shown(name, name, arguments, f"at a width of {WIDTH}" + (f" with {said}" if said else ""))


def _memory(declared: str, write: str) -> str:
    return (
        "block example(x) {\n"
        f"  level context every 1 token {{ memory M = {declared} }}\n"
        "  k = l2norm(linear(x))\n"
        "  v = linear(x)\n"
        f"  M[k] <- v  {write}\n"
        "  return M[k]\n"
        "}\n"
    )


def _map(name: str, item: tree.Definition) -> str:
    return _memory(f"{name}()", "minimize l2  by gd(lr = 0.1)")


def _objective(name: str, item: tree.Definition) -> str:
    return _memory("matrix() init zero", f"minimize {name}  by gd(lr = 0.1)")


def _rule(name: str, item: tree.Definition) -> str:
    free = [p.name.id for p in item.params if p.default is None]
    given = [f"{parameter} = {'gd(lr = 0.1)' if _is_rule(item, parameter) else '0.1'}" for parameter in free]
    return _memory("matrix() init zero", f"minimize l2  by {name}({', '.join(given)})")


def _is_rule(item: tree.Definition, name: str) -> bool:
    """Whether the body calls the parameter."""

    return any(isinstance(n, tree.Call) and n.function.id == name for n in walk(item.body))


def opens(spec: Spec) -> Program | SpecError:
    """The program that shows a file, or why there is none."""
    try:
        return shown(spec).open()
    except SpecError as wrong:
        return wrong
