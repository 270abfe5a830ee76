"""Modules as text that ruff's formatter (`WIDTH` columns, default style) leaves as it is."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from nldsl.emit.expression_printer import bracketed, comma_separated, expression, statement_value
from nldsl.emit.expressions import EmitError, Expression, Item, Operation, TupleOf
from nldsl.emit.layout import SOFT, Doc, Group, IfBroken, IfRoom, Indent, Printer
from nldsl.emit.literals import docstring_lines
from nldsl.emit.precedence import ADD, binding, needs
from nldsl.emit.statements import (
    Assign,
    AugmentedAssign,
    Blank,
    ClassDef,
    Comment,
    Delete,
    Evaluate,
    For,
    FunctionDef,
    If,
    Import,
    Module,
    Parameter,
    Raise,
    Return,
    Statement,
    With,
)

WIDTH = 110
"""Columns, as in our own sources: a standalone file holds emitted lines and lines of the runtime."""
INDENT = 4
NO_LIMIT = 1 << 30
Definition = FunctionDef | ClassDef


def print_module(module: Module) -> str:
    """The text of a module; the last line ends with a newline.

    Raises `EmitError` if a node stands where Python does not allow it.
    """
    lines = docstring_lines(module.doc, WIDTH)
    body = _body(module.body, 0)
    if body and body[0]:
        lines.append("")
    lines += body
    text = "\n".join(lines) + "\n"
    try:
        ast.parse(text)
    except (SyntaxError, ValueError) as problem:
        raise EmitError(f"the nodes do not make a Python module: {problem}") from problem
    return text


def print_imports(imports: Sequence[Statement]) -> str:
    """The text of an import block."""
    return "".join(f"{line}\n" for line in _body(imports, 0))


def print_expression(node: Expression) -> str:
    """The text of one expression as if it were a statement's value.

    Example:
        >>> from nldsl.emit.nodes import name
        >>> print_expression((name("a") + 1) * name("x")[:, name("t") : name("t") + 1])
        '(a + 1) * x[:, t : t + 1]'
    """
    return Printer(WIDTH).print(statement_value(node))


def _starts_definition(body: Sequence[Statement], index: int) -> bool:
    """Whether a definition stands at `index`, possibly below comments of its own."""
    while index < len(body) and isinstance(body[index], Comment):
        index += 1
    return index < len(body) and isinstance(body[index], Definition)


def _ends_with_definition(node: Statement | None) -> bool:
    """Whether the last line of a statement is the last line of a definition."""
    while isinstance(node, If | For | With):
        suite = node.orelse if isinstance(node, If) and node.orelse else node.body
        node = next((s for s in reversed(suite) if not isinstance(s, Blank)), None)
    return isinstance(node, Definition)


def _body(body: Sequence[Statement], depth: int, after: str = "") -> list[str]:
    """The lines of a suite with its blank lines; `after` says what it follows.

    `definition`: the head of a function or class; `doc`: its docstring; else another head.
    """
    lines: list[str] = []
    previous: Statement | None = None
    blank = False
    for index, statement in enumerate(body):
        if isinstance(statement, Blank):
            blank = True
            continue
        tight = previous is None and (after == "definition" or (isinstance(statement, Comment) and depth > 0))
        gap = 0 if tight else _gap(body, index, previous, depth, blank)
        lines += [""] * gap
        lines += _statement(statement, depth)
        previous, blank = statement, False
    return lines


def _gap(body: Sequence[Statement], index: int, previous: Statement | None, depth: int, blank: bool) -> int:
    around = 2 if depth == 0 else 1
    if _ends_with_definition(previous):
        return around
    if _starts_definition(body, index) and (previous is None or not isinstance(previous, Comment) or blank):
        return around
    if isinstance(previous, Import) and not isinstance(body[index], Import):
        return 1
    return int(blank and previous is not None)


def _statement(node: Statement, depth: int) -> list[str]:
    indent = depth * INDENT
    if isinstance(node, Comment):
        return [" " * indent + node.line]
    if isinstance(node, Definition):
        return _definition(node, depth)
    if isinstance(node, If):
        return _if(node, depth, "if ")
    if isinstance(node, For):
        head: Doc = ("for ", ", ".join(node.targets), " in ", statement_value(node.iterable), ":")
        return [*_lines(head, indent), *_suite(node.body, depth + 1)]
    if isinstance(node, With):
        alias = f" as {node.alias}" if node.alias else ""
        head = ("with ", statement_value(node.context), alias, ":")
        return [*_lines(head, indent), *_suite(node.body, depth + 1)]
    return _lines(_simple(node), indent)


def _lines(doc: Doc, indent: int) -> list[str]:
    return Printer(WIDTH).print(doc, indent).split("\n")


def _simple(node: Statement) -> Doc:
    if isinstance(node, Assign):
        return _assign(node)
    if isinstance(node, AugmentedAssign):
        return _to_target(node.target, f" {node.op}= ", node.value, bare=False)
    if isinstance(node, Return):
        return "return" if node.value is None else ("return ", statement_value(node.value, bare=True))
    if isinstance(node, Delete):
        names = comma_separated(list(node.names))
        return ("del ", Group((IfBroken("("), Indent((SOFT, names)), SOFT, IfBroken(")"))))
    if isinstance(node, Raise):
        return ("raise ", statement_value(node.value))
    if isinstance(node, Import):
        return _import(node)
    if not isinstance(node, Evaluate):
        raise EmitError(f"{type(node).__name__} is no statement")
    value = node.value
    arithmetic = isinstance(value, Operation) and binding(value) >= ADD
    return statement_value(value) if arithmetic else expression(value, None)


def _assign(node: Assign) -> Doc:
    if node.annotation is not None:
        head: Doc = (expression(node.targets[0], None), ": ", expression(node.annotation, None))
        return (head, " = ", statement_value(node.value, bare=True))
    *others, last = node.targets
    parts: list[Doc] = []
    for target in others:
        parts += [_target(target), " = "]
    return (*parts, _to_target(last, " = ", node.value, bare=True))


def _target(node: Expression) -> Doc:
    return statement_value(node, bare=True) if isinstance(node, TupleOf) else expression(node, None)


def _to_target(target: Expression, operator: str, value: Expression, *, bare: bool) -> Doc:
    """`target = value`; a value that cannot break goes on a line of its own before a target breaks."""
    if isinstance(target, Item | TupleOf) and needs(value) == "best_fit":
        flat = Printer(NO_LIMIT).print(_target(target)) + operator
        widest = max(len(flat) + 1, INDENT + len(Printer(NO_LIMIT).print(expression(value, None))))
        broken = (_target(target), operator, expression(value, None))
        return IfRoom((flat, statement_value(value)), broken, widest)
    return (_target(target), operator, statement_value(value, bare=bare))


def _import(node: Import) -> Doc:
    alias = f" as {node.alias}" if node.alias else ""
    if node.names is None:
        return f"import {node.module}{alias}"
    names = comma_separated([text + alias for text in node.names])
    return (f"from {node.module} import ", Group((IfBroken("("), Indent((SOFT, names)), SOFT, IfBroken(")"))))


def _if(node: If, depth: int, keyword: str) -> list[str]:
    indent = depth * INDENT
    lines = _lines((keyword, statement_value(node.test), ":"), indent)
    lines += _suite(node.body, depth + 1)
    if len(node.orelse) == 1 and isinstance(node.orelse[0], If):
        gap = [""] if _ends_with_definition(If(node.test, node.body)) else []
        return lines + gap + _if(node.orelse[0], depth, "elif ")
    if node.orelse:
        gap = [""] if _ends_with_definition(If(node.test, node.body)) else []
        lines += [*gap, " " * indent + "else:", *_suite(node.orelse, depth + 1)]
    return lines


def _suite(body: Sequence[Statement], depth: int, after: str = "", doc: str = "") -> list[str]:
    """The lines below a colon; `pass` where there would be no statement."""
    indent = " " * (depth * INDENT)
    head = [indent + line if line else "" for line in docstring_lines(doc, WIDTH - len(indent))]
    lines = _body(body, depth, "doc" if head else after)
    if not head and all(isinstance(statement, Blank | Comment) for statement in body):
        lines.append(indent + "pass")
    return head + lines


def _definition(node: Definition, depth: int) -> list[str]:
    indent = depth * INDENT
    lines: list[str] = []
    for decorator in node.decorators:
        lines += _lines(("@", statement_value(decorator)), indent)
    if isinstance(node, FunctionDef):
        lines += _lines(_signature(node), indent)
        return lines + _suite(node.body, depth + 1, "definition", node.doc)
    bases = comma_separated(tuple(expression(base, "inside") for base in node.bases))
    head: Doc = bracketed("(", Group(bases), ")", None) if node.bases else ""
    lines += _lines((f"class {node.name}", head, ":"), indent)
    if not docstring_lines(node.doc, WIDTH):
        return lines + _suite(node.body, depth + 1, "definition")
    doc = _suite((), depth + 1, doc=node.doc)
    body = _body(node.body, depth + 1, "definition")
    return lines + doc + ([""] if body else []) + body


def _signature(node: FunctionDef) -> Doc:
    parameters: list[Doc] = []
    keyword_only = False
    for parameter in node.parameters:
        if parameter.kind == "keyword" and not keyword_only:
            keyword_only = True
            parameters.append("*")
        parameters.append(_parameter(parameter))
    # A single parameter has no group of its own: it gets its comma whenever the brackets break.
    items = comma_separated(parameters)
    content = items if len(parameters) == 1 else Group(items)
    # Nor are the brackets a group: they break with the whole head, before the annotation behind them does.
    inside: Doc = ("(", Indent((SOFT, content)), SOFT, ")") if parameters else "()"
    returns: Doc = "" if node.returns is None else (" -> ", statement_value(node.returns))
    return Group((f"def {node.name}", inside, returns, ":"))


def _parameter(node: Parameter) -> Doc:
    result: list[Doc] = [node.name]
    if node.annotation is not None:
        result += [": ", expression(node.annotation, "inside")]
    if node.default is not None:
        result += [" = " if node.annotation is not None else "=", expression(node.default, "inside")]
    return tuple(result)
