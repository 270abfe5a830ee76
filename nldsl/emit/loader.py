"""Emitted text as a running module whose tracebacks show its lines."""

from __future__ import annotations

import hashlib
import linecache
import sys
from copy import deepcopy
from types import ModuleType
from typing import Any


def register_source(name: str, text: str) -> str:
    """Make `text` known to `linecache`, so that tracebacks and debuggers show it; its file name.

    The file name holds `name` and a digest of the text: equal text, equal file name.

    Example:
        >>> file = register_source("demo", "x = 1\\n")
        >>> linecache.getline(file, 1)
        'x = 1\\n'
    """
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    file = f"<nldsl {name} {digest}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    return file


def load_module(text: str, name: str) -> ModuleType:
    """A fresh module made by running emitted text.

    It stands in `sys.modules` under `name` and a digest of the text, where `torch.compile` looks for it;
    equal text takes the place of what was there.  Instances of its classes can be pickled: the text goes
    with them.
    Only for text that the printer made from nodes: what a spec author wrote never gets here as code.

    Example:
        >>> load_module("def double(x):\\n    return 2 * x\\n", "demo").double(4)
        8
    """
    full = _full_name(text, name)
    file = register_source(name, text)
    module = ModuleType(full)
    module.__file__ = file
    exec(compile(text, file, "exec", dont_inherit=True), module.__dict__)
    for made in vars(module).values():
        if isinstance(made, type) and made.__module__ == full:
            _let_pickle(made, text, name)
    sys.modules[full] = module
    return module


def _full_name(text: str, name: str) -> str:
    return f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _let_pickle(made: Any, text: str, name: str) -> None:
    """Instances of `made` are pickled with the text of their module, which no other process can import."""

    def reduce_ex(self: Any, protocol: int) -> tuple[Any, ...]:
        return revive, (text, name, type(self).__qualname__), self.__getstate__()

    def copied(self: Any, memo: dict[int, Any]) -> Any:
        # Of the very same class: that of another module with equal text may have other functions by now.
        new = made.__new__(made)
        memo[id(self)] = new
        state = deepcopy(self.__getstate__(), memo)
        if hasattr(new, "__setstate__"):
            new.__setstate__(state)
        else:
            new.__dict__.update(state)
        return new

    made.__reduce_ex__ = reduce_ex
    made.__deepcopy__ = copied


def revive(text: str, name: str, kind: str) -> Any:
    """An instance of the class `kind` of emitted text, not yet filled: what a pickle begins with."""
    full = _full_name(text, name)
    module = sys.modules[full] if full in sys.modules else load_module(text, name)
    made = getattr(module, kind)
    return made.__new__(made)
