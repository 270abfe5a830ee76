"""`nldsl verify`: the compiled form of a specification against the interpreter."""

from __future__ import annotations

import sys
from typing import Annotated, Any, cast

import typer

from nldsl.certify import verify
from nldsl.cli.common import (
    SetOption,
    err,
    json_text,
    parse_settings,
    print_json,
    spec_source,
    write_atomic,
    wrote,
)


def command(
    spec: Annotated[str, typer.Argument(help="A library name or a file; `-` is stdin.")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Write the certificate as JSON here.")
    ] = None,
    block: Annotated[str | None, typer.Option(help="Verify this block instead of the model.")] = None,
    settings: SetOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of parameters and inputs.")] = 0,
    full: Annotated[
        bool, typer.Option("--full", help="The original clocks, `forward` alone; sizes stay small.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON.")] = False,
) -> None:
    """Compare the compiled form with the interpreter.  Leaves with 1 if they differ.

    On a small twin of the specification, by a rule that is printed: outputs, states, gradients at many
    lengths, splits and masks, in float64.
    """
    arguments = cast("dict[str, Any]", parse_settings(settings))
    source = spec_source(spec)
    console = err()
    if sys.stderr.isatty():
        with console.status(f"verify {spec}") as status:
            told = lambda text: status.update(f"verify {spec}: {text}")  # noqa: E731
            certificate = verify(source, block=block, seed=seed, full=full, progress=told, **arguments)
    else:
        certificate = verify(source, block=block, seed=seed, full=full, **arguments)
    if output is not None:
        write_atomic(output, json_text(certificate.to_json()), inputs=[spec])
        wrote(output)
    if as_json:
        print_json(certificate.to_json())
    else:
        print(certificate.text())
    if not certificate.passed:
        raise typer.Exit(1)
