"""`nldsl explain`: levels, equations, cost, lowerings, transfers; or the page of a diagnostic code."""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from typing import Annotated, Any

import typer

from nldsl.cli.common import SetOption, out, parse_settings, print_json, spec_source
from nldsl.cli.guard import CommandError
from nldsl.diagnostics import catalogue, did_you_mean

_CODE = re.compile(r"NL(\d{0,4})\Z", re.IGNORECASE)


def command(
    spec: Annotated[
        str, typer.Argument(help="A library name or a file; `-` is stdin; or a code such as NL0412, or NL04.")
    ],
    block: Annotated[str | None, typer.Option(help="Explain this block instead of the model.")] = None,
    settings: SetOption = None,
    params: Annotated[
        bool, typer.Option("--params", help="Who trains what: every slow parameter with its rule.")
    ] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print the equations as LaTeX.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show levels, derived equations, cost, lowerings and transfers of a specification.

    Of a rule (`nldsl explain adamw`, or a file of rules) its memories, recurrence, numbers, stability.

    With a code, show what it means, a program that has it with its message, and one that has not; with the
    beginning of one (`NL`, `NL04`), list the codes.
    """
    if _CODE.match(spec):
        if block or settings or params or latex:
            raise CommandError("NL1024", "a code has no block, settings, parameters or equations")
        _code(spec.upper(), as_json)
        return
    if latex and (params or as_json):
        other = "--params" if params else "--json"
        raise CommandError("NL1024", f"`--latex` and `{other}` exclude each other", "give one of them")
    arguments = parse_settings(settings)
    if block is None and _rules(spec, arguments, params, latex, as_json):
        return
    program = import_module("nldsl.cli.opening").open_shown(spec, block, arguments)
    view = import_module("nldsl.view")
    explanation = view.explain_program(program)
    if as_json:
        print_json(explanation.to_json())
    elif latex:
        print(import_module("nldsl.view.table").render_latex(explanation))
    else:
        out().print(view.render_explanation(explanation, parameters=params))


def _rules(spec: str, arguments: dict[str, Any], params: bool, latex: bool, as_json: bool) -> bool:
    """The pages of the rules that `spec` stands for; whether it stands for rules."""
    found = import_module("nldsl.spec.lone_rules").rules_in(spec_source(spec), arguments)
    if not found:
        return False
    if params:
        raise CommandError("NL1024", "`--params` says who trains what, and a rule alone trains nothing")
    pages = [import_module("nldsl.view.rule_page").explain_rule(group, list(arguments)) for group in found]
    shown = import_module("nldsl.view.rule_text")
    if as_json:
        print_json({"rules": [page.to_json() for page in pages]})
    elif latex:
        print("\n\n".join(map(shown.render_rule_latex, pages)))
    else:
        for page in pages:
            out().print(shown.render_rule(page))
    return True


def _code(code: str, as_json: bool) -> None:
    """The page of a code, or the list of codes that begin like it."""
    known = catalogue()
    matching = [name for name in known if name.startswith(code)]
    pages = import_module("nldsl.view.codes")
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    if code in known:
        if as_json:
            print_json(pages.code_json(code))
        else:
            print(pages.code_page(code, color=color))
    elif matching and len(code) < 6:
        if as_json:
            print_json({"codes": [{"code": name, "title": known[name].title} for name in matching]})
        else:
            print(pages.code_list(code, color=color))
    else:
        near = did_you_mean(code, known) or "`nldsl explain NL` lists all codes"
        raise CommandError("NL1025", f"there is no code `{code}`", near)
