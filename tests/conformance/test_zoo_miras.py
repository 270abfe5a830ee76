"""The zoo: Miras, Omega, SRWM and LaCT, each against a recurrence written from its paper."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

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
    silu,
    softplus,
    unit,
)
from tests.conformance.zoo_deep import (
    Fast,
    Step,
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
    square,
    tensor,
)

# --- Miras -----------------------------------------------------------------------------------


def yaad(p: Weights, x: Array) -> Array:
    def huber(y, v):
        return torch.nn.functional.huber_loss(y, v, reduction="sum", delta=0.5)

    rule = descent(gate(p, x, "eta") / 4, 1 - gate(p, x, "alpha") / 4)
    return out(p, x, learn(p, "W2 W1", *projected(p, x), around(p, gelu_mlp), huber, rule, hold=4))


def dual(p: Weights, x: Array, link: Callable[[Tensor], Tensor]) -> Step:
    """A' = alpha A - eta g, W' = link(A'); A starts where W does."""
    eta, alpha = gate(p, x, "eta") / 4, 1 - gate(p, x, "alpha") / 4

    def step(w, g, slots, t, h):
        for n in w:
            slots[n] = alpha[t, h] * slots.get(n, w[n]) - eta[t, h] * g[n]
        return {n: link(slots[n]) for n in w}

    return step


def moneta(p: Weights, x: Array) -> Array:
    def cubic(y, v):
        return ((y - v).abs() ** 3).sum() / 3

    rule = dual(p, x, lambda a: a / torch.linalg.vector_norm(a, 4) ** 2)
    streams = projected(p, x, ("query", "key", "value"))
    return out(p, x, learn(p, "W2 W1", *streams, around(p, gelu_mlp), cubic, rule, 4, committed=True))


def memora(p: Weights, x: Array) -> Array:
    rule = dual(p, x, lambda a: a.softmax(-1))
    y = learn(p, "W2 W1", *projected(p, x), around(p, gelu_mlp), square, rule, 4, committed=True)
    return out(p, x, y)


# --- Omega and Atlas -------------------------------------------------------------------------


def polynomial(z: Array) -> Array:
    """1, z and z z^T / sqrt(2) of z / d^(1/4), for every token and head."""
    z = z / z.shape[-1] ** 0.25
    pairs = (z[..., :, None] * z[..., None, :]).reshape(*z.shape[:-1], -1)
    return np.concatenate([np.ones((*z.shape[:-1], 1)), z, pairs / 2**0.5], -1)


def omega(p: Weights, x: Array, rule: Step, chunk: int, committed: bool = False) -> Array:
    q, k, v = projected(p, x)
    q, k, gamma = polynomial(q), polynomial(k), gate(p, x, "gamma")
    return out(p, x, learn(p, "W2 W1", q, k, v, mlp, square, rule, chunk, committed, context=3, gamma=gamma))


def omeganet(p: Weights, x: Array, chunk: int = 4) -> Array:
    rule = descent(gate(p, x, "eta") / (3 * chunk), 1 - gate(p, x, "alpha") / chunk)
    return omega(p, x, rule, chunk)


def omeganet_by_token(p: Weights, x: Array) -> Array:
    return omeganet(p, x, 1)


def newton_schulz(a: Tensor, iterations: int) -> Tensor:
    """Muon's quintic, on the short side."""
    x = a / a.norm()
    x = x.T if len(a) > len(a.T) else x
    for _ in range(iterations):
        s = x @ x.T
        x = 3.4445 * x - 4.7750 * s @ x + 2.0315 * s @ s @ x
    return x.T if len(a) > len(a.T) else x


def atlas(p: Weights, x: Array, chunk: int = 4) -> Array:
    """A chunk gathers its gradients; the step is taken where it ends, behind the reads of that token."""
    eta, theta, alpha = gate(p, x, "eta") / 3, gate(p, x, "theta"), 1 - gate(p, x, "alpha") / 3

    def step(w, g, slots, t, h):
        gathered = slots["gathered"] = {n: slots.get("gathered", {}).get(n, 0) + g[n] for n in w}
        if (t + 1) % chunk:
            return w
        slots["gathered"] = {}
        for n in w:
            slots[n] = theta[t, h] * slots.get(n, 0) + gathered[n]
        return {n: alpha[t, h] * w[n] - eta[t, h] * newton_schulz(slots[n], 2) for n in w}

    return omega(p, x, step, chunk, committed=True)


def atlas_by_token(p: Weights, x: Array) -> Array:
    return atlas(p, x, 1)


# --- SRWM and LaCT ---------------------------------------------------------------------------


def srwm(p: Weights, x: Array) -> Array:
    """One matrix, as printed: its rows give y, k, q and four rates."""

    def softmax(z):
        e = np.exp(z - z.max())
        return e / e.sum()

    inputs, y = cut(p.linear(x, "z.linear")), []
    w = [np.concatenate([p(f"{n}.weight")[h] for n in ("Wy", "Wk", "Wq", "Wb")]) for h in range(H)]
    d = inputs.shape[-1]
    for t in range(len(x)):
        row = []
        for h in range(H):
            whole = w[h] @ softmax(inputs[t, h])
            k, q = softmax(whole[d : 2 * d]), softmax(whole[2 * d : 3 * d])
            rates = np.repeat(sigmoid(whole[3 * d :]), [d, d, d, 4])
            row.append(whole[:d])
            w[h] = w[h] + np.outer(rates * (w[h] @ q - w[h] @ k), k)
        y.append(np.concatenate(row))
    return p.linear(np.array(y), "out.linear")


def swiglu(w: Fast, z: Tensor) -> Tensor:
    return w["W3"] @ (torch.nn.functional.silu(w["W1"] @ z) * (w["W2"] @ z))


def lact(p: Weights, x: Array, chunk: int = 4) -> Array:
    q, k, v = (p.linear(x, f"{n}.linear") for n in "qkv")
    fq, fk = (
        unit(cut(silu(z * p(f"{n}.weight.weight") + p(f"{n}.weight_2.weight"))))
        for n, z in (("fq", q), ("fk", k))
    )
    fv, eta = cut(silu(v)), softplus(p.linear(x, "eta.linear"))
    near = attend(rotate(cut(q)), rotate(cut(k)), cut(v), lambda t: max(0, t - 3), None)
    far = np.zeros_like(near)
    for h in range(H):
        w = {n: tensor(p(f"M.{n}")[h]).requires_grad_() for n in ("W1", "W2", "W3")}
        for start in range(0, len(x), chunk):
            span = range(start, min(start + chunk, len(x)))
            for t in span:
                far[t, h] = swiglu(w, tensor(fq[t, h])).detach().numpy()
            if len(span) < chunk:
                break
            loss = sum(eta[t, h] * product(swiglu(w, tensor(fk[t, h])), tensor(fv[t, h])) for t in span)
            g = torch.autograd.grad(loss, list(w.values()))
            moved = {n: w[n].detach() - newton_schulz(s, 5) for n, s in zip(w, g, strict=True)}
            w = {
                n: (z / (z**2).sum(1, keepdim=True).add(1e-6).sqrt()).requires_grad_()
                for n, z in moved.items()
            }
    mixed = near + p.rms(far, "out.norm") * silu(cut(p.linear(x, "out.linear")))
    return p.linear(join(mixed), "out.linear_2")


ZOO: dict[str, tuple[Oracle, dict[str, object]]] = {
    "moneta": (moneta, {"chunk": 4}),
    "yaad": (yaad, {"chunk": 4, "delta": 0.5}),
    "memora": (memora, {"chunk": 4}),
    "omeganet": (omeganet, {"context": 3, "hidden": 6, "chunk": 4}),
    "atlas": (atlas, {"context": 3, "hidden": 6, "iterations": 2, "chunk": 4}),
    "srwm": (srwm, {}),
    "lact": (lact, {"chunk": 4, "window": 4}),
}


@pytest.mark.parametrize("name", ZOO)
def test_equals_its_paper(name: str) -> None:
    oracle, arguments = ZOO[name]
    agree(name, oracle, heads=H, **arguments)


@pytest.mark.parametrize(("name", "oracle"), [("omeganet", omeganet_by_token), ("atlas", atlas_by_token)])
def test_chunks_of_one_token_are_the_paper_s_recurrence(name: str, oracle: Oracle) -> None:
    agree(name, oracle, heads=H, **{**ZOO[name][1], "chunk": 1})
