"""The cell magic `%%nldsl`: a cell is a specification, and becomes a model under a name."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import HTML, SVG, display

from nldsl.diagnostics import Diagnostic, DiagnosticBag, SpecError, render_all
from nldsl.graph import build_graph
from nldsl.notebook.show import findings_html, formatters, graph_svg
from nldsl.spec import check, elaborate
from nldsl.spec import load as load_spec
from nldsl.spec.program import Program

USAGE = """%%nldsl [NAME] [--block NAME] [--set KEY=VALUE ...] [--check]

The cell is a specification.  Its last model (or block) is checked, its level graph shown, and the
compiled model put into NAME, if one is given.

--block: that block instead.  --set: arguments, such as --set dim=64.
--check: show findings and graph only."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong instead of leaving the interpreter."""

    def error(self, message: str) -> Any:
        raise UsageError(f"{message}\n\n{USAGE}")


def _parser() -> _Parser:
    parser = _Parser(prog="%%nldsl", add_help=False)
    parser.add_argument("name", nargs="?")
    parser.add_argument("--block")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--check", action="store_true")
    return parser


def _arguments(pairs: list[str]) -> dict[str, Any]:
    """`dim=64` as numbers where they are numbers."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"found `--set {pair}`, expected `--set name=value`\n\n{USAGE}")
        found[key] = _value(text)
    return found


def _value(text: str) -> Any:
    """A number, a truth value or a text.

    Example:
        >>> _value("64"), _value("1e-3"), _value("true"), _value("raw")
        (64, 0.001, True, 'raw')
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def nldsl_magic(line: str, cell: str) -> None:
    """Check the cell, show findings or the level graph, and compile it into a name."""
    try:
        options = _parser().parse_args(shlex.split(line))
    except ValueError as wrong:
        raise UsageError(f"{wrong}\n\n{USAGE}") from wrong
    if options.name is not None and not options.name.isidentifier():
        raise UsageError(f"`{options.name}` is not a name of Python\n\n{USAGE}")
    arguments = _arguments(options.set)
    program, findings = _open(cell, options.block, arguments)
    if findings:
        _show_findings(findings)
    if program is None:
        return
    display(SVG(graph_svg(build_graph(program))))
    if options.name is not None and not options.check:
        _compile(options.name, program)


def _open(cell: str, block: str | None, arguments: dict[str, Any]) -> tuple[Program | None, list[Diagnostic]]:
    """The program of a cell and every finding; a cell is a text even if it is one line."""
    bag = DiagnosticBag()
    text = cell if "\n" in cell else f"{cell}\n"
    program = elaborate(load_spec(text, bag), block=block, arguments=arguments, bag=bag)
    if program is None and bag.errors:
        return None, [*bag.items]
    others = [d for d in check(text) if d.severity != "error"] if block is None and not arguments else []
    return program, others or bag.items


def _show_findings(findings: list[Diagnostic]) -> None:
    display({"text/html": findings_html(findings), "text/plain": render_all(findings)}, raw=True)


def _compile(name: str, program: Program) -> None:
    from nldsl.driver import compile

    shell = InteractiveShell.instance()
    try:
        shell.user_ns[name] = compile(program)
    except SpecError as wrong:
        _show_findings(list(wrong.diagnostics))
        return
    said = f"<code>{name}</code> is the compiled <code>{program.name}</code>."
    display(HTML(said))


def load(shell: InteractiveShell) -> None:
    """Register the magic and the display of models and graphs with a running IPython."""
    shell.register_magic_function(nldsl_magic, "cell", "nldsl")  # type: ignore[arg-type]
    formatter = shell.display_formatter
    if formatter is None:
        return
    for mime, module, kind, show in formatters():
        formatter.formatters[mime].for_type_by_name(module, kind, show)
