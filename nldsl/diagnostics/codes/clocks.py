"""NL05xx: clocks and levels."""

from nldsl.diagnostics.entry import Entry


def _model(body: str) -> str:
    return f"block f(x) {{\n  {body}\n}}\n"


_TWO = (
    "level a every {0} tokens {{ memory F = mlp() }}\n"
    "  level b every {1} tokens {{ memory G = mlp() }}\n"
    "  F minimizes task by gd(lr = 0.1)\n"
    "  G minimizes task by gd(lr = 0.1)\n"
    "  return G[F[x]]"
)
_ONE = "level a {0} {{ memory F = mlp() }}\n  {1}\n  return F[x]"

CODES = {
    "NL0501": Entry(
        "not a clock",
        "A clock is a whole number of tokens or steps, at least one.",
        _model(_ONE.format("every 0 tokens", "F minimizes task by gd(lr = 0.1)")),
        _model(_ONE.format("every 4 tokens", "F minimizes task by gd(lr = 0.1)")),
    ),
    "NL0502": Entry(
        "memory without a level",
        "A memory that learns is on a clock; only the softmax memory stands outside of levels.",
        _model("memory S = matrix()\n  S[l2norm(x)] <- x by gd(lr = 0.1)\n  return S[x]"),
        _model(
            "level a every 1 token { memory S = matrix() }\n"
            "  S[l2norm(x)] <- x by gd(lr = 0.1)\n  return S[x]"
        ),
    ),
    "NL0503": Entry(
        "task clocks do not divide",
        "A sequence is processed in segments of the smallest task clock; all others end with a segment.",
        _model(_TWO.format(16, 24)),
        _model(_TWO.format(16, 32)),
    ),
    "NL0504": Entry(
        "no such level",
        "A variant names a level by the end of its path, with or without indices.",
        'variant v of hope { level "cms.g" every 64 tokens }\n',
        'variant v of hope { level "cms.f" every 64 tokens }\n',
    ),
    "NL0505": Entry(
        "a memory on a clock of steps that `train` cannot move",
        "A memory on a clock of steps is one for the whole batch: `train` gathers its task gradients for N "
        "steps and applies its rule once. It holds its own learned start, is never reset, and the numbers of "
        "its rule are the same for all tokens.",
        _model(_ONE.format("every 4 steps", "F minimizes task by gd(lr = sigmoid(linear(x, 1)))")),
        _model(_ONE.format("every 4 steps", "F minimizes task by gd(lr = 0.1)")),
    ),
    "NL0509": Entry(
        "a write on a clock of steps",
        "A memory on a clock of steps changes between the steps of training, not while tokens arrive: only "
        "the task moves it (`F minimizes task by ...`). What learns in context is on a clock of tokens; what "
        "is never written is a plain map, whose clock is that of its group in `train`.",
        _model(_ONE.format("every 4 steps", "F[x] <- x by proximal(lr = 0.1)")),
        _model(_ONE.format("every 1 token", "F[x] <- x by proximal(lr = 0.1)")),
    ),
    "NL0506": Entry(
        "write on the clock `never`",
        "A level that never ticks cannot change a memory.",
        _model(_ONE.format("never", "F[x] <- x by proximal(lr = 0.1)")),
        _model(_ONE.format("every 1 token", "F[x] <- x by proximal(lr = 0.1)")),
    ),
}
