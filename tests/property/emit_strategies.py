"""Random modules of emitted nodes, and the Python AST each of them means, built without the printer."""

from __future__ import annotations

import ast
import keyword
from typing import Any

from hypothesis import strategies as st

from nldsl.emit import nodes as n
from nldsl.emit.statements import printable

LETTERS = "abcdefghijklmnopqrstuvwxyz"
NAMES = st.one_of(
    st.sampled_from(["x", "y", "t", "self", "torch", "k_BTHD", "running", "new_state"]),
    st.text(LETTERS, min_size=1, max_size=28).filter(lambda s: not keyword.iskeyword(s)),
)
HOSTILE = st.sampled_from(
    [
        '"""; import os #',
        '"\n)\nimport os\n',
        "\\",
        '\\"',
        "'''",
        "\r\nimport os",
        "\u2028import os",
        "\u202e\u0000",
        "x\x0cy",
        '"quoted"',
        "fmt: off",
        "# fmt: skip",
        "-*- coding: utf-7 -*-",
        "type: ignore",
        "{x!r}",
        "%s",
        "\ud800",
        "ﬁ",
        "日本",
    ]
)
TEXTS = st.one_of(HOSTILE, st.text(max_size=30), st.text(LETTERS + " ", max_size=60))
NUMBERS = st.one_of(
    st.integers(-5, 200),
    st.sampled_from([0.5, 1e-6, 1e20, 3.4445, -1.5, 0.0, -0.0, float("inf"), 1e300]),
)
ARITHMETIC = ("+", "-", "*", "/", "//", "%", "@", "**")
OPERATORS = (*ARITHMETIC, "<", "<=", ">", ">=", "==", "!=", "is", "is not", "in", "not in", "and", "or")


