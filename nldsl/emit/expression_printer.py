"""Expressions as layout documents, in the style of ruff's formatter.

`level` says what stands around an expression: `None` nothing that may break; a `GroupId` optional
parentheses that appear only if that group breaks; `INSIDE` brackets of some kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nldsl.emit.expressions import (
    Attribute,
    Comprehension,
    Conditional,
    DictOf,
    EmitError,
    Expression,
    Invoke,
    Item,
    ListOf,
    Literal,
    Negate,
    Not,
    Operation,
    SliceItem,
    Starred,
    TupleOf,
    Var,
)
from nldsl.emit.layout import (
    SOFT,
    SPACE,
    BestFit,
    ConditionalGroup,
    Doc,
    FitsExpanded,
    Group,
    GroupId,
    IfBroken,
    Indent,
)
from nldsl.emit.literals import literal_text
from nldsl.emit.precedence import (
    ATOM,
    BINDING,
    CONDITIONAL,
    OR,
    UNARY,
    Operand,
    Splits,
    flatten,
    is_fluent,
    is_simple_power_operand,
    is_simple_slice_part,
    needs,
    operand,
    unary_operand,
)

INSIDE: Final = "inside"
Level = GroupId | str | None
FINAL_COMMA = IfBroken(",")


def statement_value(node: Expression, *, bare: bool = False) -> Doc:
    """An expression that is the whole value of a statement: parentheses appear if they help.

    `bare`: a tuple may go without its parentheses.
    """
    if bare and isinstance(node, TupleOf) and len(node.items) > 1:
        return _bare_tuple(node)
    need = needs(node)
    if need == "never":
        return expression(node, None)
    if need == "best_fit":
        return BestFit(expression(node, None))
    id = GroupId()
    if Splits(node).can_omit:
        content = expression(node, id)
        return Group((IfBroken("("), Indent((SOFT, content), id), SOFT, IfBroken(")")), id)
    return Group((IfBroken("("), Indent((SOFT, expression(node, INSIDE)), id), SOFT, IfBroken(")")), id)


def _bare_tuple(node: TupleOf) -> Doc:
    """A tuple whose parentheses appear only when it is broken over lines."""
    items = tuple(_item(item) for item in node.items)
    return Group((IfBroken("("), Indent((SOFT, comma_separated(items))), SOFT, IfBroken(")")))


def comma_separated(items: Iterable[Doc]) -> Doc:
    """Items one per line with a trailing comma if the enclosing group breaks."""
    result: list[Doc] = []
    for item in items:
        result += [",", SPACE] if result else []
        result.append(item)
    return (*result, FINAL_COMMA)


def bracketed(left: str, content: Doc, right: str, level: Level) -> Doc:
    """`left content right`, the content on indented lines if it does not fit."""
    inner = Group((left, Indent((SOFT, content)), SOFT, right))
    return FitsExpanded(inner, level) if isinstance(level, GroupId) else inner


def expression(node: Expression, level: Level) -> Doc:
    """The document of an expression without parentheses of its own."""
    if isinstance(node, Operation):
        return _grouped(_operation(*flatten(node), level), level)
    if isinstance(node, Conditional):
        return _grouped(_conditional(node, level), level)
    if isinstance(node, Negate | Not):
        return _unary(node, level)
    if isinstance(node, Attribute | Invoke | Item):
        return _chain(node, level)
    return _atom(node, level)


def _part(part: Operand, level: Level) -> Doc:
    if part.wrapped:
        return bracketed("(", expression(part.node, INSIDE), ")", level)
    return expression(part.node, level)


def _grouped(content: Doc, level: Level) -> Doc:
    if isinstance(level, GroupId):
        return ConditionalGroup(content, level)
    return Group(content) if level == INSIDE else content


def _break(level: Level, flat: str = " ") -> Doc:
    """A line break that only brackets, present or optional, make possible."""
    line = SPACE if flat else SOFT
    if isinstance(level, GroupId):
        return IfBroken(line, flat, level)
    return line if level == INSIDE else flat


def _operation(operands: list[Operand], operators: list[str], level: Level) -> Doc:
    """Break before the operators that bind least; what lies between them is a group of its own."""
    lowest = min(BINDING[op] for op in operators)
    cuts = [i for i, op in enumerate(operators) if BINDING[op] == lowest]
    bounds = [0, *(cut + 1 for cut in cuts), len(operands)]
    pieces: list[Doc] = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        if start:
            pieces += _operator(operators[start - 1], operands[start - 1], operands[start], level)
        if end - start == 1:
            pieces.append(_part(operands[start], level))
        else:
            inner = _operation(operands[start:end], operators[start : end - 1], level)
            pieces.append(_grouped(inner, level))
    return tuple(pieces)


def _operator(op: str, left: Operand, right: Operand, level: Level) -> list[Doc]:
    hugs = op == "**" and all(not p.wrapped and is_simple_power_operand(p.node) for p in (left, right))
    if not hugs:
        return [_break(level), op, " "]
    space: Doc = ""
    if level is not None:
        space = IfBroken(" ", "", level if isinstance(level, GroupId) else None)
    return [_break(level, ""), op, space]


def _conditional(node: Conditional, level: Level) -> Doc:
    rest: Doc = ("else ", _part(operand(node.no, CONDITIONAL), level))
    if isinstance(node.no, Conditional):
        rest = ("else ", _conditional(node.no, level))
    return (
        _part(operand(node.yes, OR), level),
        _break(level),
        "if ",
        _part(operand(node.test, OR), level),
        _break(level),
        rest,
    )


def _unary(node: Negate | Not, level: Level) -> Doc:
    return ("-" if isinstance(node, Negate) else "not ", _part(unary_operand(node), level))


def _chain(node: Attribute | Invoke | Item, level: Level) -> Doc:
    fluent = is_fluent(node)
    if not fluent:
        return _link(node, level, fluent)
    if isinstance(node, Invoke):
        return (Group(_callee(node.function, level, fluent)), _arguments(node, level))
    return Group(_link(node, level, fluent))


def _callee(node: Expression, level: Level, fluent: bool) -> Doc:
    part = operand(node, ATOM)
    if not part.wrapped and isinstance(node, Attribute | Invoke | Item):
        return _link(node, level, fluent)
    return _part(part, level)


def _link(node: Attribute | Invoke | Item, level: Level, fluent: bool) -> Doc:
    if isinstance(node, Invoke):
        return (_callee(node.function, level, fluent), _arguments(node, level))
    value = _callee(node.obj, level, fluent)
    if isinstance(node, Item):
        return (value, bracketed("[", _index(node.index), "]", level))
    behind_brackets = isinstance(node.obj, Invoke | Item) or operand(node.obj, ATOM).wrapped
    dot = (_break(level, ""), ".") if fluent and behind_brackets else "."
    return (value, dot, node.name)


def _item(node: Expression) -> Doc:
    """An argument or an item inside brackets: the only places of `*value`."""
    if isinstance(node, Starred):
        return ("*", _part(operand(node.value, UNARY), INSIDE))
    return expression(node, INSIDE)


def _arguments(node: Invoke, level: Level) -> Doc:
    if not node.args and not node.kwargs:
        return "()"
    only = node.args[0] if len(node.args) == 1 and not node.kwargs else None
    if isinstance(only, Comprehension) and only.form == "generator":
        return bracketed("(", Group(_clauses(only)), ")", level)
    arguments = [_item(argument) for argument in node.args]
    for key, value in node.kwargs:
        arguments.append((key if key == "**" else f"{key}=", expression(value, INSIDE)))
    return bracketed("(", Group(comma_separated(arguments)), ")", level)


def _index(node: Expression) -> Doc:
    if isinstance(node, TupleOf):
        return Group(comma_separated(_index_part(item) for item in node.items))
    if isinstance(node, Starred):
        raise EmitError("`*value` is no index of its own")
    return _index_part(node)


def _index_part(node: Expression) -> Doc:
    if not isinstance(node, SliceItem):
        return _item(node)
    parts = [part for part in (node.start, node.stop, node.step) if part is not None]
    space = "" if all(map(is_simple_slice_part, parts)) else " "
    result: list[Doc] = []
    if node.start is not None:
        result += [expression(node.start, INSIDE), space]
    result.append(":")
    if node.stop is not None:
        result += [space, expression(node.stop, INSIDE)]
    if node.step is not None:
        result += [space if node.stop is not None else "", ":", space, expression(node.step, INSIDE)]
    return tuple(result)


def _atom(node: Expression, level: Level) -> Doc:
    if isinstance(node, Var):
        return node.name
    if isinstance(node, Literal):
        return literal_text(node.value)
    if isinstance(node, Comprehension):
        left, right = {"list": ("[", "]"), "generator": ("(", ")"), "dict": ("{", "}")}[node.form]
        return bracketed(left, Group(_clauses(node)), right, level)
    return _container(node, level)


def _container(node: Expression, level: Level) -> Doc:
    if isinstance(node, DictOf):
        pairs = tuple(Group(_pair(key, value)) for key, value in node.items)
        return bracketed("{", comma_separated(pairs), "}", level) if pairs else "{}"
    if not isinstance(node, TupleOf | ListOf):
        raise EmitError(f"{type(node).__name__} cannot stand here")
    items = [_item(item) for item in node.items]
    left, right = ("(", ")") if isinstance(node, TupleOf) else ("[", "]")
    if not items:
        return left + right
    if isinstance(node, TupleOf) and len(items) == 1:
        return bracketed(left, (items[0], ","), right, level)
    return bracketed(left, comma_separated(items), right, level)


def _pair(key: Expression | None, value: Expression) -> Doc:
    if key is None:
        return ("**", _part(operand(value, UNARY), INSIDE))
    return (expression(key, INSIDE), ": ", expression(value, INSIDE))


def _clauses(node: Comprehension) -> Doc:
    element: Doc = Group(expression(node.element, INSIDE))
    if node.key is not None:
        element = (Group(expression(node.key, INSIDE)), ": ", element)
    source = _part(operand(node.iterable, OR), INSIDE)
    clauses: list[Doc] = ["for ", ", ".join(node.targets), " in ", source]
    if node.test is not None:
        clauses += [SPACE, "if ", _part(operand(node.test, OR), INSIDE)]
    return (element, SPACE, tuple(clauses))
