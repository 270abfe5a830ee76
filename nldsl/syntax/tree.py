"""The syntax tree: what was written, before any name is looked up.

Text and YAML give the same tree.  Spans do not take part in equality, so `convert` can be
tested as the identity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nldsl.source import Span


@dataclass(frozen=True, kw_only=True)
class Node:
    """Every node knows where it was written."""

    span: Span = field(compare=False, repr=False)


# --- expressions -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Number(Node):
    """`0.5`, `1e-3`, `4`; an `int` if it was written without point and exponent."""

    value: int | float


@dataclass(frozen=True)
class String(Node):
    """`"raw"`: always an option symbol or a name pattern."""

    value: str


@dataclass(frozen=True)
class Name(Node):
    """An identifier (also `true`, `false`, `identity`, `self`, `init`, `zero`, `learned`, `fixed`)."""

    id: str


@dataclass(frozen=True)
class ListExpr(Node):
    """`[16, 64, 256]`."""

    items: tuple[Expr, ...]


@dataclass(frozen=True)
class Unary(Node):
    """`-x`, `not x`."""

    op: Literal["-", "not"]
    operand: Expr


@dataclass(frozen=True)
class Binary(Node):
    """Arithmetic `+ - * / // ** @`, comparison `< <= > >= == !=`, logic `and or`."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Arg(Node):
    """One argument of a call; `name` is `None` for a positional one."""

    name: str | None
    value: Expr


@dataclass(frozen=True)
class Call(Node):
    """`linear(x, heads)`: a primitive, function, block, map, objective or rule by position."""

    function: Name
    args: tuple[Arg, ...]


@dataclass(frozen=True)
class Index(Node):
    """`M[q]` (read of a memory) or `xs[0]` (element of a static list)."""

    target: Name
    key: Expr


Expr = Number | String | Name | ListExpr | Unary | Binary | Call | Index


# --- clocks, memories ------------------------------------------------------------------------


@dataclass(frozen=True)
class Clock(Node):
    """`every C tokens`, `every N steps`, or `never` (then `count` is `None`)."""

    count: Expr | None
    unit: Literal["tokens", "steps", "never"]


@dataclass(frozen=True)
class Init(Node):
    """`init zero`, `learned`, `learned("first")`, `fixed`, or `init M2` (then `kind` is `from`)."""

    kind: Literal["zero", "learned", "fixed", "from"]
    argument: Expr | None = None


@dataclass(frozen=True)
class Reset(Node):
    """`reset every sequence`, `reset every N tokens`, `reset never`."""

    kind: Literal["sequence", "tokens", "never"]
    count: Expr | None = None


@dataclass(frozen=True)
class MemoryDecl(Node):
    """`memory Mk, Mv = residual_mlp() per head init learned reset never`.

    `start` holds the persistent tokens of `softmax` memories when written as `start = n`.
    `per_head` is `True` for a bare `per head`, an expression for `per head(n)`, else `None`.
    """

    names: tuple[Name, ...]
    map: Expr
    per_head: Expr | bool | None = None
    init: Init | None = None
    reset: Reset | None = None


@dataclass(frozen=True)
class LevelDecl(Node):
    """`level NAME every C tokens { memory ... }`; in `train` the body holds groups instead."""

    name: Name
    clock: Clock
    body: tuple[Statement, ...]


# --- statements ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Assign(Node):
    """`q = ...`, `a, b = parts(...)`, `S *= a`, `M += e` (memory or value: decided later)."""

    targets: tuple[Name, ...]
    op: Literal["=", "+=", "*=", "-=", "/="]
    value: Expr


@dataclass(frozen=True)
class Clauses(Node):
    """The clauses behind a write or a term; absent ones are `None` (`False` for `at_commit`)."""

    minimize: Expr | None = None
    over: Expr | None = None
    weighted: Expr | None = None
    by: Expr | None = None
    retain: Expr | None = None
    toward: Expr | None = None
    gradient_every: Expr | None = None
    at_commit: bool = False
    project: Expr | None = None


@dataclass(frozen=True)
class Term(Node):
    """`[k] <- v` with the clauses that belong to this term only."""

    key: Expr
    value: Expr
    clauses: Clauses


@dataclass(frozen=True)
class Write(Node):
    """`M[k] <- v ...`, `write S { ... }`, `write each of A, B { ... }`.

    The one-line form is a `Write` with one target, one term that carries all the clauses, and
    `braces = False`.  With braces, `clauses` are those behind the closing brace.
    """

    targets: tuple[Name, ...]
    terms: tuple[Term, ...]
    clauses: Clauses
    each: bool = False
    braces: bool = False


@dataclass(frozen=True)
class TaskWrite(Node):
    """`F minimizes task by gd(lr = 1e-3)` (or a local objective call instead of `task`)."""

    target: Name
    objective: Expr
    clauses: Clauses


@dataclass(frozen=True)
class Return(Node):
    """`return e` or `return a, b`."""

    values: tuple[Expr, ...]


@dataclass(frozen=True)
class Repeat(Node):
    """`repeat n { ... }`."""

    count: Expr
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class For(Node):
    """`for c in xs { ... }`, `for c, i in xs { ... }`."""

    names: tuple[Name, ...]
    items: Expr
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class If(Node):
    """`if e { ... } else { ... }` on static values."""

    condition: Expr
    body: tuple[Statement, ...]
    orelse: tuple[Statement, ...] = ()


@dataclass(frozen=True)
class Every(Node):
    """`every N steps { ... }` inside a rule or a block."""

    clock: Clock
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Group(Node):
    """`matrices, "*.conv.*" by muon(lr = 2e-2) every 10 steps`; in `train` and `variant`."""

    selectors: tuple[Name | String, ...]
    rule: Expr
    clock: Clock | None = None


@dataclass(frozen=True)
class Setting(Node):
    """`task next_token(...)`, `truncate 256 tokens`, `clip 1.0`: a keyword line of `train`."""

    key: Name
    value: Expr
    unit: Literal["tokens", "steps", ""] = ""


@dataclass(frozen=True)
class LevelEdit(Node):
    """`level "cms.f[1]" every 1024 tokens` in a `variant`."""

    path: String
    clock: Clock


Statement = (
    LevelDecl
    | MemoryDecl
    | Assign
    | Write
    | TaskWrite
    | Return
    | Repeat
    | For
    | If
    | Every
    | Group
    | Setting
    | LevelEdit
)


# --- items -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Param(Node):
    """A parameter; without a default it is an input (block) or required (map, rule, objective)."""

    name: Name
    default: Expr | None = None


@dataclass(frozen=True)
class Use(Node):
    """`use "layers.nl"`."""

    path: String


@dataclass(frozen=True)
class Definition(Node):
    """`block`, `model`, `map`, `objective` or `rule` NAME(params) { body }."""

    kind: Literal["block", "model", "map", "objective", "rule"]
    name: Name
    params: tuple[Param, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Train(Node):
    """`train hope { task next_token; level pretraining every 1 step { ... } }`."""

    target: Name
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Variant(Node):
    """`variant big of hope(dim = 512) { level "cms.f[1]" every 1024 tokens; ... }`."""

    name: Name
    base: Name
    args: tuple[Arg, ...]
    body: tuple[Statement, ...] = ()


Item = Use | Definition | Train | Variant


@dataclass(frozen=True)
class Tree(Node):
    """One file."""

    items: tuple[Item, ...]
    version: int = 1
