"""Every code of elaboration: its failing program has this code and no other error, its repaired twin none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from nldsl.diagnostics.catalogue import catalogue
from nldsl.diagnostics.render import render_all
from nldsl.spec import check

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OURS = [c for c in catalogue() if c[2:4] in ("03", "04", "05", "06") or c.startswith("NL081")]
WITH_TEXT = [c for c in OURS if catalogue()[c].failing]


def test_every_code_in_the_source_is_in_the_catalogue() -> None:
    text = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "nldsl" / "spec").glob("*.py"))
    used = set(re.findall(r'"(NL\d{4})"', text))
    assert used - set(catalogue()) == set()
    assert set(OURS) - used == set()


@pytest.mark.parametrize("code", WITH_TEXT)
def test_failing_program_has_exactly_this_error(code: str) -> None:
    found = check(catalogue()[code].failing)
    assert {d.code for d in found if d.severity == "error"} == {code}, render_all(found)
    assert all(d.span is not None for d in found)


@pytest.mark.parametrize("code", WITH_TEXT)
def test_working_program_has_no_error(code: str) -> None:
    found = check(catalogue()[code].working)
    assert [d for d in found if d.severity == "error"] == [], render_all(found)


@pytest.mark.parametrize("code", WITH_TEXT)
def test_message_is_the_one_on_record(code: str, snapshot: SnapshotAssertion) -> None:
    assert render_all(check(catalogue()[code].failing)) == snapshot
