"""Tensor expressions: frozen, hash-consed, with a label on every axis.

Two expressions that are built alike are the same object, so equality is identity and common
subexpressions are found by construction.  An expression is the value at one token, for one head.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

from nldsl.catalog.primitive import Operand
from nldsl.catalog.values import Kind, Options, Shape, Static
from nldsl.library import PRIMITIVES

SYMBOL = "symbol"


@dataclass(frozen=True, eq=False, repr=False)
class Expr:
    """One node: a symbol (an input) or a primitive of the library applied to expressions.

    `args` are the values, then `owned` slow parameters.  `axes` labels the axes of `shape`, such as
    `key`, `W1.out`; a scalar has none.  Make nodes with `symbol`, `number` and `simplify.build`.
    """

    op: str
    args: tuple[Expr, ...]
    options: Options
    shape: Shape
    kind: Kind
    axes: tuple[str, ...]
    name: str = ""
    role: str = ""
    owned: int = 0
    order: tuple[int, str, str] = (0, "", "")
    """Depth, name and digest: a total order that does not depend on the run."""

    @property
    def operand(self) -> Operand:
        """What a shape rule sees of this expression."""
        return Operand(self.shape, self.kind)

    @property
    def value(self) -> float | None:
        """The number, if this is a constant."""
        if self.op != "constant":
            return None
        value = self.options[0][1]
        return float(value) if isinstance(value, int | float) else None

    def option(self, name: str) -> Static:
        """The value of an option, `None` if it has none of that name."""
        return dict(self.options).get(name)

    def __str__(self) -> str:
        return render(self)

    def __repr__(self) -> str:
        return f"<{self.kind} {render(self)}>"


_TABLE: WeakValueDictionary[tuple[object, ...], Expr] = WeakValueDictionary()


def _intern(
    op: str,
    args: tuple[Expr, ...],
    options: Options,
    operand: Operand,
    axes: tuple[str, ...],
    label: tuple[str, str] = ("", ""),
    owned: int = 0,
) -> Expr:
    """The one expression with this content."""
    key = (op, args, options, operand, axes, label, owned)
    found = _TABLE.get(key)
    if found is not None:
        return found
    name, role = label
    depth = 1 + max((a.order[0] for a in args), default=-1)
    text = "|".join((op, name, role, repr(options), repr(operand), *(a.order[2] for a in args)))
    order = (depth, name or op, hashlib.sha256(text.encode()).hexdigest())
    made = Expr(op, args, options, operand.shape, operand.kind, axes, name, role, owned, order)
    return _TABLE.setdefault(key, made)


def symbol(
    name: str, shape: Shape = (), kind: Kind = "scalar", axes: tuple[str, ...] = (), role: str = ""
) -> Expr:
    """An input of a calculation.  Symbols of the same name but another role are different.

    Example:
        >>> symbol("k", (4,), "vector") is symbol("k", (4,), "vector")
        True
    """
    labels = axes or tuple(f"{name}.{i}" for i in range(len(shape)))
    return _intern(SYMBOL, (), (), Operand(shape, kind), labels, (name, role))


def number(value: float) -> Expr:
    """A constant.

    Example:
        >>> number(2) is number(2.0)
        True
    """
    # Adding zero turns -0.0 into 0.0: equal numbers must be one node.
    return _intern("constant", (), (("value", float(value) + 0.0),), Operand((), "scalar"), ())


def node(op: str, args: tuple[Expr, ...], options: Mapping[str, Static], owned: int = 0) -> Expr:
    """A primitive applied, as it is; `simplify.build` is what writes shorter forms.

    Errors: `ContractError` of the primitive's shape rule, `KeyError` for an unknown primitive.
    """
    values = args[: len(args) - owned]
    outcome = PRIMITIVES[op].shape(tuple(a.operand for a in values), options)
    axes = _axes(op, values, len(outcome.shape))
    return _intern(
        op, args, tuple(sorted(options.items())), Operand(outcome.shape, outcome.kind), axes, owned=owned
    )


def _axes(op: str, values: tuple[Expr, ...], rank: int) -> tuple[str, ...]:
    """The labels of a result: what contracts disappears, the rest keeps its label."""
    if op == "matmul":
        return values[0].axes[:-1] + values[1].axes[1:]
    if op == "outer":
        return values[0].axes + values[1].axes
    if op == "transpose":
        return values[0].axes[::-1]
    if op == "expand_last":
        return values[1].axes
    for value in values:
        if len(value.axes) >= rank:
            return value.axes[:rank]
    return tuple(f"{op}.{i}" for i in range(rank))


def walk(roots: Iterable[Expr]) -> Iterator[Expr]:
    """Every node below `roots` once, arguments before the nodes that use them."""
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(r, False) for r in reversed(list(roots))]
    while stack:
        expr, ready = stack.pop()
        if ready:
            yield expr
        elif expr not in seen:
            seen.add(expr)
            stack.append((expr, True))
            stack.extend((a, False) for a in reversed(expr.args))


def symbols(expr: Expr) -> frozenset[Expr]:
    """Every symbol an expression is written with."""
    return frozenset(e for e in walk([expr]) if e.op == SYMBOL)


def depends(expr: Expr, on: Iterable[Expr]) -> bool:
    """Whether any of `on` occurs in `expr`."""
    wanted = frozenset(on)
    return any(e in wanted for e in walk([expr]))


_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "matmul": "@"}


def render(expr: Expr) -> str:
    """The expression as text of the language, for reasons and messages.

    Example:
        >>> x = symbol("x", (4,), "vector")
        >>> render(node("mul", (number(2), x), {}))
        '2 * x'
    """
    if expr.op == SYMBOL:
        return expr.name
    if expr.value is not None:
        return f"{expr.value:.6g}"
    parts = [render(a) for a in expr.args]
    if expr.op in _INFIX:
        wrapped = [
            f"({t})" if a.op in _INFIX or a.op == "neg" else t for a, t in zip(expr.args, parts, strict=True)
        ]
        return f" {_INFIX[expr.op]} ".join(wrapped)
    if expr.op == "neg":
        return f"-({parts[0]})" if expr.args[0].op in _INFIX else f"-{parts[0]}"
    return f"{expr.op}({', '.join(parts)})"
