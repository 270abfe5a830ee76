"""`nldsl compile`: the PyTorch source of a specification."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, cast

import typer

from nldsl.cli.common import SetOption, emit_text, parse_settings, spec_source
from nldsl.driver import compile_source


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
    settings: SetOption = None,
) -> None:
    """Write the PyTorch source of a specification: what runs is what you can read."""
    arguments = parse_settings(settings)
    text = compile_source(
        spec_source(spec),
        block=block,
        standalone=standalone,
        lowering="auto" if lowering is Lowering.auto else "sequential",
        checkpoint=checkpoint,
        **cast("dict[str, Any]", arguments),
    )
    emit_text(text, output, inputs=[spec])
