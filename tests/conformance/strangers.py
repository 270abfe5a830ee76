"""Memories of papers of 2024 and 2025, and of nobody, that no file of the library has: texts and recurrences.

A recurrence gives what stands in front of the last `linear`, token by token, for a sequence `[T, 8]` and the
parameters of the layer; it is written from the mathematics and shares nothing with the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

Parameters = dict[str, Tensor]
Recurrence = Callable[[Parameters, Tensor], Iterator[Tensor]]
HEADS = """
  q = split(linear(x), heads)
  k = l2norm(split(linear(x), heads), eps = 0)
  v = split(linear(x), heads)
"""
BUCKETS = (1, 2, 4, 8, 16)


def block(declared: str, body: str, outside: str = "") -> str:
    """Two heads of four channels; `y` is what they say."""
    level = f"level c every 1 token {{ {declared} }}" if declared else ""
    return f"block b(x, heads = 2) {{\n{level}\n{outside}\n{HEADS}\n{body}\nreturn linear(merge(y))\n}}\n"


def each(p: Parameters, x: Tensor, name: str) -> Tensor:
    return plain(p, x, name).unflatten(-1, (2, -1))


def plain(p: Parameters, x: Tensor, name: str) -> Tensor:
    return x @ p[f"{name}.linear.weight"].T


def qkv(p: Parameters, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    k = each(p, x, "k")
    return each(p, x, "q"), k / k.norm(dim=-1, keepdim=True), each(p, x, "v")


def at(matrix: Tensor, key: Tensor) -> Tensor:
    return torch.einsum("hvk,hk->hv", matrix, key)


def outer(left: Tensor, right: Tensor) -> Tensor:
    return left[:, :, None] * right[:, None]


def times(number: Tensor, matrix: Tensor) -> Tensor:
    """A number per head."""
    return number[:, None, None] * matrix


def zeros(*shape: int) -> Tensor:
    return torch.zeros(2, *shape, dtype=torch.float64)


# --- log-linear attention -----------------------------------------------------------------------

LOG_LINEAR = block(
    "".join(f"memory S{n} = matrix() per head reset every {size} tokens;" for n, size in enumerate(BUCKETS)),
    "l = softplus(split(linear(x, heads * 5), heads)); a = exp(-softplus(linear(x, heads)))\n"
    "l0, l1, l2, l3, l4 = parts(l, 1, 1, 1, 1, 1)\n"
    + "".join(f"S{n} *= a; S{n}[k] <- v minimize dot by gd(lr = 1); r{n} = S{n}[q]\n" for n in range(5))
    + "y = sum(l0) * r0"
    + "".join(f" + sum(l{n}) * (r{n} - r{n - 1})" for n in range(1, 5)),
)


def log_linear(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """Guo et al. (2025), arXiv 2506.04761: a weight for every bucket of a Fenwick tree, and a gate."""
    (q, k, v), weights = qkv(p, x), softplus(each(p, x, "l"))
    past = -softplus(plain(p, x, "a")).cumsum(0)
    for t in range(len(x)):
        y = zeros(4)
        for j in range(t // BUCKETS[-1] * BUCKETS[-1], t + 1):
            level = next(n for n, size in enumerate(BUCKETS) if j >= t // size * size)
            score = weights[t][:, level] * (past[t] - past[j]).exp() * (k[j] * q[t]).sum(-1)
            y = y + score[:, None] * v[j]
        yield y


# --- state space models that turn ---------------------------------------------------------------

MAMBA3 = block(
    "memory S = matrix() per head; memory T = matrix(in = 1) per head",
    """
  T += split(linear(x, dim(x) // 2), heads)
  c = cos(T[1])
  s = sin(T[1])
  k1, k2 = parts(k, 2, 2)
  q1, q2 = parts(q, 2, 2)
  tk = concat(k1 * c - k2 * s, k1 * s + k2 * c)
  tq = concat(q1 * c - q2 * s, q1 * s + q2 * c)
  dt = softplus(linear(x, heads))
  a = exp(-dt)
  l = sigmoid(linear(x, heads))
  S *= a
  S += (1 - l) * dt * a * outer(shift(v), shift(tk)) + l * dt * outer(v, tk)
  y = S[tq]""",
)
TURNING = """
block b(x) {
  level c every 1 token { memory a, b, F = matrix(in = 1) }
  r = sigmoid(linear(x))
  F += linear(x)
  u = linear(x)
  c = cos(F[1])
  s = sin(F[1])
  a *= r
  b *= r
  a += u * c
  b -= u * s
  g = linear(x)
  y = a[1] * c - b[1] * s + (a[1] * s + b[1] * c) * g
  return linear(y)
}
"""


def mamba3(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """Mamba-3 (2025): the trapezoid between two tokens, and angles of the token as turned keys, queries."""
    (q, k, v), angle = qkv(p, x), each(p, x, "T").cumsum(0)
    dt, mix, S = softplus(plain(p, x, "dt")), torch.sigmoid(plain(p, x, "l")), zeros(4, 4)

    def turned(z: Tensor) -> Tensor:
        w = torch.polar(torch.ones_like(angle), angle) * torch.complex(z[..., :2], z[..., 2:])
        return torch.cat([w.real, w.imag], -1)

    k, q = turned(k), turned(q)
    for t in range(len(x)):
        S = times((-dt[t]).exp(), S) + times(mix[t] * dt[t], outer(v[t], k[t]))
        if t:
            S = S + times((1 - mix[t]) * dt[t] * (-dt[t]).exp(), outer(v[t - 1], k[t - 1]))
        yield at(S, q[t])


def turning(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """`h' = r e^(i w) h + u`, complex, angles by the token; in the frame that turns along it is a sum."""
    r, w, u, g = torch.sigmoid(plain(p, x, "r")), plain(p, x, "F"), plain(p, x, "u"), plain(p, x, "g")
    h = torch.zeros(8, dtype=torch.complex128)
    for t in range(len(x)):
        h = torch.polar(r[t], w[t]) * h + u[t]
        yield h.real + h.imag * g[t]


# --- several memories ---------------------------------------------------------------------------

SECOND_ORDER = block(
    "memory C, P, G = matrix() per head",
    """
  G[k] <- C[k] minimize dot by gd(lr = 1)
  C[q] <- v minimize dot by gd(lr = 1)
  P[k] <- k minimize dot by gd(lr = 1)
  y = C[P[q]] - G[q]""",
)
MIXTURE = """
block b(x) {
  level c every 1 token { memory S = matrix() per head(4); memory C = matrix() }
  q = linear(x)
  k = l2norm(linear(x), eps = 0)
  v = linear(x)
  g = softmax(linear(x, 4))
  r = where(g >= largest(g), g, 0)
  S[share(k, 4)] <- share(v, 4) minimize dot by gd(lr = r)
  C[k] <- v minimize dot by gd(lr = 1)
  a, b, c, d = parts(merge(S[share(q, 4)] * r), dim(x), dim(x), dim(x), dim(x))
  y = a + b + c + d + C[q]
  return linear(y)
}
"""
SLOTS = block(
    "memory K = matrix(out = 5) per head; memory V = matrix(in = 5) per head",
    "f = softmax(split(linear(x, heads * 5), heads)); K += outer(f, k); V += outer(v, f)\n"
    "y = V[softmax(K[q])]",
)
LEAVING = block(
    "memory S = matrix() per head",
    """
  f = sigmoid(linear(x, heads))
  A[k] <- v
  S *= f
  S[softmax(shift(k, 4))] <- shift(v, 4) minimize dot by gd(lr = 1)
  y = A[q] + S[softmax(q)]""",
    outside="memory A = softmax(window = 4) per head",
)
FORGETTING_PATH = block(
    "memory D = matrix() per head; memory F = matrix(in = 1) per head",
    """
  w = l2norm(split(linear(x), heads), eps = 0)
  F += logsigmoid(linear(x, heads))
  D[w] <- -w minimize l2 by gd(lr = 2)
  A[concat(k + D[k], -F[1])] <- v
  y = A[concat(q + D[q], 0 * F[1] + 1)]""",
    outside="memory A = softmax(scale = 1) per head",
)


def second_order(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """Second-order linear attention, masked: sum over i <= j <= t of (q_t k_i) (k_i q_j) v_j."""
    q, k, v = qkv(p, x)
    for t in range(len(x)):
        y = zeros(4)
        for i in range(t + 1):
            for j in range(i, t + 1):
                y = y + ((q[t] * k[i]).sum(-1) * (k[i] * q[j]).sum(-1))[:, None] * v[j]
        yield y


def mixture(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """MoM: Du et al. (2025), arXiv 2502.13685: the best of four memories, and one that all tokens share."""
    q, k, v = (plain(p, x, n) for n in "qkv")
    k, g = k / k.norm(dim=-1, keepdim=True), torch.softmax(plain(p, x, "g"), -1)
    S, C = x.new_zeros(4, 8, 8), x.new_zeros(8, 8)
    for t in range(len(x)):
        best = int(g[t].argmax())
        S = S + torch.nn.functional.one_hot(torch.tensor(best), 4)[:, None, None] * g[t, best] * torch.outer(
            v[t], k[t]
        )
        C = C + torch.outer(v[t], k[t])
        yield g[t, best] * (S[best] @ q[t]) + C @ q[t]


def bounded(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """ABC: Peng et al. (2022), arXiv 2110.02488: attention over five slots that a softmax fills."""
    (q, k, v), f = qkv(p, x), torch.softmax(each(p, x, "f"), -1)
    for t in range(len(x)):
        K, V = (torch.einsum("ths,thd->hsd", f[: t + 1], z[: t + 1]) for z in (k, v))
        yield torch.einsum("hs,hsd->hd", torch.softmax(at(K, q[t]), -1), V)


def leaving(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """A window of attention, and a matrix for what leaves it, with softmax features."""
    (q, k, v), f = qkv(p, x), torch.sigmoid(plain(p, x, "f"))
    S, none = zeros(4, 4), zeros(4)
    for t in range(len(x)):
        old, value = (k[t - 4], v[t - 4]) if t >= 4 else (none, none)
        S = times(f[t], S) + outer(value, torch.softmax(old, -1))
        near = slice(max(0, t - 3), t + 1)
        w = torch.softmax((k[near] * q[t]).sum(-1) / 2, 0)
        yield (w[..., None] * v[near]).sum(0) + at(S, torch.softmax(q[t], -1))


def forgetting_path(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """PaTH-FoX: Yang et al. (2025), arXiv 2505.16381: reflections between two tokens, and forgetting."""
    (q, k, v), w = qkv(p, x), each(p, x, "w")
    w, F = w / w.norm(dim=-1, keepdim=True), logsigmoid(plain(p, x, "F")).cumsum(0)
    for t in range(len(x)):
        row, scores = q[t], []
        for j in range(t, -1, -1):
            scores.insert(0, (row * k[j]).sum(-1) + F[t] - F[j])
            row = row - 2 * (row * w[j]).sum(-1, keepdim=True) * w[j]
        yield (torch.softmax(torch.stack(scores), 0)[..., None] * v[: t + 1]).sum(0)


# --- steps of their own -------------------------------------------------------------------------

KALMAN = block(
    "memory P, S = matrix() per head",
    """
  P[k] <- k minimize dot by gd(lr = 1) retain 0.9
  g = solve(P, k, ridge = 1, iterations = 6)
  S += outer(v - S[k], g)
  y = S[q]""",
)
ADAGRAD = block(
    "memory S = matrix() per head; memory D = matrix(in = 1) per head",
    "b = sigmoid(linear(x, heads)); D += k ** 2; g = k / (0.5 + sqrt(D[1]))\n"
    "S += b * outer(v - S[k], g); y = S[q]",
)
STABLE = block(
    "memory M = matrix(out = heads, in = 1); memory C = matrix() per head\n"
    "memory N = matrix(out = 1) per head",
    """
  i = linear(x, heads)
  f = logsigmoid(linear(x, heads))
  o = sigmoid(split(linear(x), heads))
  before = M[1]
  M = maximum(f + before, i)
  now = M[1]
  C *= exp(f + before - now)
  C[k] <- v minimize dot by gd(lr = exp(i - now))
  N *= exp(f + before - now)
  N[k] <- 1 minimize dot by gd(lr = exp(i - now))
  y = o * C[q] / maximum(abs(sum(N[q])), exp(-now))""",
)
SLSTM = """
block b(x) {
  level c every 1 token { memory h, s, n = matrix(out = dim(x), in = 1) }
  R = weight(dim(x), dim(x))
  r = headwise(R, h[1])
  z = tanh(linear(x) + r)
  i = sigmoid(linear(x) + r)
  f = sigmoid(linear(x) - r)
  o = sigmoid(linear(x))
  s = f * s[1] + i * z
  n = f * n[1] + i
  h = o * s[1] / n[1]
  return linear(h[1])
}
"""
THREE = (
    """
block b(x, heads = 2) {
  level one every 3 tokens { memory A = matrix() per head }
  level two every 5 tokens { memory B = matrix() per head }
  level three every 7 tokens { memory C = matrix() per head }
"""
    + HEADS
    + """
  b = sigmoid(linear(x, heads))
  ra = A[k]
  rb = B[k]
  A[k] <- v minimize dot by gd(lr = b) retain 0.9
  B[k] <- v - ra by gd(lr = b / 4)
  C[k] <- v - rb by gd(lr = b / 5)
  y = A[q] + B[q] + C[q]
  return linear(merge(y))
}
"""
)


def kalman(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """Recursive least squares with forgetting: the error along the gain `(P + 1)^-1 k`."""
    (q, k, v), P, S = qkv(p, x), zeros(4, 4), zeros(4, 4)
    for t in range(len(x)):
        P = 0.9 * P + outer(k[t], k[t])
        gain = torch.linalg.solve(P + torch.eye(4, dtype=x.dtype), k[t])
        S = S + outer(v[t] - at(S, k[t]), gain)
        yield at(S, q[t])


def adagrad(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """The delta rule with a rate per key channel, the root of what squares of keys add up to."""
    (q, k, v), b = qkv(p, x), torch.sigmoid(plain(p, x, "b"))
    S, D = zeros(4, 4), zeros(4)
    for t in range(len(x)):
        D = D + k[t] ** 2
        S = S + times(b[t], outer(v[t] - at(S, k[t]), k[t] / (0.5 + D.sqrt())))
        yield at(S, q[t])


def stable(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """mLSTM: Beck et al. (2024), arXiv 2405.04517, with its stabiliser."""
    (q, k, v), i, f = qkv(p, x), plain(p, x, "i"), logsigmoid(plain(p, x, "f"))
    o, m, C, n = torch.sigmoid(each(p, x, "o")), zeros(), zeros(4, 4), zeros(4)
    for t in range(len(x)):
        new = torch.maximum(f[t] + m, i[t])
        forget, write, m = (f[t] + m - new).exp(), (i[t] - new).exp(), new
        C = times(forget, C) + times(write, outer(v[t], k[t]))
        n = forget[:, None] * n + write[:, None] * k[t]
        yield o[t] * at(C, q[t]) / torch.maximum((n * q[t]).sum(-1).abs(), (-m).exp())[:, None]


def slstm(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """sLSTM: Beck et al. (2024), with sigmoid gates that look at the hidden state."""
    R, (z, i, f, o) = p["R.weight.weight"], (plain(p, x, name) for name in "zifo")
    h = s = n = x.new_zeros(8)
    for t in range(len(x)):
        r = R @ h
        i_t, f_t = torch.sigmoid(i[t] + r), torch.sigmoid(f[t] - r)
        s, n = f_t * s + i_t * torch.tanh(z[t] + r), f_t * n + i_t
        h = torch.sigmoid(o[t]) * s / n
        yield h


def three(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """Clocks of 3, 5 and 7 tokens: each memory learns what the faster one has not committed."""
    (q, k, v), b = qkv(p, x), torch.sigmoid(plain(p, x, "b"))
    now = seen = [zeros(4, 4)] * 3
    for t in range(len(x)):
        A, B, C = (at(M, k[t]) for M in seen)
        steps = (v[t], (v[t] - A - B) / 4, (v[t] - B - C) / 5)
        now = [w * M + times(b[t], outer(s, k[t])) for w, M, s in zip((0.9, 1, 1), now, steps, strict=True)]
        yield sum((at(M, q[t]) for M in seen), zeros(4))
        seen = [n if (t + 1) % c == 0 else s for n, s, c in zip(now, seen, (3, 5, 7), strict=True)]


STRANGERS: dict[str, tuple[str, Recurrence, str, set[str]]] = {
    "log-linear attention": (LOG_LINEAR, log_linear, "DDDDD", {"linear"}),
    "Mamba-3": (MAMBA3, mamba3, "DD", {"linear"}),
    "a complex recurrence in its frame": (TURNING, turning, "DDD", {"linear", "linear_channel"}),
    "second-order linear attention": (SECOND_ORDER, second_order, "DDD", {"linear"}),
    "mixture of memories": (MIXTURE, mixture, "DD", {"linear"}),
    "bounded slots": (SLOTS, bounded, "DD", {"linear"}),
    "what leaves a window": (LEAVING, leaving, "DS", {"linear", "attention"}),
    "PaTH with forgetting": (FORGETTING_PATH, forgetting_path, "RDS", {"delta", "linear", "attention"}),
    "recursive least squares": (KALMAN, kalman, "DR", {"linear", "delta_block"}),
    "AdaGrad of keys": (ADAGRAD, adagrad, "RD", {"linear", "delta_block"}),
    "mLSTM with its stabiliser": (STABLE, stable, "XDD", {"sequential", "linear"}),
    "sLSTM": (SLSTM, slstm, "XXX", {"sequential"}),
    "clocks of 3, 5 and 7": (THREE, three, "DRR", {"held"}),
}
"""Text, recurrence, classes of the memories, the forms that take them."""
