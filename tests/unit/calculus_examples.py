"""Maps, objectives and rules built by hand, as the elaborator would."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.catalog import Operand
from nldsl.library import PRIMITIVES
from nldsl.spec.program import Apply, Function, Rule, Slot, Value


class Code:
    """Straight-line code in the making: `c("mul", a, b)` is the value of a new statement."""

    def __init__(self) -> None:
        self.body: list[Apply] = []

    def __call__(self, op: str, *args: Value | float, **options: float | int | bool) -> Value:
        values = tuple(a if isinstance(a, Value) else self("constant", value=a) for a in args)
        outcome = PRIMITIVES[op].shape(tuple(Operand(v.shape, v.kind) for v in values), options)
        out = Value(f"v{len(self.body)}", outcome.shape, outcome.kind)
        self.body.append(Apply(out, op, values, tuple(sorted(options.items()))))
        return out


def vector(name: str, size: int) -> Value:
    """A vector value."""
    return Value(name, (size,), "vector")


def scalar(name: str) -> Value:
    """A scalar value."""
    return Value(name, (), "scalar")


def matrix(name: str, rows: int, columns: int) -> Value:
    """A matrix value."""
    return Value(name, (rows, columns), "matrix")


def matrix_map(out: int = 3, size: int = 4) -> Function:
    """`weight @ z`."""
    c, z, w = Code(), vector("z", size), matrix("weight", out, size)
    y = c("matmul", w, z)
    return Function("matrix", (z,), (w,), tuple(c.body), (y,))


def residual_mlp(size: int = 4, hidden: int = 5) -> Function:
    """`z + W1 @ silu(W2 @ z)`."""
    c, z = Code(), vector("z", size)
    w2, w1 = matrix("W2", hidden, size), matrix("W1", size, hidden)
    y = c("add", z, c("matmul", w1, c("silu", c("matmul", w2, z))))
    return Function("residual_mlp", (z,), (w2, w1), tuple(c.body), (y,))


def objective(
    write: Callable[[Code, Value, Value], Value], size: int = 3, name: str = "objective"
) -> Function:
    """An objective of prediction and target."""
    c, pred, target = Code(), vector("pred", size), vector("target", size)
    loss = write(c, pred, target)
    return Function(name, (pred, target), (), tuple(c.body), (loss,))


def l2(size: int = 3) -> Function:
    """Half the squared error."""

    def write(c: Code, pred: Value, target: Value) -> Value:
        return c("mul", 0.5, c("sum", c("pow", c("sub", pred, target), 2.0)))

    return objective(write, size, "l2")


def dot(size: int = 3) -> Function:
    """The negative inner product."""
    return objective(lambda c, p, t: c("neg", c("sum", c("mul", p, t))), size, "dot")


Written = Callable[[Code, dict[str, Value]], tuple[Value, ...]]


def rule(
    write: Written, arguments: tuple[str, ...] = ("lr",), slots: tuple[str, ...] = (), name: str = "rule"
) -> Rule:
    """A rule on a 3 x 4 weight; `write` returns the new weight, then the new slots."""
    c = Code()
    inputs = {
        "W": matrix("W", 3, 4),
        "g": matrix("g", 3, 4),
        "x": vector("x", 4),
        "dy": vector("dy", 3),
        "step": scalar("step"),
    }
    inputs |= {a: scalar(a) for a in arguments} | {s: matrix(s, 3, 4) for s in slots}
    outputs = write(c, inputs)
    used = {v.name for a in c.body for v in a.args} | {o.name for o in outputs}
    function = Function(name, tuple(v for v in inputs.values() if v.name in used), (), tuple(c.body), outputs)
    bound = tuple((a, scalar(f"block_{a}")) for a in arguments)
    return Rule(name, function, tuple(Slot(s) for s in slots), bound, ())


def gd() -> Rule:
    """`W - lr * g`."""
    return rule(lambda c, i: (c("sub", i["W"], c("mul", i["lr"], i["g"])),), name="gd")


def dgd(rate: str = "raw") -> Rule:
    """`W - r * (outer(W @ x, x) + g)` with the three rates."""

    def write(c: Code, i: dict[str, Value]) -> tuple[Value, ...]:
        square = c("sum", c("pow", i["x"], 2.0))
        r = i["lr"]
        if rate == "proximal":
            r = c("div", r, c("add", 1.0, c("mul", r, square)))
        if rate == "normalised":
            r = c("div", r, c("add", 1e-2, square))
        step = c("add", c("outer", c("matmul", i["W"], i["x"]), i["x"]), i["g"])
        return (c("sub", i["W"], c("mul", r, step)),)

    return rule(write, name="dgd")


def momentum() -> Rule:
    """`m = beta * m - lr * g; W = W + m`."""

    def write(c: Code, i: dict[str, Value]) -> tuple[Value, ...]:
        m = c("sub", c("mul", i["beta"], i["m"]), c("mul", i["lr"], i["g"]))
        return c("add", i["W"], m), m

    return rule(write, ("lr", "beta"), ("m",), "momentum")
