"""Writes: one step on an inner objective, directly on a memory, or on the task's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from nldsl.diagnostics import Label, did_you_mean
from nldsl.source import Span
from nldsl.spec.expressions import evaluate, lookup, value_of
from nldsl.spec.frame import Frame
from nldsl.spec.functions import bind_definition, elaborate_objective
from nldsl.spec.gates import gate, per_weight
from nldsl.spec.items import POISON, Item, MemoryBox, Poison, describe, is_static
from nldsl.spec.linear import linear_weights
from nldsl.spec.memories import ensure_function, prepare_key
from nldsl.spec.primitives import apply, merged
from nldsl.spec.program import Function, Rule, TaskWrite, Term, Update, Value, Write
from nldsl.spec.rules import elaborate_rule
from nldsl.spec.statements import assign
from nldsl.spec.static import whole_number
from nldsl.syntax import tree

PROJECTIONS = ("rownorm", "orthogonalize")
"""What may stand behind `project`."""


@dataclass(frozen=True)
class Shared:
    """The clauses that concern a write as a whole."""

    retain: Value | None
    axis: Any
    toward: Literal["zero", "init"]
    base_every: int
    at_commit: bool
    project: str | None


def write(frame: Frame, node: tree.Write) -> None:
    """All terms of all targets are evaluated first, then every memory steps."""
    boxes = [target_box(frame, name) for name in node.targets]
    done: list[Write] = []
    for name, box in zip(node.targets, boxes, strict=True):
        if box is POISON:
            continue
        frame.variable = f"{name.id}_write"
        frame.selves = [box] if node.each else []
        step = _one(frame, node, box)
        frame.selves = []
        if step is not None:
            done.append(step)
    frame.body.extend(done)


def target_box(frame: Frame, name: tree.Name) -> MemoryBox | Poison:
    """The memory a write means.

    Errors: NL0321 if there is none of that name, NL0314 if it is something else, NL0422 if it
    belongs to the block around a `repeat`.
    """
    item = lookup(frame, name.id)
    if isinstance(item, MemoryBox):
        if item.name in frame.memories:
            item.writes.append(name.span)
            return item
        return frame.session.report(
            "NL0422",
            f"memory `{item.name}` belongs to the block around `repeat`",
            name.span,
            "written inside of `repeat`",
            help="declare the memory inside, or move `repeat` into a block of its own",
        )
    if item is POISON:
        return POISON
    if item is not None:
        return frame.session.report(
            "NL0314", f"`{name.id}` is {describe(item)}, expected a memory", name.span, "not a memory"
        )
    known = [n for n, i in frame.names.items() if isinstance(i, MemoryBox)]
    return frame.session.report(
        "NL0321",
        f"unknown memory `{name.id}`",
        name.span,
        "not declared",
        help=did_you_mean(name.id, known)
        or f"declare it: `level context every 1 token {{ memory {name.id} = matrix() }}`",
    )


def _one(frame: Frame, node: tree.Write, box: MemoryBox) -> Write | None:
    """The write of one target."""
    terms = [_term(frame, node, term, box) for term in node.terms]
    shared = _shared(frame, node, box)
    good = [t for t in terms if t is not None]
    if shared is None or len(good) < len(terms) or not good:
        return None
    return Write(
        memory=box.name,
        terms=tuple(good),
        retain=shared.retain,
        retain_axis=shared.axis,
        toward=shared.toward,
        base_every=shared.base_every,
        at_commit=shared.at_commit,
        project=shared.project,
        append=box.softmax,
        span=node.span,
    )


def _term(frame: Frame, node: tree.Write, term: tree.Term, box: MemoryBox) -> Term | None:
    """`[key] <- target` with its objective and rule."""
    key = prepare_key(frame, box, value_of(frame, term.key), term.key.span)
    target = _target(frame, box, value_of(frame, term.value), term.value.span)
    clauses = _merge(frame, term.clauses, node.clauses if node.braces else None)
    rule_node, weight, window = clauses.by, None, 1
    if box.softmax:
        return _append(frame, box, key, target, clauses, term.span)
    if clauses.weighted is not None:
        gated = gate(frame, box, clauses.weighted)
        if gated is None:
            return None
        weight = gated.value
    if clauses.over is not None:
        count = whole_number(
            frame.session, evaluate(frame, clauses.over), "`over`", clauses.over.span, code="NL0501"
        )
        if count is POISON:
            return None
        window = count
    if rule_node is None:
        frame.session.report(
            "NL0308",
            "a write needs a rule",
            term.span,
            "no `by`",
            help="add `by gd(lr = 0.1)`, or another rule",
        )
        return None
    if (
        key is POISON
        or target is POISON
        or not ensure_function(frame, box, term.span)
        or box.function is None
    ):
        bind_definition(frame, rule_node, "rule", ("NL0305", "a rule such as `gd(lr = 0.1)`"), 0)
        return None
    if not _fits(frame, box, key, target, term):
        return None
    objective = _objective(frame, clauses.minimize, box, term.span)
    rule = memory_rule(frame, rule_node, box)
    if objective is None or rule is None:
        return None
    return Term(key, target, objective, rule, weight, window, term.span)


def _merge(frame: Frame, own: tree.Clauses, outer: tree.Clauses | None) -> tree.Clauses:
    """Clauses of a term; those behind the brace are the default of every term."""
    if outer is None:
        return own
    names = ("minimize", "over", "weighted", "by")
    return replace(
        own, **{n: getattr(own, n) if getattr(own, n) is not None else getattr(outer, n) for n in names}
    )


def _target(frame: Frame, box: MemoryBox, target: Value | Poison, span: Span) -> Value | Poison:
    """A target in the form of the memory's values; it fixes their number if nothing did before."""
    if target is POISON or target.kind == "scalar":
        return target
    if target.kind not in ("vector", "headed"):
        return frame.session.report(
            "NL0401",
            f"the target of `{box.name}` must be a vector or a number, found {describe(target)}",
            span,
            "here",
        )
    if box.heads and target.kind == "vector":
        split = apply(frame, "split", (target,), {"n": box.heads}, span)
        if split is POISON:
            return POISON
        target = split
    elif not box.heads:
        target = merged(frame, target, span)
    sized = box.source.kind in ("matrix", "softmax") and not dict(box.source.arguments).get("out")
    if sized and not box.value_size:
        box.value_size, box.value_span = target.shape[-1], span
    if sized:
        frame.sizes.setdefault(box.name, target.shape[-1])
        box.value_span = box.value_span or span
    return target


