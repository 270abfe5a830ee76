"""`nldsl migrate`: specifications of an older version of the language, brought to the current one."""

from __future__ import annotations

import sys
from difflib import unified_diff
from typing import Annotated

import typer

from nldsl.cli.common import open_source, write_atomic
from nldsl.cli.report import print_findings
from nldsl.diagnostics import SpecError
from nldsl.syntax.migrate import migrate
from nldsl.syntax.versions import CURRENT, OLDEST


def command(
    files: Annotated[
        list[str], typer.Argument(help="Files to rewrite in place; `-` migrates stdin to stdout.")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; leave with 1 if a file is of an older version.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Change nothing; print what would change.")] = False,
    start: Annotated[
        int | None,
        typer.Option("--from", min=OLDEST, max=CURRENT, help="Version of files that do not say theirs."),
    ] = None,
) -> None:
    """Bring specifications to the current version of the language; comments and layout stay."""
    older = failed = 0
    for name in files:
        try:
            older += _migrate(name, start, write=not (check or diff), diff=diff)
        except SpecError as wrong:
            print_findings(wrong.diagnostics)
            failed += 1
    if failed or (older and (check or diff)):
        raise typer.Exit(1)


def _migrate(name: str, start: int | None, write: bool, diff: bool) -> bool:
    """Migrate one file; whether it was of an older version."""
    source = open_source(name)
    found = migrate(source, start)
    differs = found.text != source.text
    if diff and differs:
        lines = unified_diff(
            source.text.splitlines(True), found.text.splitlines(True), name, f"{name} (version {CURRENT})"
        )
        sys.stdout.writelines(line if line.endswith("\n") else line + "\n" for line in lines)
    elif name == "-" and write:
        sys.stdout.write(found.text)
    elif differs and write:
        write_atomic(name, found.text)
    if differs and name != "-":
        verb = "migrated" if write else "would be migrated"
        print(f"{name}: {verb} from version {found.before} to {CURRENT}", file=sys.stderr)
        for change in found.changes:
            print(f"  {change}", file=sys.stderr)
    elif name != "-":
        print(f"{name}: version {CURRENT} already", file=sys.stderr)
    return differs
