"""The formula of every operation of a step: from the gradient of its result to those of its operands."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.emit.nodes import (
    Attribute,
    DictOf,
    Expression,
    Invoke,
    Item,
    Literal,
    Negate,
    Operation,
    SliceItem,
    TupleOf,
    Var,
    assign,
    call,
    compare,
    name,
    to_expression,
)
from nldsl.lowerings.adjoint import Adjoint, function_of
from nldsl.lowerings.flat import MODULES, Binding, NotFlatError


def apply_rule(adjoint: Adjoint, binding: Binding) -> None:
    """Emit what one operation sends back."""
    value = binding.value
    if function_of(value) == "unbind":
        return _unbind(adjoint, binding)
    d = adjoint.of(binding.out)
    if len(binding.targets) > 1:
        # Other functions with several results: all their gradients at once.
        parts = tuple(_or_none(adjoint.of(t)) for t in binding.targets)
        return _differentiated(adjoint, binding, TupleOf(parts))
    assert d is not None
    if isinstance(value, Operation):
        return _operation(adjoint, binding, value, d)
    if isinstance(value, Negate):
        return adjoint.add(value.value, -d, owned=True)
    if isinstance(value, Attribute) and value.name == "mT":
        return adjoint.add(value.obj, d.attr("mT"))
    if isinstance(value, Item) and _only_axes(value.index):
        return adjoint.add(value.obj, call(adjoint.pullback("reshaped"), d, value.obj))
    if isinstance(value, Invoke):
        return _invoke(adjoint, binding, value, d)
    return _differentiated(adjoint, binding, d)


def _or_none(value: Expression | None) -> Expression:
    return to_expression(None) if value is None else value


def _only_axes(index: Expression) -> bool:
    """Whether an index adds axes and takes nothing away."""
    items = index.items if isinstance(index, TupleOf) else (index,)
    return all((isinstance(i, Literal) and i.value in (None, ...)) or i == SliceItem() for i in items)


# --- arithmetic -------------------------------------------------------------------------------


def _operation(adjoint: Adjoint, binding: Binding, value: Operation, d: Expression) -> None:
    left, right = value.left, value.right
    rules: dict[str, Callable[[], None]] = {
        "@": lambda: _matmul(adjoint, left, right, d),
        "+": lambda: _both(adjoint, (left, d, False), (right, d, False)),
        "-": lambda: _both(adjoint, (left, d, False), (right, -d, True)),
        "*": lambda: _product(adjoint, left, right, d),
        "/": lambda: _quotient(adjoint, binding, left, right, d),
        "**": lambda: _power(adjoint, binding, left, right, d),
    }
    if value.op not in rules:
        raise NotFlatError(f"`{value.op}` without a formula")
    rules[value.op]()


def _both(adjoint: Adjoint, *sent: tuple[Expression, Expression, bool]) -> None:
    for operand, gradient, fresh in sent:
        if adjoint.depends(operand):
            adjoint.add(operand, call(adjoint.pullback("summed_to"), gradient, operand), owned=fresh)


def _product(adjoint: Adjoint, left: Expression, right: Expression, d: Expression) -> None:
    if left == right:
        return adjoint.add_square(left, d)
    return _both(adjoint, (left, d * right, True), (right, d * left, True))


def _quotient(adjoint: Adjoint, binding: Binding, left: Expression, right: Expression, d: Expression) -> None:
    part = adjoint.let(f"d_{binding.out}_over", d / right)
    _both(adjoint, (left, part, False), (right, -(part * Var(binding.out)), True))


def _power(adjoint: Adjoint, binding: Binding, left: Expression, right: Expression, d: Expression) -> None:
    if adjoint.depends(left):
        slope = left * 2 if right == Literal(2) else compare("**", left, right - 1) * right
        _both(adjoint, (left, d * slope, True))
    if adjoint.depends(right):
        _both(adjoint, (right, d * Var(binding.out) * call("torch.log", left), True))


def _matmul(adjoint: Adjoint, left: Expression, right: Expression, d: Expression) -> None:
    """`x @ W^T` sends `d @ W` and `d^T @ x`: gradients come out in the layout of what they belong to."""
    for operand, first, second, flip in (
        (left, d, _transposed(adjoint, right), False),
        (right, _transposed(adjoint, left), d, True),
    ):
        base = _base(adjoint, operand)
        if base is None:
            adjoint.add_product(operand, first, second)
        elif flip:
            adjoint.add_product(base, d.attr("mT"), left)
        else:
            adjoint.add_product(base, right, d.attr("mT"))


def _base(adjoint: Adjoint, operand: Expression) -> Expression | None:
    """What an operand is the transpose of."""
    made = adjoint.made.get(operand.name) if isinstance(operand, Var) else None
    if made is not None and isinstance(made.value, Attribute) and made.value.name == "mT":
        return made.value.obj
    return None


def _transposed(adjoint: Adjoint, operand: Expression) -> Expression:
    base = _base(adjoint, operand)
    return operand.attr("mT") if base is None else base


# --- calls ------------------------------------------------------------------------------------

SAME_ORDER = frozenset({"unsqueeze", "squeeze", "view", "reshape", "flatten", "unflatten"})
"""Methods whose result has the elements of the tensor in the same order."""


def _invoke(adjoint: Adjoint, binding: Binding, value: Invoke, d: Expression) -> None:
    function = value.function
    word = function_of(value)
    if isinstance(function, Attribute) and _is_method(function):
        return _method(adjoint, binding, value, word, d)
    rule = RULES.get(word)
    if rule is None:
        return _differentiated(adjoint, binding, d)
    return rule(adjoint, binding, value, d)


def _is_method(function: Attribute) -> bool:
    root = function.obj
    while isinstance(root, Attribute):
        root = root.obj
    return not (isinstance(root, Var) and root.name in MODULES)


def _method(adjoint: Adjoint, binding: Binding, value: Invoke, word: str, d: Expression) -> None:
    assert isinstance(value.function, Attribute)
    x = value.function.obj
    if word in SAME_ORDER:
        adjoint.add(x, call(adjoint.pullback("reshaped"), d, x))
    elif word in ("expand", "expand_as"):
        adjoint.add(x, call(adjoint.pullback("summed_to"), d, x))
    elif word == "transpose":
        adjoint.add(x, Invoke(d.attr("transpose"), value.args))
    elif word == "sum" and value.args == (to_expression(-1),):
        wide = d if value.kwargs else d.method("unsqueeze", -1)
        adjoint.add(x, wide.method("expand_as", x))
    else:
        _differentiated(adjoint, binding, d)


def _unbind(adjoint: Adjoint, binding: Binding) -> None:
    value = binding.value
    assert isinstance(value, Invoke) and isinstance(value.function, Attribute)
    x, (axis,) = value.function.obj, value.args
    parts = TupleOf(tuple(_or_none(adjoint.of(t)) for t in binding.targets))
    adjoint.add(x, call(adjoint.pullback("stacked"), parts, x, axis), owned=True)


def _stack(adjoint: Adjoint, binding: Binding, value: Invoke, d: Expression) -> None:
    (parts,), axis = value.args, dict(value.kwargs)["dim"]
    assert isinstance(parts, TupleOf)
    rows = [adjoint.names.fresh(f"{binding.out}_part") for _ in parts.items]
    adjoint.body.append(assign(rows, d.method("unbind", axis)))
    for part, row in zip(parts.items, rows, strict=True):
        adjoint.add(part, Var(row))


def _silu(adjoint: Adjoint, binding: Binding, value: Invoke, d: Expression) -> None:
    adjoint.add(value.args[0], call(adjoint.pullback("silu_back"), d, value.args[0]), owned=True)


def _silu_pullback(adjoint: Adjoint, binding: Binding, value: Invoke, d: Expression) -> None:
    _several(adjoint, binding, call(adjoint.pullback("silu_pullback_back"), d, *value.args), value.args)


def _l2norm(adjoint: Adjoint, binding: Binding, value: Invoke, d: Expression) -> None:
    x = value.args[0]
    made = Invoke(adjoint.pullback("l2norm_back"), (d, Var(binding.out), x), value.kwargs)
    adjoint.add(x, made, owned=True)


def _readout(adjoint: Adjoint, binding: Binding, value: Invoke, d: Expression) -> None:
    _several(adjoint, binding, call(adjoint.pullback("readout_back"), d, *value.args), value.args)


def _sigmoid(adjoint: Adjoint, binding: Binding, value: Invoke, d: Expression) -> None:
    adjoint.add(value.args[0], call(adjoint.pullback("sigmoid_back"), d, Var(binding.out)), owned=True)


def _logsigmoid(adjoint: Adjoint, binding: Binding, value: Invoke, d: Expression) -> None:
    adjoint.add(value.args[0], call(adjoint.pullback("logsigmoid_back"), d, value.args[0]), owned=True)


def _retention_kernel(adjoint: Adjoint, binding: Binding, value: Invoke, d: Expression) -> None:
    given = dict(value.kwargs)
    if "log_retain" not in given:
        return _differentiated(adjoint, binding, d)
    back = call(adjoint.pullback("retention_kernel_back"), d, Var(binding.out), *given.values())
    return adjoint.add(given["log_retain"], back, owned=True)


def _delta_write(adjoint: Adjoint, binding: Binding, value: Invoke, d: Expression) -> None:
    """Its own adjoint, with the inverse that the step has kept."""
    moved = (*value.args[1:], *(v for part, v in value.kwargs if part in ("erase", "rate", "gate")))
    if not any(adjoint.depends(operand) for operand in moved):
        return _delta_kept(adjoint, binding, value, d)
    pullback = adjoint.imports.use("nldsl.runtime.delta_back:delta_write_pullback")
    inverse = adjoint.kept[adjoint.places[binding.out]]
    options = tuple((part, v) for part, v in value.kwargs if part != "kept")
    made = Invoke(pullback, (d, *value.args), (*options, ("inverse", inverse)))
    found = adjoint.let(f"d_{binding.out}_all", made)
    for part, operand in zip(("weight", "x", "dy"), value.args, strict=True):
        adjoint.add(operand, found.attr(part), owned=True)
    for part, operand in options:
        if part == "gate":
            adjoint.add_parts(operand, found.attr(part))
        elif part != "valid":
            adjoint.add(operand, found.attr(part))


def _delta_kept(adjoint: Adjoint, binding: Binding, value: Invoke, d: Expression) -> None:
    """Where what is written is constant: through what the write leaves of the weight."""
    pullback = adjoint.imports.use("nldsl.runtime.delta_back:delta_kept_pullback")
    inverse = adjoint.kept[adjoint.places[binding.out]]
    options = dict(value.kwargs)
    wanted = ("erase", "gate", "toward", "valid")
    given = tuple((part, options[part]) for part in wanted if part in options)
    weight, x, _ = value.args
    made = Invoke(pullback, (d, weight, x), (*given, ("inverse", inverse)))
    found = adjoint.let(f"d_{binding.out}_all", made)
    adjoint.add(weight, found[0], owned=True)
    adjoint.add(options.get("toward", Literal(None)), found[1])


def _several(adjoint: Adjoint, binding: Binding, made: Expression, args: tuple[Expression, ...]) -> None:
    found = adjoint.let(f"d_{binding.out}_all", made)
    for i, operand in enumerate(args):
        if adjoint.depends(operand):
            adjoint.add(operand, found[i])


def _differentiated(adjoint: Adjoint, binding: Binding, d: Expression) -> None:
    """A function without a formula is recorded and differentiated alone."""
    value = binding.value
    options: tuple[Expression, ...] = ()
    named: tuple[Expression, ...] = ()
    if isinstance(value, Item):
        function: Expression = name("Tensor").attr("__getitem__")
        args: tuple[Expression, ...] = (value.obj, _index(value.index))
    elif isinstance(value, Invoke):
        function, args = value.function, value.args
        if isinstance(function, Attribute) and _is_method(function):
            args = (function.obj, *args)
            function = name("Tensor").attr(function.name)
        named = tuple(v for _, v in value.kwargs)
        if named:
            options = (DictOf(tuple((Literal(k), v) for k, v in value.kwargs)),)
    else:
        raise NotFlatError(f"{type(value).__name__} without a formula")
    made = call(adjoint.pullback("by_differentiation"), function, d, TupleOf(args), *options)
    found = adjoint.let(f"d_{binding.out}_all", made)
    for i, operand in enumerate((*args, *named)):
        parts = enumerate(operand.items) if isinstance(operand, TupleOf) else ()
        for j, part in parts:
            adjoint.add(part, found[i][j])
        if adjoint.depends(operand):
            adjoint.add_parts(operand, found[i])


def _index(index: Expression) -> Expression:
    """An index as an argument: `x[..., 1:]` takes `(..., slice(1, None, None))`."""
    if isinstance(index, TupleOf):
        return TupleOf(tuple(map(_index, index.items)))
    if isinstance(index, SliceItem):
        return call("slice", index.start, index.stop, index.step)
    return index


RULES: dict[str, Callable[[Adjoint, Binding, Invoke, Expression], None]] = {
    "stack": _stack,
    "silu": _silu,
    "silu_pullback": _silu_pullback,
    "l2norm": _l2norm,
    "readout": _readout,
    "sigmoid": _sigmoid,
    "logsigmoid": _logsigmoid,
    "retention_kernel": _retention_kernel,
    "delta_write": _delta_write,
}
"""Functions with a formula, by name."""
