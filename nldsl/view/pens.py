"""Pens: one writes an equation as plain text, one as LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from nldsl.calculus import Expr, build
from nldsl.calculus.notation import LATEX, TEXT, Style, written
from nldsl.spec.program import Write


@dataclass(frozen=True)
class Formula:
    """One line, as plain text and as LaTeX."""

    text: str
    latex: str


_OWN = frozenset({"z", "d", "r", "e", "g", "m"})
"""Letters of the equations themselves; they bear no time index."""
_AUTHOR = "author:"
"""Before a letter that the author uses too: it bears an index as any other name."""


def authors(name: str) -> str:
    """A name of the author as pens take it.

    >>> pens({})[0].style.symbol(authors("z"), "t"), pens({})[0].style.symbol("z", "t")
    ('z_t', 'z')
    """
    return f"{_AUTHOR}{name}" if name in _OWN else name


@dataclass(frozen=True)
class Pen:
    """Writes the update of one memory in one style, with the names of the block."""

    style: Style
    names: Mapping[str, str]

    def expr(self, expr: Expr, tight: int = 0) -> str:
        """An expression; `tight` as in `written`."""
        return written(expr, self.names, self.style, tight)

    def name(self, name: str, index: str = "t") -> str:
        """A value or a state: `k_t`, `S_{t-1}`, `S_0`."""
        return self.style.symbol(authors(self.names.get(name, name)), index)

    def summand(self, sign: str, factor: Expr, *factors: str) -> str:
        """` - lr v k^T`: a product behind its sign, which a minus of its first factor joins."""
        if self.expr(factor, 1).startswith("-"):
            sign, factor = "-" if sign == "+" else "+", build("neg", factor)
        return f" {sign} {self.join(self.expr(factor, 2), *factors)}"

    def join(self, *factors: str) -> str:
        """A product; empty factors and ones are left out."""
        return self.style.dot.join(f for f in factors if f not in ("", "1"))

    def outer(self, left: str, right: str) -> str:
        """`v k^T`; `v` where the key is the number 1."""
        return left if right == "1" else self.join(left, f"{right}{self.style.transpose}")

    def gate(self, name: str, axis: str, state: str) -> str:
        """A state behind a gate: a number, or one per key channel, value channel or element."""
        gate = self.name(name)
        if axis == "scalar":
            return self.join(gate, state)
        if axis == "element":
            return f"{gate}{self.style.times}{state}"
        diagonal = self.style.call("diag", gate)
        return self.join(state, diagonal) if axis == "key" else self.join(diagonal, state)


@dataclass(frozen=True)
class Recurrence:
    """The pieces of `S_t = S_{t-1} (a I - e k k^T) + v k^T`, written by one pen.

    `pulls` are (pen, rate, asked, along) of the erases `e asked along^T`, `pushes` signed summands.
    """

    pen: Pen
    state: str
    old: str
    pulls: Sequence[tuple[Pen, Expr, str, str]]
    pushes: str

    def line(self, write: Write, keep: str) -> str:
        """The new state; `keep` is what the rule itself leaves of the old one, empty for all of it."""
        gate = "" if write.retain is None else self.pen.name(write.retain.name)
        axis = write.retain_axis
        factor = f"({gate} + {keep} - 1)" if gate and keep else gate or (f"({keep})" if keep else "")
        body = self._body(write, factor, axis)
        return f"{self.pen.style.symbol(authors(self.state), 't')} = {body}{self.pushes}"

    def _body(self, write: Write, factor: str, axis: str) -> str:
        pen, old = self.pen, self.old
        if not self.pulls:
            if write.retain is not None and axis != "scalar":
                return pen.gate(write.retain.name, axis, old)
            return pen.join(factor, old)
        erased = "".join(p.summand("-", rate, p.outer(x, a)) for p, rate, x, a in self.pulls)
        if axis in ("scalar", "key"):
            identity = pen.style.call("diag", factor) if axis == "key" else pen.join(factor, "I")
            return pen.join(old, f"({identity}{erased})")
        assert write.retain is not None
        pulled = "".join(p.summand("-", rate, old, p.outer(x, a)) for p, rate, x, a in self.pulls)
        return pen.gate(write.retain.name, axis, old) + pulled


def pens(names: Mapping[str, str]) -> tuple[Pen, Pen]:
    """A pen for text and one for LaTeX."""
    return Pen(replace(TEXT, symbol=_symbol(TEXT)), names), Pen(replace(LATEX, symbol=_symbol(LATEX)), names)


def _symbol(style: Style) -> Callable[[str, str], str]:
    def named(name: str, index: str) -> str:
        if name.startswith(_AUTHOR):
            own = name.removeprefix(_AUTHOR)
            return f"{style.symbol(own, '')}_{{t-1}}" if index == "t-1" else style.symbol(own, index)
        if index == "t-1":
            return f"{style.symbol(name, '')}_{{t-1}}"
        bare = index == "t" and (name in _OWN or not name.isidentifier())
        return style.symbol(name, "" if bare else index)

    return named


def both(names: Mapping[str, str], line: Callable[[Pen], str]) -> Formula:
    """One line, written by both pens."""
    text, latex = (line(pen) for pen in pens(names))
    return Formula(text, latex)
