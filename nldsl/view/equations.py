"""The derived update of every memory of a program: equation, what its letters are, name, transition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from nldsl.calculus import (
    Expr,
    TermClass,
    UpdateClass,
    build,
    number,
    substitute,
    symbol,
    update_class,
)
from nldsl.calculus.affine import scalar_value
from nldsl.calculus.expression import depends
from nldsl.calculus.letters import letter, letters, meaning
from nldsl.calculus.lift import source_expression
from nldsl.calculus.mirror import mirror_form
from nldsl.calculus.ranges import range_of
from nldsl.graph.places import Place, places
from nldsl.graph.problems import written_pair
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Block, Memory, Program, TaskWrite, Update, Value, Write
from nldsl.view.delta_attention import feeds, told
from nldsl.view.direct import own_answer, scaled_too, spoken_names, update_formula
from nldsl.view.family import beside_updates
from nldsl.view.formulas import escaped, own_name, task_formulas
from nldsl.view.known import Known
from nldsl.view.mixing import mixed_form, mixed_letter, mixed_words
from nldsl.view.pens import Formula, both
from nldsl.view.spectrum import SLANTED, one_piece, spectrum_words
from nldsl.view.stacked import stacked_transitions
from nldsl.view.steering import scale_above, steered, unless_steered
from nldsl.view.transition import Step, Transition, key_is_unit, transition

_ORDER = "SDRNX"
"""From what is easiest to compute to what is hardest: several writes are as hard as the hardest."""


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
    spectrum: str = ""
    """What can be said of the spectrum where no transition along a key has been found."""

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
    scale = scale_above(block, memory, writes, updates)
    lines: list[Formula] = []
    where: list[Formula] = []
    reasons: list[str] = []
    letters_found, spectra = list[str](), list[str]()
    names: list[Known | None] = []
    transitions: list[tuple[str, Transition]] = []
    beside = [u for u in updates if u is not scale]
    spoken = spoken_names(block)
    for write in (s for s in block.body if s in beside or s in writes):
        if isinstance(write, Update):
            lines.append(update_formula(block, memory, write, spoken))
            spectra.append(steered(block, memory, write))
            letters_found += ["X"] if spectra[-1] else []
            continue
        assert isinstance(write, Write)
        classes = update_class(memory, write)
        letters_found.append(_letter(block, memory, write, classes, scale))
        named, made = told(block, memory, write, classes, (scale, spoken))
        names.append(named)
        lines += made[0]
        where += [*made[1], *_meanings(block, write, scale)]
        reasons += classes.reasons
        moved, words = _moves(block, memory, write, classes, scale)
        transitions += moved
        spectra.append(words)
    # Several writes make one recurrence: it has a name only if all of them say the same.
    known = beside_updates(names[0] if len(set(names)) == 1 else None, block, memory, beside)
    known = unless_steered(block, memory, (*writes, scale), known)
    spectra.append(scaled_too(block, beside) if transitions else "")
    letter = max(letters_found, key=_ORDER.index, default="D")
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
        "; ".join(dict.fromkeys(s for s in spectra if s)),
    )


def _paper(known: Known | None, memory: Memory) -> str:
    if known is None:
        return ""
    chunked = memory.clock.unit == "tokens" and memory.clock.every > 1
    return f"{known.paper}, in chunks as Eq. 90" if chunked else known.paper


def _letter(block: Block, memory: Memory, write: Write, classes: UpdateClass, scale: Update | None) -> str:
    if write.append:
        return "X" if isinstance(feeds(block, memory, write), Refusal) else "S"
    online = memory.clock.every == 1 and write.base_every == 1
    mixed = mixed_form(memory, write)
    found: str = classes.letter if online else classes.chunked_letter
    if mixed is not None:
        found = mixed_letter(mixed)
    if steered(block, memory, write) or steered(block, memory, scale):
        return "X"
    # A sum of what the memory itself answers is no plain sum, and what is erased for it no linear recurrence.
    itself = (found == "D" or (found == "R" and online)) and own_answer(block, memory, write)
    return ("X" if online else "N") if itself else found


def _moves(
    block: Block, memory: Memory, write: Write, classes: UpdateClass, scale: Update | None
) -> tuple[list[tuple[str, Transition]], str]:
    """The transitions of a write, and what else is to be said of its spectrum."""
    own = "" if write.append else own_answer(block, memory, write)
    if own and _letter(block, memory, write, classes, scale) in "XN" and classes.letter == "D":
        return [], f"what is added is made of `{own}`, so the sum feeds on itself: no spectrum along a key"
    moved = _transitions(block, memory, write, classes, scale) or _of_one_piece(block, memory, write, scale)
    online = memory.clock.every == 1 and write.base_every == 1
    given = f"that is for a target that is given; this one is made of `{own}`" if own and online else ""
    if not moved:
        words = _spectrum(block, memory, write, classes, scale)
        return [], "; ".join(w for w in (words, given if words else "") if w)
    return moved, steered(block, memory, write) or steered(block, memory, scale) or given


def _spectrum(block: Block, memory: Memory, write: Write, classes: UpdateClass, scale: Update | None) -> str:
    """What can be said where there is no transition along one key."""
    mixed = mixed_form(memory, write)
    if mixed is not None:
        return mixed_words(block, memory, write, scale, mixed)
    words = spectrum_words(block, memory, write, classes)
    gated = scale is not None and words.startswith(SLANTED)
    return f"{words}; all of it times `{letter(block, scale.value)}`" if gated and scale else words


def _meanings(block: Block, write: Write, scale: Update | None) -> Iterator[Formula]:
    """What the letters stand for that gates without a name got."""
    own = letters(block)
    found = [scale.value] if scale is not None else []
    found += [write.retain] if write.retain is not None else []
    for term in write.terms:
        found += [v for _, v in term.rule.arguments] + ([term.weight] if term.weight is not None else [])
    for value in found:
        text = meaning(block, value.name) if value.name in own else ""
        if text:
            pair = both({}, lambda pen, name=own[value.name]: pen.name(name))  # type: ignore[misc]
            yield Formula(f"{pair.text} = {text}", rf"{pair.latex} = \texttt{{{escaped(text)}}}")


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
        expr = source_expression(block, value.name)
        if scalar_value(expr) is None:
            yield letter(block, value), str(range_of(expr))


def _transitions(
    block: Block, memory: Memory, write: Write, classes: UpdateClass, scale: Update | None
) -> list[tuple[str, Transition]]:
    """The transition along the input of every weight; one entry if all are alike."""
    if write.append or write.project is not None:
        return []
    if write.at_commit:
        return _at_commit(block, memory, write)
    online = memory.clock.every == 1 and write.base_every == 1
    if online and classes.stacks is not None:
        unit, key = key_is_unit(block, write.terms[0].key), written_pair(write.terms[0])[0]
        told = stacked_transitions(
            classes.stacks, unit, lambda step: _one(block, write, scale, step, False, key)
        )
        return list(told)
    found: dict[str, Transition] = {}
    term = _along_one_key(write, classes) if online else None
    if term is not None and term.online is not None:
        form = term.online
        unit = key_is_unit(block, write.terms[0].key)
        step = Step(
            form.keep,
            form.erase,
            build("mul", 1.0, form.erase),
            build("dot", form.x, form.x),
            momentum=form.momentum,
        )
        found[memory.name] = _one(block, write, scale, step, unit, written_pair(write.terms[0])[0])
    elif len(classes.terms) == 1 and (not online or classes.terms[0].linear is None):
        term = classes.terms[0]
        found = dict(_by_weight(block, memory, write, term, scale))
    return list(found.items())


def _of_one_piece(
    block: Block, memory: Memory, write: Write, scale: Update | None
) -> list[tuple[str, Transition]]:
    """The transition of a step of rank one that no closed form along the key covers, such as Oja's."""
    online = memory.clock.every == 1 and write.base_every == 1
    form = one_piece(memory, write) if online and write.project is None and not write.at_commit else None
    if form is None:
        return []
    piece = next(p for p in form.pieces if p.erase is not None)
    assert piece.erase is not None and piece.seen is not None
    if piece.seen is not piece.along:
        return []
    term, value_side = write.terms[0], form.side == "value"
    side = term.target if value_side else term.key
    step = Step(form.keep, piece.erase, build("mul", 1.0, piece.erase), build("dot", piece.seen, piece.seen))
    named = written_pair(term)[int(value_side)]
    where = f"{memory.name} along its values" if value_side else memory.name
    return [(where, _one(block, write, scale, step, key_is_unit(block, side), named))]


