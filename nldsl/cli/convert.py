"""`nldsl convert`: between the text and the YAML form."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from nldsl.cli.common import emit_text, open_source, refuse_given
from nldsl.cli.guard import CommandError
from nldsl.diagnostics import DiagnosticBag
from nldsl.source import SourceFile
from nldsl.syntax import is_yaml, parse, to_text, to_yaml
from nldsl.syntax.scan import scan


class Form(StrEnum):
    """A form of the language."""

    text = "text"
    yaml = "yaml"


def command(
    context: typer.Context,
    spec: Annotated[str, typer.Argument(help="A file; `-` is stdin (text, unless --from yaml).")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Where to write; stdout if left out.")
    ] = None,
    to: Annotated[Form | None, typer.Option(help="The form to write; the other one if left out.")] = None,
    source: Annotated[Form, typer.Option("--from", help="The form of stdin.")] = Form.text,
) -> None:
    """Convert between the text and the YAML form.  Both give the same tree; comments are not carried over."""
    if spec != "-":
        refuse_given(context, ("source",), f"is the form of stdin, and `{spec}` says its own by its ending")
    file = open_source(spec, yaml=source is Form.yaml)
    bag = DiagnosticBag()
    tree = parse(file, bag)
    bag.raise_if_errors()
    target = to or _wanted(output, is_yaml(file.name))
    if output != spec:
        _same_form(target, output)
    if left := _comments(file):
        print(f"comments are not carried over: {left} stay behind", file=sys.stderr)
    emit_text(to_yaml(tree) if target is Form.yaml else to_text(tree), output, inputs=[spec])


def _same_form(target: Form, output: str | None) -> None:
    """Raise NL1015 if the ending of the output says the other form: a file is read by its ending."""
    name = (output or "").lower()
    if target is Form.yaml and name.endswith(".nl") or target is Form.text and is_yaml(name):
        raise CommandError(
            "NL1015",
            f"`{output}` would hold {target.value}, and by its ending it is read as the other form",
            "leave `--to` out, or choose the ending of the form: `.nl` is text, `.yaml` is YAML",
        )


def _comments(file: SourceFile) -> int:
    """How many comments a file has; in YAML those on lines of their own."""
    if is_yaml(file.name):
        return sum(line.lstrip().startswith("#") for line in file.text.splitlines())
    return sum(token.kind == "comment" for token in scan(file.text))


def _wanted(output: str | None, from_yaml: bool) -> Form:
    """The form the name of the output asks for, else the other form."""
    if output is not None and output != "-":
        return Form.yaml if is_yaml(output) else Form.text
    return Form.text if from_yaml else Form.yaml
