"""Memories of a block: declaration, the inference of their sizes, and reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nldsl.diagnostics import Label, did_you_mean
from nldsl.source import Span
from nldsl.spec.expressions import HANDLERS as EXPRESSIONS
from nldsl.spec.expressions import element, evaluate, lookup, static_of, unknown_name, value_of
from nldsl.spec.frame import Frame
from nldsl.spec.functions import MapFunction, bind_definition, elaborate_map, matrix_map
from nldsl.spec.items import POISON, Item, MapSource, MemoryBox, Poison, describe, is_number
from nldsl.spec.primitives import apply, merged
from nldsl.spec.program import Clock, Memory, Parameter, Read, Value
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


def read(frame: Frame, node: tree.Index, target: str | None) -> Item:
    """`M[q]`: with `self`, a list or an unknown name told apart first."""
    box = frame.selves[-1] if node.target.id == "self" and frame.selves else lookup(frame, node.target.id)
    if isinstance(box, MemoryBox):
        return _read_box(frame, box, node, target)
    if isinstance(box, tuple):
        return element(frame, box, node)
    evaluate(frame, node.key)
    if box is POISON:
        return POISON
    if box is None and node.target.id not in frame.assigned and node.target.id != "self":
        boxes = [n for n, item in frame.names.items() if isinstance(item, MemoryBox)]
        return frame.session.report(
            "NL0321",
            f"unknown memory `{node.target.id}`",
            node.target.span,
            "no such memory in this scope",
            help=_near(node.target.id, boxes),
        )
    if box is None:
        return unknown_name(frame, node.target)
    return frame.session.report(
        "NL0314",
        f"`{node.target.id}` is {describe(box)}, expected a memory or a list",
        node.target.span,
        "cannot be read with `[...]`",
    )


def _near(name: str, boxes: list[str]) -> str:
    return did_you_mean(name, boxes) or "declare it: `level context every 1 token { memory S = matrix() }`"


def _read_box(frame: Frame, box: MemoryBox, node: tree.Index, target: str | None) -> Item:
    """A read of a declared memory."""
    owner: Frame | None = frame
    while owner is not None and box.name not in owner.memories:
        owner = owner.parent
    if owner is not frame:
        return frame.session.report(
            "NL0422",
            f"memory `{box.name}` belongs to the block around `repeat`",
            node.span,
            "read inside of `repeat`",
            help="declare the memory inside, or move `repeat` into a block of its own",
        )
    box.reads.append(node.span)
    solve = None
    key_node = node.key
    if isinstance(key_node, tree.Call) and key_node.function.id == "solve":
        parsed = _solve(frame, key_node)
        if parsed is None:
            return POISON
        key_node, solve = parsed
    key = prepare_key(frame, box, value_of(frame, key_node), key_node.span)
    if key is POISON or not ensure_function(frame, box, node.span):
        return POISON
    shape = (*key.shape[:-1], box.value_size)
    out = frame.new(shape, "headed" if len(shape) == 2 else "vector", target, box.name.split("[")[0])
    frame.body.append(Read(out, box.name, key, solve, node.span))
    return out


def _solve(frame: Frame, node: tree.Call) -> tuple[tree.Expr, tuple[str, float, int]] | None:
    """`solve(Hk, q, ridge = lam, iterations = n)`."""
    positional = [a.value for a in node.args if a.name is None]
    named = {a.name: a.value for a in node.args if a.name is not None}
    box = lookup(frame, positional[0].id) if positional and isinstance(positional[0], tree.Name) else None
    if len(positional) != 2 or not isinstance(box, MemoryBox) or set(named) - {"ridge", "iterations"}:
        frame.session.report(
            "NL0308",
            "`solve` takes a memory and a key",
            node.span,
            "refused",
            help="`Hv[solve(Hk, q, ridge = 1e-2)]`",
        )
        return None
    box.reads.append(node.span)
    ridge = static_of(frame, named["ridge"], "`ridge`") if "ridge" in named else 1e-2
    iterations = static_of(frame, named["iterations"], "`iterations`") if "iterations" in named else 8
    if ridge is POISON or iterations is POISON:
        return None
    if not is_number(ridge) or ridge < 0 or not isinstance(iterations, int) or iterations < 1:
        frame.session.report(
            "NL0405", "`ridge` is a number, `iterations` a whole number", node.span, "out of range"
        )
        return None
    return positional[1], (box.name, float(ridge), iterations)


def prepare_key(frame: Frame, box: MemoryBox, key: Value | Poison, span: Span) -> Value | Poison:
    """A key in the form the memory takes: split into its heads, or merged; its size fixes the memory's.

    Errors: NL0402 if heads do not divide, NL0401 if the size differs from that of the first use.
    """
    if key is POISON:
        return POISON
    if key.kind not in ("vector", "headed"):
        return frame.session.report(
            "NL0401", f"the key of `{box.name}` must be a vector, found {describe(key)}", span, describe(key)
        )
    if box.heads and key.kind == "vector":
        split = apply(frame, "split", (key,), {"n": box.heads}, span)
        if split is POISON:
            return POISON
        key = split
    elif not box.heads:
        key = merged(frame, key, span)
    if box.heads and key.shape[0] % box.heads:
        return frame.session.report(
            "NL0402",
            f"{key.shape[0]} heads cannot share the {box.heads} copies of `{box.name}` evenly",
            span,
            f"expected a multiple of {box.heads}",
        )
    size = key.shape[-1]
    if not box.key_size:
        box.key_size, box.key_span = size, span
        frame.keys[box.name] = size
    if box.key_size != size:
        secondary = (Label(box.key_span, f"of {box.key_size} channels here"),) if box.key_span else ()
        return frame.session.report(
            "NL0401",
            f"the keys of `{box.name}` have {box.key_size} channels, found {size}",
            span,
            f"{size} channels",
            secondary=secondary,
        )
    return key


def ensure_function(frame: Frame, box: MemoryBox, span: Span) -> bool:
    """Elaborate the map once the key size is known; `False` if that is not possible (yet)."""
    if box.broken:
        return False
    if box.function is not None or (box.softmax and box.value_size):
        return True
    options = dict(box.source.arguments)
    if box.source.kind in ("matrix", "softmax"):
        box.value_size = box.value_size or int(options.get("out", 0)) or frame.sizes.get(box.name, 0)
        if not box.value_size and not frame.square:
            frame.pending.add(box.name)
            return False
        box.value_size = box.value_size or box.key_size
        if box.softmax:
            return True
        if options.get("in") and options["in"] != box.key_size:
            frame.session.report(
                "NL0401",
                f"`matrix(in = {options['in']})` is given keys of {box.key_size} channels",
                span,
                "another size",
            )
            box.broken = True
            return False
        found: MapFunction | None = matrix_map(box.key_size, box.value_size, box.declaration.map.span)
    else:
        found = elaborate_map(frame.session, box.source, box.key_size, box.name, box.declaration.map.span)
    if found is None:
        box.broken = True
        return False
    box.function, box.slow = found.function, found.slow
    box.value_size = found.function.outputs[0].shape[0]
    box.options["starts"] = found.weights
    return True


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
        )
        for w in starts
    )


def finish(frame: Frame, box: MemoryBox) -> Memory | None:
    """The memory as later stages see it."""
    if box.broken or not box.value_size:
        return None
    kind, source = initial_kind(frame, box)
    options: dict[str, Any] = {}
    if box.softmax:
        options = {k: v for k, v in box.source.arguments if k != "scale"}
        given = dict(box.source.arguments)["scale"]
        options["scale"] = float(given) or box.key_size**-0.5
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


EXPRESSIONS[tree.Index] = read
