"""What the tests of deep memories share: learning at test time, written with automatic derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.conformance.zoo import Array, H, Weights, cut, join, sigmoid, silu, unit

Fast = dict[str, Tensor]
Step = Callable[[Fast, Fast, dict[str, Any], int, int], Fast]
"""`step(weights, gradients, slots, t, h)`: the weights after token t of head h."""


def tensor(x: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))


def learn(
    p: Weights,
    names: str,
    q: Array,
    k: Array,
    v: Array,
    model,
    loss,
    step: Step,
    hold: int = 1,
    committed: bool = False,
    **window: Any,
) -> Array:
    """W' = step(W, sum of gamma grad loss(model(base, k), v)); y = model(W', q), `committed`: model(base, q).

    `base` is W as of the last multiple of `hold`; `context` tokens with weights `gamma` make one gradient.
    """
    context, gamma = window.get("context", 1), window.get("gamma", np.ones(q.shape[:2]))
    y = np.zeros((*q.shape[:2], v.shape[-1]))
    q, k, v = tensor(q), tensor(k), tensor(v)
    for h in range(H):
        w = {n: tensor(p(f"M.{n}")[h]) for n in names.split()}
        slots: dict[str, Any] = {}
        for t in range(len(y)):
            if t % hold == 0:
                slots["base"] = base = {n: z.clone().requires_grad_() for n, z in w.items()}
            total = sum(
                gamma[j, h] * loss(model(base, k[j, h]), v[j, h])
                for j in range(max(0, t - context + 1), t + 1)
            )
            g = dict(zip(base, torch.autograd.grad(total, list(base.values())), strict=True))
            w = {n: z.detach() for n, z in step(w, g, slots, t, h).items()}
            y[t, h] = model(base if committed else w, q[t, h]).detach().numpy()
    return y


def square(y: Tensor, v: Tensor) -> Tensor:
    return ((y - v) ** 2).sum() / 2


def product(y: Tensor, v: Tensor) -> Tensor:
    return -(y * v).sum()


def mlp(w: Fast, z: Tensor) -> Tensor:
    return w["W1"] @ torch.nn.functional.silu(w["W2"] @ z)


def around(p: Weights, inner) -> Callable[[Fast, Tensor], Tensor]:
    """z + LN(inner(z)), the norm a slow parameter of the map."""
    weight, bias = (tensor(p(f"M.out.layernorm.{n}")) for n in ("weight", "bias"))
    return lambda w, z: z + torch.nn.functional.layer_norm(inner(w, z), z.shape, weight, bias, 1e-5)


def gelu_mlp(w: Fast, z: Tensor) -> Tensor:
    hidden = torch.nn.functional.gelu(w["W2"] @ z + w.get("b2", 0))
    return w["W1"] @ hidden + w.get("b1", 0)


def descent(eta: Array, alpha: Array | None = None, home: bool = False) -> Step:
    """W' = r + alpha (W - r) - eta g, r zero or (`home`) the start."""

    def step(w, g, slots, t, h):
        keep = 1.0 if alpha is None else alpha[t, h]
        r = slots.setdefault("start", {n: z.clone() if home else 0 * z for n, z in w.items()})
        return {n: r[n] + keep * (w[n] - r[n]) - eta[t, h] * g[n] for n in w}

    return step


def surprise(theta: Array, eta: Array, alpha: Array, k: Array) -> Step:
    """S' = eta S - theta / (0.01 + ||z||^2) g, W' = (1 - alpha) W + S'; z is the input of each weight."""

    def step(w, g, slots, t, h):
        size = sizes(slots["base"], tensor(k[t, h]))
        for n in w:
            slots[n] = eta[t, h] * slots.get(n, 0) - theta[t, h] / (0.01 + size[n]) * g[n]
        return {n: (1 - alpha[t, h]) * w[n] + slots[n] for n in w}

    return step


def sizes(w: Fast, k: Tensor) -> dict[str, float]:
    """||z||^2 of what each weight of a perceptron is multiplied with."""
    hidden = torch.nn.functional.silu(w["W2"] @ k).detach()
    return {"W2": float(k @ k), "W1": float(hidden @ hidden)}


def projected(
    p: Weights, x: Array, names: tuple[str, str, str] = ("q", "k", "v")
) -> tuple[Array, Array, Array]:
    q, k, v = (cut(p.short(x, n)) for n in names)
    return unit(q), unit(k), v


def gate(p: Weights, x: Array, name: str) -> Array:
    return sigmoid(p.linear(x, f"{name}.linear"))


def out(p: Weights, x: Array, y: Array) -> Array:
    return p.linear(join(p.rms(y, "out.norm")) * silu(p.linear(x, "out.linear")), "out.linear_2")


def attend(
    q: Array, k: Array, v: Array, first: Callable[[int], int], pairs: tuple[Array, Array] | None = None
) -> Array:
    """Softmax over the tokens `first(t) .. t` and over the persistent pairs."""
    y = np.zeros((*q.shape[:2], v.shape[-1]))
    for t in range(len(q)):
        for h in range(H):
            keys, values = k[first(t) : t + 1, h], v[first(t) : t + 1, h]
            if pairs is not None:
                keys, values = np.concatenate([pairs[0][h], keys]), np.concatenate([pairs[1][h], values])
            scores = np.exp(keys @ q[t, h] / q.shape[-1] ** 0.5)
            y[t, h] = scores @ values / scores.sum()
    return y
