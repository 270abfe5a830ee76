"""The page of a code: what it means, a program that has it with the message it gives, one that has not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nldsl.diagnostics import Diagnostic, Entry, SpecError, catalogue, render_all, to_json
from nldsl.diagnostics.catalogue import STAGES
from nldsl.lowerings.forms import plan_program
from nldsl.review import check
from nldsl.source import SourceFile
from nldsl.spec.elaborate import examine


def findings_of(code: str, text: str) -> list[Diagnostic]:
    """What a program of the page of `code` has to say; of its plan too if the code is one of planning.

    Example:
        >>> [d.code for d in findings_of("NL0301", catalogue()["NL0301"].failing)]
        ['NL0301']
    """
    file = SourceFile("example.yaml" if catalogue()[code].form == "yaml" else "example.nl", text)
    found = check(file)
    if found or not code.startswith("NL07"):
        return found
    try:
        for program in examine(file).programs:
            plan_program(program)
    except SpecError as wrong:
        return list(wrong.diagnostics)
    return []


def code_page(code: str, *, color: bool = False) -> str:
    """The page of `code` as text; the messages are those its programs give at this moment.

    Example:
        >>> print(code_page("NL0413").splitlines()[0])
        NL0413: memory is never used
    """
    return "\n".join(_lines(code, catalogue()[code], color))


def _lines(code: str, entry: Entry, color: bool) -> Iterator[str]:
    yield _bold(f"{code}: {entry.title}", color)
    yield f"stage: {STAGES[code[2:4]]}"
    yield ""
    yield from _wrapped(entry.explanation)
    if entry.failing:
        yield from ("", _bold("A program that has it", color), "")
        yield from _indented(_short(entry.failing))
        yield ""
        yield from _indented(render_all(findings_of(code, entry.failing), color=color))
        yield from ("", _bold("The same without", color), "")
        yield from _indented(_short(entry.working))
    elif entry.failing_command:
        yield from ("", _bold("A command that gives it", color), "", f"  {entry.failing_command}")
        yield from ("", _bold("The same without", color), "", f"  {entry.working_command}")


def code_json(code: str) -> dict[str, Any]:
    """The page of `code` as data."""
    entry = catalogue()[code]
    found = findings_of(code, entry.failing) if entry.failing else []
    return {
        "code": code,
        "title": entry.title,
        "stage": STAGES[code[2:4]],
        "explanation": entry.explanation,
        "form": entry.form,
        "failing": entry.failing or None,
        "message": render_all(found) or None,
        "findings": [to_json(d) for d in found],
        "working": entry.working or None,
        "failing_command": entry.failing_command or None,
        "working_command": entry.working_command or None,
    }


def code_list(prefix: str, *, color: bool = False) -> str:
    """Every code that begins with `prefix`, by stage, a line each.

    Example:
        >>> code_list("NL050").splitlines()[1]
        '  NL0501  not a clock'
    """
    lines: list[str] = []
    stage = ""
    for code, entry in catalogue().items():
        if code.startswith(prefix):
            if code[2:4] != stage:
                stage = code[2:4]
                lines.append(_bold(f"{STAGES[stage]}", color))
            lines.append(f"  {code}  {entry.title}")
    return "\n".join(lines)


def _bold(text: str, color: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if color else text


def _indented(text: str) -> Iterator[str]:
    return (f"  {line}".rstrip() for line in text.rstrip("\n").split("\n"))


def _short(text: str) -> str:
    """Lines that go on and on are cut for the eye; the program itself is whole."""
    lines = text.replace("\0", "\N{SYMBOL FOR NULL}").split("\n")
    return "\n".join(line if len(line) <= 120 else f"{line[:100]} ... {line[-15:]}" for line in lines)


def _wrapped(text: str, width: int = 96) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}" if line else word
    yield line
