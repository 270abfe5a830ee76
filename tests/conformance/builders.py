"""Programs written by hand, statement by statement, for tests that must not depend on the elaborator."""

from __future__ import annotations

from typing import Any

import torch

from nldsl.catalog.values import Initialiser
from nldsl.reference import Interpreter, parameters
from nldsl.spec.program import (
    Apply,
    Block,
    Clock,
    Function,
    Memory,
    Parameter,
    Program,
    Read,
    Rule,
    Slot,
    Term,
    Update,
    Value,
    Write,
)

NORMAL = Initialiser("normal", 0.3)


def value(name: str, *shape: int, kind: str | None = None) -> Value:
    guess = {0: "scalar", 1: "vector", 2: "headed"}[len(shape)]
    return Value(name, shape, kind or guess)  # type: ignore[arg-type]


def matrix(name: str, rows: int, columns: int) -> Value:
    return Value(name, (rows, columns), "matrix")


class Body:
    """Straight-line code: `body("mul", a, b)` appends a statement and returns its value."""

    def __init__(self) -> None:
        self.statements: list[Any] = []
        self.memories: list[Memory] = []

    def __call__(
        self, op: str, *args: Value, like: Value | None = None, out: Value | None = None, **options: Any
    ) -> Value:
        name = f"t{len(self.statements)}"
        source = like or (args[0] if args else None)
        made = out or (Value(name, source.shape, source.kind) if source else Value(name, (), "scalar"))
        parameters = options.pop("parameters", ())
        path = options.pop("path", "")
        self.statements.append(Apply(made, op, args, tuple(sorted(options.items())), tuple(parameters), path))
        return made

    def number(self, x: float) -> Value:
        return self("constant", value=x, out=value(f"t{len(self.statements)}"))

    def linear(self, x: Value, out: int, path: str) -> Value:
        size = int(torch.Size(x.shape).numel())
        weight = Parameter(f"{path}.linear.weight", (out, size), NORMAL, "matrix")
        return self("linear", x, out=value(f"t{len(self.statements)}", out), parameters=(weight,))

    def split(self, x: Value, n: int) -> Value:
        return self("split", x, out=value(f"t{len(self.statements)}", n, x.shape[0] // n), n=n)

    def memory(self, name: str, function: Function, **options: Any) -> str:
        dk, dv = options.pop("key_size"), options.pop("value_size")
        heads = options.pop("heads", 0)
        every = options.pop("every", 1)
        learned = options.pop("learned", False)
        lead = (heads,) if heads else ()
        initial = tuple(
            Parameter(f"{name}.{w.name}", (*lead, *w.shape), NORMAL, "matrix") if learned else None
            for w in function.weights
        )
        init = options.pop("init", "learned" if learned else "zero")
        self.memories.append(
            Memory(
                name,
                name,
                "level",
                Clock(every, "tokens"),
                function,
                bool(heads),
                max(heads, 1),
                dk,
                dv,
                init,
                initial,
                **options,
            )
        )
        return name

    def read(self, memory: str, key: Value, out: Value | None = None, **options: Any) -> Value:
        made = out or Value(f"r{len(self.statements)}", key.shape, key.kind)
        self.statements.append(Read(made, memory, key, **options))
        return made

    def write(self, memory: str, *terms: Term, **options: Any) -> None:
        self.statements.append(Write(memory, terms, **options))

    def update(self, memory: str, op: str, v: Value, axis: str = "scalar") -> None:
        self.statements.append(Update(memory, op, v, axis))  # type: ignore[arg-type]

    def program(
        self, inputs: tuple[Value, ...], *outputs: Value, kind: str = "block", train: Any = None
    ) -> Program:
        block = Block("hand", inputs, tuple(self.memories), tuple(self.statements), outputs)
        return Program("hand", kind, block, train)  # type: ignore[arg-type]


def matrix_map(dk: int, dv: int) -> Function:
    b = Body()
    z, w = value("z", dk), matrix("weight", dv, dk)
    y = b("matmul", w, z, out=value("y", dv))
    return Function("matrix", (z,), (w,), tuple(b.statements), (y,))


def mlp_map(d: int, h: int, residual: bool = True) -> Function:
    """Eq. 89: `z + W1 silu(W2 z)`."""
    b = Body()
    z, w2, w1 = value("z", d), matrix("W2", h, d), matrix("W1", d, h)
    a = b("silu", b("matmul", w2, z, out=value("a", h)))
    y = b("matmul", w1, a, out=value("b", d))
    if residual:
        y = b("add", z, y)
    return Function("residual_mlp", (z,), (w2, w1), tuple(b.statements), (y,))


def l2(d: int) -> Function:
    b = Body()
    p, t = value("pred", d), value("target", d)
    e = b("sub", p, t)
    total = b("sum", b("pow", e, b.number(2.0), like=e), out=value("s"))
    out = b("mul", b.number(0.5), total, like=total)
    return Function("l2", (p, t), (), tuple(b.statements), (out,))


def dot(d: int) -> Function:
    b = Body()
    p, t = value("pred", d), value("target", d)
    out = b("neg", b("sum", b("mul", p, t), out=value("s")))
    return Function("dot", (p, t), (), tuple(b.statements), (out,))


W, G, X = matrix("W", 0, 0), matrix("g", 0, 0), value("x", 0)


def gd(lr: Value | float) -> Rule:
    b = Body()
    rate = b.number(lr) if isinstance(lr, float) else value("lr")
    new = b("sub", W, b("mul", rate, G, like=G))
    inputs = (W, G) if isinstance(lr, float) else (W, G, rate)
    arguments = () if isinstance(lr, float) else (("lr", lr),)
    return Rule("gd", Function("gd", inputs, (), tuple(b.statements), (new,)), (), arguments, ())


def momentum(lr: Value, beta: Value) -> Rule:
    """Eq. 33: `m' = beta m - lr g`, `W' = W + m'`."""
    b = Body()
    m = matrix("m", 0, 0)
    kept = b("mul", value("beta"), m, like=m)
    new = b("sub", kept, b("mul", value("lr"), G, like=G))
    moved = b("add", W, new)
    inputs = (W, G, m, value("lr"), value("beta"))
    function = Function("momentum", inputs, (), tuple(b.statements), (moved, new))
    return Rule("momentum", function, (Slot("m"),), (("beta", beta), ("lr", lr)), ())


def dgd(lr: Value, rate: str, eps: float = 1e-2) -> Rule:
    """Eq. 57 and 88: `W' = W - r (W x x^T + g)`."""
    b = Body()
    r = value("lr")
    size = b("sum", b("mul", X, X), out=value("size"))
    if rate == "normalised":
        r = b("div", r, b("add", b.number(eps), size), like=r)
    if rate == "proximal":
        r = b("div", r, b("add", b.number(1.0), b("mul", r, size, like=r), like=r), like=r)
    product = b("outer", b("matmul", W, X, like=X), X, out=matrix("erase", 0, 0))
    new = b("sub", W, b("mul", r, b("add", product, G), like=G))
    function = Function("dgd", (W, G, X, value("lr")), (), tuple(b.statements), (new,))
    return Rule("dgd", function, (), (("lr", lr),), (("rate", rate),))


def term(key: Value, target: Value, objective: Function, rule: Rule, **options: Any) -> Term:
    return Term(key, target, objective, rule, **options)


def draw(program: Program, seed: int = 0, grad: bool = False) -> dict[str, torch.Tensor]:
    """Values for every parameter."""
    g = torch.Generator().manual_seed(seed)
    made = {}
    for path, p in parameters(program.root).items():
        scale = p.init.scale if p.init.kind == "normal" else 0.2
        t = scale * torch.randn(p.shape, generator=g, dtype=torch.float64)
        if p.init.kind == "constant":
            t = t + p.init.scale
        made[path] = t.requires_grad_(grad)
    return made


def interpret(program: Program, **options: Any) -> Interpreter:
    """The interpreter with drawn parameters."""
    return Interpreter(program, draw(program), **options)
