"""Packages of npm for tests that ask the tools themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def node_modules(folder: Path, *packages: str) -> Path:
    """A folder with packages of npm; the test is skipped where there is none."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not here")
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm takes too long")
    if done.returncode:
        pytest.skip(f"npm cannot install: {done.stderr.strip()[-200:]}")
    return folder / "node_modules"
