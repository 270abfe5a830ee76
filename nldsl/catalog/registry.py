"""Find the primitives: one file of a package is one primitive, and there is no list to edit."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from nldsl.catalog.primitive import Primitive


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
    return MappingProxyType(found)
