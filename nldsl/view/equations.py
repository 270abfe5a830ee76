"""The derived update of every memory of a program: equation, what its letters are, name, transition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nldsl.calculus import (
    Expr,
    TermClass,
    UpdateClass,
    build,
    gate_expression,
    gate_name,
    substitute,
    symbol,
    update_class,
)
from nldsl.calculus.affine import scalar_value
from nldsl.calculus.ranges import range_of
from nldsl.graph.places import Place, places
from nldsl.graph.problems import written_pair
from nldsl.spec.program import Apply, Block, Memory, Program, TaskWrite, Update, Value, Write
from nldsl.view.family import in_its_block
from nldsl.view.formulas import attention_formulas, own_name, task_formulas, write_formulas
from nldsl.view.known import Gating, Known, known_as
from nldsl.view.pens import Formula
from nldsl.view.transition import Step, Transition, key_is_unit, transition


@dataclass(frozen=True)
class Dynamics:
    """How one memory changes: its update as derived, not as written.

    `where` says what the letters stand for.  `paper` are equation numbers, `known_as` the name of the
    recurrence if it has one.  `letter` is the class of the update (D: a decayed sum, R: erases of rank one,
    N: linear once gradients are held, X: token by token, S: softmax, T: the task's gradient).
    """

    id: str
    name: str
    block: str
    letter: str
    formulas: tuple[Formula, ...]
    where: tuple[Formula, ...]
    gates: tuple[tuple[str, str], ...]
    known_as: str
    paper: str
    transitions: tuple[tuple[str, Transition], ...]
    reasons: tuple[str, ...]

    @property
    def transition(self) -> Transition | None:
        """The transition of the first weight; the others are in `transitions` if they differ."""
        return self.transitions[0][1] if self.transitions else None


def dynamics(program: Program) -> tuple[Dynamics, ...]:
    """The dynamics of every memory that something writes, one copy per repeat, in program order."""
    found = []
    for block, place in places(program.root, Place.root(program)):
        for memory in block.memories:
            made = of_memory(block, memory, place.memory_id(memory), place.zone)
            if made is not None:
                found.append(made)
    return tuple(found)


def of_memory(block: Block, memory: Memory, id: str, zone: str) -> Dynamics | None:
    """The dynamics of one memory; `None` if nothing writes it."""
    writes = [s for s in block.body if isinstance(s, Write) and s.memory == memory.name]
    tasks = [s for s in block.body if isinstance(s, TaskWrite) and s.memory == memory.name]
    updates = [s for s in block.body if isinstance(s, Update) and s.memory == memory.name]
    if tasks:
        return _task(memory, tasks[0], id, zone)
    if not writes and not updates:
        return None
    return _written(block, memory, writes, updates, id, zone)


def _task(memory: Memory, write: TaskWrite, id: str, zone: str) -> Dynamics:
    lines, where = task_formulas(memory, write)
    return Dynamics(
        id,
        memory.name,
        zone,
        "T",
        lines,
        where,
        (),
        "a level of a continuum memory system",
        "Eq. 70-71",
        (),
        ("the gradient is that of the task, through everything behind this memory",),
    )


def _written(
    block: Block, memory: Memory, writes: list[Write], updates: list[Update], id: str, zone: str
) -> Dynamics:
    scale = _scale(block, memory, writes, updates)
    lines: list[Formula] = []
    where: list[Formula] = []
    reasons: list[str] = []
    letter, known = "X" if writes else "D", None
    transitions: list[tuple[str, Transition]] = []
    for update in updates:
        if update is not scale:
            lines.append(_direct(memory, update))
    for write in writes:
        classes = update_class(memory, write)
        letter = _letter(memory, write, classes)
        target = written_pair(write.terms[0])[1] if write.terms else ""
        step = known_as(memory, write, classes, (_gating(block, write, scale), scale is not None), target)
        known = in_its_block(block, memory, write, step)
        made = (
            attention_formulas(memory)
            if write.append
            else write_formulas(memory, write, classes, scale, _spoken(block))
        )
        lines += made[0]
        where += made[1]
        reasons += classes.reasons
        transitions += _transitions(block, memory, write, classes, scale)
    return Dynamics(
        id,
        memory.name,
        zone,
        letter,
        tuple(dict.fromkeys(lines)),
        tuple(dict.fromkeys(where)),
        tuple(_gates(block, writes, scale)),
        known.name if known else "",
        _paper(known, memory),
        tuple(transitions),
        tuple(dict.fromkeys(reasons)),
    )


def _paper(known: Known | None, memory: Memory) -> str:
    if known is None:
        return ""
    chunked = memory.clock.unit == "tokens" and memory.clock.every > 1
    return f"{known.paper}, in chunks as Eq. 90" if chunked else known.paper


def _letter(memory: Memory, write: Write, classes: UpdateClass) -> str:
    if write.append:
        return "S"
    online = memory.clock.every == 1 and write.base_every == 1
    return classes.letter if online else classes.chunked_letter


def _scale(block: Block, memory: Memory, writes: list[Write], updates: list[Update]) -> Update | None:
    """The one `S *= gate` above the one write, which the step starts from."""
    scales = [u for u in updates if u.op == "scale"]
    if len(writes) != 1 or len(scales) != 1 or writes[0].retain is not None:
        return None
    return scales[0] if block.body.index(scales[0]) < block.body.index(writes[0]) else None


def _gating(block: Block, write: Write, scale: Update | None) -> Gating:
    """The axis of the gate of a write, or that it is a number."""
    gate = write.retain if write.retain is not None else (scale.value if scale else None)
    if gate is None:
        return "none"
    value = scalar_value(gate_expression(block, gate))
    if value is not None:
        return "none" if value == 1.0 else "constant"
    return write.retain_axis if write.retain is not None or scale is None else scale.axis


def _spoken(block: Block) -> dict[str, str]:
    """How values are written where not by name: as a number, or as the vector of one that holds them."""
    found = {}
    for step in block.body:
        if isinstance(step, Apply):
            value = scalar_value(gate_expression(block, step.out)) if not step.out.shape else None
            if value is not None:
                found[step.out.name] = f"{value:.6g}"
            elif step.op == "mean":
                found[step.out.name] = gate_name(block, step.out)
    return found


def _direct(memory: Memory, update: Update) -> Formula:
    name, value = memory.name, update.value.name
    text = {
        "scale": f"{name}_t = {value}_t {name}_{{t-1}}",
        "add": f"{name}_t = {name}_{{t-1}} + {value}_t",
        "set": f"{name}_t = {value}_t",
    }[update.op]
    return Formula(text, text)


def _gates(block: Block, writes: list[Write], scale: Update | None) -> Iterator[tuple[str, str]]:
    """Every gate and rate with its range, each once."""
    values: dict[str, Value] = {}
    for write in writes:
        if write.retain is not None:
            values.setdefault(write.retain.name, write.retain)
        for term in write.terms:
            values |= {value.name: value for _, value in term.rule.arguments}
    if scale is not None:
        values.setdefault(scale.value.name, scale.value)
    for value in values.values():
        expr = gate_expression(block, value)
        if scalar_value(expr) is None:
            yield gate_name(block, value), str(range_of(expr))


def _transitions(
    block: Block, memory: Memory, write: Write, classes: UpdateClass, scale: Update | None
) -> list[tuple[str, Transition]]:
    """The transition along the input of every weight; one entry if all are alike."""
    if len(classes.terms) != 1 or write.project or write.at_commit or write.append:
        return []
    term = classes.terms[0]
    online = memory.clock.every == 1 and write.base_every == 1
    found: dict[str, Transition] = {}
    if term.online is not None and online:
        form = term.online
        if form.momentum is not None:
            return []
        unit = key_is_unit(block, write.terms[0].key)
        step = Step(form.keep, form.erase, build("mul", 1.0, form.erase), build("dot", form.x, form.x))
        found[memory.name] = _one(block, write, scale, step, unit, written_pair(write.terms[0])[0])
    elif not online or term.linear is None:
        found = dict(_by_weight(block, memory, write, term, scale))
    return list(found.items())


def _by_weight(
    block: Block, memory: Memory, write: Write, term: TermClass, scale: Update | None
) -> Iterator[tuple[str, Transition]]:
    if term.gradient is None:
        return
    chunk = write.base_every
    for grad, analysis in zip(term.gradient.gradients, term.rules, strict=True):
        form = analysis.form
        if form is None or form.momentum is not None or grad.x is None:
            continue
        fed_by_key = grad.x is term.gradient.key
        unit = fed_by_key and key_is_unit(block, write.terms[0].key)
        slope = term.slope if grad.dy is term.gradient.delta else None
        step = Step(form.keep, form.erase, form.rate, build("dot", form.x, form.x), None, slope, chunk)
        yield own_name(memory, grad.name), _one(block, write, scale, step, unit, "z")


def _one(block: Block, write: Write, scale: Update | None, step: Step, unit: bool, key: str) -> Transition:
    """The transition with the gates' names for the rule's arguments."""
    gates: dict[Expr, Expr] = {}

    def named(value: Value) -> Expr:
        made = symbol(gate_name(block, value), role="gate")
        inside = gate_expression(block, value)
        if scalar_value(inside) is not None:
            return inside
        gates[made] = inside
        return made

    arguments: dict[Expr, Expr] = {}
    for name, value in write.terms[0].rule.arguments:
        arguments[symbol(name, value.shape, value.kind, role="argument")] = named(value)
        arguments[symbol(name, role="argument")] = named(value)
    keep = step.keep
    if write.retain is not None:
        kept = named(write.retain)
        keep = kept if scalar_value(keep) == 1.0 else build("sub", build("add", kept, keep), 1.0)
    return transition(
        Step(
            substitute(keep, arguments),
            substitute(step.erase, arguments),
            substitute(step.rate, arguments),
            step.square,
            named(scale.value) if scale is not None else None,
            step.slope,
            step.chunk,
        ),
        gates,
        unit,
        key if key.isidentifier() else "k",
    )
