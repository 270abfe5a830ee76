"""One snapshot per specification of the library and stage of the compiler.

`pytest tests/golden --snapshot-update` renews them; read the difference before you commit it.  Specifications
are found by scanning the library; one that is no program by itself is put into the smallest that uses it.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.data import SnapshotCollections
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode
from syrupy.location import PyTestLocation
from syrupy.types import SnapshotIndex

from nldsl.assets import specs_folder
from nldsl.diagnostics import SpecError
from nldsl.driver.compile import plan_of
from nldsl.emit.printer import WIDTH
from nldsl.graph import open_program
from nldsl.source import SourceFile
from nldsl.spec.program import Program
from nldsl.syntax import format_text
from tests.golden import stages

FOLDER = Path(__file__).parent / "__snapshots__"
SPECS = sorted(specs_folder().rglob("*.nl"))
NAMES = [path.relative_to(specs_folder()).with_suffix("").as_posix() for path in SPECS]

PROBE = """
block probe(x) {{
  level inner every 16 tokens {{ memory M = {map} }}
  y = M[x]
  M[x] <- x  minimize {objective}  by {rule}
  return y
}}
"""
RULES = {"lookahead": "lookahead(sgd(lr = 0.1))"}
"""Rules that want more than a rate."""

SEQUENTIAL: dict[str, str] = {
    "blocks/srwm": "its four matrices make their own keys at every token",
}
"""Specifications that have no fast form, and why."""
REFUSED: dict[str, str] = {}
"""Specifications that the interpreter runs and no lowering takes yet, and why."""


@cache
def program(name: str) -> Program:
    """The specification `name`, or the smallest program around it."""
    kind, _, own = name.partition("/")
    if kind == "blocks":
        text = (specs_folder() / f"{name}.nl").read_text(encoding="utf-8")
        arguments = {"heads": 2} if "heads" in text else {}
        return open_program(own, block=own, dim=32, **arguments)
    if kind in ("models", "ablations"):
        return open_program(own)
    parts = {"map": "matrix()", "objective": "l2", "rule": "gd(lr = 0.1)"}
    parts |= {
        "maps": {"map": f"{own}()"},
        "objectives": {"objective": own},
        "rules": {"rule": RULES.get(own, f"{own}(lr = 0.1)")},
    }[kind]
    return open_program(PROBE.format(**parts), dim=8)


class Stages(SingleFileSnapshotExtension):
    """`__snapshots__/models/hope/plan.txt`: a folder per specification, a readable file per stage."""

    _write_mode = WriteMode.TEXT

    @classmethod
    def get_location(cls, *, test_location: PyTestLocation, index: SnapshotIndex = 0) -> str:
        return str(FOLDER / str(index))

    @classmethod
    def matches_test_location(cls, **_: object) -> bool:
        return True

    def discover_snapshots(self, **_: object) -> SnapshotCollections:
        """None: which files are left over is a test of its own, so that a part of the tests can be run."""
        return SnapshotCollections()

    def serialize(self, data: str, **_: object) -> str:
        return data


@pytest.fixture
def golden(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(Stages)


@pytest.mark.parametrize("name", NAMES)
def test_tree(name: str, golden: SnapshotAssertion) -> None:
    """The library is written as the formatter writes it: the text is its formatted tree; the twin is kept."""
    path = specs_folder() / f"{name}.nl"
    text = path.read_text(encoding="utf-8")
    assert format_text(SourceFile(path.name, text)) == text
    assert stages.tree(text, path.name) == golden(name=f"{name}/tree.yaml")


@pytest.mark.parametrize("stage", stages.STAGES)
@pytest.mark.parametrize("name", NAMES)
def test_stage(name: str, stage: str, golden: SnapshotAssertion) -> None:
    assert stages.or_refusal(stages.STAGES[stage], program(name)) == golden(name=f"{name}/{stage}")


def test_snapshots_belong_to_specifications() -> None:
    """What is left of a specification that was renamed or removed has to go."""
    wanted = {f"{name}/{stage}" for name in NAMES for stage in ("tree.yaml", *stages.STAGES)}
    kept = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
    assert kept == wanted


@pytest.mark.parametrize("name", [n for n in NAMES if n.split("/")[0] in ("models", "blocks", "ablations")])
def test_nothing_falls_to_token_by_token_silently(name: str) -> None:
    if name in REFUSED:
        with pytest.raises(SpecError, match="NL0701"):
            plan_of(program(name))
        return
    rows = plan_of(program(name)).rows()
    slow = [memories for _, memories, lowering, _ in rows if lowering == "sequential"]
    assert bool(slow) == (name in SEQUENTIAL), (slow, rows)
    assert all(reason for _, _, _, reason in rows)


def test_emitted_source_needs_no_formatting(tmp_path: Path) -> None:
    for name in NAMES:
        text = stages.or_refusal(stages.source, program(name))
        (tmp_path / f"{name.replace('/', '_')}.py").write_text(text, encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    # Run beside the files: next to our own package ruff would sort its imports as first-party.
    options = ["--isolated", "--no-cache", f"--line-length={WIDTH}", "."]
    for command in (
        ["format", "--diff"],
        ["check", "--select=E,F,I,W", "--ignore=E501", "--output-format=concise"],
    ):
        done = subprocess.run([*ruff, *command, *options], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
