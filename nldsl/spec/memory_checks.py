"""Checks of the memories of one finished body."""

from __future__ import annotations

from nldsl.spec.frame import Frame
from nldsl.spec.items import MemoryBox
from nldsl.spec.program import Function
from nldsl.syntax import tree


def check_memories(frame: Frame) -> None:
    """NL0411 never read, NL0412 empty and never written, NL0413 unused, NL0415 zero start that stays zero."""
    starts = _origins(frame)
    for box in frame.memories.values():
        if box.broken or frame.session.bag.errors:
            continue
        used = bool(box.reads) or box.name in starts
        if not used and not box.writes:
            frame.session.report(
                "NL0413", f"memory `{box.name}` is never used", box.span, "neither read nor written"
            )
        elif not used:
            frame.session.report(
                "NL0411",
                f"memory `{box.name}` is written but never read",
                box.span,
                "nothing depends on it",
                help=f"read it: `{box.name.split('[')[0]}[q]`, or remove it",
            )
        elif not box.writes and starts_at_zero(box):
            _never_written(frame, box)
        elif starts_at_zero(box) and box.function is not None and multiplies_weights(box.function):
            frame.session.report(
                "NL0415",
                f"memory `{box.name}` would never leave zero: its map multiplies two weights",
                box.span,
                "both gradients are zero at the start",
                help="leave out `init zero`, or declare `init learned`",
            )


def _origins(frame: Frame) -> set[str]:
    """Memories that others start from."""
    names = set()
    for box in frame.memories.values():
        init = box.declaration.init
        if init is not None and isinstance(init.argument, tree.Name):
            other = frame.names.get(init.argument.id)
            if isinstance(other, MemoryBox):
                names.add(other.name)
    return names


def _never_written(frame: Frame, box: MemoryBox) -> None:
    name = box.name.split("[")[0]
    frame.session.report(
        "NL0412",
        f"memory `{box.name}` is read but never written, and starts empty",
        box.reads[0],
        "always zero",
        help=f"add a write such as `{name}[k] <- v by gd(lr = 0.1)`, or declare `init learned`",
    )


def starts_at_zero(box: MemoryBox) -> bool:
    """Whether every weight is zero at the start."""
    init = box.declaration.init
    if init is None:
        return box.source.kind in ("matrix", "softmax")
    return init.kind == "zero"


def multiplies_weights(function: Function) -> bool:
    """Whether some weight multiplies a value that is zero while another weight is zero.

    With all weights zero such a product has no gradient in either factor.
    """
    weights = {w.name for w in function.weights}
    zero = set(weights)
    keep = {"matmul", "mul", "neg", "silu", "relu", "gelu", "tanh", "transpose", "l2norm", "norm", "sin"}
    for apply in function.body:
        names = [a.name for a in apply.args]
        if apply.op in ("matmul", "mul") and len(names) == 2 and all(n in zero for n in names):
            return True
        dead = (
            any(n in zero for n in names) if apply.op in ("matmul", "mul") else all(n in zero for n in names)
        )
        if names and dead and apply.op in (keep | {"add", "sub"}):
            zero.add(apply.out.name)
    return False
