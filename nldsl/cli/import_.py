"""`nldsl import hf:FOLDER`: a model of another library as a specification and a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nldsl.cli.common import out as console
from nldsl.cli.common import wrote


def command(
    source: Annotated[
        str, typer.Argument(help="`hf:FOLDER`: a local folder of transformers (Llama, Mistral, Qwen, GPT-2).")
    ],
    output: Annotated[str, typer.Option("-o", "--out", help="Folder of the new run.")],
    name: Annotated[str, typer.Option(help="Of the model in the specification; else the folder's.")] = "",
    stack: Annotated[
        str,
        typer.Option(
            metavar="CMS",
            help="Turn feed-forward blocks into levels that learn the task: 'cms(chunks = [512, 4096])'.",
        ),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the run that is there.")] = False,
) -> None:
    """Bring in a model with its weights; nothing is downloaded, and no code of the folder is run."""
    from nldsl.exchange import import_hub
    from nldsl.train import load_run

    run = import_hub(source, output, name=name, stack=stack, force=force)
    loaded = load_run(run)
    wrote(str(run))
    count = sum(p.numel() for p in loaded.model.parameter_paths().values())
    spec = Path(run) / loaded.config.specification
    console().print(f"{loaded.config.source}: {count:,} parameters; specification: {spec}", markup=False)
