"""Warnings about writes: NL0430 and NL0431 blow up, NL0432 can only collapse, NL0433 changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nldsl.calculus.letters import letter
from nldsl.calculus.ranges import range_of
from nldsl.diagnostics import Diagnostic, Label
from nldsl.graph.problems import written_pair
from nldsl.review.fate import Fading, fading, fading_finding, idle_clause
from nldsl.review.rates import Blowup, blowup
from nldsl.review.steps import Step, steps_of
from nldsl.source import Span
from nldsl.spec.program import Apply, Block, Memory, Write

_RULE = re.compile(r"\bby\s+(\w+\s*\()")


def write_findings(block: Block) -> Iterator[Diagnostic]:
    """What the writes of one block do wrong; the targets of one `write each` share a finding."""
    memories = {m.name: m for m in block.memories}
    groups: dict[object, list[tuple[Memory, Write]]] = {}
    for statement in block.body:
        if isinstance(statement, Write):
            place = statement.terms[0].span if statement.terms else statement.span
            groups.setdefault(place, []).append((memories[statement.memory], statement))
    for group in groups.values():
        yield from _rates(block, group)
        yield from _clauses(block, group)
    faded: dict[object, list[Fading]] = {}
    for memory in block.memories:
        found = fading(block, memory)
        if found is not None:
            faded.setdefault(found.span, []).append(found)
    yield from (fading_finding(group) for group in faded.values())


def _clauses(block: Block, group: list[tuple[Memory, Write]]) -> Iterator[Diagnostic]:
    """A clause without effect is reported if it has none for any of the targets."""
    found = [list(idle_clause(block, memory, write)) for memory, write in group]
    if all(found):
        yield from found[0]


def _rates(block: Block, group: list[tuple[Memory, Write]]) -> Iterator[Diagnostic]:
    """The worst step of all targets and weights."""
    worst: dict[str, Blowup] = {}
    for memory, write in group:
        written = written_pair(write.terms[0])[0] if write.terms else "k"
        key = written if written.isidentifier() else "k"
        for step in steps_of(block, memory, write):
            found = blowup(step, key)
            if found is not None and (memory.name not in worst or _worse(found, worst[memory.name])):
                worst[memory.name] = found
    if worst:
        names = list(worst)
        first = max(names, key=lambda n: (not worst[n].stale, worst[n].step.chunk))
        yield _diagnostic(block, group[0][1], first, [n for n in names if n != first], worst[first])


def _worse(one: Blowup, other: Blowup) -> bool:
    """What blows up at once before what does so over a chunk; along the key before other inputs."""
    return (not one.stale, one.step.fed_by_key, one.excess) > (
        not other.stale,
        other.step.fed_by_key,
        other.excess,
    )


def _diagnostic(block: Block, write: Write, memory: str, others: list[str], found: Blowup) -> Diagnostic:
    term = write.terms[0]
    span = rule_span(term.span)
    letter_of = "its key" if found.step.fed_by_key else f"the input `z` of its weight `{found.step.weight}`"
    between = f"between {_number(found.low)} and {_number(found.high)}"
    if found.stale and found.step.chunk > 1:
        message = (
            f"the gradient of `{memory}` is up to {found.step.chunk} tokens old: as many tokens with one key "
            f"multiply what it holds by a number {between}"
        )
    elif found.step.momentum is not None:
        message = (
            f"the steps of `{memory}` along {letter_of}, `{found.factor}`, are too large for its momentum"
        )
    elif found.cause == "gate":
        kept = range_of(found.step.bound(found.step.keep), found.step.known)
        between = f"between {_number(kept.low)} and {_number(kept.high)}"
        by = _number(kept.low) if kept.low == kept.high else f"a number {between}"
        message = f"a token multiplies what `{memory}` holds away from {letter_of} by {by}"
    else:
        known = found.factor.lstrip("-").replace(".", "").isdigit()
        by = found.factor if known else f"`{found.factor}`, {between}"
        message = f"a write multiplies what `{memory}` holds along {letter_of} by {by}"
    notes = [f"the same holds for {', '.join(f'`{n}`' for n in others)}"] if others else []
    if found.stale and found.limit and found.rate:
        notes.insert(0, f"admissible: 0 < `{found.rate}` < {found.limit}, if the key has length one")
    return Diagnostic(
        "NL0431" if found.stale and found.step.chunk > 1 else "NL0430",
        message,
        span,
        "can blow up",
        "warning",
        secondary=tuple(_origins(block, found.step)),
        notes=tuple(notes),
        help=_advice(found, written_pair(term)[0]),
    )


def rule_span(term: Span | None) -> Span | None:
    """Where the rule stands in a term, the whole term if that cannot be seen."""
    match = _RULE.search(term.text) if term is not None else None
    if term is None or match is None:
        return term
    depth, end = 0, match.end()
    for end in range(match.end() - 1, len(term.text)):
        depth += (term.text[end] == "(") - (term.text[end] == ")")
        if depth == 0:
            break
    return Span(term.file, term.start + match.start(1), term.start + end + 1)


def _number(value: float) -> str:
    if value in (float("inf"), float("-inf")):
        return "plus infinity" if value > 0 else "minus infinity"
    return f"{round(value, 2):g}" if abs(value) < 1e4 else f"{value:.0e}"


def _origins(block: Block, step: Step) -> Iterator[Label]:
    """Where the gates and rates are computed, with the range of each."""
    from_name: dict[str, Span] = {
        letter(block, s.out): s.span for s in block.body if isinstance(s, Apply) and s.span is not None
    }
    for gate, expr in step.gates.items():
        if gate.name in from_name:
            yield Label(from_name[gate.name], f"`{gate.name}` is {step.range_words(expr)}")


def _never_negative(step: Step) -> bool:
    """Whether no rate of a write can be below zero."""
    rates = (range_of(step.bound(rate), step.known).low for rate in step.rates)
    return all(low >= 0.0 for low in rates) and all(value >= 0.0 for _, value in step.fixed)


def _advice(found: Blowup, key: str) -> str:
    """What to write instead."""
    rate = found.rate or "the rate"
    if found.cause == "gate":
        return "keep what is retained at most one: `retain sigmoid(...)` or `retain exp(-softplus(...))`"
    if found.cause == "sign" and _never_negative(found.step):
        return (
            "the objective pays for a larger answer: give it a penalty such as `sum(pred ** 2)`, or let the "
            "retention outweigh the rate"
        )
    if found.cause == "sign":
        return f"a rate below zero pushes away from the target; bound it: `{rate} = sigmoid(...)`"
    if found.cause.startswith("key"):
        if not found.step.fed_by_key:
            return (
                "nothing bounds `||z||^2`, so let the rate divide by it: "
                '`dgd(..., rate = "normalised")` or `proximal(...)`'
            )
        return (
            f"the key `{key}` is not normalised, so nothing bounds `||{key}||^2`: use `l2norm({key})` "
            "as the key, or a rule that divides by it, such as `proximal(...)`"
        )
    if not found.limit:
        return "make the rate smaller, or let it depend on the gate"
    bounded = f"`{rate} = {_times(found.limit)}sigmoid(...)`"
    if not found.step.rates and _is_number(found.limit):
        return f"use `{rate} = {_below(found.limit)}` or less"
    if not found.step.rates:
        return f"keep `{rate}` below `{found.limit}` for every value of the gate"
    return f"keep `{rate}` below `{found.limit}`, for example {bounded}"


def _is_number(limit: str) -> bool:
    """Whether a limit is a number, and not an expression over a gate."""
    return not any(c.isalpha() for c in limit.replace("e-", "").replace("e+", ""))


def _below(limit: str) -> str:
    """A limit may not be reached; half of it is safe."""
    return f"{float(limit) / 2:.3g}"


def _times(limit: str) -> str:
    return f"({limit}) * " if " " in limit else ("" if limit == "1" else f"{limit} * ")
