"""The emitted functions of a rule that looks at the inputs of a linear layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nldsl.emit.nodes import (
    Expression,
    FunctionDef,
    Parameter,
    Statement,
    assign,
    name,
    returns,
    to_expression,
)
from nldsl.lowerings.exprs import ExprRows
from nldsl.lowerings.optimizer_step import Tensors, written
from nldsl.lowerings.scope import Imports, Names
from nldsl.plan.rule_guards import Guard
from nldsl.plan.rule_rows import SEEDS, RowsPlan
from nldsl.plan.rules import RulePlan
from nldsl.spec.program import Apply, Value


def rows_function(plan: RowsPlan, imports: Imports, taken: frozenset[str]) -> FunctionDef:
    """`rows(x, y, dy, *arguments)`: what takes the place of `dy` in `dy^T x`, over N and as it is."""
    names = Names(taken)
    first = [names.of(n) for n in ("x", "y", "dy")]
    arguments = [(names.of(inside), inside) for inside, _ in plan.rule.arguments]
    body: list[Statement] = []
    rows = ExprRows(imports, names, body)
    rows.bind("x", name(first[0]), "rule")
    for local, inside in arguments:
        rows.bind(inside, name(local), "argument")
    rows.count([plan.erase, plan.rate])
    parts: list[Expression] = []
    for coefficient, side in ((plan.erase, name(first[1])), (plan.rate, name(first[2]))):
        parts.append(side if coefficient.value == 1.0 else rows.write(coefficient) * side)
    summed = to_expression(None) if plan.erase.value == 0.0 else parts[0]
    doc = (
        f"What `{plan.rule.name}` puts in place of `dy`, row by row: over N, and as it is; x `[N, in]`, "
        "y and dy `[N, out]`."
    )
    annotated = tuple(Parameter(p, name("Tensor")) for p in (*first, *(local for local, _ in arguments)))
    sums = to_expression(None) if plan.erase.value == 0.0 else name("Tensor")
    result = name("tuple")[sums, name("Tensor")]
    return FunctionDef("rows", annotated, (*body, returns(to_expression((summed, parts[1])))), doc, result)


def by_rows_function(plan: RulePlan, imports: Imports, taken: frozenset[str]) -> FunctionDef:
    """`update(W, x, dy, *memories, *numbers)`: the mean over rows of what the rule does, in place."""
    names = Names(taken | {"each_row"})
    first = [names.of(n) for n in ("W", "x", "dy")] + [names.of(m.before) for m in plan.memories]
    numbers = [names.of(v) for v in plan.passed]
    ends = frozenset(v.name for v in _ends(plan))
    writer = Tensors(imports, names, dict(plan.literals), name(first[0]), ends)
    rows = _Rows(plan)
    body: list[Statement] = []
    for stage in range(rows.last + 1):
        body += writer.steps(rows.shared(stage))
        due = rows.due(stage)
        if due:
            inside = writer.steps(rows.behind(due))
            inside.append(returns(to_expression(tuple(writer.ref(v) for v in due))))
            parameters = tuple(Parameter(p, name("Tensor")) for p in first[1:3])
            many = name("tuple")[name("Tensor"), ...]
            body.append(FunctionDef("each_row", parameters, tuple(inside), "", many))
            mean = imports.use("nldsl.runtime.gathered_rows:mean_over_rows")
            body.append(assign([names.of(v) for v in due], mean(name("each_row"), *map(name, first[1:3]))))
    pairs = [("W", plan.weight), *((m.before.name, m.after) for m in plan.memories)]
    body += written(writer, plan.body, pairs)
    doc = (
        f"One step of `{plan.rule.name}` for the weight of a layer, in place: x `[N, in]`, dy `[N, out]`, "
        f"every row by itself; {plan.reason}."
    )
    annotated = tuple(Parameter(p, name("Tensor")) for p in (*first, *numbers))
    return FunctionDef("update", annotated, tuple(body), doc, to_expression(None))


def _ends(plan: RulePlan) -> list[Value]:
    return [plan.weight, *(m.after for m in plan.memories)]


class _Rows:
    """Which statements are the same for all rows, and behind how many means they stand."""

    def __init__(self, plan: RulePlan) -> None:
        self.plan = plan
        self.body = [s for s in plan.body if not isinstance(s, Guard)]
        self.own: set[str] = set()
        self.stage: dict[str, int] = {}
        for s in self.body:
            self.stage[s.out.name] = max((self.used(a) for a in s.args), default=0)
            if any(self.differs(a) for a in s.args):
                self.own.add(s.out.name)
        self.last = max([self.stage[v.name] for v in _ends(plan) if v.name in self.stage], default=0)

    def differs(self, value: Value) -> bool:
        """Whether it differs from row to row where it is used."""
        return value.name in SEEDS or (value.name in self.own and value.name not in self.plan.averaged)

    def used(self, value: Value) -> int:
        """Behind how many means a value is known."""
        stage = self.stage.get(value.name, 0)
        return stage + (value.name in self.own and value.name in self.plan.averaged)

    def shared(self, stage: int) -> list[Apply]:
        """Statements that are the same for all rows."""
        return [s for s in self.body if s.out.name not in self.own and self.stage[s.out.name] == stage]

    def due(self, stage: int) -> list[Value]:
        """What is averaged next."""
        ends = {v.name: v for v in _ends(self.plan) if v.name in self.plan.averaged}
        return [v for n, v in ends.items() if n in self.own and self.stage[n] == stage]

    def behind(self, due: Sequence[Value]) -> list[Apply]:
        """What one row computes for them, its gradient first."""
        needed = {v.name for v in due}
        kept = list(self._needed(needed))[::-1]
        if "g" not in needed:
            return kept
        shape = self.plan.shape
        x, dy = Value("x", shape[1:], "vector"), Value("dy", shape[:1], "vector")
        return [Apply(Value("g", shape, "matrix"), "outer", (dy, x)), *kept]

    def _needed(self, needed: set[str]) -> Iterator[Apply]:
        wanted = set(needed)
        for s in reversed(self.body):
            if s.out.name in wanted and s.out.name in self.own:
                wanted |= {a.name for a in s.args if self.differs(a)}
                needed |= {a.name for a in s.args if self.differs(a)}
                yield s
