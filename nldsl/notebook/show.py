"""How findings, graphs and models look in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from html import escape
from typing import Any

from nldsl.diagnostics import Diagnostic, render
from nldsl.graph import LevelGraph
from nldsl.view import Explanation, draw_svg, explain_program, lay_out

_COLOURS = {"error": "#c62828", "warning": "#b26a00", "note": "#00695c"}


def findings_html(findings: Iterable[Diagnostic]) -> str:
    """Findings with their source lines and carets."""
    parts = [
        f'<pre style="border-left:3px solid {_COLOURS[f.severity]};padding:0 0 0 .8em;margin:.4em 0;'
        f'line-height:1.25">{escape(render(f))}</pre>'
        for f in findings
    ]
    return "".join(parts)


def graph_svg(graph: LevelGraph) -> str:
    """The level graph as a picture that is never wider than the cell."""
    return draw_svg(lay_out(graph)).replace("<svg ", '<svg style="max-width:100%;height:auto" ', 1)


def model_html(model: Any) -> str:
    """A compiled model: its name, sizes and levels."""
    return explanation_html(explain_program(model.program), _device(model))


def _device(model: Any) -> str:
    """Where the parameters are and of which type."""
    first = next(iter(model.parameters()), None)
    return f"{str(first.dtype).removeprefix('torch.')} on {first.device}" if first is not None else ""


def explanation_html(found: Explanation, place: str = "") -> str:
    """The levels of a program as a table."""
    sizes = [f"{found.parameter_count:,} parameters", f"{found.state_bytes:,} bytes of state per sequence"]
    head = ", ".join([*sizes, *([place] if place else [])])
    rows = "".join(_rows(found))
    columns = ("level", "memory", "clock", "map", "objective", "rule", "copies")
    titles = "".join(f'<th style="text-align:left">{name}</th>' for name in columns)
    return (
        f"<div><b>{escape(found.name)}</b> ({escape(found.kind)}): {escape(head)}"
        f"<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _rows(found: Explanation) -> Iterator[str]:
    for level in found.levels:
        for row in level.problems:
            cells = (level.number, row.name, row.clock, row.map, row.objective, row.rule, row.copies)
            inner = "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in cells)
            yield f"<tr>{inner}</tr>"


def model_text(model: Any, printer: Any, cycle: bool) -> None:
    """A compiled model in one line per level, for terminals."""
    if cycle:
        return
    found = explain_program(model.program)
    lines = [f"{type(model).__name__} {found.name}: {found.parameter_count:,} parameters, {_device(model)}"]
    for level in found.levels:
        names = ", ".join(row.name for row in level.problems)
        lines.append(f"  level {level.number} ({level.clock}): {names}")
    printer.text("\n".join(lines))


def formatters() -> Iterator[tuple[str, str, str, Callable[..., Any]]]:
    """MIME type, module, class and function of everything that can be shown; nothing is imported for it."""
    yield "image/svg+xml", "nldsl.graph.model", "LevelGraph", graph_svg
    yield "text/html", "nldsl.view.explain", "Explanation", explanation_html
    for kind in ("Model", "Layer"):
        yield "text/html", "nldsl.runtime.model", kind, model_html
        yield "text/plain", "nldsl.runtime.model", kind, model_text
