"""A rule that looks at a whole weight by sums alone (norms, means, shares), as several loops in C.

Every loop before the last adds up what the next one needs; the last one writes.  What a loop needs of the
elements it computes anew: to keep it would take an array as large as the weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nldsl.catalog.values import Shape
from nldsl.library import PRIMITIVES
from nldsl.lowerings.optimizer_c import Native, Writer, elementwise, over_tensors, read, threaded, writes
from nldsl.plan.rule_guards import Guard, Step
from nldsl.plan.rules import RulePlan
from nldsl.spec.program import Apply, Value

GATHERS = {"sum": "sum", "mean": "mean", "dot": "sum", "largest": "largest"}
"""Primitives that gather a row, and what they make of it."""


@dataclass(frozen=True)
class Sum:
    """`out` adds up, over a whole weight, the product of `of`; a mean is divided by their number.

    The largest is none of sums, but gathered as they are.
    """

    out: Value
    of: tuple[Value, ...]
    kind: str

    @property
    def start(self) -> str:
        """What is gathered of no elements."""
        return "-INFINITY" if self.kind == "largest" else "0"

    def gathered(self, into: str, value: str) -> str:
        """The statement that takes one more value; what is no number stays, as in torch."""
        if self.kind == "largest":
            return f"{into} = {value} > {into} || {value} != {value} ? {value} : {into};"
        return f"{into} += {value};"


@dataclass(frozen=True)
class Loop:
    """Statements of one loop, numbers before elements; what it adds up, or nothing if it is the last."""

    numbers: tuple[Apply, ...]
    elements: tuple[Apply, ...]
    sums: tuple[Sum, ...]


class _NoSumsError(Exception):
    """Why a rule has no such form."""


def native(plan: RulePlan) -> Native:
    """A rule in C: as one loop, as loops with sums between them, or why it is neither."""
    return elementwise(plan) if plan.form == "elementwise" else by_passes(plan)


def by_passes(plan: RulePlan) -> Native:
    """The loops of a rule for one weight, or why there are none."""
    try:
        steps, sums = _read(plan)
        return Native(_text(plan, _loops(plan, steps, sums), sums))
    except _NoSumsError as reason:
        return Native(reason=str(reason))


def _read(plan: RulePlan) -> tuple[list[Apply], list[Sum]]:
    """Statements on elements and numbers, and the sums between them; raises where there is something else."""
    known = ((), plan.shape)
    if plan.averaged or any(m.shape not in (None, *known) for m in plan.memories):
        raise _NoSumsError(plan.reason)
    rows: dict[str, Apply] = {}
    steps, sums = list[Apply](), list[Sum]()
    for step in _straight(plan.body):
        if step.op in GATHERS:
            made = _sum(step, rows, plan.shape)
            if made is None:
                rows[step.out.name] = step
            else:
                sums.append(made)
            continue
        if not PRIMITIVES[step.op].elementwise or {v.shape for v in (step.out, *step.args)} - {*known}:
            raise _NoSumsError(plan.reason)
        steps.append(step)
    if any(v.shape not in known for v in (plan.weight, *(m.after for m in plan.memories))):
        raise _NoSumsError(plan.reason)
    return steps, sums


def _straight(body: Iterable[Step]) -> Iterator[Apply]:
    """The statements with both sides of every choice: a select in C costs less than a loop of its own."""
    for step in body:
        if isinstance(step, Guard):
            yield from _straight((*step.then, *step.otherwise))
            yield Apply(step.out, "where", (step.condition, step.yes, step.no))
        else:
            yield step


def _sum(step: Apply, rows: dict[str, Apply], shape: Shape) -> Sum | None:
    """The sum over a whole weight that a statement ends; nothing if it only begins one, row by row."""
    inner = rows.get(step.args[0].name)
    if inner is not None:
        # A mean of sums would need the lengths, which kernels of several shapes do not share.
        if GATHERS[inner.op] != GATHERS[step.op] or step.op == "dot":
            raise _NoSumsError(f"a `{step.op}` of a `{inner.op}` looks at rows")
        return Sum(step.out, inner.args, GATHERS[step.op])
    if any(a.shape != shape for a in step.args):
        raise _NoSumsError(f"`{step.op}` looks at more than one element")
    return Sum(step.out, step.args, GATHERS[step.op]) if len(shape) == 1 else None


def _loops(plan: RulePlan, steps: Sequence[Apply], sums: Sequence[Sum]) -> list[Loop]:
    """One loop for the sums that need as many other sums one after the other, and one that writes."""
    depth: dict[str, int] = {}
    made: dict[str, Apply | Sum] = {step.out.name: step for step in steps}
    made |= {one.out.name: one for one in sums}
    for out in (step.out.name for step in _straight(plan.body)):
        one = made.get(out)
        if one is not None:
            of = one.of if isinstance(one, Sum) else one.args
            depth[out] = max((depth.get(v.name, 0) for v in of), default=0) + isinstance(one, Sum)
    loops = []
    for level in range(1, max(depth.values(), default=0) + 1):
        own = tuple(s for s in sums if depth[s.out.name] == level)
        loops.append(_loop(steps, [v for s in own for v in s.of], own))
    return [*loops, _loop(steps, [plan.weight, *(m.after for m in plan.memories)], ())]


def _loop(steps: Sequence[Apply], wanted: Iterable[Value], sums: tuple[Sum, ...]) -> Loop:
    needed = {v.name for v in wanted}
    live: list[Apply] = []
    for step in reversed(steps):
        if step.out.name in needed:
            needed |= {a.name for a in step.args}
            live.insert(0, step)
    return Loop(tuple(s for s in live if not s.out.shape), tuple(s for s in live if s.out.shape), sums)


def _text(plan: RulePlan, loops: Sequence[Loop], sums: Sequence[Sum]) -> str:
    """A function for every loop, and one that calls them in turn for a tensor.

    What a thread has added up has a place of its own, so that sums do not depend on who was first.
    """
    writer = Writer(dict(plan.literals))
    place = {s.out.name: i for i, s in enumerate(sums)}
    size = len(plan.memories) + 2
    arguments = "long count, void **arrays, const double *numbers, const double *sums"
    functions, calls = list[str](), list[str]()
    for number, one in enumerate(loops):
        head, inside = _written(plan, writer, one, sums)
        last = not one.sums
        adds = [s.gathered(_sum_name(place[s.out.name]), _product(writer, s)) for s in one.sums]
        functions += [
            f"static void loop{number}(long from, long to, {arguments}{'' if last else ', double *own'}) {{",
            *head,
            *(f"  double {_sum_name(place[s.out.name])} = {s.start};" for s in one.sums),
            *_lanes(one, place),
            "  for (long i = from; i < to; i++) {",
            *(
                f"    {line}"
                for line in (*inside, *adds, *(writes(plan, writer, single=False) if last else ()))
            ),
            "  }",
            *(f"  own[{place[s.out.name]}] = {_sum_name(place[s.out.name])};" for s in one.sums),
            "}",
        ]
        passed = "count, arrays, numbers, sums"
        calls += threaded(f"loop{number}(FROM, TO, {passed}{'' if last else ', own + t * SUMS'});")
        for s in one.sums:
            at = place[s.out.name]
            taken = s.gathered(f"sums[{at}]", f"own[t * SUMS + {at}]")
            calls += [f"  sums[{at}] = {s.start};", f"  for (int t = 0; t < threads; t++) {taken}"]
    head, _ = _written(plan, writer, loops[-1], sums)
    behind = writes(plan, writer, single=True)
    whole = [
        "static int whole(long count, void **arrays, const double *numbers, int threads) {",
        "  if (count < 16384) threads = 1;",
        "  double sums[SUMS] = {0}, own[threads * SUMS];",
        *calls,
        *((*head, *(f"  {line}" for line in behind)) if behind else ()),
        "  return 0;",
        "}",
    ]
    return "\n".join(
        ["#include <tgmath.h>", f"#define SUMS {len(sums)}", *functions, *whole, *over_tensors(size), ""]
    )


def _lanes(one: Loop, place: Mapping[str, int]) -> list[str]:
    """A loop in lanes; the largest of lanes would lose what is no number, so that goes element by element."""
    if any(s.kind == "largest" for s in one.sums):
        return []
    names = ", ".join(_sum_name(place[s.out.name]) for s in one.sums)
    return ["#pragma omp simd" + (f" reduction(+ : {names})" if names else "")]


def _written(plan: RulePlan, writer: Writer, one: Loop, sums: Sequence[Sum]) -> tuple[list[str], list[str]]:
    """What stands before a loop, and the statements in it up to what it adds up or writes."""
    before, inside = read(plan, writer)
    for at, s in enumerate(sums):
        divided = f"sums[{at}] / count" if s.kind == "mean" else f"sums[{at}]"
        before.append(f"const real {writer.name(s.out)} = (real)({divided});")
    before += [_line(writer, step) for step in one.numbers]
    inside += [_line(writer, step) for step in one.elements]
    return [f"  {line}" for line in before], inside


def _line(writer: Writer, step: Apply) -> str:
    line = writer.line(step)
    if line is None:
        raise _NoSumsError(f"`{step.op}` has no form in C")
    return line


def _product(writer: Writer, one: Sum) -> str:
    return " * ".join(f"(double){writer.name(v)}" for v in one.of)


def _sum_name(place: int) -> str:
    return f"s{place}"
