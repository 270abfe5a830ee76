"""Rules in rules, writes and clocks in rules, rates per channel: the interpreter against recurrences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nldsl.diagnostics import DiagnosticBag
from nldsl.reference import Interpreter, parameters
from nldsl.spec import check, elaborate, load

D, T = 4, 7
BLOCK = """{rules}
block b(x) {{
  level context every 1 token {{ memory M = {map} }}
  M[l2norm(x)] <- shift(x)  minimize l2  by {rule}
  return M[x]
}}
"""


def states(rule: str, rules: str = "", map: str = "matrix()") -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Inputs, the weight of `M` behind every token, and the slow parameters."""
    source = BLOCK.format(rules=rules, rule=rule, map=map)
    assert [d for d in check(source) if d.severity == "error"] == []
    bag = DiagnosticBag()
    program = elaborate(load(source, bag), block="b", arguments={"dim": D}, bag=bag)
    assert program is not None, bag.items
    generator = torch.Generator().manual_seed(1)
    known = {
        path: 0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for path, p in parameters(program.root).items()
    }
    x = torch.randn(1, T, D, generator=generator, dtype=torch.float64)
    meaning, state, found = Interpreter(program, known), None, []
    for t in range(T):
        _, state = meaning.run(x[:, t : t + 1], state)
        found.append(state.memory("M")["running.weight"][0])
    return x[0], torch.stack(found), known


def lessons(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Key and target of every token."""
    keys = x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)
    return list(zip(keys, torch.cat([torch.zeros(1, D, dtype=x.dtype), x[:-1]]), strict=True))


def slope(W: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The gradient of 1/2 ||W k - v||^2."""
    return torch.outer(W @ k - v, k)


def test_delta_momentum_is_equation_49() -> None:
    x, found, _ = states("delta_momentum(lr = 0.1, beta = 0.8)")
    W = m = torch.zeros(D, D, dtype=torch.float64)
    eye = torch.eye(D, dtype=torch.float64)
    for t, (k, v) in enumerate(lessons(x)):
        g = slope(W, k, v)
        m = m @ (0.8 * eye - 0.1 * g.T @ g) - 0.1 * g
        W = W + m
        assert torch.allclose(found[t], W, atol=1e-12)


def test_deep_momentum_is_equation_50() -> None:
    x, found, known = states("deep_momentum(lr = 0.1, beta = 0.8)")
    weights = {name: known[f"M.m.{name}"] for name in ("W2", "W1")}

    def answer(w: dict[str, Tensor], rows: Tensor) -> Tensor:
        return rows + torch.nn.functional.silu(rows @ w["W2"].T) @ w["W1"].T

    W = torch.zeros(D, D, dtype=torch.float64)
    for t, (k, v) in enumerate(lessons(x)):
        g = slope(W, k, v)
        inner = torch.func.grad(lambda w, g=g: -answer(w, g).sum())(weights)
        weights = {n: 0.8 * w - 0.1 * inner[n] for n, w in weights.items()}
        W = W + answer(weights, g)
        assert torch.allclose(found[t], W, atol=1e-10)


def test_delta_descent_as_a_write_is_the_library_rule() -> None:
    text = 'rule mine(lr) { W[x] <- -dy  minimize l2  by proximal(lr, rate = "proximal") }'
    assert torch.allclose(states("mine(lr = 0.5)", text)[1], states("dgd(lr = 0.5)")[1], atol=1e-12)


def test_huber_inside_a_rule_is_its_gradient() -> None:
    write = "m[g] <- 1 minimize huber(delta = 0.5) by gd(lr = lr)"
    text = f"rule mine(lr) {{ memory m = like(W); {write}; W = W - m }}"
    x, found, _ = states("mine(lr = 0.3)", text)

    def loss(m: Tensor, g: Tensor) -> Tensor:
        e = g @ m.T - 1
        return torch.where(e.abs() < 0.5, 0.5 * e**2, 0.5 * (e.abs() - 0.25)).sum()

    W = m = torch.zeros(D, D, dtype=torch.float64)
    for t, (k, v) in enumerate(lessons(x)):
        g = slope(W, k, v)
        m = m - 0.3 * torch.func.grad(loss)(m, g)
        W = W - m
        assert torch.allclose(found[t], W, atol=1e-12)


def test_lookahead_goes_back_every_few_steps() -> None:
    x, found, _ = states("lookahead(momentum(lr = 0.2, beta = 0.5), slow = 3, mix = 0.25)")
    W = slow = m = torch.zeros(D, D, dtype=torch.float64)
    for t, (k, v) in enumerate(lessons(x)):
        m = 0.5 * m - 0.2 * slope(W, k, v)
        W = W + m
        if (t + 1) % 3 == 0:
            slow = W = slow + 0.25 * (W - slow)
        assert torch.allclose(found[t], W, atol=1e-12)


def test_a_rule_given_as_a_rule_without_arguments() -> None:
    text = "rule half(lr = 0.2) { W = W - lr * g }\nrule twice(inner) { W = inner(2 * g) }"
    assert torch.allclose(states("twice(half)", text)[1], states("gd(lr = 0.4)")[1], atol=1e-12)


def test_every_runs_on_its_own_clock() -> None:
    text = "rule mine(lr) { memory m = like(W)\n m += g\n every 2 steps { W = W - lr * m; m = 0 * m } }"
    x, found, _ = states("mine(lr = 0.3)", text)
    W = m = torch.zeros(D, D, dtype=torch.float64)
    for t, (k, v) in enumerate(lessons(x)):
        m = m + slope(W, k, v)
        if t % 2:
            W, m = W - 0.3 * m, torch.zeros_like(m)
        assert torch.allclose(found[t], W, atol=1e-12)


@pytest.mark.parametrize("marked", [False, True], ids=["key", "value"])
def test_rates_per_channel(marked: bool) -> None:
    rate = "values(sigmoid(x))" if marked else "sigmoid(x)"
    x, found, _ = states(f"gd(lr = {rate})")
    W = torch.zeros(D, D, dtype=torch.float64)
    for t, (k, v) in enumerate(lessons(x)):
        r = torch.sigmoid(x[t])
        W = W - slope(W, k, v) * (r[:, None] if marked else r)
        assert torch.allclose(found[t], W, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("rule mine(lr) { memory m = like(W) per head; m = g; W = W - lr * m }", "NL0423"),
        ("rule mine(lr) { memory m = like(W); m[g] <- 1 by gd(lr = lr) over 4 tokens; W = W - m }", "NL0421"),
        ("rule mine(lr) { memory m = like(W); m[g] <- 1; W = W - m }", "NL0308"),
        ("rule mine(lr) { memory m = like(W); k[g] <- 1 by gd(lr = lr); m = g; W = W - m }", "NL0321"),
        ("rule mine(lr) { W = gd(g) }", "NL0314"),
        ("rule mine(lr) { W = mine(g) }", "NL0314"),
        ("rule mine(inner) { every 2 steps { W = inner(g) } }", "NL0313"),
        ("rule mine(lr) { memory m = like(W); m[x] <- g by gd(lr = lr); W = W - m }", "NL0401"),
    ],
)
def test_mistakes_inside_of_rules(text: str, code: str) -> None:
    assert code in {d.code for d in check(text + "\n")}
