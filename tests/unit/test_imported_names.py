"""Emitted code imports runtime functions by their own names: two of one name would stand for one another."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import nldsl

NAMED = re.compile(r"runtime\(\s*\"(\w+)\",\s*\"(\w+)\"|nldsl\.runtime\.(\w+):(\w+)")
SAME = {"orthogonalize"}
"""One function in two precisions: a rule takes the faster one, blocks the other."""


def test_every_name_is_one_function() -> None:
    modules = defaultdict(set)
    for file in Path(nldsl.__file__).parent.rglob("*.py"):
        for one, function, other, member in NAMED.findall(file.read_text(encoding="utf-8")):
            modules[function or member].add(one or other)
    assert len(modules) > 100 and len(modules["gate_rows"]) == 1
    assert {name for name, found in modules.items() if len(found) > 1} <= SAME
