"""Parts that an equation repeats, under letters of their own: `u1`, `u2`, ..."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nldsl.calculus import Expr, WeightGradient, substitute, symbol
from nldsl.calculus.expression import SYMBOL, walk
from nldsl.calculus.notation import TEXT, written

_LEAST = 12
"""Signs from which a part is long enough for a letter."""


@dataclass(frozen=True)
class Shared:
    """Gradients written with letters, and what the letters stand for, each by those in front of it."""

    gradients: tuple[WeightGradient, ...]
    letters: tuple[tuple[Expr, Expr], ...]


def shared(gradients: Sequence[WeightGradient], names: Mapping[str, str]) -> Shared:
    """The gradients of one term, with a letter for every long part that stands in them more than once."""
    roots = tuple(e for g in gradients for e in _parts(g))
    uses = Counter(a for e in walk(roots) for a in e.args) + Counter(roots)
    repeated = [e for e in walk(roots) if uses[e] > 1 and _long(e, names)]
    if not repeated:
        return Shared(tuple(gradients), ())
    taken = set(names.values()) | {s.name for s in walk(roots) if s.op == SYMBOL}
    prefix = next(p for p in ("u", "h", "part") if f"{p}1" not in taken)
    known: dict[Expr, Expr] = {}
    letters = []
    for number, part in enumerate(repeated, 1):
        letter = symbol(f"{prefix}{number}", part.shape, part.operand.kind, role="weight")
        letters.append((letter, substitute(part, known)))
        known[part] = letter
    return Shared(tuple(_with(g, known) for g in gradients), tuple(letters))


def _parts(gradient: WeightGradient) -> tuple[Expr, ...]:
    """The expressions that are shown of a gradient."""
    if gradient.x is None or gradient.dy is None:
        return (gradient.expression,)
    return gradient.x, gradient.dy


def _long(expr: Expr, names: Mapping[str, str]) -> bool:
    return bool(expr.args) and expr.value is None and len(written(expr, names, TEXT, 0)) >= _LEAST


def _with(gradient: WeightGradient, known: Mapping[Expr, Expr]) -> WeightGradient:
    """The gradient with letters in what is shown of it."""
    if gradient.x is None or gradient.dy is None:
        whole = substitute(gradient.expression, known)
        return replace(gradient, outer_terms=(), general=whole, x=None, dy=None)
    return replace(gradient, x=substitute(gradient.x, known), dy=substitute(gradient.dy, known))