def _callees(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Nodes that may be called or indexed without a warning of Python."""
    kinds = (n.Var, n.Attribute, n.Invoke, n.Item, n.Operation, n.Conditional)
    return inner.filter(lambda node: isinstance(node, kinds))


def _compound(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    parts = st.lists(inner, max_size=5).map(tuple)
    some = st.lists(inner, min_size=1, max_size=3).map(tuple)
    part = st.none() | inner
    index = inner.filter(lambda node: not isinstance(node, n.TupleOf)) | st.builds(
        n.SliceItem, part, part, part
    )
    subscript = index | st.lists(index, min_size=2, max_size=4).map(tuple).map(n.TupleOf)
    keywords = st.lists(st.tuples(NAMES, inner), max_size=3, unique_by=lambda p: p[0]).map(tuple)
    targets = st.lists(NAMES, min_size=1, max_size=2, unique=True).map(tuple)
    callee = _callees(inner)
    call = st.builds(n.Invoke, callee, parts, keywords)
    return st.one_of(
        st.builds(n.Operation, st.sampled_from(OPERATORS), inner, inner),
        st.builds(n.Operation, st.sampled_from(ARITHMETIC), inner, inner),
        call,
        st.builds(n.Invoke, st.builds(n.Attribute, callee, NAMES), some),
        st.builds(n.Attribute, callee, NAMES),
        st.builds(n.Item, callee, subscript),
        st.builds(n.Negate, inner),
        st.builds(n.Not, inner),
        st.builds(n.Conditional, inner, inner, inner),
        st.builds(n.TupleOf, parts),
        st.builds(n.ListOf, parts),
        st.builds(n.DictOf, st.lists(st.tuples(st.none() | inner, inner), max_size=3).map(tuple)),
        st.builds(n.Comprehension, inner, targets, inner, st.none() | inner),
        st.builds(n.Comprehension, inner, targets, inner, st.none() | inner, form=st.just("generator")),
        st.builds(n.Comprehension, inner, targets, inner, part, key=inner, form=st.just("dict")),
        st.builds(n.Invoke, callee, st.builds(n.Starred, inner).map(lambda s: (s,))),
    )


LEAVES = st.one_of(
    st.builds(n.Var, NAMES),
    st.builds(n.Var, NAMES),
    st.one_of(NUMBERS, TEXTS, st.booleans(), st.none(), st.just(...)).map(n.to_expression),
)
EXPRESSIONS = st.recursive(LEAVES, _compound, max_leaves=18)
TARGETS = st.one_of(
    st.builds(n.Var, NAMES),
    st.builds(n.Attribute, st.builds(n.Var, NAMES), NAMES),
    st.builds(n.Item, st.builds(n.Var, NAMES), LEAVES),
    st.lists(st.builds(n.Var, NAMES), min_size=2, max_size=3).map(tuple).map(n.TupleOf),
)
PLACES = TARGETS.filter(lambda node: not isinstance(node, n.TupleOf))
SIMPLE = st.one_of(
    st.builds(n.Assign, TARGETS.map(lambda t: (t,)), EXPRESSIONS),
    st.builds(n.Assign, TARGETS.map(lambda t: (t,)), EXPRESSIONS),
    st.builds(n.Assign, st.builds(n.Var, NAMES).map(lambda t: (t,)), EXPRESSIONS, LEAVES),
    st.builds(n.AugmentedAssign, PLACES, st.sampled_from(ARITHMETIC), EXPRESSIONS),
    st.builds(n.Return, st.none() | EXPRESSIONS),
    st.builds(n.Raise, EXPRESSIONS),
    st.builds(n.Evaluate, _callees(EXPRESSIONS)),
    st.builds(n.Comment, TEXTS),
    st.just(n.Blank()),
)


@st.composite
def _parameters(draw: st.DrawFn) -> tuple[n.Parameter, ...]:
    names = draw(st.lists(NAMES, max_size=6, unique=True))
    keyword_from = draw(st.integers(0, len(names)))
    default_from = draw(st.integers(0, keyword_from))
    result = []
    for i, text in enumerate(names):
        kind = "keyword" if i >= keyword_from else "positional"
        default = draw(LEAVES) if i >= default_from else None
        result.append(n.Parameter(text, draw(st.none() | LEAVES), default, kind))
    return tuple(result)


def _is_context(node: n.Expression) -> bool:
    return isinstance(node, n.Invoke | n.Var | n.Attribute)


def _suites(statement: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    body = st.lists(statement, min_size=1, max_size=4).map(tuple)
    targets = st.lists(NAMES, min_size=1, max_size=2, unique=True).map(tuple)
    orelse = st.just(()) | body
    decorators = st.lists(st.builds(n.Var, NAMES), max_size=1).map(tuple)
    bases = st.lists(st.builds(n.Var, NAMES), max_size=2).map(tuple)
    several = st.lists(st.builds(n.Var, NAMES), min_size=2, max_size=5).map(
        lambda names: n.TupleOf(tuple(names))
    )
    returns = st.none() | LEAVES | st.builds(n.Item, st.builds(n.Var, NAMES), several)
    return st.one_of(
        st.builds(n.If, EXPRESSIONS, body, orelse),
        st.builds(n.For, targets, EXPRESSIONS, body),
        st.builds(n.With, EXPRESSIONS.filter(_is_context), body, st.none() | NAMES),
        st.builds(n.FunctionDef, NAMES, _parameters(), body, TEXTS, returns, decorators),
        st.builds(n.ClassDef, NAMES, bases, body, TEXTS, decorators),
    )


STATEMENTS = st.recursive(SIMPLE, _suites, max_leaves=8)
IMPORTS = st.one_of(
    st.builds(n.Import, NAMES, st.none(), st.none() | NAMES),
    st.builds(n.Import, NAMES, st.lists(NAMES, min_size=1, max_size=6, unique=True).map(tuple)),
)
MODULES = st.builds(
    lambda doc, imports, body: n.Module("Doc. " + doc, (*imports, *body)),
    TEXTS,
    st.lists(IMPORTS, max_size=2),
    st.lists(STATEMENTS, max_size=6),
)

BINARY: dict[str, type[ast.operator]] = {
    "+": ast.Add,
    "-": ast.Sub,
    "*": ast.Mult,
    "/": ast.Div,
    "//": ast.FloorDiv,
    "%": ast.Mod,
    "@": ast.MatMult,
    "**": ast.Pow,
}
COMPARE: dict[str, type[ast.cmpop]] = {
    "<": ast.Lt,
    "<=": ast.LtE,
    ">": ast.Gt,
    ">=": ast.GtE,
    "==": ast.Eq,
    "!=": ast.NotEq,
    "is": ast.Is,
    "is not": ast.IsNot,
    "in": ast.In,
    "not in": ast.NotIn,
}


def _name(text: str, store: bool = False) -> ast.Name:
    return ast.Name(text, ast.Store() if store else ast.Load())


def _target(names: tuple[str, ...]) -> ast.expr:
    if len(names) == 1:
        return _name(names[0], True)
    return ast.Tuple([_name(text, True) for text in names], ast.Store())


def _maybe(node: n.Expression | None) -> ast.expr | None:
    return None if node is None else to_ast(node)


def _operation(node: n.Operation) -> ast.expr:
    left, right = to_ast(node.left), to_ast(node.right)
    if node.op in BINARY:
        return ast.BinOp(left, BINARY[node.op](), right)
    if node.op in COMPARE:
        return ast.Compare(left, [COMPARE[node.op]()], [right])
    op = ast.And() if node.op == "and" else ast.Or()
    flat = isinstance(left, ast.BoolOp) and type(left.op) is type(op)
    return ast.BoolOp(op, [*(left.values if flat else [left]), right])


def _comprehension(node: n.Comprehension) -> ast.expr:
    tests = [] if node.test is None else [to_ast(node.test)]
    clauses = [ast.comprehension(_target(node.targets), to_ast(node.iterable), tests, 0)]
    if node.form == "dict":
        assert node.key is not None
        return ast.DictComp(to_ast(node.key), to_ast(node.element), clauses)
    kind = ast.ListComp if node.form == "list" else ast.GeneratorExp
    return kind(to_ast(node.element), clauses)


def to_ast(node: Any, ctx: type[ast.expr_context] = ast.Load) -> ast.expr:
    """The AST of an expression."""
    match node:
        case n.Var(name):
            return ast.Name(name, ctx())
        case n.Literal(value):
            return ast.Constant(value)
        case n.Attribute(obj, name):
            return ast.Attribute(to_ast(obj), name, ctx())
        case n.Item(obj, index):
            return ast.Subscript(to_ast(obj), to_ast(index), ctx())
        case n.SliceItem(start, stop, step):
            return ast.Slice(_maybe(start), _maybe(stop), _maybe(step))
        case n.Starred(value):
            return ast.Starred(to_ast(value), ctx())
        case n.TupleOf(items):
            return ast.Tuple([to_ast(item, ctx) for item in items], ctx())
    return _read_only(node)


def _read_only(node: n.Expression) -> ast.expr:
    match node:
        case n.Invoke(function, args, kwargs):
            words = [ast.keyword(key, to_ast(value)) for key, value in kwargs]
            return ast.Call(to_ast(function), [to_ast(a) for a in args], words)
        case n.Operation():
            return _operation(node)
        case n.Negate(value):
            return ast.UnaryOp(ast.USub(), to_ast(value))
        case n.Not(value):
            return ast.UnaryOp(ast.Not(), to_ast(value))
        case n.Conditional(test, yes, no):
            return ast.IfExp(to_ast(test), to_ast(yes), to_ast(no))
        case n.ListOf(items):
            return ast.List([to_ast(item) for item in items], ast.Load())
        case n.DictOf(items):
            return ast.Dict([_maybe(key) for key, _ in items], [to_ast(value) for _, value in items])
    return _comprehension(node)


def _arguments(parameters: tuple[n.Parameter, ...]) -> ast.arguments:
    positional = [p for p in parameters if p.kind == "positional"]
    words = [p for p in parameters if p.kind == "keyword"]
    as_arg = lambda p: ast.arg(p.name, _maybe(p.annotation))  # noqa: E731
    defaults = [to_ast(p.default) for p in positional if p.default is not None]
    return ast.arguments(
        [], [as_arg(p) for p in positional], None, [as_arg(p) for p in words],
        [_maybe(p.default) for p in words], None, defaults,
    )  # fmt: skip


def _suite(body: tuple[Any, ...], doc: str = "") -> list[ast.stmt]:
    statements = [s for node in body for s in to_statements(node)]
    if printable(doc).strip():
        statements.insert(0, ast.Expr(ast.Constant(doc)))
    return statements or [ast.Pass()]


def to_statements(node: Any) -> list[ast.stmt]:
    """The AST of a statement; comments and blank lines have none."""
    match node:
        case n.Comment() | n.Blank():
            return []
        case n.Assign(targets, value, None):
            return [ast.Assign([to_ast(t, ast.Store) for t in targets], to_ast(value))]
        case n.Assign(targets, value, annotation):
            simple = int(isinstance(targets[0], n.Var))
            return [ast.AnnAssign(to_ast(targets[0], ast.Store), to_ast(annotation), to_ast(value), simple)]
        case n.AugmentedAssign(target, op, value):
            return [ast.AugAssign(to_ast(target, ast.Store), BINARY[op](), to_ast(value))]
        case n.Return(value):
            return [ast.Return(_maybe(value))]
        case n.Raise(value):
            return [ast.Raise(to_ast(value))]
        case n.Evaluate(value):
            return [ast.Expr(to_ast(value))]
        case n.Import(module, None, alias):
            return [ast.Import([ast.alias(module, alias)])]
        case n.Import(module, names):
            return [ast.ImportFrom(module, [ast.alias(text) for text in names], 0)]
    return [_compound_statement(node)]


def _compound_statement(node: Any) -> ast.stmt:
    match node:
        case n.If(test, body, orelse):
            return ast.If(to_ast(test), _suite(body), _suite(orelse) if orelse else [])
        case n.For(targets, iterable, body):
            return ast.For(_target(targets), to_ast(iterable), _suite(body), [])
        case n.With(context, body, alias):
            item = ast.withitem(to_ast(context), None if alias is None else _name(alias, True))
            return ast.With([item], _suite(body))
        case n.FunctionDef(name, parameters, body, doc, returns, decorators):
            marks = [to_ast(d) for d in decorators]
            return ast.FunctionDef(name, _arguments(parameters), _suite(body, doc), marks, _maybe(returns))
        case n.ClassDef(name, bases, body, doc, decorators):
            marks = [to_ast(d) for d in decorators]
            return ast.ClassDef(name, [to_ast(b) for b in bases], [], _suite(body, doc), marks)
    raise AssertionError(node)
