"""The README names what there is; its blocks of code are run with those of the other pages."""

from __future__ import annotations

import re
from pathlib import Path

from nldsl.cli import app

TEXT = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_every_command_of_the_command_line_is_in_the_table() -> None:
    shown = set(re.findall(r"`nldsl (\w+)", TEXT))
    assert shown == set(app.COMMANDS)
