"""Whether `torch.export` takes the module of a plan, and why not."""

from __future__ import annotations

from nldsl.plan.details import ChunkDetail, SequentialDetail
from nldsl.plan.matrix_form import MatrixDetail, fades_across
from nldsl.plan.plan import Plan, Unit
from nldsl.spec.program import Block, Memory, Write

CODE = "NL0702"
"""What a module that is not one graph is told."""


def against_export(plan: Plan) -> str:
    """Why a module cannot be exported as one graph; empty if it can.

    A chunk ends where the count in the state is a multiple of its clock, so the shapes inside a call depend
    on what is in the state; a graph has its shapes before it sees a state.

    Example:
        >>> from nldsl.graph import open_program
        >>> from nldsl.plan.make import make_plan
        >>> against_export(make_plan(open_program("transformer")))
        ''
    """
    cut = [
        memory.name
        for block in plan.blocks
        for unit in block.units
        for memory in block.block.memories
        if memory.name in unit.memories and _counts(block.block, unit, memory)
    ]
    if not cut:
        return ""
    shown = ", ".join(f"`{n}`" for n in dict.fromkeys(cut))
    return f"{shown}: chunks and commits end where the counts in the state say"


def _counts(block: Block, unit: Unit, memory: Memory) -> bool:
    """Whether its form asks the counts in the state what to do."""
    if isinstance(unit.detail, ChunkDetail):
        return True
    if isinstance(unit.detail, MatrixDetail):
        across = any(fades_across(m) for m in unit.detail.members if m.memory is memory)
        return across or memory.reset == "tokens"
    if not isinstance(unit.detail, SequentialDetail):
        return False
    writes = [s for s in block.body if isinstance(s, Write) and s.memory == memory.name]
    slow = memory.clock.every > 1 or any(w.base_every > 1 or w.at_commit for w in writes)
    return slow or memory.reset == "tokens"
