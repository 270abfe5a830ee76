# ruff: noqa: E501
"""The YAML form: the same tree, exact positions, and refusal of what YAML can do beyond it."""

from __future__ import annotations

import pytest

from nldsl.diagnostics import Diagnostic, DiagnosticBag, render_all
from nldsl.source import SourceFile
from nldsl.syntax import parse, tree
from tests.unit import language_snippets as snippets


def read(name: str, text: str) -> tuple[tree.Tree, list[Diagnostic]]:
    bag = DiagnosticBag()
    return parse(SourceFile(name, text), bag), bag.items


def good(text: str) -> tree.Tree:
    found, items = read("t.yaml", text)
    assert not items, render_all(items)
    return found


@pytest.mark.parametrize(
    ("yaml", "text"),
    [
        (snippets.YAML_BLOCK, snippets.YAML_BLOCK_TWIN),
        (snippets.YAML_VARIANT, snippets.YAML_VARIANT_TWIN),
        (
            "use: [a.nl, b.nl]\nmap f:\n  takes: [z]\n  body: return z @ z\n",
            'use "a.nl"\nuse "b.nl"\nmap f(z) { return z @ z }',
        ),
        (
            "block f(x):\n  takes: [n = 2]\n  memories: {A: softmax()}\n  body: |\n"
            "    A[x] <- x\n    if n > 1 {\n      x = 2 * x\n    }\n    return x\n",
            "block f(x, n = 2) { memory A = softmax(); A[x] <- x; if n > 1 { x = 2 * x }; return x }",
        ),
        (
            "rule r:\n  takes: [lr]\n  body:\n    - every: 10 steps\n      body: [W = W - lr]\n"
            "    - if: lr > 1\n      body: [W = 1]\n      else: [W = 2]\n",
            "rule r(lr) { every 10 steps { W = W - lr }; if lr > 1 { W = 1 } else { W = 2 } }",
        ),
        (
            "block f:\n  takes: [x, cs]\n  body:\n"
            "    - for: c, i in cs\n      body:\n        - level: f\n          every: c tokens\n"
            "          memories: {'F, G': mlp(4) per head}\n        - F minimizes task by gd(lr = 1e-3)\n"
            "    - repeat: 2\n      body:\n        - write: each of F, G\n          key: x\n          value: self[x]\n"
            "          by: gd(lr = 1)\n          over: 16 tokens\n          weighted: x\n          gradient: every 8 tokens\n"
            "          at: commit\n          retain: 0.5\n          toward: init\n          project: p\n"
            "        - write: F\n          terms:\n            - {key: x, value: 0, minimize: l2}\n"
            "            - {key: x, value: x}\n          retain: 0.5\n",
            "block f(x, cs) { for c, i in cs { level f every c tokens { memory F, G = mlp(4) per head }\n"
            "F minimizes task by gd(lr = 1e-3) }; repeat 2 { write each of F, G { [x] <- self[x] by gd(lr = 1) "
            "over 16 tokens weighted x gradient every 8 tokens at commit retain 0.5 toward init project p }\n"
            "write F { [x] <- 0 minimize l2; [x] <- x } retain 0.5 } }",
        ),
        (
            "train hope:\n  task: next_token(carry = \"exact\")\n  learn_generated: true\n  truncate: 256 tokens\n"
            "  levels:\n    p:\n      every: 1 step\n      groups:\n        matrices: muon(lr = 1)\n"
            "        '*.conv.*': sgd(lr = 1) every 10 steps\n        'head, \"x[1]\"': sgd(lr = 2)\n",
            'train hope { task next_token(carry = "exact"); learn_generated = true; truncate 256 tokens\n'
            'level p every 1 step { matrices by muon(lr = 1); "*.conv.*" by sgd(lr = 1) every 10 steps\n'
            'head, "x[1]" by sgd(lr = 2) } }',
        ),
        ("variant a of b:\nvariant c of b(1):\n  with: {chunks: [16, 64], on: no}\n",
         "variant a of b\nvariant c of b(1, chunks = [16, 64], on = no)"),
        ("items:\n  - use: a.nl\n  - block f: {body: [return 1]}\n  - use: b.nl\n",
         'use "a.nl"\nblock f() { return 1 }\nuse "b.nl"'),
        ("", ""),
    ],
)  # fmt: skip
def test_yaml_and_text_give_the_same_tree(yaml: str, text: str) -> None:
    expected, items = read("t.nl", text)
    assert not items, render_all(items)
    assert good(yaml) == expected


