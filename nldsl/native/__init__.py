"""Chunk steps compiled to C, one lane at a time.

The package is callable: `nldsl.native(model)` is the public way to a model whose steps run like that.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from nldsl.native.turn_on import Part, Report, native

__all__ = ["Part", "Report", "native"]


class _CallablePackage(ModuleType):
    """`nldsl.native` is a room and, in the public API, a verb: both have this one name."""

    def __call__(self, model: Any, *, at_once: bool = False, off: bool = False) -> Report:
        return native(model, at_once=at_once, off=off)


sys.modules[__name__].__class__ = _CallablePackage
