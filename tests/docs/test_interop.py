"""Compiled modules in the loops of other libraries: the examples run, and learn."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "interop"
NEEDS = {"pytorch": "torch", "fabric": "lightning", "accelerate": "accelerate"}


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(NEEDS)


@pytest.mark.parametrize("name", NEEDS)
def test_example(name: str) -> None:
    if find_spec(NEEDS[name]) is None:
        pytest.skip(f"`{NEEDS[name]}` is not installed")
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--steps", "12"]
    ours = {"PYTHONPATH": str(EXAMPLES.parents[1])}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ours)
    assert run.returncode == 0, run.stderr
    found = re.search(r"loss ([\d.]+) -> ([\d.]+)", run.stdout)
    assert found is not None and float(found[2]) < float(found[1]) - 0.2


def test_an_imported_model_adapts() -> None:
    """Frozen against learning: what its own levels make of a text that it has never seen.

    How much that is depends on the version of Python, for it is trained on one of its modules.
    """
    pytest.importorskip("transformers")
    command = [sys.executable, str(EXAMPLES.parent / "adapt" / "run.py"), "--steps", "30", "--bytes", "4096"]
    ours = {"PYTHONPATH": str(EXAMPLES.parents[1])}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ours)
    assert run.returncode == 0, run.stderr
    found = re.search(r"read for the first time: ([\d.]+) still, ([\d.]+) learning", run.stdout)
    assert found is not None and float(found[2]) < float(found[1])
