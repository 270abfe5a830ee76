"""Documents of files and folders, one after the other, with their labels if they have some."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from nldsl.train.errors import fault
from nldsl.train.files import discover, refusal

PARQUET, ROWS = ".parquet", 1024
Label = str | int | tuple[str | int, ...] | None
"""Of a document: of all its tokens, or of each its own; negative numbers are none."""


class Document(NamedTuple):
    """A text, and what it is labelled."""

    text: bytes
    label: Label = None


def documents_of(paths: Iterable[str], field: str, label: str = "") -> Iterator[Document]:
    """The documents of these paths in order, empty ones too; `label` names what holds their labels."""
    for source in paths:
        for _, path in discover(source, also=frozenset({PARQUET})).files:
            if path.suffix.lower() == PARQUET:
                if not field:
                    raise fault(
                        "NL0956", f"`{path}` is a table", help="say which column is text: `--field NAME`"
                    )
                yield from rows_of(path, field, label)
            elif field and path.suffix.lower() == ".jsonl":
                yield from lines_of(path, field, label)
            elif label:
                raise fault(
                    "NL0956",
                    f"`{path}` has no labels: lines of `.jsonl` and rows of `.parquet` files can have them",
                    help="leave it out",
                )
            else:
                yield Document(read(path))


def read(path: Path) -> bytes:
    """The bytes of a file.  Raises NL0952."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise refusal(path, error) from error


def lines_of(path: Path, field: str, label: str) -> Iterator[Document]:
    """The text under `field` of every line that is not blank, and its label.  Raises NL0956."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield document_of(line, field, label, f"{path}:{number}")
    except OSError as error:
        raise refusal(path, error) from error


def document_of(line: bytes, field: str, label: str, place: str) -> Document:
    """The text under `field` of one line as UTF-8, and what is under `label`."""
    try:
        record: Any = json.loads(line)
    except ValueError as error:
        raise fault("NL0956", f"{place} is no JSON: {error}", help="one object per line") from error
    found = record.get(field) if isinstance(record, dict) else None
    names = ", ".join(f"`{name}`" for name in record) if isinstance(record, dict) else "no fields"
    if not isinstance(found, str):
        raise fault("NL0956", f"{place} has no text under `{field}`", help=f"it has {names or 'no fields'}")
    if label and label not in record:
        raise fault("NL0956", f"{place} has nothing as label under `{label}`", help=f"it has {names}")
    own = label_of(record.get(label), label, place) if label else None
    return Document(found.encode("utf-8", "surrogatepass"), own)


def label_of(found: Any, name: str, place: str) -> Label:
    """A label as it is written: a number from 0, a word, or a list of them.  Raises NL0956."""
    if isinstance(found, list) and all(isinstance(one, int | str) for one in found):
        return tuple(found)
    if isinstance(found, str) or (isinstance(found, int) and found >= 0):
        return found
    said = "nothing" if found is None else f"`{found}`"
    raise fault(
        "NL0956",
        f"{place} has {said} as label under `{name}`",
        help="a label is a word or a number from 0, of a whole document, or a list of one for every token, "
        "where -1 is none",
    )


def rows_of(path: Path, field: str, label: str) -> Iterator[Document]:
    """The text in the column `field` of every row of a parquet file, and its label.

    Raises NL0956, NL0941.
    """
    parquet = required("pyarrow.parquet", "datasets", f"`{path}` is a parquet file")
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = [name for name in (field, label) if name]
            for missing in (name for name in columns if name not in names):
                said = ", ".join(f"`{name}`" for name in names)
                raise fault("NL0956", f"{path} has no column `{missing}`", help=f"it has {said}")
            number = 0
            for batch in file.iter_batches(columns=columns, batch_size=ROWS):
                for row in batch.to_pylist():
                    number += 1
                    value, place = row[field], f"{path}, row {number}"
                    if not isinstance(value, str):
                        raise fault("NL0956", f"{place}: `{field}` is no text")
                    own = label_of(row[label], label, place) if label else None
                    yield Document(value.encode("utf-8", "surrogatepass"), own)
    except (OSError, ValueError) as error:  # what pyarrow raises is one of both
        raise fault("NL0952", f"cannot read `{path}`: {error}", help="is it a whole parquet file?") from error


def required(module: str, extra: str, why: str) -> Any:
    """An optional package.  Raises NL0941 with what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise fault(
            "NL0941",
            f"{why}, and the package `{package}` is not installed",
            help=f"pip install 'nldsl[{extra}]'",
        ) from error
