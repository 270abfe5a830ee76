"""Data prepared once for many runs: shards of bytes, the offsets of documents, and a sidecar about them.

The folder holds `train.bin` and `heldout.bin` (bytes), `train.offsets` and `heldout.offsets` (int64,
little endian: where documents begin, and the end) and `data.json`: tokenizer, type, counts, checksums.
A document is a text file, or the text in one line of a JSONL file.  Which are held out depends on their
own bytes only, so a document is on the same side whatever it is prepared with.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nldsl.train.checkpoint import digest_of, sync_file, sync_folder, write_text
from nldsl.train.errors import fault
from nldsl.train.files import discover, refusal

SIDECAR, FORMAT, VERSION = "data.json", "nldsl-data", 1
PARTS = ("train", "heldout")


@dataclass(frozen=True)
class Prepared:
    """Documents and bytes of both parts, and how many documents were left out as empty or equal."""

    folder: Path
    documents: int
    bytes: int
    heldout_documents: int
    heldout_bytes: int
    left_out: int


def prepare_documents(
    paths: Sequence[str], out: str | Path, *, field: str = "", packed: bool = False, heldout: float = 0.05
) -> Prepared:
    """Write the documents of files and folders as shards into the new folder `out`.

    `field` names what holds the text in the lines of `.jsonl` files (without it they are text like any
    other); `packed` declares that windows may cross from one document into the next; `heldout` is the
    share of documents held out.  The folder is there whole or not at all.  Errors: NL0951, NL0952 (paths),
    NL0956 (a line), NL0957 (`out` is not empty), NL0958 (too few documents), NL0981 (a bad share).
    """
    folder = Path(out)
    if not 0 < heldout < 1:
        raise fault("NL0981", f"`heldout` must lie between 0 and 1, found {heldout}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise fault("NL0957", f"`{folder}` is there already", help="give a new folder as `--out`")
    keys, left_out = survey(documents_of(paths, field))
    chosen = held_out(keys, heldout)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write_parts(partial, documents_of(paths, field), keys, chosen)
        about = describe(partial, packed, left_out)
        write_text(partial / SIDECAR, json.dumps(about, indent=2) + "\n")
        partial.replace(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    train, kept = about["parts"]["train"], about["parts"]["heldout"]
    return Prepared(folder, train["documents"], train["bytes"], kept["documents"], kept["bytes"], left_out)


def documents_of(paths: Iterable[str], field: str) -> Iterator[bytes]:
    """The documents of these paths in order, empty ones too."""
    for source in paths:
        for _, path in discover(source).files:
            if field and path.suffix.lower() == ".jsonl":
                yield from lines_of(path, field)
            else:
                yield read(path)


def read(path: Path) -> bytes:
    """The bytes of a file.  Raises NL0952."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise refusal(path, error) from error


def lines_of(path: Path, field: str) -> Iterator[bytes]:
    """The text under `field` of every line that is not blank.  Raises NL0956 for a line without one."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield text_of(line, field, f"{path}:{number}")
    except OSError as error:
        raise refusal(path, error) from error


def text_of(line: bytes, field: str, place: str) -> bytes:
    """The text under `field` of one line as UTF-8."""
    try:
        record: Any = json.loads(line)
    except ValueError as error:
        raise fault("NL0956", f"{place} is no JSON: {error}", help="one object per line") from error
    found = record.get(field) if isinstance(record, dict) else None
    if not isinstance(found, str):
        names = ", ".join(f"`{name}`" for name in record) if isinstance(record, dict) else "no fields"
        raise fault("NL0956", f"{place} has no text under `{field}`", help=f"it has {names or 'no fields'}")
    return found.encode("utf-8", "surrogatepass")


def survey(documents: Iterable[bytes]) -> tuple[dict[bytes, int], int]:
    """The hash of every document that is kept, with its number, and how many are empty or there already."""
    keys: dict[bytes, int] = {}
    number = -1
    for number, document in enumerate(documents):
        if document:
            keys.setdefault(sha256(document).digest(), number)
    return keys, number + 1 - len(keys)


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


def write_parts(folder: Path, documents: Iterable[bytes], keys: dict[bytes, int], chosen: set[bytes]) -> None:
    """Write the shards and their offsets.  Raises NL0952 if a document is not what it was a moment ago."""
    offsets: dict[str, list[int]] = {part: [0] for part in PARTS}
    files: dict[str, BinaryIO] = {part: (folder / f"{part}.bin").open("wb") for part in PARTS}
    try:
        for number, document in enumerate(documents):
            key = sha256(document).digest()
            if document and key not in keys:
                raise fault("NL0952", "a file changed while it was read", help="prepare again")
            if document and keys[key] == number:
                part = "heldout" if key in chosen else "train"
                files[part].write(document)
                offsets[part].append(offsets[part][-1] + len(document))
    finally:
        for file in files.values():
            file.close()
    for part in PARTS:
        np.array(offsets[part], dtype="<i8").tofile(folder / f"{part}.offsets")


def describe(folder: Path, packed: bool, left_out: int) -> dict[str, Any]:
    """The sidecar of shards that have been written, synced to the disk."""
    parts = {}
    for part in PARTS:
        shard, offsets = folder / f"{part}.bin", folder / f"{part}.offsets"
        sync_file(shard)
        sync_file(offsets)
        parts[part] = {
            "bytes": os.path.getsize(shard),
            "documents": os.path.getsize(offsets) // 8 - 1,
            "sha256": digest_of(shard),
            "offsets_sha256": digest_of(offsets),
        }
    return {
        "format": FORMAT,
        "version": VERSION,
        "tokenizer": "bytes",
        "dtype": "uint8",
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
        if (about["format"], about["version"]) != (FORMAT, VERSION):
            raise ValueError(f"format `{about['format']}`, version `{about['version']}`")
        kind = (about["tokenizer"], about["dtype"], about["documents"])
        if kind not in (("bytes", "uint8", "respected"), ("bytes", "uint8", "packed")):
            raise ValueError(f"tokenizer, type and documents are {kind}")
        for part in PARTS:
            found = about["parts"][part]
            for name, digest in (("bin", "sha256"), ("offsets", "offsets_sha256")):
                if digest_of(folder / f"{part}.{name}") != found[digest]:
                    raise ValueError(f"the checksum of `{part}.{name}` is wrong")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise fault(
            "NL0955", f"the prepared data in `{folder}` are damaged: {error}", help="prepare them again"
        ) from error
    return about
