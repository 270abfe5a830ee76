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


def test_a_start_that_is_only_lent_to_another_memory_is_trained_through_it() -> None:
    text = (
        "block f(x) {\n"
        "  level slow every 16 tokens { memory B = matrix() init learned }\n"
        "  level fast every 1 token { memory A = matrix() init B }\n"
        "  k = l2norm(linear(x))\n"
        "  A[k] <- x by gd(lr = 0.5)\n"
        "  B[k] <- x by gd(lr = sigmoid(linear(x, 1)) / 64)\n"
        "  return A[k]\n}\n"
    )
    assert check(text) == []
    unsized = text.replace("  B[k] <- x by gd(lr = sigmoid(linear(x, 1)) / 64)\n", "")
    (only,) = check(unsized)
    assert only.code == "NL0419" and "its size is not known" in only.message


def test_a_formula_in_place_of_an_objective_is_told_to_get_a_name() -> None:
    text = (
        "block f(x) {\n  level a every 1 token { memory M = matrix() }\n"
        "  M[x] <- x  minimize (x - x) ** 2  by gd(lr = 0.1)\n  return M[x]\n}\n"
    )
    (only,) = [d for d in check(text) if d.severity == "error"]
    assert only.code == "NL0404" and "`objective mine(pred, target)" in (only.help or "")
