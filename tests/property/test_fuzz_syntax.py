"""Damaged programs give findings: never an exception, never a long wait, never a lost caret."""

from __future__ import annotations

import json
import time

import pytest

from nldsl.diagnostics import DiagnosticBag, SpecError, render_all, to_json
from nldsl.source import SourceFile
from nldsl.syntax import decode, format_text, parse, to_text, to_yaml
from tests.property.syntax_strategies import corpus, damage, damage_bytes


def survive(name: str, text: str) -> None:
    bag = DiagnosticBag()
    file = SourceFile(name, text)
    start = time.process_time()
    tree = parse(file, bag)
    for finding in bag.items:
        assert finding.span is None or 0 <= finding.span.start <= finding.span.end <= len(text)
        assert finding.help and finding.message
        json.dumps(to_json(finding))
    render_all(bag.items, color=True)
    if not bag.items:
        assert parse(SourceFile("t.yaml", to_yaml(tree)), DiagnosticBag()) == tree
        assert parse(SourceFile("t.nl", to_text(tree)), DiagnosticBag()) == tree
    try:
        formatted = format_text(file)
        assert format_text(SourceFile(name, formatted)) == formatted
    except SpecError:
        assert bag.errors
    assert time.process_time() - start < 2


def run(seeds: range) -> None:
    names = sorted(corpus())
    for seed in seeds:
        name = names[seed % len(names)]
        survive(name, damage(corpus()[name], seed, 1 + seed % 7))
        found = decode(name, damage_bytes(corpus()[name].encode(), seed, 1 + seed % 5), DiagnosticBag())
        if found is not None:
            survive(name, found.text)


def test_a_few_hundred_damaged_programs() -> None:
    run(range(300))


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_five_thousand_damaged_programs(part: int) -> None:
    run(range(1000 + 500 * part, 1500 + 500 * part))


@pytest.mark.parametrize(
    "text",
    [
        "block f(x) {\n" + "repeat 2 {\n" * 60 + "}\n" * 61,
        "if a { }\n" + "else if a { }\n" * 5000,
        "(" * 100_000,
        "{" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '"' * 1_000_000,
        "a" * 1_000_000,
        "every" + " " * 900_000 + "x\n  y",
        "write a" + " " * 900_000 + "(\n  y",
        "(\n" * 100_000,
        "#\n" * 200_000,
        "x = " + "-" * 10_000 + "1",
        "x = " + "1 + " * 10_000 + "1",
        "a: &a [*a, *a]\n" * 3,
        "a: " + "[" * 10_000,
        "a: " + "{a: " * 10_000,
        "a: [" + "x, " * 60_000,
        "? " * 50_000,
        "- " * 50_000,
        "&a " * 50_000,
        "a: |" + "\n b" * 50_000,
    ],
)
@pytest.mark.parametrize("name", ["t.nl", "t.yaml"])
def test_bombs(name: str, text: str) -> None:
    bag = DiagnosticBag()
    start = time.process_time()
    parse(SourceFile(name, text), bag)
    render_all(bag.items)
    assert bag.items or name == "t.nl"
    assert time.process_time() - start < 2
