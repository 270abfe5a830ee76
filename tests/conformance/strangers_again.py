"""More memories of papers and of nobody: maxima, duals, clocks of 3 and 5, rules with a clock of their own.

As in `strangers`: a recurrence gives what stands in front of the last `linear`, written from the mathematics.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import grad

from tests.conformance.strangers import (
    Parameters,
    Recurrence,
    at,
    block,
    each,
    outer,
    plain,
    qkv,
    times,
    zeros,
)

AAREN = """
block b(x) {
  level c every 1 token { memory m, w = matrix(out = 1, in = 1); memory u = matrix(in = 1) }
  q = weight(dim(x))
  s = dot(q, linear(x))
  v = linear(x)
  before = sum(m[1])
  m = maximum(before, s)
  now = sum(m[1])
  u *= exp(before - now)
  w *= exp(before - now)
  u += exp(s - now) * v
  w += exp(s - now)
  return linear(u[1] / sum(w[1]))
}
"""
NUMBERS = """
block b(x, heads = 2) {
  level c every 1 token {
    memory h = matrix(out = dim(x), in = 1)
    memory g = matrix(out = 4, in = 1) per head
  }
  level d every 3 tokens { memory r = matrix(out = dim(x), in = 1) }
  a = sigmoid(linear(x))
  z = sum(tanh(linear(x))) / 8
  e = linear(x, heads)
  h *= a
  h += z
  g *= 0.5
  g -= e
  r += z
  return linear(h[1] + merge(g[1]) * r[1])
}
"""
CASCADE = """
map bent(z) { W = weight(dim(z), dim(z)); c = weight(dim(z)); return tanh(W @ z + c) }
block b(x) {
  level one every 3 tokens { memory A = bent() }
  level two every 5 tokens { memory B = bent() }
  k = l2norm(linear(x), eps = 0)
  v = linear(x)
  h = x + A[k]
  z = l2norm(h, eps = 0)
  A[k] <- v - x  minimize l2  by gd(lr = 0.2)  retain 0.95
  B[z] <- v - h  minimize l2  by momentum(lr = 0.1, beta = 0.5)
  return linear(h + B[z])
}
"""
RATES = "\nb = sigmoid(linear(x, heads)); a = sigmoid(linear(x, heads))\n"
BREGMAN = """
rule bounded(lr, keep = 1) {
  memory A = like(W)
  A = keep * where(step == 1, W, A) - lr * g
  W = 2 * sigmoid(A) - 1
}
""" + block(
    "memory S = matrix() per head init learned",
    f"{RATES} S[k] <- v minimize huber(delta = 0.5) by bounded(lr = b, keep = a); y = S[q]",
).replace("every 1 token", "every 3 tokens")
ELASTIC = """
rule elastic(lr, keep = 1, floor = 0.01) { z = keep * W - lr * g; W = sign(z) * relu(abs(z) - floor) }
""" + block(
    "memory S = matrix() per head init learned",
    f"{RATES} S[k] <- v minimize l2 by elastic(lr = b, keep = a); y = S[q]",
).replace("every 1 token", "every 4 tokens")
HYPERNET = """
block b(x, heads = 2) {
  level c every 1 token { memory M = matrix(out = 12) per head }
  q = split(linear(x), heads)
  k = l2norm(split(linear(x), heads), eps = 0)
  v = linear(x, 24)
  b = sigmoid(linear(x, heads))
  M[k] <- v  minimize l2  by gd(lr = b)
  u = linear(x, 3)
  y = sum(split(merge(M[q]), 8) * u)
  return linear(y, dim(x))
}
"""
INIT_OTHER = block(
    "memory B = matrix() per head init A reset every 6 tokens",
    "A[k] <- v minimize l2 by gd(lr = 0.05); B[k] <- v minimize l2 by gd(lr = 0.3); y = B[q]",
    "level slow every 6 tokens { memory A = matrix() per head init learned }",
).replace("every 1 token", "every 2 tokens")
LOOKBACK = """
rule lookback(lr) {
  memory past = like(W)
  past = past + g
  W = W - lr * g
  every 3 steps {
    W = W - 0.5 * lr * past
    past = 0 * past
  }
}
""" + block(
    "memory S = matrix() per head", f"{RATES} S[k] <- a * v minimize l2 by lookback(lr = 0.3 * b); y = S[q]"
)
GATED_TERMS = block(
    "memory S = matrix() per head init learned",
    "w = sigmoid(split(linear(x), heads)); p = l2norm(split(linear(x), heads), eps = 0)\n"
    "write S { [k] <- v minimize l2 by gd(lr = 0.4); [p] <- S[q] minimize dot by gd(lr = 0.1) } retain w\n"
    "y = S[q]",
)
PRODUCT_KEYS = """
block b(x, heads = 2) {
  level c every 1 token { memory V = matrix() per head init learned }
  a = split(linear(x, 6 * heads), heads)
  d = split(linear(x, 6 * heads), heads)
  a1, a2 = parts(a, 3, 3)
  d1, d2 = parts(d, 3, 3)
  v = linear(x)
  V[kron(softmax(a1), softmax(a2))] <- v  minimize l2  by gd(lr = 1)
  return linear(merge(V[kron(softmax(4 * d1), softmax(4 * d2))]))
}
"""


def aaren(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """Feng et al. (2024), arXiv 2405.13956: attention of one learned query, as a maximum and two sums."""
    s, v = plain(p, x, "s") @ p["q.weight.weight"], plain(p, x, "v")
    for t in range(len(x)):
        yield torch.softmax(s[: t + 1], 0) @ v[: t + 1]


def numbers(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """Numbers that every channel of a vector, or of a head, is given; `r` is seen as of every third token."""
    a, e = torch.sigmoid(plain(p, x, "a")), plain(p, x, "e")
    z = plain(p, x, "z").tanh().sum(-1) / 8
    h, g, r, seen = x.new_zeros(8), zeros(4), 0 * z[0], 0 * z[0]
    for t in range(len(x)):
        h, g, r = a[t] * h + z[t], g / 2 - e[t][:, None], r + z[t]
        yield h + g.flatten() * seen
        seen = r if (t + 1) % 3 == 0 else seen


def cascade(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """Each memory learns what the one in front of it left, gradients at its own last commit."""
    k, v = plain(p, x, "k"), plain(p, x, "v")
    k = k / k.norm(dim=-1, keepdim=True)
    A = seen_A = (p["A.W"], p["A.c"])
    B = seen_B = (p["B.W"], p["B.c"])
    m = (0 * B[0], 0 * B[1])

    def said(w: tuple[Tensor, Tensor], z: Tensor) -> Tensor:
        return torch.tanh(w[0] @ z + w[1])

    def error(w: tuple[Tensor, Tensor], z: Tensor, wanted: Tensor) -> Tensor:
        return (said(w, z) - wanted).square().sum() / 2

    for t in range(len(x)):
        h = x[t] + said(seen_A, k[t])
        z = h / h.norm()
        yield h + said(seen_B, z)
        down_A, down_B = grad(error)(seen_A, k[t], v[t] - x[t]), grad(error)(seen_B, z, v[t] - h)
        A = (0.95 * A[0] - 0.2 * down_A[0], 0.95 * A[1] - 0.2 * down_A[1])
        m = (m[0] / 2 - 0.1 * down_B[0], m[1] / 2 - 0.1 * down_B[1])
        B = (B[0] + m[0], B[1] + m[1])
        seen_A, seen_B = (A if (t + 1) % 3 == 0 else seen_A), (B if (t + 1) % 5 == 0 else seen_B)


def bregman(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """A dual that steps, and weights `2 sigmoid(A) - 1` made of it at every third token."""
    (q, k, v), b, a = qkv(p, x), torch.sigmoid(plain(p, x, "b")), torch.sigmoid(plain(p, x, "a"))
    A = S = p["S.weight"]
    for t in range(len(x)):
        yield at(S, q[t])
        A = times(a[t], A) - times(b[t], outer((at(S, k[t]) - v[t]).clamp(-0.5, 0.5), k[t]))
        S = 2 * torch.sigmoid(A) - 1 if (t + 1) % 3 == 0 else S


def elastic(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """Behrouz et al. (2025), arXiv 2504.13173, elastic net retention: shrink, then a soft threshold."""
    (q, k, v), b, a = qkv(p, x), torch.sigmoid(plain(p, x, "b")), torch.sigmoid(plain(p, x, "a"))
    W = S = p["S.weight"]
    for t in range(len(x)):
        yield at(S, q[t])
        z = times(a[t], W) - times(b[t], outer(at(S, k[t]) - v[t], k[t]))
        W = z.sign() * (z.abs() - 0.01).relu()
        S = W if (t + 1) % 4 == 0 else S


def hypernet(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """What the memory answers is a matrix [8, 3] that acts on the token."""
    q, k, v = each(p, x, "q"), each(p, x, "k"), each(p, x, "v")
    k, b, u, S = (
        k / k.norm(dim=-1, keepdim=True),
        torch.sigmoid(plain(p, x, "b")),
        plain(p, x, "u"),
        zeros(12, 4),
    )
    for t in range(len(x)):
        S = S + times(b[t], outer(v[t] - at(S, k[t]), k[t]))
        yield at(S, q[t]).view(8, 3) @ u[t]


def init_other(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """A fast memory that begins every six tokens where the slow one stands."""
    q, k, v = qkv(p, x)
    A = seen_A = B = seen_B = p["A.weight"]
    for t in range(len(x)):
        B, seen_B = (seen_A, seen_A) if t % 6 == 0 else (B, seen_B)
        yield at(seen_B, q[t])
        A = A - 0.05 * outer(at(seen_A, k[t]) - v[t], k[t])
        B = B - 0.3 * outer(at(seen_B, k[t]) - v[t], k[t])
        seen_A, seen_B = (A if (t + 1) % 6 == 0 else seen_A), (B if (t + 1) % 2 == 0 else seen_B)


def lookback(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """Every third step goes once more along what the last three gradients add up to."""
    (q, k, v), b, a = qkv(p, x), 0.3 * torch.sigmoid(plain(p, x, "b")), torch.sigmoid(plain(p, x, "a"))
    S = past = zeros(4, 4)
    for t in range(len(x)):
        g = outer(at(S, k[t]) - a[t][:, None] * v[t], k[t])
        S, past = S - times(b[t], g), past + g
        if (t + 1) % 3 == 0:
            S, past = S - times(b[t] / 2, past), zeros(4, 4)
        yield at(S, q[t])


def gated_terms(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """The delta rule beside a sum of what the memory itself answers, in one step."""
    (q, k, v), w, r = qkv(p, x), torch.sigmoid(each(p, x, "w")), each(p, x, "p")
    S, r = p["S.weight"], r / r.norm(dim=-1, keepdim=True)
    for t in range(len(x)):
        asked = at(S, q[t])
        S = S * w[t][:, None] - 0.4 * outer(at(S, k[t]) - v[t], k[t]) + 0.1 * outer(asked, r[t])
        yield at(S, q[t])


def product_keys(p: Parameters, x: Tensor) -> Iterator[Tensor]:
    """Lample et al. (2019), arXiv 1907.05242: slots at pairs of two addresses, here all of them, softly."""

    def pairs(z: Tensor, sharp: float) -> Tensor:
        one, two = torch.softmax(sharp * z[..., :3], -1), torch.softmax(sharp * z[..., 3:], -1)
        return (one[..., :, None] * two[..., None, :]).flatten(-2)

    w, r, v, S = pairs(each(p, x, "a"), 1), pairs(each(p, x, "d"), 4), each(p, x, "v"), p["V.weight"]
    for t in range(len(x)):
        S = S + outer(v[t] - at(S, w[t]), w[t])
        yield at(S, r[t])


AGAIN: dict[str, tuple[str, Recurrence, str, set[str]]] = {
    "attention as a recurrence": (AAREN, aaren, "XDD", {"sequential", "linear"}),
    "numbers for every channel": (NUMBERS, numbers, "DDD", {"linear_channel", "linear", "chunk"}),
    "a cascade on clocks of 3 and 5": (CASCADE, cascade, "NN", {"held"}),
    "a bounded memory": (BREGMAN, bregman, "N", {"chunk"}),
    "elastic net": (ELASTIC, elastic, "X", {"sequential"}),
    "an answer that is a matrix": (HYPERNET, hypernet, "R", {"delta"}),
    "a start in another memory": (INIT_OTHER, init_other, "RR", {"chunk"}),
    "a rule that looks back": (LOOKBACK, lookback, "R", {"filtered"}),
    "a term of its own answers": (GATED_TERMS, gated_terms, "R", {"delta_block"}),
    "product keys": (PRODUCT_KEYS, product_keys, "R", {"delta"}),
}
"""Text, recurrence, classes of the memories, the forms that take them."""
