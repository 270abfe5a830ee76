"""Softmax memories: the non-parametric solution over the cached context (class S, Eq. 62-63)."""

from __future__ import annotations

from nldsl.plan import delta_attention
from nldsl.plan.delta_attention import DeltaAttentionDetail
from nldsl.plan.details import AttentionDetail
from nldsl.plan.units import memories_of, turns_of
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Block, Memory, Read, Write, option


def recognise(
    block: Block, statements: tuple[int, ...]
) -> tuple[AttentionDetail | DeltaAttentionDetail, str] | Refusal:
    """One softmax memory, its writes, reads that feed nothing back into it but values, by numbers."""
    memories = memories_of(block, statements)
    if len(memories) != 1 or memories[0].function is not None:
        return Refusal("not a softmax memory")
    refusal = _plain(memories[0])
    if refusal is not None:
        return refusal
    body = [(i, block.body[i]) for i in statements]
    writes = [(i, s) for i, s in body if isinstance(s, Write)]
    reads = [(i, s) for i, s in body if isinstance(s, Read)]
    turns = turns_of(block, statements)
    if turns is None:
        return delta_attention.recognise(block, statements)
    if len(writes) + len(reads) + sum(map(len, turns)) != len(body):
        return Refusal("it is changed by more than a write")
    if any(len(w.terms) != 1 for _, w in writes):
        return Refusal("several pairs in one write")
    detail = AttentionDetail(
        memory=memories[0],
        pairs=tuple((w.terms[0].key, w.terms[0].target) for _, w in writes),
        reads=tuple((read, sum(i < j for j, _ in writes)) for i, read in reads),
        turns=turns,
    )
    return detail, "softmax memory: scaled dot-product attention over the cached keys and values"


def _plain(memory: Memory) -> Refusal | None:
    if memory.reset != "sequence":
        return Refusal(f"`reset` of `{memory.name}` by its own clock")
    if option(memory.options, "causal") is False:
        return Refusal(f"`causal = false` of `{memory.name}`: what a token reads would depend on later calls")
    if option(memory.options, "start") and not memory.parameters:
        return Refusal(f"start tokens of `{memory.name}` that are not learned")
    return None
