"""Reads of memories, and the inference of key and value sizes from the first uses."""

from __future__ import annotations

from nldsl.diagnostics import Label, did_you_mean
from nldsl.source import Span
from nldsl.spec.calls import SPECIAL, Results
from nldsl.spec.expressions import HANDLERS, element, evaluate, lookup, static_of, unknown_name, value_of
from nldsl.spec.frame import Frame
from nldsl.spec.functions import MapFunction, elaborate_map, matrix_map
from nldsl.spec.items import POISON, Item, MemoryBox, Poison, describe, is_number
from nldsl.spec.numbers import number_key
from nldsl.spec.primitives import apply, merged
from nldsl.spec.program import Read, Solution, Value
from nldsl.syntax import tree


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
        help=_instead(node.target.id, box),
    )


def _instead(name: str, item: object) -> str:
    """What `x[...]` may have been meant to be, for values."""
    if isinstance(item, Value) and item.kind == "matrix":
        return f"a table is looked up with `embed(tokens, {name})`, a matrix applied with `{name} @ x`"
    if isinstance(item, Value):
        return f"values have no indices: `parts({name}, n, m)` cuts, `shift({name}, 1)` is the token before"
    return ""


def _near(name: str, boxes: list[str]) -> str:
    return (
        did_you_mean(name, boxes)
        or f"declare it: `level context every 1 token {{ memory {name} = matrix() }}`"
    )


def _read_box(frame: Frame, box: MemoryBox, node: tree.Index, target: str | None) -> Item:
    """A read of a declared memory."""
    if not _at_hand(frame, box, node.span):
        return POISON
    box.reads.append(node.span)
    solve = None
    key_node = node.key
    if isinstance(key_node, tree.Call) and key_node.function.id == "solve":
        parsed = _solve(frame, key_node)
        if parsed is None:
            return POISON
        key_node, (system, ridge, iterations) = parsed
        solve = (system.name, ridge, iterations)
    key = prepare_key(frame, box, value_of(frame, key_node), key_node.span)
    if key is POISON or not ensure_function(frame, box, node.span):
        return POISON
    shape = (*key.shape[:-1], box.value_size)
    out = frame.new(shape, "headed" if len(shape) == 2 else "vector", target, box.name.split("[")[0])
    frame.body.append(Read(out, box.name, key, solve, node.span))
    return out


def solution(frame: Frame, node: tree.Call, target: str | None) -> Item:
    """`g = solve(H, k, ridge = lam)`: what `H` would have to be asked for it to answer `k`."""
    parsed = _solve(frame, node)
    if parsed is None:
        return POISON
    key_node, (box, ridge, iterations) = parsed
    if not _at_hand(frame, box, node.span):
        return POISON
    key = prepare_key(frame, box, value_of(frame, key_node), key_node.span)
    if key is POISON or not ensure_function(frame, box, node.span):
        return POISON
    out = frame.new(key.shape, key.kind, target, box.name.split("[")[0])
    frame.body.append(Solution(out, box.name, key, (box.name, ridge, iterations), node.span))
    return out


def _at_hand(frame: Frame, box: MemoryBox, span: Span) -> bool:
    """NL0422: whether the memory is one of this body."""
    owner: Frame | None = frame
    while owner is not None and box.name not in owner.memories:
        owner = owner.parent
    if owner is not frame:
        frame.session.report(
            "NL0422",
            f"memory `{box.name}` belongs to the block around `repeat`",
            span,
            "read inside of `repeat`",
            help="declare the memory inside, or write the turns out with `for turn in [1, 2] { ... }`",
        )
    return owner is frame


def _solve(frame: Frame, node: tree.Call) -> tuple[tree.Expr, tuple[MemoryBox, float, int]] | None:
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
            help="`Hv[solve(Hk, q, ridge = 1e-2)]`, or `g = solve(Hk, k, ridge = 1e-2)`",
        )
        return None
    box.reads.append(node.span)
    ridge = static_of(frame, named["ridge"], "`ridge`") if "ridge" in named else 1e-2
    iterations = static_of(frame, named["iterations"], "`iterations`") if "iterations" in named else 8
    if ridge is POISON or iterations is POISON:
        return None
    if not is_number(ridge) or ridge < 0 or not isinstance(iterations, int) or iterations < 0:
        frame.session.report(
            "NL0405", "`ridge` is a number, `iterations` a whole number", node.span, "out of range"
        )
        return None
    return positional[1], (box, float(ridge), iterations)


def prepare_key(frame: Frame, box: MemoryBox, key: Value | Poison, span: Span) -> Value | Poison:
    """A key in the form the memory takes: split into its heads, or merged; its size fixes the memory's.

    Errors: NL0402 if heads do not divide, NL0401 if the size differs from that of the first use.
    """
    if key is POISON or box.broken:
        return POISON
    key = number_key(frame, box, key, span)
    if key is POISON:
        return POISON
    if key.kind not in ("vector", "headed"):
        return frame.session.report(
            "NL0401", f"the key of `{box.name}` must be a vector, found {describe(key)}", span, describe(key)
        )
    if box.heads and key.kind == "vector":
        split = apply(frame, "split", (key,), {"n": box.heads}, span)
        if split is POISON:
            box.broken = True
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
        if not box.value_size and box.key_size == 1:
            return _unsized(frame, box, span)
        box.value_size = box.value_size or box.key_size
        if box.softmax:
            return True
        if options.get("in") and options["in"] != box.key_size:
            frame.session.report(
                "NL0401",
                f"`matrix(in = {options['in']})` is given keys of {box.key_size} channels",
                span,
                "another size",
                help=f"leave out `in`, or write `in = {box.key_size}`",
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


def _unsized(frame: Frame, box: MemoryBox, span: Span) -> bool:
    """A vector whose length nothing tells but its own answers; a square would make one number of it."""
    frame.session.report(
        "NL0401",
        f"how many channels `{box.name}` has follows from nothing but its own answers",
        span,
        "read before anything says so",
        help="`matrix(out = dim(x), in = 1)` says it; `out = 1` is one number",
    )
    box.broken = True
    return False


def _solution(frame: Frame, node: tree.Call, targets: tuple[str | None, ...]) -> Results:
    return (solution(frame, node, targets[0]),)


HANDLERS[tree.Index] = read
SPECIAL["solve"] = _solution
