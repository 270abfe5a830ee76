"""The checks that need the meaning of a program, on specifications of the library with one thing changed.

Unchanged they are without findings (`test_review`); every case has a change beside it that is harmless.
"""

from __future__ import annotations

import pytest

from nldsl.assets import specs_folder
from nldsl.diagnostics import render_all
from nldsl.review import check


def spec(path: str, old: str, new: str) -> str:
    text = (specs_folder() / path).read_text(encoding="utf-8")
    assert text.count(old) == 1, (path, old)
    return text.replace(old, new)


TITANS, DELTA, LAYERS = "blocks/self_modifying_titans.nl", "blocks/gated_deltanet.nl", "blocks/attention.nl"
CASES = {
    "memories that feed nothing": (TITANS, "y     = M[q]", ("y     = q", "y     = M[2 * q]"), "NL0601"),
    "memory never read": (
        DELTA,
        "norm(S[q])",
        ("norm(q + k + split(v * mean(beta + alpha), heads))", "norm(S[2 * q])"),
        "NL0411",
    ),
    "parameter that no loss reaches": (
        DELTA,
        "beta  = sigmoid(linear(x, heads))",
        ("beta  = detach(sigmoid(linear(x, heads)))", "beta  = sigmoid(linear(detach(x), heads))"),
        "NL0601",
    ),
    "rate that blows up": (
        DELTA,
        "beta  = sigmoid(linear(x, heads))",
        ("beta  = 3 * sigmoid(linear(x, heads))", "beta  = 0.9 * sigmoid(linear(x, heads))"),
        "NL0430",
    ),
    "retention above one": (
        DELTA,
        "exp(-softplus(linear(x, heads)))",
        ("exp(softplus(linear(x, heads)))", "exp(-2 * softplus(linear(x, heads)))"),
        "NL0430",
    ),
    "stale gradient": (
        DELTA,
        "by gd(lr = beta)",
        ("by gd(lr = beta)  gradient every 16 tokens", "by gd(lr = beta / 16)  gradient every 16 tokens"),
        "NL0431",
    ),
    "collapse": (
        DELTA,
        "v     = silu(conv(linear(x), window))",
        ("v     = S[k]", "v     = S[k] + split(linear(x), heads)"),
        "NL0432",
    ),
    "write that changes nothing": (
        DELTA,
        "beta  = sigmoid(linear(x, heads))",
        ("beta  = 0", "beta  = 0.5"),
        "NL0433",
    ),
    "clause without effect": (
        DELTA,
        "by gd(lr = beta)",
        ("by gd(lr = beta)  retain 1", "by gd(lr = beta)  retain 0.99"),
        "NL0434",
    ),
    "option that nothing reads": (
        DELTA,
        "by gd(lr = beta)",
        (
            'by dgd(lr = beta / 2, rate = "raw", eps = 1e-3)',
            'by dgd(lr = beta, rate = "normalised", eps = 1e-3)',
        ),
        "NL0331",
    ),
    "argument that nothing uses": (DELTA, "window = 4)", ("window = 4, depth = 2)", "window = 5)"), "NL0328"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_fault_is_found_and_its_neighbour_is_not(name: str) -> None:
    path, old, (faulty, harmless), code = CASES[name]
    found = check(spec(path, old, faulty))
    assert code in {d.code for d in found}, render_all(found)
    found = check(spec(path, old, harmless))
    assert not found, render_all(found)


@pytest.mark.parametrize(
    ("length", "levels"), [(65, set()), (64, {"recall"}), (16, {"recall", "projections"})]
)
def test_levels_of_hope_that_never_fire_in_a_short_run(length: int, levels: set[str]) -> None:
    text = "model m(tokens) { return head(self_modifying_titans(embed(tokens, 16, 32), 4), 16) }\n"
    found = [d for d in check(text, run_length=length) if d.code == "NL0507"]
    assert {d.message.split("`")[1] for d in found} == levels, render_all(found)


@pytest.mark.parametrize(("line", "codes"), [("x = x + A[q]", ["NL0606"]), ("x = x + q", ["NL0411"])])
def test_the_future_leaks_only_through_what_is_read(line: str, codes: list[str]) -> None:
    text = (
        "model m(tokens) {\n  memory A = softmax(causal = false)\n  x = embed(tokens, 16, 8)\n"
        f"  A[linear(x)] <- linear(x)\n  q = linear(x)\n  {line}\n  return head(x, 16)\n}}\n"
    )
    assert [d.code for d in check(text)] == codes
    assert check(text.replace("causal = false", "window = 4").replace("x + q", "x + A[q]")) == []
