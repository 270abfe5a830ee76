"""Chunks that need no tape: maps, gradients and their ways back in closed form, steps that only fade."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.calculus.differentiate import NotDifferentiableError, gradient
from nldsl.calculus.expression import Expr, symbols
from nldsl.calculus.gradient_size import looks_at_gradient
from nldsl.calculus.lift import parameter_symbol
from nldsl.calculus.pullback import Pullback, answers, factors, gain_arguments
from nldsl.plan import chunk
from nldsl.plan.details import ChunkDetail, ChunkMemory, WeightStep
from nldsl.plan.steps import commit_steps
from nldsl.plan.units import feeds_itself
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Block, Memory, Read, Value, Write


@dataclass(frozen=True)
class HeldDetail(ChunkDetail):
    """A chunked unit of one memory that runs in one pass: its reads, and the ways back.

    `before`: which reads of a running state see it in front of their token's write.  `scaled`: rates look at
    the inputs of weights and stand in front of the gradients already, with these `arguments` of the rule.
    `step`: how every weight steps, at every token or at the commit.
    """

    reads: tuple[Read, ...] = ()
    step: WeightStep | None = None
    before: tuple[bool, ...] = ()
    scaled: bool = False
    arguments: tuple[str, ...] = ()
    answer: Pullback | None = None
    gradient: Pullback | None = None


def recognise(block: Block, statements: tuple[int, ...]) -> tuple[HeldDetail, str] | Refusal:
    """One memory, one term, everything outside of it known before; reads and gradients at the last commit."""
    found = chunk.recognise(block, statements)
    if isinstance(found, Refusal):
        return found
    detail, _ = found
    body = [block.body[i] for i in statements]
    if len(detail.members) != 1 or detail.caches:
        return Refusal("several memories side by side")
    member = detail.members[0]
    if any(not isinstance(s, Read | Write) for s in body) or feeds_itself(block, statements):
        return Refusal("a memory that makes its own keys, targets or gates")
    reads = tuple(s for s in body if isinstance(s, Read))
    steps = commit_steps(member.memory, member.write) if member.write.at_commit else member.steps[0]
    if isinstance(steps, Refusal):
        return steps
    refusal = _when(member) or _rows(member, reads) or _steps(member, steps)
    if refusal is not None:
        return refusal
    gains = _gains(steps)
    if gains and member.write.terms[0].window > 1:
        return Refusal("a rate that looks at the input of the weight, over several tokens")
    ways = _ways_back(member.memory, member.write, gains)
    if isinstance(ways, Refusal):
        return ways
    written = next(i for i, s in enumerate(body) if isinstance(s, Write))
    before = tuple(i < written for i, s in enumerate(body) if isinstance(s, Read))
    parts = (detail.grid, detail.members, detail.families, detail.incoming, detail.outgoing)
    how = (reads, steps[0], before, bool(gains), tuple(s.name for s in gain_arguments(gains)))
    return HeldDetail(*parts, (), False, *how, *ways), _reason(member, detail.grid)


def _reason(member: ChunkMemory, grid: int) -> str:
    seen = (
        f"gradients are held at a base, reads of `{member.memory.name}` follow"
        if member.live
        else "reads and gradients see the last commit"
    )
    if member.write.at_commit:
        seen += ", where the rule runs on the sum of a chunk's gradients"
    return (
        f"{seen}: {grid} tokens are parallel, and all chunks are one function whose way back is derived, not "
        "recorded"
    )


def _when(member: ChunkMemory) -> Refusal | None:
    memory, write = member.memory, member.write
    problems = (
        (
            not member.live and write.base_every != memory.clock.every,
            "gradients at another clock than reads",
        ),
        (member.mirrored, "a rule that steps in a dual"),
        (memory.reset != "sequence", "a memory that resets by its own clock"),
        (memory.init in ("from", "first"), "an initial state that is no plain parameter"),
        (
            write.toward == "init" and len({p is None for p in memory.initial}) > 1,
            "retention toward an initial state of which some weights are learned",
        ),
        (write.project is not None, "a write that projects its weights"),
        (write.retain_axis != "scalar", f"retention per {write.retain_axis} channel"),
        (len(write.terms) != 1, "several terms"),
    )
    return next((Refusal(reason) for found, reason in problems if found), None)


def _rows(member: ChunkMemory, reads: tuple[Read, ...]) -> Refusal | None:
    """Every copy of the memory has rows of its own, and gates are one number per copy."""
    memory, term = member.memory, member.write.terms[0]
    assert memory.function is not None
    kind, heads = ("headed", memory.heads) if memory.per_head else ("vector", 1)
    for value in (*(r.key for r in reads), term.key, term.target):
        if value.kind != kind or (kind == "headed" and value.shape[0] != heads):
            return Refusal(f"`{value.name}` is not one row per copy and token")
    gates = [v for v in (member.write.retain, *(v for _, v in term.rule.arguments)) if v is not None]
    if any(not _number(v, memory) for v in gates):
        return Refusal("a gate or rate that is not one number per copy")
    return None


def _number(value: Value, memory: Memory) -> bool:
    return not value.shape or (memory.per_head and value.kind == "vector" and value.shape == (memory.heads,))


def _steps(member: ChunkMemory, steps: tuple[WeightStep, ...]) -> Refusal | None:
    """Every weight fades alike, by numbers that do not look at its input; rates may."""
    at_commit = member.write.at_commit
    if member.mixed:
        return Refusal("a rule whose memories mix with the weight")
    if any(looks_at_gradient(*_coefficients(s)) for s in steps):
        return Refusal("a rate that looks at the size of the gradient")
    if any(s.constant for s in steps):
        return Refusal("a gradient with a part that is the same for every token")
    # Once in a chunk a rule may scale the weight: there is no product of such numbers.
    scales = any(s.keep is not None for s in steps) and not at_commit
    if scales or any(s.erases or s.products > 1 for s in steps):
        return Refusal("a rule that erases or scales the weight, or a gradient of several outer products")
    both = at_commit or any(s.rate is not None and s.momentum is not None for s in steps)
    alike = [_coefficients(s) if both else _filter(s) for s in steps]
    if any(_looks(e) for numbers in alike for e in numbers):
        return Refusal("a filter, or one of two rates, that looks at the input of the weight")
    if len(set(alike)) != 1:
        return Refusal("weights that step at different rates")
    slots = member.write.terms[0].rule.slots
    expected = 0 if steps[0].momentum is None else 1
    plain = all(s.shape is None and s.clock is None and not s.visible for s in slots)
    if len(slots) != expected or not plain:
        return Refusal("a rule that keeps more than one momentum of every weight")
    return None


def _coefficients(step: WeightStep) -> tuple[Expr | None, ...]:
    """What is left of the weight; rate; beta, rate and reading of the momentum."""
    m = step.momentum
    return (step.keep, step.rate, *((None, None, None) if m is None else (m.beta, m.rate, m.read)))


def _filter(step: WeightStep) -> tuple[Expr | None, ...]:
    """What stands between the one rate of a weight and the weight: nothing, or a momentum."""
    return (None, None) if step.momentum is None else (step.momentum.beta, step.momentum.read)


def _looks(expr: Expr | None) -> bool:
    return expr is not None and any((s.role, s.name) == ("rule", "x") for s in symbols(expr))


def _gains(steps: tuple[WeightStep, ...]) -> tuple[Expr, ...]:
    """The one rate of every weight, where it is not the same number for all of them."""
    rates = [s.rate if s.momentum is None else s.momentum.rate for s in steps]
    found = tuple(r for r in rates if r is not None)
    return found if any(_looks(r) for r in found) or len(set(found)) > 1 else ()


def _ways_back(memory: Memory, write: Write, gains: tuple[Expr, ...]) -> tuple[Pullback, Pullback] | Refusal:
    assert memory.function is not None
    try:
        found = gradient(memory.function, write.terms[0].objective)
        slow = [parameter_symbol(p) for a in memory.function.body for p in a.parameters]
        ways = answers(found, slow), factors(found, gains, slow)
    except NotDifferentiableError as error:
        return Refusal(str(error))
    for way in ways:
        if isinstance(way, str):
            return Refusal(way)
    return ways  # type: ignore[return-value]
