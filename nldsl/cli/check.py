"""`nldsl check`: everything that is wrong with specifications, at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from nldsl.catalog.values import Static
from nldsl.cli.common import SetOption, parse_settings, print_json, spec_source
from nldsl.cli.report import print_findings
from nldsl.diagnostics import Diagnostic, SpecError, to_json
from nldsl.spec import check


def command(
    specs: Annotated[list[str], typer.Argument(help="Library names or files; `-` is stdin.")],
    block: Annotated[str | None, typer.Option(help="Check this block only.")] = None,
    settings: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print findings as JSON on stdout.")] = False,
) -> None:
    """Check specifications: names, shapes, clocks, reachability.  Leaves with 1 if there are errors."""
    arguments = parse_settings(settings)
    results = [(spec, _findings(spec, block, arguments)) for spec in specs]
    errors = sum(d.severity == "error" for _, found in results for d in found)
    if as_json:
        print_json(_report(results, errors))
    else:
        for spec, found in results:
            print_findings(found)
            if not any(d.severity == "error" for d in found):
                print(f"{spec}: ok{_remarks(found)}")
        if errors:
            print(f"{errors} {'error' if errors == 1 else 'errors'}", file=sys.stderr)
    if errors:
        raise typer.Exit(1)


def _findings(spec: str, block: str | None, arguments: dict[str, Static]) -> list[Diagnostic]:
    try:
        return list(check(spec_source(spec), block=block, arguments=arguments))
    except SpecError as wrong:
        return list(wrong.diagnostics)


def _report(results: Sequence[tuple[str, list[Diagnostic]]], errors: int) -> dict[str, object]:
    files = [{"spec": spec, "findings": [to_json(d) for d in found]} for spec, found in results]
    return {"ok": errors == 0, "errors": errors, "specs": files}


def _remarks(found: Sequence[Diagnostic]) -> str:
    return f", {len(found)} {'remark' if len(found) == 1 else 'remarks'}" if found else ""
