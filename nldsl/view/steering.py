"""The gate of a step, and steps that look at the memory in more than its error: by keys, rates, gates."""

from __future__ import annotations

from nldsl.calculus import gate_expression
from nldsl.calculus.affine import scalar_value
from nldsl.spec.program import Block, Memory, Update, Value, Write
from nldsl.view.direct import answer_in
from nldsl.view.known import Gating, Known

_SELF_MADE = ("self-modifying Titans", "a self-referential weight matrix")
"""How names begin that say that a memory steers itself."""


def steered(block: Block, memory: Memory, step: Write | Update | None) -> str:
    """What is true of a step that is steered by what its own memory answers; empty for any other.

    Only where reads see the state of every token: what a commit answers is a constant of the chunk.
    """
    if step is None or (memory.clock.every, memory.clock.unit) != (1, "tokens") or memory.function is None:
        return ""
    for what, values in _parts(step):
        read = answer_in(block, memory, values)
        if read and isinstance(step, Update) and step.op != "scale":
            return f"{what} is made of `{read}`: no spectrum along a key"
        if read:
            return f"its {what} is made of `{read}`, so a step is not linear in the memory"
    return ""


def _parts(step: Write | Update) -> list[tuple[str, list[Value]]]:
    """Everything of a step but its targets, and what it is called."""
    if isinstance(step, Update):
        what = {"scale": "gate", "set": "what it is set to", "add": "what is added"}[step.op]
        return [(what, [step.value])]
    terms = step.terms
    return [
        ("key", [t.key for t in terms]),
        ("rate", [v for t in terms for _, v in t.rule.arguments]),
        ("weight", [t.weight for t in terms if t.weight is not None]),
        ("gate", [step.retain] if step.retain is not None else []),
    ]


def unless_steered(
    block: Block, memory: Memory, steps: tuple[Write | Update | None, ...], known: Known | None
) -> Known | None:
    """The name of a recurrence whose gates and rates are given; some that steer themselves have their own."""
    if known is None or known.name.startswith(_SELF_MADE):
        return known
    return None if any(steered(block, memory, s) for s in steps) else known


def scale_above(block: Block, memory: Memory, writes: list[Write], updates: list[Update]) -> Update | None:
    """The one `S *= gate` above the one write, which the step starts from."""
    scales = [u for u in updates if u.op == "scale"]
    if len(writes) != 1 or len(scales) != 1 or writes[0].retain is not None:
        return None
    return scales[0] if block.body.index(scales[0]) < block.body.index(writes[0]) else None


def gating_of(block: Block, write: Write, scale: Update | None) -> Gating:
    """The axis of the gate of a write, or that it is a number."""
    gate = write.retain if write.retain is not None else (scale.value if scale else None)
    if gate is None:
        return "none"
    value = scalar_value(gate_expression(block, gate))
    if value is not None:
        return "none" if value == 1.0 else "constant"
    return write.retain_axis if write.retain is not None or scale is None else scale.axis
