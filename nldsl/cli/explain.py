"""`nldsl explain`: levels, memories, slow parameters and transfers."""

from __future__ import annotations

from typing import Annotated

import typer

from nldsl.cli.common import SetOption, out, parse_settings, print_json, spec_source
from nldsl.graph import open_program
from nldsl.plan.make import make_plan
from nldsl.view import explain_program, render_explanation


def command(
    spec: Annotated[str, typer.Argument(help="A library name or a file; `-` is stdin.")],
    block: Annotated[str | None, typer.Option(help="Explain this block instead of the model.")] = None,
    settings: SetOption = None,
    params: Annotated[
        bool, typer.Option("--params", help="One line per slow parameter: path, shape, role, rule.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show levels, memories, slow parameters, transfers and lowerings of a specification."""
    program = open_program(spec_source(spec), block=block, **parse_settings(settings))
    explanation = explain_program(program, make_plan(program).rows())
    if as_json:
        print_json(explanation.to_json())
    else:
        out().print(render_explanation(explanation, parameters=params))
