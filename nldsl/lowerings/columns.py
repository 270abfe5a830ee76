"""Functions of one memory in emitted code: maps, gradients, rules.

Here every value is a batch of rows: a scalar is `[..., C, 1]`, a vector `[..., C, n]`, a matrix
(weight) `[..., a, b]`, so that plain broadcasting is right everywhere and `W @ z` is `z @ W.mT`.
Rules act on one token at a time (C = 1), where a matrix meets a scalar `[..., 1, 1]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nldsl.catalog import Operand
from nldsl.catalog.values import Options
from nldsl.emit.nodes import Expression, Like, Literal, call, compare, to_expression
from nldsl.library import PRIMITIVES, torch_function
from nldsl.lowerings.apply import INFIX
from nldsl.lowerings.scope import Imports


def column(
    imports: Imports, op: str, options: Options, args: Sequence[Expression], operands: Sequence[Operand]
) -> Expression:
    """The expression of primitive `op` on rows; `args` hold the values, then its slow parameters."""
    if op == "constant":
        return to_expression(dict(options)["value"])
    special = SPECIAL.get(op)
    if special is not None:
        return special(args, operands)
    target = torch_function(op, operands)
    if target == "operator:neg":
        return -args[0]
    if target in INFIX:
        return compare(INFIX[target], args[0], args[1])  # type: ignore[arg-type]
    keywords: dict[str, Like] = {
        o.name: dict(options)[o.name] for o in PRIMITIVES[op].options if o.runtime and o.name in dict(options)
    }
    if "index" in dict(options):
        keywords["index"] = dict(options)["index"]
    return imports.use(target)(*args, **keywords)


def _sum(args: Sequence[Expression], operands: Sequence[Operand]) -> Expression:
    return _reduce("sum", args[0], operands[0])


def _mean(args: Sequence[Expression], operands: Sequence[Operand]) -> Expression:
    return _reduce("mean", args[0], operands[0])


def _largest(args: Sequence[Expression], operands: Sequence[Operand]) -> Expression:
    return _reduce("amax", args[0], operands[0])


def _reduce(method: str, x: Expression, operand: Operand) -> Expression:
    if operand.kind == "matrix":
        return x.method(method, -1)[..., None, slice(None)]
    return x.method(method, -1, keepdim=True)


def _dot(args: Sequence[Expression], operands: Sequence[Operand]) -> Expression:
    return (args[0] * args[1]).method("sum", -1, keepdim=True)


def _matmul(args: Sequence[Expression], operands: Sequence[Operand]) -> Expression:
    kinds = (operands[0].kind, operands[1].kind)
    if kinds == ("matrix", "vector"):
        return args[1] @ args[0].attr("mT")
    return args[0] @ args[1]


def _outer(args: Sequence[Expression], operands: Sequence[Operand]) -> Expression:
    """Summed over the rows: with one row it is the outer product itself."""
    return args[0].attr("mT") @ args[1]


def _transpose(args: Sequence[Expression], operands: Sequence[Operand]) -> Expression:
    return args[0].attr("mT")


def _expand_last(args: Sequence[Expression], operands: Sequence[Operand]) -> Expression:
    """A scalar row broadcasts by itself; a vector becomes a column of a matrix."""
    if isinstance(args[0], Literal):
        return call("torch.full_like", args[1], args[0])
    column_of_matrix = operands[1].kind == "matrix" and operands[0].kind == "vector"
    shaped = args[0].attr("mT") if column_of_matrix else args[0]
    return shaped.method("expand_as", args[1])


SPECIAL: dict[str, Callable[[Sequence[Expression], Sequence[Operand]], Expression]] = {
    "sum": _sum,
    "mean": _mean,
    "largest": _largest,
    "dot": _dot,
    "matmul": _matmul,
    "outer": _outer,
    "transpose": _transpose,
    "expand_last": _expand_last,
    "weight": lambda args, operands: args[0],
}
