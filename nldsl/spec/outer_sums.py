"""`S += beta * outer(v, k)`: a Hebbian write, said as what it does to the matrix.

`[k] <- beta v  minimize dot  by gd(lr = 1)` adds `beta v k^T` to the running state, no more and no less: one
meaning, and every form that takes the write takes the sum.  `S += beta * outer(v - S[k], k)`, the delta rule
as it is printed, is `[k] <- v  minimize l2  by gd(lr = beta)` in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from nldsl.source import Span
from nldsl.spec.clauses import objective_of
from nldsl.spec.expressions import value_of
from nldsl.spec.frame import Frame
from nldsl.spec.inner_schedules import memory_rule
from nldsl.spec.items import POISON, MemoryBox, Poison, Ref, describe
from nldsl.spec.primitives import apply
from nldsl.spec.printed_errors import Error, error_of
from nldsl.spec.program import Term, Value, Write
from nldsl.spec.reads import ensure_function, prepare_key
from nldsl.spec.writes import fits, target_value
from nldsl.syntax import tree


@dataclass(frozen=True)
class Outer:
    """`sign * factors * outer(left, right) / divisors`."""

    call: tree.Call
    factors: tuple[tree.Expr, ...] = ()
    divisors: tuple[tree.Expr, ...] = ()
    negative: bool = False


def outer_write(frame: Frame, node: tree.Assign, box: MemoryBox) -> bool:
    """Elaborate `M += ...` as a write if it is a sum of outer products; `False` if it is something else.

    Errors: NL0418 for a factor with channels; those of a key and of a target.
    """
    if node.op != "+=" or box.source.kind != "matrix":
        return False
    parts = outer_parts(node.value)
    if parts is None:
        return False
    terms = [_term(frame, part, box) for part in parts]
    good = tuple(t for t in terms if t is not None)
    if len(good) == len(terms):
        base = max(box.clock.every, 1)
        frame.body.append(Write(box.name, good, base_every=base, span=node.span))
    return True


def column_write(frame: Frame, value: Value, box: MemoryBox, node: tree.Assign) -> None:
    """`h += u` of a memory whose keys have one channel: `[1] <- u  minimize dot  by gd(lr = 1)`."""
    span = node.value.span
    target = target_value(frame, box, value, span)
    key = prepare_key(frame, box, frame.constant(1, span), span)
    if key is POISON or target is POISON or not ensure_function(frame, box, span):
        return
    one = tree.Number(1, span=span)
    if fits(frame, box, key, target, tree.Term(one, node.value, tree.Clauses(span=span), span=span)):
        term = _adding(frame, key, target, box, span)
        if term is not None:
            base = max(box.clock.every, 1)
            frame.body.append(Write(box.name, (term,), base_every=base, span=node.span))


def outer_parts(node: tree.Expr) -> list[Outer] | None:
    """The summands, if every one holds one outer product as a factor."""
    found = list(_summands(node))
    return [p for p in found if p is not None] if all(p is not None for p in found) else None


def _summands(node: tree.Expr) -> Iterator[Outer | None]:
    if isinstance(node, tree.Unary) and node.op == "-":
        for part in _summands(node.operand):
            yield None if part is None else replace(part, negative=not part.negative)
    elif isinstance(node, tree.Binary) and node.op in ("+", "-"):
        yield from _summands(node.left)
        yield from _summands(tree.Unary("-", node.right, span=node.span) if node.op == "-" else node.right)
    elif isinstance(node, tree.Binary) and node.op in ("*", "/"):
        yield from _products(node)
    else:
        yield _outer(node)


def _outer(node: tree.Expr) -> Outer | None:
    if not isinstance(node, tree.Call) or node.function.id != "outer":
        return None
    plain = len(node.args) == 2 and all(a.name is None for a in node.args)
    return Outer(node) if plain else None


def _products(node: tree.Binary) -> Iterator[Outer | None]:
    """A factor times an outer product, or a name or number times a sum of several."""
    left, right = outer_parts(node.left), outer_parts(node.right) if node.op == "*" else None
    inner, factor = (left, node.right) if left is not None else (right, node.left)
    alone = inner is not None and (len(inner) == 1 or isinstance(factor, tree.Name | tree.Number))
    if (left is None) == (right is None) or inner is None or not alone:
        yield None
        return
    for part in inner:
        if node.op == "/":
            yield replace(part, divisors=(*part.divisors, factor))
        elif left is None:
            yield replace(part, factors=(factor, *part.factors))
        else:
            yield replace(part, factors=(*part.factors, factor))


def _term(frame: Frame, part: Outer, box: MemoryBox) -> Term | None:
    """`[k] <- beta v  minimize dot  by gd(lr = 1)`."""
    erased = error_of(frame, part.call, box)
    if erased is not None:
        return _erasing(frame, part, erased, box)
    left, right = (a.value for a in part.call.args)
    span = part.call.span
    target: Value | Poison = target_value(frame, box, value_of(frame, left), left.span)
    key = prepare_key(frame, box, value_of(frame, right), right.span)
    for op, numbers in (("mul", part.factors), ("div", part.divisors)):
        for node in numbers:
            target = _scaled(frame, op, target, node, box)
    if target is not POISON and part.negative:
        target = apply(frame, "neg", (target,), {}, span)
    if key is POISON or target is POISON or not ensure_function(frame, box, span):
        return None
    written = tree.Term(right, left, tree.Clauses(span=span), span=span)
    return _adding(frame, key, target, box, span) if fits(frame, box, key, target, written) else None


def _adding(frame: Frame, key: Value, target: Value, box: MemoryBox, span: Span) -> Term | None:
    """`[key] <- target  minimize dot  by gd(lr = 1)`."""
    objective = objective_of(frame, library_name(frame, "objective", "dot", span), box, span)
    rule = memory_rule(frame, _step(frame, tree.Number(1, span=span)), box)
    return None if objective is None or rule is None else Term(key, target, objective, rule, span=span)


def _erasing(frame: Frame, part: Outer, error: Error, box: MemoryBox) -> Term | None:
    """`[k] <- v  minimize l2  by gd(lr = beta)`."""
    span, right = part.call.span, part.call.args[1].value
    target = target_value(frame, box, value_of(frame, error.target), error.target.span)
    key = prepare_key(frame, box, value_of(frame, right), right.span)
    if key is POISON or target is POISON or not ensure_function(frame, box, span):
        return None
    written = tree.Term(right, error.target, tree.Clauses(span=span), span=span)
    if not fits(frame, box, key, target, written):
        return None
    rate = _rate(part, error, span)
    objective = objective_of(frame, library_name(frame, "objective", "l2", span), box, span)
    rule = memory_rule(frame, _step(frame, rate), box)
    if objective is None or rule is None:
        return None
    for _, number in rule.arguments:
        if not _is_number(number, box):
            _refused(frame, number, rate, box)
            return None
    return Term(key, target, objective, rule, span=span)


def _rate(part: Outer, error: Error, span: Span) -> tree.Expr:
    """All factors as one number."""
    factors = (*part.factors, *error.factors)
    rate: tree.Expr = factors[0] if factors else tree.Number(1, span=span)
    for factor in factors[1:]:
        rate = tree.Binary("*", rate, factor, span=span)
    for divisor in part.divisors:
        rate = tree.Binary("/", rate, divisor, span=span)
    return tree.Unary("-", rate, span=span) if part.negative != error.negative else rate


def _step(frame: Frame, rate: tree.Expr) -> tree.Call:
    """`gd(lr = rate)`."""
    span = rate.span
    return tree.Call(library_name(frame, "rule", "gd", span), (tree.Arg("lr", rate, span=span),), span=span)


def library_name(frame: Frame, kind: str, name: str, span: Span) -> tree.Name:
    """A name for what the library defines, whatever the author calls so."""
    home = frame.unit.library.unit(kind, name)
    assert home is not None
    hidden = f"{name} of the library"
    frame.names[hidden] = Ref(name, home)
    return tree.Name(hidden, span=span)


def _is_number(factor: Value, box: MemoryBox) -> bool:
    """Whether it is a number, or one for each head."""
    return factor.kind == "scalar" or bool(box.heads and factor.shape == (box.heads,))


def _scaled(frame: Frame, op: str, target: Value | Poison, node: tree.Expr, box: MemoryBox) -> Value | Poison:
    """The target times a number, or one number per head."""
    factor = value_of(frame, node)
    if factor is POISON or target is POISON:
        return POISON
    if _is_number(factor, box):
        return apply(frame, op, (target, factor), {}, node.span)
    return _refused(frame, factor, node, box)


def _refused(frame: Frame, factor: Value, node: tree.Expr, box: MemoryBox) -> Poison:
    per_head = f" or one for each of the {box.heads} heads" if box.heads else ""
    return frame.session.report(
        "NL0418",
        f"a factor of `outer` in what `{box.name}` is added must be a number{per_head}, "
        f"found {describe(factor)}",
        node.span,
        describe(factor),
        help="scale one of its two vectors: `outer(a * v, k)`",
    )
