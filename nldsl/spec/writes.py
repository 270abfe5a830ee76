"""Writes: one step on an inner objective, directly on a memory, or on the task's own."""

from __future__ import annotations

from dataclasses import replace

from nldsl.diagnostics import Label, did_you_mean
from nldsl.source import Span
from nldsl.spec.clauses import objective_of, shared_clauses
from nldsl.spec.expressions import evaluate, lookup, value_of
from nldsl.spec.frame import Frame
from nldsl.spec.functions import bind_definition
from nldsl.spec.gates import gate, one_weight
from nldsl.spec.inner_schedules import memory_rule
from nldsl.spec.items import POISON, MemoryBox, Poison, describe
from nldsl.spec.numbers import number_target
from nldsl.spec.primitives import apply, merged
from nldsl.spec.program import Function, Rule, Term, Value, Write
from nldsl.spec.reads import ensure_function, prepare_key
from nldsl.spec.repairs import drop_clause
from nldsl.spec.static import whole_number
from nldsl.syntax import tree

FADING = (
    "pairs that fade have one more channel: `F += log(gate)` with `memory F = matrix(in = 1) per head`, then "
    "`{name}[concat(k, -F[1])] <- v`, read at `concat(q, 0 * F[1] + 1)`"
)
"""How attention forgets: the softmax takes sums of logarithms, and what is alike for all pairs cancels."""


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
            help="declare the memory inside, or write the turns out with `for turn in [1, 2] { ... }`",
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
    shared = shared_clauses(frame, node, box)
    good = [t for t in terms if t is not None]
    if shared is None or len(good) < len(terms) or not good:
        return None
    if shared.at_commit and not _gathers(frame, node, good):
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


def _gathers(frame: Frame, node: tree.Write, terms: list[Term]) -> bool:
    """Whether every rule of a write `at commit` makes do with the sum of a chunk's gradients.

    Errors: NL0421.
    """
    asking = [(t, {v.name for v in t.rule.function.inputs} & {"x", "dy"}) for t in terms]
    for term, asked in asking:
        if asked:
            frame.session.report(
                "NL0421",
                f"`at commit` has no meaning for rule `{term.rule.name}`, which asks for `{min(asked)}` of "
                "one token",
                term.span,
                "runs once, on the sum of the gradients of a chunk",
                help="leave out `at commit`: the rule then steps for every token, its gradients held at the "
                "start of the chunk all the same",
                edit=drop_clause(node.span, "at"),
            )
    return not any(asked for _, asked in asking)


def _term(frame: Frame, node: tree.Write, term: tree.Term, box: MemoryBox) -> Term | None:
    """`[key] <- target` with its objective and rule."""
    key = prepare_key(frame, box, value_of(frame, term.key), term.key.span)
    target = target_value(frame, box, value_of(frame, term.value), term.value.span)
    clauses = _merge(frame, term.clauses, node.clauses if node.braces else None)
    rule_node, weight, window = clauses.by, None, 1
    if box.softmax:
        return _append(frame, box, key, target, clauses, term.span)
    if clauses.weighted is not None:
        gated = gate(frame, box, clauses.weighted)
        if gated is None or not one_weight(frame, box, gated, clauses.weighted.span):
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
    if not fits(frame, box, key, target, term):
        return None
    objective = objective_of(frame, clauses.minimize, box, term.span)
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


def target_value(frame: Frame, box: MemoryBox, target: Value | Poison, span: Span) -> Value | Poison:
    """A target in the form of the memory's values; it fixes their number if nothing did before."""
    if target is POISON or target.kind == "scalar" or box.broken:
        return target
    target = number_target(frame, box, target, span)
    if target is POISON:
        return POISON
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


def fits(frame: Frame, box: MemoryBox, key: Value, target: Value, term: tree.Term) -> bool:
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
                help=FADING.format(name=box.name) if name == "retain" else "remove the clause",
                edit=drop_clause(span, name.split("_")[0]),
            )
            return None
    if key is POISON or target is POISON or not ensure_function(frame, box, span):
        return None
    none = Function("none", (), (), (), ())
    return Term(key, target, none, Rule("append", none, (), (), ()), None, 1, span)
