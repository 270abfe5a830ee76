"""Printing and reading are inverse: text, YAML and formatting keep the tree."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from nldsl.diagnostics import DiagnosticBag, render_all
from nldsl.source import SourceFile
from nldsl.syntax import format_text, parse, to_text, to_yaml
from nldsl.syntax.tree import Tree
from tests.property.syntax_strategies import corpus, trees

RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def read(name: str, text: str) -> Tree:
    bag = DiagnosticBag()
    found = parse(SourceFile(name, text), bag)
    assert not bag.items, f"{render_all(bag.items)}\n{text}"
    return found


def check(tree: Tree) -> None:
    text = to_text(tree)
    assert read("t.nl", text) == tree
    yaml = to_yaml(tree)
    again = read("t.yaml", yaml)
    assert again == tree
    assert to_text(again) == text
    formatted = format_text(SourceFile("t.nl", text))
    assert format_text(SourceFile("t.nl", formatted)) == formatted


@given(trees)
@settings(RELAXED, max_examples=60)
def test_generated_trees(tree: Tree) -> None:
    check(tree)


@pytest.mark.long
@given(trees)
@settings(RELAXED, max_examples=1000)
def test_many_generated_trees(tree: Tree) -> None:
    check(tree)


@pytest.mark.parametrize("name", [name for name in corpus() if name.endswith(".nl")])
def test_every_program(name: str) -> None:
    text = corpus()[name]
    tree = read(name, text)
    assert read(name, to_text(tree)) == tree
    assert read("t.yaml", to_yaml(tree)) == tree
    formatted = format_text(SourceFile(name, text))
    assert format_text(SourceFile(name, formatted)) == formatted
