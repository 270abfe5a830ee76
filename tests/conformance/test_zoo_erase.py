"""The zoo, class R: memories that erase along a key, each against a recurrence written from its paper."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conformance.zoo import (
    Array,
    H,
    Oracle,
    Weights,
    agree,
    cut,
    join,
    scan,
    sigmoid,
    silu,
    softplus,
    unit,
)


def zeros(v: Array, k: Array):
    return lambda _: np.zeros((v.shape[-1], k.shape[-1]))


def projected(p: Weights, x: Array, norm=unit) -> tuple[Array, Array, Array]:
    """Queries, keys and values from linear, convolution and SiLU; the first two normalised."""
    return norm(cut(p.short(x, "q"))), norm(cut(p.short(x, "k"))), cut(p.short(x, "v"))


def delta(q: Array, k: Array, v: Array, alpha: Array, beta: Array) -> Array:
    """S = S Diag(alpha) (I - beta k k^T) + beta v k^T, y = S q (Eq. 65)."""

    def step(s, q, k, v, a, b):
        s = (s * a) @ (np.eye(len(k)) - b * np.outer(k, k)) + b * np.outer(v, k)
        return s, s @ q

    return scan(step, zeros(v, k), q, k, v, alpha, beta)


def fading(p: Weights, x: Array) -> Array:
    """exp(-exp(A) softplus(x w + b)) per head, the gate of Mamba-2."""
    return np.exp(-np.exp(p("A.weight.weight")) * softplus(p.linear(x, "alpha.linear")))


def gated(p: Weights, x: Array, y: Array, gate=silu) -> Array:
    """Norm per head, output gate, last projection."""
    return p.linear(join(p.rms(y, "out.norm")) * gate(p.linear(x, "out.linear")), "out.linear_2")


def gated_deltanet_negative(p: Weights, x: Array) -> Array:
    beta = 2 * sigmoid(p.linear(x, "beta.linear"))
    return gated(p, x, delta(*projected(p, x), fading(p, x), beta))


def deltaproduct(p: Weights, x: Array) -> Array:
    q = unit(cut(p.short(x, "q")))
    k = [unit(cut(p.short(x, f"k[{j}]"))) for j in range(3)]
    v = [cut(p.short(x, f"v[{j}]")) for j in range(3)]
    beta = [2 * sigmoid(p.linear(x, f"beta[{j}].linear")) for j in range(3)]
    y = np.zeros_like(v[0])
    for h in range(H):
        s = np.zeros((v[0].shape[-1], q.shape[-1]))
        for t in range(len(x)):
            for j in range(3):
                a = np.eye(q.shape[-1]) - beta[j][t, h] * np.outer(k[j][t, h], k[j][t, h])
                s = s @ a + beta[j][t, h] * np.outer(v[j][t, h], k[j][t, h])
            y[t, h] = s @ q[t, h]
    return p.linear(join(p.rms(y, "out.norm")), "out.linear")


def kda(p: Weights, x: Array) -> Array:
    inner = cut(softplus(p.linear(p.linear(x, "alpha.linear"), "alpha.linear_2")))
    alpha = np.exp(-np.exp(p("A.weight.weight"))[:, None] * inner)
    y = delta(*projected(p, x), alpha, sigmoid(p.linear(x, "beta.linear")))
    gate = sigmoid(p.linear(p.linear(x, "out.linear"), "out.linear_2"))
    return p.linear(join(p.rms(y, "out.norm")) * gate, "out.linear_3")


def rwkv7(p: Weights, x: Array) -> Array:
    last = np.concatenate([np.zeros((1, x.shape[1])), x[:-1]])

    def shifted(name):
        return x + (last - x) * p(f"{name}.weight.weight")

    def low_rank(name, f):
        return p.linear(f(p.linear(shifted(name), f"{name}.linear")), f"{name}.linear_2")

    r, v = (cut(p.linear(shifted(n), f"{n}.linear")) for n in "rv")
    raw = p.linear(shifted("raw"), "raw.linear")
    w = cut(np.exp(-np.exp(-0.5) * sigmoid(low_rank("w", np.tanh))))
    a = sigmoid(low_rank("a", lambda z: z))
    kappa = unit(cut(raw * p("kappa.weight.weight")))
    k = cut(raw * (1 + (a - 1) * p("k.weight.weight")))

    def step(s, r, w, k, v, a, kappa):
        s = s @ (np.diag(w) - np.outer(kappa, a * kappa)) + np.outer(v, k)
        return s, s @ r

    y = scan(step, zeros(v, k), r, w, k, v, cut(a), kappa)
    y = p.layernorm(y, "out.layernorm", 64e-5)
    y = y + (r * k * cut(p("bonus.weight.weight")[None])).sum(-1, keepdims=True) * v
    return p.linear(low_rank("g", sigmoid) * join(y), "out.linear")


def comba(p: Weights, x: Array) -> Array:
    q, k, v = projected(p, x)
    q = q - p("D.weight.weight")[:, None] * k
    b = np.broadcast_to(sigmoid(p("B.weight.weight")), (len(x), H))

    def step(s, q, k, v, alpha, beta, b):
        s = alpha * s - b * beta * np.outer(alpha * s @ k, k) + beta * np.outer(v, k)
        return s, s @ q

    beta = sigmoid(p.linear(x, "beta.linear"))
    return gated(p, x, scan(step, zeros(v, k), q, k, v, fading(p, x), beta, b), sigmoid)


def longhorn_exact(p: Weights, x: Array) -> Array:
    """The minimiser of ||S - S_t||^2 + beta ||S k - v||^2, from its normal equations."""
    q, k, v = projected(p, x, lambda z: z)

    def step(s, q, k, v, beta):
        s = (s + beta * np.outer(v, k)) @ np.linalg.inv(np.eye(len(k)) + beta * np.outer(k, k))
        return s, s @ q

    return gated(p, x, scan(step, zeros(v, k), q, k, v, sigmoid(p.linear(x, "beta.linear"))))


def ojanet(p: Weights, x: Array) -> Array:
    q, k, v = projected(p, x)
    eta, alpha = sigmoid(p.linear(x, "eta.linear")), np.exp(-softplus(p.linear(x, "alpha.linear")))

    def step(s, q, k, v, eta, alpha):
        s = alpha * s + eta * np.outer(v, k - s.T @ v)
        return s, s @ q

    return gated(p, x, scan(step, zeros(v, k), q, k, unit(v), eta, alpha))


def conjugate(a: Array, b: Array, steps: int) -> Array:
    """Conjugate gradients for `a x = b` from zero."""
    x, r = np.zeros_like(b), b
    p = r
    for _ in range(steps):
        rate = r @ r / (p @ a @ p)
        x, left = x + rate * p, r - rate * a @ p
        p, r = left + (left @ left) / (r @ r) * p, left
    return x


def mesanet(p: Weights, x: Array, steps: int = 0) -> Array:
    """y = G (H + Lambda)^-1 q, the ridge regression itself, or `steps` of conjugate gradients toward it."""
    q, k, v = unit(cut(p.short(x, "q"))), unit(cut(p.short(x, "k"))), cut(p.linear(x, "v.linear"))
    ridge = cut(0.25 + softplus(p("ridge.weight.weight"))[None])[0]
    beta, gamma = sigmoid(p.linear(x, "beta.linear")), sigmoid(p.linear(x, "gamma.linear"))
    y = np.zeros_like(v)
    for h in range(H):
        for t in range(len(x)):
            fade = np.array([beta[j, h] * np.prod(gamma[j + 1 : t + 1, h]) for j in range(t + 1)])
            past, seen = k[: t + 1, h], v[: t + 1, h]
            h_kk, c = (past.T * fade) @ past, ridge[h] ** 0.5
            if steps:
                found = conjugate(h_kk / np.outer(c, c) + np.eye(len(c)), q[t, h] / c, steps) / c
            else:
                found = np.linalg.solve(h_kk + np.diag(ridge[h]), q[t, h])
            y[t, h] = (seen.T * fade) @ past @ found
    return p.linear(join(p.rms(y, "out.norm")), "out.linear")


ZOO: dict[str, tuple[Oracle, dict[str, object]]] = {
    "gated_deltanet_negative": (gated_deltanet_negative, {}),
    "deltaproduct": (deltaproduct, {"steps": (1, 2, 3)}),
    "kda": (kda, {"rank": 3}),
    "rwkv7": (rwkv7, {"rank": 3}),
    "comba": (comba, {}),
    "longhorn_exact": (longhorn_exact, {}),
    "ojanet": (ojanet, {}),
    "mesanet": (mesanet, {"iterations": 0}),
}


@pytest.mark.parametrize("name", ZOO)
def test_equals_its_paper(name: str) -> None:
    oracle, arguments = ZOO[name]
    agree(name, oracle, heads=H, **arguments)


def test_conjugate_gradients_of_mesanet() -> None:
    agree("mesanet", lambda p, x: mesanet(p, x, steps=3), heads=H, iterations=3)
