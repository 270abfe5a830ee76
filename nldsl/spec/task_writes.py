"""Steps on the task's own objective, and direct changes of a memory's running state."""

from __future__ import annotations

from dataclasses import replace

from nldsl.spec.answered import answered_write
from nldsl.spec.clauses import bind_rule, bound_rule, toward_of
from nldsl.spec.expressions import value_of
from nldsl.spec.frame import Frame
from nldsl.spec.gates import gate
from nldsl.spec.inner_schedules import scheduled
from nldsl.spec.items import POISON, MemoryBox, describe
from nldsl.spec.numbers import one_column, one_key
from nldsl.spec.outer_sums import column_write, outer_write
from nldsl.spec.primitives import apply
from nldsl.spec.printed_places import out_of_place
from nldsl.spec.printed_steps import printed_steps
from nldsl.spec.program import TaskWrite, Update, Value
from nldsl.spec.reads import ensure_function
from nldsl.spec.repairs import drop_clause
from nldsl.spec.statements import assign
from nldsl.spec.train import outer_group, read_schedules
from nldsl.spec.vector_steps import of_vectors, vector_steps
from nldsl.spec.writes import FADING, target_box, write
from nldsl.syntax import tree


def task_write(frame: Frame, node: tree.TaskWrite) -> None:
    """`F minimizes task by rule`."""
    box = target_box(frame, node.target)
    frame.variable = f"{node.target.id}_write"
    if not (isinstance(node.objective, tree.Name) and node.objective.id == "task"):
        frame.session.report(
            "NL0424",
            "`minimizes` takes `task`; a local objective is a write",
            node.objective.span,
            "expected `task`",
            help="`F[k] <- v minimize l2 by gd(lr = 1e-3)`",
        )
        return
    for name in ("minimize", "over", "weighted", "gradient_every", "project"):
        clause = getattr(node.clauses, name)
        if clause is not None:
            word = name.split("_")[0]
            message = f"`{word}` has no meaning for a task write"
            edit = drop_clause(node.span, word)
            frame.session.report("NL0421", message, clause.span, "remove it", edit=edit)
    if node.clauses.by is None:
        frame.session.report(
            "NL0308", "a task write needs a rule", node.span, "no `by`", help="`by gd(lr = 1e-3)`"
        )
        return
    if box is POISON:
        return
    box.key_size = box.key_size or frame.keys.get(box.name, 0)
    if not box.key_size:
        frame.pending.add(box.name)
        return
    if ensure_function(frame, box, node.span):
        _task_rule(frame, node, box, node.clauses.by)


def _task_rule(frame: Frame, node: tree.TaskWrite, box: MemoryBox, by: tree.Expr) -> None:
    """The rule and the retention of a task write."""
    plain, schedules = read_schedules(frame, by)
    if schedules is None:
        return
    found = bind_rule(frame, plain)
    if found is None:
        return
    moving = scheduled(frame, found, schedules, node.target.id, by.span)
    rule = bound_rule(frame, moving, box, by.span)
    outer = outer_group(frame, plain, found, schedules) if rule is not None else None
    gated = gate(frame, box, node.clauses.retain) if node.clauses.retain is not None else None
    center = toward_of(frame, node.clauses.toward)
    if rule is not None and any(slot.initial is not None for slot in rule.slots):
        frame.session.report(
            "NL0425",
            "a task write whose rule keeps a memory with a map of its own is not supported yet",
            by.span,
            f"`{rule.name}` keeps one",
            help="rules whose memories are `like(...)` are: `momentum`, `adamw`, `nadam`, `adafactor`",
        )
        return
    if rule is not None and center is not None:
        retain = gated.value if gated else None
        frame.body.append(TaskWrite(box.name, rule, retain, center, outer, span=node.span))


def block_assign(frame: Frame, node: tree.Assign) -> None:
    """`M *= a`, `M += e`, `M = e` set the running state; other names are values."""
    name = node.targets[0]
    box = frame.names.get(name.id)
    if len(node.targets) > 1 or not isinstance(box, MemoryBox):
        assign(frame, node)
        return
    # `M *= outer(a, b)` scales every entry: no sum, whatever stands in it.
    summed = node.op not in ("*=", "/=")
    if summed and out_of_place(frame, node, box):
        return
    steps = (vector_steps if of_vectors(box) else printed_steps)(frame, node, box) if summed else ()
    for step in (node,) if steps == () else steps or ():
        if isinstance(step, tree.Write):
            write(frame, step)
        else:
            _changed(frame, step, box)


