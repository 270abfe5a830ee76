"""What commands share: consoles, JSON, reading a source, writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from nldsl.cli.guard import CommandError
from nldsl.cli.settings import SetOption, parse_settings
from nldsl.diagnostics import DiagnosticBag, SpecError
from nldsl.source import SourceFile
from nldsl.syntax import decode, read_source
from nldsl.syntax.limits import MAX_BYTES

if TYPE_CHECKING:
    import typer
    from rich.console import Console

__all__ = [
    "SetOption",
    "emit_text",
    "err",
    "json_text",
    "open_source",
    "out",
    "parse_settings",
    "print_json",
    "read_text",
    "refuse_given",
    "require_place",
    "spec_source",
    "write_atomic",
    "wrote",
]


_FILE_WIDTH = 160
"""How wide tables are that nobody looks at in a terminal."""


def refuse_given(
    context: typer.Context,
    names: Iterable[str],
    reason: str,
    help: str = "leave it out",  # noqa: A002
) -> None:
    """Raise NL1024 if one of these options is on the line, whatever its value: it would be ignored."""
    options = {p.name: max(p.opts, key=len) for p in context.command.params if p.name is not None}
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise CommandError("NL1024", f"`{options[name]}` {reason}", help)


def out() -> Console:
    """The console for results (stdout); wide where it is not a terminal."""
    return _console(sys.stdout)


def err() -> Console:
    """The console for diagnostics, progress and logs (stderr)."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    # Most commands print plain lines; loading `rich` takes as long as checking a small program.
    make: type[Console] = import_module("rich.console").Console
    return make(file=stream, highlight=False, width=None if stream.isatty() else _FILE_WIDTH)


def json_text(data: Any) -> str:
    """`data` as JSON; a number that is not finite is an error, never `NaN`."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def print_json(data: Any) -> None:
    """Print `data` as JSON on stdout."""
    sys.stdout.write(json_text(data))


def open_source(name: str, yaml: bool = False) -> SourceFile:
    """The text of file `name`, or of stdin for `-` (as YAML if `yaml`).

    Raises:
        SpecError: it cannot be read, is too large, or is not UTF-8.
    """
    bag = DiagnosticBag()
    if name == "-":
        label = "<stdin>.yaml" if yaml else "<stdin>"
        file = decode(label, sys.stdin.buffer.read(MAX_BYTES + 1), bag)
    else:
        file = read_source(name, bag)
    if file is None:
        raise SpecError(bag.items)
    return file


def read_text(name: str) -> str:
    """The text of file `name`, or of stdin for `-`; errors as `open_source`."""
    return open_source(name).text


def read_bytes(name: str) -> bytes:
    """The bytes of file `name`, or of stdin for `-`.  Raises `OSError`."""
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def spec_source(name: str) -> str:
    """What the loader takes: a name or path as it is, for `-` the text of stdin."""
    # The loader tells a text from a name by its line ends.
    return open_source("-").text + "\n" if name == "-" else name


def write_atomic(path: str | Path, content: str | bytes, inputs: Iterable[str | Path] = ()) -> None:
    """Write `content` to a temporary file beside `path`, then rename it onto `path`.

    A reader sees the old file or the new one, never half of one.

    Raises:
        CommandError: `path` is one of `inputs` (NL1014).
        OSError: the folder is missing or may not be written.
    """
    target = Path(path)
    for source in inputs:
        if target.exists() and Path(source).exists() and target.samefile(source):
            raise CommandError(
                "NL1014", f"`{path}` is the input, it would be overwritten", "choose another output"
            )
    require_place(path)
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


def require_place(path: str | Path) -> None:
    """Raise `OSError` if a file could not be written at `path`: to be asked before long work."""
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(2, "No such file or directory", str(target.parent))


def _copy_mode(target: Path, temporary: str) -> None:
    """Keep the mode of the file that is replaced; a new one gets what the umask leaves."""
    if target.exists():
        mode = target.stat().st_mode & 0o777
    else:
        mask = os.umask(0)
        os.umask(mask)
        mode = 0o666 & ~mask
    os.chmod(temporary, mode)


def wrote(path: str) -> None:
    """Say on stderr that `path` was written."""
    print(f"wrote {path}", file=sys.stderr)


def emit_text(content: str, output: str | None, inputs: Iterable[str | Path] = ()) -> None:
    """Write `content` to file `output`, or to stdout if there is none (or it is `-`)."""
    if output is None or output == "-":
        sys.stdout.write(content if content.endswith("\n") else content + "\n")
        return
    write_atomic(output, content, inputs)
    wrote(output)
