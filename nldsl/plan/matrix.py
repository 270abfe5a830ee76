"""Matrix memories on clock 1, recognised by what their writes compute: classes D, R and filtered R."""

from __future__ import annotations

from nldsl.calculus.expression import SYMBOL
from nldsl.calculus.pieces import NotRankOneError, Side, TermForm, stacked_forms
from nldsl.calculus.stacks import StackedMap
from nldsl.plan.gates import logarithm_of
from nldsl.plan.matrix_form import (
    Filtered,
    Held,
    MatrixDetail,
    MatrixMember,
    WriteStep,
    fades_across,
    fades_along,
    has_channels,
    writes_of,
)
from nldsl.plan.matrix_sides import axis_of, side_of
from nldsl.plan.units import feeds_itself, memories_of
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Block, Memory, Read, Statement, Update, Write


def recognise(block: Block, statements: tuple[int, ...]) -> tuple[MatrixDetail, str] | Refusal:
    """Memories of one matrix, written every token by rank-one pieces; reads anywhere, through `solve` too."""
    memories = memories_of(block, statements)
    body = [block.body[i] for i in statements]
    if any(m.function is None for m in memories):
        return Refusal("not one memory with weights")
    if feeds_itself(block, statements):
        return Refusal("what it reads feeds its own keys, values or gates")
    if any(not isinstance(s, Read | Write | Update) for s in body):
        return Refusal("it is changed by more than writes")
    members = []
    for memory in memories:
        try:
            members += _members(block, memory, body)
        except NotRankOneError as reason:
            return Refusal(str(reason) if len(memories) == 1 else f"`{memory.name}`: {reason}")
    refusal = _solves(members, body)
    if refusal is not None:
        return refusal
    reads = tuple((s, *_above(s, body)) for s in body if isinstance(s, Read))
    detail = MatrixDetail(tuple(members), reads)
    return detail, reason_of(detail)


def _above(read: Read, body: list[Statement]) -> tuple[int, int]:
    """Steps of its memory, and of the one it solves with, that stand above a read."""
    before = body[: next(i for i, s in enumerate(body) if s is read)]
    changes = [s.memory for s in before if isinstance(s, Write | Update)]
    return changes.count(read.memory), changes.count(read.solve[0]) if read.solve else 0


def _solves(members: list[MatrixMember], body: list[Statement]) -> Refusal | None:
    by_name = {m.memory.name: m for m in members}
    solved = [s.solve[0] for s in body if isinstance(s, Read) and s.solve]
    if any(name not in by_name for s in body if isinstance(s, Read) for name in (s.memory, *_solver(s))):
        return Refusal("a read through `solve` with a memory that is never written")
    if len(by_name) > 1 and any(m.elementwise for m in members):
        return Refusal("a read through `solve` with a gate per element")
    if any(s.solve[2] == 0 for s in body if isinstance(s, Read) and s.solve):
        return Refusal("`solve` with `iterations = 0`, exact at every token (`iterations = 8` is parallel)")
    for name in solved:
        member = by_name[name]
        read = member.map
        if member.elementwise or member.memory.key_size != member.memory.value_size:
            return Refusal(f"`solve` needs a square matrix with gates per head or channel, `{name}` is none")
        if not read.plain or read.result.op != SYMBOL or read.questions[0].asked.op != SYMBOL:
            return Refusal(f"`solve` needs the matrix itself, `{name}` has a map around it")
    return None


def _solver(read: Read) -> tuple[str, ...]:
    return (read.solve[0],) if read.solve else ()


def _members(block: Block, memory: Memory, body: list[Statement]) -> list[MatrixMember]:
    """The matrices that a memory is, each with its own steps.

    Errors: `NotRankOneError`.
    """
    changes = [s for s in body if isinstance(s, Write | Update) and s.memory == memory.name]
    assert memory.function is not None
    _check(memory, changes)
    start = memory.initial[0] is not None and any(
        isinstance(s, Write) and s.toward == "init" for s in changes
    )
    if start and any(isinstance(s, Update) or s.toward != "init" for s in changes):
        raise NotRankOneError("some steps pull toward zero and some toward the initial state")
    terms = [t for s in changes if isinstance(s, Write) for t in s.terms]
    told, forms = stacked_forms(memory, terms, start)
    if not told.plain and {axis_of(s) for s in changes} - {None, "scalar"}:
        raise NotRankOneError(
            "gates per channel act on one matrix, and its map is made of several or asks it twice"
        )
    found = []
    for place, own in enumerate(forms):
        of = {id(t): f for t, f in zip(terms, own, strict=True)}
        each = {id(s): tuple(of[id(t)] for t in s.terms) for s in changes if isinstance(s, Write)}
        found.append(_member(block, (memory, told, place), changes, each, start))
    return found


def _member(
    block: Block,
    whose: tuple[Memory, StackedMap, int],
    changes: list[Write | Update],
    forms: dict[int, tuple[TermForm, ...]],
    start: bool,
) -> MatrixMember:
    """One matrix of a memory; `forms` of every write.

    Errors: `NotRankOneError`.
    """
    every = [f for group in forms.values() for f in group]
    axes = {a for s in changes if (a := axis_of(s)) is not None}
    side, elementwise = side_of(changes, forms)
    steps = tuple(s if isinstance(s, Update) else _write_step(s, forms[id(s)], side) for s in changes)
    if not any(f.pieces for f in every):
        raise NotRankOneError("the objective does not depend on the memory: nothing is written")
    momentum = _momentum(block, steps, axes, side)
    held = _held(steps) if momentum is None else ()
    if held and axes & {"key", "value"} and _erases(every) and not elementwise:
        raise NotRankOneError(
            "momentum with gates per channel makes every channel a filter of its own, and with an erase "
            "their chunks take about as long as one token after the other"
        )
    window = max(t.window for s in changes if isinstance(s, Write) for t in s.terms)
    return MatrixMember(*whose, steps, side, momentum, start, window, elementwise, held)


