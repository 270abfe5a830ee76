"""Numbers that multiply tensors, gathered: one product per tensor, and no division by a number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from nldsl.spec.program import Apply, Value

ONE = "one"
"""The literal that reciprocals are taken of."""


@dataclass
class Factors:
    """Tensor statements rewritten, and the numbers that became necessary."""

    numbers: set[str]
    uses: Counter[str]
    scalars: list[Apply] = field(default_factory=list)
    made: dict[str, Apply] = field(default_factory=dict)

    def scalar(self, op: str, a: Value, b: Value, near: str) -> Value:
        """A new number; equal ones are computed once."""
        for step in self.scalars:
            if step.op == op and step.args == (a, b):
                return step.out
        out = Value(f"{near}_{'inverse' if op == 'div' else 'factor'}", (), "scalar")
        self.scalars.append(Apply(out, op, (a, b)))
        self.numbers.add(out.name)
        return out

    def rewritten(self, step: Apply) -> Apply:
        """`T / n` as `T (1 / n)`, and `a (b T)` as `(a b) T`."""
        if step.op == "div" and self.is_number(step.args[1]) and not self.is_number(step.args[0]):
            tensor, number = step.args
            inverse = self.scalar("div", Value(ONE, (), "scalar"), number, number.name)
            step = replace(step, op="mul", args=(inverse, tensor))
        while step.op == "mul" and (pair := self._split(step)) is not None:
            number, tensor = pair
            inner = self.made.get(tensor.name)
            below = self._split(inner) if inner is not None and inner.op == "mul" else None
            if below is None or self.uses[tensor.name] != 1:
                break
            both = self.scalar("mul", number, below[0], step.out.name)
            step = replace(step, args=(both, below[1]))
        self.made[step.out.name] = step
        return step

    def is_number(self, value: Value) -> bool:
        return value.name in self.numbers

    def _split(self, step: Apply) -> tuple[Value, Value] | None:
        """(number, tensor) of a product of the two."""
        a, b = step.args
        if self.is_number(a) == self.is_number(b):
            return None
        return (a, b) if self.is_number(a) else (b, a)


def factored(
    tensors: Sequence[Apply], numbers: Collection[str], outputs: Iterable[Value]
) -> tuple[tuple[Apply, ...], tuple[Apply, ...]]:
    """(tensor statements, further numbers) of a body whose numbers are known by name."""
    uses = Counter(a.name for step in tensors for a in step.args)
    uses.update(v.name for v in outputs)
    factors = Factors(set(numbers), uses)
    body = tuple(factors.rewritten(step) for step in tensors)
    return body, tuple(factors.scalars)
