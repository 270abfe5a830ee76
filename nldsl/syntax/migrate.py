"""`migrate`: a file of an older version of the language in the current one, comments and layout kept.

A migration is a list of changes of spelling from one version to the next.  Changes are made word by word in
the text that was written, so nothing else moves, in both forms of the language.  The result is parsed before
it is handed out.  A new version adds one entry to `MIGRATIONS` and a test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from nldsl.diagnostics import Diagnostic, DiagnosticBag
from nldsl.source import SourceFile, Span
from nldsl.syntax.parse import is_yaml, parse
from nldsl.syntax.scan import Scanned, scan
from nldsl.syntax.versions import CURRENT, OLDEST, about_version


@dataclass(frozen=True)
class Respelling:
    """A word in the place of a clause (or a key of the YAML form) that is spelt differently now."""

    old: str
    new: str


@dataclass(frozen=True)
class Migration:
    """From version `before` to the next."""

    before: int
    what: str
    changes: tuple[Respelling, ...]


MIGRATIONS = (
    Migration(
        0,
        "drafts of the language spelt clauses in other ways",
        (
            Respelling("minimise", "minimize"),
            Respelling("minimises", "minimizes"),
            Respelling("decay", "retain"),
        ),
    ),
)
"""Every migration, oldest first."""

_TEXT_VERSION = re.compile(r"(?m)^[ \t]*nldsl[ \t]+(\w+)")
_YAML_VERSION = re.compile(r"(?m)^nldsl[ \t]*:[ \t]*(\w+)")
_ENDS = frozenset({"name", "number", "string", "close", "newline"})
_BEGINS = frozenset({"name", "number", "string", "open"})


@dataclass(frozen=True)
class Migrated:
    """The text in the current version, the version it was written in, and what was changed."""

    text: str
    before: int
    changes: tuple[str, ...]


def migrate(file: SourceFile, start: int | None = None) -> Migrated:
    """The text of `file` in the current version of the language.

    `start` is the version of a file that does not say; the current one if left out.

    Raises:
        SpecError: NL0114 for a version that is not known, or what the migrated file has wrong.

    Example:
        >>> step = "S[x] <- x  minimise l2  by gd(lr = 0.1)  # step"
        >>> block = "block f(x) {\\n level s every 1 token { memory S = matrix() }\\n %s\\n return S[x]\\n}"
        >>> new = migrate(SourceFile("a.nl", "nldsl 0\\n" + block % step))
        >>> new.changes, "minimize l2  by gd(lr = 0.1)  # step" in new.text
        (('`minimise` is spelt `minimize`',), True)
    """
    bag = DiagnosticBag()
    written = (_YAML_VERSION if is_yaml(file.name) else _TEXT_VERSION).search(file.text)
    before = _version(file, written, start, bag)
    bag.raise_if_errors()
    text, said = file.text, []
    for migration in MIGRATIONS:
        if migration.before >= before:
            text, changes = _apply(migration, text, is_yaml(file.name))
            said.extend(changes)
    if written is not None:
        text = _numbered(text, is_yaml(file.name))
    parse(SourceFile(file.name, text), bag)
    bag.raise_if_errors()
    return Migrated(text, before, tuple(dict.fromkeys(said)))


def _version(file: SourceFile, written: re.Match[str] | None, start: int | None, bag: DiagnosticBag) -> int:
    """The version to start from; reports one that is not known."""
    number = written.group(1) if written else str(CURRENT if start is None else start)
    if number.isdigit() and OLDEST <= int(number) <= CURRENT:
        return int(number)
    message, help = about_version(number, "nldsl: 1" if is_yaml(file.name) else "nldsl 1") or ("", "")
    span = Span(file, *written.span(1)) if written else None
    bag.add(Diagnostic("NL0114", message, span, help=help))
    return CURRENT


def _numbered(text: str, in_yaml: bool) -> str:
    """The text with the current number in its version line."""
    found = (_YAML_VERSION if in_yaml else _TEXT_VERSION).search(text)
    return text if found is None else f"{text[: found.start(1)]}{CURRENT}{text[found.end(1) :]}"


def _apply(migration: Migration, text: str, in_yaml: bool) -> tuple[str, list[str]]:
    """The text one version later, and what was changed."""
    words = {change.old: change.new for change in migration.changes}
    places = sorted(_in_yaml(text, words) if in_yaml else _in_text(text, words), reverse=True)
    said = []
    for start, end in places:
        old = text[start:end]
        text = f"{text[:start]}{words[old]}{text[end:]}"
        said.append(f"`{old}` is spelt `{words[old]}`")
    return text, said[::-1]


def _in_text(text: str, words: dict[str, str], base: int = 0) -> Iterator[tuple[int, int]]:
    """Where one of `words` stands between the end of an expression and the beginning of another.

    Elsewhere (`decay = 0.1`, `x + decay`) it is a name.
    """
    tokens = [t for t in scan(text) if t.kind != "comment"]
    for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if (
            token.kind == "name"
            and text[token.start : token.end] in words
            and _is_clause(before, token, after)
        ):
            yield base + token.start, base + token.end


def _is_clause(before: Scanned, token: Scanned, after: Scanned) -> bool:
    call = after.kind == "open" and after.start == token.end
    return before.kind in _ENDS and after.kind in _BEGINS and not call


def _in_yaml(text: str, words: dict[str, str]) -> Iterator[tuple[int, int]]:
    """Keys that are one of `words`, and clauses inside of scalars."""
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.ScalarEvent) and event.start_mark and event.end_mark:
                start, end = event.start_mark.index, event.end_mark.index
                inside = text[start:end]
                if inside in words and text[end:].lstrip(" \t").startswith(":"):
                    yield start, end
                else:
                    yield from _in_text(inside.strip("\"'"), words, start + (inside[:1] in ("'", '"')))
    except yaml.YAMLError:
        return  # the parser says what is wrong