def _check(memory: Memory, changes: list[Write | Update]) -> None:
    """Clauses that no rank-one form has."""
    keys = [t.key for s in changes if isinstance(s, Write) for t in s.terms]
    several = any(k.kind == "headed" and k.shape[0] != memory.heads for k in keys)
    writes = [s for s in changes if isinstance(s, Write)]
    kinds = {s.op for s in changes if isinstance(s, Update)} - {"scale"}
    problems = (
        (memory.init in ("from", "first"), "its initial state is not a plain parameter"),
        (memory.clock.unit != "tokens", f"it counts {memory.clock.unit}"),
        (memory.clock.every != 1, f"it is committed every {memory.clock.every} tokens"),
        (not writes, "nothing is written to it"),
        (bool(kinds), f"its state is changed by `{'`, `'.join(sorted(kinds))}`"),
        (any(w.base_every != 1 for w in writes), "gradients see an older state"),
        (several, "several keys per copy"),
        (any(w.at_commit for w in writes), "the rule runs at the commit"),
        (any(w.project is not None for w in writes), "the write projects its weights"),
    )
    for found, reason in problems:
        if found:
            raise NotRankOneError(reason)


def _erases(forms: list[TermForm]) -> bool:
    """Whether a term erases anything."""
    return any(p.seen is not None for f in forms for p in f.pieces)


def _write_step(write: Write, forms: tuple[TermForm, ...], side: Side) -> WriteStep:
    turned = [_turned(f) if f.side is None and side == "value" else f for f in forms]
    return WriteStep(write, tuple(zip(write.terms, turned, strict=True)))


def _turned(form: TermForm) -> TermForm:
    return TermForm(None, form.keep, form.turned, form.momentum, form.pieces, form.turned_mixed, form.mixed)


def _momentum(
    block: Block, steps: tuple[Update | WriteStep, ...], axes: set[str], side: Side
) -> Filtered | None:
    """The filter in front of the weight, where it is the only one and all gates are one number per head."""
    terms = [pair for s in steps if isinstance(s, WriteStep) for pair in s.terms]
    if len(terms) > 1 or axes - {"scalar"} or side == "value" or terms[0][1].momentum is None:
        return None
    ((term, form),) = terms
    assert form.momentum is not None
    beta, read = form.momentum
    argument = dict(term.rule.arguments).get(beta.name) if beta.op == SYMBOL else None
    log = None if argument is None else logarithm_of(block, argument)
    return Filtered(term.rule.slots[0].name, beta, read, log)


def _held(steps: tuple[Update | WriteStep, ...]) -> tuple[Held, ...]:
    """Every slot of every rule, terms numbered in program order."""
    terms = [t for s in steps if isinstance(s, WriteStep) for t, _ in s.terms]
    suffixes = ["", *(f"_{n + 1}" for n in range(1, len(terms)))]
    return tuple(
        Held(n, slot.name, slot.name + suffix)
        for n, (term, suffix) in enumerate(zip(terms, suffixes, strict=True))
        for slot in term.rule.slots
    )


def reason_of(detail: MatrixDetail) -> str:
    """Why the unit takes this form, in one line."""
    if len({m.memory.name for m in detail.members}) > 1:
        names = " and ".join(dict.fromkeys(f"`{m.memory.name}`" for m in detail.members))
        return f"{names} are linear recurrences, and each token solves with its own state"
    if len(detail.members) > 1:
        each = ", ".join(f"`{'`, `'.join(m.stack.names)}`: {_step_of(m)}" for m in detail.members)
        return f"a map of {len(detail.members)} matrices that do not meet: {each}"
    member = detail.members[0]
    if member.map.plain or member.stack.whole:
        return _step_of(member)
    together = "`, `".join(member.stack.names)
    return f"`{together}` side by side are one matrix: {_step_of(member)}"


def _step_of(member: MatrixMember) -> str:
    """How one matrix steps."""
    terms = [(t, f) for w in writes_of(member) for t, f in w.terms]
    what = " and ".join(dict.fromkeys(f"`{t.objective.name}` with `{t.rule.name}`" for t, _ in terms))
    erases = any(p.seen is not None for _, f in terms for p in f.pieces)
    if not erases:
        said = f"the gradient of {what} does not depend on the memory"
    else:
        along = "one key" if member.side == "key" else "one value"
        count = sum(p.seen is not None for _, f in terms for p in f.pieces)
        rank = f"of rank one along {along}" if count == 1 else f"of rank {count} along the {member.side}s"
        said = f"{what} is affine in the memory, {rank}"
    return said + _gates(member) + _resets(member)


def _resets(member: MatrixMember) -> str:
    every = member.memory.reset_every
    return f"; every {every} tokens between two resets are a sample of their own" if every else ""


def _gates(member: MatrixMember) -> str:
    if member.elementwise:
        return "; gates per element leave a scan over the tokens"
    parts: list[str] = []
    if member.momentum is not None:
        parts.append("momentum and decay are one scalar filter")
    elif member.held:
        kind = "filter per channel" if has_channels(member) else "scalar filter"
        names = ", ".join(f"`{h.key}`" for h in member.held)
        parts.append(f"the memory and {names} of its rules mix by numbers, one {kind}")
    if member.window > 1:
        parts.append(f"{member.window} lessons step together")
    if fades_along(member):
        parts.append(f"gates per {member.side} channel")
    if fades_across(member):
        parts.append(f"gates per {'value' if member.side == 'key' else 'key'} channel scale what is written")
    return "".join(f"; {p}" for p in parts)
