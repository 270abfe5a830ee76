"""Mistakes of people who write their first specification: one finding for each, and a way out."""

from __future__ import annotations

from pathlib import Path

import pytest

import nldsl
from nldsl.cli.fixing import repair
from nldsl.diagnostics import SpecError, render_all
from nldsl.review import check
from nldsl.source import SourceFile

LEVEL = (
    "  level context every 1 token { memory S = matrix() per head }\n  k = l2norm(split(linear(x), heads))\n"
)
WRITE = "  S[k] <- linear(x)  by gd(lr = 0.5)\n"


def layer(*lines: str, level: str = LEVEL, write: str = WRITE) -> str:
    """A block of four heads with one memory; `lines` end it."""
    return f"block f(x, heads = 4) {{\n{level}{write}" + "".join(f"  {line}\n" for line in lines) + "}\n"


MODEL = (
    "model m(tokens, vocab = 16, dim = 8) {\n  x = embed(tokens, vocab, dim)\n  return head(x, vocab)\n}\n"
)

TEXTS = {
    "one channel beside many": (
        layer("return linear(merge(S[k] / N[k]))")
        .replace(
            "{ memory S = matrix() per head }",
            "{\n    memory S = matrix() per head\n    memory N = matrix(out = 1) per head\n  }",
        )
        .replace("  return", "  N[k] <- 1  by gd(lr = 1)\n  return"),
        "NL0401",
        "`sum(...)` of it is one number per head",
    ),
    "factors on both sides": (
        "block f(x) {\n  level l every 1 token { memory S = matrix() }\n  k = l2norm(linear(x))\n"
        "  S = (I - outer(k, k)) @ S @ (I - outer(k, k)) + outer(x, k)\n  return S[k]\n}\n",
        "NL0404",
        "`S = S @ B`, then `S = A @ S + ...`",
    ),
    "a vector of no known length": (
        "block f(x) {\n  level l every 1 token { memory h = matrix(in = 1) }\n"
        "  h = tanh(linear(x, 4) + linear(h[1]))\n  return linear(h[1])\n}\n",
        "NL0401",
        "`matrix(out = dim(x), in = 1)`",
    ),
    "every token": (
        layer("return S[k]", level=LEVEL.replace("every 1", "every")),
        "NL0101",
        "`every 1 token`",
    ),
    "every step": (
        MODEL + "train m { level a every step { rest by sgd(lr = 1) } }\n",
        "NL0101",
        "`every 1 step`",
    ),
    "bare arguments": (
        layer("return S[k]", write="  S[k] <- x by gd lr = 0.5\n"),
        "NL0101",
        "`gd(lr = ...)`",
    ),
    "bare path": ("use blocks/cms.nl\nblock f(x) { return cms(x) }\n", "NL0101", '`use "blocks/cms.nl"`'),
    "method": (layer("return S[k]", write="  S.write(k, x)\n"), "NL0102", "`M[key] <- value`"),
    "a rule of one size": (
        "block f(x) {\n  level f every 1 token { memory F = mlp(2) }\n"
        "  F[linear(x)] <- x  by delta_momentum(lr = 0.1)\n  return F[x]\n}\n",
        "NL0425",
        "`momentum`",
    ),
    "a rule of one size, on the task": (
        MODEL.replace(
            "  return",
            "  level f every 3 tokens { memory F = mlp(2) }\n"
            "  F minimizes task  by delta_momentum(lr = 0.1)\n  x = x + F[norm(x)]\n  return",
        ),
        "NL0425",
        "`momentum`",
    ),
    "a deep memory of a rule, on the task": (
        MODEL.replace(
            "  return",
            "  level f every 3 tokens { memory F = matrix() }\n"
            "  F minimizes task  by deep_momentum(lr = 0.1)\n  x = x + F[norm(x)]\n  return",
        ),
        "NL0425",
        "`nadam`",
    ),
    "memory called": (layer("return S(k)"), "NL0314", "read it: `S[q]`"),
    "memory multiplied": (layer("return S @ k"), "NL0404", "read it"),
    "value indexed": ("block f(x) { return x[0] }\n", "NL0314", "`parts(x, n, m)`"),
    "table indexed": (
        "model m(tokens) { E = weight(16, 8); return E @ E[tokens] }\n",
        "NL0314",
        "`embed(tokens, E)`",
    ),
    "lookup": (
        "model m(tokens) { E = weight(16, 8); return E @ lookup(tokens, E) }\n",
        "NL0313",
        "`embed(tokens, E)`",
    ),
    "parameter forgotten": (
        MODEL.replace("return", "repeat depth { x = x + linear(x) }\n  return"),
        "NL0301",
        "`depth = 4` in the header",
    ),
    "function without brackets": ("block f(x) { return linear(x, 4 * dim) }\n", "NL0301", "`dim(x)`"),
    "choice at a token": (
        "block f(x) {\n  if x > 0 { y = x } else { y = -x }\n  return y\n}\n",
        "NL0403",
        "`where(condition, a, b)`",
    ),
    "gradient of a rule": ("rule r(lr) { W = W - lr * grad }\n", "NL0301", "its gradient `g`"),
    "unknown role": (MODEL + "train m { all by sgd(lr = 0.1) }\n", "NL0603", "`rest`"),
    "misspelt role": (
        MODEL + 'train m {\n  "x.*" by sgd(lr = 0.1)\n  heads by adamw(lr = 0.1)\n}\n',
        "NL0603",
        "did you mean `head`?",
    ),
    "rate of another shape": (
        layer("return S[k]", write="  S[k] <- linear(x)  by gd(lr = sigmoid(linear(x)))\n"),
        "NL0418",
        "`sigmoid(linear(x, 4))`",
    ),
    "gate of another shape": (
        layer("return S[k]", write="  S *= sigmoid(linear(x, 5))\n" + WRITE),
        "NL0418",
        "`sigmoid(linear(x, 4))`",
    ),
    "convolution in a map": (
        "map m(z) { return linear(conv(z, 3)) }\n"
        "block f(x) {\n  level a every 1 token { memory S = m() }\n"
        "  S[l2norm(x)] <- x  by proximal(lr = 0.1)\n  return S[x]\n}\n",
        "NL0313",
        "`k = conv(linear(x), 4)`",
    ),
    "heads that do not divide": (
        "block f(x) { return gated_deltanet(x, heads = 5) }\n",
        "NL0402",
        "a multiple of 5",
    ),
    "python truth": ("block f(x) { return linear(x, bias = True) }\n", "NL0301", "did you mean `true`?"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_one_finding_with_a_way_out(name: str) -> None:
    text, code, help = TEXTS[name]
    found = [d for d in check(text) if d.severity == "error"]
    assert [d.code for d in found] == [code], render_all(found)
    assert help in found[0].help, render_all(found)


YAML = {
    "misspelt key": (
        "nldsl: 1\nblock f:\n  takes: [x]\n  levels:\n    a: {every: 1 token, memories: {S: matrix()}}\n"
        "  body:\n    - k = l2norm(x)\n    - write: S\n      key: k\n      values: x\n"
        "      by: gd(lr = 0.5)\n"
        "    - return S[k]\n",
        "NL0205",
        "did you mean `value`?",
    ),
    "return as a key": (
        "nldsl: 1\nblock f:\n  takes: [x]\n  body:\n    - y = 2 * x\n    - return: y\n",
        "NL0205",
        "`- return y`",
    ),
    "statement as a key": (
        "nldsl: 1\nblock f:\n  takes: [x]\n  body:\n    - y = 2 * x\n    - z: relu(y)\n    - return y\n",
        "NL0205",
        "write `- z = relu(y)`",
    ),
    "rule as a mapping": (
        "nldsl: 1\nblock f:\n  takes: [x]\n  levels:\n    a: {every: 1 token, memories: {S: matrix()}}\n"
        "  body:\n    - write: S\n      key: l2norm(x)\n      value: x\n      by: {gd: {lr: 0.5}}\n"
        "    - return S[x]\n",
        "NL0206",
        "write `gd(lr = 0.5)`",
    ),
    "parameter as a mapping": (
        "nldsl: 1\nblock f:\n  takes: [x, n: 2]\n  body:\n    - return n * x\n",
        "NL0206",
        "write `n = 2`",
    ),
    "tab": ("nldsl: 1\nblock f:\n\ttakes: [x]\n", "NL0201", "tabs"),
}


@pytest.mark.parametrize("name", YAML)
def test_one_finding_in_yaml(name: str) -> None:
    text, code, help = YAML[name]
    found = check(SourceFile("a.yaml", text))
    assert [d.code for d in found] == [code], render_all(found)
    assert help in found[0].help


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"\xff\xfeb\x00l\x00", "UTF-16"), (b"block f(x) {\r\n  return caf\xe9\r\n}", "0xe9 in line 2")],
)
def test_bytes_that_are_no_text(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.nl"
    path.write_bytes(data)
    (found,) = check(path)
    assert found.code == "NL0803" and words in found.message + found.help


def test_what_goes_wrong_inside_of_the_library_is_shown_at_the_call() -> None:
    text = (
        "model m(tokens) {\n  x = embed(tokens, 16, 64)\n  return head(gated_deltanet(x, heads = 5), 16)\n}\n"
    )
    (found,) = check(text)
    assert found.span is not None and found.span.text == "gated_deltanet"
    assert found.secondary[0].span.file.name == "specs/blocks/gated_deltanet.nl"


PYTHON = """block f(x, heads=4):
    level context every token:
        memory S = matrix() per head
    k = l2norm(split(linear(x), heads))
    S[k] = linear(x) by gd(lr=0.5)
    return S[k]
"""


def test_a_text_in_the_manner_of_python_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "f.nl"
    path.write_text(PYTHON)
    lines = list(repair(str(path), check))
    assert len(lines) == 6 and check(path) == []
    assert path.read_text() == (
        "block f(x, heads=4) {\n    level context every 1 token {\n        memory S = matrix() per head\n"
        "    }\n"
        "    k = l2norm(split(linear(x), heads))\n    S[k] <- linear(x) by gd(lr=0.5)\n    return S[k]\n}\n"
    )


def test_a_misspelt_clause_is_the_only_finding() -> None:
    """What no statement reads any more, because one could not be read, is not reported beside it."""
    text = layer("return S[k]", write="  v = linear(x)\n  S[k] <- v  minimise l2  by gd(lr = 0.5)\n")
    assert [d.code for d in check(text)] == ["NL0111"]
    silent = layer(
        "return S[k]", write="  v = linear(x)\n  S[k] <- detach(v)  minimize l2  by gd(lr = 0.5)\n"
    )
    assert "NL0601" in [d.code for d in check(silent)]


def test_a_file_of_rules_is_told_what_rules_are_for() -> None:
    with pytest.raises(SpecError) as caught:
        nldsl.compile("rule mine(lr) { W = W - lr * g }\n")
    finding = caught.value.diagnostics[0]
    assert finding.code == "NL0320" and "`nldsl.optimizer`" in finding.help
