"""Typed nodes for the Python expressions the compiler emits.

Lowerings build emitted code from these nodes, never from text.  Names are checked and literals are
values, so nothing a spec author writes can become code.  Operators build nodes:
`name("a") @ name("b")`, `-x`, `x[:, t : t + 1]`, `x.attr("size")(0)`.  Python numbers, strings,
`None`, `...`, tuples, lists and dictionaries are accepted wherever an expression is.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import Literal as OneOf
from typing import TypeAlias, get_args

Operator = OneOf[
    "|", "+", "-", "*", "/", "//", "%", "@", "**",
    "<", "<=", ">", ">=", "==", "!=", "is", "is not", "in", "not in",
    "and", "or",
]  # fmt: skip
OPERATORS: frozenset[str] = frozenset(get_args(Operator))


class EmitError(ValueError):
    """A node that cannot be printed as Python: a mistake of the compiler, never of a spec."""


def check_name(text: str) -> str:
    """`text`, if it is an ASCII identifier and no keyword; otherwise `EmitError`.

    ASCII only, because Python folds other letters (NFKC) and two names could become one.

    Example:
        >>> check_name("w_1")
        'w_1'
    """
    if not isinstance(text, str) or not text.isascii() or not text.isidentifier() or keyword.iskeyword(text):
        raise EmitError(f"expected a Python name, found {text!r}")
    return text


class Expression:
    """Base of all expression nodes; its operators build larger nodes.

    `==` stays structural equality of nodes: write comparisons of *emitted* values as
    `a.equals(b)`, `a.is_(None)`, `compare("<=", a, b)`.
    """

    __iter__ = None
    __contains__ = None

    def __bool__(self) -> bool:
        raise EmitError("an emitted expression has no truth value here; use `both`, `either` or `compare`")

    def attr(self, *names: str) -> Expression:
        """`self.first.second...`; a name may itself be dotted."""
        result: Expression = self
        for part in ".".join(names).split("."):
            result = Attribute(result, part)
        return result

    def method(self, attribute: str, /, *args: Like, **kwargs: Like) -> Invoke:
        """`self.attribute(args, kwargs)`."""
        return self.attr(attribute)(*args, **kwargs)

    def __call__(self, /, *args: Like, **kwargs: Like) -> Invoke:
        return Invoke(self, tuple(map(to_expression, args)), _keywords(kwargs))

    def __getitem__(self, index: IndexLike) -> Item:
        if isinstance(index, tuple):
            return Item(self, TupleOf(tuple(map(_to_index, index))))
        return Item(self, _to_index(index))

    def __add__(self, other: Like) -> Operation:
        return compare("+", self, other)

    def __radd__(self, other: Like) -> Operation:
        return compare("+", other, self)

    def __sub__(self, other: Like) -> Operation:
        return compare("-", self, other)

    def __rsub__(self, other: Like) -> Operation:
        return compare("-", other, self)

    def __mul__(self, other: Like) -> Operation:
        return compare("*", self, other)

    def __rmul__(self, other: Like) -> Operation:
        return compare("*", other, self)

    def __truediv__(self, other: Like) -> Operation:
        return compare("/", self, other)

    def __rtruediv__(self, other: Like) -> Operation:
        return compare("/", other, self)

    def __floordiv__(self, other: Like) -> Operation:
        return compare("//", self, other)

    def __mod__(self, other: Like) -> Operation:
        return compare("%", self, other)

    def __matmul__(self, other: Like) -> Operation:
        return compare("@", self, other)

    def __pow__(self, other: Like) -> Operation:
        return compare("**", self, other)

    def __lt__(self, other: Like) -> Operation:
        return compare("<", self, other)

    def __le__(self, other: Like) -> Operation:
        return compare("<=", self, other)

    def __gt__(self, other: Like) -> Operation:
        return compare(">", self, other)

    def __ge__(self, other: Like) -> Operation:
        return compare(">=", self, other)

    def __neg__(self) -> Negate:
        return Negate(self)

    def equals(self, other: Like) -> Operation:
        """`self == other`."""
        return compare("==", self, other)

    def differs(self, other: Like) -> Operation:
        """`self != other`."""
        return compare("!=", self, other)

    def is_(self, other: Like) -> Operation:
        """`self is other`."""
        return compare("is", self, other)

    def is_not(self, other: Like) -> Operation:
        """`self is not other`."""
        return compare("is not", self, other)


Plain: TypeAlias = int | float | str | EllipsisType | None
Like: TypeAlias = "Expression | Plain | tuple[Like, ...] | list[Like] | Mapping[str, Like]"
IndexLike: TypeAlias = "Like | slice | tuple[Like | slice, ...]"


@dataclass(frozen=True)
class Var(Expression):
    """A name."""

    name: str

    def __post_init__(self) -> None:
        check_name(self.name)


@dataclass(frozen=True)
class Literal(Expression):
    """A finite number that is not negative, a string, a truth value, `None` or `...`.

    `to_expression(-1)` and `to_expression(inf)` give the nodes for the others.
    """

    value: Plain

    def __post_init__(self) -> None:
        if type(self.value) not in (int, float, bool, str, EllipsisType, type(None)):
            raise EmitError(f"no literal for a value of type {type(self.value).__name__}")
        if isinstance(self.value, int | float) and (_negative(self.value) or not self.value < math.inf):
            raise EmitError(f"expected a finite number that is not negative, found {self.value!r}")

    def __eq__(self, other: object) -> bool:
        """Equal value *and* type: `1`, `1.0` and `True` are three literals."""
        return isinstance(other, Literal) and (type(self.value), self.value) == (
            type(other.value),
            other.value,
        )

    def __hash__(self) -> int:
        return hash((type(self.value), self.value))


@dataclass(frozen=True)
class Attribute(Expression):
    """`obj.name`."""

    obj: Expression
    name: str

    def __post_init__(self) -> None:
        check_name(self.name)
        if isinstance(self.obj, Literal) and not isinstance(self.obj.value, str):
            raise EmitError("no attribute of a number")


@dataclass(frozen=True)
class SliceItem(Expression):
    """`start : stop : step` inside a subscript; every part may be missing."""

    start: Expression | None = None
    stop: Expression | None = None
    step: Expression | None = None


@dataclass(frozen=True)
class Item(Expression):
    """`obj[index]`; a `TupleOf` index is written without parentheses."""

    obj: Expression
    index: Expression

    def __post_init__(self) -> None:
        if isinstance(self.index, TupleOf) and len(self.index.items) < 2:
            raise EmitError("a tuple index needs two parts")


@dataclass(frozen=True)
class Starred(Expression):
    """`*value` among the arguments of a call, the items of a list or tuple, or targets."""

    value: Expression


@dataclass(frozen=True)
class Invoke(Expression):
    """`function(args, kwargs)`; a keyword `**` unpacks a mapping (use `unpack`)."""

    function: Expression
    args: tuple[Expression, ...] = ()
    kwargs: tuple[tuple[str, Expression], ...] = ()

    def __post_init__(self) -> None:
        names = [key for key, _ in self.kwargs]
        for key in names:
            if key != "**":
                check_name(key)
        if len(set(names)) != len(names):
            raise EmitError("a keyword is given twice")

    def unpack(self, mapping: Like) -> Invoke:
        """The same call with `**mapping` at its end."""
        return Invoke(self.function, self.args, (*self.kwargs, ("**", to_expression(mapping))))


@dataclass(frozen=True)
class Operation(Expression):
    """`left op right`: arithmetic, a comparison (never chained), `and` or `or`."""

    op: Operator
    left: Expression
    right: Expression

    def __post_init__(self) -> None:
        if self.op not in OPERATORS:
            raise EmitError(f"unknown operator {self.op!r}")


@dataclass(frozen=True)
class Negate(Expression):
    """`-value`."""

    value: Expression


@dataclass(frozen=True)
class Not(Expression):
    """`not value`."""

    value: Expression


@dataclass(frozen=True)
class Conditional(Expression):
    """`yes if test else no`."""

    test: Expression
    yes: Expression
    no: Expression


@dataclass(frozen=True)
class TupleOf(Expression):
    """`(a, b)`."""

    items: tuple[Expression, ...]


@dataclass(frozen=True)
class ListOf(Expression):
    """`[a, b]`."""

    items: tuple[Expression, ...]


@dataclass(frozen=True)
class DictOf(Expression):
    """`{key: value}`; a key of `None` unpacks: `{**value}`."""

    items: tuple[tuple[Expression | None, Expression], ...]


@dataclass(frozen=True)
class Comprehension(Expression):
    """`[element for targets in iterable if test]`, as a list, generator, or (with `key`) a dict."""

    element: Expression
    targets: tuple[str, ...]
    iterable: Expression
    test: Expression | None = None
    key: Expression | None = None
    form: OneOf["list", "generator", "dict"] = "list"

    def __post_init__(self) -> None:
        for target in self.targets:
            check_name(target)
        if not self.targets or (self.form == "dict") != (self.key is not None):
            raise EmitError("a comprehension needs targets, and a key exactly if it makes a dictionary")


def to_expression(value: Like) -> Expression:
    """The node for a Python value; nodes pass through.  Negative and infinite numbers included.

    Example:
        >>> to_expression(-1)
        Negate(value=Literal(value=1))
    """
    if isinstance(value, Expression):
        return value
    if isinstance(value, tuple):
        return TupleOf(tuple(map(to_expression, value)))
    if isinstance(value, list):
        return ListOf(tuple(map(to_expression, value)))
    if isinstance(value, Mapping):
        return DictOf(tuple((Literal(key), to_expression(item)) for key, item in value.items()))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    return Literal(value)


def name(dotted: str) -> Expression:
    """A name, or attributes of one: `name("self.scale")`."""
    first, *rest = dotted.split(".")
    return Var(first).attr(*rest) if rest else Var(first)


def call(function: str | Expression, /, *args: Like, **kwargs: Like) -> Invoke:
    """`function(args, kwargs)`; a string is a (dotted) name."""
    return (name(function) if isinstance(function, str) else function)(*args, **kwargs)


def compare(op: Operator, left: Like, right: Like) -> Operation:
    """`left op right` for any operator."""
    return Operation(op, to_expression(left), to_expression(right))


def both(first: Like, *rest: Like) -> Expression:
    """`first and second and ...`."""
    return _chain("and", first, rest)


def either(first: Like, *rest: Like) -> Expression:
    """`first or second or ...`."""
    return _chain("or", first, rest)


def _chain(op: Operator, first: Like, rest: tuple[Like, ...]) -> Expression:
    result = to_expression(first)
    for other in rest:
        result = compare(op, result, other)
    return result


def _negative(value: int | float) -> bool:
    return value < 0 or (isinstance(value, float) and math.copysign(1, value) < 0)


def _number(value: int | float) -> Expression:
    if value != value:
        return call("float", "nan")
    if _negative(value):
        return Negate(_number(-value))
    return call("float", "inf") if value == math.inf else Literal(value)


def _keywords(kwargs: Mapping[str, Like]) -> tuple[tuple[str, Expression], ...]:
    return tuple((key, to_expression(value)) for key, value in kwargs.items())


def _to_index(index: Like | slice) -> Expression:
    if not isinstance(index, slice):
        return to_expression(index)
    parts = (None if part is None else to_expression(part) for part in (index.start, index.stop, index.step))
    return SliceItem(*parts)
