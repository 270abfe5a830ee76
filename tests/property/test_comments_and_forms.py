"""Comments survive formatting; both forms carry every kind of node; the library is formatted."""

from __future__ import annotations

import inspect
import random
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from nldsl.assets import specs_folder
from nldsl.diagnostics import DiagnosticBag
from nldsl.source import SourceFile
from nldsl.syntax import format_text, parse, to_text, to_yaml
from nldsl.syntax import tree as t
from nldsl.syntax.scan import scan
from tests.property.syntax_strategies import trees

RELAXED = settings(deadline=None, suppress_health_check=list(HealthCheck))
KINDS = sorted(
    (c for _, c in inspect.getmembers(t, inspect.isclass) if issubclass(c, t.Node) and c is not t.Node),
    key=lambda c: c.__name__,
)


def read(name: str, text: str) -> t.Tree:
    bag = DiagnosticBag()
    found = parse(SourceFile(name, text), bag)
    assert bag.items == [], text
    return found


def comments(text: str) -> list[str]:
    return sorted(text[w.start : w.end] for w in scan(text) if w.kind == "comment")


def with_comments(text: str, seed: int) -> str:
    """Comments at random line ends and on lines of their own."""
    dice = random.Random(seed)
    lines: list[str] = []
    for number, line in enumerate(text.split("\n")):
        if dice.random() < 0.3:
            lines.append(f"{' ' * dice.randrange(6)}# own {number}")
        if dice.random() < 0.2:
            lines.append("")
        lines.append(f"{line}{' ' * dice.randrange(3)}# tail {number}" if dice.random() < 0.4 else line)
    return "\n".join(lines)


def kinds_in(node: Any) -> set[type]:
    """Every class of node below `node`."""
    found = {type(node)} if isinstance(node, t.Node) else set()
    if isinstance(node, tuple):
        return {k for part in node for k in kinds_in(part)}
    if is_dataclass(node):
        for field in fields(node):
            if field.name != "span":
                found |= kinds_in(getattr(node, field.name))
    return found


@given(trees, st.integers(0, 10**6))
@settings(RELAXED, max_examples=60)
def test_formatting_keeps_comments_and_meaning(tree: t.Tree, dice: int) -> None:
    text = with_comments(to_text(tree), dice)
    if read("t.nl", text) != tree:
        return  # a line end inside of a long statement was commented: another program
    formatted = format_text(SourceFile("t.nl", text))
    assert comments(formatted) == comments(text)
    assert read("t.nl", formatted) == tree
    assert format_text(SourceFile("t.nl", formatted)) == formatted


@pytest.fixture(scope="module")
def smallest() -> dict[type, t.Tree]:
    """For every kind of node the shortest of some hundred generated programs that has one."""
    found: dict[type, tuple[int, t.Tree]] = {}

    @seed(0)
    @settings(RELAXED, max_examples=600, database=None, phases=[Phase.generate])
    @given(trees)
    def collect(tree: t.Tree) -> None:
        length = len(repr(tree))
        for kind in kinds_in(tree):
            if kind not in found or length < found[kind][0]:
                found[kind] = length, tree

    collect()
    return {kind: tree for kind, (_, tree) in found.items()}


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_every_kind_of_node_is_generated_and_converted(kind: type, smallest: dict[type, t.Tree]) -> None:
    """A program that has the node goes to YAML and back, and to text and back."""
    tree = smallest[kind]
    assert read("t.nl", to_text(tree)) == tree
    assert read("t.yaml", to_yaml(tree)) == tree
    assert to_yaml(read("t.yaml", to_yaml(tree))) == to_yaml(tree)


SHORT = st.builds(
    lambda args, edits, groups, settings: (args, edits, groups, settings),
    st.dictionaries(st.sampled_from(("dim", "depth", "heads")), st.integers(1, 4096), max_size=3),
    st.dictionaries(
        st.sampled_from(("cms.f[1]", "recall", "blocks.*.f")),
        st.tuples(st.integers(1, 4096), st.sampled_from(("tokens", "steps"))),
        max_size=3,
    ),
    st.dictionaries(
        st.sampled_from(("matrices", "norms", "rest")), st.sampled_from(("muon(lr = 0.02)", "sgd(lr = 1e-3)"))
    ),
    st.dictionaries(st.sampled_from(("clip", "truncate")), st.integers(1, 512)),
)


@given(SHORT)
@settings(RELAXED, max_examples=60)
def test_short_yaml_is_its_text_twin(parts: Any) -> None:
    args, edits, groups, extra = parts
    yaml = ["nldsl: 1", "variant big of hope:"]
    body = [f'level "{p}" every {n} {u}' for p, (n, u) in edits.items()]
    body += [f"{role} by {rule}" for role, rule in groups.items()] + [f"{k} {v}" for k, v in extra.items()]
    if args:
        yaml.append("  with: {" + ", ".join(f"{k}: {v}" for k, v in args.items()) + "}")
    if edits:
        yaml.append("  levels: {" + ", ".join(f'"{p}": every {n} {u}' for p, (n, u) in edits.items()) + "}")
    if groups or extra:
        yaml.append("  train: {" + ", ".join(f"{k}: {v}" for k, v in (groups | extra).items()) + "}")
    if not (args or body):
        yaml[-1] = "variant big of hope: {}"
    given = f"({', '.join(f'{k} = {v}' for k, v in args.items())})" if args else ""
    text = f"variant big of hope{given}" + (" {\n  " + "\n  ".join(body) + "\n}" if body else "")
    twin = read("t.nl", text)
    assert read("t.yaml", "\n".join(yaml) + "\n") == twin
    assert read("t.yaml", to_yaml(twin)) == twin


@pytest.mark.parametrize("path", sorted(specs_folder().rglob("*.nl")), ids=lambda p: p.stem)
def test_the_library_is_formatted(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert format_text(SourceFile(str(path), text)) == text
