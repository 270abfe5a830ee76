"""How tightly Python expressions bind, and what ruff's formatter asks about their shape."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType

from nldsl.emit.expressions import (
    Attribute,
    Comprehension,
    Conditional,
    DictOf,
    Expression,
    Invoke,
    Item,
    ListOf,
    Literal,
    Negate,
    Not,
    Operation,
    Starred,
    TupleOf,
    Var,
)

CONDITIONAL, OR, AND, NOT, COMPARE, UNION, ADD, MULTIPLY, UNARY, POWER, ATOM = range(1, 12)
COMPARATORS = frozenset(("<", "<=", ">", ">=", "==", "!=", "is", "is not", "in", "not in"))
BINDING: dict[str, int] = {
    **dict.fromkeys(COMPARATORS, COMPARE),
    **{"or": OR, "and": AND, "|": UNION, "+": ADD, "-": ADD, "*": MULTIPLY, "/": MULTIPLY, "//": MULTIPLY},
    **{"%": MULTIPLY, "@": MULTIPLY, "**": POWER},
}


def binding(node: Expression) -> int:
    """How tightly a node binds."""
    if isinstance(node, Conditional):
        return CONDITIONAL
    if isinstance(node, Operation):
        return BINDING[node.op]
    if isinstance(node, Not):
        return NOT
    return UNARY if isinstance(node, Negate) else ATOM


def operand_bindings(op: str) -> tuple[int, int]:
    """The least binding of the left and right operand that needs no parentheses."""
    level = BINDING[op]
    if op == "**":
        return ATOM, UNARY
    return (level + 1 if level == COMPARE else level), level + 1


@dataclass(frozen=True)
class Operand:
    """A node and whether it stands in parentheses."""

    node: Expression
    wrapped: bool


def operand(node: Expression, least: int) -> Operand:
    """`node` where a binding of `least` is needed."""
    return Operand(node, binding(node) < least)


def unary_operand(node: Negate | Not) -> Operand:
    """What `-` or `not` stands before; powers are parenthesised for the reader."""
    value = node.value
    power = isinstance(value, Operation) and value.op == "**"
    return Operand(value, power or binding(value) < (UNARY if isinstance(node, Negate) else NOT))


def flatten(node: Operation) -> tuple[list[Operand], list[str]]:
    """Operands and operators of nested operations, as far as no parentheses stand between."""
    operands: list[Operand] = []
    operators: list[str] = []
    left_least, right_least = operand_bindings(node.op)
    for position, part in enumerate((operand(node.left, left_least), operand(node.right, right_least))):
        if position:
            operators.append(node.op)
        if isinstance(part.node, Operation) and not part.wrapped and _same_kind(node.op, part.node.op):
            inner, inner_operators = flatten(part.node)
            operands += inner
            operators += inner_operators
        else:
            operands.append(part)
    return operands, operators


def _same_kind(outer: str, inner: str) -> bool:
    """`and` and `or` are lists of their own; comparisons and arithmetic are laid out together."""
    boolean = ("and", "or")
    return outer == inner if outer in boolean or inner in boolean else True


def is_fluent(node: Expression) -> bool:
    """Two or more attributes right behind a call or subscript: `a.b().c().d`."""
    count = 0
    while True:
        if isinstance(node, Attribute):
            part = operand(node.obj, ATOM)
            node = part.node
            if part.wrapped:
                return count + 1 >= 2
            count += isinstance(node, Invoke | Item)
        elif isinstance(node, Invoke | Item):
            part = operand(node.function if isinstance(node, Invoke) else node.obj, ATOM)
            node = part.node
            if part.wrapped:
                return count + 1 >= 2
        else:
            return count >= 2


def is_bracketed(node: Expression) -> bool:
    """Has brackets of its own, or ends with some."""
    return isinstance(node, TupleOf | ListOf | DictOf | Comprehension | Invoke | Item)


def is_non_empty_bracketed(node: Expression) -> bool:
    """Bracketed with something inside."""
    if isinstance(node, TupleOf | ListOf | DictOf):
        return bool(node.items)
    if isinstance(node, Invoke):
        return bool(node.args or node.kwargs)
    return isinstance(node, Comprehension | Item)


def needs(node: Expression) -> str:
    """How a node takes optional parentheses: `multiline`, `best_fit` or `never`."""
    if isinstance(node, Operation | Conditional) or is_fluent(node):
        return "multiline"
    if isinstance(node, Negate | Not | Attribute):
        part = _inner(node)
        return "never" if part.wrapped else needs(part.node)
    if isinstance(node, Invoke | Item):
        part = _inner(node)
        inner = "never" if part.wrapped else needs(part.node)
        return "never" if inner == "best_fit" else inner
    if isinstance(node, Var | Literal):
        return "best_fit"
    return needs(node.value) if isinstance(node, Starred) else "never"


def _inner(node: Negate | Not | Attribute | Invoke | Item) -> Operand:
    if isinstance(node, Negate | Not):
        return unary_operand(node)
    return operand(node.function if isinstance(node, Invoke) else node.obj, ATOM)


class Splits:
    """What an expression would be split at: decides whether it can go without optional parentheses."""

    def __init__(self, node: Expression) -> None:
        self.level = 99
        self.count = 0
        self.brackets = False
        self.first: Operand | None | str = None
        self.last: Operand | None = None
        self._visit(Operand(node, False))

    @property
    def can_omit(self) -> bool:
        """Whether breaking inside brackets is preferred to parentheses around all of it."""
        if not self.brackets or self.count > 1:
            return False
        if self.level >= ATOM:
            return True
        ends = (self.first, self.last)
        return any(
            isinstance(end, Operand) and (end.wrapped or is_non_empty_bracketed(end.node)) for end in ends
        )

    def _update(self, level: int, count: int = 1) -> None:
        if level < self.level:
            self.level, self.count = level, count
        elif level == self.level:
            self.count += count

    def _visit(self, part: Operand) -> None:
        self.last = part
        if part.wrapped:
            self.brackets = True
            self.first = self.first or part
        else:
            self._visit_node(part.node)

    def _visit_node(self, node: Expression) -> None:
        if isinstance(node, Operation):
            operands, operators = flatten(node)
            for op in operators:
                self._update(BINDING[op])
            for part in operands:
                self._visit(part)
        elif isinstance(node, Conditional):
            self._update(CONDITIONAL, 2)
            for inner in (node.yes, node.test):
                self._visit(operand(inner, OR))
            self._visit(operand(node.no, CONDITIONAL))
        elif isinstance(node, Negate | Not):
            self.first = self.first or "operator"
            self._visit(_inner(node))
        else:
            self._visit_atom(node)

    def _visit_atom(self, node: Expression) -> None:
        if isinstance(node, Attribute | Invoke | Item):
            part = _inner(node)
            self._visit(part)
            if isinstance(node, Attribute):
                if part.wrapped or is_bracketed(part.node):
                    self._update(ATOM)
            else:
                self.brackets = True
            self.last = Operand(node, False)
        elif is_bracketed(node):
            self.brackets = True
            self.first = self.first or Operand(node, False)
        else:
            self.first = self.first or Operand(node, False)


def is_simple_power_operand(node: Expression) -> bool:
    """Whether `**` hugs the operand: names, numbers, attributes of names, and their negation."""
    if isinstance(node, Negate):
        node = node.value
    if isinstance(node, Literal):
        return not isinstance(node.value, str | EllipsisType)
    return _is_dotted(node)


def is_simple_slice_part(node: Expression) -> bool:
    """Whether `:` hugs the part: names, literals and negated ones."""
    if isinstance(node, Negate | Not):
        node = node.value
    return isinstance(node, Var | Literal)


def _is_dotted(node: Expression) -> bool:
    while isinstance(node, Attribute):
        node = node.obj
    return isinstance(node, Var)
