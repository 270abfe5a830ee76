"""What other distributions add: primitives, specifications and lowerings, found through entry points.

A distribution names a package of its own under the group `nldsl.components`:

    [project.entry-points."nldsl.components"]
    mine = "mine.parts"

In that package `primitives/*.py` each declare a `PRIMITIVE`, `lowerings/*.py` a `LOWERING`, and every
`.nl` file is part of the library.  What cannot be taken is a finding that names the distribution, and nothing
else suffers from it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Literal

from nldsl.diagnostics import Diagnostic

GROUP = "nldsl.components"


@dataclass(frozen=True)
class Component:
    """One entry point: its name, the distribution it comes from, and the package it names."""

    name: str
    distribution: str
    package: str
    folder: Path

    def __str__(self) -> str:
        return f"component `{self.name}` of {self.distribution}"


_FAULTS: list[Diagnostic] = []


@cache
def components() -> tuple[Component, ...]:
    """Every component that could be imported, by distribution and name.

    Example:
        >>> all(c.folder.is_dir() for c in components())
        True
    """
    found = sorted(entry_points(group=GROUP), key=lambda e: (_distribution(e), e.name))
    made = (_component(e) for e in found)
    return tuple(c for c in made if c is not None)


def faults() -> tuple[Diagnostic, ...]:
    """What was wrong with components so far, each once."""
    components()
    return tuple(dict.fromkeys(_FAULTS))


def report(component: Component | str, code: str, problem: str, help: str) -> None:  # noqa: A002
    """Keep a finding about a component."""
    _FAULTS.append(Diagnostic(code, f"{component}: {problem}", severity="warning", help=help))


def part_modules(
    component: Component, folder: Literal["primitives", "lowerings"]
) -> Iterator[tuple[str, ModuleType]]:
    """(name of the file, module) of the files in one folder of a component that can be imported.

    Modules beginning with `_` are helpers.
    """
    place = component.folder / folder
    for info in sorted(pkgutil.iter_modules([str(place)]), key=lambda i: i.name):
        name = f"{component.package}.{folder}.{info.name}"
        module = None if info.name.startswith("_") else _imported(component, name)
        if module is not None:
            yield info.name, module


def specifications(component: Component) -> Iterator[tuple[Path, str]]:
    """(path, text) of every `.nl` file of a component."""
    for path in sorted(component.folder.rglob("*.nl")):
        try:
            yield path, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            report(component, "NL0821", f"`{path.name}` cannot be read: {error}", "a program is UTF-8 text")


def _distribution(entry: EntryPoint) -> str:
    owner = entry.dist
    return f"distribution `{owner.name} {owner.version}`" if owner is not None else "an unknown distribution"


def _component(entry: EntryPoint) -> Component | None:
    label = f"component `{entry.name}` of {_distribution(entry)}"
    module = _imported(label, entry.value)
    if module is None:
        return None
    place = getattr(module, "__file__", None)
    if not hasattr(module, "__path__") or place is None:
        help_ = "the entry point names a package: a folder with an `__init__.py`"
        report(label, "NL0823", f"`{entry.value}` is not a package", help_)
        return None
    return Component(entry.name, _distribution(entry), module.__name__, Path(place).parent)


def _imported(component: Component | str, module: str) -> ModuleType | None:
    """The module, or `None` after a report: code of others may raise anything."""
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        report(
            component,
            "NL0821",
            f"`{module}` does not import: {said}",
            "repair or uninstall the distribution; everything else works without it",
        )
        return None
