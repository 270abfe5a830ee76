"""Sums of outer products that look at what the memory answers, against loops written by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nldsl.certify import verify
from nldsl.graph import open_program
from nldsl.lowerings.forms import plan_program
from nldsl.view import explain
from tests.conformance.agreement import compiled, disagreements, inputs_of, run_compiled

HEAD = """
block b(x, heads = 2) {
  level c every 1 token { memory S = matrix() per head }
  k = l2norm(split(linear(x), heads))
  g = l2norm(split(linear(x), heads))
  v = split(linear(x), heads)
  a = sigmoid(linear(x, heads))
"""
Step = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""`(S, k, g, v, a)` of one head to the next state."""


def unit(z: Tensor) -> Tensor:
    return z / (z.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def delta(S: Tensor, k: Tensor, g: Tensor, v: Tensor, a: Tensor) -> Tensor:
    return S + a * torch.outer(v - S @ k, k)


def half(S: Tensor, k: Tensor, g: Tensor, v: Tensor, a: Tensor) -> Tensor:
    return S + a / 2 * torch.outer(v - S @ k, k)


SUMS: dict[str, tuple[Step, str, str]] = {
    "old = S[k]; new = a * v + (1 - a) * old; S += outer(new - old, k)": (delta, "delta", "DeltaNet"),
    "old = S[k]; new = a * v + (1 - a) * old; S += outer(new, k) - outer(old, k)": (
        delta,
        "delta",
        "DeltaNet",
    ),
    "S += outer(a * v, k) - outer(a * S[k], k)": (delta, "delta", "DeltaNet"),
    "S += a * (outer(v, k) - outer(S[k], k)) / 2": (half, "delta", "DeltaNet"),
    "S += outer(a * v / 2 - a * S[k] / 2, k)": (half, "delta", "DeltaNet"),
    "S += outer(v - S[k], k) / 2 * a": (half, "delta", "DeltaNet"),
    "e = S[k] - v; S += -1 * outer(a * e, k) / 2": (half, "delta", "DeltaNet"),
    "S += outer(v - a * S[k], k)": (
        lambda S, k, g, v, a: S + torch.outer(v - a * (S @ k), k),
        "delta_block",
        "Comba",
    ),
    "S += a * outer(v - S[k], g)": (
        lambda S, k, g, v, a: S + a * torch.outer(v - S @ k, g),
        "delta_block",
        "",
    ),
    "S *= a; S += outer(v - S[k], g) / (1 + a)": (
        lambda S, k, g, v, a: a * S + torch.outer(v - a * (S @ k), g) / (1 + a),
        "delta_block",
        "",
    ),
    "S += a * outer(v - S[k], k) / 2 + 0.3 * outer(S[g] - v, k) - 0.1 * outer(S[k] + 2 * S[g], g)": (
        lambda S, k, g, v, a: (
            half(S, k, g, v, a) + 0.3 * torch.outer(S @ g - v, k) - 0.1 * torch.outer(S @ (k + 2 * g), g)
        ),
        "delta_block",
        "",
    ),
    "S[k] <- a * (v - S[k]) minimize dot by gd(lr = 1)": (delta, "delta", "DeltaNet"),
    "S[k] <- v - S[k] minimize dot by gd(lr = a)": (delta, "delta", "DeltaNet"),
    "e = S[k] - v; S[k] <- -1 * e minimize dot weighted a by gd(lr = 0.5)": (half, "delta", "DeltaNet"),
    "S[k] <- v - S[k] minimize dot by gd(lr = 1) retain a": (
        lambda S, k, g, v, a: a * S + torch.outer(v - S @ k, k),
        "delta",
        "the gated delta rule of Hope",
    ),
    # The answer is of now; the gradient of an erase would be of three tokens ago.
    "S[k] <- v - S[k] minimize dot by gd(lr = a) gradient every 3 tokens": (delta, "sequential", ""),
    "S[g] <- v / 2 - a * S[k] minimize dot by gd(lr = 0.5)": (
        lambda S, k, g, v, a: S + 0.5 * torch.outer(v / 2 - a * (S @ k), g),
        "delta_block",
        "",
    ),
    "S += outer(v + S[k], k) - outer(S[k], k)": (
        lambda S, k, g, v, a: S + torch.outer(v, k),
        "linear",
        "linear attention",
    ),
}


@pytest.mark.parametrize("body", SUMS)
def test_against_a_loop(body: str) -> None:
    step, lowering, name = SUMS[body]
    reads = "S[l2norm(split(linear(x), heads))]"
    text = f"{HEAD}{body}\n  return linear(merge({reads})) + 0 * merge(a * g * k) }}\n"
    (found_unit,) = (u for b in plan_program(open_program(text, dim=8)).blocks for u in b.units if u.memories)
    assert found_unit.lowering == lowering
    (found,) = explain(text, dim=8).equations
    assert not any("class X" in reason for reason in found.reasons)
    assert found.known_as.startswith(name) and (found.known_as == "") == (name == "")
    layer = compiled(text, dim=8)
    (x,) = inputs_of(layer, 2, 9)
    p = {n.removeprefix("b.").removesuffix(".linear.weight"): w for n, w in layer.parameter_paths().items()}
    rows = []
    for row in x:
        k, g, v, q = ((row @ p[n].T).unflatten(-1, (2, 4)) for n in ("k", "g", "v", "out"))
        k, g, q = (unit(z) for z in (k, g, q))
        a, S, out = torch.sigmoid(row @ p["a"].T), [torch.zeros(4, 4, dtype=x.dtype)] * 2, []
        for t in range(9):
            S = [step(S[h], k[t, h], g[t, h], v[t, h], a[t, h]) for h in range(2)]
            out.append(torch.cat([S[h] @ q[t, h] for h in range(2)]))
        rows.append(torch.stack(out))
    outer = next(w for n, w in p.items() if n.startswith("out.linear_2"))
    theirs = torch.stack(rows) @ outer.T
    mine = run_compiled(layer, [x], pieces=(4, 5))[0][0]
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)
    assert theirs.abs().max() > 1e-3
    mask = torch.rand(2, 9, generator=torch.Generator().manual_seed(0)) > 0.3
    assert disagreements(layer, tokens=9, mask=mask, pieces=(3, 6)) == []


RLS = """
map covariance(z, start = 2) {
  W = weight(dim(z), dim(z))
  return start * z + W @ z
}
block b(x) {
  level c every 1 token {
    memory P = covariance() init zero
    memory W = matrix()
  }
  k  = l2norm(linear(x))
  pk = P[k]
  g  = pk / (1 + dot(k, pk))
  W += outer(linear(x) - W[k], g)
  P += -1 * outer(g, pk)
  return W[k]
}
"""


def test_recursive_least_squares_is_the_regression() -> None:
    """Sherman-Morrison: at every token the ridge regression on all tokens so far, with ridge 1 / 2."""
    layer = compiled(RLS, dim=5)
    (x,) = inputs_of(layer, 2, 12)
    p = {n.removeprefix("b.").removesuffix(".linear.weight"): w for n, w in layer.parameter_paths().items()}
    mine = layer(x)[0]
    K = unit(x @ p["k"].T)
    V = x @ p["W"].T
    for t in range(12):
        k, v = K[:, : t + 1], V[:, : t + 1]
        H = k.mT @ k + 0.5 * torch.eye(5, dtype=x.dtype)
        answer = (v.mT @ k @ torch.linalg.inv(H) @ K[:, t, :, None])[..., 0]
        torch.testing.assert_close(mine[:, t], answer, rtol=1e-9, atol=1e-9)
    units = {n: u.lowering for b in plan_program(layer.program).blocks for u in b.units for n in u.memories}
    assert units == {"P": "sequential", "W": "delta_block"}


def test_verify_takes_them() -> None:
    text = f"{HEAD} S += a * outer(v - S[k], g)\n return linear(merge(S[k])) }}\n"
    assert verify(text).passed


@pytest.mark.parametrize(
    "body",
    [
        "S += outer(v - tanh(S[k]), k)",
        "r = S[k]; S *= a; S += outer(2 * v - r, k)",
        "S += outer(g * (v - S[k]), k)",
        "S += outer(v - mean(S[g]) * S[k], k)",
        "S[k] <- v - tanh(S[k]) minimize dot by gd(lr = a)",
        "S[k] <- v - S[k] minimize dot by gd(lr = mean(S[g]))",
        "S[k + S[g]] <- v - S[k] minimize dot by gd(lr = a)",
    ],
)
def test_what_is_no_sum_of_answers_stays_as_it_is(body: str) -> None:
    text = f"{HEAD}{body}\n  return linear(merge(S[k])) + 0 * merge(a * g * v) }}\n"
    (found_unit,) = (u for b in plan_program(open_program(text, dim=8)).blocks for u in b.units if u.memories)
    assert found_unit.lowering == "sequential"
    assert disagreements(compiled(text, dim=8)) == []
    names = [n for n, _ in compiled(text, dim=8).named_parameters()]
    assert not any("linear_3" in n for n in names)


def test_a_rule_and_an_objective_of_the_author_are_meant() -> None:
    """Of the names of the library's, but other ones."""
    own = "objective dot(y, v) { return -1 * sum(2 * y * v) }\nrule gd(lr) { W = W - 3 * lr * g }\n"
    for defined in own.splitlines():
        body = "S[k] <- v - S[k] minimize dot by gd(lr = a)"
        text = f"{defined}\n{HEAD}{body}\n  return linear(merge(S[k] + g)) }}\n"
        (found_unit,) = (
            u for b in plan_program(open_program(text, dim=8)).blocks for u in b.units if u.memories
        )
        assert found_unit.lowering == "sequential"
        assert disagreements(compiled(text, dim=8)) == []


def test_an_erase_is_told_by_what_is_taught_in_its_place() -> None:
    for body in (
        "S[k] <- a * (split(linear(x), heads) - S[k]) minimize dot by gd(lr = 1)",
        "S += outer(a * (split(linear(x), heads) - S[k]), k)",
    ):
        (found,) = explain(f"{HEAD}{body}\n  return linear(merge(S[g] + v)) }}\n", dim=8).equations
        told = str(found)
        assert "vhat_t = split(linear(x)" in told and "S[k]" not in told


def test_memories_that_teach_each_other_are_no_sums() -> None:
    text = f"""{HEAD}
      level d every 1 token {{ memory T = matrix() per head }}
      t = T[k]
      T += outer(v - 0.5 * S[k], k)
      S += a * outer(t, g)
      return linear(merge(S[k])) }}
    """
    letters = {e.name: e.letter for e in explain(text, dim=8).equations}
    assert letters == {"S": "X", "T": "X"}
    assert disagreements(compiled(text, dim=8)) == []
