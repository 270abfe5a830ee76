"""Calls: primitives, blocks, and the words the elaborator resolves itself (`dim`, `parts`, `unbias`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nldsl.catalog.binding import bind
from nldsl.catalog.components import faults
from nldsl.catalog.primitive import ContractError, Primitive
from nldsl.catalog.schedules import SCHEDULES
from nldsl.diagnostics import did_you_mean
from nldsl.diagnostics.suggest import ELSEWHERE
from nldsl.library import PRIMITIVES
from nldsl.source import Span
from nldsl.spec.expressions import HANDLERS, as_value, evaluate, lookup
from nldsl.spec.frame import Frame
from nldsl.spec.items import (
    POISON,
    Item,
    MemoryBox,
    Poison,
    Ref,
    RuleItem,
    describe,
    freeze,
    is_number,
    is_static,
)
from nldsl.spec.loader import KINDS, Unit
from nldsl.spec.primitives import allowed, apply, merged
from nldsl.spec.program import Value
from nldsl.spec.static import FUNCTIONS, checked
from nldsl.syntax import tree

Results = tuple[Item, ...]
DefinitionCall = Callable[[Frame, tree.Call, tree.Definition, Unit, tuple[str | None, ...]], Results]

CALLABLE: dict[str, tuple[str, DefinitionCall]] = {}
"""For each place the kind of definition that may be called there, and how."""
RULE_CALLS: dict[str, Callable[[Frame, tree.Call, RuleItem], Results]] = {}
"""How a rule that was given as an argument is called in another (`inner_rules` says)."""
_TABLES = ("embed", "head")
"""Calls that may be given a matrix of the block in place of sizes: `embed(tokens, E)`."""


def call(frame: Frame, node: tree.Call, targets: tuple[str | None, ...] = (None,)) -> Results:
    """The results of a call; their last operations are called `targets`."""
    name, unit = node.function.id, frame.unit
    item = lookup(frame, name)
    if isinstance(item, Ref):
        name, unit = item.name, item.unit
    elif isinstance(item, RuleItem) and frame.place == "rule":
        return RULE_CALLS["rule"](frame, node, item)
    elif item is POISON:
        return (POISON,)
    elif item is not None and name not in PRIMITIVES:
        return (_not_callable(frame, node, item),)
    if name in SPECIAL:
        return SPECIAL[name](frame, node, targets)
    if name in _TABLES and (shared := _shared_table(frame, node, name, targets[0])) is not None:
        return (shared,)
    if name in PRIMITIVES:
        return (primitive_call(frame, node, PRIMITIVES[name], targets[0]),)
    kind, run = CALLABLE.get(frame.place, ("", None))
    found = unit.find(kind, name) if kind else None
    if found is not None and run is not None and isinstance(found[0], tree.Definition):
        return run(frame, node, found[0], found[1], targets)
    return (_unknown(frame, node, name, unit, kind),)


def _shared_table(frame: Frame, node: tree.Call, name: str, target: str | None) -> Item | None:
    """`embed(tokens, E)` and `head(x, E)` with a matrix `E` of the block: one table, used twice."""
    table = node.args[1].value if len(node.args) == 2 and node.args[1].name is None else None
    shared = lookup(frame, table.id) if isinstance(table, tree.Name) else None
    if not isinstance(shared, Value) or shared.kind != "matrix":
        return None
    given = as_value(frame, evaluate(frame, node.args[0].value), node.args[0].value)
    if given is POISON:
        return POISON
    spans = [a.value.span for a in node.args]
    if name == "embed":
        return apply(frame, "lookup", (given, shared), {}, node.span, target, spans, derived=True)
    return apply(
        frame, "matmul", (shared, merged(frame, given, node.span)), {}, node.span, target, spans[::-1]
    )


def _single(frame: Frame, node: tree.Call, target: str | None) -> Item:
    """A call where one value is expected."""
    results = call(frame, node, (target,))
    if len(results) == 1:
        return results[0]
    return frame.session.report(
        "NL0409",
        f"`{node.function.id}` gives {len(results)} values where one is expected",
        node.span,
        f"{len(results)} values",
        help="assign all of them: `a, b = ...`",
    )


def evaluate_many(frame: Frame, node: tree.Expr, targets: tuple[str, ...]) -> Results | Poison:
    """The right side of `a, b = ...`; POISON after a report if the numbers differ."""
    if isinstance(node, tree.Call):
        results = call(frame, node, targets)
        if results == (POISON,):
            return POISON
    else:
        item = evaluate(frame, node)
        if item is POISON:
            return POISON
        results = item if isinstance(item, tuple) else (item,)
    if len(results) == len(targets):
        return results
    return frame.session.report(
        "NL0409",
        f"{len(targets)} names for {len(results)} value{'s' * (len(results) != 1)}",
        node.span,
        f"gives {len(results)}",
    )


def _not_callable(frame: Frame, node: tree.Call, item: Item) -> Poison:
    name = node.function.id
    memory = isinstance(item, MemoryBox)
    called = describe(item) if memory else f"`{name}` is {describe(item)}"
    return frame.session.report(
        "NL0314",
        f"{called} cannot be called" if memory else f"{called}, it cannot be called",
        node.function.span,
        "not a function",
        help=f"read it: `{name}[q]`" if memory else "",
    )


def _unknown(frame: Frame, node: tree.Call, name: str, unit: Unit, kind: str) -> Poison:
    """Report a name that cannot be called here: of another kind, or known nowhere."""
    for other in KINDS:
        if other != kind and unit.find(other, name) is not None:
            return frame.session.report("NL0314", *_wrong_kind(name, other, kind, node.function.span))
    known = [*PRIMITIVES, *unit.names(kind)] if kind else list(PRIMITIVES)
    near = did_you_mean(name, known) or "see `nldsl list` for what the library has"
    if name == "range":
        near = "`repeat 4 { ... }` repeats; `for c, i in [16, 64] { ... }` goes through a list"
    elif name in ELSEWHERE:
        near = f"here it is {ELSEWHERE[name]}"
    elif name in SCHEDULES:
        near = f"`{name}` is a schedule of steps: it stands in `train`, as in `adamw(lr = {name}(1e-3))`"
    if faults():
        near += "; a component is broken: see `nldsl doctor`"
    return frame.session.report(
        "NL0302",
        f"unknown function `{name}`",
        node.function.span,
        "not defined here",
        help=near,
    )


def _wrong_kind(name: str, other: str, kind: str, span: Span) -> tuple[str, Span, str]:
    article = "an" if other[0] in "aeiou" else "a"
    hints = {
        "map": "declare a memory with it: `memory M = ...`",
        "objective": "it stands behind `minimize`",
        "rule": "it stands behind `by`",
        "model": "a model is the outermost thing; call its blocks",
        "block": "blocks are called in blocks and models",
    }
    return (
        f"`{name}` is {article} {other}, it cannot be called here: {hints[other]}",
        span,
        f"{article} {other}",
    )


def primitive_call(frame: Frame, node: tree.Call, primitive: Primitive, target: str | None) -> Item:
    """Bind the arguments of a primitive: values first, then options."""
    values, positional, named = _sort_arguments(frame, node, primitive)
    if values is None:
        return POISON
    if primitive.name in FUNCTIONS and values and all(is_number(v) for v, _ in values):
        return checked(frame.session, lambda: FUNCTIONS[primitive.name](*[v for v, _ in values]), node.span)
    least = len(primitive.values) - primitive.optional_values
    if len(values) < least:
        missing = primitive.values[len(values)]
        return frame.session.report(
            "NL0308",
            f"`{primitive.name}` needs `{missing}`",
            node.span,
            "missing argument",
            help=primitive.example,
        )
    most = len(primitive.options)
    if len(positional) > most and not any(o.variadic for o in primitive.options):
        return frame.session.report(
            "NL0307",
            f"`{primitive.name}` takes {len(primitive.values)} + {most} arguments, found {len(node.args)}",
            node.span,
            "too many",
        )
    try:
        options = bind(primitive, positional, named)
    except ContractError as refusal:
        first, _, help_ = str(refusal).partition("; ")
        code = "NL0306" if "has no option" in first else "NL0410"
        return frame.session.report(code, first, node.span, "refused", help=help_)
    operands = [as_value(frame, item, expr) for item, expr in values]
    good = [o for o in operands if o is not POISON]
    if len(good) < len(operands):
        return POISON
    return apply(frame, primitive.name, good, options, node.span, target, [e.span for _, e in values])


def _sort_arguments(
    frame: Frame, node: tree.Call, primitive: Primitive
) -> tuple[list[tuple[Item, tree.Expr]] | None, list[Any], dict[str, Any]]:
    """Arguments as (values, positional options, named options); no values after a report."""
    values: list[tuple[Item, tree.Expr]] = []
    positional: list[Any] = []
    named: dict[str, Any] = {}
    good = True
    for argument in node.args:
        item = evaluate(frame, argument.value)
        if item is POISON:
            good = False
        elif argument.name is None and (len(values) < len(primitive.values) or primitive.variadic):
            values.append((item, argument.value))
        elif argument.name in primitive.values:
            values.append((item, argument.value))
        elif not is_static(item):
            good = _dynamic_option(frame, primitive, argument, item)
        elif argument.name is None:
            positional.append(freeze(item))
        elif argument.name in named:
            frame.session.report(
                "NL0309", f"`{argument.name}` is given twice", argument.span, "given again here"
            )
            good = False
        else:
            named[argument.name] = freeze(item)
    return (values if good else None), positional, named


def _dynamic_option(frame: Frame, primitive: Primitive, argument: tree.Arg, item: Item) -> bool:
    """An option that is only known at run time, or one value too many."""
    if not primitive.options:
        frame.session.report(
            "NL0307",
            f"`{primitive.name}` takes {len(primitive.values)} value{'s' * (len(primitive.values) != 1)}",
            argument.span,
            "one too many",
        )
        return False
    frame.session.report(
        "NL0403",
        f"an option of `{primitive.name}` must be known when the program is compiled, found {describe(item)}",
        argument.value.span,
        f"computed at every {'step' if frame.place == 'rule' else 'token'}",
    )
    return False


def _one_value(frame: Frame, node: tree.Call) -> Value | Poison:
    """The single value argument of a word such as `dim(x)`."""
    name = node.function.id
    if len(node.args) != 1 or node.args[0].name is not None:
        return frame.session.report(
            "NL0308" if not node.args else "NL0307",
            f"`{name}` takes one value, found {len(node.args)}",
            node.span,
            "here",
        )
    return as_value(frame, evaluate(frame, node.args[0].value), node.args[0].value)


def _dim(frame: Frame, node: tree.Call, targets: tuple[str | None, ...]) -> Results:
    """Number of channels, all heads together."""
    value = _one_value(frame, node)
    if value is POISON:
        return (POISON,)
    if not value.shape:
        return (
            frame.session.report(
                "NL0410", f"`dim` counts channels, found {describe(value)}", node.span, "has none"
            ),
        )
    return (value.shape[0] * value.shape[1] if value.kind == "headed" else value.shape[-1],)


def _width(frame: Frame, node: tree.Call, targets: tuple[str | None, ...]) -> Results:
    """Number of channels of one head."""
    value = _one_value(frame, node)
    if value is POISON or not allowed(frame, PRIMITIVES["width"], node.span):
        return (POISON,)
    if value.shape:
        return (value.shape[-1],)
    message = f"`width` counts channels, found {describe(value)}"
    return (frame.session.report("NL0410", message, node.span, "has none"),)


def _rank(frame: Frame, node: tree.Call, targets: tuple[str | None, ...]) -> Results:
    """Number of axes."""
    value = _one_value(frame, node)
    if value is POISON or not allowed(frame, PRIMITIVES["rank"], node.span):
        return (POISON,)
    return (len(value.shape),)


def _parts(frame: Frame, node: tree.Call, targets: tuple[str | None, ...]) -> Results:
    """One application per piece, told apart by `index`."""
    values, positional, named = _sort_arguments(frame, node, PRIMITIVES["parts"])
    if values is None:
        return (POISON,)
    try:
        options = bind(PRIMITIVES["parts"], positional, named)
    except ContractError as refusal:
        return (
            frame.session.report(
                "NL0410", str(refusal), node.span, "refused", help="`a, b = parts(z, 8, 8)`"
            ),
        )
    sizes = options["sizes"]
    value = as_value(frame, values[0][0], values[0][1]) if values else POISON
    if value is POISON or not isinstance(sizes, tuple):
        return (POISON,)
    names = targets if len(targets) == len(sizes) else (None,) * len(sizes)
    results: list[Item] = []
    for index, name in enumerate(names):
        piece = apply(frame, "parts", (value,), {"sizes": sizes, "index": index}, node.span, name)
        if piece is POISON:
            return (POISON,)
        results.append(piece)
    return tuple(results)


def _unbias(frame: Frame, node: tree.Call, targets: tuple[str | None, ...]) -> Results:
    """The elaborator adds `step`, the number of applications so far."""
    if not allowed(frame, PRIMITIVES["unbias"], node.span):
        return (POISON,)
    operands = [as_value(frame, evaluate(frame, a.value), a.value) for a in node.args]
    step = lookup(frame, "step")
    if len(operands) != 2 or any(a.name for a in node.args):
        return (
            frame.session.report(
                "NL0308", "`unbias` takes a mean and its rate", node.span, "`unbias(m, beta)`"
            ),
        )
    good = [o for o in operands if o is not POISON]
    if len(good) < 2 or not isinstance(step, Value):
        return (POISON,)
    return (apply(frame, "unbias", (*good, step), {}, node.span, targets[0]),)


def _values(frame: Frame, node: tree.Call, targets: tuple[str | None, ...]) -> Results:
    return (
        frame.session.report(
            "NL0313",
            "`values` marks a gate; it stands alone behind `retain` or `*=`",
            node.span,
            "no gate here",
            help="`S *= values(a)` or `retain values(a)`",
        ),
    )


SPECIAL: dict[str, Callable[[Frame, tree.Call, tuple[str | None, ...]], Results]] = {
    "dim": _dim,
    "width": _width,
    "rank": _rank,
    "parts": _parts,
    "unbias": _unbias,
    "values": _values,
}

HANDLERS[tree.Call] = _single