def _fits(frame: Frame, box: MemoryBox, key: Value, target: Value, term: tree.Term) -> bool:
    """Whether key and target agree in heads, and the target with the memory's values.

    Errors: NL0401.
    """
    if target.kind == "scalar":
        return True
    if target.shape[-1] != box.value_size:
        where = (Label(box.value_span, f"{box.value_size} channels here"),) if box.value_span else ()
        frame.session.report(
            "NL0401",
            f"the values of `{box.name}` have {box.value_size} channels, found {target.shape[-1]}",
            term.value.span,
            describe(target),
            secondary=where
            or (Label(box.span, f"gives {box.value_size} channels for keys of {box.key_size}"),),
        )
        return False
    if key.shape[:-1] != target.shape[:-1] or (box.heads and key.shape[0] != box.heads):
        frame.session.report(
            "NL0401",
            f"a write of `{box.name}` takes one key and one target for each of its {box.heads} heads",
            term.span,
            f"found {key.shape[0]} keys and {target.shape[0]} targets",
        )
        return False
    return True


def _append(
    frame: Frame,
    box: MemoryBox,
    key: Value | Poison,
    target: Value | Poison,
    clauses: tree.Clauses,
    span: Span,
) -> Term | None:
    """A write of the non-parametric memory: it keeps the pair, and there is nothing to minimise."""
    for name in ("minimize", "over", "weighted", "by", "retain", "toward", "gradient_every", "project"):
        clause = getattr(clauses, name)
        if clause is not None:
            frame.session.report(
                "NL0421",
                f"`{name.split('_')[0]}` has no meaning for the softmax memory `{box.name}`",
                clause.span,
                "it keeps every pair",
                help="remove the clause",
            )
            return None
    if key is POISON or target is POISON or not ensure_function(frame, box, span):
        return None
    none = Function("none", (), (), (), ())
    return Term(key, target, none, Rule("append", none, (), (), ()), None, 1, span)


def _objective(frame: Frame, node: tree.Expr | None, box: MemoryBox, span: Span) -> Function | None:
    """The objective behind `minimize`, `l2` if left out."""
    if node is None:
        node = tree.Name(span=span, id="l2")
    found = bind_definition(frame, node, "objective", ("NL0304", "an objective such as `l2`"), 2)
    if found is POISON and not isinstance(node, tree.Call | tree.Name):
        return None
    if found is POISON or box.function is None:
        return None
    definition, unit, bound = found
    options = _objective_options(frame, definition, bound, node)
    if options is None:
        return None
    weights = box.function.weights
    single = weights[0].shape if len(weights) == 1 and len(weights[0].shape) == 2 else None
    return elaborate_objective(frame.session, definition, unit, options, (box.value_size, single), node.span)


def _objective_options(
    frame: Frame, definition: tree.Definition, bound: dict[str, Item], node: tree.Expr
) -> dict[str, Item] | None:
    """Options of an objective are static."""
    for name, item in bound.items():
        if not is_static(item):
            frame.session.report(
                "NL0403",
                f"`{name}` of objective `{definition.name.id}` must be known when the program is compiled",
                node.span,
                describe(item),
            )
            return None
    return bound


