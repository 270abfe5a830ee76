"""Small programs built by hand, for tests of stages that read a `Program`."""

from __future__ import annotations

from nldsl.catalog.values import Initialiser
from nldsl.spec.program import (
    Apply,
    Block,
    Call,
    Clock,
    Function,
    GroupRule,
    Memory,
    Parameter,
    Program,
    Read,
    Repeat,
    Rule,
    Slot,
    Statement,
    TaskWrite,
    Term,
    TrainPlan,
    Update,
    Value,
    Write,
)

NORMAL = Initialiser("normal", 0.1)
TOKEN = Clock(1, "tokens")


def value(name: str, size: int = 8) -> Value:
    return Value(name, (size,), "vector") if size else Value(name, (), "scalar")


def linear(out: str, *args: str, op: str = "linear") -> Apply:
    """A slow parameter `<out>.<op>.weight` applied to `args`."""
    weight = Parameter(f"{out}.{op}.weight", (8, 8), NORMAL, "matrix" if op == "linear" else "norm")
    return Apply(value(out), op, tuple(value(a) for a in args), parameters=(weight,))


def plain(out: str, *args: str, op: str = "add") -> Apply:
    return Apply(value(out), op, tuple(value(a) for a in args))


MATRIX = Function(
    "matrix",
    (value("z"),),
    (Value("weight", (8, 8), "matrix"),),
    (Apply(value("y"), "matmul", (Value("weight", (8, 8), "matrix"), value("z"))),),
    (value("y"),),
)

L2 = Function(
    "l2",
    (value("pred"), value("target")),
    (),
    (
        Apply(value("e"), "sub", (value("pred"), value("target"))),
        Apply(value("two", 0), "constant", (), (("value", 2),)),
        Apply(value("sq"), "pow", (value("e"), value("two", 0))),
        Apply(value("s", 0), "sum", (value("sq"),)),
        Apply(value("half", 0), "constant", (), (("value", 0.5),)),
        Apply(value("loss", 0), "mul", (value("half", 0), value("s", 0))),
    ),
    (value("loss", 0),),
)


def gd(rate: str = "eta") -> Rule:
    w, g, lr = (Value(n, (8, 8), "matrix") for n in ("W", "g", "lr"))
    step = Apply(Value("step1", (8, 8), "matrix"), "mul", (lr, g))
    new = Apply(Value("W_1", (8, 8), "matrix"), "sub", (w, step.out))
    return Rule("gd", Function("gd", (w, g, lr), (), (step, new), (new.out,)), (), (("lr", value(rate)),), ())


def adam() -> Rule:
    """W needs both memories, neither memory needs the other."""
    w, g, m, s = (Value(n, (8, 8), "matrix") for n in ("W", "g", "m", "s"))
    m1, s1, w1 = (Value(n, (8, 8), "matrix") for n in ("m_1", "s_1", "W_1"))
    body = (
        Apply(m1, "add", (m, g)),
        Apply(s1, "add", (s, g)),
        Apply(Value("d", (8, 8), "matrix"), "div", (m1, s1)),
        Apply(w1, "sub", (w, Value("d", (8, 8), "matrix"))),
    )
    function = Function("adam", (w, g, m, s), (), body, (w1, m1, s1))
    return Rule("adam", function, (Slot("m"), Slot("s")), (), (("lr", 0.01),))


def memory(
    name: str, clock: Clock = TOKEN, heads: int = 1, learned: bool = False, level: str = "context"
) -> Memory:
    start = Parameter(f"{name}.weight", (8, 8), NORMAL, "matrix") if learned else None
    init = "learned" if learned else "zero"
    return Memory(name, name, level, clock, MATRIX, heads > 1, heads, 8, 8, init, (start,))


def write(name: str, key: str, target: str, rate: str = "eta", every: int = 1) -> Write:
    return Write(name, (Term(value(key), value(target), L2, gd(rate)),), base_every=every)


