"""Gates: numbers that scale a memory or a step, for the whole of it, per channel or per element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nldsl.source import Span
from nldsl.spec.expressions import value_of
from nldsl.spec.frame import Frame
from nldsl.spec.items import POISON, MemoryBox, Poison, describe
from nldsl.spec.numbers import one_column
from nldsl.spec.primitives import apply
from nldsl.spec.program import Value
from nldsl.spec.rules import View
from nldsl.syntax import tree

Axis = Literal["scalar", "key", "value", "element"]


@dataclass(frozen=True)
class Gate:
    """A gate and the axis of the weights it runs along."""

    value: Value
    axis: Axis


def gate(frame: Frame, box: MemoryBox, node: tree.Expr) -> Gate | None:
    """The gate `node` stands for; `values(a)` marks one number per value channel.

    Errors: NL0418 if its shape fits neither the heads nor the channels of the memory.
    """
    marked = isinstance(node, tree.Call) and node.function.id == "values" and len(node.args) == 1
    inner = node.args[0].value if marked and isinstance(node, tree.Call) else node
    value = value_of(frame, inner)
    if value is not POISON:
        value = lone(frame, box, value, node.span)
    if value is POISON:
        return None
    if box.heads and value.kind == "vector" and value.shape[0] % box.heads == 0 != value.shape[0] - box.heads:
        split = apply(frame, "split", (value,), {"n": box.heads}, node.span)
        if split is POISON:
            return None
        value = split
    box.key_size = box.key_size or frame.keys.get(box.name, 0)
    if value.kind != "scalar" and not box.key_size:
        frame.pending.add(box.name)
    marked = marked or (one_column(box) and value.kind in ("vector", "headed") and value.shape[-1] != 1)
    if marked and value.kind in ("vector", "headed"):
        _size_by_values(frame, box, value)
    axis = _axis(frame, box, value, marked)
    if axis is None:
        heads = (
            f"[{box.heads}] (one number per head) or [{box.heads}, channels]" if box.heads else "[channels]"
        )
        frame.session.report(
            "NL0418",
            f"a gate of `{box.name}` must be a scalar, {heads}, found {describe(value)}",
            node.span,
            describe(value),
            help=_gate_help(box, value, marked, frame.sizes.get(box.name, 0)),
        )
        return None
    if axis != "scalar" and box.function is not None and len(box.function.weights) > 1:
        several_weights(frame, box, node.span, describe(value))
        return None
    return Gate(value, axis)


def _gate_help(box: MemoryBox, value: Value, marked: bool, size: int) -> str:
    """What the gate may have been meant to be."""
    if not marked and value.shape[-1:] == (box.value_size or size,):
        return "`values(...)` marks one number per value channel"
    per_head = "" if box.heads else f"; for numbers per head declare `memory {box.name} = ... per head`"
    return f"such as `sigmoid(linear(x, {box.heads or 1}))`{per_head}"


def _size_by_values(frame: Frame, box: MemoryBox, value: Value) -> None:
    """A gate per value channel says how many there are, if nothing did before."""
    if box.source.kind == "matrix" and not box.value_size and not dict(box.source.arguments).get("out"):
        frame.sizes.setdefault(box.name, value.shape[-1])


def several_weights(frame: Frame, box: MemoryBox, span: Span, found: str) -> None:
    """NL0418: the channels of which weight would be meant?"""
    one = "one number per head" if box.heads else "one number"
    count = f"linear(x, {box.heads or 1})"
    message = f"memory `{box.name}` has several weights and takes {one} as a gate"
    frame.session.report("NL0418", message, span, found, help=f"such as `sigmoid({count})`")


def one_weight(frame: Frame, box: MemoryBox, found: Gate, span: Span) -> bool:
    """NL0418: the weight of a token in a sum counts for all its channels."""
    if found.axis == "scalar":
        return True
    one = "one number per head" if box.heads else "one number"
    frame.session.report(
        "NL0418",
        f"`weighted` takes {one} of `{box.name}`, found {describe(found.value)}",
        span,
        describe(found.value),
        help=f"such as `sigmoid(linear(x, {box.heads or 1}))`; channels are scaled by a rate or a gate",
    )
    return False


def lone(frame: Frame, box: MemoryBox, value: Value, span: Span) -> Value | Poison:
    """The number in a vector of one, where there are no heads that it could be the numbers of."""
    if box.heads or value.kind != "vector" or value.shape != (1,):
        return value
    return apply(frame, "mean", (value,), {}, span, value.name)


def _axis(frame: Frame, box: MemoryBox, value: Value, marked: bool) -> Axis | None:
    """Which axis a gate of this shape runs along, `None` if it fits none."""
    if value.kind == "scalar" or (box.heads and value.shape == (box.heads,)):
        return "scalar"
    if value.kind == "matrix":
        known = box.value_size or frame.sizes.get(box.name, 0)
        sizes = (known or value.shape[0], box.key_size or value.shape[1])
        return "element" if value.shape == sizes else None
    good = value.shape[:-1] == ((box.heads,) if box.heads else ())
    size = box.value_size if marked else box.key_size
    if not good or (size and value.shape[-1] != size):
        return None
    return "value" if marked else "key"


def per_weight(
    frame: Frame, box: MemoryBox, value: Value, what: str, span: Span, axis: Literal["key", "value"] = "key"
) -> View | None:
    """An argument of a rule as one weight of one head sees it; a vector runs along `axis`.

    Errors: NL0418.
    """
    if value.kind == "scalar" or (box.heads and value.shape == (box.heads,)):
        return View(Value(value.name, (), "scalar"), "scalar")
    if value.kind in ("vector", "headed") and value.shape[:-1] == ((box.heads,) if box.heads else ()):
        return View(Value(value.name, value.shape[-1:], "vector"), axis)
    expected = f"a scalar or one number for each of the {box.heads} heads" if box.heads else "one number"
    frame.session.report(
        "NL0418",
        f"{what} must be {expected} of `{box.name}`, found {describe(value)}",
        span,
        describe(value),
        help=f"such as `sigmoid(linear(x, {box.heads or 1}))`",
    )
    return None
