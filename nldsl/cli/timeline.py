"""`nldsl timeline`: reads, writes and commits of every level over time."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated

import typer

from nldsl.cli.common import SetOption, emit_text, out, parse_settings, print_json, refuse_given
from nldsl.cli.guard import FINDINGS, CommandError
from nldsl.cli.opening import open_shown
from nldsl.spec.program import Program
from nldsl.view.observed import compare_observed, with_observed
from nldsl.view.timeline import MOST, Timeline, timeline
from nldsl.view.timeline_svg import draw_timeline
from nldsl.view.timeline_text import render_timeline


def command(
    context: typer.Context,
    spec: Annotated[str, typer.Argument(help="A library name or a file; `-` is stdin.")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Write the picture here (.svg).")
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help="How long the sequence is; twice the slowest clock if left out."),
    ] = None,
    block: Annotated[str | None, typer.Option(help="Show this block instead of the model.")] = None,
    observed: Annotated[
        bool, typer.Option("--observed", help="Run the compiled program and hold what it did against this.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    settings: SetOption = None,
) -> None:
    """Show when every level reads, is written and commits, from its clock alone.

    With `--observed`, what a real run did, and 1 if it differs.  Reads leave no trace: they stay predicted.
    """
    if output is not None and PurePath(output).suffix.lower() != ".svg":
        raise CommandError("NL1015", f"`{output}` is not a form of the timeline", "expected a name in .svg")
    if output is not None:
        refuse_given(context, ("as_json",), "prints, and `-o` writes a picture", "give one of them")
    program = open_shown(spec, block, parse_settings(settings))
    line = timeline(program, tokens)
    if observed:
        line = _observed(program, line)
    if output is not None:
        emit_text(draw_timeline(line), output, inputs=[spec])
    elif as_json:
        print_json(line.to_json())
    else:
        console = out()
        console.print(render_timeline(line, console.width))


def _observed(program: Program, line: Timeline) -> Timeline:
    """The timeline with what a run did in it; leaves with 1 and the differences if it is another one."""
    # Only this option needs torch.
    from nldsl.certify.observe import observe

    seen = observe(program, line.tokens)
    differences = compare_observed(line, seen)
    if differences:
        for difference in differences:
            typer.echo(difference, err=True)
        raise typer.Exit(FINDINGS)
    return with_observed(line, seen)
