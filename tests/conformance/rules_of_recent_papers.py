"""Rules of recent papers and the same as loops by hand: rows, columns, masks, projections, two clocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.conformance.rules_of_papers import Oracle, State, zeros

RECENT: dict[str, tuple[str, str, Oracle]] = {}
"""The text, what is called, and the same by hand."""


def add(name: str, text: str, by_hand: Oracle, call: str = "") -> None:
    RECENT[name] = text, call or f"{name}()", by_hand


def sm3(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """SM3-II (Anil et al. 2019): a number per row and per column covers every element."""
    if W.dim() != 2:
        (v,) = zeros(st, W, "v")
        st["v"] = v = v + g * g
        return W - 0.1 * g / (v.sqrt() + 1e-8)
    rows, columns = st.get("r", [0.0] * W.shape[0]), st.get("c", [0.0] * W.shape[1])
    v = torch.zeros_like(W)
    for i in range(W.shape[0]):
        for j in range(W.shape[1]):
            v[i, j] = min(rows[i], columns[j]) + g[i, j] ** 2
    st["r"] = [max(float(v[i, j]) for j in range(W.shape[1])) for i in range(W.shape[0])]
    st["c"] = [max(float(v[i, j]) for i in range(W.shape[0])) for j in range(W.shape[1])]
    return W - 0.1 * g / (v.sqrt() + 1e-8)


add(
    "sm3",
    """rule sm3(lr = 0.1, eps = 1e-8) {
  if rank(W) == 2 {
    memory r = like(sum(W))
    memory c = like(sum(transpose(W)))
    v = minimum(expand_last(r, g), transpose(expand_last(c, transpose(g)))) + g ** 2
    r = largest(v)
    c = largest(transpose(v))
  } else {
    memory s = like(W)
    s = s + g ** 2
    v = s
  }
  W = W - lr * g / (sqrt(v) + eps)
}""",
    sm3,
)


def adamp(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """AdamP (Heo et al. 2021): what would only grow the norm of a scale-invariant weight is taken away."""
    m, v = zeros(st, W, "m", "v")
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    st.update(m=m, v=v)
    p = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    if W.dim() != 2:
        return W - 1e-2 * p

    def cosine(a: Tensor, b: Tensor) -> float:
        return abs(float(a @ b)) / (float(a.norm() * b.norm()) + 1e-8)

    if max(cosine(W[i], g[i]) for i in range(len(W))) < 0.8 / math.sqrt(W.shape[1]):
        p = torch.stack([p[i] - (p[i] @ W[i]) / (W[i] @ W[i] + 1e-8) * W[i] for i in range(len(W))])
        st["projected"] = True
    return W - 1e-2 * p


add(
    "adamp",
    """rule adamp(lr = 1e-2, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, delta = 0.8) {
  memory m, v = like(W)
  m = beta1 * m + (1 - beta1) * g
  v = beta2 * v + (1 - beta2) * g ** 2
  p = unbias(m, beta1) / (sqrt(unbias(v, beta2)) + eps)
  if rank(W) == 2 {
    cosines = abs(sum(W * g)) / (sqrt(sum(W ** 2)) * sqrt(sum(g ** 2)) + eps)
    along = p - expand_last(sum(p * W) / (sum(W ** 2) + eps), W) * W
    p = where(largest(cosines) < delta / sqrt(dim(W)), along, p)
  }
  W = W - lr * p
}""",
    adamp,
)


def normuon(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """NorMuon (Li et al. 2025): an orthogonal step with a second moment per neuron."""
    (m,) = zeros(st, W, "m")
    m = st["m"] = 0.95 * m + 0.05 * g
    if W.dim() != 2:
        return W - 1e-2 * m
    X = m / (m.norm() + 1e-7)
    for _ in range(8):
        X = 1.5 * X - 0.5 * X @ X.T @ X
    v = st["v"] = 0.9 * st.get("v", torch.zeros(len(W), dtype=W.dtype)) + 0.1 * (X * X).mean(1)
    X = X / (v.sqrt() + 1e-8)[:, None]
    return W - 1e-2 * 0.2 * math.sqrt(W.numel()) / (X.norm() + 1e-8) * X


add(
    "normuon",
    """rule normuon(lr = 1e-2, beta1 = 0.95, beta2 = 0.9, iterations = 8, eps = 1e-8) {
  memory m = like(W)
  m = beta1 * m + (1 - beta1) * g
  if rank(W) == 2 {
    memory v = like(sum(W))
    X = m / (sqrt(sum(sum(m ** 2))) + 1e-7)
    repeat iterations { X = 1.5 * X - 0.5 * X @ transpose(X) @ X }
    v = beta2 * v + (1 - beta2) * mean(X ** 2)
    X = X / expand_last(sqrt(v) + eps, X)
    W = W - lr * 0.2 * sqrt(dim(W) * dim(transpose(W))) / (sqrt(sum(sum(X ** 2))) + eps) * X
  } else { W = W - lr * m }
}""",
    normuon,
)


def adabelief(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    m, s = zeros(st, W, "m", "s")
    m = 0.9 * m + 0.1 * g
    s = 0.999 * s + 0.001 * (g - m) ** 2 + 1e-8
    st.update(m=m, s=s)
    return W - 1e-2 * m / (1 - 0.9**t) / ((s / (1 - 0.999**t)).sqrt() + 1e-8)


add(
    "adabelief",
    """rule adabelief(lr = 1e-2, beta1 = 0.9, beta2 = 0.999, eps = 1e-8) {
  memory m, s = like(W)
  m = beta1 * m + (1 - beta1) * g
  s = beta2 * s + (1 - beta2) * (g - m) ** 2 + eps
  W = W - lr * unbias(m, beta1) / (sqrt(unbias(s, beta2)) + eps)
}""",
    adabelief,
)


def yogi(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    m, v = zeros(st, W, "m", "v")
    v = torch.full_like(v, 1e-6) if t == 1 else v
    m = 0.9 * m + 0.1 * g
    v = v - 0.01 * torch.sign(v - g * g) * g * g
    st.update(m=m, v=v)
    return W - 1e-2 * m / (1 - 0.9**t) / ((v / (1 - 0.99**t)).sqrt() + 1e-3)


add(
    "yogi",
    """rule yogi(lr = 1e-2, beta1 = 0.9, beta2 = 0.99, eps = 1e-3, start = 1e-6) {
  memory m, v = like(W)
  v = where(step == 1, start, v)
  m = beta1 * m + (1 - beta1) * g
  v = v - (1 - beta2) * sign(v - g ** 2) * g ** 2
  W = W - lr * unbias(m, beta1) / (sqrt(unbias(v, beta2)) + eps)
}""",
    yogi,
)


def adabound(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    m, v = zeros(st, W, "m", "v")
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    st.update(m=m, v=v)
    low, high = 0.1 * (1 - 1 / (1e-3 * t + 1)), 0.1 * (1 + 1 / (1e-3 * t))
    rate = 1e-2 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return W - (rate / (v.sqrt() + 1e-8)).clamp(low, high) * m


add(
    "adabound",
    """rule adabound(lr = 1e-2, beta1 = 0.9, beta2 = 0.999, last = 0.1, gamma = 1e-3, eps = 1e-8) {
  memory m, v = like(W)
  m = beta1 * m + (1 - beta1) * g
  v = beta2 * v + (1 - beta2) * g ** 2
  low  = last * (1 - 1 / (gamma * step + 1))
  high = last * (1 + 1 / (gamma * step))
  rate = lr * sqrt(1 - beta2 ** step) / (1 - beta1 ** step)
  W = W - minimum(maximum(rate / (sqrt(v) + eps), low), high) * m
}""",
    adabound,
)


def qhadam(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    m, v = zeros(st, W, "m", "v")
    m, v = 0.995 * m + 0.005 * g, 0.999 * v + 0.001 * g * g
    st.update(m=m, v=v)
    up = 0.3 * g + 0.7 * m / (1 - 0.995**t)
    return W - 1e-2 * up / ((0.1 * g * g + 0.9 * v / (1 - 0.999**t)).sqrt() + 1e-8)


add(
    "qhadam",
    """rule qhadam(lr = 1e-2, beta1 = 0.995, beta2 = 0.999, nu1 = 0.7, nu2 = 0.9, eps = 1e-8) {
  memory m, v = like(W)
  m = beta1 * m + (1 - beta1) * g
  v = beta2 * v + (1 - beta2) * g ** 2
  up = (1 - nu1) * g + nu1 * unbias(m, beta1)
  W = W - lr * up / (sqrt((1 - nu2) * g ** 2 + nu2 * unbias(v, beta2)) + eps)
}""",
    qhadam,
)


def centred(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """Gradient centralisation (Yong et al. 2020) before a momentum."""
    (m,) = zeros(st, W, "m")
    if W.dim() == 2:
        g = torch.stack([row - row.mean() for row in g])
    m = st["m"] = 0.9 * m + g
    return W - 1e-2 * m


add(
    "centred",
    """rule centred(lr = 1e-2, beta = 0.9) {
  memory m = like(W)
  c = g
  if rank(W) == 2 { c = g - expand_last(mean(g), g) }
  m = beta * m + c
  W = W - lr * m
}""",
    centred,
)


def novograd(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """NovoGrad (Ginsburg et al. 2019): one second moment for a layer."""
    (m,) = zeros(st, W, "m")
    n = float((g * g).sum())
    v = st["v"] = n if t == 1 else 0.98 * st["v"] + 0.02 * n
    m = st["m"] = 0.95 * m + g / (math.sqrt(v) + 1e-8) + 0.01 * W
    return W - 1e-2 * m


add(
    "novograd",
    """rule novograd(lr = 1e-2, beta1 = 0.95, beta2 = 0.98, decay = 0.01, eps = 1e-8) {
  memory m = like(W)
  memory v = like(step)
  if rank(W) == 2 { n = sum(sum(g ** 2)) } else { n = sum(g ** 2) }
  v = where(step == 1, n, beta2 * v + (1 - beta2) * n)
  m = beta1 * m + g / (sqrt(v) + eps) + decay * W
  W = W - lr * m
}""",
    novograd,
)


def grokfast(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    e, m = zeros(st, W, "e", "m")
    e = g if t == 1 else 0.98 * e + 0.02 * g
    m = 0.9 * m + (g + 2 * e)
    st.update(e=e, m=m)
    return W - 1e-2 * m


add(
    "grokfast",
    """rule grokfast(inner, alpha = 0.98, lamb = 2) {
  memory e = like(W)
  e = where(step == 1, g, alpha * e + (1 - alpha) * g)
  W = inner(g + lamb * e)
}
rule heavy(lr = 1e-2, beta = 0.9) { memory m = like(W); m = beta * m + g; W = W - lr * m }""",
    grokfast,
    "grokfast(heavy())",
)
