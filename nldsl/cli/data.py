"""`nldsl data prepare PATH... --out FOLDER`: documents as shards that many runs read."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import Annotated

import typer

from nldsl.cli.common import print_json
from nldsl.train.prepared import prepare_documents


class Action(Enum):
    """What can be done with data."""

    PREPARE = "prepare"


def command(
    action: Annotated[Action, typer.Argument(help="`prepare`: write documents as memory-mapped shards.")],
    paths: Annotated[list[str], typer.Argument(help="Text files, folders of them, JSONL files.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The new folder.")],
    field: Annotated[str, typer.Option(help="What holds the text in the lines of `.jsonl` files.")] = "",
    packed: Annotated[
        bool, typer.Option("--packed", help="Windows may cross from one document into the next.")
    ] = False,
    heldout: Annotated[float, typer.Option(help="The share of documents held out, by their hash.")] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Prepare documents for `nldsl train --data FOLDER`.

    A document is a text file, or with --field a line of a JSONL file.  Unless --packed, a window never
    crosses into another document: short ones are padded and masked.  Equal documents are kept once.
    """
    assert action is Action.PREPARE
    found = prepare_documents(paths, out, field=field, packed=packed, heldout=heldout)
    if as_json:
        print_json(asdict(found) | {"folder": str(found.folder)})
        return
    print(
        f"{found.documents:,} documents, {found.bytes:,} bytes to train on; "
        f"{found.heldout_documents:,} documents, {found.heldout_bytes:,} bytes held out; "
        f"{found.left_out:,} empty or equal left out"
    )
