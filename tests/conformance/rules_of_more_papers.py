"""More rules of papers and the same as loops by hand: numbers that start again, copies, low rank, guards."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.conformance.rules_of_papers import Oracle, State, zeros

MORE: dict[str, tuple[str, str, Oracle]] = {}
"""The text, what is called, and the same by hand."""


def add(name: str, text: str, by_hand: Oracle, call: str = "") -> None:
    MORE[name] = text, call or f"{name}()", by_hand


def apollo(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    m, B, d = zeros(st, W, "m", "B", "d")
    old, m = m, (0.9 * (1 - 0.9 ** (t - 1)) * m + 0.1 * g) / (1 - 0.9**t)
    n = (d**4).sum() ** 0.25 + 1e-4
    a = ((d * (m - old)).sum() + (B * d * d).sum()) / n**4
    B = torch.zeros_like(B) if t == 1 else B - a * d * d
    d = m / B.abs().clamp_min(1)
    st.update(m=m, B=B, d=d)
    return W - 1e-2 * d


add(
    "apollo",
    """rule apollo(lr = 1e-2, beta = 0.9, eps = 1e-4) {
  memory m, B, d = like(W)
  old = m
  m = (beta * (1 - beta ** (step - 1)) * m + (1 - beta) * g) / (1 - beta ** step)
  if rank(W) == 2 {
    n = sum(sum(d ** 4)) ** 0.25 + eps
    a = (sum(sum(d * (m - old))) + sum(sum(B * d ** 2))) / n ** 4
  } else {
    n = sum(d ** 4) ** 0.25 + eps
    a = (sum(d * (m - old)) + sum(B * d ** 2)) / n ** 4
  }
  B = where(step == 1, 0, B - a * d ** 2)
  d = m / maximum(abs(B), 1)
  W = W - lr * d
}""",
    apollo,
)


def spam(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    m, v = zeros(st, W, "m", "v")
    since, d = st.get("since", 0), g
    if t % 7 == 0:
        m, v, since = 0 * m, 0 * v, 0
    since += 1
    if since > 1:
        d = torch.where(g * g > 5 * v, torch.sign(g) * (5 * v).sqrt(), g)
    m, v = 0.9 * m + 0.1 * d, 0.99 * v + 0.01 * d * d
    st.update(m=m, v=v, since=since)
    return W - 1e-2 * m / (1 - 0.9**since) / ((v / (1 - 0.99**since)).sqrt() + 1e-8)


add(
    "spam",
    """rule spam(lr = 1e-2, beta1 = 0.9, beta2 = 0.99, theta = 5, eps = 1e-8) {
  memory m, v = like(W)
  memory since = like(step)
  every 7 steps { m = 0; v = 0; since = 0 }
  since = since + 1
  spike = where(since > 1, g ** 2 > theta * v, 0)
  d = where(spike, sign(g) * sqrt(theta * v), g)
  m = beta1 * m + (1 - beta1) * d
  v = beta2 * v + (1 - beta2) * d ** 2
  W = W - lr * m / (1 - beta1 ** since) / (sqrt(v / (1 - beta2 ** since)) + eps)
}""",
    spam,
)


def restarts(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    (m,) = zeros(st, W, "m")
    since = 0 if t % 8 == 0 else st.get("since", 0)
    m = 0.9 * m + g
    st.update(m=m, since=since + 1)
    return W - (1e-3 + 0.5 * (0.1 - 1e-3) * (1 + math.cos(3.141592653589793 * since / 8))) * m


add(
    "restarts",
    """rule restarts(lr = 0.1, momentum = 0.9, period = 8, floor = 1e-3) {
  memory m = like(W)
  memory since = like(step)
  every period steps { since = 0 }
  rate = floor + 0.5 * (lr - floor) * (1 + cos(3.141592653589793 * since / period))
  since = since + 1
  m = momentum * m + g
  W = W - rate * m
}""",
    restarts,
)


def aggmo(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    held = [beta * v + g for beta, v in zip((0.0, 0.9, 0.99), zeros(st, W, "a", "b", "c"), strict=True)]
    st.update(zip("abc", held, strict=True))
    return W - 1e-2 / 3 * (held[0] + held[1] + held[2])


add(
    "aggmo",
    """rule aggmo(lr = 1e-2, betas = [0.0, 0.9, 0.99]) {
  u = 0 * g
  for beta in betas {
    memory v = like(W)
    v = beta * v + g
    u = u + v
  }
  W = W - lr / 3 * u
}""",
    aggmo,
)


def clocks(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    a, b, seen_a, seen_b = zeros(st, W, "a", "b", "seen_a", "seen_b")
    a, b = 0.5 * a + g, 0.9 * b + g
    W = W - 1e-2 * (g + seen_a + seen_b)
    st.update(a=a, b=b, **({"seen_a": a, "seen_b": b} if t % 3 == 0 else {}))
    return W


add(
    "clocks",
    """rule clocks(lr = 1e-2) {
  u = g
  for beta in [0.5, 0.9] {
    level slow every 3 steps { memory s = like(W) }
    s = beta * s + g
    u = u + s
  }
  W = W - lr * u
}""",
    clocks,
)


def cubic(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    (m,) = zeros(st, W, "m")
    m = st["m"] = 0.9 * m + 0.1 * g
    if W.dim() == 2:
        m = m / (m.norm() + 1e-7)
        for _ in range(4):
            m = 1.5 * m - 0.5 * m @ m.T @ m
    return W - 1e-2 * m


add(
    "cubic",
    """rule cubic(lr = 1e-2, beta = 0.9, iterations = 4) {
  memory m = like(W)
  m = beta * m + (1 - beta) * g
  X = m
  if rank(W) == 2 {
    X = m / (sqrt(sum(sum(m ** 2))) + 1e-7)
    repeat iterations { X = 1.5 * X - 0.5 * X @ transpose(X) @ X }
  }
  W = W - lr * X
}""",
    cubic,
)


def basis(matrix: Tensor) -> Tensor:
    vectors = torch.linalg.eigh((matrix + matrix.T) / 2)[1].flip(-1)
    largest = vectors.abs().argmax(0)
    return vectors * torch.sign(vectors[largest, range(len(largest))])


def low_rank(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    if W.dim() != 2:
        return W - 1e-2 * g
    if t == 1 or t % 5 == 0:
        st["P"] = basis(g @ g.T)[:, :2]
    st["m"] = 0.9 * st.get("m", 0) + st["P"].T @ g
    return W - 1e-2 * st["P"] @ st["m"]


add(
    "low_rank",
    """rule low_rank(lr = 1e-2, kept = 2, slow = 5) {
  if rank(W) == 2 {
    now, rest = parts(eigenbasis(g @ transpose(g)), kept, dim(transpose(W)) - kept)
    memory P = like(now)
    memory m = like(transpose(now) @ g)
    P = where(step == 1, now, P)
    every slow steps { P = now }
    m = 0.9 * m + transpose(P) @ g
    W = W - lr * P @ m
  } else { W = W - lr * g }
}""",
    low_rank,
)


def ladder(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    return W - 1e-2 * ((10 if t % 5 == 0 else 1) * g + (torch.sign(g) if t % 4 == 0 else 0))


add(
    "ladder",
    """rule ladder(lr = 1e-2) {
  size = 1
  more = 0
  every 5 steps { size = 10 }
  every 4 steps { more = sign(g) }
  W = W - lr * (size * g + more)
}""",
    ladder,
)


def filled(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    (v,) = zeros(st, W, "v")
    v = (
        torch.ones_like(v)
        if t < 3
        else 0.9 * v + torch.softmax(g if g.dim() == 2 else g.reshape(-1), -1).view_as(g)
    )
    n = v.sum()
    st["v"] = torch.full_like(v, 0.01) if t % 5 == 0 else v
    return W - 1e-2 * g / (1 + n)


add(
    "filled",
    """rule filled(lr = 1e-2) {
  memory v = like(W)
  v = where(step < 3, 1, 0.9 * v + softmax(g))
  if rank(W) == 2 { n = sum(sum(v)) } else { n = sum(v) }
  every 5 steps { v = lr }
  W = W - lr * g / (1 + n)
}""",
    filled,
)
