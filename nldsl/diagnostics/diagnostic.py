"""What a stage has to say about the text it was given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nldsl.source import Span

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Label:
    """A remark at a place: the words under a caret."""

    span: Span
    text: str


@dataclass(frozen=True)
class Edit:
    """Replace the text of `span` by `text`; offered as a fix."""

    span: Span
    text: str
    title: str


@dataclass(frozen=True)
class Diagnostic:
    """One finding: a stable code, where it is, why it is wrong and what to do.

    `message` is lower case, names in back-quotes, what was found and what was expected.
    """

    code: str
    message: str
    span: Span | None = None
    label: str = ""
    severity: Severity = "error"
    secondary: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: str = ""
    edit: Edit | None = None
