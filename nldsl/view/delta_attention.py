"""Attention whose values are made of what it reads, in words and formulas."""

from __future__ import annotations

from collections.abc import Mapping

from nldsl.calculus import UpdateClass
from nldsl.plan.attention import recognise
from nldsl.plan.delta_attention import DeltaAttentionDetail
from nldsl.plan.units import partition, touched
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Block, Memory, Update, Write, option
from nldsl.view.direct import own_answer
from nldsl.view.family import name_of
from nldsl.view.formulas import Lines, write_formulas
from nldsl.view.known import Known
from nldsl.view.pairs import meanings
from nldsl.view.pens import Formula
from nldsl.view.steering import gating_of


def feeds(block: Block, memory: Memory, write: Write) -> DeltaAttentionDetail | Refusal | None:
    """How the values of attention are made of its own reads, or why that is no triangular system.

    `None` where they are not.
    """
    if not write.append or not own_answer(block, memory, write):
        return None
    unit = next(u for u in partition(block) if any(memory.name in touched(block.body[i]) for i in u))
    found = recognise(block, unit)
    if isinstance(found, Refusal):
        return found
    return found[0] if isinstance(found[0], DeltaAttentionDetail) else None


def told(
    block: Block,
    memory: Memory,
    write: Write,
    classes: UpdateClass,
    beside: tuple[Update | None, Mapping[str, str]],
) -> tuple[Known | None, Lines]:
    """Name and formulas of a write; `beside` are the gate above it and how values are written."""
    scale, spoken = beside
    known = name_of(block, memory, write, classes, (gating_of(block, write, scale), scale is not None))
    found = feeds(block, memory, write)
    if found is not None:
        return _named(found, known), (_formulas(memory), ())
    return known, write_formulas(memory, write, classes, scale, (spoken, meanings(block)))


def _named(found: DeltaAttentionDetail | Refusal, known: Known | None) -> Known | None:
    """Its name: the delta rule along the key that is written, else none."""
    if isinstance(found, Refusal) or known is None:
        return None
    (term,) = found.write.terms
    if [r.key for r in found.looks] != [term.key]:
        return None
    return Known(f"DeltaFormer, the delta rule over {known.name} (Zhong et al. 2025)", known.paper)


def _formulas(memory: Memory) -> tuple[Formula, ...]:
    """Attention over values `u`, and what they are."""
    window = option(memory.options, "window", 0)
    last, before = (f"t - {window} < i <= t", f"t - {window} <= i < t") if window else ("i <= t", "i < t")
    late, early = (s.replace("<=", r"\le") for s in (last, before))
    return (
        Formula(
            f"u_t = e_t + c_t sum_i softmax_i(k_i^T p_t) u_i  over {before}, of every read above the write",
            rf"u_t = e_t + c_t \sum_{{{early}}} \mathrm{{softmax}}_i(k_i^{{\top}} p_t)\, u_i",
        ),
        Formula(
            f"y_t = sum_i softmax_i(k_i^T q_t) u_i  over {last}",
            rf"y_t = \sum_{{{late}}} \mathrm{{softmax}}_i(k_i^{{\top}} q_t)\, u_i",
        ),
    )
