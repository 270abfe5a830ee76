"""The message of every code with a program, as it is printed."""

from __future__ import annotations

import pytest
from syrupy.assertion import SnapshotAssertion

from nldsl.diagnostics.catalogue import catalogue
from nldsl.diagnostics.render import render_all
from nldsl.view.codes import findings_of

WITH_TEXT = [code for code, entry in catalogue().items() if entry.failing]


@pytest.mark.parametrize("code", WITH_TEXT)
def test_message_is_the_one_on_record(code: str, snapshot: SnapshotAssertion) -> None:
    assert render_all(findings_of(code, catalogue()[code].failing)) == snapshot
