"""`nldsl verify`: the compiled form against the interpreter."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer

from nldsl.certify import verify
from nldsl.cli.common import (
    SetOption,
    json_text,
    out,
    parse_settings,
    print_json,
    spec_source,
    write_atomic,
    wrote,
)


def command(
    spec: Annotated[str, typer.Argument(help="A library name or a file; `-` is stdin.")],
    block: Annotated[str | None, typer.Option(help="Verify this block instead of the model.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of parameters, inputs and random splits.")] = 0,
    full: Annotated[
        bool, typer.Option("--full", help="Run the original clocks as well, forward only; takes longer.")
    ] = False,
    settings: SetOption = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Write the certificate as JSON to this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON.")] = False,
) -> None:
    """Compare the compiled form with the interpreter: outputs, states, gradients, on odd lengths and splits.

    Leaves with 1 if they differ, and names the first level and token that do.
    """
    arguments = cast("dict[str, Any]", parse_settings(settings))
    certificate = verify(spec_source(spec), block=block, seed=seed, full=full, **arguments)
    if output is not None:
        write_atomic(output, json_text(certificate.to_json()), inputs=[spec])
        wrote(output)
    if as_json:
        print_json(certificate.to_json())
    else:
        out().print(certificate.text(), markup=False)
    if not certificate.passed:
        raise typer.Exit(1)
