"""`nldsl check`: everything that is wrong with specifications, at once; `--fix` repairs what it can."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Annotated

import typer

from nldsl.catalog.components import faults
from nldsl.catalog.values import Static
from nldsl.cli.common import SetOption, parse_settings, print_json, spec_source
from nldsl.cli.guard import CommandError
from nldsl.cli.report import print_findings
from nldsl.diagnostics import Diagnostic, SpecError, fix_of, to_json
from nldsl.review import check
from nldsl.source import SourceFile


class Form(StrEnum):
    """How findings are printed."""

    full = "full"
    concise = "concise"
    json = "json"
    github = "github"
    sarif = "sarif"


@dataclass(frozen=True)
class Question:
    """What is asked about every specification."""

    block: str | None
    arguments: dict[str, Static]
    length: int | None

    def findings(self, spec: str | SourceFile) -> list[Diagnostic]:
        """Everything there is to say about a specification, in the order of its text."""
        source = spec_source(spec) if isinstance(spec, str) else spec
        try:
            return check(source, block=self.block, arguments=self.arguments, run_length=self.length)
        except SpecError as wrong:
            return list(wrong.diagnostics)


Results = Sequence[tuple[str, list[Diagnostic]]]


def command(
    specs: Annotated[list[str], typer.Argument(help="Library names or files; `-` is stdin.")],
    block: Annotated[str | None, typer.Option(help="Check this block only.")] = None,
    settings: SetOption = None,
    length: Annotated[
        int | None,
        typer.Option(
            "--length", "--run-length", min=1, help="Tokens of a run: name levels that never fire in it."
        ),
    ] = None,
    form: Annotated[Form, typer.Option("--output", help="How findings are printed.")] = Form.full,
    as_json: Annotated[bool, typer.Option("--json", help="The same as `--output json`.")] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Make the repairs that findings carry, say which, check again.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Check again whenever a file, or one it uses, changes.")
    ] = False,
) -> None:
    """Check specifications: names, shapes, clocks, reachability, rates, what collapses or looks ahead.

    Findings in full stand on stderr, every other form on stdout.  Leaves with 1 if there are errors; with
    `--watch`, when it is interrupted, with 130.
    """
    shown = _form(form, as_json)
    question = Question(block, parse_settings(settings), length)
    if watch:
        _watch(specs, question, shown, fix)
    if fix:
        _fix(specs, question)
    if _report([(spec, question.findings(spec)) for spec in specs], shown):
        raise typer.Exit(1)


def _form(form: Form, as_json: bool) -> Form:
    if as_json and form not in (Form.full, Form.json):
        raise CommandError("NL1024", f"`--json` and `--output {form}` exclude each other", "give one of them")
    return Form.json if as_json else form


def _fix(specs: Sequence[str], question: Question) -> None:
    """Repair every file; what was changed goes to stderr."""
    repair = import_module("nldsl.cli.fixing").repair
    for spec in specs:
        for line in repair(spec, question.findings):
            print(line, file=sys.stderr)


def _watch(specs: Sequence[str], question: Question, form: Form, fix: bool) -> None:
    """Check now and after every change, until interrupted."""
    if "-" in specs:
        raise CommandError("NL1022", "`--watch` cannot watch stdin", "give a file")
    watching = import_module("nldsl.cli.watching")

    def once() -> None:
        if fix:
            _fix(specs, question)
        errors = _report([(spec, question.findings(spec)) for spec in specs], form)
        if form is Form.full:
            print(watching.standing(errors), file=sys.stderr)
        sys.stdout.flush()

    watching.watch(specs, once)


def _report(results: Results, form: Form) -> int:
    """Print findings in a form; the number of errors."""
    found = [d for _, findings in results for d in findings]
    errors = sum(d.severity == "error" for d in found)
    if form is Form.json:
        print_json(_json(results, errors))
    elif form is Form.full:
        print_findings(faults())
        _full(results, errors)
    elif form is Form.sarif:
        version = import_module("nldsl").__version__
        print_json(import_module("nldsl.diagnostics.forms").to_sarif(found, version))
    else:
        write = getattr(import_module("nldsl.diagnostics.forms"), str(form))
        for finding in found:
            print(write(finding))
    return errors


def _json(results: Results, errors: int) -> dict[str, object]:
    files = [{"spec": spec, "findings": [to_json(d) for d in found]} for spec, found in results]
    broken = {"components": [to_json(d) for d in faults()]} if faults() else {}
    return {"ok": errors == 0, "errors": errors, "specs": files, **broken}


def _full(results: Results, errors: int) -> None:
    for spec, found in results:
        print_findings(found)
        if not any(d.severity == "error" for d in found):
            print(f"{spec}: ok{_remarks(found)}")
    if errors:
        repairs = sum(fix_of(d) is not None for _, found in results for d in found)
        offer = f"; `nldsl check --fix` repairs {repairs}" if repairs else ""
        codes = {d.code for _, found in results for d in found}
        page = f"; more: `nldsl explain {min(codes)}`" if sys.stderr.isatty() or os.environ.get("CI") else ""
        print(f"{errors} {'error' if errors == 1 else 'errors'}{offer}{page}", file=sys.stderr)


def _remarks(found: Sequence[Diagnostic]) -> str:
    return f", {len(found)} {'remark' if len(found) == 1 else 'remarks'}" if found else ""
