"""Which tests name which file of the library: read from their text, never by running them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nldsl.library
from docs.generate.library import ROOT, Spec, specs
from nldsl.catalog.registry import scan

TESTS = ROOT / "tests"
_USE = {
    "rule": r"\bby\s+{0}\b|\b{0}\(lr\b",
    "map": r"(?:=|\bof)\s*{0}\(",
    "objective": r"\bminimize\s+{0}\b",
    "block": r"\b{0}\(",
    "model": r"\bof\s+{0}\b",
}
"""How a text of the language uses a definition of each kind."""


@dataclass(frozen=True)
class Test:
    """A test function and every string it can see."""

    place: str
    name: str
    strings: frozenset[str]

    @property
    def id(self) -> str:
        """`tests/unit/test_x.py::test_y`."""
        return f"{self.place}::{self.name}"


@cache
def tests() -> tuple[Test, ...]:
    """Every test of the project, in the order of the files."""
    return tuple(t for path in sorted(TESTS.rglob("test_*.py")) for t in _tests_of(path))


def _tests_of(path: Path) -> Iterator[Test]:
    module = ast.parse(path.read_text(encoding="utf-8"))
    known = _names(module, path)
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield Test(path.relative_to(ROOT).as_posix(), node.name, frozenset(_strings(node, known)))
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name.startswith("test_"):
                    name = f"{node.name}::{inner.name}"
                    yield Test(path.relative_to(ROOT).as_posix(), name, frozenset(_strings(inner, known)))


def _names(module: ast.Module, path: Path) -> dict[str, ast.stmt]:
    """What a module defines at its top, and what it takes from modules of the tests."""
    found: dict[str, ast.stmt] = {}
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
            other = ROOT / f"{(node.module or '').replace('.', '/')}.py"
            if other.is_file() and other != path:
                theirs = _names(ast.parse(other.read_text(encoding="utf-8")), other)
                found |= {a.asname or a.name: theirs[a.name] for a in node.names if a.name in theirs}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {t.id: node for target in targets for t in ast.walk(target) if isinstance(t, ast.Name)}
    return found


def _strings(test: ast.FunctionDef, known: dict[str, ast.stmt]) -> Iterator[str]:
    """The strings of a test, its decorators, and of what it names, to any depth."""
    seen: set[str] = set()
    queue: list[ast.stmt] = [test]
    while queue:
        for node in ast.walk(queue.pop()):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.Name) and node.id in known and node.id not in seen:
                seen.add(node.id)
                queue.append(known[node.id])


def names(spec: Spec, text: str) -> bool:
    """Whether a string of a test names a definition of this file."""
    return any(_named(kind, name, text) for kind, name in spec.names)


def _named(kind: str, name: str, text: str) -> bool:
    if name not in text:
        return False
    if text == name or text == f"{kind}s/{name}":
        return name not in _primitives()
    return re.search(_USE[kind].format(re.escape(name)), text) is not None


@cache
def _primitives() -> frozenset[str]:
    """Names that are no sign of a definition by themselves."""
    return frozenset(scan(nldsl.library))


@cache
def tests_of(spec: Spec) -> tuple[Test, ...]:
    """The tests that name a file of the library."""
    return tuple(test for test in tests() if any(names(spec, text) for text in test.strings))


@cache
def through(spec: Spec) -> tuple[Spec, ...]:
    """The tested files that use what a file defines: a layer is tested together with its rule."""
    return tuple(user for user in specs() if user != spec and names(spec, user.text) and tests_of(user))


def untested() -> list[str]:
    """Files of the library that no test names, nor any file that uses them."""
    return [spec.place for spec in specs() if not tests_of(spec) and not through(spec)]
