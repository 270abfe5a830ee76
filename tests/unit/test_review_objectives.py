"""What the review says of objectives that pay for large answers or look at the memory itself."""

from __future__ import annotations

from nldsl.diagnostics import Diagnostic
from nldsl.review import check


def found(head: str, objective: str) -> list[Diagnostic]:
    """The findings for a memory with this objective, whose target is zero and which decays."""
    return check(
        f"objective pays({head}) {{ return {objective} }}\n"
        "block f(x) {\n"
        "  level a every 1 token { memory M = matrix() per head(2) init learned }\n"
        "  k = l2norm(split(linear(x), 2))\n"
        "  eta = sigmoid(linear(x, 2))\n"
        "  M[k] <- 0  minimize pays  by gd(lr = eta)  retain 0.9\n"
        "  return merge(M[k])\n}\n"
    )


def test_an_objective_that_pays_for_large_answers_grows_rather_than_collapses() -> None:
    (only,) = found("pred, target", "-0.5 * sum(pred ** 2)")
    assert only.code == "NL0430" and "0.9 + eta" in only.message
    assert "pays for a larger answer" in (only.help or "")


def test_nothing_is_said_of_an_objective_that_looks_at_the_memory() -> None:
    assert found("pred, target, W", "-0.5 * sum(pred ** 2) + 0.25 * sum(sum(W ** 2))") == []


def test_an_objective_that_pulls_to_zero_collapses() -> None:
    (only,) = found("pred, target", "0.5 * sum(pred ** 2)")
    assert only.code == "NL0432"
