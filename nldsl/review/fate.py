"""What becomes of a memory in the long run, and clauses that say nothing.

NL0432: a memory that can only collapse.  NL0433: a write that changes nothing.  NL0434: a clause without
effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nldsl.calculus import gate_expression, update_class
from nldsl.calculus.affine import scalar_value
from nldsl.calculus.ranges import range_of
from nldsl.diagnostics import Diagnostic, Label
from nldsl.review.steps import steps_of
from nldsl.source import Span
from nldsl.spec.program import Apply, Block, Memory, Read, Term, Update, Value, Write
from nldsl.spec.repairs import drop_clause

_HOMOGENEOUS = frozenset(
    {
        "split",
        "merge",
        "detach",
        "neg",
        "mul",
        "div",
        "parts",
        "rope",
        "stretched_rope",
        "silu",
        "relu",
        "gelu",
        "tanh",
        "transpose",
    }
)
"""Operations whose result vanishes with their first argument."""


@dataclass(frozen=True)
class Fading:
    """Why a memory can only lose what it starts with, and where that is written."""

    memory: Memory
    reason: str
    span: Span | None
    advice: str


def fading(block: Block, memory: Memory) -> Fading | None:
    """Whether nothing new can ever enter a memory while what it holds shrinks."""
    writes = [s for s in block.body if isinstance(s, Write) and s.memory == memory.name and not s.append]
    updates = [s for s in block.body if isinstance(s, Update) and s.memory == memory.name]
    if memory.function is None or any(u.op != "scale" for u in updates) or not (writes or updates):
        return None
    reasons = [_empty(block, memory, w, t) for w in writes for t in w.terms]
    if not all(reasons):
        return None
    shrinks = any(_shrinks(block, u.value) for u in updates)
    if not reasons and not shrinks:
        return None
    span = (writes[0].terms[0].span or writes[0].span) if writes else updates[0].span
    reason = reasons[0] if reasons else "it is only scaled, and nothing is ever written"
    return Fading(memory, reason, span, _way_out(memory, writes))


def fading_finding(group: list[Fading]) -> Diagnostic:
    """NL0432 for the memories that one statement lets fade."""
    first, names = group[0], [f.memory.name for f in group]
    start = (Label(first.memory.span, "starts here"),) if first.memory.span is not None else ()
    others = (f"the same holds for {', '.join(f'`{n}`' for n in names[1:])}",) if names[1:] else ()
    return Diagnostic(
        "NL0432",
        f"memory `{names[0]}` can only collapse: {first.reason}",
        first.span,
        "stays zero" if first.memory.init == "zero" else "fades, and nothing new comes in",
        "warning",
        secondary=start if first.span != first.memory.span else (),
        notes=others,
        help=first.advice,
    )


def _way_out(memory: Memory, writes: list[Write]) -> str:
    if not writes:
        return f"write to it: `{memory.name.split('[')[0]}[k] <- v by gd(lr = 0.1)`"
    if memory.init == "learned":
        return (
            "decay toward the start, `retain alpha toward init`, or write a target that comes from the input"
        )
    return "write a target that comes from the input, or normalise the memory's own: `l2norm(self[v])`"


def _empty(block: Block, memory: Memory, write: Write, term: Term) -> str:
    """Why a term brings nothing new into its memory while it shrinks; empty if that is not so."""
    if write.toward == "init" or write.project or write.at_commit:
        return ""
    if any(slope < 0.0 for slope in _slopes(memory, write)) or _sees_memory(memory, write):
        return ""  # The objective may pay for large answers or weights.
    pulls = _pulls(memory, write)
    decays = (write.retain is not None and _shrinks(block, write.retain)) or _erases(block, memory, write)
    fixed = gate_expression(block, term.target) if term.target.kind == "scalar" else None
    told = fixed is not None and scalar_value(fixed) == 0.0
    if told and pulls and not decays and not _vanishes(memory):
        return ""  # Weights of zero are no answer of zero: reflections of `z + W z` turn and keep its length.
    if told and (pulls or decays):
        return "the only thing it is told to hold is zero"
    # A step toward the memory's own answer, above or below a scaling, never makes up for the scaling.
    scaled = pulls and any(
        isinstance(s, Update) and s.memory == memory.name and _shrinks(block, s.value) for s in block.body
    )
    if (decays or scaled) and _own_answer(block, memory, term.target) and _vanishes(memory):
        return "its target is its own answer, which vanishes with it"
    return ""


def _vanishes(memory: Memory) -> bool:
    """Whether the memory answers zero to everything when its weights are zero."""
    assert memory.function is not None
    zero = {w.name for w in memory.function.weights}
    for step in memory.function.body:
        hit = [a.name in zero for a in step.args]
        if step.op in ("add", "sub", "concat"):
            gone = all(hit)
        elif step.op in ("mul", "matmul"):
            gone = any(hit)
        else:
            gone = bool(hit) and hit[0] and step.op in _HOMOGENEOUS
        if gone:
            zero.add(step.out.name)
    return all(out.name in zero for out in memory.function.outputs)


def _shrinks(block: Block, gate: Value) -> bool:
    """Whether a gate never enlarges and sometimes shrinks."""
    found = range_of(gate_expression(block, gate))
    return found.low >= -1.0 and found.high <= 1.0 and not found.low == found.high == 1.0


def _sees_memory(memory: Memory, write: Write) -> bool:
    """Whether an objective depends on the memory beyond its answer."""
    gradients = [t.gradient for t in update_class(memory, write).terms]
    return any(g is not None and g.sees_memory for g in gradients)


def _pulls(memory: Memory, write: Write) -> bool:
    """Whether the objective's gradient draws the prediction to where it vanishes."""
    return any(slope > 0.0 for slope in _slopes(memory, write))


