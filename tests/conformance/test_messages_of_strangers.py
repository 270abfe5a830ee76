"""What a person is told who writes a memory that nobody has built before, and slips."""

from __future__ import annotations

import pytest

import nldsl
from nldsl.view import explain
from tests.conformance.agreement import compiled, disagreements
from tests.conformance.strangers import block

STEP = "S = a * S @ (I - a * outer(k, k)) + a * outer(v, k)"
WRITE = "S[k] <- v  by gd(lr = 0.1)"
SLIPS: dict[str, tuple[str, str, str, str]] = {
    "a printed step on a slow clock": ("4 tokens", "matrix() per head", STEP, "on a clock of 4 tokens"),
    "a printed step on a clock of steps": ("1 step", "matrix() per head", STEP, "on a clock of 1 step"),
    "a printed step of a perceptron": ("1 token", "mlp() per head", STEP, "`S` is no `matrix()`"),
    "no heads for a gate": ("1 token", "matrix()", f"S *= a; {WRITE}", "declare `memory S"),
    "no heads for a gate of channels": (
        "1 token",
        "matrix()",
        f"S *= split(a * v, heads); {WRITE}",
        "declare `memory S = ... per head`",
    ),
    "no heads for a rate": ("1 token", "matrix()", "S[k] <- v by gd(lr = 2 * linear(x, 2))", "one number is"),
    "an objective of torch": ("1 token", "matrix()", "S[k] <- v minimize mse by gd(lr = 1)", "it is `l2`"),
    "a rule of a paper": ("1 token", "matrix()", "S[k] <- v by delta(lr = 1)", "here it is `gd`"),
    "a function of torch": ("1 token", "matrix()", f"k = normalize(k); {WRITE}", "it is `l2norm(x)`"),
    "the number of the token": ("1 token", "matrix()", "S[k] <- v by gd(lr = 1 / t)", "`position()` counts"),
    "a gate that jumps": (
        "1 token",
        "matrix() per head",
        f"S *= where(linear(x, heads) > 0, 0, 1); {WRITE}",
        "through comparisons alone",
    ),
    "momentum as a matrix": ("1 token", "matrix(); memory P = matrix()", "S += P", "a rule gathers steps"),
    "the vector of another": (
        "1 token",
        "matrix(); memory c = matrix(in = 1)",
        f"c += k; {WRITE}; S = c",
        "its vector is `c[1]`",
    ),
    "a vector by its name": (
        "1 token",
        "matrix(); memory c = matrix(in = 1)",
        f"c = a * c + k; {WRITE}; k = c[1]",
        "read it: `c[1]`",
    ),
    "an average of another": (
        "1 token",
        "matrix(); memory P = matrix()",
        "S = 0.9 * S + 0.1 * P",
        "`P` is another memory",
    ),
    "a clock without its unit": ("1", "matrix()", WRITE, "write `every 1 token`"),
    "a gradient without its unit": (
        "1 token",
        "matrix()",
        f"{WRITE} gradient every 4",
        "write `4 tokens`",
    ),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_one_finding_says_what_is_meant(slip: str) -> None:
    every, memory, body, said = SLIPS[slip]
    text = block("", f"a = sigmoid(linear(x, heads))\n{body}\ny = split(merge(S[q]), heads) * sum(a)")
    text = text.replace("\n\n", f"\nlevel c every {every} {{ memory S = {memory} }}\n", 1)
    found = [d for d in nldsl.check(text) if d.severity == "error"]
    assert len(found) == 1 and said in f"{found[0].message} {found[0].help}", found


def test_pieces_of_a_vector_say_which() -> None:
    text = "map halves(z) { A = weight(2, 2); B = weight(2, 2); a, b = parts(z, 2, 2)\n"
    text += "  return concat(A @ a, B @ b) }\n"
    level = "level c every 1 token { memory S = halves() per head }"
    text += block("", f"{WRITE}\ny = S[q]").replace("\n\n", f"\n{level}\n", 1)
    (found,) = explain(text, dim=8).equations
    lines = " ".join(f.text for f in found.where)
    assert "A: z = k_t[0:2], d = u1[0:2]" in lines and "B: z = k_t[2:4], d = u1[2:4]" in lines


def test_a_rate_may_be_linear_in_the_token() -> None:
    """`linear` is a schedule too: of a number, and never of a value."""
    text = block("memory S = matrix() per head", "S[k] <- v by gd(lr = linear(x, heads))\ny = S[q]")
    assert [d.code for d in nldsl.check(text)] == ["NL0430"]
    assert disagreements(compiled(text, dim=8), tokens=5) == []


LENGTHS = {
    "kron(softmax(q), softmax(v))": True,
    "softmaxed(q)": True,
    "share_of(q)": True,
    "raw(q)": False,
    "kron(softmax(q), v)": False,
    "share_of(q) - raw(q)": False,
}
HELPERS = """
block softmaxed(z) { return softmax(z) }
block share_of(z) { f = exp(z); return f / sum(f) }
block raw(z) { return exp(z) }
"""


@pytest.mark.parametrize("key", LENGTHS)
def test_keys_that_are_bounded_are_no_warning(key: str) -> None:
    """Products of addresses, shares of a sum, what a block returns; else the key is named as written."""
    body = f"k = {key}; S[k] <- v minimize l2 by gd(lr = sigmoid(linear(x, heads))); y = merge(S[k])"
    text = HELPERS + block("memory S = matrix() per head", body)
    text = text.replace("  k = l2norm(split(linear(x), heads), eps = 0)\n", "")
    told = nldsl.check(text)
    found = [d for d in told if d.code == "NL0430"]
    assert not [d for d in told if d.severity == "error"]
    assert bool(found) != LENGTHS[key]
    assert all("||k||^2" in d.message and "`l2norm(k)`" in (d.help or "") for d in found)
