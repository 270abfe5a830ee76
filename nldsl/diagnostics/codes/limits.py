"""NL081x: limits of a program; nothing a user writes may cost seconds or gigabytes."""

from nldsl.diagnostics.entry import Entry


def _deep(count: int) -> str:
    blocks = "".join(f"block f{i}(x) {{ return f{i + 1}(x) }}\n" for i in range(count))
    return f"{blocks}block f{count}(x) {{ return 2 * x }}\nblock top(x) {{ return f0(x) }}\n"


CODES = {
    "NL0811": Entry(
        "too many copies",
        "A `repeat` has at most 4096 copies.",
        "block f(x) { repeat 1000000000 { x = x + linear(x) }; return x }\n",
        "block f(x) { repeat 12 { x = x + linear(x) }; return x }\n",
    ),
    "NL0812": Entry(
        "too large",
        "An axis has at most 2^24 elements, a program at most 2^40 parameters.",
        "block f(x) { return linear(x, 1000000000000) }\n",
        "block f(x) { return linear(x, 1000) }\n",
    ),
    "NL0813": Entry(
        "program too large",
        "`for` loops are unrolled and calls followed; the sum of it all is bounded.",
    ),
    "NL0814": Entry(
        "calls nested too deep",
        "Blocks call one another at most 24 deep.",
        _deep(30),
        _deep(10),
    ),
}
