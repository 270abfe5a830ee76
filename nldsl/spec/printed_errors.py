"""`v - S[k]`: what a memory answers wrongly at the key that is written, as papers print the delta rule."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.spec.expressions import lookup
from nldsl.spec.frame import Frame
from nldsl.spec.items import MemoryBox, is_number
from nldsl.spec.program import Read, Update, Value, Write
from nldsl.syntax import tree


@dataclass(frozen=True)
class Error:
    """`factors * (target - S[k])`, or minus that."""

    target: tree.Expr
    factors: tuple[tree.Expr, ...]
    negative: bool


def error_of(frame: Frame, call: tree.Call, box: MemoryBox) -> Error | None:
    """The error in `outer(error, k)`, if that is what the first vector is; `k` is a name.

    The state that is read is the one that the gradient of a write at this place sees: on a clock of one token
    the running state, with nothing that changes it between the read and the sum.
    """
    left, right = (a.value for a in call.args)
    if not isinstance(right, tree.Name) or (box.clock.every, box.clock.unit) != (1, "tokens"):
        return None
    factors, body = peeled(frame, left, box)
    if not isinstance(body, tree.Binary) or body.op != "-":
        return None
    for answer, target, negative in ((body.right, body.left, False), (body.left, body.right, True)):
        if _answers(frame, answer, right, box):
            return Error(target, factors, negative)
    return None


def peeled(frame: Frame, node: tree.Expr, box: MemoryBox) -> tuple[tuple[tree.Expr, ...], tree.Expr]:
    """Numbers that stand in front of a vector by name, and the vector."""
    if isinstance(node, tree.Binary) and node.op == "*":
        for number, rest in ((node.left, node.right), (node.right, node.left)):
            if named_number(frame, number, box):
                factors, body = peeled(frame, rest, box)
                return (number, *factors), body
    return (), node


def named_number(frame: Frame, node: tree.Expr, box: MemoryBox) -> bool:
    """Whether it is a number, or the name of one, or of one for each head."""
    if isinstance(node, tree.Number):
        return True
    found = lookup(frame, node.id) if isinstance(node, tree.Name) else None
    if isinstance(found, Value):
        return found.kind == "scalar" or bool(box.heads and found.shape == (box.heads,))
    return is_number(found)


def _answers(frame: Frame, node: tree.Expr, key: tree.Name, box: MemoryBox) -> bool:
    """Whether it is `S[k]`, or the name of what `S[k]` was just before."""
    if isinstance(node, tree.Index):
        same = isinstance(node.key, tree.Name) and node.key.id == key.id
        if not same or lookup(frame, node.target.id) is not box:
            return False
        box.reads.append(node.span)
        return True
    found = lookup(frame, node.id) if isinstance(node, tree.Name) else None
    asked = lookup(frame, key.id)
    if not isinstance(found, Value) or not isinstance(asked, Value):
        return False
    for step in reversed(frame.body):
        if isinstance(step, Read) and step.out == found:
            return (step.memory, step.key, step.solve) == (box.name, asked, None)
        if isinstance(step, Write | Update) and step.memory == box.name:
            return False
    return False


NAMED = "what looks at `{name}` is named above the step: `r = {name}[k]`"
SCALED = "in front of what `{name}` answers stand numbers with a name: `v - b * ({name} @ p)`"
BRACKETS = "in front of brackets stand numbers with a name: `m * (outer(v, k) + outer(u, p))`"
CHANNELS = "in the midst of a product stand numbers with a name; channels are scaled in `outer(s, w * c)`"
EXAMPLE = (
    "such as `{name} = a * {name} @ (I - b * outer(k, k)) + b * outer(v, k)`, with `k` a name; "
    "what looks at `{name}` in another way reads it above: `r = {name}[k]`"
)
"""What all other sums are told."""

SIDES = "factors on both sides are two statements: `{name} = {name} @ B`, then `{name} = A @ {name} + ...`"
"""What `A @ S @ B` is told."""

ALONE = "beside an erase along values stands what is written: `{name} = (I - b * outer(v, v)) @ {name} + ...`"
"""What such an erase alone is told."""
