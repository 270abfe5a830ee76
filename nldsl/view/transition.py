"""What one write does to what a memory holds along its key, and whether that stays bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from nldsl.calculus import Expr, build, number, substitute
from nldsl.calculus.affine import scalar_value
from nldsl.calculus.notation import LATEX, TEXT, Style, written
from nldsl.calculus.ranges import INFINITY, Interval, Unknowns, range_of
from nldsl.spec.program import Apply, Block, Value

Verdict = Literal["contracts", "keeps", "expands", "unknown"]


@dataclass(frozen=True)
class Gate:
    """A gate of a write, or a rate: its name and between which numbers it lies."""

    name: str
    range: str


@dataclass(frozen=True)
class Transition:
    """`M'` holds along the key what `M` held there, times `factor`, whatever is written.

    `verdict`: contracts (always between -1 and 1), keeps (up to 1, reached), expands (beyond 1 for some
    values of the gates), unknown (a gate without a known range).  `negative`: whether the factor may be
    below zero, which tracking a state such as parity needs.  `admissible` is the condition for
    a contraction; `stale` what a chunk of one repeated key does where gradients are as old as the
    chunk.
    """

    factor: str
    latex: str
    range: str
    low: float | None
    high: float | None
    verdict: Verdict
    negative: bool | None
    unit_key: bool
    admissible: str
    elsewhere: str
    gates: tuple[Gate, ...]
    stale: str = ""
    beside: bool = False
    """Whether a gradient taken at an older state acts beside it, which `factor` leaves out."""

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        words = {
            "contracts": "always a contraction",
            "keeps": "bounded by one: nothing is forgotten by itself",
            "expands": "leaves [-1, 1]: a key met again and again can blow up",
            "unknown": "nothing in its form keeps it within [-1, 1]",
        }
        sign = {
            True: "; it may be negative, which tracking a state needs",
            False: "; never negative, so it cannot track a state such as parity",
            None: "",
        }
        if self.beside and self.verdict in ("contracts", "keeps"):
            start = {"contracts": "a contraction", "keeps": "bounded by one"}[self.verdict]
            return f"{start} but for the gradient, which acts beside it"
        return words[self.verdict] + (sign[self.negative] if self.verdict != "unknown" else "")


@dataclass(frozen=True)
class Step:
    """One write along one weight's input: `W' = keep W - erase (W z) z^T - rate d z^T`.

    `scale` is the gate of an `S *= gate` above the write.  `slope` is that of the objective if the gradient
    is taken at an older state (`chunk` tokens), else `None`: then it is part of `erase`.
    """

    keep: Expr
    erase: Expr
    rate: Expr
    square: Expr
    scale: Expr | None = None
    slope: Expr | None = None
    chunk: int = 1
    beside: bool = False
    """Whether the gradient sees the memory, at a state that is older than the token."""
    momentum: tuple[Expr, Expr] | None = None
    """(beta, read) of a filter between the step and the weight."""


def transition(step: Step, gates: Mapping[Expr, Expr], unit_key: bool, key: str) -> Transition:
    """The transition of one step; `gates` maps symbols to what the block computes them from."""
    if unit_key:
        step = _at_unit(step)
    if step.momentum is not None:
        return filtered_transition(step, step.momentum, gates, unit_key, key)
    pulled = _times(step.erase, step.square)
    inner = build("sub", step.keep, pulled)
    factor = inner if step.scale is None else build("mul", step.scale, inner)
    bound = substitute(factor, gates)
    found = range_of(bound)
    shown = _shown(factor, key, TEXT)
    away = step.keep if step.scale is None else build("mul", step.scale, step.keep)
    return Transition(
        factor=shown,
        latex=_shown(factor, key, LATEX),
        range=str(found),
        low=found.low if found.low > -INFINITY else None,
        high=found.high if found.high < INFINITY else None,
        verdict=_verdict(found),
        negative=_negative(found),
        unit_key=unit_key,
        admissible=_admissible(step, pulled, key),
        elsewhere=_shown(away, key, TEXT),
        gates=tuple(Gate(g.name, str(range_of(e))) for g, e in gates.items() if _occurs(g, factor)),
        stale=_stale(step, pulled, gates, key),
        beside=step.beside,
    )


def key_is_unit(block: Block, key: Value) -> bool:
    """Whether the block normalises a key to length one (`l2norm`, turned by `rope` perhaps)."""
    makers = {s.out.name: s for s in block.body if isinstance(s, Apply)}
    name = key.name
    while name in makers and makers[name].op in ("rope", "stretched_rope", "detach"):
        name = makers[name].args[0].name
    return name in makers and makers[name].op == "l2norm"


def _at_unit(step: Step) -> Step:
    one = {step.square: number(1.0)}
    erase, rate = substitute(step.erase, one), substitute(step.rate, one)
    return replace(step, erase=erase, rate=rate, square=number(1.0))


def filtered_transition(
    step: Step, momentum: tuple[Expr, Expr], gates: Mapping[Expr, Expr], unit_key: bool, key: str
) -> Transition:
    """With momentum, weight and momentum step together: two eigenvalues along the key.

    `M' = keep M + read m'`, `m' = beta m - erase M`: `L^2 - (keep + beta - pull) L + keep beta = 0` with
    `pull = read erase ||k||^2`.  Both lie in the unit circle if `|keep beta| < 1` and
    `-(1 - keep) (1 - beta) < pull < (1 + keep) (1 + beta)`.
    """
    beta, read = momentum
    keep = step.keep if step.scale is None else build("mul", step.scale, step.keep)
    pulled = build("mul", read, _times(step.erase, step.square))
    trace, determinant = build("sub", build("add", keep, beta), pulled), build("mul", keep, beta)
    one = number(1.0)
    above = build("mul", build("add", one, keep), build("add", one, beta))
    below = build("mul", build("sub", one, keep), build("sub", one, beta))
    margins = [build("sub", above, pulled), build("add", below, pulled)]
    margins += [build("sub", one, determinant), build("add", one, determinant)]
    found = [range_of(substitute(e, gates)) for e in margins]
    inside = all(f.above(0.0) for f in found)
    bounded = all(f.low >= 0.0 for f in found)
    known = all(f.low > -INFINITY for f in found)
    verdict: Verdict = "contracts" if inside else "keeps" if bounded else "expands" if known else "unknown"
    plain = scalar_value(pulled) == 0.0
    names = [_shown(e, key, TEXT) for e in (keep, beta)]
    factor, latex = (_pair(keep, beta, trace, determinant, (key, style, plain)) for style in (TEXT, LATEX))
    return Transition(
        factor=factor,
        latex=latex,
        range="the unit circle" if bounded else "and beyond the unit circle" if known else "unknown gates",
        low=None,
        high=None,
        verdict=verdict,
        negative=_negative(range_of(substitute(trace, gates))) if not plain else False,
        unit_key=unit_key,
        admissible="" if plain else f"0 < {_shown(pulled, key, TEXT)} < (1 + {names[0]}) (1 + {names[1]})",
        elsewhere=" and ".join(names),
        gates=tuple(Gate(g.name, str(range_of(e))) for g, e in gates.items() if _occurs(g, trace)),
        stale=_stale(step, pulled, gates, key),
        beside=step.beside,
    )


def _pair(keep: Expr, beta: Expr, trace: Expr, determinant: Expr, how: tuple[str, Style, bool]) -> str:
    """The two eigenvalues: by name where nothing is erased, else as the roots of their equation."""
    key, style, plain = how
    if plain:
        return ", ".join(_shown(e, key, style) for e in (keep, beta))
    square = "L^2" if style is TEXT else r"\lambda^2"
    root = "L" if style is TEXT else r"\lambda"
    product = _shown(determinant, key, style)
    return f"{square} - ({_shown(trace, key, style)}) {root} + {product} = 0"


def _times(rate: Expr, square: Expr) -> Expr:
    """`rate * square`, as one fraction."""
    if rate.op == "div":
        return build("div", _times(rate.args[0], square), rate.args[1])
    return build("mul", rate, square)


def _shown(expr: Expr, key: str, style: Style) -> str:
    bare = {"x": key, "key": key}
    plain = Style(**{**vars(style), "symbol": lambda name, _: style.symbol(name, "")})
    return written(expr, bare, plain, 0)


def _occurs(wanted: Expr, expr: Expr) -> bool:
    return wanted is expr or any(_occurs(wanted, a) for a in expr.args)


def _verdict(found: Interval) -> Verdict:
    if not found.known:
        return "unknown"
    if found.below(1.0) and found.above(-1.0):
        return "contracts"
    return "keeps" if found.high <= 1.0 and found.low >= -1.0 else "expands"


def _negative(found: Interval) -> bool | None:
    if found.low >= 0.0:
        return False
    return True if found.known else None


def _admissible(step: Step, pulled: Expr, key: str) -> str:
    """`|keep - erase| < 1`, solved for the erase."""
    if scalar_value(pulled) is not None:
        return ""
    name = _shown(pulled, key, TEXT)
    if name.startswith("-"):
        return _admissible_push(step, _shown(build("neg", pulled), key, TEXT), key)
    if step.scale is not None:
        return f"0 < {name} < 2 for every {_shown(step.scale, key, TEXT)} in (0, 1]"
    keep = scalar_value(step.keep)
    high = f"{1.0 + keep:g}" if keep is not None else f"1 + {_shown(step.keep, key, TEXT)}"
    return f"0 < {name} < {high}"


def _admissible_push(step: Step, name: str, key: str) -> str:
    """`|keep + push| < 1`, solved for the push: what a retention below one leaves room for."""
    keep = scalar_value(step.keep)
    if step.scale is not None or (keep is not None and keep >= 1.0):
        return ""
    return f"0 < {name} < {f'{1.0 - keep:g}' if keep is not None else f'1 - {_shown(step.keep, key, TEXT)}'}"


def _stale(step: Step, pulled: Expr, gates: Mapping[Expr, Expr], key: str) -> str:
    """Where the gradient is old: what a chunk of one repeated key does, sampled over the gates."""
    if step.momentum is not None:
        return _stale_filtered(step, step.momentum, gates)
    if step.slope is None or scalar_value(step.slope) == 0.0 or step.chunk == 1:
        return ""
    push = build("mul", _times(step.rate, number(1.0)), step.slope)
    push = _times(push, step.square)
    stay = build("sub", step.keep, pulled)
    found = [_over_chunk(a, r, step.chunk) for a, r in samples([stay, push], gates)]
    if not found:
        return ""
    simple = scalar_value(pulled) == 0.0 and scalar_value(step.keep) == 1.0
    limit = f"; safe while {_shown(push, key, TEXT)} < {2.0 / step.chunk:.3g}" if simple else ""
    return _verdict_of_chunk(found, step.chunk) + limit


def _stale_filtered(step: Step, momentum: tuple[Expr, Expr], gates: Mapping[Expr, Expr]) -> str:
    """The same with momentum: `m' = beta m - rate M_0`, `M' = keep M + read m'`."""
    if step.slope is None or scalar_value(step.slope) == 0.0 or step.chunk == 1:
        return ""
    push = _times(build("mul", step.rate, step.slope), step.square)
    found = []
    for keep, beta, read, rate in samples([step.keep, *momentum, push], gates):
        weight, slot = 1.0, 0.0
        for _ in range(step.chunk):
            slot = beta * slot - rate
            weight = keep * weight + read * slot
        found.append(weight)
    return _verdict_of_chunk(found, step.chunk) if found else ""


def _verdict_of_chunk(found: list[float], chunk: int) -> str:
    low, high = min(found), max(found)
    verdict = "bounded" if -1.0 <= low and high <= 1.0 else "beyond one: it can blow up"
    return (
        f"the gradient is as old as the chunk: {chunk} tokens with one key multiply by "
        f"{low:.3g} .. {high:.3g}, {verdict}"
    )


def _over_chunk(stay: float, push: float, chunk: int) -> float:
    """`M' = stay M - push M_0`, `chunk` times from `M = M_0`: the factor of `M_0`."""
    value = 1.0
    for _ in range(chunk):
        value = stay * value - push
    return value


def samples(wanted: list[Expr], gates: Mapping[Expr, Expr]) -> Iterator[tuple[float, ...]]:
    """Values of some expressions at a grid over the ranges of what they are computed from."""
    bound = [substitute(e, gates) for e in wanted]
    unknowns = Unknowns()
    for expr in bound:
        unknowns.bare(expr)
    boxes = list(unknowns.found.values())
    if len(boxes) > 4 or not all(b.low > -INFINITY for b in boxes):
        return
    for point in product(*(grid_points(b) for b in boxes)):
        at = dict(zip(unknowns.found, point, strict=True))
        yield tuple(unknowns.value(e, at) for e in bound)


def grid_points(box: Interval) -> list[float]:
    """Nine points of a range, its ends among them."""
    return [_point(box, i / 8) for i in range(9)]


def _point(box: Interval, part: float) -> float:
    if box.high == INFINITY:
        return box.low + part / (1.001 - part)
    return box.low + part * (box.high - box.low)
