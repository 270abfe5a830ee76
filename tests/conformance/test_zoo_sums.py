"""The zoo, class D: decayed sums of outer products, each against a recurrence written from its paper."""

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
    rotate,
    scan,
    sigmoid,
    silu,
    softplus,
)


def zeros(rows: int, columns: int):
    return lambda _: np.zeros((rows, columns))


def decayed(q: Array, k: Array, v: Array, gate: Array) -> Array:
    """S = gate * S + v k^T, y = S q; `gate [T, H]` or `[T, H, dk]` (Eq. 64)."""

    def step(s, q, k, v, a):
        s = s * a + np.outer(v, k)
        return s, s @ q

    return scan(step, zeros(v.shape[-1], k.shape[-1]), q, k, v, gate)


def elu(z: Array) -> Array:
    return np.where(z > 0, z + 1, np.exp(np.minimum(z, 0)))


def taylor(z: Array) -> Array:
    z = z / z.shape[-1] ** 0.25
    return np.concatenate([[1.0], z, np.outer(z, z).ravel() / np.sqrt(2)])


def dpfp(z: Array) -> Array:
    r = np.maximum(np.concatenate([z, -z]), 0)
    return r * np.roll(r, 1)


def kernel(p: Weights, x: Array, phi) -> Array:
    """y = sum_j <phi(q), phi(k_j)> v_j / sum_j <phi(q), phi(k_j)>, without any state."""
    both, v = cut(p.linear(x, "both.linear"), 2 * H), cut(p.linear(x, "v.linear"))
    q, k = both[:, :H], both[:, H:]
    y = np.zeros_like(v)
    for t in range(len(x)):
        for h in range(H):
            scores = np.array([phi(q[t, h]) @ phi(k[j, h]) for j in range(t + 1)])
            y[t, h] = scores @ v[: t + 1, h] / (scores.sum() + 1e-6)
    return p.linear(join(y), "out.linear")


def performer(p: Weights, x: Array) -> Array:
    p = p.below("kernel_attention")
    w = p("random_features.W.weight.weight")

    def phi(z):
        z = z / z.size**0.25
        return np.exp(w @ z * z.size**0.5 - z @ z / 2) / len(w) ** 0.5

    return kernel(p, x, phi)


def retnet(p: Weights, x: Array) -> Array:
    q, k = (rotate(cut(p.linear(x, f"{n}.linear"))) for n in "qk")
    v = cut(p.linear(x, "v.linear"))
    gamma = np.array([[1 - 2.0 ** (-5 - h) for h in range(H)]] * len(x))
    y = decayed(q, k / k.shape[-1] ** 0.5, v, gamma)
    return p.linear(silu(p.linear(x, "out.linear")) * join(p.rms(y, "out.norm")), "out.linear_2")


def mamba2(p: Weights, x: Array) -> Array:
    z, u = p.linear(x, "z.linear"), silu(p.conv(p.linear(x, "u.linear"), "u.conv"))
    n = (u.shape[1] - z.shape[1]) // 2
    v, b, c = u[:, : -2 * n], u[:, -2 * n : -n], u[:, -n:]
    dt = softplus(p.linear(x, "dt.linear"))
    state, y = np.zeros((H, v.shape[1] // H, n)), []
    for t in range(len(x)):
        for h in range(H):
            decay = np.exp(-dt[t, h] * np.exp(p("A.weight.weight")[h]))
            state[h] = decay * state[h] + dt[t, h] * np.outer(cut(v)[t, h], b[t])
        y.append([state[h] @ c[t] + p("D.weight.weight")[h] * cut(v)[t, h] for h in range(H)])
    return p.linear(p.rms(join(np.array(y)) * silu(z), "out.norm"), "out.linear")


def selective(p: Weights, x: Array, state: int) -> tuple[Array, ...]:
    """Mamba's inputs: the gate, the convolved input, and the low-rank, write and read parts made from it."""
    u = silu(p.conv(p.linear(x, "u.linear"), "u.conv"))
    r, n = p.linear(u, "r.linear"), state
    return p.linear(x, "z.linear"), u, r[:, : -2 * n], r[:, -2 * n : -n], r[:, -n:]


def mamba1(p: Weights, x: Array) -> Array:
    z, u, r, b, c = selective(p, x, p("A.weight.weight").shape[1])
    dt, a = softplus(p.linear(r, "dt.linear")), -np.exp(p("A.weight.weight"))
    h, y = np.zeros_like(a), []
    for t in range(len(x)):
        for i in range(len(a)):
            for n in range(a.shape[1]):
                h[i, n] = np.exp(dt[t, i] * a[i, n]) * h[i, n] + dt[t, i] * b[t, n] * u[t, i]
        y.append(h @ c[t] + p("D.weight.weight") * u[t])
    return p.linear(np.array(y) * silu(z), "out.linear")


def longhorn(p: Weights, x: Array) -> Array:
    z, u, r, k, q = selective(p, x, 5)
    beta = sigmoid(p.linear(r, "beta.linear"))
    s, y = np.zeros((u.shape[1], k.shape[1])), []
    for t in range(len(x)):
        delta = beta[t] / (1 + beta[t] * (k[t] @ k[t]))
        s = (1 - np.outer(delta, k[t] ** 2)) * s + np.outer(delta * u[t], k[t])
        y.append(s @ q[t] + p("D.weight.weight") * u[t])
    return p.linear(np.array(y) * silu(z), "out.linear")


def gla(p: Weights, x: Array) -> Array:
    q, k, v = (cut(p.linear(x, f"{n}.linear")) for n in "qkv")
    alpha = sigmoid(p.linear(p.linear(x, "alpha.linear"), "alpha.linear_2")) ** (1 / 16)
    y = decayed(q / q.shape[-1] ** 0.5, k, v, cut(alpha))
    return p.linear(join(p.rms(y, "out.norm")) * silu(p.linear(x, "out.linear")), "out.linear_2")


def hgrn2(p: Weights, x: Array) -> Array:
    q, v = silu(cut(p.linear(x, "q.linear"))), cut(p.linear(x, "v.linear"))
    f = 0.25 + 0.75 * sigmoid(cut(p.linear(x, "f.linear")))
    return p.linear(p.rms(join(decayed(q, 1 - f, v, f)), "out.norm"), "out.linear")


ZOO: dict[str, tuple[Oracle, dict[str, int | float]]] = {
    "kernel_attention": (lambda p, x: kernel(p, x, elu), {"heads": H}),
    "taylor_attention": (lambda p, x: kernel(p.below("kernel_attention"), x, taylor), {"heads": H}),
    "dpfp_attention": (lambda p, x: kernel(p.below("kernel_attention"), x, dpfp), {"heads": H}),
    "performer": (performer, {"heads": H}),
    "retnet": (retnet, {"heads": H}),
    "mamba2": (mamba2, {"heads": H, "state": 4}),
    "mamba1": (mamba1, {"state": 5, "rank": 3}),
    "longhorn": (longhorn, {"state": 5, "rank": 3}),
    "gla": (gla, {"heads": H}),
    "hgrn2": (hgrn2, {"heads": H, "lower": 0.25}),
}


@pytest.mark.parametrize("name", ZOO)
def test_equals_its_paper(name: str) -> None:
    oracle, arguments = ZOO[name]
    agree(name, oracle, **arguments)