def read(out: str, name: str, key: str) -> Read:
    return Read(value(out), name, value(key))


def block(
    name: str, memories: list[Memory], body: list[Statement], outputs: tuple[str, ...] = ("y",)
) -> Block:
    return Block(name, (value("x"),), tuple(memories), tuple(body), tuple(value(o) for o in outputs))


def layer() -> Block:
    """A delta-rule layer: keys, values and rates from slow projections; read below the write."""
    return block(
        "layer",
        [memory("S", heads=2)],
        [
            linear("q", "x"),
            linear("k", "x"),
            linear("v", "x"),
            linear("eta", "x"),
            Update("S", "scale", value("eta")),
            write("S", "k", "v"),
            read("r", "S", "q"),
            linear("y", "r"),
        ],
    )


def chain(clocks: tuple[int, ...] = (4, 16)) -> Block:
    """Task memories one after the other on a residual stream, each behind a norm."""
    memories, body, stream = [], [], "x"
    for i, every in enumerate(clocks):
        memories.append(memory(f"F{i}", Clock(every, "tokens"), learned=True, level=f"f{i}"))
        body += [
            TaskWrite(f"F{i}", gd()),
            linear(f"n{i}", stream, op="norm"),
            read(f"r{i}", f"F{i}", f"n{i}"),
            plain(f"x{i}", stream, f"r{i}"),
        ]
        stream = f"x{i}"
    body = [plain("eta", "x", op="detach"), *body]
    return Block("chain", (value("x"),), tuple(memories), tuple(body), (value(stream),))


def model(*blocks: Block, depth: int = 3, train: bool = True) -> Program:
    """An embedding, `depth` copies of all `blocks` in a row on a residual stream, and a head."""
    body: list[Statement] = []
    for i, inner in enumerate(blocks):
        before = sum(b.name == inner.name for b in blocks[:i])
        path = f"{inner.name}_{before + 1}" if before else inner.name
        body.append(Call((value(f"o{i}"),), inner, (value(f"x{i}"),), path))
        body.append(plain(f"x{i + 1}", f"x{i}", f"o{i}"))
    inner = Block("model.blocks", (value("x0"),), (), tuple(body), (value(f"x{len(blocks)}"),))
    embed = Apply(
        value("e"), "embed", (Value("tokens", (), "token"),),
        parameters=(Parameter("x.embed.weight", (16, 8), NORMAL, "embedding"),),
    )  # fmt: skip
    head = Apply(
        value("y", 16),
        "head",
        (value("h"),),
        parameters=(Parameter("out.head.weight", (16, 8), NORMAL, "head"),),
    )
    stack = Repeat((value("h"),), inner, (value("e"),), depth, "blocks")
    root = Block("model", (Value("tokens", (), "token"),), (), (embed, stack, head), (value("y", 16),))
    groups = (
        GroupRule(("matrices",), "adam", (("lr", 0.01),), bound=adam()),
        GroupRule(("rest",), "sgd", (("lr", 1),)),
    )
    return Program("model", "model", root, TrainPlan("next_token", "trunc", groups) if train else None)


def only(inner: Block) -> Program:
    """One block as a program."""
    return Program(inner.name, "block", inner)


def twelve() -> Program:
    """Twelve memories on five clocks in one block, each keyed by the one before."""
    memories, body = [], [linear("k0", "x"), linear("eta", "x")]
    for i in range(12):
        every = (1, 4, 16, 64, 256)[i % 5]
        memories.append(memory(f"M{i}", Clock(every, "tokens"), learned=i % 3 == 0, level=f"clock{every}"))
        body += [
            read(f"k{i + 1}", f"M{i}", f"k{i}"),
            write(f"M{i}", f"k{i}", f"k{max(0, i - 2)}", every=every),
        ]
    body.append(linear("y", "k12"))
    return only(block("twelve", memories, body))
