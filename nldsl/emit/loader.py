"""Emitted text as a running module whose tracebacks show its lines."""

from __future__ import annotations

import hashlib
import linecache
import sys
from types import ModuleType


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
    equal text takes the place of what was there.
    Only for text that the printer made from nodes: what a spec author wrote never gets here as code.

    Example:
        >>> load_module("def double(x):\\n    return 2 * x\\n", "demo").double(4)
        8
    """
    full = f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    file = register_source(name, text)
    module = ModuleType(full)
    module.__file__ = file
    exec(compile(text, file, "exec", dont_inherit=True), module.__dict__)
    sys.modules[full] = module
    return module
