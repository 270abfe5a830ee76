"""`explain` of `S += outer(v, k)`: no name that only the compiler knows."""

from __future__ import annotations

import pytest

from nldsl.graph.open import open_program
from nldsl.view.equations import dynamics

BLOCK = """block b(x) {
  level l every 1 token { memory h = matrix() }
  u = linear(x)
  h += %s
  return h[x + u]
}
"""


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("outer(u, x)", ["h_t = h_{t-1} + u_t x_t^T"]),
        ("outer(u, l2norm(x))", ["h_t = h_{t-1} + u_t k_t^T", "k_t = l2norm(x)"]),
        ("0.1 * outer(u, x)", ["h_t = h_{t-1} + vhat_t x_t^T", "vhat_t = 0.1 * u"]),
        (
            "outer(linear(x), l2norm(x)) * 0.5",
            ["h_t = h_{t-1} + vhat_t k_t^T", "k_t = l2norm(x)", "vhat_t = linear(x) * 0.5"],
        ),
    ],
)
def test_a_sum_of_outer_products_is_told_as_written(added: str, said: list[str]) -> None:
    (found,) = dynamics(open_program(BLOCK % added, x=4))
    assert [line.text for line in (*found.formulas, *found.where)] == said
