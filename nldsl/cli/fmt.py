"""`nldsl fmt`: specifications in canonical form."""

from __future__ import annotations

import sys
from difflib import unified_diff
from typing import Annotated

import typer

from nldsl.cli.common import open_source, write_atomic
from nldsl.cli.report import print_findings
from nldsl.diagnostics import SpecError
from nldsl.syntax import format_text


def command(
    files: Annotated[
        list[str], typer.Argument(help="Files to format in place; `-` formats stdin to stdout.")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; leave with 1 if a file would change.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Change nothing; print what would change.")] = False,
) -> None:
    """Format specifications: in place, or `--check` and `--diff` without changing them."""
    changed = failed = 0
    for name in files:
        try:
            changed += _format(name, write=not (check or diff), diff=diff)
        except SpecError as wrong:
            print_findings(wrong.diagnostics)
            failed += 1
    if failed or (changed and (check or diff)):
        raise typer.Exit(1)


def _format(name: str, write: bool, diff: bool) -> bool:
    """Format one file; whether it was not in canonical form."""
    source = open_source(name)
    text = format_text(source)
    differs = text != source.text
    if diff and differs:
        lines = unified_diff(source.text.splitlines(True), text.splitlines(True), name, f"{name} (formatted)")
        sys.stdout.writelines(line if line.endswith("\n") else line + "\n" for line in lines)
    elif name == "-" and write:
        sys.stdout.write(text)
    elif differs and write:
        write_atomic(name, text)
        print(f"formatted {name}", file=sys.stderr)
    elif differs:
        print(f"{name} would be formatted", file=sys.stderr)
    return differs
