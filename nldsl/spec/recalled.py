"""What a memory is taught, as numbers times what it answers, plus a rest that does not look at it.

`new = b * v + (1 - b) * S[k]` and `outer(new - S[k], k)`: the coefficient of `S[k]` is `-b`, the rest `b v`.
Numbers are polynomials in scalars and numbers per head: all ways that lead to one step are one write.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nldsl.source import Span
from nldsl.spec.frame import Frame
from nldsl.spec.items import POISON, MemoryBox, Poison
from nldsl.spec.primitives import apply
from nldsl.spec.program import Apply, Read, Update, Value, Write, option

Poly = dict[tuple[str, ...], float]
"""Product of named numbers -> its factor."""
_MOST = 64
ONE: Poly = {(): 1.0}


def plus(a: Poly, b: Poly, sign: float = 1.0) -> Poly:
    found = {m: a.get(m, 0.0) + sign * b.get(m, 0.0) for m in (*a, *b)}
    return {m: c for m, c in found.items() if c != 0.0}


def times(a: Poly, b: Poly) -> Poly:
    found: Poly = {}
    for m, c in a.items():
        for n, d in b.items():
            found = plus(found, {tuple(sorted((*m, *n))): c * d})
    return found


class NotAffineError(ValueError):
    """What is taught looks at the memory by more than a sum of its answers times numbers."""


@dataclass
class Recall:
    """The values of a body, as sums of answers of one memory and of what does not look at it.

    Answers are those that a write at this place would see: nothing changes the memory behind them.
    """

    frame: Frame
    box: MemoryBox
    makers: dict[str, Apply | Read] = field(default_factory=dict)
    answers: dict[str, Read] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    looks: dict[str, bool] = field(default_factory=dict)
    inverses: dict[str, Value] = field(default_factory=dict)

    @staticmethod
    def of(frame: Frame, box: MemoryBox) -> Recall:
        """With everything that the body holds so far."""
        found = Recall(frame, box)
        changed = max(
            (n for n, s in enumerate(frame.body) if isinstance(s, Write | Update) and s.memory == box.name),
            default=-1,
        )
        for n, step in enumerate(frame.body):
            if not isinstance(step, Apply | Read):
                continue
            found.makers[step.out.name] = step
            own = isinstance(step, Read) and step.memory == box.name
            if isinstance(step, Read) and own and n > changed and step.solve is None and _one_key(step, box):
                found.answers[step.out.name] = step
            args = step.args if isinstance(step, Apply) else (step.key,)
            found.looks[step.out.name] = own or any(found.looks.get(a.name, False) for a in args)
        return found

    def number(self, value: Value) -> Poly:
        """A number as a polynomial."""
        self.values[value.name] = value
        made = self.makers.get(value.name)
        if not isinstance(made, Apply):
            return {(value.name,): 1.0}
        if made.op == "constant":
            found = option(made.options, "value", 0)
            return {(): float(found)} if isinstance(found, int | float) and found else {}
        if made.op in ("add", "sub", "mul", "neg"):
            parts = [self.number(a) for a in made.args]
            joined = _joined(made.op, parts)
            return joined if len(joined) <= _MOST else {(value.name,): 1.0}
        return {(value.name,): 1.0}

    def inverse(self, value: Value, span: Span) -> Poly:
        """One over a number.

        Errors: `NotAffineError`.
        """
        number = self.number(value)
        if set(number) == {()}:
            return {(): 1.0 / number[()]}
        if value.name not in self.inverses:
            made = self._do("div", self.frame.constant(1, span), value, span)
            if made is POISON:
                raise NotAffineError(value.name)
            self.inverses[value.name] = made
            self.values[made.name] = made
        return {(self.inverses[value.name].name,): 1.0}

    def vector(self, value: Value) -> dict[str, Poly]:
        """A vector as a sum of vectors times numbers.

        Errors: `NotAffineError`.
        """
        self.values[value.name] = value
        made = self.makers.get(value.name)
        if value.name in self.answers or not isinstance(made, Apply):
            return self._atom(value)
        if made.op == "neg" or (made.op in ("add", "sub") and all(a.shape == value.shape for a in made.args)):
            parts = [self.vector(a) for a in made.args]
            signs = (-1.0,) if made.op == "neg" else (1.0, -1.0 if made.op == "sub" else 1.0)
            found: dict[str, Poly] = {}
            for sign, part in zip(signs, parts, strict=True):
                for name, c in part.items():
                    found[name] = plus(found.get(name, {}), c, sign)
            return {n: c for n, c in found.items() if c}
        if made.op == "mul":
            for factor, rest in (made.args, made.args[::-1]):
                if is_number(factor, self.box) and rest.shape == value.shape and not self.looks_at(factor):
                    number = self.number(factor)
                    return {n: p for n, c in self.vector(rest).items() if (p := times(number, c))}
        if made.op == "div" and made.args[0].shape == value.shape and is_number(made.args[1], self.box):
            if not self.looks_at(made.args[1]):
                number = self.inverse(made.args[1], made.span or self.frame.unit.tree.span)
                return {n: p for n, c in self.vector(made.args[0]).items() if (p := times(number, c))}
        return self._atom(value)

    def looks_at(self, value: Value) -> bool:
        """Whether a value is made of an answer of the memory."""
        return self.looks.get(value.name, False)

    def _atom(self, value: Value) -> dict[str, Poly]:
        if value.name not in self.answers and self.looks_at(value):
            raise NotAffineError(value.name)
        return {value.name: ONE}

    def as_value(self, number: Poly, span: Span) -> Value | Poison:
        """A polynomial as a value of the body."""
        total: Value | Poison | None = None
        for names, factor in sorted(number.items()):
            term: Value | Poison | None = None
            for name in names:
                term = self.values[name] if term is None else self._do("mul", term, self.values[name], span)
            literal = self.frame.constant(int(factor) if factor == int(factor) else factor, span)
            if term is None or factor != 1.0:
                term = literal if term is None else self._do("mul", literal, term, span)
            total = term if total is None else self._do("add", total, term, span)
        return self.frame.constant(0, span) if total is None else total

    def scaled(self, number: Poly, vector: Value, span: Span) -> Value | Poison:
        """A vector times a polynomial."""
        factor = self.as_value(number, span)
        return vector if number == ONE else self._do("mul", factor, vector, span)

    def summed(self, parts: dict[str, Poly], span: Span) -> Value | Poison:
        """A sum of vectors times polynomials."""
        total: Value | Poison | None = None
        for name, number in parts.items():
            part = self.scaled(number, self.values[name], span)
            total = part if total is None else self._do("add", total, part, span)
        return self.frame.constant(0, span) if total is None else total

    def _do(self, op: str, a: Value | Poison, b: Value | Poison, span: Span) -> Value | Poison:
        if a is POISON or b is POISON:
            return POISON
        return apply(self.frame, op, (a, b), {}, span, derived=True)


def _joined(op: str, parts: list[Poly]) -> Poly:
    if op == "neg":
        return plus({}, parts[0], -1.0)
    if op == "mul":
        return times(*parts)
    left, right = parts
    return plus(left, right, 1.0 if op == "add" else -1.0)


def is_number(value: Value, box: MemoryBox) -> bool:
    """Whether it is a number, or one for each head."""
    return value.kind == "scalar" or bool(box.heads and value.shape == (box.heads,))


def _one_key(read: Read, box: MemoryBox) -> bool:
    """Whether every copy is asked once."""
    return not box.heads or read.key.shape[0] == box.heads
