"""Blocks: bind the inputs, elaborate the body until all sizes are known, and call other blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nldsl.diagnostics import Diagnostic, Label
from nldsl.source import Span
from nldsl.spec.arguments import bind_arguments, complete
from nldsl.spec.calls import CALLABLE, Results
from nldsl.spec.expressions import evaluate, lookup, value_of
from nldsl.spec.frame import Frame, Namer, assigned_names
from nldsl.spec.items import POISON, Item, MemoryBox, describe, freeze, is_static
from nldsl.spec.loader import Unit
from nldsl.spec.memories import declare_level, declare_memory, finish
from nldsl.spec.memory_checks import check_memories
from nldsl.spec.primitives import merged
from nldsl.spec.program import Block, Call, Memory, Repeat, Value
from nldsl.spec.self_taught import taught
from nldsl.spec.session import MAX_COPIES, Session
from nldsl.spec.statements import HANDLERS, run
from nldsl.spec.static import whole_number
from nldsl.spec.task_writes import block_assign, task_write
from nldsl.syntax import tree


@dataclass
class Done:
    """A block elaborated for one set of arguments, with what there was to say about it."""

    block: Block | None
    findings: list[Diagnostic] = field(default_factory=list)


def elaborate_block(
    session: Session, definition: tree.Definition, unit: Unit, bound: dict[str, Item], span: Span
) -> Block | None:
    """A block with its parameters bound: values are its inputs, the rest is static.

    The body is elaborated again while that finds sizes of memories which an earlier read needed.
    Findings are those of the last pass.  Equal arguments give the same block, elaborated once.
    """
    key = ("block", id(definition), tuple((n, freeze(_shape_of(i))) for n, i in bound.items()))
    if key not in session.memo:
        fresh_block = Done(None)
        with session.inside(id(definition), definition.name.id, span) as fresh:
            if not fresh:
                return None
            with session.collecting() as bag:
                fresh_block.block = _passes(session, definition, unit, bound)
            fresh_block.findings = bag.items
        session.memo[key] = fresh_block
    done: Done = session.memo[key]
    for finding in done.findings:
        session.bag.add(finding)
    return done.block


def _shape_of(item: Item) -> Any:
    return ("value", item.shape, item.kind) if isinstance(item, Value) else (type(item).__name__, item)


def _passes(
    session: Session, definition: tree.Definition, unit: Unit, bound: dict[str, Item]
) -> Block | None:
    """Elaborate the body of a definition as often as its memories need."""

    def start() -> Frame:
        assigned = assigned_names(definition.body)
        namer = Namer(set(assigned) | set(bound))
        names: dict[str, Item] = {}
        for name, item in bound.items():
            names[name] = (
                Value(namer.variable(name), item.shape, item.kind) if isinstance(item, Value) else item
            )
        return Frame(session, unit, "block", definition.name.id, names, namer, assigned)

    frame = settle(start, definition.body)
    inputs = tuple(frame.inputs.values())
    outputs = _outputs(frame, definition)
    memories = close(frame)
    if outputs is None or memories is None or session.bag.errors:
        return None
    static = tuple(sorted((n, freeze(i)) for n, i in bound.items() if is_static(i)))
    block = Block(definition.name.id, inputs, memories, tuple(frame.body), outputs, static, definition.span)
    session.measure(block, definition.name.span)
    return block


def settle(start: Any, body: tuple[tree.Statement, ...]) -> Frame:
    """Run a body until no read waits for the size of its memory any more.

    A last pass gives memories whose size nothing says as many values as keys.
    """
    sizes: dict[str, int] = {}
    keys: dict[str, int] = {}
    square = False
    while True:
        frame: Frame = start()
        frame.inputs = {n: i for n, i in frame.names.items() if isinstance(i, Value)}
        frame.sizes, frame.keys, frame.square = dict(sizes), dict(keys), square
        session = frame.session
        with session.collecting() as bag:
            run(frame, body)
        found = (frame.sizes, frame.keys) != (sizes, keys)
        if not frame.pending or (square and not found):
            for finding in bag.items:
                session.bag.add(finding)
            return frame
        square = square or not found
        sizes, keys = frame.sizes, frame.keys


def close(frame: Frame) -> tuple[Memory, ...] | None:
    """The memories of a finished body, checked; `None` if one is broken."""
    check_memories(frame)
    memories = [finish(frame, box) for box in frame.memories.values()]
    good = tuple(m for m in memories if m is not None)
    return good if len(good) == len(memories) else None


def _outputs(frame: Frame, definition: tree.Definition) -> tuple[Value, ...] | None:
    """What the block returns."""
    if frame.returned is None:
        frame.session.report(
            "NL0324",
            f"{definition.kind} `{definition.name.id}` returns nothing",
            definition.name.span,
            "no `return` was reached",
            help="end the body with `return ...`",
        )
        return None
    values = tuple(v for v in frame.returned if isinstance(v, Value))
    return values if len(values) == len(frame.returned) else None


def give_back(frame: Frame, node: tree.Return) -> None:
    """`return e`: the values of a block; heads are merged."""
    frame.variable = "out"
    if frame.parent is not None:
        frame.session.report(
            "NL0325", "`return` stands inside of `repeat`", node.span, "leaves only one copy"
        )
        return
    results: list[Item] = []
    for expression in node.values:
        value = value_of(frame, expression, None if "out" in frame.assigned else "out")
        results.append(merged(frame, value, expression.span) if isinstance(value, Value) else POISON)
    frame.returned = tuple(results)


def call_block(
    frame: Frame, node: tree.Call, definition: tree.Definition, unit: Unit, targets: tuple[str | None, ...]
) -> Results:
    """`mixer(x, heads)`: a block in a block; what is its own lives under its name."""
    given = bind_arguments(frame, definition, node)
    poisoned = given is None or any(item is POISON for item, _ in given.values())
    if given is None or poisoned:
        return (POISON,)
    bound = complete(frame.session, definition, unit, given, node.span)
    if bound is None or not _no_memories(frame, bound, given):
        return (POISON,)
    block = elaborate_block(frame.session, definition, unit, bound, node.function.span)
    if block is None:
        return (POISON,)
    args = tuple(i for i in bound.values() if isinstance(i, Value))
    name = definition.name.id
    path = frame.claim_path(name, frame.index_text())
    named = targets if len(targets) == len(block.outputs) else (None,) * len(block.outputs)
    outs = tuple(frame.new(o.shape, o.kind, t, name) for o, t in zip(block.outputs, named, strict=True))
    frame.body.append(Call(outs, block, args, path, node.span))
    return outs


def _no_memories(frame: Frame, bound: dict[str, Item], given: dict[str, tuple[Item, Span]]) -> bool:
    """A memory belongs to one block and is not passed on."""
    for name, item in bound.items():
        if isinstance(item, MemoryBox):
            frame.session.report(
                "NL0314",
                f"the memory `{item.name}` cannot be passed to a block",
                given[name][1],
                "read it here",
            )
            return False
    return True


def repeat(frame: Frame, node: tree.Repeat) -> None:
    """`repeat n { ... }`: the values it assigns are carried from copy to copy."""
    count = whole_number(
        frame.session, evaluate(frame, node.count), "the count of `repeat`", node.count.span, least=0
    )
    assigned = assigned_names(node.body)
    carried = [n for n in assigned if isinstance(lookup(frame, n), Value)]
    if count is POISON or count == 0 or not _sane(frame, node, count, assigned):
        for name in carried if count != 0 else ():
            frame.names[name] = POISON
        return
    outer = {n: v for n in carried if isinstance(v := frame.names.get(n) or lookup(frame, n), Value)}
    inner = settle(lambda: _inner(frame, assigned, outer), node.body)
    memories = close(inner)
    results = _carried(frame, inner, node, outer)
    if results is None or memories is None:
        for name in carried:
            frame.names[name] = POISON
        return
    imports = [n for n in inner.imports if n not in outer]
    inputs = (*(inner.inputs[n] for n in outer), *(inner.imports[n] for n in imports))
    args = (*outer.values(), *(v for n in imports if isinstance(v := lookup(frame, n), Value)))
    path = frame.claim_path("blocks", frame.index_text())
    block = Block(
        f"{frame.title}_{path.split('[')[0]}", inputs, memories, tuple(inner.body), results, (), node.span
    )
    frame.session.measure(block, node.span)
    outs = []
    for name, result in zip(outer, results, strict=True):
        frame.variable = name
        value = frame.new(result.shape, result.kind, name, "blocks")
        frame.names[name] = value
        outs.append(value)
    frame.body.append(Repeat(tuple(outs), block, args, count, path, node.span))


def _inner(frame: Frame, assigned: dict[str, Span], carried: dict[str, Value]) -> Frame:
    """The frame of one copy: carried values are its first inputs."""
    namer = Namer(set(assigned) | set(frame.names))
    names: dict[str, Item] = {n: Value(namer.variable(n), v.shape, v.kind) for n, v in carried.items()}
    inner = Frame(frame.session, frame.unit, "block", frame.title, names, namer, assigned)
    inner.parent = frame
    return inner


def _sane(frame: Frame, node: tree.Repeat, count: int, assigned: dict[str, Span]) -> bool:
    """Guards of `repeat`: a count within bounds, and no static item that would change from copy to copy."""
    if count > MAX_COPIES:
        frame.session.report(
            "NL0811",
            f"`repeat {count}` is too large",
            node.count.span,
            f"at most {MAX_COPIES} copies are possible",
        )
        return False
    for name, span in assigned.items():
        item = lookup(frame, name)
        if is_static(item):
            frame.session.report(
                "NL0408",
                f"`{name}` is {describe(item)} and cannot change inside of `repeat`",
                span,
                "every copy is the same program",
                help="use `for` over a list where copies differ",
            )
            return False
    return True


def _carried(
    frame: Frame, inner: Frame, node: tree.Repeat, outer: dict[str, Value]
) -> tuple[Value, ...] | None:
    """What one copy hands to the next: the same shapes it was given.

    Errors: NL0408.
    """
    results: list[Value] = []
    for name, before in outer.items():
        after = inner.names[name]
        if not isinstance(after, Value):
            return None
        if (after.shape, after.kind) != (before.shape, before.kind):
            frame.session.report(
                "NL0408",
                f"`{name}` is {describe(before)} before `repeat` and {describe(after)} after one copy",
                inner.assigned[name],
                describe(after),
                secondary=(Label(node.count.span, "the next copy needs the same shape"),),
            )
            return None
        results.append(after)
    return tuple(results)


HANDLERS["block", tree.Assign] = block_assign
HANDLERS["block", tree.LevelDecl] = declare_level
HANDLERS["block", tree.MemoryDecl] = declare_memory
HANDLERS["block", tree.Write] = taught
HANDLERS["block", tree.TaskWrite] = task_write
HANDLERS["block", tree.Repeat] = repeat
HANDLERS["block", tree.Return] = give_back
CALLABLE["block"] = ("block", call_block)
