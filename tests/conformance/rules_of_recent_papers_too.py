"""More rules of recent papers and the same as loops by hand: thresholds, balls, sketches, clocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.conformance.rules_of_papers import State, zeros
from tests.conformance.rules_of_recent_papers import add


def ftrl(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """FTRL-Proximal (McMahan et al. 2013): the weight is solved for, with zeros in it."""
    z, n = zeros(st, W, "z", "n")
    z = z + g - ((n + g * g).sqrt() - n.sqrt()) / 0.1 * W
    n = n + g * g
    st.update(z=z, n=n)
    found = torch.zeros_like(W)
    for at, (zi, ni) in enumerate(zip(z.reshape(-1).tolist(), n.reshape(-1).tolist(), strict=True)):
        if abs(zi) > 1.5:
            sign = 1.0 if zi > 0 else -1.0
            found.view(-1)[at] = -(zi - sign * 1.5) / ((1 + math.sqrt(ni)) / 0.1 + 0.01)
    return found


add(
    "ftrl",
    """rule ftrl(alpha = 0.1, beta = 1, l1 = 1.5, l2 = 0.01) {
  memory z, n = like(W)
  z = z + g - (sqrt(n + g ** 2) - sqrt(n)) / alpha * W
  n = n + g ** 2
  W = where(abs(z) > l1, -(z - l1 * sign(z)) / ((beta + sqrt(n)) / alpha + l2), 0)
}""",
    ftrl,
)


def adopt(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """ADOPT (Taniguchi et al. 2024): the second moment of before divides; the first step only looks."""
    m, v = zeros(st, W, "m", "v")
    if t == 1:
        st["v"] = g * g
        return W
    u = (g / v.sqrt().clamp_min(1e-6)).clamp(-((t - 1) ** 0.25), (t - 1) ** 0.25)
    m = st["m"] = 0.9 * m + 0.1 * u
    st["v"] = 0.99 * v + 0.01 * g * g
    return W - 1e-2 * m


add(
    "adopt",
    """rule adopt(lr = 1e-2, beta1 = 0.9, beta2 = 0.99, eps = 1e-6) {
  memory m, v = like(W)
  bound = (step - 1) ** 0.25
  u = maximum(minimum(g / maximum(sqrt(v), eps), bound), -bound)
  m = where(step == 1, 0, beta1 * m + (1 - beta1) * u)
  v = where(step == 1, g ** 2, beta2 * v + (1 - beta2) * g ** 2)
  W = W - lr * m
}""",
    adopt,
)


def mixture(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """Signs of two averages and the average itself, mixed by a schedule; decay only where it agrees (CWD)."""
    a, b = zeros(st, W, "a", "b")
    a, b = 0.9 * a + 0.1 * g, 0.99 * b + 0.01 * g
    st.update(a=a, b=b)
    share = min(1.0, t / 10)
    u = share * torch.sign(0.3 * a + 0.7 * b) + (1 - share) * a
    rate = 1e-2 * (t / 5 if t < 5 else 1.0 if t < 20 else max(0.0, 1 - (t - 20) / 40))
    return W - rate * (u + 0.1 * torch.where(u * W > 0, W, torch.zeros_like(W)))


add(
    "mixture",
    """rule mixture(lr = 1e-2, decay = 0.1, warmup = 5, hold = 20, down = 40) {
  memory a, b = like(W)
  a = 0.9 * a + 0.1 * g
  b = 0.99 * b + 0.01 * g
  share = minimum(1, step / 10)
  u = share * sign(0.3 * a + 0.7 * b) + (1 - share) * a
  rate = lr * where(step < warmup, step / warmup, where(step < hold, 1, maximum(0, 1 - (step - hold) / down)))
  W = W - rate * (u + decay * where(u * W > 0, W, 0))
}""",
    mixture,
)


def fromage(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """Fromage (Bernstein et al. 2020): steps as long as the weight, and the growth taken back."""
    return (W - 0.05 * W.norm() / g.norm() * g) / math.sqrt(1 + 0.05**2)


add(
    "fromage",
    """rule fromage(lr = 0.05) {
  if rank(W) == 2 { square = sum(sum(W ** 2)) / sum(sum(g ** 2)) } else { square = sum(W ** 2) / sum(g ** 2) }
  W = (W - lr * sqrt(square) * g) / sqrt(1 + lr ** 2)
}""",
    fromage,
)


def nero(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """Nero (Liu et al. 2021): balanced neurons, a second moment of each, back to the ball."""
    if W.dim() != 2:
        return W - 1e-2 * g
    v = st.setdefault("v", [0.0] * len(W))
    rows = []
    for i in range(len(W)):
        v[i] = 0.99 * v[i] + 0.01 * float(g[i] @ g[i])
        row = W[i] - 1e-2 * W[i].norm() * g[i] / (math.sqrt(v[i] / (1 - 0.99**t)) + 1e-8)
        row = row - row.mean()
        rows.append(row / row.norm())
    return torch.stack(rows)


add(
    "nero",
    """rule nero(lr = 1e-2, beta = 0.99, eps = 1e-8) {
  if rank(W) == 2 {
    memory v = like(sum(W))
    v = beta * v + (1 - beta) * sum(g ** 2)
    u = W - lr * g * expand_last(sqrt(sum(W ** 2)) / (sqrt(unbias(v, beta)) + eps), W)
    c = u - expand_last(mean(u), u)
    W = c / expand_last(sqrt(sum(c ** 2)), c)
  } else { W = W - lr * g }
}""",
    nero,
)


def sinkhorn(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """SinkGD (Scetbon et al. 2025): rows and columns scaled in turn."""
    if W.dim() == 2:
        for _ in range(3):
            g = math.sqrt(W.shape[1]) * g / g.norm(dim=1, keepdim=True)
            g = math.sqrt(W.shape[0]) * g / g.norm(dim=0, keepdim=True)
    return W - 1e-2 * g


add(
    "sinkhorn",
    """rule sinkhorn(lr = 1e-2, turns = 3) {
  u = g
  if rank(W) == 2 {
    repeat turns {
      u = sqrt(dim(W)) * u / expand_last(sqrt(sum(u ** 2)), u)
      v = transpose(u)
      u = transpose(sqrt(dim(transpose(W))) * v / expand_last(sqrt(sum(v ** 2)), v))
    }
  }
  W = W - lr * u
}""",
    sinkhorn,
)


def dion(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """Dion (Ahn et al. 2025): one power iteration on the momentum, and what it misses stays there."""
    if W.dim() != 2:
        return W - 1e-2 * g
    if "Q" not in st:
        st["Q"] = torch.eye(W.shape[1], dtype=W.dtype)[:, :2]
    B = st.get("M", torch.zeros_like(W)) + g
    Y, columns = B @ st["Q"], []
    for j in range(2):
        y = Y[:, j].clone()
        for c in columns:
            y = y - (c @ Y[:, j]) * c
        columns.append(y / y.norm())
    P = torch.stack(columns, 1)
    R = B.T @ P
    st["M"] = B - 0.05 * P @ R.T
    st["Q"] = torch.stack([R[:, j] / (R[:, j].norm() + 1e-8) for j in range(2)], 1)
    return W - 1e-2 * math.sqrt(W.shape[0] / W.shape[1]) * P @ st["Q"].T


add(
    "dion",
    """rule dion(lr = 1e-2, mu = 0.95, kept = 2, eps = 1e-8) {
  if rank(W) == 2 {
    memory M = like(W)
    first, _ = parts(identity(dim(W)), kept, dim(W) - kept)
    memory Q = like(first)
    Q = where(step == 1, first, Q)
    B = M + g
    P = orthonormal(B @ Q)
    R = transpose(B) @ P
    M = B - (1 - mu) * P @ transpose(R)
    n = transpose(R)
    Q = transpose(n / expand_last(sqrt(sum(n ** 2)) + eps, n))
    W = W - lr * sqrt(dim(transpose(W)) / dim(W)) * P @ transpose(Q)
  } else { W = W - lr * g }
}""",
    dion,
)


def diloco(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """DiLoCo (Douillard et al. 2023): an inner Adam, and Nesterov on what H of its steps have done."""
    (m, v, b), start = zeros(st, W, "m", "v", "b"), st.setdefault("start", W.clone())
    m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
    W = W - 1e-2 * m / (1 - 0.9**t) / ((v / (1 - 0.99**t)).sqrt() + 1e-8)
    if t % 4 == 0:
        b = 0.9 * b + (start - W)
        W = start - 0.7 * (0.9 * b + (start - W))
        st["start"] = W.clone()
    st.update(m=m, v=v, b=b)
    return W


add(
    "diloco",
    """rule diloco(inner, slow = 4, outer = 0.7, beta = 0.9) {
  memory start, b = like(W)
  start = where(step == 1, W, start)
  W = inner(g)
  every slow steps {
    b = beta * b + (start - W)
    W = start - outer * (beta * b + (start - W))
    start = W
  }
}
rule quick(lr = 1e-2, beta1 = 0.9, beta2 = 0.99, eps = 1e-8) {
  memory m, v = like(W)
  m = beta1 * m + (1 - beta1) * g
  v = beta2 * v + (1 - beta2) * g ** 2
  W = W - lr * unbias(m, beta1) / (sqrt(unbias(v, beta2)) + eps)
}""",
    diloco,
    "diloco(quick())",
)


def stable(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """StableAdamW (Wortsman et al. 2023): the rate divided by how far a step is beyond its size."""
    m, v = zeros(st, W, "m", "v")
    m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
    st.update(m=m, v=v)
    m, v = m / (1 - 0.9**t), v / (1 - 0.99**t)
    size = math.sqrt(float((g * g / v.clamp_min(1e-12)).mean()))
    return W - 1e-2 / max(1.0, size) * (m / (v.sqrt() + 1e-6) + 0.1 * W)


add(
    "stable",
    """rule stable(lr = 1e-2, beta1 = 0.9, beta2 = 0.99, eps = 1e-6, decay = 0.1) {
  memory m, v = like(W)
  m = beta1 * m + (1 - beta1) * g
  v = beta2 * v + (1 - beta2) * g ** 2
  vh = unbias(v, beta2)
  r = g ** 2 / maximum(vh, 1e-12)
  if rank(W) == 2 { size = sqrt(mean(mean(r))) } else { size = sqrt(mean(r)) }
  W = W - lr / maximum(1, size) * (unbias(m, beta1) / (sqrt(vh) + eps) + decay * W)
}""",
    stable,
)


def racs(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """RACS (Gong et al. 2025): scales of rows and columns by a fixed point, averaged over steps."""
    if W.dim() != 2:
        return W - 1e-2 * g
    G, q = g * g, torch.ones(W.shape[0], dtype=W.dtype)
    for _ in range(3):
        s = q @ G / (q @ q)
        q = G @ s / (s @ s)
    s = st["s"] = 0.9 * st.get("s", 0 * s) + 0.1 * s
    q = st["q"] = 0.9 * st.get("q", 0 * q) + 0.1 * q
    u = g / (q.sqrt() + 1e-8)[:, None] / (s.sqrt() + 1e-8)
    last = st.get("phi", 0.0)
    now = float(u.norm())
    limit = 1.0 if t == 1 or last == 0 else 1.01 / max(now / last, 1.01)
    st["phi"] = limit * now
    return W - 1e-2 * limit * u


add(
    "racs",
    """rule racs(lr = 1e-2, beta = 0.9, gamma = 1.01, eps = 1e-8) {
  if rank(W) == 2 {
    memory sm = like(sum(transpose(W)))
    memory qm = like(sum(W))
    memory phi = like(step)
    G = g ** 2
    q = 0 * sum(W) + 1
    repeat 3 {
      s = transpose(G) @ q / sum(q ** 2)
      q = G @ s / sum(s ** 2)
    }
    sm = beta * sm + (1 - beta) * s
    qm = beta * qm + (1 - beta) * q
    rows = g / expand_last(sqrt(qm) + eps, g)
    u = transpose(transpose(rows) / expand_last(sqrt(sm) + eps, transpose(g)))
    now = sqrt(sum(sum(u ** 2)))
    limit = where(step == 1, 1, gamma / maximum(now / maximum(phi, 1e-30), gamma))
    phi = limit * now
    W = W - lr * limit * u
  } else { W = W - lr * g }
}""",
    racs,
)


def scion(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """Scion (Pethick et al. 2025): Frank-Wolfe in a ball, of columns here; signs for vectors."""
    (m,) = zeros(st, W, "m")
    m = st["m"] = 0.9 * m + 0.1 * g
    if W.dim() == 2:
        far = m / (m.norm(dim=0, keepdim=True) + 1e-8) * math.sqrt(W.shape[0])
    else:
        far = torch.sign(m)
    return (1 - 1e-2) * W - 1e-2 * 3 * far


add(
    "scion",
    """rule scion(lr = 1e-2, beta = 0.9, radius = 3, eps = 1e-8) {
  memory m = like(W)
  m = beta * m + (1 - beta) * g
  if rank(W) == 2 {
    n = transpose(m)
    far = transpose(n / expand_last(sqrt(sum(n ** 2)) + eps, n)) * sqrt(dim(transpose(W)))
  } else { far = sign(m) }
  W = (1 - lr) * W - lr * radius * far
}""",
    scion,
)


def peaked(W: Tensor, g: Tensor, st: State, t: int) -> Tensor:
    """Steps measured by the largest element there has been, as AdaMax's by that of each; the norm besides."""
    top = st["top"] = max(0.99 * st.get("top", 0.0), float(g.abs().max()))
    return W - 1e-2 * g / (top + 1e-8) / (1 + 0.1 * float((g / top).norm()))


add(
    "peaked",
    """rule peaked(lr = 1e-2, beta = 0.99, eps = 1e-8) {
  memory top = like(step)
  if rank(W) == 2 { now = largest(largest(abs(g))) } else { now = largest(abs(g)) }
  top = maximum(beta * top, now)
  if rank(W) == 2 { n = sqrt(sum(sum((g / top) ** 2))) } else { n = sqrt(sum((g / top) ** 2)) }
  W = W - lr * g / (top + eps) / (1 + 0.1 * n)
}""",
    peaked,
)
