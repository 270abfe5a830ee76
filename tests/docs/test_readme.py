"""The README names what there is; its blocks of code are run with those of the other pages."""

from __future__ import annotations

import re
from pathlib import Path

from nldsl.cli import app
from nldsl.graph import build_graph, open_program
from nldsl.graph.fold import CROWDED, folded
from nldsl.view import draw_svg, lay_out

TEXT = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_every_command_of_the_command_line_is_in_the_table() -> None:
    shown = set(re.findall(r"`nldsl (\w+)", TEXT))
    assert shown == set(app.COMMANDS)


def test_the_picture_is_what_the_command_draws() -> None:
    """Drawn anew by `nldsl graph hope_attention -o docs/assets/hope_attention.svg`."""
    (path,) = re.findall(r"!\[[^\]]*\]\(([^)]*\.svg)\)", TEXT)
    kept = (Path(__file__).resolve().parents[2] / path).read_text(encoding="utf-8")
    drawn = draw_svg(lay_out(folded(build_graph(open_program("hope_attention")), CROWDED)))
    assert kept.rstrip() == drawn.rstrip()
