"""A file on disk becomes a `SourceFile`, or a finding that says why not."""

from __future__ import annotations

from pathlib import Path

from nldsl.diagnostics import Diagnostic, DiagnosticBag
from nldsl.source import SourceFile
from nldsl.syntax.limits import MAX_BYTES


def read_source(path: str | Path, bag: DiagnosticBag) -> SourceFile | None:
    """The text of `path`, or `None` and a finding.

    At most 1 MiB of UTF-8 is read; a byte order mark is dropped and line ends become `\\n`.
    """
    name = str(path)
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not a valid one"
        help = "check the path; `nldsl list` names the programs of the library"
        gone = isinstance(error, FileNotFoundError)
        message = f"there is no program `{name}`" if gone else f"cannot read `{name}`: {reason.lower()}"
        bag.add(Diagnostic("NL0801", message, help=help))
        return None
    if len(data) > MAX_BYTES:
        message = f"`{name}` is larger than {MAX_BYTES} bytes"
        bag.add(Diagnostic("NL0802", message, help="split it into several files and join them with `use`"))
        return None
    return decode(name, data, bag)


def decode(name: str, data: bytes, bag: DiagnosticBag) -> SourceFile | None:
    """The text of `data`, or `None` and a finding if it is not UTF-8.

    Example:
        >>> decode("a.nl", b"x\\r\\ny", DiagnosticBag()).text
        'x\\ny'
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"`{name}` is not UTF-8 text: byte 0x{data[error.start]:02x} in line {line}"
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        help = "it looks like UTF-16; save the file as UTF-8" if wide else "save the file as UTF-8"
        bag.add(Diagnostic("NL0803", message, help=help))
        return None
    return SourceFile(name, text.replace("\r\n", "\n").replace("\r", "\n"))
