"""`nldsl graph`: the level graph as a picture or as data."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal

import typer

from nldsl.cli.common import SetOption, emit_text, json_text, parse_settings, spec_source, write_atomic, wrote
from nldsl.cli.guard import CommandError
from nldsl.graph import LevelGraph, build_graph, open_program, to_json
from nldsl.view import draw_dot, draw_html, draw_svg, lay_out, render_dot

FORMS = ("svg", "html", "dot", "png", "pdf", "json")


def command(
    spec: Annotated[str, typer.Argument(help="A library name or a file; `-` is stdin.")],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="Where to write; the ending chooses the form. stdout: json."),
    ] = None,
    form: Annotated[str | None, typer.Option("--format", help=f"One of {', '.join(FORMS)}.")] = None,
    block: Annotated[str | None, typer.Option(help="Draw this block instead of the model.")] = None,
    settings: SetOption = None,
) -> None:
    """Draw the level graph: svg and html need nothing else; png and pdf need graphviz's `dot`."""
    wanted = _form(output, form)
    graph = build_graph(open_program(spec_source(spec), block=block, **parse_settings(settings)))
    if wanted in ("png", "pdf"):
        _binary(graph, "png" if wanted == "png" else "pdf", output, spec)
        return
    emit_text(_text(graph, wanted), output, inputs=[spec])


def _form(output: str | None, form: str | None) -> str:
    """The form that was asked for by `--format`, else by the ending of the output, else JSON."""
    to_stdout = output is None or output == "-"
    ending = "json" if to_stdout else PurePath(output or "").suffix.removeprefix(".").lower()
    wanted = form or ending
    if wanted not in FORMS:
        found = f"`{wanted}`" if wanted else "no ending"
        raise CommandError(
            "NL1015", f"{found} is not a form of the graph", f"expected one of {', '.join(FORMS)}"
        )
    return wanted


def _text(graph: LevelGraph, form: str) -> str:
    if form == "svg":
        return draw_svg(lay_out(graph))
    if form == "html":
        return draw_html(graph)
    return draw_dot(graph) if form == "dot" else json_text(to_json(graph))


def _binary(graph: LevelGraph, form: Literal["png", "pdf"], output: str | None, spec: str) -> None:
    if output is None or output == "-":
        raise CommandError("NL1016", f"`{form}` is not written to stdout", f"give a file: -o graph.{form}")
    write_atomic(output, render_dot(graph, form), inputs=[spec])
    wrote(output)
