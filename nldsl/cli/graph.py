"""`nldsl graph`: the level graph as a picture or as data."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import Annotated, Literal

import typer

from nldsl.cli.common import SetOption, emit_text, json_text, parse_settings, write_atomic, wrote
from nldsl.cli.guard import CommandError
from nldsl.cli.opening import open_shown
from nldsl.graph import LevelGraph, build_graph, to_json
from nldsl.graph.compare import Comparison, compare
from nldsl.graph.fold import CROWDED, folded
from nldsl.graph.mermaid import to_mermaid
from nldsl.graph.model_explorer import to_model_explorer
from nldsl.spec.program import Program
from nldsl.view import draw_dot, draw_svg, lay_out, render_dot
from nldsl.view.page import draw_page

FORMS = ("svg", "html", "dot", "png", "pdf", "json", "mmd", "model-explorer.json")
_DIFFERENCES = ("svg", "html", "json")


def command(
    spec: Annotated[str, typer.Argument(help="A library name or a file; `-` is stdin.")],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="Where to write; the ending chooses the form. stdout: json."),
    ] = None,
    form: Annotated[str | None, typer.Option("--format", help=f"One of {', '.join(FORMS)}.")] = None,
    block: Annotated[str | None, typer.Option(help="Draw this block instead of the model.")] = None,
    diff: Annotated[
        str | None, typer.Option("--diff", help="Show what changes on the way to this specification.")
    ] = None,
    every_copy: Annotated[
        bool, typer.Option("--every-copy", help="Draw blocks that are alike one by one, however many.")
    ] = False,
    settings: SetOption = None,
) -> None:
    """Draw the level graph: svg and html need nothing else; png and pdf need graphviz's `dot`.

    `mmd` is Mermaid, `model-explorer.json` what Google's Model Explorer opens.
    """
    wanted = _form(output, form)
    arguments = parse_settings(settings)
    program = open_shown(spec, block, arguments)
    most = sys.maxsize if every_copy else CROWDED
    if diff is not None:
        after = open_shown(diff, block, arguments)
        emit_text(_difference(program, after, wanted, most), output, inputs=[spec, diff])
        return
    if wanted == "html":
        emit_text(draw_page(program, most=most), output, inputs=[spec])
        return
    graph = build_graph(program)
    if wanted not in ("json", "model-explorer.json"):
        graph = folded(graph, most)
    if wanted in ("png", "pdf"):
        _binary(graph, "png" if wanted == "png" else "pdf", output, spec)
        return
    emit_text(_text(graph, wanted), output, inputs=[spec])


def _form(output: str | None, form: str | None) -> str:
    """The form that was asked for by `--format`, else by the ending of the output, else JSON."""
    to_stdout = output is None or output == "-"
    name = PurePath(output or "").name.lower()
    ending = next((form for form in reversed(FORMS) if name.endswith(f".{form}")), "")
    wanted = form or ("json" if to_stdout else ending or PurePath(name).suffix.removeprefix("."))
    if wanted not in FORMS:
        found = f"`{wanted}`" if wanted else "no ending"
        raise CommandError(
            "NL1015", f"{found} is not a form of the graph", f"expected one of {', '.join(FORMS)}"
        )
    if ending and not f".{wanted}".endswith(f".{ending}"):
        raise CommandError(
            "NL1015",
            f"`--format {wanted}` writes {wanted}, and `{output}` says {ending}",
            f"leave `--format` out, or let the output end in `.{wanted}`",
        )
    return wanted


def _text(graph: LevelGraph, form: str) -> str:
    match form:
        case "svg":
            return draw_svg(lay_out(graph))
        case "dot":
            return draw_dot(graph)
        case "mmd":
            return to_mermaid(graph)
        case "model-explorer.json":
            return json_text(to_model_explorer(graph))
    return json_text(to_json(graph))


def _difference(before: Program, after: Program, form: str, most: int) -> str:
    """Both programs laid over each other, in one of the forms that can show it."""
    if form not in _DIFFERENCES:
        raise CommandError(
            "NL1015", f"`{form}` shows no differences", f"expected one of {', '.join(_DIFFERENCES)}"
        )
    if form == "html":
        return draw_page(after, before, most=most)
    found: Comparison = compare(*(folded(build_graph(program), most) for program in (before, after)))
    return draw_svg(lay_out(found.graph, found)) if form == "svg" else json_text(found.to_json())


def _binary(graph: LevelGraph, form: Literal["png", "pdf"], output: str | None, spec: str) -> None:
    if output is None or output == "-":
        raise CommandError("NL1016", f"`{form}` is not written to stdout", f"give a file: -o graph.{form}")
    write_atomic(output, render_dot(graph, form), inputs=[spec])
    wrote(output)
