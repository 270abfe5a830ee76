"""NL0609: the root of a sum of squares, which has no slope where all of them are zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nldsl.diagnostics import Diagnostic
from nldsl.source import Span
from nldsl.spec.program import Apply, Block, Value, Write, option

SAFE = frozenset({"exp", "softmax", "sigmoid", "softplus", "constant", "identity", "detach"})
"""What makes numbers of which some, or all, are certainly not zero, or that pass no gradient on."""


def root_findings(block: Block) -> Iterator[Diagnostic]:
    """Roots of one block, of the maps of its memories and of its objectives."""
    told: set[Span | None] = set()
    for body, place in _bodies(block):
        for step in _roots(body):
            span = step.span or place
            if span not in told:
                told.add(span)
                yield _finding(span)


def _finding(span: Span | None) -> Diagnostic:
    return Diagnostic(
        "NL0609",
        "the root of a sum of squares has no slope where all of them are zero: gradients become NaN",
        span,
        "zero for a vector of zeros",
        "warning",
        help="`sqrt(sum(x ** 2) + 1e-6)`; to divide by it write `l2norm(x)` (length one) or `norm(x)`",
    )


def _bodies(block: Block) -> Iterator[tuple[Sequence[object], Span | None]]:
    """Everything that is differentiated: statements, and where they are used."""
    yield block.body, block.span
    for memory in block.memories:
        if memory.function is not None:
            yield memory.function.body, memory.span
    for statement in block.body:
        for term in statement.terms if isinstance(statement, Write) and not statement.append else ():
            yield term.objective.body, statement.span


def _roots(body: Sequence[object]) -> Iterator[Apply]:
    """Roots whose number can be zero with a slope that is asked for."""
    steps = [step for step in body if isinstance(step, Apply)]
    makers = {step.out.name: step for step in steps}
    for step in steps:
        if not _is_root(step, makers) or not _squares(step.args[0], makers):
            continue
        users = [other for other in steps if step.out in other.args]
        if not users or any(user.op != "detach" for user in users):
            yield step


def _is_root(step: Apply, makers: dict[str, Apply]) -> bool:
    """`sqrt(s)`, `s ** 0.5`."""
    return step.op == "sqrt" or (step.op == "pow" and _number(step.args[1], makers) == 0.5)


def _squares(value: Value, makers: dict[str, Apply]) -> bool:
    """Whether a value is a sum or a mean of squares, times numbers, and zero where what is squared is."""
    step = makers.get(value.name)
    if step is None:
        return False
    if step.op in ("sum", "mean"):
        return _squares(step.args[0], makers)
    if step.op in ("mul", "div") and len(step.args) == 2:
        first, second = step.args
        if first == second:
            return step.op == "mul" and _may_be_zero(first, makers)
        if (_number(second, makers) or 0.0) > 0.0:
            return _squares(first, makers)
        return step.op == "mul" and (_number(first, makers) or 0.0) > 0.0 and _squares(second, makers)
    if step.op == "dot":
        return step.args[0] == step.args[1] and _may_be_zero(step.args[0], makers)
    power = _number(step.args[1], makers) if step.op == "pow" else None
    return power is not None and power > 1 and power % 2 == 0 and _may_be_zero(step.args[0], makers)


def _may_be_zero(value: Value, makers: dict[str, Apply]) -> bool:
    made = makers.get(value.name)
    return made is None or made.op not in SAFE


def _number(value: Value, makers: dict[str, Apply]) -> float | None:
    step = makers.get(value.name)
    found = option(step.options, "value") if step is not None and step.op == "constant" else None
    return float(found) if isinstance(found, int | float) else None