def _along_one_key(write: Write, classes: UpdateClass) -> TermClass | None:
    """The only term, or several along one key taken together: they erase what they erase in sum."""
    terms = classes.terms
    if len(terms) == 1:
        return terms[0]
    forms = [t.online for t in terms]
    same = len({t.key.name for t in write.terms}) == 1 and all(f is not None for f in forms)
    plain = all(f is not None and f.momentum is None and scalar_value(f.keep) == 1.0 for f in forms)
    if not terms or not same or not plain or forms[0] is None:
        return None
    erase: Expr | None = None
    for term, form in zip(write.terms, forms, strict=True):
        assert form is not None
        own = {
            symbol(n, v.shape, v.kind, role="argument"): symbol(v.name, v.shape, v.kind, role="value")
            for n, v in term.rule.arguments
        }
        one = substitute(form.erase, own)
        erase = one if erase is None else build("add", erase, one)
    assert erase is not None
    return replace(terms[0], online=replace(forms[0], erase=erase))


def _at_commit(block: Block, memory: Memory, write: Write) -> list[tuple[str, Transition]]:
    """What a commit leaves of a weight; its step depends on the weight through the gradient only."""
    if write.retain is None:
        return []
    one, zero = number(1.0), number(0.0)
    step = Step(one, zero, zero, one, beside=True)
    return [(memory.name, _one(block, write, None, step, False, "z"))]


