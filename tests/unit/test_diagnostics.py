"""Findings as text and JSON, and the catalogue of their codes."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from nldsl.diagnostics import (
    Diagnostic,
    Edit,
    Label,
    SpecError,
    catalogue,
    render,
    render_all,
    to_json,
)
from nldsl.source import SourceFile, Span

FILE = SourceFile(
    "my.nl",
    "block f(x) {\n  level c every 1 token { memory S = matrix() }\n" + "\n" * 11 + "  return S[q]\n}",
)
AT = FILE.text.index("S[q]")


def test_rendering() -> None:
    found = Diagnostic(
        "NL0412",
        "memory `S` is read but never written, and starts empty",
        Span(FILE, AT, AT + 4),
        label="always zero",
        notes=("an empty memory reads zero",),
        help="add a write such as `S[k] <- v by gd(lr = beta)`, or declare `init learned`",
    )
    assert render(found) == (
        "error[NL0412]: memory `S` is read but never written, and starts empty\n"
        "  --> my.nl:14:10\n"
        "   |\n"
        "14 |   return S[q]\n"
        "   |          ^^^^ always zero\n"
        "   |\n"
        "   = note: an empty memory reads zero\n"
        "   = help: add a write such as `S[k] <- v by gd(lr = beta)`, or declare `init learned`"
    )


def test_secondary_places_stand_in_the_order_of_the_lines_and_other_files_below() -> None:
    other = SourceFile("other.nl", "rule r(lr) { }")
    at = FILE.text.index("S =")
    found = Diagnostic(
        "NL0412",
        "two places",
        Span(FILE, AT, AT + 4),
        secondary=(Label(Span(FILE, at, at + 1), "declared here"), Label(Span(other, 5, 6), "and here")),
    )
    assert render(found) == (
        "error[NL0412]: two places\n"
        "  --> my.nl:14:10\n"
        "   |\n"
        " 2 |   level c every 1 token { memory S = matrix() }\n"
        "   |                                  - declared here\n"
        "...\n"
        "14 |   return S[q]\n"
        "   |          ^^^^\n"
        "  ::: other.nl:1:6\n"
        "   |\n"
        " 1 | rule r(lr) { }\n"
        "   |      - and here"
    )


@pytest.mark.parametrize(
    ("line", "under", "shown", "pad"),
    [
        ("\ty = x", "x", "    y = x", 8),
        ("a\ty = x", "x", "a   y = x", 8),
        ('s = "漢字" + x', "x", 's = "漢字" + x', 13),
        ("e\u0301 = x", "x", "e\u0301 = x", 4),
        ("\U0001f600 x", "x", "\U0001f600 x", 3),
        ("\x1b[31m x", "x", "\N{REPLACEMENT CHARACTER}[31m x", 6),
    ],
)
def test_carets_stand_below_what_the_terminal_shows(line: str, under: str, shown: str, pad: int) -> None:
    file = SourceFile("t.nl", line)
    at = line.index(under)
    rows = render(Diagnostic("NL0101", "m", Span(file, at, at + 1))).splitlines()
    assert rows[3] == f"1 | {shown}" and rows[4] == "  | " + " " * pad + "^"


def test_spans_over_lines_and_at_the_end_of_a_text() -> None:
    file = SourceFile("t.nl", "ab\ncd\n")
    assert render(Diagnostic("NL0101", "m", Span(file, 1, 5))).endswith("1 | ab\n  |  ^...")
    assert render(Diagnostic("NL0101", "m", Span(file, 6, 6))).endswith("3 |\n  | ^")
    assert render(Diagnostic("NL0101", "m", Span(SourceFile("e.nl", ""), 0, 0))).endswith("1 |\n  | ^")


def test_long_lines_are_cut_around_the_caret() -> None:
    file = SourceFile("t.nl", "a" * 5000 + "!" + "b" * 5000)
    rows = render(Diagnostic("NL0101", "m", Span(file, 5000, 5001))).splitlines()
    assert len(rows[3]) < 200 and rows[3][rows[4].index("^")] == "!"


def test_colours_only_when_asked_and_nothing_of_the_user_steers_the_terminal() -> None:
    found = Diagnostic("NL0101", "bad \x1b[2J name", severity="warning", help="h")
    assert "\x1b" not in render(found)
    assert "\x1b[2J" not in render(found, color=True) and "\x1b[1;33m" in render(found, color=True)
    assert render(found).startswith("warning[NL0101]: bad")
    assert render_all([found, found]).count("\n\n") == 1


def test_json() -> None:
    span = Span(FILE, AT, AT + 4)
    found = to_json(
        Diagnostic(
            "NL0412", "m", span, "l", "warning", (Label(span, "s"),), ("n",), "h", Edit(span, "x", "t")
        )
    )
    place = {"file": "my.nl", "line": 14, "column": 10, "end_line": 14, "end_column": 14}
    assert found == {
        "code": "NL0412",
        "severity": "warning",
        "message": "m",
        **place,
        "label": "l",
        "notes": ["n"],
        "help": "h",
        "edit": {**place, "text": "x", "title": "t"},
        "secondary": [{**place, "text": "s"}],
    }


# --- the catalogue ---------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[2]


def test_every_code_in_the_source_is_in_the_catalogue() -> None:
    used: dict[str, str] = {}
    for path in sorted((ROOT / "nldsl").rglob("*.py")):
        if "codes" not in path.parts:
            for code in re.findall(r"[\"'](NL\d{4})[\"']", path.read_text(encoding="utf-8")):
                used.setdefault(code, path.name)
    missing = {code: name for code, name in used.items() if code not in catalogue()}
    assert not missing


def test_codes_have_titles_and_reasons() -> None:
    for code, entry in catalogue().items():
        assert re.fullmatch(r"NL\d{4}", code) and entry.title and entry.explanation.endswith(".")
        assert bool(entry.failing) == bool(entry.working), code


def test_an_error_as_text_is_everything_that_was_found() -> None:
    found = [
        Diagnostic("NL0302", "no such function", Span(FILE, AT, AT + 1), "here", help="write it"),
        Diagnostic("NL0966", "another", notes=("because",), help="do that"),
    ]
    raised = SpecError(found)
    assert str(raised) == render_all(found) and "help: write it" in str(raised) and "do that" in str(raised)
    assert raised.summary.startswith("NL0302: no such function (my.nl:") and "\n" not in raised.summary
    assert repr(raised) == f"SpecError({raised.summary!r})"


def test_an_error_crosses_processes() -> None:
    raised = SpecError([Diagnostic("NL0302", "no such function", Span(FILE, AT, AT + 1), help="write it")])
    again = pickle.loads(pickle.dumps(raised))
    assert isinstance(again, SpecError) and str(again) == str(raised)
    assert again.diagnostics[0].code == "NL0302"
