"""Rules of other papers in the language, and the same as loops by hand: what people write first."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Any]
Oracle = Callable[[Tensor, Tensor, State, int], Tensor]
"""The new weight from the old one, the gradient, what is remembered, and the step."""
RULES: dict[str, tuple[str, str, Oracle]] = {}
"""The text, what is called, and the same by hand."""


def add(name: str, text: str, by_hand: Oracle, call: str = "") -> None:
    RULES[name] = text, call or f"{name}()", by_hand


def zeros(state: State, like: Tensor, *names: str) -> list[Tensor]:
    return [state.setdefault(name, torch.zeros_like(like)) for name in names]


def adan(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    m, v, n, p = zeros(st, W, "m", "v", "n", "p")
    p = g if t == 1 else p
    d = g - p
    m = 0.98 * m + 0.02 * g
    v = 0.92 * v + 0.08 * d
    n = 0.99 * n + 0.01 * (g + 0.92 * d) ** 2
    st.update(m=m, v=v, n=n, p=g)
    den = (n / (1 - 0.99**t)).sqrt() + 1e-8
    return (W - 1e-2 * (m / (1 - 0.98**t) + 0.92 * v / (1 - 0.92**t)) / den) / (1 + 1e-2 * 0.02)


add(
    "adan",
    """rule adan(lr = 1e-2, beta1 = 0.98, beta2 = 0.92, beta3 = 0.99, eps = 1e-8, decay = 0.02) {
  memory m, v, n, last = like(W)
  before = where(step == 1, g, last)
  d = g - before
  m = beta1 * m + (1 - beta1) * g
  v = beta2 * v + (1 - beta2) * d
  n = beta3 * n + (1 - beta3) * (g + beta2 * d) ** 2
  u = (unbias(m, beta1) + beta2 * unbias(v, beta2)) / (sqrt(unbias(n, beta3)) + eps)
  W = (W - lr * u) / (1 + lr * decay)
  last = g
}""",
    adan,
)


def lionlook(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    (m,) = zeros(st, W, "m")
    slow = st.setdefault("slow", W.clone())
    u = torch.sign(0.9 * m + 0.1 * g)
    st["m"] = 0.99 * m + 0.01 * g
    W = W - 1e-3 * u
    if t % 4 == 0:
        W = slow + 0.3 * (W - slow)
        st["slow"] = W
    return W


add(
    "look_lion",
    """rule look(inner, slow = 4, mix = 0.3) {
  memory anchor = like(W)
  anchor = where(step == 1, W, anchor)
  W = inner(g)
  every slow steps {
    W = anchor + mix * (W - anchor)
    anchor = W
  }
}
rule my_lion(lr = 1e-3, a = 0.9, b = 0.99) {
  memory m = like(W)
  u = sign(a * m + (1 - a) * g)
  m = b * m + (1 - b) * g
  W = W - lr * u
}""",
    lionlook,
    call="look(my_lion())",
)


def cautious(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    m, v = zeros(st, W, "m", "v")
    st["m"] = 0.9 * m + 0.1 * g
    st["v"] = 0.99 * v + 0.01 * g * g
    u = (st["m"] / (1 - 0.9**t)) / ((st["v"] / (1 - 0.99**t)).sqrt() + 1e-6)
    mask = (u * g > 0).to(W.dtype)
    scale = 1 / (mask.mean().clamp_min(1e-3))
    return W * (1 - 1e-2 * 0.1) - 1e-2 * u * mask * scale


add(
    "cautious",
    """rule cautious(lr = 1e-2, beta1 = 0.9, beta2 = 0.99, eps = 1e-6, decay = 0.1) {
  memory m, v = like(W)
  m = beta1 * m + (1 - beta1) * g
  v = beta2 * v + (1 - beta2) * g * g
  u = unbias(m, beta1) / (sqrt(unbias(v, beta2)) + eps)
  mask = where(u * g > 0, 1, 0)
  if rank(W) == 2 { share = mean(mean(mask)) } else { share = mean(mask) }
  W = (1 - lr * decay) * W - lr * u * mask / maximum(share, 1e-3)
}""",
    cautious,
)


def mars(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    m, v, p = zeros(st, W, "m", "v", "p")
    p = g if t == 1 else p
    c = g + 0.025 * (0.95 / (1 - 0.95)) * (g - p)
    n = c.norm()
    c = c / n if n > 1 else c
    st.update(m=0.95 * m + 0.05 * c, v=0.99 * v + 0.01 * c * c, p=g)
    return W - 1e-2 * (st["m"] / (1 - 0.95**t)) / ((st["v"] / (1 - 0.99**t)).sqrt() + 1e-8)


add(
    "mars",
    """rule mars(lr = 1e-2, beta1 = 0.95, beta2 = 0.99, eps = 1e-8, gamma = 0.025) {
  memory m, v, last = like(W)
  c = g + gamma * (beta1 / (1 - beta1)) * (g - where(step == 1, g, last))
  if rank(W) == 2 { n = sqrt(sum(sum(c ** 2))) } else { n = sqrt(sum(c ** 2)) }
  c = c / maximum(n, 1)
  m = beta1 * m + (1 - beta1) * c
  v = beta2 * v + (1 - beta2) * c ** 2
  W = W - lr * unbias(m, beta1) / (sqrt(unbias(v, beta2)) + eps)
  last = g
}""",
    mars,
)


def sophia(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    m, h = zeros(st, W, "m", "h")
    st["m"] = 0.96 * m + 0.04 * g
    if t % 10 == 0:
        st["h"] = 0.99 * h + 0.01 * g * g * 8
    u = (st["m"] / torch.maximum(0.04 * st["h"], torch.tensor(1e-12, dtype=W.dtype))).clamp(-1, 1)
    return W * (1 - 1e-2 * 0.1) - 1e-2 * u


add(
    "sophia",
    """rule sophia(lr = 1e-2, beta1 = 0.96, beta2 = 0.99, rho = 0.04, batch = 8, decay = 0.1) {
  memory m, h = like(W)
  m = beta1 * m + (1 - beta1) * g
  every 10 steps { h = beta2 * h + (1 - beta2) * batch * g ** 2 }
  u = m / maximum(rho * h, 1e-12)
  W = (1 - lr * decay) * W - lr * minimum(maximum(u, -1), 1)
}""",
    sophia,
)


def lamb(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    m, v = zeros(st, W, "m", "v")
    st["m"] = 0.9 * m + 0.1 * g
    st["v"] = 0.999 * v + (1 - 0.999) * g * g
    u = (st["m"] / (1 - 0.9**t)) / ((st["v"] / (1 - 0.999**t)).sqrt() + 1e-6) + 0.01 * W
    a, b = W.norm(), u.norm()
    r = a.clamp(0, 10) / b if a > 0 and b > 0 else 1.0
    return W - 1e-2 * r * u


add(
    "lamb",
    """rule lamb(lr = 1e-2, beta1 = 0.9, beta2 = 0.999, eps = 1e-6, decay = 0.01, most = 10) {
  memory m, v = like(W)
  m = beta1 * m + (1 - beta1) * g
  v = beta2 * v + (1 - beta2) * g ** 2
  u = unbias(m, beta1) / (sqrt(unbias(v, beta2)) + eps) + decay * W
  if rank(W) == 2 {
    a = sqrt(sum(sum(W ** 2)))
    b = sqrt(sum(sum(u ** 2)))
  } else {
    a = sqrt(sum(W ** 2))
    b = sqrt(sum(u ** 2))
  }
  r = where(a * b > 0, minimum(a, most) / b, 1)
  W = W - lr * r * u
}""",
    lamb,
)


def prodigy(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    s, m, v = zeros(st, W, "s", "m", "v")
    d = st.setdefault("d", torch.tensor(1e-6, dtype=W.dtype))
    num = st.setdefault("num", torch.tensor(0.0, dtype=W.dtype))
    w0 = st.setdefault("w0", W.clone())
    k = math.sqrt(0.999)
    m = 0.9 * m + 0.1 * d * g
    v = 0.999 * v + 0.001 * (d * g) ** 2
    num = k * num + (1 - k) * d * d * (g * (w0 - W)).sum()
    s = k * s + (1 - k) * d * d * g
    hat = num / (s.abs().sum() + 1e-30)
    nd = torch.maximum(d, hat)
    W = W - d * m / (v.sqrt() + d * 1e-8)
    st.update(s=s, m=m, v=v, d=nd, num=num)
    return W


add(
    "prodigy",
    """rule prodigy(lr = 1, beta1 = 0.9, beta2 = 0.999, start = 1e-6, eps = 1e-8) {
  memory m, v, s, first = like(W)
  memory d, num = like(step)
  k = sqrt(beta2)
  d = where(step == 1, start, d)
  first = where(step == 1, W, first)
  m = beta1 * m + (1 - beta1) * d * g
  v = beta2 * v + (1 - beta2) * (d * g) ** 2
  s = k * s + (1 - k) * d ** 2 * g
  if rank(W) == 2 {
    along = sum(sum(g * (first - W)))
    size = sum(sum(abs(s)))
  } else {
    along = sum(g * (first - W))
    size = sum(abs(s))
  }
  num = k * num + (1 - k) * d ** 2 * along
  W = W - lr * d * m / (sqrt(v) + d * eps)
  d = maximum(d, num / (size + 1e-30))
}""",
    prodigy,
)


def came(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    if W.dim() != 2:
        return W - 1e-3 * g
    n, k = W.shape
    r = st.setdefault("r", torch.zeros(n, dtype=W.dtype))
    c = st.setdefault("c", torch.zeros(k, dtype=W.dtype))
    (m,) = zeros(st, W, "m")
    R_ = st.setdefault("R", torch.zeros(n, dtype=W.dtype))
    C_ = st.setdefault("C", torch.zeros(k, dtype=W.dtype))
    q = g * g + 1e-30
    r = 0.999 * r + 0.001 * q.mean(1)
    c = 0.999 * c + 0.001 * q.mean(0)
    u = g / (torch.outer(r, c) / r.mean()).sqrt()
    u = u / max(1.0, float((u * u).mean().sqrt()))
    m = 0.9 * m + 0.1 * u
    res = (u - m) ** 2 + 1e-16
    R_ = 0.9999 * R_ + 0.0001 * res.mean(1)
    C_ = 0.9999 * C_ + 0.0001 * res.mean(0)
    st.update(r=r, c=c, m=m, R=R_, C=C_)
    S = torch.outer(R_, C_) / R_.mean()
    return W - 1e-3 * m / S.sqrt()


add(
    "came",
    """rule came(lr = 1e-3, beta1 = 0.9, beta2 = 0.999, beta3 = 0.9999, eps1 = 1e-30, eps2 = 1e-16) {
  if rank(W) == 2 {
    memory r, R = like(sum(W))
    memory c, C = like(sum(transpose(W)))
    memory m = like(W)
    q = g ** 2 + eps1
    r = beta2 * r + (1 - beta2) * mean(q)
    c = beta2 * c + (1 - beta2) * mean(transpose(q))
    u = g / sqrt(outer(r, c) / mean(r))
    u = u / maximum(1, sqrt(mean(mean(u ** 2))))
    m = beta1 * m + (1 - beta1) * u
    e = (u - m) ** 2 + eps2
    R = beta3 * R + (1 - beta3) * mean(e)
    C = beta3 * C + (1 - beta3) * mean(transpose(e))
    W = W - lr * m / sqrt(outer(R, C) / mean(R))
  } else {
    W = W - lr * g
  }
}""",
    came,
)


def mini(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    (m,) = zeros(st, W, "m")

    q = (g * g).mean(-1, keepdim=True) if W.dim() == 2 else (g * g).mean()
    v = st.setdefault("v", torch.zeros_like(q))
    st["m"] = 0.9 * m + 0.1 * g
    st["v"] = 0.99 * v + 0.01 * q
    return W - 1e-2 * (st["m"] / (1 - 0.9**t)) / ((st["v"] / (1 - 0.99**t)).sqrt() + 1e-8)


add(
    "adam_mini",
    """rule adam_mini(lr = 1e-2, beta1 = 0.9, beta2 = 0.99, eps = 1e-8) {
  memory m = like(W)
  if rank(W) == 2 { memory v = like(sum(W)) } else { memory v = like(step) }
  m = beta1 * m + (1 - beta1) * g
  v = beta2 * v + (1 - beta2) * mean(g ** 2)
  W = W - lr * unbias(m, beta1) / (expand_last(sqrt(unbias(v, beta2)), W) + eps)
}""",
    mini,
)


def rprop(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    p, d = zeros(st, W, "p", "d")
    d = torch.full_like(W, 1e-2) if t == 1 else d
    s = g * p
    d = torch.where(s > 0, (d * 1.2).clamp_max(1.0), torch.where(s < 0, (d * 0.5).clamp_min(1e-6), d))
    g = torch.where(s < 0, torch.zeros_like(g), g)
    st.update(p=g, d=d)
    return W - torch.sign(g) * d


add(
    "rprop",
    """rule rprop(lr = 1e-2, up = 1.2, down = 0.5, least = 1e-6, most = 1) {
  memory last, size = like(W)
  size = where(step == 1, lr, size)
  s = g * last
  size = where(s > 0, minimum(size * up, most), where(s < 0, maximum(size * down, least), size))
  d = where(s < 0, 0, g)
  W = W - sign(d) * size
  last = d
}""",
    rprop,
)


def slowema(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    m, s, a = zeros(st, W, "m", "s", "a")
    a = a + g
    m = 0.9 * m + g
    if t % 10 == 0:
        s = 0.5 * s + 0.5 * a / 10
        a = torch.zeros_like(a)
    st.update(m=m, s=s, a=a)
    return W - 1e-2 * (m + 0.3 * s)


add(
    "slow_ema",
    """rule slow_ema(lr = 1e-2, beta = 0.9, slow = 10) {
  memory m, s, a = like(W)
  a = a + g
  m = beta * m + g
  every slow steps {
    s = 0.5 * s + 0.5 * a / slow
    a = 0 * a
  }
  W = W - lr * (m + 0.3 * s)
}""",
    slowema,
)


def clipnest(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    n = g.norm()
    g = g * min(1.0, float(0.5 / (n + 1e-6)))
    m, s = zeros(st, W, "m", "s")
    st["m"] = 0.9 * m + 0.1 * g
    st["s"] = 0.999 * s + 0.001 * g * g
    slow = st.setdefault("slow", W.clone())
    W = (1 - 1e-2 * 0.01) * W - 1e-2 * (st["m"] / (1 - 0.9**t)) / ((st["s"] / (1 - 0.999**t)).sqrt() + 1e-8)
    if t % 5 == 0:
        W = slow + 0.5 * (W - slow)
        st["slow"] = W
    return W


add(
    "nest3",
    """rule clipping(inner, most = 0.5) {
  if rank(W) == 2 { n = sqrt(sum(sum(g ** 2))) } else { n = sqrt(sum(g ** 2)) }
  W = inner(g * minimum(1, most / (n + 1e-6)))
}""",
    clipnest,
    call="lookahead(clipping(adamw(lr = 1e-2)))",
)


def hot(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    (m,) = zeros(st, W, "m")
    st["m"] = torch.tanh(0.9 * m + F.softplus(g) - torch.sigmoid(W))
    return W - 1e-2 * torch.log(1 + st["m"] ** 2) * torch.sin(g) * torch.erf(W) * F.silu(g) * F.gelu(g + 1)


add(
    "smooth",
    """rule smooth(lr = 1e-2) {
  memory m = like(W)
  m = tanh(0.9 * m + softplus(g) - sigmoid(W))
  W = W - lr * log(1 + m ** 2) * sin(g) * erf(W) * silu(g) * gelu(g + 1)
}""",
    hot,
)
