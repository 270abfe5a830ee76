"""NL07xx: plan and compilation."""

from nldsl.diagnostics.entry import Entry

_TASK = (
    "block f(x) {{\n"
    "  level slow every 4 tokens {{ memory F = mlp() }}\n"
    "  F minimizes task  by gd(lr = 0.1){0}\n"
    "  return F[x]\n"
    "}}\n"
)

CODES = {
    "NL0701": Entry(
        "not compiled yet",
        "The construct has a meaning, and the interpreter runs it, but no lowering of this version takes it. "
        "It is named instead of being run by something slower in silence.",
        _TASK.format("  retain 0.9"),
        _TASK.format(""),
    ),
}
