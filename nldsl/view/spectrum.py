"""What can be said of the spectrum of a write that does not scale the memory along one key alone."""

from __future__ import annotations

from typing import Literal

from nldsl.calculus import TermClass, UpdateClass
from nldsl.calculus.affine import scalar_value
from nldsl.calculus.expression import depends
from nldsl.calculus.letters import letter
from nldsl.calculus.lift import source_expression
from nldsl.calculus.pieces import NotRankOneError, Piece, TermForm, term_form
from nldsl.calculus.ranges import Interval, range_of
from nldsl.graph.problems import written_pair
from nldsl.spec.program import Block, Memory, Term, Write
from nldsl.view.stacked import stacked_words
from nldsl.view.transition import key_is_unit

_LOCAL = (
    "not linear in the memory, so no spectrum along a key: near a state the step multiplies what is held by "
    "{keep} - rate * h, h an eigenvalue of the Gauss-Newton matrix there; it contracts while "
    "rate * h < {most}"
)


SLANTED = "it erases at the key k and writes along another vector a"
"""How the words for such a step begin."""


def one_piece(memory: Memory, write: Write) -> TermForm | None:
    """The only term of a write as a step of rank one, also on the value side; `None` if it is none."""
    if len(write.terms) != 1 or write.toward != "zero" or memory.function is None:
        return None
    try:
        form = term_form(memory, write.terms[0], False, False)
    except NotRankOneError:
        return None
    alone = form.momentum is None and form.mixed is None
    plain = alone and len([p for p in form.pieces if p.erase is not None]) == 1
    return form if plain and write.terms[0].window == 1 else None


def rank_one(
    memory: Memory, write: Write, side: Literal["key", "value"] = "key"
) -> tuple[tuple[Piece, ...], ...] | None:
    """The pieces of every term of a write that only adds such to what is kept; `None` if it does more."""
    if write.toward != "zero" or write.project is not None or memory.function is None:
        return None
    try:
        forms = [term_form(memory, t, False, False) for t in write.terms if not t.window > 1]
    except NotRankOneError:
        return None
    plain = all(
        f.side in (None, side) and f.momentum is None and f.mixed is None and scalar_value(f.keep) == 1.0
        for f in forms
    )
    weighted = any(t.window > 1 or t.weight is not None for t in write.terms)
    if not plain or weighted:
        return None
    return tuple(f.turned if f.side is None and side == "value" else f.pieces for f in forms)


def spectrum_words(block: Block, memory: Memory, write: Write, classes: UpdateClass) -> str:
    """A sentence for a write without a transition along its key; empty for attention."""
    if write.append or memory.function is None:
        return ""
    if write.project is not None:
        return (
            f"`project {write.project}` brings the whole weight back after every step, so it stays bounded; "
            "the step is not linear in the memory and has no spectrum along a key"
        )
    if write.at_commit:
        return "one step per chunk, on the sum of its gradients: not linear in the memory, so no spectrum"
    online = memory.clock.every == 1 and write.base_every == 1
    several = (stacked_words(classes) or _several_keys(block, write, classes)) if online else ""
    if several:
        return several
    term = classes.terms[0] if classes.terms else None
    if term is None or not term.rules:
        return ""
    slanted = _slanted(memory, write) if online else ""
    if slanted:
        return slanted
    if term.rules[0].form is None:
        return f"{term.rules[0].reason}, so there is no spectrum along a key"
    if len(write.terms) > 1 or term.rules[0].form.momentum is not None:
        return "several terms, or momentum of them, in one step: no spectrum along one key"
    found = term.gradient
    if found is not None and not any(depends(g.expression, found.weights) for g in found.gradients):
        return "what is added does not depend on the memory: the step keeps what is retained, and no more"
    kept = write.retain is not None
    return _LOCAL.format(keep="retention" if kept else "1", most="1 + retention" if kept else "2")


