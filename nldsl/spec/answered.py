"""`S += outer(new, k) - outer(S[k], k)`: sums of outer products that look at what the memory answers.

Whatever an author takes from the answers `S[k]`, times numbers, is an erase: `c S k g^T` with `g` the vector
it is written along.  At the key itself this is the delta rule, along another vector a step with a gain of its
own (Kalman, recursive least squares): `[k] <- v  minimize l2  by gain(along = b g)`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from nldsl.diagnostics import DiagnosticBag
from nldsl.source import SourceFile, Span
from nldsl.spec.clauses import bound_rule, objective_of
from nldsl.spec.expressions import lookup, value_of
from nldsl.spec.frame import Frame
from nldsl.spec.items import POISON, Item, MemoryBox, Poison
from nldsl.spec.loader import Unit
from nldsl.spec.outer_sums import Outer, library_name, outer_parts
from nldsl.spec.printed_errors import error_of
from nldsl.spec.program import Apply, Call, Read, Repeat, Term, Update, Value, Write
from nldsl.spec.reads import ensure_function, prepare_key
from nldsl.spec.recalled import ONE, NotAffineError, Poly, Recall, is_number, plus, times
from nldsl.spec.streams import walk
from nldsl.spec.writes import fits, target_value
from nldsl.syntax import parse, tree

GAIN = "rule gain(along) { W = W - along * outer(dy, 0 * x + 1) }\n"
"""`W' = W - (W x - v) along^T`: the error at `x`, written along another vector."""


@dataclass
class Along:
    """Everything that is added along one vector: answers by the key they were asked at, and the rest."""

    key: Value
    answers: dict[str, Poly] = field(default_factory=dict)
    rest: dict[str, Poly] = field(default_factory=dict)


def answered_write(frame: Frame, node: tree.Assign, box: MemoryBox) -> bool:
    """Elaborate such a sum as a write; `False` for any other, or if it is no sum of answers times numbers."""
    plain = (
        node.op == "+=" and box.source.kind == "matrix" and (box.clock.every, box.clock.unit) == (1, "tokens")
    )
    parts = outer_parts(node.value) if plain else None
    asking = [p for p in parts or () if _asks(frame, p.call.args[0].value, box)]
    if parts is None or all(_printed(frame, p, box) for p in asking):
        return False
    kept = (len(frame.body), dict(frame.constants), copy.copy(frame.paths), copy.deepcopy(frame.namer))
    parameters = frame.session.parameters
    try:
        # At what is added: key and target of the sum as it is written are not those of an erase.
        terms = _terms(frame, parts, box, parts[0].call.args[0].value.span)
    except NotAffineError:
        start, frame.constants, frame.paths, frame.namer = kept
        del frame.body[start:]
        frame.session.parameters = parameters
        return False
    if terms is not None:
        forget(frame, kept[0], terms)
        if terms:
            frame.body.append(Write(box.name, tuple(terms), base_every=1, span=node.span))
    return True


def _printed(frame: Frame, part: Outer, box: MemoryBox) -> bool:
    """Whether a product is the delta rule as it is printed, with a target that is given."""
    error = error_of(frame, part.call, box)
    return error is not None and not _asks(frame, error.target, box)


def _asks(frame: Frame, node: tree.Expr, box: MemoryBox) -> bool:
    """Whether an expression is made of what the memory answers."""
    looks = Recall.of(frame, box)
    for part in walk(node):
        if isinstance(part, tree.Index) and lookup(frame, part.target.id) is box:
            return True
        found = lookup(frame, part.id) if isinstance(part, tree.Name) else None
        if isinstance(found, Value) and looks.looks_at(found):
            return True
    return False


def _terms(frame: Frame, parts: list[Outer], box: MemoryBox, span: Span) -> list[Term] | None:
    """The terms of the write; `None` if something is wrong, which has been said.

    Errors: `NotAffineError`.
    """
    found = [_pair(frame, part, box) for part in parts]
    pairs = [p for p in found if p is not None]
    if len(pairs) < len(found):
        return None
    recall = Recall.of(frame, box)
    sums: dict[str, Along] = {}
    for part, (left, right) in zip(parts, pairs, strict=True):
        factor = _factor(frame, recall, part, box)
        along = sums.setdefault(right.name, Along(right))
        for name, number in recall.vector(left).items():
            read = recall.answers.get(name)
            table, place = (along.rest, name) if read is None else (along.answers, name)
            table[place] = plus(table.get(place, {}), times(factor, number))
    terms = [t for along in sums.values() for t in terms_along(frame, recall, along, box, span)]
    good = [t for t in terms if t is not None]
    return good if len(good) == len(terms) else None


def _pair(frame: Frame, part: Outer, box: MemoryBox) -> tuple[Value, Value] | None:
    """The vector that is added, and the one it is added along."""
    left, right = (a.value for a in part.call.args)
    target = target_value(frame, box, value_of(frame, left), left.span)
    key = prepare_key(frame, box, value_of(frame, right), right.span)
    if key is POISON or target is POISON or not ensure_function(frame, box, part.call.span):
        return None
    if target.kind == "scalar":
        raise NotAffineError(target.name)
    written = tree.Term(right, left, tree.Clauses(span=part.call.span), span=part.call.span)
    return (target, key) if fits(frame, box, key, target, written) else None


def _factor(frame: Frame, recall: Recall, part: Outer, box: MemoryBox) -> Poly:
    """Everything that stands in front of an outer product."""
    found: Poly = {(): -1.0} if part.negative else ONE
    for node, below in (*((n, False) for n in part.factors), *((n, True) for n in part.divisors)):
        value = value_of(frame, node)
        if value is POISON or not is_number(value, box) or recall.looks_at(value):
            raise NotAffineError("factor")
        recall.makers.update({s.out.name: s for s in frame.body if isinstance(s, Apply)})
        found = times(found, recall.inverse(value, node.span) if below else recall.number(value))
    return found


def terms_along(frame: Frame, recall: Recall, along: Along, box: MemoryBox, span: Span) -> list[Term | None]:
    """The terms along one vector: an erase for every key that was asked, with what is taught in its place."""
    terms: list[Term | None] = []
    by_key: dict[str, tuple[Value, Poly]] = {}
    for name, number in along.answers.items():
        key = recall.answers[name].key
        by_key[key.name] = (key, plus(by_key.get(key.name, (key, {}))[1], number))
    rest = {n: c for n, c in along.rest.items() if c}
    for key, number in by_key.values():
        if not number:
            continue
        rate = plus({}, number, -1.0)
        taught = bool(rest) and all(c == rate for c in rest.values())
        target = recall.summed(dict.fromkeys(rest, ONE) if taught else {}, span)
        rest = {} if taught else rest
        terms.append(_erase(frame, recall, (key, target, rate, along.key), box, span))
    if rest:
        target = recall.summed(rest, span)
        terms.append(_term(frame, (along.key, target, "dot"), ("gd", {"lr": 1}), box, span))
    return terms


def _erase(
    frame: Frame,
    recall: Recall,
    step: tuple[Value, Value | Poison, Poly, Value],
    box: MemoryBox,
    span: Span,
) -> Term | None:
    """`[key] <- target  minimize l2`, by `gd(lr = rate)` or along another vector."""
    key, target, rate, along = step
    if along == key:
        number: Item = rate[()] if set(rate) == {()} else recall.as_value(rate, span)
        return _term(frame, (key, target, "l2"), ("gd", {"lr": number}), box, span)
    return _term(frame, (key, target, "l2"), ("gain", {"along": recall.scaled(rate, along, span)}), box, span)


def _term(
    frame: Frame,
    what: tuple[Value, Value | Poison, str],
    by: tuple[str, dict[str, Item]],
    box: MemoryBox,
    span: Span,
) -> Term | None:
    key, target, name = what
    rule, arguments = by
    if target is POISON or POISON in arguments.values():
        return None
    objective = objective_of(frame, library_name(frame, "objective", name, span), box, span)
    home = frame.unit.library.unit("rule", rule) if rule != "gain" else gains(frame)
    assert home is not None
    definition = home.own["rule", rule]
    assert isinstance(definition, tree.Definition)
    bound = bound_rule(frame, (definition, home, arguments), box, span)
    return None if objective is None or bound is None else Term(key, target, objective, bound, span=span)


def gains(frame: Frame) -> Unit:
    """The rule of steps along a vector of their own; no author's rule of that name is meant."""
    file = SourceFile("<gain>", GAIN)
    return Unit(file, parse(file, DiagnosticBag()), frame.unit.library)


def forget(frame: Frame, start: int, terms: list[Term], more: Sequence[Value] = ()) -> None:
    """Drop what stood in the sum and nothing uses any more: an answer that became part of the write.

    `more`: what else the write uses.
    """
    while True:
        used = {v.name for s in frame.body[start:] for v in _needs(s)}
        used |= {v.name for t in terms for v in (t.key, t.target, *(a for _, a in t.rule.arguments))}
        used |= {t.weight.name for t in terms if t.weight is not None} | {v.name for v in more}
        kept = [s for s in frame.body[start:] if not isinstance(s, Apply | Read) or s.out.name in used]
        if len(kept) == len(frame.body) - start:
            break
        frame.body[start:] = kept
    made = {s.out.name for s in frame.body if isinstance(s, Apply)}
    frame.constants = {k: v for k, v in frame.constants.items() if v.name in made}


def _needs(step: object) -> tuple[Value, ...]:
    if isinstance(step, Apply | Call | Repeat):
        return step.args
    if isinstance(step, Read):
        return (step.key,)
    return (step.value,) if isinstance(step, Update) else ()
