"""The server answers every question about every text: no input raises."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nldsl.server import (
    Document,
    RenameError,
    complete,
    definition,
    fixes,
    foldings,
    outline,
    references,
    rename,
)
from nldsl.server.completion import explain_proposal
from nldsl.server.help import signature_help
from nldsl.server.hover import hover
from nldsl.server.tokens import semantic_tokens
from nldsl.syntax import to_yaml, tree
from nldsl.syntax.scan import scan

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "specs").rglob("*.nl"))]
PIECES = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    '"',
    "\n",
    "<-",
    "=",
    ",",
    "#",
    "block f(x) {",
    "by ",
    "memory ",
    "W",
    "\0",
]
PIECES += [
    "\N{SNAKE}",
    "\r",
    "every 0 tokens",
    "1e999",
    "self",
    'use "',
    "variant a of a(",
    "train ",
    "init S",
    "'",
]


@st.composite
def mutated(draw: st.DrawFn) -> list[str]:
    """Versions of a text: words dropped, doubled, replaced, the text cut, pieces put in."""
    text = draw(st.sampled_from(TEXTS))
    versions = [text]
    for _ in range(draw(st.integers(1, 3))):
        tokens = list(scan(text)) or [None]
        token = tokens[draw(st.integers(0, len(tokens) - 1))]
        start, end = (token.start, token.end) if token is not None else (0, 0)
        kind = draw(st.sampled_from(["drop", "double", "replace", "cut", "insert"]))
        piece = draw(st.sampled_from(PIECES))
        change = {
            "drop": text[:start] + text[end:],
            "double": text[:end] + text[start:],
            "replace": text[:start] + piece + text[end:],
            "cut": text[:end],
            "insert": text[:start] + piece + text[start:],
        }
        text = change[kind]
        versions.append(text)
    return versions


def ask_everything(document: Document, offset: int) -> None:
    hover(document, offset)
    proposals, _ = complete(document, offset)
    for proposal in proposals[:5]:
        explain_proposal(document, proposal.about)
    signature_help(document, offset)
    definition(document, offset)
    references(document, offset)
    fixes(document, offset, offset + 3)
    try:
        rename(document, offset, "renamed")
    except RenameError:
        pass


@settings(max_examples=60, deadline=None)
@given(versions=mutated(), place=st.floats(0, 1))
def test_every_text_is_answered(versions: list[str], place: float) -> None:
    document = Document("a.nl", versions[0])
    for text in versions:
        document.update(text)
        for remark in document.remarks:
            assert 0 <= remark.start <= remark.end <= len(text)
        ask_everything(document, int(place * len(text)))
        for occurrence in document.names.all:
            assert text[occurrence.start : occurrence.end] == occurrence.symbol.name
        outline(document)
        foldings(document)
        semantic_tokens(document)


@settings(max_examples=15, deadline=None)
@given(versions=mutated(), place=st.floats(0, 1))
def test_what_was_kept_changes_nothing(versions: list[str], place: float) -> None:
    """A document that went through versions says what a fresh one says."""
    document = Document("a.nl", versions[0])
    for text in versions:
        document.update(text)
        kept = {(r.finding.code, r.start, r.end, r.finding.message) for r in document.remarks}
    fresh = Document("a.nl", versions[-1])
    assert kept == {(r.finding.code, r.start, r.end, r.finding.message) for r in fresh.remarks}


@settings(max_examples=15, deadline=None)
@given(source=st.sampled_from(TEXTS), cuts=st.tuples(st.floats(0, 1), st.floats(0, 1)), place=st.floats(0, 1))
def test_yaml_is_answered(source: str, cuts: tuple[float, float], place: float) -> None:
    text = to_yaml(_tree(source))
    a, b = sorted(int(c * len(text)) for c in cuts)
    text = text[:a] + text[b:]
    document = Document("a.yaml", text)
    assert isinstance(document.remarks, list)
    ask_everything(document, int(place * len(text)))
    outline(document)
    foldings(document)
    semantic_tokens(document)


def _tree(source: str) -> tree.Tree:
    from nldsl.diagnostics import DiagnosticBag
    from nldsl.source import SourceFile
    from nldsl.syntax import parse

    return parse(SourceFile("a.nl", source), DiagnosticBag())


@pytest.mark.parametrize(
    "text", ["", "\n", "#", "{", '"', "\0", "\N{SNAKE}" * 3, "use", "block", "S[", "a: b"]
)
@pytest.mark.parametrize("name", ["a.nl", "a.yaml"])
def test_small_texts(name: str, text: str) -> None:
    document = Document(name, text)
    assert isinstance(document.remarks, list)
    for offset in (0, 1, len(text), 99):
        ask_everything(document, offset)
