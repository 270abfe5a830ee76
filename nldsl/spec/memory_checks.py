"""Checks of the memories of one finished body."""

from __future__ import annotations

from nldsl.diagnostics import Edit
from nldsl.source import Span
from nldsl.spec.frame import Frame
from nldsl.spec.gates import several_weights
from nldsl.spec.items import MemoryBox
from nldsl.spec.program import Function, Read, Update, Write
from nldsl.syntax import tree


def check_memories(frame: Frame) -> None:
    """NL0411 never read, NL0412 empty and never written, NL0413 unused, NL0415 zero start that stays zero.

    NL0417 map without weights, NL0419 start from what is no such memory, NL0506 write on a clock that never
    ticks.
    """
    starts = _origins(frame)
    for box in frame.memories.values():
        if box.broken or frame.session.bag.errors or not _origin_fits(frame, box):
            continue
        if box.clock.unit == "never" and box.writes:
            frame.session.report(
                "NL0506",
                f"memory `{box.name}` stands in a level that never ticks",
                box.writes[0],
                "a write that never happens",
                help="give the level a clock: `every 1 token`",
            )
        _gates_fit(frame, box)
        _solves(frame, box)
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
        elif box.function is not None and not box.function.weights:
            _without_weights(frame, box, box.function)
        elif not box.writes and starts_at_zero(box):
            _never_written(frame, box)
        elif starts_at_zero(box) and box.function is not None and multiplies_weights(box.function):
            frame.session.report(
                "NL0415",
                f"memory `{box.name}` would never leave zero: its map multiplies two weights",
                box.span,
                "both gradients are zero at the start",
                help="leave out `init zero`, or declare `init learned`",
                edit=_learned(box),
            )


def _without_weights(frame: Frame, box: MemoryBox, function: Function) -> None:
    frame.session.report(
        "NL0417",
        f"memory `{box.name}` holds nothing: its map `{function.name}` has no weights",
        box.span,
        "nothing to write to",
        help="give the map a weight: `W = weight(dim(z), dim(z))`",
    )


def _gates_fit(frame: Frame, box: MemoryBox) -> None:
    """NL0418: channels of a memory of several weights, whose map was not known where the gate was read."""
    if box.function is None or len(box.function.weights) < 2:
        return
    for statement in frame.body:
        scaled = isinstance(statement, Update) and statement.op == "scale" and statement.axis != "scalar"
        retained = isinstance(statement, Write) and statement.retain_axis != "scalar"
        if (scaled or retained) and isinstance(statement, Update | Write) and statement.memory == box.name:
            several_weights(frame, box, statement.span or box.span, "one number per channel")


def _learned(box: MemoryBox) -> Edit | None:
    """`init learned` in place of `init zero`."""
    init = box.declaration.init
    if init is None or not init.span.text.endswith("zero"):
        return None
    span = Span(init.span.file, init.span.end - len("zero"), init.span.end)
    return Edit(span, "learned", "declare `init learned`")


def _origins(frame: Frame) -> set[str]:
    """Memories that others start from."""
    found = [_origin(frame, box) for box in frame.memories.values()]
    return {box.name for box in found if box is not None}


def _solves(frame: Frame, box: MemoryBox) -> None:
    """NL0401: a read through `solve` needs one square matrix, as wide as its query."""
    for read in frame.body:
        if not isinstance(read, Read) or read.solve is None or read.solve[0] != box.name:
            continue
        width = read.key.shape[-1]
        shape = box.function.weights[0].shape if box.function is not None and box.function.weights else ()
        if box.source.kind == "matrix" and shape in ((), (width, width)):
            continue
        found = f"a matrix {list(shape)}" if box.source.kind == "matrix" else "no `matrix()`"
        frame.session.report(
            "NL0401",
            f"`solve` needs a square matrix of {width} channels, `{box.name}` is {found}",
            read.span or box.span,
            "no system to solve",
            help=f"declare `memory {box.name} = matrix()` and write `{box.name}[k] <- k`, wide as the query",
        )
        return


def _origin_fits(frame: Frame, box: MemoryBox) -> bool:
    """Whether `init M2` names another memory of this block with weights of the same shapes, in no circle."""
    init = box.declaration.init
    if init is None or init.kind != "from" or init.argument is None:
        return True
    other, problem, trail = _origin(frame, box), "", [box]
    if other is None:
        problem = "`init` takes `zero`, `learned`, `fixed` or the name of a memory of this block"
    while other is not None and not problem:
        if other in trail:
            path = " -> ".join(f"`{b.name}`" for b in (*trail, other))
            problem = f"memories start from one another in a circle: {path}"
        elif other.function is None and box.function is not None:
            problem = f"memory `{other.name}` is neither read nor written, so its size is not known"
        elif _shapes(other) != _shapes(box):
            problem = f"memory `{box.name}` cannot start from `{other.name}`: their weights differ in shape"
        trail.append(other)
        other = _origin(frame, other)
    if problem:
        frame.session.report("NL0419", problem, init.span, "refused")
    return not problem


def _origin(frame: Frame, box: MemoryBox) -> MemoryBox | None:
    """The memory that `box` starts from, if it is one."""
    init = box.declaration.init
    if init is None or not isinstance(init.argument, tree.Name):
        return None
    other = frame.names.get(init.argument.id)
    return other if isinstance(other, MemoryBox) else None


def _shapes(box: MemoryBox) -> object:
    """What two memories must share for one to start from the other."""
    weights = [w.shape for w in box.function.weights] if box.function is not None else []
    return box.heads, weights


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
