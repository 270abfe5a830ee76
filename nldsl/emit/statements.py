"""Typed nodes for the Python statements the compiler emits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal as OneOf
from typing import TypeAlias

from nldsl.emit.expressions import (
    Attribute,
    EmitError,
    Expression,
    Invoke,
    Item,
    Like,
    Starred,
    TupleOf,
    Var,
    check_name,
    to_expression,
)

PRAGMA = re.compile(
    r"(fmt|yapf|ruff|isort|noqa|mypy|pyright|flake8|pylint|pragma|coding|type)(\s*)([:=])", re.I
)


def printable(text: str) -> str:
    """`text` with every character that cannot stand in a line of source (controls, bidi) as a space.

    Example:
        >>> printable("a\\nb\\u202e")
        'a b '
    """
    return "".join(c if c.isprintable() else " " for c in text)


@dataclass(frozen=True)
class Assign:
    """`first = second = value`; several names of one target are a `TupleOf`.  `annotation` for one name."""

    targets: tuple[Expression, ...]
    value: Expression
    annotation: Expression | None = None

    def __post_init__(self) -> None:
        if not self.targets:
            raise EmitError("an assignment needs a target")
        for target in self.targets:
            _check_target(target)
        if self.annotation is not None and (
            len(self.targets) != 1 or not isinstance(self.targets[0], Var | Attribute)
        ):
            raise EmitError("only one name can carry an annotation")


@dataclass(frozen=True)
class AugmentedAssign:
    """`target op= value`."""

    target: Expression
    op: OneOf["+", "-", "*", "/", "//", "%", "@", "**"]
    value: Expression

    def __post_init__(self) -> None:
        if self.op not in ("+", "-", "*", "/", "//", "%", "@", "**"):
            raise EmitError(f"no augmented assignment {self.op!r}")
        if not isinstance(self.target, Var | Attribute | Item):
            raise EmitError("expected a name, an attribute or an item to assign to")


@dataclass(frozen=True)
class Return:
    """`return value`."""

    value: Expression | None = None


@dataclass(frozen=True)
class Evaluate:
    """An expression for its effect."""

    value: Expression


@dataclass(frozen=True)
class Delete:
    """`del first, second`: names whose values are not needed any more."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise EmitError("nothing to delete")
        for name in self.names:
            check_name(name)


@dataclass(frozen=True)
class Raise:
    """`raise value`."""

    value: Expression


@dataclass(frozen=True)
class Comment:
    """`# text` on its own line; controls become spaces and tool directives (`fmt: off`) are defused."""

    text: str

    @property
    def line(self) -> str:
        """The printed line."""
        clean = PRAGMA.sub(r"\1 \3", printable(self.text)).strip()
        return f"# {clean}" if clean else "#"


@dataclass(frozen=True)
class Blank:
    """An empty line between two statements."""


@dataclass(frozen=True)
class If:
    """`if test: body else: orelse`; one `If` alone in `orelse` prints as `elif`."""

    test: Expression
    body: tuple[Statement, ...]
    orelse: tuple[Statement, ...] = ()


@dataclass(frozen=True)
class For:
    """`for targets in iterable: body`."""

    targets: tuple[str, ...]
    iterable: Expression
    body: tuple[Statement, ...]

    def __post_init__(self) -> None:
        if not self.targets:
            raise EmitError("a loop needs a target")
        for target in self.targets:
            check_name(target)


@dataclass(frozen=True)
class With:
    """`with context as alias: body`."""

    context: Expression
    body: tuple[Statement, ...]
    alias: str | None = None

    def __post_init__(self) -> None:
        if self.alias is not None:
            check_name(self.alias)
        if not isinstance(self.context, Invoke | Attribute | Var):
            raise EmitError("expected a call or a name as context")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function; `kind` keyword ones come after the others (`*` is printed)."""

    name: str
    annotation: Expression | None = None
    default: Expression | None = None
    kind: OneOf["positional", "keyword"] = "positional"

    def __post_init__(self) -> None:
        check_name(self.name)


@dataclass(frozen=True)
class FunctionDef:
    """`def name(parameters) -> returns: doc; body`."""

    name: str
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]
    doc: str = ""
    returns: Expression | None = None
    decorators: tuple[Expression, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)
        kinds = [p.kind for p in self.parameters]
        if kinds != sorted(kinds, reverse=True):
            raise EmitError("positional parameters come before keyword ones")
        defaults = [p.default is not None for p in self.parameters if p.kind == "positional"]
        if defaults != sorted(defaults):
            raise EmitError("a parameter without default follows one with a default")
        if len({p.name for p in self.parameters}) != len(self.parameters):
            raise EmitError("two parameters have the same name")


@dataclass(frozen=True)
class ClassDef:
    """`class name(bases): doc; body`."""

    name: str
    bases: tuple[Expression, ...]
    body: tuple[Statement, ...]
    doc: str = ""
    decorators: tuple[Expression, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)


@dataclass(frozen=True)
class Import:
    """`import module as alias`, or `from module import names`; one name may have an alias."""

    module: str
    names: tuple[str, ...] | None = None
    alias: str | None = None

    def __post_init__(self) -> None:
        for part in self.module.split("."):
            check_name(part)
        for part in self.names or ():
            check_name(part)
        if self.names == () or (self.alias and len(self.names or "?") > 1):
            raise EmitError("import at least one name, and only one with an alias")
        if self.alias is not None:
            check_name(self.alias)


Statement: TypeAlias = (
    "Assign | AugmentedAssign | Delete | Return | Evaluate | Raise | Comment | Blank | If | For | With "
    "| FunctionDef | ClassDef | Import"
)


@dataclass(frozen=True)
class Module:
    """A file: its docstring (required, so that no comment can be taken for a coding line) and body."""

    doc: str
    body: tuple[Statement, ...] = field(default=())

    def __post_init__(self) -> None:
        if not printable(self.doc).strip():
            raise EmitError("a module needs a docstring")


def assign(target: str | Expression | Sequence[str], value: Like, annotation: Like = None) -> Assign:
    """`target = value`; a sequence of names unpacks.

    Example:
        >>> assign(["a", "b"], 1).targets[0]
        TupleOf(items=(Var(name='a'), Var(name='b')))
    """
    node: Expression
    if isinstance(target, Expression):
        node = target
    elif isinstance(target, str):
        node = _dotted(target)
    else:
        node = TupleOf(tuple(map(_dotted, target)))
    return Assign((node,), to_expression(value), None if annotation is None else to_expression(annotation))


def returns(*values: Like) -> Return:
    """`return`, `return a` or `return a, b`."""
    if not values:
        return Return()
    return Return(to_expression(values[0] if len(values) == 1 else values))


def _dotted(text: str) -> Expression:
    first, *rest = text.split(".")
    return Var(first).attr(*rest) if rest else Var(first)


def _check_target(target: Expression) -> None:
    if isinstance(target, TupleOf) and target.items:
        for item in target.items:
            _check_target(item.value if isinstance(item, Starred) else item)
    elif not isinstance(target, Var | Attribute | Item):
        raise EmitError("expected a name, an attribute or an item to assign to")
