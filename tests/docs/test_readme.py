"""Every snippet of the README is run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import nldsl
from nldsl.cli import app

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line for kind, body in SNIPPETS if kind == "sh" for line in body.splitlines() if line.startswith("nldsl ")
]


def snippets(kind: str) -> list[str]:
    found = [body for name, body in SNIPPETS if name == kind]
    assert found, kind
    return found


def test_only_known_kinds_of_snippet() -> None:
    assert {kind for kind, _ in SNIPPETS} == {"sh", "nl", "python"}


@pytest.mark.parametrize("text", snippets("nl"))
def test_specs_are_without_findings(text: str) -> None:
    assert nldsl.check(text) == []


@pytest.mark.parametrize("text", snippets("python"))
def test_python(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(text, "README.md", "exec"), {"__name__": "readme"})
    assert "class" in capsys.readouterr().out or text


def test_commands(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for line in COMMANDS:
        command = [sys.executable, "-m", *shlex.split(line)]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\S+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_command_of_the_command_line_is_in_the_table() -> None:
    shown = set(re.findall(r"`nldsl (\w+)", TEXT))
    assert shown == set(app.COMMANDS)
