"""NL07xx: plan and compilation."""

from nldsl.diagnostics.entry import Entry

_READS = "block f(x) {{\n  memory A = softmax({0})\n  A[linear(x)] <- linear(x)\n  return A[linear(x)]\n}}\n"

CODES = {
    "NL0701": Entry(
        "not compiled yet",
        "The construct has a meaning, and the interpreter runs it, but no lowering of this version takes it. "
        "It is named instead of being run by something slower in silence.",
        _READS.format("causal = false"),
        _READS.format("window = 16"),
    ),
    "NL0702": Entry(
        "not one graph",
        "`torch.export` makes one graph whose shapes are known before it sees a state. A memory on a clock "
        "of several tokens is cut and committed where the counts in its state say, so its shapes are not; "
        "`torch.compile` and plain PyTorch take it as it is. `nldsl verify --export` names these memories.",
    ),
}
