"""The forward pass of one module with something else under the names that its file gives to what it calls.

The text of the pass stays, and other modules of the class, or of the file, are left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, FunctionType, MethodType
from typing import Any, TypeVar

from nldsl.runtime import ahead
from nldsl.runtime.block_recompute import recompute_again
from nldsl.runtime.module import Module

T = TypeVar("T")
NAMES = ahead.NATIVE
"""What a function made here has, by which it is known: the names and what stands under them."""


def emitted(kind: type[Module]) -> FunctionType | None:
    """The forward pass of a class as it was emitted; `None` if something has been put around it."""
    found = kind.forward
    return found if isinstance(found, FunctionType) and not hasattr(found, "__wrapped__") else None


def shared(kind: type[Module], name: str, make: Callable[[], T]) -> T:
    """What all modules of a class put under a name: it lives as long as the emitted function."""
    known: dict[str, T] = kind.forward.__dict__.setdefault("native_forms", {})
    if name not in known:
        known[name] = make()
    return known[name]


def hindered(module: Module) -> str:
    """Why nothing can be put under the names of a module; empty where it can."""
    kind, own = type(module), _own(module)
    if emitted(kind) is None or not (own is None or getattr(own, "__func__", None) is kind.forward):
        return "its `forward` has been replaced"
    return ""


def put(module: Module, name: str, found: Any, code: CodeType | None = None) -> None:
    """Let the forward pass of a module find something under a name; copies of the module do, too.

    `code`: in place of that of the emitted pass, for one that asks for what is put there.
    """
    own = vars(module).get("forward")
    own = getattr(own, "again", own)
    names = {**getattr(own, NAMES, {}), name: found}
    plain = emitted(type(module))
    assert plain is not None
    code = code or (own.__code__ if own is not None and hasattr(own, NAMES) else plain.__code__)
    world = {**plain.__globals__, **names}
    # By the name of the file torch.compile would look the names up in the file.
    world.pop("__name__", None)
    made = FunctionType(code, world, plain.__name__, plain.__defaults__, plain.__closure__)
    made.__kwdefaults__, made.__doc__, made.__module__ = plain.__kwdefaults__, plain.__doc__, plain.__module__
    setattr(made, NAMES, names)
    _set(module, MethodType(made, module))


def taken_back(module: Module) -> bool:
    """Let a module have its emitted forward pass again; whether it had another one."""
    own = vars(module).get("forward")
    if not hasattr(getattr(own, "again", own), NAMES):
        return False
    _set(module, None)
    return True


def _own(module: Module) -> Any:
    """What stands in the place of the forward pass of its class and is not ours."""
    own = vars(module).get("forward")
    own = getattr(own, "again", own)
    return None if hasattr(own, NAMES) else own


def _set(module: Module, forward: MethodType | None) -> None:
    before = vars(module).pop("forward", None)
    if forward is not None:
        object.__setattr__(module, "forward", forward)
    if hasattr(before, "again"):
        recompute_again(module)
