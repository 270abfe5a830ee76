"""Mutated programs give diagnostics: never an exception, never more than two seconds."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest

from nldsl.diagnostics import Diagnostic
from nldsl.spec import check

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [p.read_text(encoding="utf-8") for p in sorted((ROOT / "specs").rglob("*.nl"))]
WORDS = re.compile(r"[A-Za-z_]\w*|\d+(?:\.\d+)?|\S")
STRANGE = [
    "0", "-1", "1.5", "1e30", "1000000000000", "10 ** 10 ** 10", "x", "heads", '"raw"', "[1, 2]", "[]",
    "true", "self", "init", "task", "W", "g", "S", "S[x]", "M", "linear(x)", "split(x, 3)", "dim(x)",
    "parts(x, 1, 2)", "matrix()", "mlp()", "softmax()", "gd(lr = 0.1)", "unknown", "detach(x)",
    "position()", "1 / 0", "not x", "conv(x, 4)",
]  # fmt: skip


def mutated(seed: int) -> str:
    """A text of the library with a few words replaced, removed, doubled or swapped."""
    random_ = random.Random(seed)
    text = random_.choice(TEXTS)
    for _ in range(random_.randint(1, 4)):
        places = list(WORDS.finditer(text))
        if not places:
            break
        one, other = random_.choice(places), random_.choice(places)
        kind = random_.randrange(6)
        if kind == 0:
            text = text[: one.start()] + random_.choice(STRANGE) + text[one.end() :]
        elif kind == 1:
            text = text[: one.start()] + text[one.end() :]
        elif kind == 2:
            text = text[: one.end()] + " " + other.group() + text[one.end() :]
        elif kind == 3:
            text = text[: one.start()] + other.group() + text[one.end() :]
        elif kind == 4:
            lines = text.split("\n")
            first, second = random_.randrange(len(lines)), random_.randrange(len(lines))
            lines[first], lines[second] = lines[second], lines[first]
            text = "\n".join(lines)
        else:
            text = text.replace(one.group(), random_.choice(STRANGE))
    return text + "\n"


def examine(text: str) -> list[Diagnostic]:
    """`check`, within two seconds of processor time, every finding with a known form."""
    start = time.process_time()
    found = check(text)
    assert time.process_time() - start < 2, text
    for finding in found:
        assert re.fullmatch(r"NL\d{4}", finding.code)
        assert finding.message and "Value(" not in finding.message and "Poison" not in finding.message, (
            finding
        )
    return found


def test_mutated_library_texts() -> None:
    wrong = sum(any(d.severity == "error" for d in examine(mutated(seed))) for seed in range(400))
    assert wrong > 200


@pytest.mark.long
def test_many_mutated_library_texts() -> None:
    for seed in range(1000, 6000):
        examine(mutated(seed))


DEEP = "if true { " * 60 + "{0}" + " }" * 60

BOMBS = [
    "".join(f"block f{i}(x) {{ {DEEP.replace('{0}', f'x = f{i + 1}(x)')}; return x }}\n" for i in range(20))
    + "block f20(x) { return 2 * x }",
    "block f(x) { repeat 1000000000 { x = 2 * x }; return x }",
    "block f(x) { return linear(x, 10 ** 12) }",
    "block f(x) { return linear(x, 10 ** 10 ** 10) }",
    "block f(x, l = [1,2,3,4,5,6,7,8,9]) { for a in l { for b in l { for c in l { for d in l { for e in l {"
    "x = x + e } } } } }; return x }",
    "block f(x, n = [1, 2]) { for i in n + n + n { x = x + linear(x) }; return x }",
    "block f0(x) { return x + linear(x) }\n"
    + "".join(
        f"block f{i}(x) {{ x = f{i - 1}(x); return f{i - 1}(linear(x, dim(x) + 1)) }}\n" for i in range(1, 22)
    ),
    "model m(tokens) { x = embed(tokens, 10000000, 10000000); repeat 4000 { x = x + linear(x) }\n"
    "return head(x, 2) }",
    "block f(x) { memory A = softmax(start = 1000000000000); A[x] <- x; return A[x] }",
    "block f(x) { level m every 1 token { memory S = matrix(out = 1000000000) }\n"
    "S[x] <- 0 by gd(lr = 1); return S[x] }",
    "map f(z) { return f(z) }\nblock g(x) { level m every 1 token { memory S = f() }\n"
    "S[x] <- x by gd(lr=1); return S[x] }",
    "variant a of b(dim = 2)\nvariant b of a(dim = 2)",
    "block f(x) { a = 999999999999999; b = a * a * a * a; return x * b }",
    "block f(x, l = [0]) { for a in [1,2,3,4,5,6,7,8,9] { l = l + l + l + l + l + l + l + l }\n"
    "for i in l { x = x + i }; return x }",
]


@pytest.mark.parametrize("text", BOMBS)
def test_bombs_are_quick(text: str) -> None:
    examine(text + "\n")


def test_five_faulty_statements_give_five_reports() -> None:
    found = check(
        "block f(x, heads = 4) {\n"
        "  a = sigmod(x)\n"
        "  b = linear(x, 0)\n"
        "  c = y + 1\n"
        "  d = split(x, 5)\n"
        "  e = linear(x, 3) + linear(x, 4)\n"
        "  return merge(split(a + b + c, heads)) + merge(d) + e\n"
        "}\n"
    )
    assert [d.code for d in found] == ["NL0302", "NL0410", "NL0301", "NL0402", "NL0401"]
