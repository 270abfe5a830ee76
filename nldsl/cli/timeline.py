"""`nldsl timeline`: reads, writes and commits of every level over time."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated

import typer

from nldsl.cli.common import SetOption, emit_text, out, parse_settings, print_json, spec_source
from nldsl.cli.guard import CommandError
from nldsl.graph import open_program
from nldsl.view.timeline import MOST, timeline
from nldsl.view.timeline_svg import draw_timeline
from nldsl.view.timeline_text import render_timeline


def command(
    spec: Annotated[str, typer.Argument(help="A library name or a file; `-` is stdin.")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Write the picture here (.svg).")
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help="How long the sequence is; twice the slowest clock if left out."),
    ] = None,
    block: Annotated[str | None, typer.Option(help="Show this block instead of the model.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    settings: SetOption = None,
) -> None:
    """Show when every level reads, is written and commits, from its clock alone."""
    if output is not None and PurePath(output).suffix.lower() != ".svg":
        raise CommandError("NL1015", f"`{output}` is not a form of the timeline", "expected a name in .svg")
    program = open_program(spec_source(spec), block=block, **parse_settings(settings))
    line = timeline(program, tokens)
    if output is not None:
        emit_text(draw_timeline(line), output, inputs=[spec])
    elif as_json:
        print_json(line.to_json())
    else:
        console = out()
        console.print(render_timeline(line, console.width))
