"""Documents of files and folders, one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from nldsl.train.errors import fault
from nldsl.train.files import discover, refusal

PARQUET, ROWS = ".parquet", 1024


def documents_of(paths: Iterable[str], field: str) -> Iterator[bytes]:
    """The documents of these paths in order, empty ones too."""
    for source in paths:
        for _, path in discover(source, also=frozenset({PARQUET})).files:
            if path.suffix.lower() == PARQUET:
                if not field:
                    raise fault(
                        "NL0956", f"`{path}` is a table", help="say which column is text: `--field NAME`"
                    )
                yield from rows_of(path, field)
            elif field and path.suffix.lower() == ".jsonl":
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


def rows_of(path: Path, field: str) -> Iterator[bytes]:
    """The text in the column `field` of every row of a parquet file.  Raises NL0956, NL0941."""
    parquet = required("pyarrow.parquet", "datasets", f"`{path}` is a parquet file")
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if field not in names:
                said = ", ".join(f"`{name}`" for name in names)
                raise fault("NL0956", f"{path} has no column `{field}`", help=f"it has {said}")
            number = 0
            for batch in file.iter_batches(columns=[field], batch_size=ROWS):
                for value in batch.column(0).to_pylist():
                    number += 1
                    if not isinstance(value, str):
                        raise fault("NL0956", f"{path}, row {number}: `{field}` is no text")
                    yield value.encode("utf-8", "surrogatepass")
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
