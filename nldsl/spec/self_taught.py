"""`S[k] <- v - S[k]  minimize dot`: targets that are made of what the memory answers.

Under the dot product a target is added as it stands, `S + lr target k^T`.  An answer of the memory in it,
times a number, is an erase, as it is in a sum of outer products.
"""

from __future__ import annotations

from dataclasses import replace

from nldsl.source import Span
from nldsl.spec.answered import Along, forget, terms_along
from nldsl.spec.clauses import bound_rule, objective_of
from nldsl.spec.expressions import lookup
from nldsl.spec.frame import Frame
from nldsl.spec.items import Item, MemoryBox
from nldsl.spec.outer_sums import library_name
from nldsl.spec.program import Term, Value, Write
from nldsl.spec.recalled import NotAffineError, Poly, Recall, is_number, times
from nldsl.spec.writes import write
from nldsl.syntax import tree


def taught(frame: Frame, node: tree.Write) -> None:
    """A write; where targets under the dot product look at the memory, as erases."""
    start = len(frame.body)
    write(frame, node)
    if len(node.targets) != 1 or len(frame.body) == start:
        return
    step, box = frame.body[-1], lookup(frame, node.targets[0].id)
    if isinstance(step, Write) and isinstance(box, MemoryBox) and _plain(step, box):
        frame.body.pop()
        frame.body.append(_with_erases(frame, node, step, box, start))


def _plain(step: Write, box: MemoryBox) -> bool:
    """Whether a matrix sees the state of every token, gradients too: an erase looks where an answer does."""
    clock = box.clock.every, box.clock.unit
    live = step.base_every == 1 and not step.at_commit
    return box.source.kind == "matrix" and clock == (1, "tokens") and live


def _with_erases(frame: Frame, node: tree.Write, step: Write, box: MemoryBox, start: int) -> Write:
    recall, terms = Recall.of(frame, box), list[Term]()
    for term, written in zip(step.terms, node.terms, strict=True):
        # At the target alone: key and target of the pair that is written are not those of an erase.
        terms += _taken_apart(frame, recall, term, box, written.value.span) or [term]
    if terms == list(step.terms):
        return step
    forget(frame, start, terms, () if step.retain is None else (step.retain,))
    return replace(step, terms=tuple(terms))


def _taken_apart(frame: Frame, recall: Recall, term: Term, box: MemoryBox, span: Span) -> list[Term] | None:
    """The terms of one term; `None` where it is not such a one."""
    plain = term.window == 1 and term.rule.name == "gd" and term.objective.name == "dot"
    if not plain or not recall.looks_at(term.target) or recall.looks_at(term.key):
        return None
    factor = _factor(frame, recall, term, box, span)
    if factor is None:
        return None
    along = Along(term.key)
    try:
        parts = recall.vector(term.target)
    except NotAffineError:
        return None
    for name, number in parts.items():
        table = along.rest if recall.answers.get(name) is None else along.answers
        table[name] = times(factor, number)
    found = terms_along(frame, recall, along, box, span)
    return None if None in found else [t for t in found if t is not None]


def _factor(frame: Frame, recall: Recall, term: Term, box: MemoryBox, span: Span) -> Poly | None:
    """What the target is taken times: rate and weight, where both are numbers and the library's are meant."""
    rate: Item | None = dict(term.rule.arguments).get("lr", dict(term.rule.static).get("lr"))
    home = frame.unit.library.unit("rule", "gd")
    assert home is not None
    definition = home.own["rule", "gd"]
    assert isinstance(definition, tree.Definition)
    if rate is None or bound_rule(frame, (definition, home, {"lr": rate}), box, span) != term.rule:
        return None
    if objective_of(frame, library_name(frame, "objective", "dot", span), box, span) != term.objective:
        return None
    found: Poly = {(): 1.0}
    for factor in (rate, term.weight):
        if isinstance(factor, Value):
            if not is_number(factor, box) or recall.looks_at(factor):
                return None
            found = times(found, recall.number(factor))
        elif factor is not None:
            found = times(found, {(): float(factor)})  # type: ignore[arg-type]
    return found