def test_scalars_follow_the_rules_of_the_language_not_those_of_yaml() -> None:
    (item,) = good("variant a of b:\n  with: {x: 1e-3, y: no, z: 010, w: '\"raw\"', v: 1}\n").items
    assert isinstance(item, tree.Variant)
    shown = [
        (type(a.value).__name__, getattr(a.value, "value", getattr(a.value, "id", ""))) for a in item.args
    ]
    assert shown == [("Number", 0.001), ("Name", "no"), ("Number", 10), ("String", "raw"), ("Number", 1)]


@pytest.mark.parametrize(
    "body",
    [
        "- y = linear(x ^ 2)",
        "- 'y = linear(x ^ 2)'",
        '- "y = \\"a\\" + x ^ 2"',
        "- y = linear(x,\n        x ^ 2)",
        "- |\n      z = 1\n      y = x ^ 2\n",
        "- >\n      y = f(x,\n      x ^ 2)\n",
        "- 'y = ''a'' ^ 2'",
    ],
)
def test_positions_inside_scalars_are_exact(body: str) -> None:
    text = f"block f:\n  takes: [x]\n  body:\n    {body}\n    - return x\n"
    _, (item, *rest) = read("t.yaml", text)
    assert item.span is not None and not rest
    at = text.index("^") if "''" not in body else text.index("''a") + 1
    assert item.code == "NL0102" and item.span.start == at


def test_five_faults_give_five_findings_and_the_rest_comes_through() -> None:
    found, items = read(
        "t.yaml",
        "block f:\n  takes: [x, 3]\n  boddy: 1\n  body:\n    - y = x ^ 2\n    - write: S\n      key: k\n"
        "    - repet: 2\n      body: []\n    - return x\nblock g: {takes: [x], body: [return x]}\n",
    )
    assert [d.code for d in items] == ["NL0101", "NL0205", "NL0102", "NL0207", "NL0205"]
    first, second = found.items
    assert isinstance(first, tree.Definition) and len(first.body) == 1 and isinstance(second, tree.Definition)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: &x 1\n", "NL0204"),
        ("a: *x\n", "NL0204"),
        ("a: !!python/object:os.system x\n", "NL0203"),
        ("! a: 1\n", "NL0203"),
        ("block f: {body: [return 1], body: [return 2]}\n", "NL0202"),
        ("block f: {body: [return 1]}\nblock f: {body: [return 2]}\n", "NL0202"),
        ("block f:\n\tbody: []\n", "NL0201"),
        ("block f: [\n", "NL0201"),
        ('block f: "\\UFFFFFFFF"\n', "NL0201"),
        ("block f: \x01\n", "NL0201"),
        ("block f: []\n", "NL0206"),
        ("[1]\n", "NL0206"),
        ("blok f: {}\n", "NL0205"),
        ("{[1]: 2}\n", "NL0206"),
        ("nldsl: 2\n", "NL0114"),
        ("nldsl: 1\n---\nnldsl: 1\n", "NL0209"),
        ("block f: {body: [{write: S, key: k}]}\n", "NL0207"),
        ("block f: {body: [{write: S, key: k, value: v, over: 3 steps}]}\n", "NL0206"),
        ("block f: {body: [{repeat: , body: []}]}\n", "NL0207"),
        ("block f: {body: [[1]]}\n", "NL0206"),
        ("block f: {takes: ['x; y']}\n", "NL0206"),
        ("block f: {takes: ['x }']}\n", "NL0105"),
        ("variant a of b: {with: {'x y': 1}}\n", "NL0206"),
        ("train h: {body: [{repeat: 2, body: []}]}\n", "NL0112"),
        ("block f: {levels: {c: {memories: {}}}}\n", "NL0207"),
    ],
)
def test_what_is_refused(text: str, code: str) -> None:
    _, items = read("t.yaml", text)
    assert [d.code for d in items] == [code], render_all(items)
    assert all(d.help for d in items)
