"""The number of a rule's application at every token: `step` where many tokens are computed at once."""

from __future__ import annotations

from nldsl.emit.nodes import Expression, Like, assign, call, name
from nldsl.lowerings.blocks import BlockCode
from nldsl.spec.program import Memory, Value, Write

STEP = Value("step number", (), "scalar")
"""A value of emitted code; no value of a program has a name like this."""


def asks(write: Write) -> bool:
    """Whether a rule of a write looks at the number of its step."""
    return any(v.name == "step" for t in write.terms for v in t.rule.function.inputs)


def number_steps(code: BlockCode, memory: Memory) -> Expression:
    """`step_number [B, T]` of a memory that is written at every token; one statement for all that ask."""
    key = f"{STEP.name} of {memory.path}"
    known = code.scope.names.known
    if key not in known:
        known[key] = code.scope.names.fresh("step_number")
        reset: dict[str, Like] = {"reset": memory.reset_every} if memory.reset == "tokens" else {}
        count = name("state")[memory.path]["count"]
        made = call(code.runtime("token", "step_numbers"), count, code.scope.mask, code.scope.source, **reset)
        code.scope.add(assign(known[key], made))
    return name(known[key])
