"""One primitive at all tokens: from `Apply` to an expression in either layout."""

from __future__ import annotations

from nldsl.catalog import torch_name
from nldsl.emit.nodes import Assign, Expression, Literal, TupleOf, assign, compare, name
from nldsl.library import PRIMITIVES, torch_function
from nldsl.lowerings.layout import aligned, operand, to_chunk, to_sequence
from nldsl.lowerings.scope import Scope
from nldsl.spec.program import Apply, option

INFIX = {
    "operator:add": "+",
    "operator:sub": "-",
    "operator:mul": "*",
    "operator:truediv": "/",
    "operator:pow": "**",
    "operator:matmul": "@",
}
LAST_AXIS = frozenset(
    {"l2norm", "norm", "layernorm", "softmax", "mean", "sum", "largest", "dot", "parts", "expand_last"}
)
"""Operations on the last axis: the same in both layouts, unless they run over the heads."""
BY_MATRIX = frozenset({"matmul", "headwise"})
"""Products with a matrix in front: a slow one has no axes of a sequence, one product takes all rows."""


def parameter(path: str) -> Expression:
    """`self.q.linear.weight` for the program path of a slow parameter."""
    expression = name("self")
    for segment in torch_name(path).split("."):
        expression = expression[int(segment)] if segment.isdigit() else expression.attr(segment)
    return expression


def lower_apply(scope: Scope, apply: Apply) -> None:
    """Append the statement(s) that compute `apply.out` from values already in scope."""
    if apply.op == "constant":
        value = option(apply.options, "value")
        assert isinstance(value, int | float)
        scope.constants[apply.out.name] = value
        return
    if apply.op == "weight":
        scope.unbatched.add(apply.out.name)
        scope.add(assign(scope.names.of(apply.out), parameter(apply.parameters[0].path)))
        return
    if PRIMITIVES[apply.op].stateful:
        _stateful(scope, apply)
        return
    expression = apply_expression(scope, apply)
    if apply.args and all(a.name in scope.unbatched or a.name in scope.constants for a in apply.args):
        scope.unbatched.add(apply.out.name)
    scope.add(assign(scope.names.of(apply.out), expression))


def apply_expression(scope: Scope, apply: Apply) -> Expression:
    """The expression of a stateless primitive."""
    target = torch_function(apply.op, [operand(a) for a in apply.args])
    if PRIMITIVES[apply.op].elementwise:
        return _elementwise(scope, target, aligned(scope, apply.args))
    if apply.op in BY_MATRIX and apply.args[0].name in scope.unbatched and apply.args[1].kind != "matrix":
        return scope.ref(apply.args[1]) @ scope.ref(apply.args[0]).attr("mT")
    if apply.op in ("identity", "index"):
        scope.unbatched.add(apply.out.name)
        return scope.imports.use(target)(size=_static(apply, "size"), like=scope.source)
    return _call(scope, apply, target)


def _static(apply: Apply, key: str) -> Expression:
    value = option(apply.options, key)
    assert isinstance(value, int | float | str | bool)
    return Literal(value)


def _elementwise(scope: Scope, target: str, args: list[Expression]) -> Expression:
    if target == "operator:neg":
        return -args[0]
    if target in INFIX:
        return compare(INFIX[target], args[0], args[1])  # type: ignore[arg-type]
    return scope.imports.use(target)(*args)


def _call(scope: Scope, apply: Apply, target: str) -> Expression:
    keywords = _keywords(apply)
    weights = [parameter(p.path) for p in apply.parameters]
    if scope.layout == "sequence" or _same_in_both(apply):
        return scope.imports.use(target)(*map(scope.ref, apply.args), *weights, **keywords)
    if apply.op == "readout":
        weights = [w[:, None] for w in weights]
        return scope.imports.use(target)(*map(scope.ref, apply.args), *weights, **keywords)
    args = [to_sequence(scope.ref(a), a.kind) for a in apply.args]
    return to_chunk(scope.imports.use(target)(*args, *weights, **keywords), apply.out.kind)


def _same_in_both(apply: Apply) -> bool:
    kinds = {v.kind for v in (*apply.args, apply.out)}
    if apply.op in LAST_AXIS:
        return all(a.kind != "heads" for a in apply.args)
    return not kinds & {"headed", "heads"}


def _keywords(apply: Apply) -> dict[str, int | float | str | tuple[int | float, ...] | None]:
    declared = {o.name for o in PRIMITIVES[apply.op].options if o.runtime}
    return {k: v for k, v in apply.options if k in declared or k == "index"}  # type: ignore[misc]


def _stateful(scope: Scope, apply: Apply) -> None:
    """`y, new["u.conv"] = conv(x, ..., state=state["u.conv"], mask=mask)`."""
    args = [
        to_sequence(scope.ref(a), a.kind) if scope.layout == "chunk" else scope.ref(a) for a in apply.args
    ]
    if apply.op == "position":
        args = [scope.source]
    weights = [parameter(p.path) for p in apply.parameters]
    call = scope.imports.use(PRIMITIVES[apply.op].torch)(
        *args, *weights, **_keywords(apply), state=scope.old_state(apply.path), mask=scope.mask
    )
    out = scope.names.of(apply.out)
    scope.add(Assign((TupleOf((name(out), scope.new_state(apply.path))),), call))
    if scope.layout == "chunk" and apply.out.kind in ("headed", "heads"):
        scope.add(assign(out, to_chunk(name(out), apply.out.kind)))
