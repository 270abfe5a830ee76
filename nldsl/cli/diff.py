"""`nldsl diff`: what two specifications differ in, by meaning and not by text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nldsl.cli.common import SetOption, out, parse_settings, print_json
from nldsl.cli.opening import open_shown
from nldsl.cli.report import print_findings
from nldsl.diagnostics import SpecError
from nldsl.spec.program import Program
from nldsl.view.diff import diff_programs
from nldsl.view.diff_text import render_difference


def command(
    before: Annotated[str, typer.Argument(help="A name, a file, or `name@dim=64,depth=2`; `-` is stdin.")],
    after: Annotated[str, typer.Argument(help="The same, for the second.")],
    block: Annotated[str | None, typer.Option(help="Compare this block instead of the models.")] = None,
    settings: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the changes as JSON.")] = False,
) -> None:
    """Show what two specifications differ in: levels, memories, clocks, parameters, cost.

    Leaves with 0 if they mean the same, 1 if not, 2 if one of them cannot be read.
    """
    shared = parse_settings(settings)
    try:
        first, second = (open_with_settings(name, block, shared) for name in (before, after))
    except SpecError as wrong:
        print_findings(wrong.diagnostics)
        raise typer.Exit(2) from wrong
    found = diff_programs(first, second, (before, after))
    if as_json:
        print_json(found.to_json())
    else:
        out().print(render_difference(found))
    if not found.equal:
        raise typer.Exit(1)


def open_with_settings(name: str, block: str | None, shared: dict[str, Any]) -> Program:
    """The program `name`; behind an `@` stand settings of its own, separated by commas."""
    source, arguments = with_settings(name, shared)
    return open_shown(source, block, arguments)


def with_settings(name: str, shared: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The source in `name@dim=64,depth=2`, and its settings on top of the shared ones."""
    source, at, own = name.rpartition("@")
    if not at or Path(name).exists():
        return name, shared
    return source, {**shared, **parse_settings(_split(own))}


def _split(settings: str) -> list[str]:
    """Cut at commas that stand outside of brackets.

    Example:
        >>> _split("dim=64,chunks=[16,64],depth=2")
        ['dim=64', 'chunks=[16,64]', 'depth=2']
    """
    parts, depth = [""], 0
    for letter in settings:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
