"""The zoo: test-time training and Titans, each against a recurrence written from its paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.conformance.zoo import (
    Array,
    H,
    Oracle,
    Weights,
    agree,
    cut,
    join,
    rotate,
    sigmoid,
    unit,
)
from tests.conformance.zoo_deep import (
    Fast,
    around,
    attend,
    descent,
    gate,
    gelu_mlp,
    learn,
    mlp,
    out,
    product,
    projected,
    sizes,
    square,
    surprise,
    tensor,
)

# --- TTT -------------------------------------------------------------------------------------


def ttt(p: Weights, x: Array, names: str, inner, rate: float) -> Array:
    u = p.linear(x, "u.linear")
    q, k, v = cut(p.conv(u, "q.conv")), cut(p.conv(u, "k.conv")), cut(p.linear(x, "v.linear"))
    eta = rate * gate(p, x, "eta") / q.shape[-1]
    y = learn(p, names, q, k, v, around(p, inner), square, descent(eta), hold=4)
    activated = torch.nn.functional.gelu(tensor(p.linear(x, "out.linear"))).numpy()
    return p.linear(p.layernorm(join(y), "out.layernorm") * activated, "out.linear_2")


def ttt_linear(p: Weights, x: Array) -> Array:
    return ttt(p, x, "W b", lambda w, z: w["W"] @ z + w["b"], 1.0)


def ttt_mlp(p: Weights, x: Array) -> Array:
    return ttt(p, x, "W2 b2 W1 b1", gelu_mlp, 0.1)


# --- Titans ----------------------------------------------------------------------------------


def titans_linear(p: Weights, x: Array) -> Array:
    q, k, v = projected(p, x)
    theta, eta, alpha = (gate(p, x, n) for n in ("theta", "eta", "keep"))
    y = np.zeros_like(v)
    for h in range(H):
        m = s = np.zeros((v.shape[-1], k.shape[-1]))
        for t in range(len(x)):
            s = eta[t, h] * s - theta[t, h] * np.outer(m @ k[t, h] - v[t, h], k[t, h])
            m = (1 - alpha[t, h]) * m + s
            y[t, h] = m @ q[t, h]
    return out(p, x, y)


def titans_mlp(p: Weights, x: Array) -> Array:
    q, k, v = projected(p, x)
    rule = surprise(gate(p, x, "theta") / 4, gate(p, x, "eta") / 2, gate(p, x, "keep") / 4, k)
    return out(p, x, learn(p, "W2 W1", q, k, v, mlp, square, rule, hold=4))


def dla(p: Weights, x: Array) -> Array:
    rule = descent(gate(p, x, "eta") / 4, 1 - gate(p, x, "keep") / 4, home=True)
    return out(p, x, learn(p, "W2 W1", *projected(p, x), mlp, product, rule, hold=4))


def persistent_attention(p: Weights, x: Array, window: int = 4) -> Array:
    k, v, q = (cut(p.linear(x, n)) for n in ("A_write.linear", "A_write.linear_2", "out.linear"))
    pairs = p("A.keys"), p("A.values")
    y = attend(rotate(q), rotate(k), v, lambda t: max(0, t - window + 1), pairs)
    return p.linear(join(y), "out.linear_2")


def titans_mag(p: Weights, x: Array) -> Array:
    y = persistent_attention(p.below("persistent_attention"), x)
    m = titans_mlp(p.below("titans_mlp"), x)
    return p.linear(p.rms(y, "out.norm") * sigmoid(p.rms(m, "out.norm_2")), "out.linear")


def titans_mal(p: Weights, x: Array) -> Array:
    return persistent_attention(p.below("persistent_attention"), titans_mlp(p.below("titans_mlp"), x))


def titans_mac(p: Weights, x: Array, segment: int = 4) -> Array:
    """Token by token: recall, attention in the segment over what was recalled and seen, learn, gate.

    What is recalled, by `h` and by the gate, is of the memory at the segment's start.
    """
    fast = [{n: tensor(p(f"M.{n}")[h]) for n in ("W2", "W1")} for h in range(H)]
    slots: list[Fast] = [{n: torch.zeros_like(z) for n, z in w.items()} for w in fast]
    keys: list[Array] = []
    values: list[Array] = []
    y = []
    for t in range(len(x)):
        row = x[t : t + 1]
        if t % segment == 0:
            keys, values, start = [], [], [{n: z.clone() for n, z in w.items()} for w in fast]
            base = [{n: z.clone().requires_grad_() for n, z in w.items()} for w in fast]
        query = unit(cut(p.linear(row, "h.linear")))[0]
        recalled = np.concatenate([mlp(w, tensor(z)).numpy() for w, z in zip(start, query, strict=True)])[
            None
        ]
        keys += [cut(p.linear(recalled, "A_write.linear"))[0], cut(p.linear(row, "A_write.linear_3"))[0]]
        values += [cut(p.linear(recalled, "A_write.linear_2"))[0], cut(p.linear(row, "A_write.linear_4"))[0]]
        asked = cut(p.linear(row, "y.linear"))[0]
        seen = []
        for h in range(H):
            found = np.concatenate([p("A.keys")[h], np.array(keys)[:, h]])
            scores = np.exp(found @ asked[h] / asked.shape[-1] ** 0.5)
            seen.append(scores @ np.concatenate([p("A.values")[h], np.array(values)[:, h]]) / scores.sum())
        now = p.linear(np.concatenate(seen)[None], "y.linear_2")
        k, v = unit(cut(p.linear(now, "k.linear")))[0], cut(p.linear(now, "M_write.linear"))[0]
        theta, eta, alpha = (
            gate(p, now, "theta") / segment,
            gate(p, now, "eta") / 2,
            gate(p, now, "keep") / segment,
        )
        for h in range(H):
            g = torch.autograd.grad(square(mlp(base[h], tensor(k[h])), tensor(v[h])), list(base[h].values()))
            for n, slope in zip(("W2", "W1"), g, strict=True):
                rate = theta[0, h] / (0.01 + sizes(base[h], tensor(k[h]))[n])
                slots[h][n] = eta[0, h] * slots[h][n] - rate * slope
                fast[h][n] = (1 - alpha[0, h]) * fast[h][n] + slots[h][n]
        again = unit(cut(p.linear(now, "out.linear")))[0]
        m = np.concatenate([mlp(w, tensor(z)).numpy() for w, z in zip(start, again, strict=True)])[None]
        y.append(p.linear(p.rms(now, "out.norm") * sigmoid(p.rms(m, "out.norm_2")), "out.linear_2")[0])
    return np.array(y)


ZOO: dict[str, tuple[Oracle, dict[str, object]]] = {
    "ttt_linear": (ttt_linear, {"batch": 4}),
    "ttt_mlp": (ttt_mlp, {"batch": 4, "expand": 2}),
    "titans_linear": (titans_linear, {}),
    "titans_mlp": (titans_mlp, {"chunk": 4}),
    "dla": (dla, {"chunk": 4}),
    "persistent_attention": (persistent_attention, {"window": 4}),
    "titans_mag": (titans_mag, {"chunk": 4, "window": 4}),
    "titans_mal": (titans_mal, {"chunk": 4, "window": 4}),
    "titans_mac": (titans_mac, {"segment": 4}),
}


@pytest.mark.parametrize("name", ZOO)
def test_equals_its_paper(name: str) -> None:
    oracle, arguments = ZOO[name]
    agree(name, oracle, heads=H, **arguments)
