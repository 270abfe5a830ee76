"""Find the primitives: one file is one primitive, here or in a component, and there is no list to edit."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from nldsl.catalog.components import Component, components, part_modules, report
from nldsl.catalog.meanings import declare
from nldsl.catalog.primitive import Primitive

ORIGIN: dict[str, Component] = {}
"""Where primitives come from that are not our own."""


def scan(package: ModuleType) -> Mapping[str, Primitive]:
    """Every `PRIMITIVE` of the modules of `package`, by name; modules beginning with `_` are helpers.

    Errors: `LookupError` if a file holds no primitive, or one of another name than its file.

    Example:
        >>> import nldsl.library
        >>> scan(nldsl.library)["exp"].name
        'exp'
    """
    found: dict[str, Primitive] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda i: i.name):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        primitive = getattr(module, "PRIMITIVE", None)
        if not isinstance(primitive, Primitive):
            raise LookupError(f"{module.__name__} declares no `PRIMITIVE`")
        if primitive.name != info.name:
            raise LookupError(
                f"{module.__name__} declares `{primitive.name}`; file and primitive share one name"
            )
        found[primitive.name] = primitive
    for component in components():
        _add(component, found)
    for primitive in found.values():
        declare(primitive)
    return MappingProxyType(found)


def _add(component: Component, found: dict[str, Primitive]) -> None:
    """The primitives of a component; what cannot be taken is reported and left out."""
    for name, module in part_modules(component, "primitives"):
        primitive = getattr(module, "PRIMITIVE", None)
        if not isinstance(primitive, Primitive):
            kind = "nothing" if primitive is None else f"a `{type(primitive).__name__}`"
            report(component, "NL0823", f"`{module.__name__}` declares {kind} as `PRIMITIVE`", _PRIMITIVE)
        elif primitive.name != name:
            problem = f"`{module.__name__}` declares `{primitive.name}`"
            report(component, "NL0823", problem, "file and primitive share one name")
        elif name in found:
            problem = f"primitive `{name}` exists already, and stays as it is"
            report(component, "NL0822", problem, "give the file and its primitive another name")
        else:
            found[name] = primitive
            ORIGIN[name] = component


_PRIMITIVE = "a file in `primitives` ends with `PRIMITIVE = nldsl.catalog.Primitive(...)`"
