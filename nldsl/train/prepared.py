"""Data prepared once for many runs: shards of tokens, the offsets of documents, and a sidecar about them.

The folder holds `train.bin` and `heldout.bin` (tokens, little endian), `train.offsets` and `heldout.offsets`
(int64, little endian: where documents begin, and the end), `data.json` (tokenizer, type, counts, checksums)
and, unless a token is a byte, the `tokenizer.json` they were made with.  Labelled data have `train.labels`
and `heldout.labels` too (int32, little endian: the class of every token, -1 for none).  A document is a text
file, or the text in one line of a JSONL file or one row of a parquet file.  Which are held out depends on
their own bytes only, so a document is on the same side whatever it is prepared with.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nldsl.train.checkpoint import digest_of, sync_file, sync_folder, write_text
from nldsl.train.errors import fault
from nldsl.train.labels import Classes, classes_of, said_by
from nldsl.train.reading import Document, documents_of
from nldsl.train.tokenizing import BYTES, Codec, byte_codec, read_codec

SIDECAR, FORMAT, VERSION, LABELLED, TOKENIZER = "data.json", "nldsl-data", 1, 2, "tokenizer.json"
DTYPES = ("uint8", "<u2", "<u4")
PARTS = ("train", "heldout")


@dataclass(frozen=True)
class Prepared:
    """Documents, bytes and tokens of both parts, and how many documents were left out as empty or equal."""

    folder: Path
    documents: int
    bytes: int
    heldout_documents: int
    heldout_bytes: int
    left_out: int
    tokens: int
    heldout_tokens: int
    vocab: int
    classes: int = 0
    """How many there are, where documents have labels."""


def prepare_documents(
    paths: Sequence[str],
    out: str | Path,
    *,
    field: str = "",
    packed: bool = False,
    heldout: float = 0.05,
    tokenizer: str = "",
    label_field: str = "",
) -> Prepared:
    """Write the documents of files and folders as shards into the new folder `out`.

    `field` names what holds the text in the lines of `.jsonl` files (without it they are text like any
    other) and the rows of `.parquet` files; `packed` declares that windows may cross from one document into
    the next; `heldout` is the share of documents held out; `tokenizer` is a `tokenizer.json` (without it a
    token is a byte); `label_field` names what holds the label, for `task label`: a word or a number for all
    tokens of a document, or a list of one for every token.  The folder is there whole or not at all.

    Errors: NL0941 to NL0943 (tokenizer), NL0951, NL0952 (paths), NL0956 (a line), NL0957 (`out` is not
    empty), NL0958 (too few documents), NL0981 (a bad share, or labels of what has none).
    """
    folder, codec = Path(out), read_codec(tokenizer)
    if not 0 < heldout < 1:
        raise fault("NL0981", f"`--heldout` must lie between 0 and 1, found {heldout}")
    if label_field:
        require_documents(label_field, field, packed)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise fault("NL0957", f"`{folder}` is there already", help="give a new folder as `--out`")
    keys, left_out, seen = survey(documents_of(paths, field, label_field))
    classes = classes_of(seen) if label_field else None
    chosen = held_out(keys, heldout)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        documents = documents_of(paths, field, label_field)
        sizes = write_parts(partial, documents, keys, chosen, codec, classes)
        about = describe(partial, packed, left_out, codec, sizes)
        if classes is not None:
            describe_labels(partial, about, classes.describe(label_field))
        write_text(partial / SIDECAR, json.dumps(about, indent=2) + "\n")
        partial.replace(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    train, kept = about["parts"]["train"], about["parts"]["heldout"]
    counts = (train["documents"], train["bytes"], kept["documents"], kept["bytes"], left_out)
    labelled = 0 if classes is None else classes.count
    return Prepared(folder, *counts, train["tokens"], kept["tokens"], codec.vocab, labelled)


def require_documents(label_field: str, field: str, packed: bool) -> None:
    """Raise NL0981 unless labels are of documents with fields."""
    why = "windows that cross documents have no label" if packed else "a file of plain text has no labels"
    help = "leave `--packed` out" if packed else "name what holds the text, too: `--field NAME`"
    if packed or not field:
        raise fault("NL0981", f"`--label-field {label_field}`: {why}", help=help)


def describe_labels(folder: Path, about: dict[str, Any], labels: dict[str, Any]) -> None:
    """Put labels that have been written, synced to the disk, into the sidecar."""
    about |= {"version": LABELLED, "labels": labels}
    for part in PARTS:
        sync_file(folder / f"{part}.labels")
        about["parts"][part]["labels_sha256"] = digest_of(folder / f"{part}.labels")


def key_of(document: Document) -> bytes:
    """What tells documents apart: their text, whose hash decides who is held out, and their label."""
    found = sha256(document.text)
    share = found.digest()
    if document.label is None:
        return share
    found.update(repr(document.label).encode())
    return share[:8] + found.digest()[:24]


def survey(documents: Iterable[Document]) -> tuple[dict[bytes, int], int, set[str | int]]:
    """The key of every document that is kept, with its number; how many are left out; all labels."""
    keys: dict[bytes, int] = {}
    seen: set[str | int] = set()
    number = -1
    for number, document in enumerate(documents):
        if document.text:
            keys.setdefault(key_of(document), number)
            seen.update(said_by(document.label))
    return keys, number + 1 - len(keys), seen


def held_out(keys: Iterable[bytes], share: float) -> set[bytes]:
    """The hashes in the first `share` of all there could be; the least one if none is.  Raises NL0958."""
    found = sorted(keys)
    if len(found) < 2:
        raise fault(
            "NL0958",
            f"{len(found)} documents, and one part is trained on and another held out",
            help="give more documents, or `nldsl train --data FILE`, which cuts one file in blocks",
        )
    limit = int(share * 2**64)
    chosen = {key for key in found if int.from_bytes(key[:8], "big") < limit} or {found[0]}
    return chosen if len(chosen) < len(found) else chosen - {found[-1]}


def write_parts(
    folder: Path,
    documents: Iterable[Document],
    keys: dict[bytes, int],
    chosen: set[bytes],
    codec: Codec,
    classes: Classes | None,
) -> dict[str, int]:
    """Write the shards, their offsets and labels; the bytes of text in each part.

    Raises NL0952 if a document is not what it was a moment ago.
    """
    offsets: dict[str, list[int]] = {part: [0] for part in PARTS}
    sizes = dict.fromkeys(PARTS, 0)
    kinds = ("bin", "labels") if classes is not None else ("bin",)
    files: dict[tuple[str, str], BinaryIO] = {
        (part, kind): (folder / f"{part}.{kind}").open("wb") for part in PARTS for kind in kinds
    }
    try:
        for number, document in enumerate(documents):
            key = key_of(document)
            if document.text and key not in keys:
                raise fault("NL0952", "a file changed while it was read", help="prepare again")
            if document.text and keys[key] == number:
                part, ids = "heldout" if key in chosen else "train", codec.encode(document.text)
                files[part, "bin"].write(ids.tobytes())
                if classes is not None:
                    files[part, "labels"].write(classes.of(document, len(ids)).astype("<i4").tobytes())
                offsets[part].append(offsets[part][-1] + len(ids))
                sizes[part] += len(document.text)
    finally:
        for file in files.values():
            file.close()
    for part in PARTS:
        np.array(offsets[part], dtype="<i8").tofile(folder / f"{part}.offsets")
    if codec.text:
        write_text(folder / TOKENIZER, codec.text)
    return sizes


def describe(
    folder: Path, packed: bool, left_out: int, codec: Codec, sizes: dict[str, int]
) -> dict[str, Any]:
    """The sidecar of shards that have been written, synced to the disk."""
    parts = {}
    for part in PARTS:
        shard, offsets = folder / f"{part}.bin", folder / f"{part}.offsets"
        sync_file(shard)
        sync_file(offsets)
        parts[part] = {
            "bytes": sizes[part],
            "tokens": os.path.getsize(shard) // np.dtype(codec.dtype).itemsize,
            "documents": os.path.getsize(offsets) // 8 - 1,
            "sha256": digest_of(shard),
            "offsets_sha256": digest_of(offsets),
        }
    return {
        "format": FORMAT,
        "version": VERSION,
        "tokenizer": codec.name,
        "vocab": codec.vocab,
        "dtype": codec.dtype,
        "documents": "packed" if packed else "respected",
        "left_out": left_out,
        "parts": parts,
    }


def is_prepared(source: str) -> bool:
    """Whether a data source is a folder of `prepare_documents`."""
    return (Path(source) / SIDECAR).is_file()


def read_sidecar(folder: Path) -> dict[str, Any]:
    """The sidecar of prepared data whose files have the checksums it names.  Raises NL0955."""
    try:
        about: dict[str, Any] = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
        if (about["format"], about["version"]) != (FORMAT, LABELLED if "labels" in about else VERSION):
            raise ValueError(f"format `{about['format']}`, version `{about['version']}`")
        kind = (about["dtype"], about["documents"])
        if about["dtype"] not in DTYPES or about["documents"] not in ("respected", "packed"):
            raise ValueError(f"type and documents are {kind}")
        about.setdefault("vocab", byte_codec().vocab)
        name = about["tokenizer"]
        if name != BYTES and sha256((folder / TOKENIZER).read_bytes()).hexdigest() != name:
            raise ValueError(f"the checksum of `{TOKENIZER}` is wrong")
        for part in PARTS:
            found = about["parts"][part]
            found.setdefault("tokens", found["bytes"])
            for name, digest in checked(about):
                if digest_of(folder / f"{part}.{name}") != found[digest]:
                    raise ValueError(f"the checksum of `{part}.{name}` is wrong")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise fault(
            "NL0955", f"the prepared data in `{folder}` are damaged: {error}", help="prepare them again"
        ) from error
    return about


def checked(about: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """The files of each part, by the ends of their names, and where the sidecar has their checksums."""
    labels = (("labels", "labels_sha256"),) if "labels" in about else ()
    return (("bin", "sha256"), ("offsets", "offsets_sha256"), *labels)