def _slopes(memory: Memory, write: Write) -> list[float]:
    """How steeply the gradient of each term rises with the prediction, where that is a number."""
    slopes = [t.slope for t in update_class(memory, write).terms if t.slope is not None]
    return [value for slope in slopes if (value := scalar_value(slope)) is not None]


def _erases(block: Block, memory: Memory, write: Write) -> bool:
    """Whether the rule erases, whatever the target is."""
    return any(scalar_value(s.pull) != 0.0 for s in steps_of(block, memory, write))


def _own_answer(block: Block, memory: Memory, target: Value) -> bool:
    """Whether a target is a read of the same memory, by nothing but what keeps zero at zero."""
    makers: dict[str, Apply | Read] = {s.out.name: s for s in block.body if isinstance(s, Apply | Read)}
    pending, seen = [target.name], set[str]()
    while pending:
        maker = makers.get(pending.pop())
        if isinstance(maker, Read) and maker.memory == memory.name:
            return True
        if isinstance(maker, Apply) and maker.op in _HOMOGENEOUS and maker.out.name not in seen:
            seen.add(maker.out.name)
            pending += [a.name for a in (maker.args if maker.op == "mul" else maker.args[:1])]
    return False


# --- clauses -----------------------------------------------------------------------------------------


def idle_clause(block: Block, memory: Memory, write: Write) -> Iterator[Diagnostic]:
    """NL0433 and NL0434 for one write."""
    if write.append or not write.terms:
        return
    term = write.terms[0]
    if len(write.terms) == 1 and term.weight is None and _still(block, memory, write, term):
        yield Diagnostic(
            "NL0433",
            f"this write never changes `{memory.name}`: {_still(block, memory, write, term)}",
            _whole(write, term),
            "changes nothing",
            "warning",
            help="give it a rate above zero and a target that differs from what the memory answers",
        )
    if write.toward == "init" and memory.init == "zero":
        yield _idle(
            write,
            "toward",
            f"`toward init` has no effect: `{memory.name}` starts at zero",
            "leave it out, or declare `init learned`",
        )
    elif write.toward == "init" and _ignores_start(block, memory, write):
        yield _idle(
            write,
            "toward",
            "`toward init` has no effect: nothing decays and the rule erases nothing",
            "leave it out, or add `retain alpha`",
        )
    if write.retain is not None and scalar_value(gate_expression(block, write.retain)) == 1.0:
        yield _idle(write, "retain", "`retain` of one keeps everything: it has no effect", "leave it out")
    if _own_base(memory, write) and _constant_gradient(memory, write):
        yield _idle(
            write,
            "gradient",
            "`gradient every` has no effect: the gradient does not depend on what the memory holds",
            "leave it out, or minimise `l2`, whose gradient does",
        )


def _whole(write: Write, term: Term) -> Span | None:
    """The statement if it is one line, else the term."""
    return term.span if write.span is None or "\n" in write.span.text else write.span


def _idle(write: Write, word: str, message: str, advice: str) -> Diagnostic:
    edit = drop_clause(write.span, word)
    return Diagnostic(
        "NL0434", message, clause_span(write, word), "no effect", "warning", help=advice, edit=edit
    )


def clause_span(write: Write, word: str) -> Span | None:
    """The word that begins a clause of a write; the write itself if it cannot be found once."""
    span = write.span
    if span is None or span.text.count(f"{word} ") != 1:
        return span
    at = span.start + span.text.index(f"{word} ")
    return Span(span.file, at, at + len(word))


def _still(block: Block, memory: Memory, write: Write, term: Term) -> str:
    """Why a write changes nothing; empty if it may."""
    rates = [v for n, v in term.rule.arguments if n == "lr"]
    fixed = dict(term.rule.static).get("lr")
    zero = rates and scalar_value(gate_expression(block, rates[0])) == 0.0
    if (zero or fixed == 0) and write.retain is None and not isinstance(fixed, bool):
        return "its rate is zero"
    reads = {s.out.name: s for s in block.body if isinstance(s, Read)}
    same = reads.get(term.target.name)
    if same is not None and same.memory == memory.name and same.key == term.key and write.retain is None:
        online = memory.clock.every == 1 and write.base_every == 1
        if (
            online
            and _pulls(memory, write)
            and not _erases(block, memory, write)
            and _nothing_between(block, same, write)
        ):
            return "the target is what the memory answers to this key already"
    return ""


def _nothing_between(block: Block, read: Read, write: Write) -> bool:
    """Whether the memory is the same at the read and at the write."""
    first, last = block.body.index(read), block.body.index(write)
    return first < last and not any(
        isinstance(s, Write | Update) and s.memory == write.memory for s in block.body[first:last]
    )


def _ignores_start(block: Block, memory: Memory, write: Write) -> bool:
    """Without decay, and with a rule that only adds, what decays toward the start is nothing."""
    steps = steps_of(block, memory, write)
    weights = len(memory.function.weights) if memory.function is not None else 0
    return (
        write.retain is None
        and len(steps) == weights > 0
        and all(scalar_value(s.keep) == 1.0 and scalar_value(s.pull) == 0.0 for s in steps)
    )


def _own_base(memory: Memory, write: Write) -> bool:
    return write.base_every != max(memory.clock.every, 1)


def _constant_gradient(memory: Memory, write: Write) -> bool:
    """Whether base states do not matter: a linear map, and an objective without curvature."""
    classes = update_class(memory, write).terms
    return bool(classes) and all(t.dependence == "constant" and t.linear is not None for t in classes)