def _changed(frame: Frame, node: tree.Assign, box: MemoryBox) -> None:
    """The running state scaled, added to or set."""
    name = node.targets[0]
    frame.variable = name.id
    box.writes.append(name.span)
    if node.op == "-=" and not box.softmax:
        node = replace(node, op="+=", value=tree.Unary("-", node.value, span=node.value.span))
    if box.softmax or node.op == "/=":
        frame.session.report(
            "NL0421",
            f"`{node.op}` cannot change {'a softmax memory' if box.softmax else 'a memory'}",
            node.span,
            "use `*=`, `+=`, `-=` or `=`" if not box.softmax else "it keeps every pair",
            help=_instead(node, box),
        )
        return
    if node.op == "*=":
        gated = gate(frame, box, node.value)
        if gated is not None:
            frame.body.append(Update(box.name, "scale", gated.value, gated.axis, span=node.span))
        return
    if not answered_write(frame, node, box) and not outer_write(frame, node, box):
        _moved(frame, node, box)


def _instead(node: tree.Assign, box: MemoryBox) -> str:
    if box.softmax:
        return FADING.format(name=box.name) if node.op == "*=" else ""
    return f"`{box.name} *= 1 / a`"


def _moved(frame: Frame, node: tree.Assign, box: MemoryBox) -> None:
    """`M += e`, `M = e` with a number or a matrix."""
    value = value_of(frame, node.value)
    if value is POISON:
        # What would have said its size was told of: nobody asks for it again.
        box.broken = box.broken or not (box.value_size or frame.pending)
        return
    if one_column(box) and (value.kind in ("vector", "headed") or _number_for_all(box, value, node)):
        _column(frame, box, value, node)
        return
    if value.kind not in ("scalar", "matrix", "heads"):
        frame.session.report(
            "NL0418",
            f"a memory takes a number or a matrix, found {describe(value)}",
            node.value.span,
            describe(value),
            help=f"a matrix is, for example, `outer(v, k)`; to teach it a value write `{box.name}[k] <- v`",
        )
        return
    if value.kind == "matrix" and not _sized(frame, box, value, node):
        return
    frame.body.append(Update(box.name, "add" if node.op == "+=" else "set", value, "scalar", span=node.span))


def _number_for_all(box: MemoryBox, value: Value, node: tree.Assign) -> bool:
    """`h += 1`: a number added to every channel of a vector, if it is known how many there are."""
    known = box.value_size or dict(box.source.arguments).get("out")
    number = value.kind == "scalar" or (value.kind == "heads" and value.shape == (box.heads,))
    return node.op == "+=" and number and bool(known)


def _column(frame: Frame, box: MemoryBox, value: Value, node: tree.Assign) -> None:
    """`h += u` and `h = u`, where the keys of `h` have one channel: its one column."""
    if node.op == "+=":
        column_write(frame, value, box, node)
        return
    one = one_key(frame, 0, node.span)
    if box.heads or one is POISON:
        frame.session.report(
            "NL0418",
            f"`{box.name}` has a copy per head, and `=` sets all of them to one matrix",
            node.value.span,
            describe(value),
            help=f"`{box.name} *= 0`, then `{box.name} += ...`",
        )
        box.broken = True
        return
    whole = apply(frame, "outer", (value, one), {}, node.span, derived=True)
    if whole is not POISON and _sized(frame, box, whole, node):
        frame.body.append(Update(box.name, "set", whole, "scalar", span=node.span))


def _sized(frame: Frame, box: MemoryBox, value: Value, node: tree.Assign) -> bool:
    """Whether a matrix fits the memory's one weight; it fixes the sizes if nothing did before."""
    out, into = value.shape
    box.key_size = box.key_size or into
    frame.keys.setdefault(box.name, into)
    if box.source.kind == "matrix":
        box.value_size = box.value_size or out
        frame.sizes.setdefault(box.name, out)
    if not ensure_function(frame, box, node.span) or box.function is None:
        return False
    weights = box.function.weights
    if len(weights) > 1 or weights[0].shape != value.shape:
        shapes = ", ".join(str(list(w.shape)) for w in weights)
        frame.session.report(
            "NL0401",
            f"the weight of `{box.name}` has the shape {shapes}, found {describe(value)}"
            if len(weights) == 1
            else f"`{box.name}` has several weights and cannot be set by a matrix",
            node.value.span,
            describe(value),
        )
        return False
    return True
