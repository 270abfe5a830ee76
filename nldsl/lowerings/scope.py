"""What a lowering writes into: names of values in emitted code, imports, new statements."""

from __future__ import annotations

import keyword
from dataclasses import dataclass, field
from typing import Literal

from nldsl.emit.expressions import Expression, name, to_expression
from nldsl.emit.statements import Statement
from nldsl.spec.program import Value

Layout = Literal["sequence", "chunk"]
"""Where the token axis stands.

sequence: `[B, T, *shape]`.  chunk: heads first, as memories want it: headed `[B, H, C, d]`, heads
`[B, H, C]`, vector `[B, C, d]`, scalar `[B, C]`.
"""

RESERVED = frozenset(
    """
    self state new mask live t torch functional checkpoint Tensor Any Module build
    zip range len list dict tuple str int super None True False
    """.split()
)
"""Names that emitted code uses itself; a value of the program called so gets a `_`."""


@dataclass
class Imports:
    """Functions the emitted file needs: `module -> names`."""

    names: dict[str, set[str]] = field(default_factory=dict)

    def use(self, target: str) -> Expression:
        """The expression that refers to `module:function`; remembers the import.

        `torch:exp` is written `torch.exp`, runtime functions by their own name.
        """
        module, function = target.split(":")
        if module == "torch":
            return name(f"torch.{function}")
        if module == "torch.nn.functional":
            self.names.setdefault("torch.nn", set()).add("functional")
            return name(f"functional.{function}")
        self.names.setdefault(module, set()).add(function)
        return name(function)

    @property
    def functions(self) -> set[str]:
        """Every imported name: values must not shadow them."""
        return set().union(*self.names.values()) if self.names else set()


@dataclass
class Names:
    """Program names to Python names: keywords, our own names and doubles get an underscore."""

    reserved: frozenset[str] = RESERVED
    taken: set[str] = field(default_factory=set)
    known: dict[str, str] = field(default_factory=dict)
    promised: frozenset[str] = frozenset()
    """Names of the block's values: nobody else gets them, so that each means its value wherever it stands."""

    def of(self, value: Value | str) -> str:
        """The Python name of a value; the same value always gets the same name."""
        key = value if isinstance(value, str) else value.name
        if key not in self.known:
            self.known[key] = self._fresh(key, self.promised - {key})
        return self.known[key]

    def fresh(self, wanted: str) -> str:
        """A name nobody has, as close to `wanted` as can be."""
        return self._fresh(wanted, self.promised)

    def _fresh(self, wanted: str, promised: frozenset[str]) -> str:
        base = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in wanted) or "value"
        if base[0].isdigit():
            base = f"v{base}"
        if base in self.reserved or keyword.iskeyword(base):
            base = f"{base}_"
        candidate, n = base, 1
        while candidate in self.taken or candidate in self.reserved or candidate in promised:
            n += 1
            candidate = f"{base.rstrip('_')}_{n}"
        self.taken.add(candidate)
        return candidate


@dataclass
class Scope:
    """One emitted function body: its layout, its names, its statements so far."""

    imports: Imports
    names: Names
    layout: Layout
    body: list[Statement] = field(default_factory=list)
    constants: dict[str, float] = field(default_factory=dict)
    """Values that are literals: written inline."""
    unbatched: set[str] = field(default_factory=set)
    """Values without batch and token axes: slow parameters used as values (see `everywhere`)."""
    stacked: dict[str, int] = field(default_factory=dict)
    """Values with a memory axis before the token axis, and its size (1: shared)."""

    source: Expression = field(default_factory=lambda: name("x"))
    """Any tensor with the batch and token axes of the block."""
    mask: Expression = field(default_factory=lambda: name("mask"))
    local_state: dict[str, str] = field(default_factory=dict)
    """Hidden state kept in a local name while a loop over tokens runs."""

    def old_state(self, path: str) -> Expression:
        """The state under `path` before this call (or this turn of the loop)."""
        return name(self.local_state[path]) if path in self.local_state else name("state")[path]

    def new_state(self, path: str) -> Expression:
        """Where the state under `path` goes."""
        return name(self.local_state[path]) if path in self.local_state else name("new")[path]

    def add(self, *statements: Statement) -> None:
        """Append statements."""
        self.body.extend(statements)

    def ref(self, value: Value) -> Expression:
        """The expression of a value already computed."""
        if value.name in self.constants:
            return to_expression(self.constants[value.name])
        return name(self.names.of(value))
