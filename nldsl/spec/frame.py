"""The scope in which one body is elaborated: names, single assignment, paths of parameters."""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from nldsl.catalog.values import Initialiser, Kind, Shape
from nldsl.source import Span
from nldsl.spec.items import Item, MemoryBox
from nldsl.spec.loader import Unit
from nldsl.spec.program import Apply, Parameter, Value
from nldsl.spec.session import Session
from nldsl.syntax import tree

Place = Literal["block", "map", "objective", "rule"]


class Namer:
    """Hands out names that are unique in one body; what the author wrote comes first."""

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self.reserved = frozenset(reserved)
        self.used: set[str] = set()
        self.last: dict[str, int] = {}

    def variable(self, name: str) -> str:
        """`x`, then `x_1`, `x_2` for each further assignment."""
        name = f"{name}_" if keyword.iskeyword(name) else name
        return self.claim(name, lambda n: n in self.used or (n != name and n in self.reserved))

    def temporary(self, name: str) -> str:
        """A name for an intermediate value; never one the author uses."""
        name = f"{name}_" if keyword.iskeyword(name) else name
        return self.claim(name, lambda n: n in self.used or n in self.reserved)

    def claim(self, name: str, taken: Any) -> str:
        """The first free one of `name`, `name_1`, `name_2`, ..."""
        candidate, number = name, self.last.get(name, 0)
        if number:
            candidate = f"{name}_{number}"
        while taken(candidate):
            number += 1
            candidate = f"{name}_{number}"
        self.last[name] = number
        self.used.add(candidate)
        return candidate


@dataclass(frozen=True)
class FastWeight:
    """A weight of a memory's own, as its map declares it."""

    value: Value
    init: Initialiser
    span: Span | None


@dataclass(eq=False)
class Frame:
    """One body being elaborated."""

    session: Session
    unit: Unit
    place: Place
    title: str
    names: dict[str, Item]
    namer: Namer
    assigned: dict[str, Span] = field(default_factory=dict)
    """Every name the body assigns somewhere, with the first place: for `used before it is assigned`."""
    body: list[Any] = field(default_factory=list)
    variable: str = "out"
    indices: tuple[int, ...] = ()
    prefix: str = ""
    """Where slow parameters of a map hang: the name of its memory."""
    paths: Counter[str] = field(default_factory=Counter)
    constants: dict[object, Value] = field(default_factory=dict)
    weights: list[FastWeight] = field(default_factory=list)
    slow: list[Parameter] = field(default_factory=list)
    memories: dict[str, MemoryBox] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """Value sizes of memories found so far, by an earlier pass too."""
    keys: dict[str, int] = field(default_factory=dict)
    """Key sizes of memories found so far, by an earlier pass too."""
    pending: set[str] = field(default_factory=set)
    """Memories read before their value size was known in this pass."""
    square: bool = False
    """Last resort of the size inference: as many values as keys."""
    selves: list[MemoryBox] = field(default_factory=list)
    parent: Frame | None = None
    returned: tuple[Item, ...] | None = None
    inputs: dict[str, Value] = field(default_factory=dict)
    imports: dict[str, Value] = field(default_factory=dict)
    """Values of the enclosing frame that the body of a `repeat` uses, by the author's name."""
    state: Any = None
    """What the kind of body keeps besides names (slots of a rule, level and clock of a block)."""
    hooks: dict[str, Any] = field(default_factory=dict)
    """Names that are resolved when first used (`g`, `x`, `dy` of a rule)."""

    def new(self, shape: Shape, kind: Kind, target: str | None, hint: str) -> Value:
        """A fresh value: called `target` if the author assigns it, else after variable and operation."""
        name = self.namer.variable(target) if target else self.namer.temporary(f"{self.variable}_{hint}")
        return Value(name, shape, kind)

    def index_text(self) -> str:
        """The indices of the enclosing `for`s."""
        return "".join(f"[{i}]" for i in self.indices)

    def claim_path(self, base: str, index: str = "") -> str:
        """`base[i]` the first time, `base_2[i]` the second, ..."""
        self.paths[base + index] += 1
        count = self.paths[base + index]
        return f"{base}{f'_{count}' if count > 1 else ''}{index}"

    def operation_path(self, op: str) -> str:
        """Where the parameters or the hidden state of a primitive hang."""
        stem = f"{self.prefix}{self.variable}{self.index_text()}."
        return stem + self.claim_path(f"{stem}{op}").removeprefix(stem)

    def constant(self, number: int | float, span: Span | None) -> Value:
        """A literal as a value; equal literals of one body share it."""
        key = (type(number), number)
        if key not in self.constants:
            text = re.sub(r"[^0-9A-Za-z]+", "_", f"{number}".replace("-", "m").replace("+", "")).strip("_")
            value = Value(self.namer.temporary(f"c_{text}"), (), "scalar")
            self.body.append(Apply(value, "constant", (), (("value", number),), span=span))
            self.constants[key] = value
        return self.constants[key]


def assigned_names(body: Iterable[object]) -> dict[str, Span]:
    """Every name that the statements assign, at any depth, with the first place."""
    from_tree: dict[str, Span] = {}
    for statement in body:
        for name in _declared(statement):
            from_tree.setdefault(name.id, name.span)
        for part in ("body", "orelse"):
            for key, span in assigned_names(getattr(statement, part, ())).items():
                from_tree.setdefault(key, span)
    return from_tree


def _declared(statement: object) -> tuple[Any, ...]:
    """Names that a statement assigns or declares; a write only uses its memory."""
    if isinstance(statement, tree.Assign):
        return statement.targets
    return statement.names if isinstance(statement, tree.MemoryDecl | tree.For) else ()
