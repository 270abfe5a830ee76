"""Printed modules mean what their nodes say, need no formatting, and cannot be broken out of."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from nldsl.emit import nodes as n
from nldsl.emit.imports import import_block
from nldsl.emit.printer import WIDTH, print_expression, print_module
from tests.property.emit_strategies import EXPRESSIONS, MODULES, TEXTS, to_ast, to_statements

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
RANDOM = settings(
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)


def dump(statements: list[ast.stmt]) -> str:
    """The structure, docstrings replaced: their text is compared apart from layout elsewhere."""
    tree = ast.fix_missing_locations(ast.Module(statements, []))
    for node in ast.walk(tree):
        body = node.body if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body[0].value = ast.Constant("docstring" if isinstance(body[0].value.value, str) else None)
    return ast.dump(tree)


def parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        return ast.parse(text)


@settings(RANDOM, max_examples=150)
@given(MODULES)
def test_text_means_the_nodes(module: n.Module) -> None:
    printed = parse(print_module(module)).body[1:]
    meant = [statement for node in module.body for statement in to_statements(node)]
    assert dump(printed) == dump(meant)


@settings(RANDOM, max_examples=150)
@given(EXPRESSIONS)
def test_expression_means_the_node(node: n.Expression) -> None:
    text = f"value = {print_expression(node)}\n"
    assert dump(parse(text).body) == dump([ast.Assign([ast.Name("value", ast.Store())], to_ast(node))])


def ruff(*arguments: str, folder: Path) -> str:
    command = [sys.executable, "-m", "ruff", *arguments, "--isolated", "--no-cache", str(folder)]
    # Where our own package lies beside the file, ruff would count it as first-party.
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    return (result.stdout + result.stderr if result.returncode else "")[:4000]


def test_formatter_leaves_modules_alone(tmp_path: Path) -> None:
    """Many modules, one run of ruff.  The seed is fixed: the claim is about our output, not about ruff."""
    texts: list[str] = []

    @seed(20250101)
    @settings(RANDOM, max_examples=250, phases=[Phase.generate])
    @given(MODULES)
    def collect(module: n.Module) -> None:
        texts.append(print_module(module))

    collect()
    for index, text in enumerate(texts):
        (tmp_path / f"module_{index}.py").write_text(text, encoding="utf-8", newline="")
    assert ruff("format", f"--line-length={WIDTH}", "--diff", folder=tmp_path) == ""


def test_import_rules_leave_import_blocks_alone(tmp_path: Path) -> None:
    names = {
        "nldsl.runtime.ops": {"l2norm", "MAXIMUM", "Layer", "conv10", "conv9", "Conv"},
        "typing": {"Any"},
        "torch": {"Tensor", "nn"},
        "collections.abc": {"Mapping"},
        "nldsl.runtime.module": {f"a_long_name_number_{i}" for i in range(12)},
    }
    text = print_module(n.Module("Imports.", import_block(names, modules=("torch", "math"))))
    (tmp_path / "module.py").write_text(text)
    assert ruff("check", "--select=I", f"--line-length={WIDTH}", folder=tmp_path) == ""
    assert ruff("format", f"--line-length={WIDTH}", "--diff", folder=tmp_path) == ""


@settings(RANDOM, max_examples=200)
@given(TEXTS, TEXTS, TEXTS)
def test_text_never_becomes_code(doc: str, comment: str, literal: str) -> None:
    function = n.FunctionDef("f", (), (n.Comment(comment), n.returns(literal)), doc)
    text = print_module(n.Module("Doc. " + doc, (n.Comment(comment), n.Blank(), function)))
    assert text.encode("utf-8").decode("utf-8") == text
    head, definition = parse(text).body
    assert isinstance(head, ast.Expr)
    assert isinstance(definition, ast.FunctionDef)
    *documented, last = definition.body
    assert all(isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) for s in documented)
    assert isinstance(last, ast.Return)
    assert ast.literal_eval(last.value) == literal
    assert not any(
        "coding:" in line or "coding=" in line for line in text.splitlines()[:2] if line[:1] == "#"
    )


@pytest.mark.parametrize(
    "text",
    ["", "a b", "a.b", "1a", "class", "None", "a\n", "ﬁ", "a;b", "a)", "é", "__import__('os')", "x\u0000"],
)
def test_hostile_names_are_refused(text: str) -> None:
    makers = (
        lambda: n.Var(text),
        lambda: n.Attribute(n.Var("x"), text),
        lambda: n.Parameter(text),
        lambda: n.FunctionDef(text, (), ()),
        lambda: n.ClassDef(text, (), ()),
        lambda: n.For((text,), n.Var("x"), ()),
        lambda: n.Import("module", (text,)),
        lambda: n.Invoke(n.Var("x"), (), ((text, n.Var("x")),)),
        lambda: n.Comprehension(n.Var("x"), (text,), n.Var("x")),
    )
    for make in makers:
        with pytest.raises(n.EmitError):
            make()
