"""Linear rules with any number of memories of their own, for weights whose gradient is given from outside."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.calculus.expression import Expr, depends, number
from nldsl.calculus.rules import RuleSymbols, coefficients, lifted
from nldsl.calculus.simplify import build
from nldsl.catalog.primitive import ContractError
from nldsl.catalog.values import Shape
from nldsl.spec.program import Rule


@dataclass(frozen=True)
class StatesForm:
    """`Z_i' = sum_j rows[i][j] Z_j - rates[i] g - sum over erases of into[i] (Z_of x) x^T`, `Z = (W, slots)`.

    All coefficients are numbers: expressions over the rule's arguments, the weight's input `x` and the
    number `step` of the application.
    """

    slots: tuple[str, ...]
    rows: tuple[tuple[Expr, ...], ...]
    rates: tuple[Expr, ...]
    erases: tuple[tuple[int, tuple[Expr, ...]], ...] = ()

    @property
    def keep(self) -> Expr:
        """What the weight keeps of itself."""
        return self.rows[0][0]

    @property
    def adds_only(self) -> bool:
        """Whether what the rule adds, to the weight and to its memories, does not depend on the weight."""
        told = any(row[0].value != 0.0 for row in self.rows[1:]) or any(of == 0 for of, _ in self.erases)
        return self.keep.value == 1.0 and not told

    def numbers(self) -> tuple[Expr, ...]:
        """All coefficients."""
        ways = (e for _, into in self.erases for e in into)
        return (*(e for row in self.rows for e in row), *self.rates, *ways)


def rule_states(rule: Rule, shape: Shape) -> StatesForm | str:
    """How one application moves a weight of this shape and the rule's memories of it; else why not."""
    if any(slot.clock is not None or slot.shape is not None for slot in rule.slots):
        return f"a memory of rule `{rule.name}` has a clock or a shape of its own"
    s = RuleSymbols.of(shape)
    try:
        outputs, pairs = lifted(rule, s, shape, cut=False)
    except KeyError as missing:
        return f"rule `{rule.name}` asks for {missing.args[0]}, which this weight does not have"
    except ContractError as refused:
        return f"rule `{rule.name}` does not fit this weight: {refused}"
    states = (s.weight, *(old for old, _ in pairs))
    found = [coefficients(output, (*states, s.gradient, s.dy), s) for output in outputs]
    seen = {s.x: 0} | {build("matmul", z, s.x): i for i, z in enumerate(states) if len(shape) == 2}
    known = {*states, s.gradient, *seen}
    tables = [table for table in found if table is not None and not set(table) - known]
    if len(tables) < len(outputs):
        return f"rule `{rule.name}` is not linear in the weight, its gradient and its memories"
    zero = number(0.0)
    rows = tuple(tuple(table.get(z, zero) for z in states) for table in tables)
    rates = tuple(build("neg", table.get(s.gradient, zero)) for table in tables)
    erases = tuple(
        (of, tuple(build("neg", table.get(what, zero)) for table in tables))
        for what, of in seen.items()
        if any(what in table for table in tables)
    )
    if any(depends(e, [s.dy]) for row in (*rows, rates) for e in row):
        return f"the size of a step of rule `{rule.name}` depends on the gradient"
    return StatesForm(tuple(slot.name for slot in rule.slots), rows, rates, erases)