def memory_rule(frame: Frame, node: tree.Expr, box: MemoryBox) -> Rule | None:
    """The rule behind `by`, checked on every weight of the memory; the first weight's is kept."""
    found = bind_definition(frame, node, "rule", ("NL0305", "a rule such as `gd(lr = 0.1)`"), 0)
    if found is POISON or box.function is None:
        return None
    definition, unit, bound = found
    views: dict[str, Value] = {}
    for name, item in bound.items():
        if isinstance(item, Value):
            view = per_weight(frame, box, item, f"`{name}` of `{definition.name.id}`", node.span)
            if view is None:
                return None
            views[name] = view
    linear = linear_weights(box.function)
    rules = [
        elaborate_rule(frame.session, definition, unit, bound, w.shape, w.name in linear, node.span, views)
        for w in _distinct(box.function, linear)
    ]
    return None if any(r is None for r in rules) or not rules else rules[0]


def _distinct(function: Function, linear: frozenset[str]) -> list[Value]:
    """One weight for every shape and use."""
    seen: dict[object, Value] = {}
    for weight in function.weights:
        seen.setdefault((weight.shape, weight.name in linear), weight)
    return list(seen.values())


def _shared(frame: Frame, node: tree.Write, box: MemoryBox) -> Shared | None:
    """Retention, base, commit and projection: behind the brace, or on the only term that has them."""
    clauses = [t.clauses for t in node.terms] + ([node.clauses] if node.braces else [])
    retain = _only(frame, [c.retain for c in clauses], "retain")
    toward = _only(frame, [c.toward for c in clauses], "toward")
    every = _only(frame, [c.gradient_every for c in clauses], "gradient every")
    project = _only(frame, [c.project for c in clauses], "project")
    gated = gate(frame, box, retain) if retain is not None and not box.softmax else None
    if retain is not None and gated is None and not box.softmax:
        return None
    center = _toward(frame, toward)
    base = max(box.clock.every, 1)
    if every is not None:
        count = whole_number(
            frame.session, evaluate(frame, every), "`gradient every`", every.span, code="NL0501"
        )
        base = 0 if count is POISON else count
    projected = _project(frame, project)
    if center is None or not base or projected is None:
        return None
    at_commit = any(c.at_commit for c in clauses)
    return Shared(
        gated.value if gated else None,
        gated.axis if gated else "scalar",
        center,
        base,
        at_commit,
        projected or None,
    )


def _only(frame: Frame, given: list[tree.Expr | None], word: str) -> tree.Expr | None:
    """The clause of a write that at most one of its terms may carry."""
    found = [g for g in given if g is not None]
    if len(found) > 1:
        frame.session.report(
            "NL0421",
            f"`{word}` concerns the write as a whole and is given twice",
            found[1].span,
            "again here",
            secondary=(Label(found[0].span, "first here"),),
            help="write it once, behind the closing brace",
        )
    return found[0] if found else None


def _toward(frame: Frame, node: tree.Expr | None) -> Literal["zero", "init"] | None:
    if node is None or (isinstance(node, tree.Name) and node.id == "zero"):
        return "zero"
    if isinstance(node, tree.Name) and node.id == "init":
        return "init"
    frame.session.report("NL0421", "`toward` takes `init` or `zero`", node.span, "expected `init`")
    return None


def _project(frame: Frame, node: tree.Expr | None) -> str | None:
    """The projection's name, empty if there is none."""
    if node is None:
        return ""
    name = node.id if isinstance(node, tree.Name) else ""
    if name in PROJECTIONS:
        return name
    frame.session.report(
        "NL0421",
        "`project` takes the name of a projection",
        node.span,
        "unknown projection",
        help=did_you_mean(name, PROJECTIONS) or "`project rownorm`",
    )
    return None


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
            frame.session.report(
                "NL0421", f"`{name.split('_')[0]}` has no meaning for a task write", clause.span, "remove it"
            )
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
    rule = memory_rule(frame, by, box)
    gated = gate(frame, box, node.clauses.retain) if node.clauses.retain is not None else None
    center = _toward(frame, node.clauses.toward)
    if rule is not None and center is not None:
        frame.body.append(TaskWrite(box.name, rule, gated.value if gated else None, center, node.span))


def block_assign(frame: Frame, node: tree.Assign) -> None:
    """`M *= a`, `M += e`, `M = e` set the running state; other names are values."""
    name = node.targets[0]
    box = frame.names.get(name.id)
    if len(node.targets) > 1 or not isinstance(box, MemoryBox):
        assign(frame, node)
        return
    frame.variable = name.id
    box.writes.append(name.span)
    if box.softmax or node.op in ("-=", "/="):
        frame.session.report(
            "NL0421",
            f"`{node.op}` cannot change {'a softmax memory' if box.softmax else 'a memory'}",
            node.span,
            "use `*=`, `+=` or `=`" if not box.softmax else "it keeps every pair",
        )
        return
    if node.op == "*=":
        gated = gate(frame, box, node.value)
        if gated is not None:
            frame.body.append(Update(box.name, "scale", gated.value, gated.axis, node.span))
        return
    value = value_of(frame, node.value)
    if value is POISON:
        return
    if value.kind not in ("scalar", "matrix", "heads"):
        frame.session.report(
            "NL0418",
            f"a memory takes a number or a matrix, found {describe(value)}",
            node.value.span,
            describe(value),
        )
        return
    frame.body.append(Update(box.name, "add" if node.op == "+=" else "set", value, "scalar", node.span))
