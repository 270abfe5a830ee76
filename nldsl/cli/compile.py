"""`nldsl compile`: the PyTorch source of a specification."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated, Any, cast

import typer

from nldsl.cli.common import (
    SetOption,
    emit_text,
    json_text,
    parse_settings,
    read_bytes,
    spec_source,
    write_atomic,
    wrote,
)
from nldsl.cli.guard import FINDINGS, CommandError
from nldsl.cli.settings import VERIFYING


class Lowering(StrEnum):
    """Which form to write."""

    auto = "auto"
    sequential = "sequential"


def command(
    spec: Annotated[str, typer.Argument(help="A library name or a file; `-` is stdin.")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Where to write; stdout if left out.")
    ] = None,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Inline the runtime: the file needs torch and nothing else.")
    ] = False,
    block: Annotated[str | None, typer.Option(help="Compile this block instead of the model.")] = None,
    lowering: Annotated[
        Lowering, typer.Option(help="`sequential` writes the literal per-token form.")
    ] = Lowering.auto,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Recompute each chunk in the backward pass.")
    ] = False,
    verified: Annotated[
        bool, typer.Option("--verify", help="Verify it, and write the certificate beside the output.")
    ] = False,
    certificate: Annotated[
        str | None, typer.Option(help="Keep this certificate of `nldsl verify -o` beside the output.")
    ] = None,
    settings: SetOption = None,
) -> None:
    """Write the PyTorch source of a specification: what runs is what you can read.

    With a certificate, `x.certificate.json` stands beside `x.py`; `nldsl verify x.py` says whether it holds.
    """
    from nldsl.driver import compile_source

    arguments = cast("dict[str, Any]", parse_settings(settings, VERIFYING if verified else {}))
    source = spec_source(spec)
    kept = _certificate(source, block, arguments, verified, certificate, output)
    text = compile_source(
        source,
        block=block,
        standalone=standalone,
        lowering="auto" if lowering is Lowering.auto else "sequential",
        checkpoint=checkpoint,
        **arguments,
    )
    emit_text(text, output, inputs=[spec])
    if kept is not None and output is not None:
        from nldsl.certify.artefact import beside, record

        target = beside(output)
        write_atomic(target, json_text(record(output, text, kept)), inputs=[spec])
        wrote(str(target))


def _certificate(
    source: str,
    block: str | None,
    arguments: dict[str, Any],
    verified: bool,
    given: str | None,
    output: str | None,
) -> dict[str, Any] | None:
    """The certificate to keep; leaves with 1 if the program does not pass."""
    if not verified and given is None:
        return None
    option = "--verify" if verified else "--certificate"
    if verified and given is not None:
        raise CommandError(
            "NL1024", "`--verify` makes a certificate, `--certificate` brings one", "leave one out"
        )
    if output is None or output == "-":
        raise CommandError("NL1034", f"`{option}` needs a file to stand beside", "name one with `-o`")
    from nldsl.certify import verify
    from nldsl.certify.artefact import CertificateError, check_fits

    if given is not None:
        try:
            found = json.loads(read_bytes(given))
            check_fits(found, source, block, arguments)
        except (ValueError, CertificateError) as wrong:
            raise CommandError(
                "NL1034", f"`{given}` does not certify this program: {wrong}", "`--verify` makes a new one"
            ) from wrong
        return dict(found)
    made = verify(source, block=block, **arguments)
    if not made.passed:
        print(made.text(), file=sys.stderr)
        raise typer.Exit(FINDINGS)
    return made.to_json()
