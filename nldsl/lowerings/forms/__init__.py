"""Lowerings that are one file each: those of this folder, and those of components.

A file declares `LOWERING`, a `nldsl.plan.plan.Lowering`; it is found by scanning.  Modules beginning with
`_` are helpers.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from functools import cache

from nldsl.catalog.components import Component, components, part_modules, report
from nldsl.plan.make import BUILT_IN, make_plan
from nldsl.plan.plan import Lowering, Plan, Target
from nldsl.spec.program import Program


@cache
def added_lowerings() -> tuple[Lowering, ...]:
    """Every lowering that is a file of its own.

    Example:
        >>> all(lowering.name.isidentifier() for lowering in added_lowerings())
        True
    """
    found = list(_own())
    for component in components():
        for name, module in part_modules(component, "lowerings"):
            made = getattr(module, "LOWERING", None)
            problem = _problem(component, name, made, {f.name for f in found})
            if isinstance(made, Lowering) and not problem:
                found.append(made)
    return tuple(found)


def plan_program(program: Program, target: Target | None = None) -> Plan:
    """The plan of a program, all lowerings asked.

    Errors: `SpecError` with one NL0701 per construct that no lowering takes.
    """
    return make_plan(program, target, added_lowerings())


def _own() -> Iterator[Lowering]:
    for info in sorted(pkgutil.iter_modules(sys.modules[__name__].__path__), key=lambda i: i.name):
        if not info.name.startswith("_"):
            made = getattr(importlib.import_module(f"{__name__}.{info.name}"), "LOWERING", None)
            if not isinstance(made, Lowering) or made.name != info.name or made.name in BUILT_IN:
                raise LookupError(f"{__name__}.{info.name} declares no `LOWERING` of its own name")
            yield made


def _problem(component: Component, file: str, made: object, taken: set[str]) -> bool:
    """Report what is wrong with a lowering of a component."""
    if not isinstance(made, Lowering):
        kind = "nothing" if made is None else f"a `{type(made).__name__}`"
        problem, told = f"`lowerings/{file}.py` declares {kind} as `LOWERING`", _LOWERING
    elif made.name != file:
        problem, told = f"`lowerings/{file}.py` declares `{made.name}`", "file and lowering share one name"
    elif made.name in taken | BUILT_IN:
        code, problem = "NL0822", f"lowering `{made.name}` exists already, and stays as it is"
        report(component, code, problem, "give the file and its lowering another name")
        return True
    else:
        return False
    report(component, "NL0823", problem, told)
    return True


_LOWERING = "a file in `lowerings` ends with `LOWERING = nldsl.plan.plan.Lowering(...)`"
