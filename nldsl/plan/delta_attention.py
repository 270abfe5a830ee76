"""Attention whose values are made of what its keys have read: the delta rule over a softmax (DeltaFormer).

    u_t = e_t + sum_i c_it A[p_it],  A[k_t] <- u_t,  y_t = A[q_t],

with reads above the write, numbers `c` and vectors `e` that no read is part of.  All `u` of a call solve one
unit lower triangular system, whatever the pairs before the call are.
"""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.calculus.affine import affine_in
from nldsl.calculus.expression import Expr, depends, number, symbol
from nldsl.calculus.simplify import apply
from nldsl.plan.units import boundary, defined, memories_of, used
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Apply, Block, Memory, Read, Statement, Value, Write

READ = "answer"
"""Role of the symbols of reads."""
_LINEAR = frozenset({"add", "sub", "mul", "div", "neg", "constant"})


@dataclass(frozen=True)
class DeltaAttentionDetail:
    """`u = rest + sum_i rates[i] looks[i]` is written at the key of `write`; `late` are reads below it.

    `values`: what `rates` and `rest` are made of.  `outgoing` is needed outside; `steps` compute those of it
    that lie between reads and the write.
    """

    memory: Memory
    write: Write
    looks: tuple[Read, ...]
    rates: tuple[Expr, ...]
    rest: Expr
    late: tuple[Read, ...]
    values: tuple[Value, ...]
    steps: tuple[Apply, ...]
    outgoing: frozenset[str]


def recognise(block: Block, statements: tuple[int, ...]) -> tuple[DeltaAttentionDetail, str] | Refusal:
    """One softmax memory whose values are made of reads above its write, by numbers alone."""
    (memory,), body = memories_of(block, statements), [block.body[i] for i in statements]
    refusal = _shape(memory, body)
    if refusal is not None:
        return refusal
    (write,) = (s for s in body if isinstance(s, Write))
    place = next(i for i, s in enumerate(body) if s is write)
    looks = tuple(s for s in body[:place] if isinstance(s, Read))
    late = tuple(s for s in body[place:] if isinstance(s, Read))
    steps = tuple(s for s in body if isinstance(s, Apply))
    incoming, outgoing = boundary(block, statements)
    found = _affine(memory, write, looks, steps, incoming)
    if isinstance(found, Refusal):
        return found
    rates, rest = found
    detail = DeltaAttentionDetail(
        memory, write, looks, rates, rest, late, incoming, steps, frozenset(v.name for v in outgoing)
    )
    return detail, "its values are linear in what its keys have read: one triangular system over the pairs"


def _shape(memory: Memory, body: list[Statement]) -> Refusal | None:
    """What stands in the way of one system, whatever is computed."""
    writes = [s for s in body if isinstance(s, Write)]
    made = {v.name for s in body for v in defined(s)}
    if any(not isinstance(s, Apply | Read | Write) for s in body):
        return Refusal("it is changed by more than a write")
    if len(writes) != 1 or len(writes[0].terms) != 1:
        return Refusal("several pairs of a token, whose values are made of what it reads")
    if memory.parameters:
        return Refusal("start tokens beside values that are made of what it reads")
    (term,) = writes[0].terms
    if term.target.name not in made:
        return Refusal("its values are not made of what it reads")
    asked = [s.key for s in body if isinstance(s, Read)]
    if term.key.name in made or any(k.name in made for k in asked):
        return Refusal("what it reads makes keys or queries of its own: a softmax is not linear in those")
    if memory.per_head and any(k.shape[0] != memory.heads for k in asked):
        return Refusal("several queries per copy, and values that are made of what it reads")
    return None


def _affine(
    memory: Memory,
    write: Write,
    looks: tuple[Read, ...],
    steps: tuple[Apply, ...],
    incoming: tuple[Value, ...],
) -> tuple[tuple[Expr, ...], Expr] | Refusal:
    """`target = rest + sum_i rates[i] looks[i]`, over symbols of one token and head."""
    target = write.terms[0].target
    bent = Refusal(
        "its values are made of what it reads by more than numbers, one per head: no triangular system"
    )
    known = {v.name: _seen_by_one_head(memory, v) for v in incoming}
    answers = []
    for read in looks:
        answers.append(symbol(read.out.name, read.out.shape[-1:], "vector", role=READ))
        known[read.out.name] = answers[-1]
    for step in steps:
        own = [known.get(v.name) for v in used(step)]
        if step.op not in _LINEAR or any(a is None for a in own):
            return bent
        known[step.out.name] = apply(step.op, tuple(a for a in own if a is not None), dict(step.options))
    rest, rates = known[target.name], []
    if rest is None:
        return bent
    for answer in answers:
        split = affine_in(rest, answer)
        rate = None if split is None else split.scalar_coefficient()
        if split is None or rate is None or depends(rate, answers):
            return bent
        rates.append(rate)
        rest = split.constant
    return tuple(rates), rest if rest.shape or rest.value is None else number(rest.value)


def _seen_by_one_head(memory: Memory, value: Value) -> Expr | None:
    """A value as one head sees it: a vector, or a number; `None` for anything else."""
    if not memory.per_head:
        return symbol(value.name, value.shape, value.kind, role="value") if len(value.shape) < 2 else None
    if value.kind == "headed":
        return symbol(value.name, value.shape[-1:], "vector", role="value")
    if value.kind in ("scalar", "heads") or value.shape == (memory.heads,):
        return symbol(value.name, role="value")
    return None
