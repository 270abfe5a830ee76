"""The interpreter shares no code with what it checks."""

from __future__ import annotations

import ast
from pathlib import Path

import nldsl.reference

ALLOWED = ("nldsl.reference", "nldsl.spec.program", "nldsl.catalog.values", "nldsl.catalog.meanings")


def test_the_interpreter_knows_only_the_program() -> None:
    """No runtime, no calculus, no plan, and no vector-Jacobian products or torch names of the library."""
    folder = Path(nldsl.reference.__file__).parent
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert not name.startswith("nldsl") or name.startswith(ALLOWED), f"{file.name} imports {name}"
                assert not (isinstance(node, ast.ImportFrom) and node.level), f"{file.name}: relative import"
