"""Every code with its title, why it is an error, a text that has it and one that has not.

A stage adds its codes in `nldsl/diagnostics/codes/<stage>.py` as `CODES = {"NL0401": Entry(...)}`;
the files are found by scanning the folder.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType

from nldsl.diagnostics import codes
from nldsl.diagnostics.entry import Entry

STAGES = {
    "01": "syntax",
    "02": "YAML",
    "03": "names and definitions",
    "04": "shapes and memories",
    "05": "clocks and levels",
    "06": "training",
    "07": "plan and compilation",
    "08": "files and limits",
    "09": "run time and data",
    "10": "command line",
    "11": "exchange with other libraries",
}
"""What the first two digits of a code say."""


@cache
def catalogue() -> Mapping[str, Entry]:
    """All codes, sorted.

    Example:
        >>> catalogue()["NL0108"].title
        '`=` and `<-` mixed up'
    """
    found: dict[str, Entry] = {}
    for module in pkgutil.iter_modules(codes.__path__):
        entries: dict[str, Entry] = import_module(f"{codes.__name__}.{module.name}").CODES
        twice = found.keys() & entries.keys()
        if twice:
            raise ValueError(f"codes with two entries: {', '.join(sorted(twice))}")
        found |= entries
    return MappingProxyType(dict(sorted(found.items())))
