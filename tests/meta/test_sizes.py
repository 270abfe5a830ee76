"""Files, functions and their complexity stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES = 400
FUNCTION_LINES = 50
COMPLEXITY = 10
FILES = sorted(path for path in (ROOT / "nldsl").rglob("*.py"))
FOLDERS = [folder for folder in ("nldsl", "docs", "benchmarks", "examples") if (ROOT / folder).is_dir()]


def functions(path: Path) -> list[tuple[str, int]]:
    """Name and length (decorators and docstring included) of every function of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        (node.name, (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_there_is_something_to_measure() -> None:
    assert len(FILES) > 50


@pytest.mark.parametrize("folder", ["nldsl", "docs", "tests", "benchmarks", "examples"])
def test_files(folder: str) -> None:
    """Files that people write: snapshots hold what the compiler emits."""
    written = [path for path in (ROOT / folder).rglob("*.py") if "__snapshots__" not in path.parts]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in written}
    too_long = {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > FILE_LINES}
    assert not too_long


def test_functions() -> None:
    too_long = {
        f"{path.relative_to(ROOT)}:{name}": lines
        for path in FILES
        for name, lines in functions(path)
        if lines > FUNCTION_LINES
    }
    assert not too_long


def test_complexity() -> None:
    """The limit is stated here too, so that loosening the configuration does not pass unnoticed."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select=C901"]
    limit = f"lint.mccabe.max-complexity={COMPLEXITY}"
    result = subprocess.run(
        [*command, "--output-format=concise", "--ignore-noqa", "--config", limit, *FOLDERS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
