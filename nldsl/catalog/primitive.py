"""The contract of a primitive: what the library declares and every stage reads.

One primitive is one file in `nldsl/library`.  It stays free of torch: it *names* its torch
function (`torch`), states its shape rule, and gives its vector-Jacobian product as an expression.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from nldsl.catalog.values import Initialiser, Kind, Role, Shape, Static


class ContractError(ValueError):
    """A primitive refuses its arguments; the message says what was found and what was expected."""


@dataclass(frozen=True)
class Operand:
    """What a shape rule sees of a value argument."""

    shape: Shape
    kind: Kind


@dataclass(frozen=True)
class Option:
    """A static argument: default (`REQUIRED` if none), unit, range and one line of help."""

    name: str
    default: Static | Literal["REQUIRED"]
    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    type: Literal["int", "float", "bool", "str"] = "float"
    variadic: bool = False
    """Gathers the remaining positional static arguments into a tuple: `parts(z, 8, 8, 16)`."""
    runtime: bool = True
    """Passed to the torch function by keyword; else it only shapes the contract (`out`, `window`)."""


@dataclass(frozen=True)
class ParameterSpec:
    """A slow parameter the primitive owns; `name` is the last part of its path."""

    name: str
    shape: Shape
    init: Initialiser
    role: Role


@dataclass(frozen=True)
class Outcome:
    """What a shape rule returns."""

    shape: Shape
    kind: Kind
    parameters: tuple[ParameterSpec, ...] = ()


class Builder(Protocol):
    """How a VJP writes expressions: `b("mul", x, y)`, `b("sum", x, axis=...)`, `b(2.0)`.

    Handles are opaque.  The calculus provides it; each name is a primitive of the library.
    """

    def __call__(self, op: str | float, *args: Any, **options: Static) -> Any: ...

    def operand(self, handle: Any) -> Operand:
        """Shape and kind of an expression, for rules that depend on them."""
        ...


ShapeRule = Callable[[tuple[Operand, ...], Mapping[str, Static]], Outcome]
Vjp = Callable[[Builder, tuple[Any, ...], Any, Any, Mapping[str, Static]], tuple[Any | None, ...]]
"""`vjp(b, args, out, grad, options)` -> one cotangent per argument (`None` = no gradient).

`args` are the values, then the parameters.  A cotangent may be larger than its argument where the
argument was broadcast; the caller sums it back.
"""


@dataclass(frozen=True)
class Primitive:
    """The contract of one primitive.

    `values` are the names of the value arguments (`variadic` lets the last repeat); `options` the
    static ones, in positional order behind the values.  `torch` is `module:function`; the function
    takes the value arguments, then the parameters in the order of `Outcome.parameters`, then the
    options by keyword.  `places` says where it may be called.  `stateful` primitives carry hidden
    state (conv, shift, position): their torch function takes `state=` and `mask=` and returns
    `(out, state)`.
    """

    name: str
    doc: str
    example: str
    values: tuple[str, ...]
    shape: ShapeRule
    torch: str
    options: tuple[Option, ...] = ()
    vjp: Vjp | None = None
    variadic: bool = False
    elementwise: bool = False
    stateful: bool = False
    optional_values: int = 0
    merges: bool = False
    """A headed value is merged first: the elaborator inserts an explicit `merge`."""
    folded: bool = False
    """Resolved by the elaborator (`dim`, `values`, `like`): never an `Apply` of a program."""
    places: frozenset[str] = frozenset({"block", "map", "objective", "rule"})
    equation: str = ""
    reference: Callable[..., Any] | None = None
    """The literal value on numpy arrays at one token, called as the torch function is."""
    literal: str = ""
    """`module:function` that the interpreter calls at one token (values, parameters, options by keyword).

    Only for primitives that `nldsl.reference` does not know; elementwise ones may do without: then the torch
    function, which cannot tell one token from many, is taken.
    """
