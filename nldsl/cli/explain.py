"""`nldsl explain`: levels, equations, cost, lowerings, transfers; or the page of a diagnostic code."""

from __future__ import annotations

from typing import Annotated

import typer

from nldsl.cli.common import SetOption, out, parse_settings, print_json, spec_source
from nldsl.graph import open_program
from nldsl.view import explain_program, render_explanation
from nldsl.view.table import render_latex


def command(
    spec: Annotated[str, typer.Argument(help="A library name or a file; `-` is stdin.")],
    block: Annotated[str | None, typer.Option(help="Explain this block instead of the model.")] = None,
    settings: SetOption = None,
    params: Annotated[
        bool, typer.Option("--params", help="Who trains what: every slow parameter with its rule.")
    ] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print the equations as LaTeX.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show levels, derived equations, cost, lowerings and transfers of a specification."""
    program = open_program(spec_source(spec), block=block, **parse_settings(settings))
    explanation = explain_program(program)
    if as_json:
        print_json(explanation.to_json())
    elif latex:
        print(render_latex(explanation))
    else:
        out().print(render_explanation(explanation, parameters=params))
