"""Findings for other programs: a line each, annotations of GitHub, SARIF."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nldsl.diagnostics.catalogue import catalogue
from nldsl.diagnostics.diagnostic import Diagnostic
from nldsl.diagnostics.fixes import fix_of
from nldsl.source import Span

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_SARIF_LEVELS = {"error": "error", "warning": "warning", "note": "note"}
_GITHUB_LEVELS = {"error": "error", "warning": "warning", "note": "notice"}


def concise(finding: Diagnostic) -> str:
    """One line: place, severity, code, message, and what helps.

    Example:
        >>> concise(Diagnostic("NL0801", "no such file", help="check the path"))
        'error[NL0801] no such file (check the path)'
    """
    place = f"{finding.span}: " if finding.span is not None else ""
    fix = fix_of(finding)
    advice = fix.title if fix is not None else finding.help
    behind = f" ({advice})" if advice else ""
    return _one_line(f"{place}{finding.severity}[{finding.code}] {finding.message}{behind}")


def github(finding: Diagnostic) -> str:
    """A workflow command that GitHub shows as an annotation at the line.

    Example:
        >>> github(Diagnostic("NL0801", "100 % wrong"))
        '::error title=NL0801::100 %25 wrong'
    """
    properties: dict[str, object] = {}
    if finding.span is not None:
        end_line, end_column = finding.span.file.position(finding.span.end)
        properties = {"file": finding.span.file.name, "line": finding.span.line, "endLine": end_line}
        if end_line == finding.span.line:
            properties |= {"col": finding.span.column, "endColumn": max(end_column, finding.span.column + 1)}
    properties["title"] = finding.code
    shown = ",".join(f"{k}={_escape(str(v), property=True)}" for k, v in properties.items())
    words = [finding.message, *finding.notes, *([f"help: {finding.help}"] if finding.help else [])]
    return f"::{_GITHUB_LEVELS[finding.severity]} {shown}::{_escape(chr(10).join(words))}"


def _escape(text: str, property: bool = False) -> str:  # noqa: A002
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if property else text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def to_sarif(findings: Iterable[Diagnostic], version: str) -> dict[str, Any]:
    """A log in the format SARIF 2.1.0 (OASIS) with one run; columns count characters.

    Example:
        >>> log = to_sarif([Diagnostic("NL0801", "no such file")], "0.1.0")
        >>> log["runs"][0]["results"][0]["ruleId"]
        'NL0801'
    """
    found = list(findings)
    codes = sorted({f.code for f in found})
    driver = {
        "name": "nldsl",
        "semanticVersion": version,
        "rules": [_rule(code) for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(f, codes) for f in found],
    }
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, Any]:
    entry = catalogue().get(code)
    if entry is None:
        return {"id": code}
    return {
        "id": code,
        "shortDescription": {"text": entry.title},
        "fullDescription": {"text": entry.explanation},
        "help": {"text": f"`nldsl explain {code}` shows a program that has it and one that has not."},
    }


def _result(finding: Diagnostic, codes: Sequence[str]) -> dict[str, Any]:
    words = [finding.message, *finding.notes, *([f"help: {finding.help}"] if finding.help else [])]
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": codes.index(finding.code),
        "level": _SARIF_LEVELS[finding.severity],
        "message": {"text": "\n".join(words)},
        "locations": [_location(finding.span)] if finding.span is not None else [],
    }
    if finding.secondary:
        result["relatedLocations"] = [
            {"id": i, "message": {"text": label.text}, **_location(label.span)}
            for i, label in enumerate(finding.secondary)
        ]
    fix = fix_of(finding)
    if fix is not None:
        replacement = {"deletedRegion": _region(fix.span), "insertedContent": {"text": fix.text}}
        change = {"artifactLocation": _artifact(fix.span), "replacements": [replacement]}
        result["fixes"] = [{"description": {"text": fix.title}, "artifactChanges": [change]}]
    return result


def _location(span: Span) -> dict[str, Any]:
    return {"physicalLocation": {"artifactLocation": _artifact(span), "region": _region(span)}}


def _artifact(span: Span) -> dict[str, str]:
    """A relative path as a relative reference, an absolute one as a file address."""
    path = Path(span.file.name)
    if path.is_absolute():
        return {"uri": path.as_uri()}
    # A leading `./` keeps a colon in the first part of a path from being read as a scheme.
    uri = Path("/", path).as_uri().removeprefix("file:///")
    return {"uri": f"./{uri}" if ":" in uri.split("/", 1)[0] else uri}


def _region(span: Span) -> dict[str, int]:
    end_line, end_column = span.file.position(span.end)
    return {
        "startLine": span.line,
        "startColumn": span.column,
        "endLine": end_line,
        "endColumn": end_column,
    }
