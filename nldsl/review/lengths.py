"""How long a vector of a block can be: keys of length one keep a write rate what it says it is."""

from __future__ import annotations

import math
from collections.abc import Callable

from nldsl.calculus.lift import block_expression
from nldsl.calculus.ranges import range_of
from nldsl.spec.program import Apply, Block, Call, Value, option

_KEEPS = frozenset({"rope", "stretched_rope", "detach", "neg", "split", "shift", "parts", "values", "share"})
"""What makes no row of its argument longer."""
_UNIT = frozenset({"l2norm", "softmax"})
_ENTRIES = frozenset({"sigmoid", "tanh", "sin", "cos", "sign", "lt", "le", "gt", "ge", "eq", "ne"})
"""Functions whose results lie in [-1, 1]."""
_MAX_DEPTH = 64


def square_bound(block: Block, value: Value) -> float:
    """The largest `||v||^2` of a row (last axis) of `value`, infinite if nothing bounds it.

    Sound: a finite answer holds for all parameters and inputs.  What a block returns is looked for in it.

    Example:
        >>> x = Value("x", (8,), "vector")
        >>> unit = Value("k", (8,), "vector")
        >>> block = Block("f", (x,), (), (Apply(unit, "l2norm", (x,)),), (unit,))
        >>> square_bound(block, unit), square_bound(block, x)
        (1.0, inf)
    """
    known: dict[tuple[int, str], float] = {}

    def bound(block: Block, value: Value, depth: int) -> float:
        block, value = _source(block, value)
        place = id(block), value.name
        if place not in known:
            maker = _maker(block, value)
            known[place] = math.inf
            if isinstance(maker, Apply) and depth < _MAX_DEPTH:
                known[place] = _of(block, maker, lambda v: bound(block, v, depth + 1))
        return known[place]

    return bound(block, value, 0)


def _maker(block: Block, value: Value) -> Apply | Call | None:
    """What makes a value of a block."""
    for step in block.body:
        if isinstance(step, Apply) and step.out.name == value.name:
            return step
        if isinstance(step, Call) and any(o.name == value.name for o in step.outs):
            return step
    return None


def _source(block: Block, value: Value) -> tuple[Block, Value]:
    """Where a value comes from: out of a called block, or heads that were merged and split again."""
    maker = _maker(block, value)
    while isinstance(maker, Call):
        index = [o.name for o in maker.outs].index(value.name)
        block, value = maker.block, maker.block.outputs[index]
        maker = _maker(block, value)
    if maker is not None and maker.op == "split":
        inner_block, inner = _source(block, maker.args[0])
        merged = _maker(inner_block, inner)
        if isinstance(merged, Apply) and merged.op == "merge" and merged.args[0].shape == value.shape:
            return _source(inner_block, merged.args[0])
    return block, value


def _of(block: Block, maker: Apply, bound: Callable[[Value], float]) -> float:
    """The bound of one operation from those of its arguments."""
    op, args, size = maker.op, maker.args, maker.out.shape[-1] if maker.out.shape else 1
    if op in _UNIT:
        return 1.0
    if op in _ENTRIES:
        return float(size)
    if op in (*_KEEPS, "concat", "merge"):
        return _rearranged(block, maker, bound)
    if op == "constant":
        number = option(maker.options, "value", 0)
        return float(number) ** 2 if isinstance(number, int | float) else math.inf
    if op == "index":
        return float(sum(n * n for n in range(size)))
    if op in ("add", "sub"):
        lengths = [_in_every_channel(block, a, size) if not a.shape else bound(a) for a in args]
        return math.inf if _ragged(maker) else (math.sqrt(lengths[0]) + math.sqrt(lengths[1])) ** 2
    if op == "kron":
        lengths = [bound(a) for a in args]
        return 0.0 if 0.0 in lengths else lengths[0] * lengths[1]
    if op == "div" and _is_share(block, maker):
        return 1.0
    if op in ("mul", "div"):
        return _scaled(block, maker, bound)
    return math.inf


def _rearranged(block: Block, maker: Apply, bound: Callable[[Value], float]) -> float:
    """What moves numbers and changes none."""
    first = maker.args[0]
    if maker.op == "split" and first.kind == "heads":
        return _in_every_channel(block, first, 1)
    if maker.op == "concat":
        return sum(bound(a) for a in maker.args)
    return bound(first) * (first.shape[0] if maker.op == "merge" and len(first.shape) > 1 else 1)


def _is_share(block: Block, maker: Apply) -> bool:
    """Whether it is `f / sum(f)` of numbers that are not negative: their squares sum up to one at most."""
    total = _maker(block, maker.args[1])
    whole = isinstance(total, Apply) and total.op == "sum" and total.args[0].name == maker.args[0].name
    return whole and range_of(block_expression(block, maker.args[0].name)).low >= 0.0


def _ragged(maker: Apply) -> bool:
    """Whether an argument is neither of the shape of the result nor one number."""
    return any(a.shape not in ((), maker.out.shape) for a in maker.args)


def _in_every_channel(block: Block, number: Value, size: int) -> float:
    """The bound of a vector that holds one number everywhere."""
    found = range_of(block_expression(block, number.name))
    return size * max(found.low**2, found.high**2)


def _scaled(block: Block, maker: Apply, bound: Callable[[Value], float]) -> float:
    """A vector times a number, or divided by one."""
    left, right = maker.args
    if maker.op == "mul" and len(left.shape) < len(right.shape):
        left, right = right, left
    found = range_of(block_expression(block, right.name))
    if maker.op == "div":
        if not (found.above(0.0) or found.below(0.0)):
            return math.inf
        factor = 1.0 / min(abs(found.low), abs(found.high)) if found.low and found.high else math.inf
    else:
        factor = max(abs(found.low), abs(found.high))
    length = bound(left)
    return 0.0 if factor == 0.0 else length * factor**2
