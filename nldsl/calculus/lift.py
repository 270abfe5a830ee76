"""From the straight-line code of a program to expressions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nldsl.calculus.expression import Expr, symbol
from nldsl.calculus.memo import by_identity
from nldsl.calculus.simplify import apply
from nldsl.catalog.values import Kind, Shape
from nldsl.library import PRIMITIVES
from nldsl.spec.program import Apply, Block, Function, Parameter, Value


def value_symbol(value: Value, role: str, name: str = "") -> Expr:
    """The symbol that stands for a value of the program."""
    return symbol(name or value.name, value.shape, value.kind, role=role)


def parameter_symbol(parameter: Parameter) -> Expr:
    """The symbol that stands for a slow parameter, named by its path."""
    kinds: dict[int, Kind] = {0: "scalar", 1: "vector", 2: "matrix"}
    return symbol(parameter.path, parameter.shape, kinds[len(parameter.shape)], role="parameter")


def weight_symbol(name: str, shape: Shape) -> Expr:
    """The symbol of a fast weight; its axes are `name.out` and `name.in`."""
    kinds: dict[int, Kind] = {0: "scalar", 1: "vector", 2: "matrix"}
    axes = (f"{name}.out", f"{name}.in")[: len(shape)]
    return symbol(name, shape, kinds[len(shape)], axes, role="weight")


def lift(
    function: Function, known: Mapping[str, Expr], cut: Mapping[str, Expr] | None = None
) -> tuple[Expr, ...]:
    """The outputs of a function, where its inputs and weights are the expressions in `known`.

    `cut` names values of the body that are replaced once computed: later uses see the replacement.

    Errors: `KeyError` for an input or weight that `known` lacks.
    """
    named = dict(known)
    missing = [v.name for v in (*function.inputs, *function.weights) if v.name not in named]
    if missing:
        raise KeyError(f"`{function.name}` needs a value for `{missing[0]}`")
    full = dict(named)
    for statement in function.body:
        made = _apply(statement, named)
        full[statement.out.name] = made
        named[statement.out.name] = (cut or {}).get(statement.out.name, made)
    return tuple(full[v.name] for v in function.outputs)


def _apply(statement: Apply, named: Mapping[str, Expr]) -> Expr:
    """One application, its parameters as symbols."""
    args = tuple(named[a.name] for a in statement.args)
    owned = tuple(parameter_symbol(p) for p in statement.parameters)
    return apply(statement.op, args + owned, dict(statement.options), len(owned))


def block_expression(block: Block, name: str, stop: Iterable[str] = ()) -> Expr:
    """What a value of a block is computed from, as far back as elementwise operations reach.

    Everything else (reads, linear layers, inputs, the names in `stop`) becomes a symbol named as
    the value is.  Used for gates: whether they are positive, and their logarithm.

    Errors: `KeyError` if the block computes no such value.
    """
    ends = frozenset(stop)
    return (_all_expressions(block) if not ends else _expressions(block, ends))[name]


def source_expression(block: Block, name: str) -> Expr:
    """As `block_expression`, but also through `outer`, `parts`, `index`, `position`: for ranges, not code.

    Errors: `KeyError` if the block computes no such value.
    """
    return _sources(block)[name]


@by_identity(4)
def _sources(block: Block) -> dict[str, Expr]:
    return _expressions(block, frozenset(), ("outer", "parts", "index", "position"))


@by_identity(4)
def _all_expressions(block: Block) -> dict[str, Expr]:
    return _expressions(block, frozenset())


def _expressions(block: Block, ends: frozenset[str], through: tuple[str, ...] = ()) -> dict[str, Expr]:
    """Every value of a block by name."""
    made: dict[str, Expr] = {v.name: value_symbol(v, "value") for v in block.inputs}
    for statement in block.body:
        outs = getattr(statement, "outs", None) or tuple(filter(None, [getattr(statement, "out", None)]))
        for out in outs:
            made[out.name] = value_symbol(out, "value")
        if not isinstance(statement, Apply) or statement.out.name in ends:
            continue
        if _transparent(statement) or statement.op in through:
            made[statement.out.name] = _apply(statement, made)
    return made


def _transparent(statement: Apply) -> bool:
    """Elementwise or a mere change of shape, without hidden state."""
    primitive = PRIMITIVES[statement.op]
    shapes = ("constant", "split", "merge", "sum", "mean")
    return (primitive.elementwise or statement.op in shapes) and not primitive.stateful
