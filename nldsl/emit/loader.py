"""Emitted text as a running module whose tracebacks show its lines."""

from __future__ import annotations

import hashlib
import linecache
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
    """A fresh module object made by running emitted text; it is not put into `sys.modules`.

    Only for text that the printer made from nodes: what a spec author wrote never gets here as code.

    Example:
        >>> load_module("def double(x):\\n    return 2 * x\\n", "demo").double(4)
        8
    """
    file = register_source(name, text)
    module = ModuleType(name)
    module.__file__ = file
    exec(compile(text, file, "exec", dont_inherit=True), module.__dict__)
    return module
