"""An element-wise rule as one loop in C: every weight, gradient and memory is read once and written once.

The text is made of our own names and of numbers; nothing a specification says stands in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nldsl.plan.rule_guards import Guard
from nldsl.plan.rules import RulePlan
from nldsl.spec.program import Apply, Value

BINARY = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
COMPARED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
ONE_ARGUMENT: dict[str, str] = {
    "neg": "-{0}",
    "abs": "fabs({0})",
    "sqrt": "sqrt({0})",
    "exp": "exp({0})",
    "log": "log({0})",
    "tanh": "tanh({0})",
    "sin": "sin({0})",
    "cos": "cos({0})",
    "erf": "erf({0})",
    "sign": "(real)(({0} > 0) - ({0} < 0))",
    "relu": "({0} > 0 ? {0} : (real)0)",
    "sigmoid": "(real)1 / ((real)1 + exp(-{0}))",
    "silu": "{0} / ((real)1 + exp(-{0}))",
}
"""Functions of one number; `{0}` is a name."""


@dataclass(frozen=True)
class Native:
    """The C text of a rule, or why there is none.

    `step(tensors, sizes, arrays, numbers, threads)`: `arrays[0][t]` is the weight of tensor t, `arrays[1][t]`
    its gradient, and then come its memories in order.  The text of an element-wise rule reads a gradient as
    `TAKEN(..)`, which who compiles it may define, and says whether `found` was set.
    """

    text: str = ""
    reason: str = ""


@dataclass
class Writer:
    """Names of values in C, and statements on them."""

    literals: dict[str, float]
    known: dict[str, str] = field(default_factory=dict)

    def name(self, value: Value) -> str:
        """A literal, or a name of our own."""
        if value.name in self.literals:
            return f"((real){float(self.literals[value.name])!r})"
        return self.known.setdefault(value.name, f"v{len(self.known)}")

    def line(self, step: Apply) -> str | None:
        """One statement; nothing if it has no form in C."""
        args = [self.name(a) for a in step.args]
        found = _expression(step, args, self.literals)
        return None if found is None else f"const real {self.name(step.out)} = {found};"


def _expression(step: Apply, args: list[str], literals: dict[str, float]) -> str | None:
    if step.op in BINARY:
        return f"{args[0]} {BINARY[step.op]} {args[1]}"
    if step.op in COMPARED:
        return f"(real)({args[0]} {COMPARED[step.op]} {args[1]})"
    if step.op in ("maximum", "minimum"):
        sign = ">" if step.op == "maximum" else "<"
        return f"({args[0]} {sign} {args[1]} || {args[0]} != {args[0]}) ? {args[0]} : {args[1]}"
    if step.op == "where":
        return f"{args[0]} != 0 ? {args[1]} : {args[2]}"
    if step.op == "pow":
        return _power(args, literals.get(step.args[1].name))
    pattern = ONE_ARGUMENT.get(step.op)
    return None if pattern is None else pattern.format(args[0])


def _power(args: list[str], exponent: float | None) -> str:
    if exponent in (2, 3, 4):
        return " * ".join([args[0]] * int(exponent))
    return f"sqrt({args[0]})" if exponent == 0.5 else f"pow({args[0]}, {args[1]})"


def elementwise(plan: RulePlan) -> Native:
    """The loop of an element-wise rule."""
    writer = Writer(dict(plan.literals))
    before, inside = read(plan, writer, "TAKEN(a1[i])")
    steps = [s for s in plan.body if not isinstance(s, Guard)]
    for step in steps:
        line = writer.line(step)
        if line is None:
            return Native(reason=f"`{step.op}` has no form in C")
        (inside if step.out.shape else before).append(line)
    inside += writes(plan, writer, single=False)
    return Native(_text(len(plan.memories) + 2, before, inside, writes(plan, writer, single=True)))


def read(plan: RulePlan, writer: Writer, gradient: str = "a1[i]") -> tuple[list[str], list[str]]:
    """What a loop reads: arrays, numbers and memories that are one number before it, elements inside."""
    arrays = ["W", "g", *(m.before.name for m in plan.memories)]
    before = [f"real *restrict a{i} = (real *)arrays[{i}];" for i in range(len(arrays))]
    before += [f"const real {writer.name(v)} = (real)numbers[{i}];" for i, v in enumerate(plan.passed)]
    inside = list[str]()
    for i, (name, one) in enumerate(zip(arrays, _single(plan), strict=True)):
        element = gradient if i == 1 else f"a{i}[{0 if one else 'i'}]"
        line = f"const real {writer.name(Value(name, (), 'scalar'))} = {element};"
        (before if one else inside).append(line)
    return before, inside


def writes(plan: RulePlan, writer: Writer, single: bool) -> list[str]:
    """What is written: an element of the weight and of memories, or the memories that are one number."""
    results = [("a0", plan.weight), *((f"a{i + 2}", m.after) for i, m in enumerate(plan.memories))]
    one = [flag for i, flag in enumerate(_single(plan)) if i != 1]
    return [
        f"{array}[{0 if single else 'i'}] = {writer.name(value)};"
        for (array, value), flag in zip(results, one, strict=True)
        if flag is single
    ]


def _single(plan: RulePlan) -> list[bool]:
    """Which of weight, gradient and memories are one number."""
    return [False, False, *(m.shape == () for m in plan.memories)]


def _text(arrays: int, before: Iterable[str], inside: Iterable[str], after: Sequence[str]) -> str:
    """Four functions: a block of a tensor, a part of it in three streams, all parts, all tensors backwards.

    The loop stands in a function of its own: inside of a parallel region compilers forget what is constant.
    One stream waits for memory, eight compete for lines of the cache; three do not begin at the same place of
    a page, as two and four of a large tensor do.
    """
    head = [f"  {line}" for line in before]
    return "\n".join(
        [
            "#include <tgmath.h>",
            "#ifndef TAKEN",
            "#define TAKEN(x) (x)",
            "typedef int bits;",
            "#endif",
            "#define STREAMS 3",
            "#define BLOCK 128",
            "static int block(long from, long to, void **arrays, const double *numbers) {",
            *head,
            "  bits found = 0;",
            "#pragma omp simd reduction(| : found)",
            "  for (long i = from; i < to; i++) {",
            *(f"    {line}" for line in inside),
            "  }",
            "  return found != 0;",
            "}",
            "static int part(long from, long to, void **arrays, const double *numbers) {",
            "  const long each = (to - from) / (STREAMS * BLOCK) * BLOCK;",
            "  int found = 0;",
            "  for (long i = from; i < from + each; i += BLOCK)",
            "    for (int s = 0; s < STREAMS; s++)",
            "      found |= block(i + each * s, i + each * s + BLOCK, arrays, numbers);",
            "  return found | block(from + each * STREAMS, to, arrays, numbers);",
            "}",
            "static int whole(long count, void **arrays, const double *numbers, int threads) {",
            "  if (count < 16384) threads = 1;",
            "  int found = 0;",
            *threaded("found |= part(FROM, TO, arrays, numbers);", "reduction(| : found) "),
            # Memories that are one number are written when all parts have read them.
            *((*head, *(f"  {line}" for line in after)) if after else ()),
            "  return found;",
            "}",
            *over_tensors(arrays),
            "",
        ]
    )


def threaded(call: str, clause: str = "") -> list[str]:
    """Every thread `t` takes its part of a tensor, from `FROM` to `TO`."""
    end = "t + 1 < threads ? count / threads * (t + 1) : count"
    return [
        f"#pragma omp parallel for num_threads(threads) schedule(static) {clause}if (threads > 1)",
        "  for (int t = 0; t < threads; t++)",
        f"    {call.replace('FROM', 'count / threads * t').replace('TO', end)}",
    ]


def over_tensors(arrays: int) -> list[str]:
    """`step`: all tensors, the last one first; whether anything was found in one of them."""
    return [
        "int step(long tensors, const long *sizes, void ***arrays, const double *numbers, int threads) {",
        "  int found = 0;",
        "  for (long t = tensors - 1; t >= 0; t--) {",
        f"    void *own[{arrays}];",
        f"    for (int a = 0; a < {arrays}; a++) own[a] = arrays[a][t];",
        "    found |= whole(sizes[t], own, numbers, threads);",
        "  }",
        "  return found;",
        "}",
    ]
