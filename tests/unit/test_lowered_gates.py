"""What becomes one call in emitted code: activations of convolutions, gates, rates of rows; what does not."""

from __future__ import annotations

import pytest

from nldsl.driver.compile import compile_source

SPEC = "block example(x) {{ {} }}"


def emitted(body: str) -> str:
    text = compile_source(SPEC.format(body), block="example", x=4)
    return text[text.index("def forward") : text.index("def build")]


@pytest.mark.parametrize(
    ("body", "there", "gone"),
    [
        ("return silu(conv(x, 3))", 'activation="silu"', "functional.silu"),
        ("return x * silu(linear(x))", "times_silu(x, linear(x, self", "functional.silu"),
        ("g = silu(linear(x))\n  return g * x", "times_silu(x, g_raw)", "functional.silu"),
        ("return sigmoid(linear(x)) * x", "times_sigmoid(x, linear(x, self", "torch.sigmoid"),
        ("a, b = parts(linear(x), 1, 3)\n return a * a + dot(b, b)", ".split((1, 3), -1)", "parts("),
        ("return merge(sigmoid(linear(x, 2)) * split(x, 2))", "scaled(", " * "),
    ],
)
def test_one_call(body: str, there: str, gone: str) -> None:
    text = emitted(body)
    assert there in text
    assert gone not in text


@pytest.mark.parametrize(
    ("body", "there", "gone"),
    [
        ("u = conv(x, 3)\n  return silu(u) + u", "functional.silu(u)", "activation"),
        ("g = silu(linear(x))\n  return g * x + g", "g = functional.silu(", "times_silu"),
        ("g = silu(linear(x))\n  return g + x", "functional.silu(", "times_silu"),
        ("return 2 * silu(x)", "2 * functional.silu(x)", "times_silu"),
        ("a, b = parts(linear(x), 1, 3)\n return a", "parts(", ".split("),
        ("return tanh(conv(x, 3))", "torch.tanh", "activation"),
    ],
)
def test_what_stays_as_it_is(body: str, there: str, gone: str) -> None:
    text = emitted(body)
    assert there in text
    assert gone not in text
