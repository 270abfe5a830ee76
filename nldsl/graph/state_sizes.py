"""How many bytes of state a memory carries beside its weights: memories of its rules, windows of tokens."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from nldsl.graph.model import Problem
from nldsl.spec.program import Rule, Term

BYTES = 4
"""States are counted in float32."""


def slot_bytes(problem: Problem, rules: Iterable[Rule]) -> int:
    """What rules remember beside the weights of a memory, for all its copies.

    A memory on a slow clock is there twice: as it runs, and as others see it.
    """
    sizes = (
        (2 if slot.visible else 1) * prod(slot.shape_beside(weight.shape, i))
        for rule in rules
        for slot in rule.slots
        for i, weight in enumerate(problem.tensors)
    )
    return problem.copies * BYTES * sum(sizes)


def window_bytes(term: Term) -> int:
    """What `over n tokens` keeps of the tokens before: keys, targets and weights."""
    kept = (term.key, term.target, *([term.weight] if term.weight is not None else []))
    return (term.window - 1) * sum(prod(value.shape) for value in kept) * BYTES
