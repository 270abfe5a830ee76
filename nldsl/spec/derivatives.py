"""Reverse mode over straight-line code of a rule, with the vector-Jacobian products of the library.

A write inside of a rule minimises an objective of its own.  Its gradient is written out when the rule is
elaborated, so that a rule stays plain code for every later stage.
"""

from __future__ import annotations

from typing import Any

from nldsl.catalog.primitive import Operand
from nldsl.catalog.values import Static
from nldsl.library import PRIMITIVES
from nldsl.source import Span
from nldsl.spec.frame import Frame
from nldsl.spec.items import POISON, Poison
from nldsl.spec.primitives import apply
from nldsl.spec.program import Apply, Value


class Emitter:
    """What a vector-Jacobian product writes with: every expression becomes a statement of the rule."""

    def __init__(self, frame: Frame, span: Span) -> None:
        self.frame = frame
        self.span = span

    def __call__(self, op: str | float, *args: Any, **options: Static) -> Any:
        if not isinstance(op, str):
            return self.frame.constant(op, self.span)
        if any(a is POISON for a in args):
            return POISON
        if op == "mul" and (kept := self._without_one(args)) is not None:
            return kept
        return apply(self.frame, op, args, options, self.span, derived=True)

    def operand(self, handle: Value) -> Operand:
        """Shape and kind of a value."""
        return Operand(handle.shape, handle.kind)

    def _without_one(self, args: tuple[Any, ...]) -> Value | None:
        """The other factor of a product with the constant one, if it has the shape of the product."""
        one = [v for key, v in self.frame.constants.items() if isinstance(key, tuple) and key[1] == 1]
        for factor, other in (args, args[::-1]):
            if factor in one:
                return other  # type: ignore[no-any-return]
        return None


def gradients(
    frame: Frame, start: int, output: Value, wanted: list[Value], span: Span
) -> list[Value | Poison]:
    """The gradient of the scalar `output` with respect to each of `wanted`.

    Only the statements of `frame.body` from `start` on are looked through; everything before them is
    constant.  A value the output does not depend on has the gradient zero.

    Errors: NL0425 for a primitive without a vector-Jacobian product.
    """
    emit = Emitter(frame, span)
    tape = [s for s in frame.body[start:] if isinstance(s, Apply)]
    active = _active(tape, {w.name for w in wanted})
    found: dict[str, Value] = {output.name: emit(1.0)}
    for step in reversed(tape):
        grad = found.get(step.out.name)
        if grad is None or step.out.name not in active:
            continue
        rule = PRIMITIVES[step.op].vjp
        if rule is None:
            poison = frame.session.report(
                "NL0425",
                f"`{step.op}` has no gradient, which a write of a rule needs",
                span,
                "cannot be minimised",
            )
            return [poison] * len(wanted)
        parts = rule(emit, step.args, step.out, grad, dict(step.options))
        for argument, part in zip(step.args, parts, strict=True):
            if part is None or argument.name not in active:
                continue
            part = _reduced(emit, part, argument)
            before = found.get(argument.name)
            part = part if before is None else emit("add", before, part)
            if part is POISON:
                return [POISON] * len(wanted)
            found[argument.name] = part
    return [found[w.name] if w.name in found else emit("mul", w, emit(0.0)) for w in wanted]


def _active(tape: list[Apply], wanted: set[str]) -> set[str]:
    """Names of values that depend on what is wanted."""
    active = set(wanted)
    for step in tape:
        if any(a.name in active for a in step.args):
            active.add(step.out.name)
    return active


def _reduced(emit: Emitter, part: Any, argument: Value) -> Any:
    """A cotangent in the shape of its argument: summed where it was broadcast, spread where constant."""
    while part is not POISON and len(part.shape) > len(argument.shape):
        part = emit("sum", part)
    if part is POISON or part.shape == argument.shape:
        return part
    if len(argument.shape) == 2 and not part.shape:
        part = emit("expand_last", part, emit("sum", argument))
    return emit("expand_last", part, argument)