def _by_weight(
    block: Block, memory: Memory, write: Write, term: TermClass, scale: Update | None
) -> Iterator[tuple[str, Transition]]:
    if term.gradient is None:
        return
    chunk = write.base_every
    for grad, analysis in zip(term.gradient.gradients, term.rules, strict=True):
        form = analysis.form
        dual = mirror_form(write.terms[0].rule, grad.weight.shape) if form is None else None
        if dual is not None:
            kept = Step(dual.keep, number(0.0), number(0.0), number(1.0))
            yield f"the dual of {own_name(memory, grad.name)}", _one(block, write, scale, kept, False, "z")
        if form is None or grad.x is None:
            continue
        fed_by_key = grad.x is term.gradient.key
        unit = fed_by_key and key_is_unit(block, write.terms[0].key)
        slope = term.slope if grad.dy is term.gradient.delta else None
        m = form.momentum
        moved = (form.keep, form.erase, form.rate) if m is None else (form.keep, m.erase, m.rate)
        filtered = None if m is None else (m.beta, m.read)
        beside = chunk > 1 and grad.dy is not None and depends(grad.dy, [grad.weight])
        step = Step(*moved, build("dot", form.x, form.x), None, slope, chunk, beside, filtered)
        yield own_name(memory, grad.name), _one(block, write, scale, step, unit, "z")


def _one(block: Block, write: Write, scale: Update | None, step: Step, unit: bool, key: str) -> Transition:
    """The transition with the gates' names for the rule's arguments."""
    gates: dict[Expr, Expr] = {}

    def named(value: Value) -> Expr:
        made = symbol(letter(block, value), role="gate")
        inside = source_expression(block, value.name)
        if scalar_value(inside) is not None:
            return inside
        gates[made] = inside
        return made

    arguments: dict[Expr, Expr] = {}
    for term in write.terms:
        for name, value in term.rule.arguments:
            if term is write.terms[0]:
                arguments[symbol(name, value.shape, value.kind, role="argument")] = named(value)
                arguments[symbol(name, role="argument")] = named(value)
            arguments[symbol(value.name, value.shape, value.kind, role="value")] = named(value)
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
            step.beside,
            None
            if step.momentum is None
            else (substitute(step.momentum[0], arguments), substitute(step.momentum[1], arguments)),
        ),
        gates,
        unit,
        key if key.isidentifier() else "k",
    )
