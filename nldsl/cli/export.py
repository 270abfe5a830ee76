"""`nldsl export RUN --to hf -o DIR`: a trained model in the form of another library."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from nldsl.cli.common import wrote


class Form(StrEnum):
    """What is written."""

    hf = "hf"
    torch = "torch"
    onnx = "onnx"


def command(
    run: Annotated[str, typer.Argument(help="Folder of a run of `nldsl train` or `nldsl import`.")],
    to: Annotated[
        Form,
        typer.Option(help="`hf`: for `transformers`; `torch`: programs of `torch.export`; `onnx`: a token."),
    ],
    output: Annotated[str, typer.Option("-o", "--output", help="The folder to write.")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace what this command wrote there before.")
    ] = False,
) -> None:
    """Write a trained model for another library; none of the forms needs nldsl to run."""
    from nldsl.exchange import export_hub, export_onnx, export_torch

    exports = {Form.hf: export_hub, Form.torch: export_torch, Form.onnx: export_onnx}
    wrote(str(exports[to](run, output, force=force)))
