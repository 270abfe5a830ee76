"""Softmax memories inside a chunked unit: on a cycle through others, or forgetting by their own clock."""

from __future__ import annotations

from nldsl.plan.details import ChunkCache
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Memory, Read, Statement, Write, option


def recognise(memory: Memory, body: list[Statement]) -> ChunkCache | Refusal:
    """Any number of pairs per token, kept for a sequence or for some tokens."""
    writes = [(i, s) for i, s in enumerate(body) if isinstance(s, Write) and s.memory == memory.name]
    reads = [(i, s) for i, s in enumerate(body) if isinstance(s, Read) and s.memory == memory.name]
    problems = (
        (option(memory.options, "causal") is False, "what a token reads would depend on later calls"),
        (
            bool(option(memory.options, "start")) and not memory.parameters,
            "start tokens that are not learned",
        ),
        (memory.reset == "never", "a cache that outlives the sequence"),
        (not reads, "it is never read"),
        (any(len(w.terms) != 1 for _, w in writes), "several pairs in one write"),
    )
    for found, reason in problems:
        if found:
            return Refusal(reason)
    pairs = tuple((w.terms[0].key, w.terms[0].target) for _, w in writes)
    return ChunkCache(memory, pairs, tuple((r, sum(j > i for j, _ in writes)) for i, r in reads))
