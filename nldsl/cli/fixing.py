"""`nldsl check --fix`: the edits of findings, made in the file, round by round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nldsl.cli.common import write_atomic
from nldsl.cli.guard import CommandError
from nldsl.diagnostics import Diagnostic, DiagnosticBag, Edit, apply_edits, fix_of
from nldsl.source import SourceFile
from nldsl.syntax import read_source

_ROUNDS = 20
"""One repair may show the next mistake; this many times it is looked at again."""
Findings = Callable[[SourceFile], list[Diagnostic]]


@dataclass(frozen=True)
class _Layout:
    """What reading a file takes away from its bytes, so that a repair changes nothing else."""

    mark: bool
    line_end: str

    @staticmethod
    def of(data: bytes) -> _Layout:
        return _Layout(data.startswith(b"\xef\xbb\xbf"), "\r\n" if b"\r\n" in data else "\n")

    def bytes(self, text: str) -> bytes:
        data = text.replace("\n", self.line_end).encode("utf-8")
        return b"\xef\xbb\xbf" + data if self.mark else data


def repair(spec: str, findings: Findings) -> Iterator[str]:
    """Make the edits of the findings about file `spec`; a line for each that was made.

    A round of edits is kept if every finding it answers is gone and the text reads no worse; otherwise each
    edit is tried alone.  The file is replaced at the end, as a whole.

    Raises:
        CommandError: NL1022, `spec` is no file.
    """
    path = Path(spec)
    if spec == "-" or (not path.exists() and not path.suffix):
        raise CommandError("NL1022", f"`--fix` rewrites files; `{spec}` is none", "give the path of a file")
    file = read_source(path, DiagnosticBag())
    if file is None:
        return
    first, done = file.text, list[str]()
    found, failed = findings(file), set[tuple[str, str]]()
    for _ in range(_ROUNDS):
        edits = [(d, e) for d, e in _edits(found, file) if (d.code, d.message) not in failed]
        groups = [edits, *([pair] for pair in edits)] if len(edits) > 1 else [edits]
        if not edits:
            break
        better = next((a for g in groups if (a := _attempt(file, g, found, findings))), None)
        if better is None:
            failed |= {(d.code, d.message) for d, _ in edits}
            continue
        file, found = better.file, better.found
        done += better.words
    if file.text != first:
        write_atomic(path, _Layout.of(path.read_bytes()).bytes(file.text))
    yield from done


@dataclass(frozen=True)
class _Better:
    """A text after a round, what there is to say about it, and what was done."""

    file: SourceFile
    found: list[Diagnostic]
    words: list[str]


def _edits(found: list[Diagnostic], file: SourceFile) -> list[tuple[Diagnostic, Edit]]:
    """The edits that lie in this very text."""
    pairs = [(d, fix_of(d)) for d in found]
    return [
        (d, e)
        for d, e in pairs
        if e is not None and e.span.file.name == file.name and e.span.file.text == file.text
    ]


def _attempt(
    file: SourceFile, pairs: list[tuple[Diagnostic, Edit]], before: list[Diagnostic], findings: Findings
) -> _Better | None:
    """The text with edits made, or `None` if that would be no repair."""
    fixed = apply_edits(file.text, [e for _, e in pairs])
    text = SourceFile(file.name, fixed.text)
    after = findings(text)
    made = [(d, e) for d, e in pairs if e in fixed.made]
    old, new = (Counter((d.code, d.message) for d in found) for found in (before, after))
    gone = all(new[d.code, d.message] < old[d.code, d.message] for d, _ in made)
    if not gone or _unreadable(after) > _unreadable(before):
        return None
    return _Better(text, after, [f"fixed {e.span}: {d.code}, {_title(e)}" for d, e in made])


def _unreadable(found: list[Diagnostic]) -> int:
    return sum(d.code < "NL03" for d in found)


def _title(edit: Edit) -> str:
    old, new = edit.span.text, edit.text
    if not old:
        return f"inserted `{new.strip()}`"
    if not new.strip():
        return f"removed `{old.strip()}`"
    return f"changed `{old.strip()}` to `{new.strip()}`"