def _slanted(memory: Memory, write: Write) -> str:
    """`M' = M (keep I - k a^T)`, with another vector `a` than the key: a rate per channel, or a gain."""
    form = one_piece(memory, write)
    found = rank_one(memory, write) or (() if form is None or form.side != "key" else (form.pieces,))
    erasing = [p for pieces in found for p in pieces if p.erase is not None]
    if len(erasing) != 1 or erasing[0].seen is erasing[0].along:
        return ""
    kept = "1" if write.retain is None else "retention"
    return (
        f"{SLANTED}, M' = M ({kept} - k a^T) + ..: one "
        f"eigenvalue is {kept} - a . k, the others are {kept}; not symmetric, so a state may grow before it "
        "shrinks"
    )


def _several_keys(block: Block, write: Write, classes: UpdateClass) -> str:
    """`M' = M (diag(w) - sum c k k^T)`: real eigenvalues between what is kept and all that is erased."""
    erasing = [(t, c) for t, c in zip(write.terms, classes.terms, strict=True) if c.dependence != "constant"]
    plain = all(c.linear is not None and c.linear.scale.value == 1.0 for c in classes.terms)
    if len(write.terms) < 2 or not plain or not erasing or write.retain_axis in ("value", "element"):
        return ""
    pulls = [_pull(block, term, found) for term, found in erasing]
    per_channel = [any(v.kind == "headed" for _, v in t.rule.arguments) for t, _ in erasing]
    if any(p is None for p in pulls) or (len(pulls) > 1 and any(per_channel)):
        return ""
    kept = (
        Interval(1.0, 1.0) if write.retain is None else range_of(source_expression(block, write.retain.name))
    )
    most = sum(p.high for p in pulls if p is not None)
    low = kept.low - most
    names = " - ".join([_kept(block, write), *_erased(block, write, erasing, per_channel)])
    bounds = f"{low:.3g} and {kept.high:.3g}"
    sign = "may be negative, which tracking a state needs" if low < 0.0 else "are never negative"
    inside = low >= -1.0 and kept.high <= 1.0
    verdict = "all within the unit circle" if inside else "not all within the unit circle"
    return f"the transition is {names}: its eigenvalues are real, between {bounds}, {verdict}; they {sign}"


def _kept(block: Block, write: Write) -> str:
    """What is kept: a number or a gate times the identity, or a gate per channel."""
    if write.retain is None:
        return "I"
    value = scalar_value(source_expression(block, write.retain.name))
    name = letter(block, write.retain) if value is None else f"{value:.6g}"
    return f"diag({name})" if write.retain_axis == "key" else f"{name} I"


def _erased(
    block: Block, write: Write, erasing: list[tuple[Term, TermClass]], per_channel: list[bool]
) -> list[str]:
    """`kappa (a kappa)^T` for a rate per channel, `eta k k^T` for one number."""
    found = []
    for (term, _), wide in zip(erasing, per_channel, strict=True):
        static = dict(term.rule.static).get("lr", "rate")
        rate = next((letter(block, v) for _, v in term.rule.arguments), str(static))
        key = written_pair(term)[0]
        key = key if key.isidentifier() else f"k{write.terms.index(term) + 1}"
        found.append(f"{key} ({rate} {key})^T" if wide else f"{rate} {key} {key}^T")
    return found


def _pull(block: Block, term: Term, found: TermClass) -> Interval | None:
    """How much a term takes at most along its key: `rate slope ||k||^2`, if the key has length one."""
    slope = None if found.slope is None else scalar_value(found.slope)
    form = found.rules[0].form if found.rules else None
    plain = form is not None and form.momentum is None and form.erase.value == 0.0
    if slope is None or slope < 0.0 or not plain or not key_is_unit(block, term.key):
        # A rate per channel has no closed form of its own, but is a rate all the same.
        if slope is None or slope < 0.0 or term.rule.name != "gd" or not key_is_unit(block, term.key):
            return None
    rates = [range_of(source_expression(block, v.name)) for n, v in term.rule.arguments if n == "lr"]
    if not rates:
        static = dict(term.rule.static).get("lr")
        rates = [Interval(float(static), float(static))] if isinstance(static, int | float) else []
    if not rates or rates[0].low < 0.0:
        return None
    return Interval(slope * rates[0].low, slope * rates[0].high)
