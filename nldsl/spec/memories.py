"""Memories of a block: declaration, the inference of their sizes, and reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nldsl.catalog.values import Initialiser
from nldsl.source import Span
from nldsl.spec.expressions import evaluate, lookup, static_of
from nldsl.spec.frame import Frame
from nldsl.spec.functions import bind_definition
from nldsl.spec.items import POISON, Item, MapSource, MemoryBox, Poison, describe, is_number
from nldsl.spec.program import Clock, Memory, Parameter, Value
from nldsl.spec.session import MAX_SIZE
from nldsl.spec.statements import run
from nldsl.spec.static import whole_number
from nldsl.syntax import tree

ALWAYS = Clock(0, "always")


@dataclass(frozen=True)
class Level:
    """The level whose braces enclose a declaration."""

    name: str
    clock: Clock


def declare_level(frame: Frame, node: tree.LevelDecl) -> None:
    """`level NAME every C tokens { memory ... }`; the braces open no scope."""
    clock = read_clock(frame, node.clock)
    name = f"{node.name.id}{frame.index_text()}"
    outer, frame.state = frame.state, Level(name, clock) if clock else None
    if clock is None:
        for statement in node.body:
            if isinstance(statement, tree.MemoryDecl):
                frame.names.update({n.id: POISON for n in statement.names})
    else:
        if frame.paths[f"level {name}"]:
            frame.session.report(
                "NL0310",
                f"level `{name}` is declared twice",
                node.name.span,
                "declared again here",
                help="use another name",
            )
        frame.paths[f"level {name}"] += 1
        run(frame, node.body)
    frame.state = outer


def read_clock(frame: Frame, node: tree.Clock) -> Clock | None:
    """A clock with its count known.

    Errors: NL0501 if the count is no whole number of at least one.
    """
    if node.count is None:
        return Clock(0, "never")
    count = whole_number(
        frame.session, evaluate(frame, node.count), "a clock", node.count.span, code="NL0501"
    )
    return None if count is POISON else Clock(count, "steps" if node.unit == "steps" else "tokens")


def declare_memory(frame: Frame, node: tree.MemoryDecl) -> None:
    """`memory Mk, Mv = residual_mlp() per head ...`: one box per name."""
    source = _source(frame, node)
    heads = _heads(frame, node)
    reset = _reset(frame, node)
    level = frame.state
    good = source is not POISON and heads is not POISON and reset is not None
    if source is not POISON and source.kind != "softmax" and level is None:
        good = False
        frame.session.report(
            "NL0502",
            "a memory that learns stands in a level",
            node.span,
            "on no clock",
            help="`level context every 1 token { memory S = matrix() }`",
        )
    for name in node.names:
        if isinstance(frame.names.get(name.id), MemoryBox) and not frame.indices:
            frame.session.report(
                "NL0310", f"memory `{name.id}` is declared twice", name.span, "declared again here"
            )
        path = f"{name.id}{frame.index_text()}"
        frame.names[name.id] = POISON
        if good and source is not POISON and heads is not POISON and reset is not None:
            where = Level("", ALWAYS) if source.kind == "softmax" or level is None else level
            box = MemoryBox(path, where.name, where.clock, node, source, heads, reset=reset)
            frame.names[name.id] = frame.memories[path] = box


def _source(frame: Frame, node: tree.MemoryDecl) -> MapSource | Poison:
    """The map of a declaration: `matrix()`, `softmax(...)`, or one of the language."""
    call = node.map
    if isinstance(call, tree.Name):
        call = tree.Call(span=call.span, function=call, args=())
    if (
        isinstance(call, tree.Call)
        and call.function.id in _BUILT_IN
        and lookup(frame, call.function.id) is None
    ):
        options = _built_in(frame, call)
        return POISON if options is None else MapSource(call.function.id, arguments=tuple(options.items()))
    found = bind_definition(frame, node.map, "map", ("NL0303", "a map such as `matrix()`"), 1)
    if found is POISON:
        return POISON
    definition, unit, bound = found
    for name, item in bound.items():
        if isinstance(item, Value | MemoryBox):
            return frame.session.report(
                "NL0403",
                f"`{name}` of a map must be known when the program is compiled",
                node.map.span,
                describe(item),
            )
    return MapSource("map", definition, unit, tuple(bound.items()))


_BUILT_IN: dict[str, dict[str, tuple[Any, int]]] = {
    "matrix": {"out": (0, 1), "in": (0, 1)},
    "softmax": {"window": (0, 0), "start": (0, 0), "causal": (True, 0), "scale": (0.0, 0)},
}
"""Maps that are not written in the language: their options, each with default and least value."""


def _built_in(frame: Frame, call: tree.Call) -> dict[str, Any] | None:
    """The options of `matrix()` or `softmax()`."""
    known = _BUILT_IN[call.function.id]
    bound = {name: default for name, (default, _) in known.items()}
    order = list(known)
    good = True
    for position, argument in enumerate(call.args):
        name = argument.name or (order[position] if position < len(order) else "")
        item = static_of(frame, argument.value, f"`{name}`")
        if name not in known:
            listed = ", ".join(f"`{n}`" for n in order)
            frame.session.report(
                "NL0306",
                f"`{call.function.id}` has no option `{name}`"
                if name
                else f"`{call.function.id}` has {len(order)} options",
                argument.span,
                "unknown option",
                help=f"it has {listed}",
            )
            good = False
        elif item is POISON or not _fits(frame, name, item, known[name], argument.value.span):
            good = False
        else:
            bound[name] = item
    return bound if good else None


def _fits(frame: Frame, name: str, item: Item, known: tuple[Any, int], span: Span) -> bool:
    """Whether an option of a built-in map has the right type and range."""
    default, least = known
    if isinstance(default, bool):
        good = isinstance(item, bool)
    elif isinstance(default, float):
        good = is_number(item) and item > 0
    else:
        good = isinstance(item, int) and not isinstance(item, bool) and least <= item <= MAX_SIZE
    if not good:
        words = "`true` or `false`" if isinstance(default, bool) else f"a number of at least {least}"
        frame.session.report(
            "NL0405", f"`{name}` must be {words}, found {describe(item)}", span, "out of range"
        )
    return good


def _heads(frame: Frame, node: tree.MemoryDecl) -> int | Poison:
    """Number of copies, 0 if not `per head`."""
    if node.per_head is None or node.per_head is False:
        return 0
    if node.per_head is True:
        item = lookup(frame, "heads")
        if item is None:
            return frame.session.report(
                "NL0416",
                "`per head` needs a number of heads",
                node.span,
                "no `heads` in scope",
                help="write `per head(4)`, or give the block a parameter `heads`",
            )
        return whole_number(frame.session, item, "`heads`", node.span)
    return whole_number(
        frame.session, evaluate(frame, node.per_head), "the number of heads", node.per_head.span
    )


def _reset(frame: Frame, node: tree.MemoryDecl) -> tuple[str, int] | None:
    """When the memory starts anew."""
    if node.reset is None or node.reset.count is None:
        return (node.reset.kind if node.reset else "sequence"), 0
    count = whole_number(
        frame.session,
        evaluate(frame, node.reset.count),
        "the period of `reset`",
        node.reset.span,
        code="NL0501",
    )
    return None if count is POISON else ("tokens", count)


def initial_parameters(box: MemoryBox, kind: str) -> tuple[Parameter | None, ...]:
    """The learned start of every weight, copies per head in front; `None` where it is zero."""
    starts = box.options.get("starts", ())
    if kind in ("zero", "from"):
        return (None,) * len(starts)
    heads = (box.heads,) if box.heads else ()
    return tuple(
        Parameter(
            f"{box.name}.{w.value.name}",
            (*heads, *w.value.shape),
            w.init,
            "matrix" if len(w.value.shape) == 2 else "rest",
            w.span,
            fixed=kind == "fixed",
        )
        for w in starts
    )


def finish(frame: Frame, box: MemoryBox) -> Memory | None:
    """The memory as later stages see it."""
    if box.broken or not box.value_size or not box.key_size:
        return None
    kind, source = initial_kind(frame, box)
    options: dict[str, Any] = {}
    if box.softmax:
        options = {k: v for k, v in box.source.arguments if k != "scale"}
        given = dict(box.source.arguments)["scale"]
        options["scale"] = float(given) or box.key_size**-0.5
        box.slow = _start_pairs(frame, box, int(options["start"]))
        kind = "learned" if box.slow else kind
    return Memory(
        name=box.name,
        path=box.name,
        level=box.level,
        clock=box.clock,
        function=box.function,
        per_head=bool(box.heads),
        heads=box.heads or 1,
        key_size=box.key_size,
        value_size=box.value_size,
        init=kind,
        initial=initial_parameters(box, kind),
        init_from=source,
        reset=box.reset[0],  # type: ignore[arg-type]
        reset_every=box.reset[1],
        options=tuple(sorted(options.items())),
        parameters=box.slow,
        span=box.span,
    )


def _start_pairs(frame: Frame, box: MemoryBox, count: int) -> tuple[Parameter, ...]:
    """`softmax(start = n)`: n learned pairs of key and value per copy, always seen (persistent tokens)."""
    init = box.declaration.init
    if init is not None and (init.kind != "learned" or init.argument is not None or not count):
        words = "start tokens are learned" if count else "`softmax()` without `start` has nothing to learn"
        frame.session.report("NL0421", words, init.span, "refused", help="`softmax(start = 4) init learned`")
        return ()
    copies = (box.heads,) if box.heads else ()
    sizes = (("keys", box.key_size), ("values", box.value_size)) if count else ()
    return tuple(
        Parameter(
            f"{box.name}.{name}", (*copies, count, size), Initialiser("normal", size**-0.5), "rest", box.span
        )
        for name, size in sizes
    )


def initial_kind(frame: Frame, box: MemoryBox) -> tuple[Any, str | None]:
    """How the memory starts: as declared, else zero for a matrix and learned for other maps."""
    init = box.declaration.init
    if init is None:
        return ("zero" if box.source.kind in ("matrix", "softmax") else "learned"), None
    if init.kind == "learned" and init.argument is not None:
        if isinstance(init.argument, tree.String) and init.argument.value == "first":
            return "first", None
        frame.session.report(
            "NL0405", '`learned` takes nothing or "first"', init.span, "unknown way to learn"
        )
    if init.kind == "from" and isinstance(init.argument, tree.Name):
        other = frame.names.get(init.argument.id)
        if isinstance(other, MemoryBox):
            return "from", other.name
    return init.kind if init.kind != "from" else "learned", None
