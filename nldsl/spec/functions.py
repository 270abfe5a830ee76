"""Maps and objectives: straight-line code with everything bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nldsl.catalog.values import Initialiser, Shape
from nldsl.diagnostics.suggest import OTHERWISE, did_you_mean
from nldsl.source import Span
from nldsl.spec.arguments import bind_arguments, complete
from nldsl.spec.calls import CALLABLE, Results
from nldsl.spec.expressions import as_value, lookup
from nldsl.spec.frame import FastWeight, Frame, Namer, assigned_names
from nldsl.spec.items import POISON, Item, MapSource, Poison, Ref, RuleItem, freeze
from nldsl.spec.loader import KINDS, Unit
from nldsl.spec.program import Apply, Function, Parameter, Value
from nldsl.spec.session import Session
from nldsl.spec.statements import one_result, run
from nldsl.syntax import tree


@dataclass(frozen=True)
class MapFunction:
    """A map at a key size: its code, how its weights start, its slow parameters."""

    function: Function
    weights: tuple[FastWeight, ...]
    slow: tuple[Parameter, ...]


def matrix_map(key_size: int, value_size: int, span: Span) -> MapFunction:
    """The built-in map `matrix()`: M(z) = weight @ z, `weight` [out, in]."""
    z, weight = Value("z", (key_size,), "vector"), Value("weight", (value_size, key_size), "matrix")
    y = Value("y", (value_size,), "vector")
    body = (Apply(y, "matmul", (weight, z), span=span),)
    function = Function("matrix", (z,), (weight,), body, (y,), span)
    return MapFunction(function, (FastWeight(weight, Initialiser("normal", key_size**-0.5), span),), ())


def elaborate_map(
    session: Session, source: MapSource, key_size: int, prefix: str, span: Span
) -> MapFunction | None:
    """The map of a memory at its key size.

    Errors: whatever its text has, and NL0401 if it does not return a vector.
    """
    definition, unit = source.definition, source.unit
    if definition is None or unit is None:
        return None
    key = ("map", id(definition), freeze(tuple(source.arguments)), key_size, prefix)
    if key in session.memo:
        known: MapFunction | None = session.memo[key]
        return known
    name = definition.name.id
    z = definition.params[0].name.id if definition.params else "z"
    with session.inside(id(definition), name, span) as fresh:
        if not fresh:
            return None
        assigned = assigned_names(definition.body)
        namer = Namer(assigned)
        value = Value(namer.variable(z), (key_size,), "vector")
        names: dict[str, Item] = {z: value, **dict(source.arguments)}
        frame = Frame(session, unit, "map", name, names, namer, assigned, prefix=f"{prefix}.")
        run(frame, definition.body)
    out = one_result(frame, definition, None, "a vector")
    result = None
    if out is not None:
        weights = tuple(w.value for w in frame.weights)
        function = Function(name, (value,), weights, tuple(frame.body), (out,), definition.span)
        result = MapFunction(function, tuple(frame.weights), tuple(frame.slow))
    session.memo[key] = result
    return result


def elaborate_objective(
    session: Session,
    definition: tree.Definition,
    unit: Unit,
    options: dict[str, Item],
    sizes: tuple[int, Shape | None],
    span: Span,
) -> Function | None:
    """An objective at a value size; `sizes[1]` is the shape of the memory's single weight, if it has one.

    Errors: NL0308 if it takes fewer than two values or asks for a memory of several weights.
    """
    size, weight = sizes
    free = [p.name.id for p in definition.params if p.name.id not in options]
    if len(definition.params) < 2 or len(free) > 3:
        session.report(
            "NL0308",
            f"objective `{definition.name.id}` must take a prediction and a target",
            definition.name.span,
            f"takes {len(free)} value{'s' * (len(free) != 1)}",
        )
        return None
    if len(free) == 3 and weight is None:
        session.report(
            "NL0420",
            f"objective `{definition.name.id}` asks for the memory itself, which has several weights",
            span,
            "needs a memory of one matrix",
            help="use `matrix()`",
        )
        return None
    with session.inside(id(definition), definition.name.id, span) as fresh:
        if not fresh:
            return None
        assigned = assigned_names(definition.body)
        namer = Namer(assigned)
        shapes: list[tuple[Shape, Any]] = [((size,), "vector"), ((size,), "vector"), (weight or (), "matrix")]
        inputs = [Value(namer.variable(n), *shapes[i]) for i, n in enumerate(free)]
        names: dict[str, Item] = {**dict(zip(free, inputs, strict=True)), **options}
        frame = Frame(session, unit, "objective", definition.name.id, names, namer, assigned)
        run(frame, definition.body)
    out = one_result(frame, definition, (), "one number")
    if out is None:
        return None
    return Function(definition.name.id, tuple(inputs), (), tuple(frame.body), (out,), definition.span)


def _inline(
    frame: Frame, node: tree.Call, definition: tree.Definition, unit: Unit, targets: tuple[str | None, ...]
) -> Results:
    """A map called in a map, or an objective in an objective: its code becomes part of the caller's."""
    given = bind_arguments(frame, definition, node)
    if given is None:
        return (POISON,)
    bound = complete(frame.session, definition, unit, given, node.span)
    if bound is None:
        return (POISON,)
    values = 1 if definition.kind == "map" else 2
    operands: dict[str, Item] = {}
    for parameter in definition.params[:values]:
        name = parameter.name.id
        operands[name] = as_value(frame, bound[name], node)
    with frame.session.inside(id(definition), definition.name.id, node.span) as fresh:
        if not fresh:
            return (POISON,)
        inner = Frame(
            frame.session, unit, frame.place, definition.name.id, {**bound, **operands}, frame.namer
        )
        inner.assigned = assigned_names(definition.body)
        inner.body, inner.weights, inner.slow = frame.body, frame.weights, frame.slow
        inner.paths, inner.constants = frame.paths, frame.constants
        inner.prefix = f"{frame.prefix}{frame.variable}."
        run(inner, definition.body)
    out = one_result(inner, definition, None if definition.kind == "map" else (), "another shape")
    return (POISON if out is None else out,)


