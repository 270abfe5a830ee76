"""What a token does to a chunked memory, as one write: a scaling above it and several writes add up."""

from __future__ import annotations

from dataclasses import replace

from nldsl.plan.details import WeightStep
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Memory, Read, Statement, Update, Write


def one_write(memory: Memory, body: list[Statement]) -> Write | Refusal:
    """The write that a chunk is filled with; if it is made of several statements, its steps have to fit.

    With gradients held at a base `M *= a` above a write is `retain a`, and writes one after the other add up.
    """
    mine = [s for s in body if isinstance(s, Write | Update | Read) and s.memory == memory.name]
    writes = [s for s in mine if isinstance(s, Write)]
    scales = [s for s in mine if isinstance(s, Update)]
    if not writes:
        return Refusal("0 writes per token")
    if len(writes) == 1 and not scales:
        return writes[0]
    moves = [i for i, s in enumerate(mine) if not isinstance(s, Read)]
    if memory.clock.every == 1 and moves != list(range(moves[0], moves[0] + len(moves))):
        return Refusal("reads of a running state stand between what changes it")
    if any(s.op != "scale" for s in scales):
        return Refusal("an update that is no scaling lies on the way back to it")
    if len(scales) > 1 or (scales and mine.index(scales[0]) > mine.index(writes[0])):
        return Refusal("it is scaled twice, or below a write")
    first, *rest = writes
    if scales and first.retain is not None:
        return Refusal("it is scaled twice, or below a write")
    if scales:
        scale = scales[0]
        first = replace(
            first, retain=scale.value, retain_axis=scale.axis, retain_log=scale.value_log, toward="zero"
        )
    if any(w.retain is not None or _clauses(w) != _clauses(first) or w.at_commit for w in rest):
        return Refusal(f"{len(writes)} writes per token, that decay or look back differently")
    if (scales or rest) and (first.at_commit or first.project is not None):
        return Refusal("a rule at the commit, or a projection, beside other changes")
    return replace(first, terms=tuple(t for w in writes for t in w.terms))


def fits(memory: Memory, body: list[Statement], steps: tuple[tuple[WeightStep, ...], ...]) -> Refusal | None:
    """A rule that looks at the weight would see it scaled, or after the write above."""
    changes = [s for s in body if isinstance(s, Write | Update) and s.memory == memory.name]
    if len(changes) == 1:
        return None
    looks = any(_looks(s) for term in steps for s in term)
    return Refusal("its rule looks at the weight, between several changes of a token") if looks else None


def _looks(step: WeightStep) -> bool:
    if step.states is not None:
        return not step.states.adds_only
    return step.erases or step.keep is not None or step.dual is not None


def _clauses(write: Write) -> tuple[object, ...]:
    return write.toward, write.base_every, write.project
