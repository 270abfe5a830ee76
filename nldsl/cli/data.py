"""`nldsl data`: documents as shards that many runs read, and the tokenizer they are made with."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nldsl.cli.common import print_json, refuse_given

if TYPE_CHECKING:
    from nldsl.train.prepared import Prepared


class Action(Enum):
    """What can be done with data."""

    PREPARE = "prepare"
    TOKENIZER = "tokenizer"


def command(
    context: typer.Context,
    action: Annotated[
        Action,
        typer.Argument(
            help="`prepare`: documents as memory-mapped shards. `tokenizer`: train byte pairs on them."
        ),
    ],
    paths: Annotated[list[str], typer.Argument(help="Text files, folders of them, JSONL and parquet files.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The new folder, or the new `tokenizer.json`.")],
    field: Annotated[
        str, typer.Option(help="What holds the text in lines of `.jsonl` and rows of `.parquet` files.")
    ] = "",
    packed: Annotated[
        bool, typer.Option("--packed", help="prepare: windows may cross from one document into the next.")
    ] = False,
    heldout: Annotated[
        float, typer.Option(help="prepare: the share of documents held out, by their hash.")
    ] = 0.05,
    tokenizer: Annotated[
        str, typer.Option(help="prepare: a `tokenizer.json`; without it a token is a byte.")
    ] = "",
    label_field: Annotated[
        str, typer.Option(help="prepare: what holds a document's label, for `task label`.")
    ] = "",
    vocab: Annotated[int, typer.Option(min=257, help="tokenizer: how many tokens.")] = 4096,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Prepare documents for `nldsl train --data FOLDER`.

    A document is a text file, or with --field a line of a JSONL file.  Unless --packed, a window never
    crosses into another document: short ones are padded and masked.  Equal documents are kept once.
    A label is a word or a number for a whole document, or a list of one for every token.
    Tokens are bytes, or those of a `tokenizer.json`, such as `nldsl data tokenizer` trains.
    """
    from nldsl.train import prepared, tokenizing

    if action is Action.TOKENIZER:
        of_prepare = ("packed", "heldout", "tokenizer", "label_field")
        refuse_given(context, of_prepare, "is for `nldsl data prepare`")
        tokens = tokenizing.train_tokenizer(paths, out, vocab=vocab, field=field)
        print_json({"file": out, "vocab": tokens}) if as_json else print(f"wrote {out}: {tokens:,} tokens")
        return
    refuse_given(context, ("vocab",), "is for `nldsl data tokenizer`")
    how: dict[str, Any] = {"packed": packed, "heldout": heldout, "tokenizer": tokenizer}
    found = prepared.prepare_documents(paths, out, field=field, label_field=label_field, **how)
    if as_json:
        print_json(asdict(found) | {"folder": str(found.folder)})
        return
    _report(found, bool(tokenizer))


def _report(found: Prepared, tokenizer: bool) -> None:
    """What was found, in words."""
    of = (f" in {found.tokens:,} tokens", f" in {found.heldout_tokens:,} tokens") if tokenizer else ("", "")
    print(
        f"{_counted(found.documents)}, {found.bytes:,} bytes{of[0]} to train on; "
        f"{_counted(found.heldout_documents)}, {found.heldout_bytes:,} bytes{of[1]} held out; "
        f"{found.left_out:,} empty or equal left out"
    )
    if tokenizer:
        print(f"{found.vocab:,} different tokens: train with `--set vocab={found.vocab}`")
    if found.classes:
        print(f"{found.classes:,} classes: the head of the model has as many rows")


def _counted(documents: int) -> str:
    return f"{documents:,} document{'' if documents == 1 else 's'}"
