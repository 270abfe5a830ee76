"""What a name can stand for while a program is elaborated."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from nldsl.source import Span
from nldsl.spec.program import Clock, Function, Parameter, Value
from nldsl.syntax import tree

if TYPE_CHECKING:
    from nldsl.spec.loader import Unit


class Poison(Enum):
    """Stands for what a reported mistake would have been, so that one mistake gives one report."""

    POISON = "poison"


POISON: Final = Poison.POISON


@dataclass(frozen=True)
class Ref:
    """A definition that is named but not called yet: `mixer = attention`."""

    name: str
    unit: Unit


@dataclass(eq=False)
class MemoryBox:
    """A declared memory; sizes become known at its first read or write."""

    name: str
    level: str
    clock: Clock
    declaration: tree.MemoryDecl
    source: MapSource
    heads: int
    """0 if not `per head`."""
    key_size: int = 0
    value_size: int = 0
    key_span: Span | None = None
    value_span: Span | None = None
    function: Function | None = None
    initial: tuple[Parameter | None, ...] = ()
    slow: tuple[Parameter, ...] = ()
    reads: list[Span] = field(default_factory=list)
    writes: list[Span] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    reset: tuple[str, int] = ("sequence", 0)
    broken: bool = False

    @property
    def softmax(self) -> bool:
        """Whether this is the non-parametric memory."""
        return self.source.kind == "softmax"

    @property
    def span(self) -> Span:
        """Where the name was declared."""
        return next(
            (n.span for n in self.declaration.names if n.id == self.name.split("[")[0]), self.declaration.span
        )


@dataclass(frozen=True)
class MapSource:
    """Which map a memory was declared with, its arguments bound."""

    kind: str
    """`matrix`, `softmax` or `map`."""
    definition: tree.Definition | None = None
    unit: Unit | None = None
    arguments: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class RuleItem:
    """A rule with its arguments, as an argument of another rule: `lookahead(adamw(lr = 1e-3))`."""

    definition: tree.Definition
    unit: Unit
    arguments: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class PerValue:
    """`values(a)` as an argument of a rule: one number for each value channel."""

    value: Value


Item = Value | int | float | bool | str | tuple[Any, ...] | Ref | RuleItem | PerValue | MemoryBox | Poison


def is_number(item: object) -> TypeGuard[int | float]:
    """A static number; `true` is none."""
    return isinstance(item, int | float) and not isinstance(item, bool)


def is_static(item: object) -> bool:
    """Known when the program is compiled: numbers, booleans, strings, lists of them, definitions."""
    if isinstance(item, tuple):
        return all(is_static(i) for i in item)
    if isinstance(item, RuleItem):
        return all(is_static(i) for _, i in item.arguments)
    return isinstance(item, int | float | bool | str | Ref)


def describe(item: object) -> str:
    """An item in words, for messages."""
    if isinstance(item, Value):
        shape = f" [{', '.join(map(str, item.shape))}]" if item.shape else ""
        return f"a {item.kind}{shape}"
    if isinstance(item, MemoryBox):
        return f"the memory `{item.name}`"
    if isinstance(item, Ref):
        return f"the definition `{item.name}`"
    if isinstance(item, RuleItem):
        return f"the rule `{item.definition.name.id}`"
    if isinstance(item, PerValue):
        return f"{describe(item.value)} per value channel"
    return "a list" if isinstance(item, tuple) else describe_static(item)


def describe_static(item: object) -> str:
    """A static value in words."""
    if isinstance(item, bool):
        return f"`{str(item).lower()}`"
    return f'the string "{item}"' if isinstance(item, str) else f"the number {item}"


def freeze(item: object) -> Any:
    """A static item as plain data, definitions by their name."""
    if isinstance(item, tuple):
        return tuple(freeze(i) for i in item)
    if isinstance(item, RuleItem):
        inside = ", ".join(f"{n} = {freeze(i)}" for n, i in item.arguments)
        return f"{item.definition.name.id}({inside})"
    return item.name if isinstance(item, Ref) else item