_DEFINED = {
    "objective": "a formula gets a name: `objective mine(pred, target) { return sum((pred - target) ** 2) }`",
    "rule": "a formula gets a name: `rule mine(lr) { W = W - lr * g }`",
    "map": "a formula gets a name: `map mine(z) { return weight(dim(z), dim(z)) @ z }`",
}


BoundDefinition = tuple[tree.Definition, Unit, dict[str, Item]]
"""A definition, its home, and its arguments by name."""


def bind_definition(
    frame: Frame, node: tree.Expr, kind: str, codes: tuple[str, str], skip: int
) -> BoundDefinition | Poison:
    """A definition named or called behind `minimize`, `by` or `memory ... =`, its arguments bound.

    `codes` are for an unknown name; `skip` parameters are not given by the call.
    """
    from_call = node if isinstance(node, tree.Call) else None
    if isinstance(node, tree.Name):
        from_call = tree.Call(span=node.span, function=node, args=())
    if from_call is None:
        help = _DEFINED.get(kind, "")
        return frame.session.report("NL0404", f"expected {codes[1]}", node.span, f"not {codes[1]}", help=help)
    held = lookup(frame, from_call.function.id)
    if isinstance(held, RuleItem) and kind == "rule" and not from_call.args:
        return held.definition, held.unit, dict(held.arguments)
    found = resolve(frame, from_call.function, kind, codes)
    if found is POISON:
        for argument in from_call.args:
            as_value(frame, POISON, argument.value)
        return POISON
    definition, unit = found
    if kind == "objective":
        skip += _takes_memory(definition, from_call, skip)
    given = bind_arguments(frame, definition, from_call, skip)
    if given is None:
        return POISON
    bound = complete(frame.session, definition, unit, given, from_call.span, skip)
    return POISON if bound is None else (definition, unit, bound)


def _takes_memory(definition: tree.Definition, call: tree.Call, skip: int) -> bool:
    """Whether an objective's next parameter is the memory itself: it has no default, and is not given."""
    third = definition.params[skip : skip + 1]
    named = {a.name for a in call.args}
    return bool(third) and third[0].default is None and None not in named and third[0].name.id not in named


def resolve(
    frame: Frame, name: tree.Name, kind: str, codes: tuple[str, str]
) -> tuple[tree.Definition, Unit] | Poison:
    """The definition of `kind` that `name` means: itself, or what a parameter of that name stands for."""
    item = lookup(frame, name.id)
    if item is POISON:
        return POISON
    unit = item.unit if isinstance(item, Ref) else frame.unit
    wanted = item.name if isinstance(item, Ref) else name.id
    found = unit.find(kind, wanted)
    if found is not None and isinstance(found[0], tree.Definition):
        return found[0], found[1]
    for other in KINDS:
        if other != kind and unit.find(other, wanted) is not None:
            return frame.session.report(
                "NL0314", f"`{wanted}` is of kind {other}, expected {codes[1]}", name.span, f"a {other}"
            )
    near = did_you_mean(wanted, unit.names(kind)) or f"see `nldsl list` for every {kind} of the library"
    if (kind, wanted.lower()) in OTHERWISE:
        near = f"here it is `{OTHERWISE[kind, wanted.lower()]}`"
    return frame.session.report(
        codes[0], f"unknown {kind} `{wanted}`", name.span, "not defined here", help=near
    )


CALLABLE["map"] = ("map", _inline)
CALLABLE["objective"] = ("objective", _inline)
