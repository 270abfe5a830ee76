"""What commands share: consoles, JSON, reading a source, writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from nldsl.cli.guard import CommandError
from nldsl.cli.settings import SetOption, parse_settings

__all__ = ["SetOption", "emit_text", "err", "out", "parse_settings", "print_json", "read_text", "write_atomic"]

MAX_BYTES = 4_000_000


def out() -> Console:
    """The console for results (stdout)."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())


def err() -> Console:
    """The console for diagnostics, progress and logs (stderr)."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=not sys.stderr.isatty())


def print_json(data: Any) -> None:
    """Print `data` as JSON on stdout; a number that is not finite is an error, never `NaN`."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(name: str) -> str:
    """The text of file `name`, or of stdin for `-`.

    Raises:
        CommandError: not a regular file, not UTF-8, or too large.
        OSError: missing, a directory, unreadable.
    """
    if name == "-":
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        data = _read_file(Path(name))
    if len(data) > MAX_BYTES:
        raise CommandError("NL0908", f"`{name}` is larger than {MAX_BYTES} bytes", "split it and join the parts with `use`")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as wrong:
        raise CommandError("NL0907", f"`{name}` is not UTF-8 text (byte {wrong.start})", "save it as UTF-8") from wrong


def _read_file(path: Path) -> bytes:
    mode = path.stat()
    if path.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(path))
    if not path.is_file():
        raise CommandError("NL0909", f"`{path}` is not a regular file", "give a file, or `-` for stdin")
    if mode.st_size > MAX_BYTES:
        return b" " * (MAX_BYTES + 1)
    return path.read_bytes()


def write_atomic(path: str | Path, content: str | bytes, inputs: Iterable[str | Path] = ()) -> None:
    """Write `content` to a temporary file beside `path`, then rename it onto `path`.

    A reader sees the old file or the new one, never half of one.

    Raises:
        CommandError: `path` is one of `inputs` (NL0914).
        OSError: the folder is missing or may not be written.
    """
    target = Path(path)
    for source in inputs:
        if target.exists() and Path(source).exists() and target.samefile(source):
            raise CommandError("NL0914", f"`{path}` is the input, it would be overwritten", "choose another output")
    if target.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(2, "No such file or directory", str(target.parent))
    target = target.resolve()
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode("utf-8"))
        _copy_mode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _copy_mode(target: Path, temporary: str) -> None:
    """Keep the mode of the file that is replaced; a new one gets what the umask leaves."""
    if target.exists():
        mode = target.stat().st_mode & 0o777
    else:
        mask = os.umask(0)
        os.umask(mask)
        mode = 0o666 & ~mask
    os.chmod(temporary, mode)


def emit_text(content: str, output: str | None, inputs: Iterable[str | Path] = ()) -> None:
    """Write `content` to file `output`, or to stdout if there is none (or it is `-`)."""
    if output is None or output == "-":
        sys.stdout.write(content if content.endswith("\n") else content + "\n")
        return
    write_atomic(output, content, inputs)
    print(f"wrote {output}", file=sys.stderr)
