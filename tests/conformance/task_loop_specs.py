"""Fifteen continuum memory systems that no library has, each with the same as a literal loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.conformance.task_loops import Body, Level, Weights, rms

MODEL = """model m(tokens, vocab = 7, dim = 4) {{
  x = embed(tokens, vocab, dim)
  x = system(x)
  return head(norm(x), vocab)
}}
block system(x) {{
{}
}}
{}
train m {{ task next_token(carry = "{}"); level outer every 1 step {{ "*" by sgd(lr = 0.1) }} }}
"""
Case = tuple[str, str, Callable[[], list[Level]], Body]
CASES: dict[str, Case] = {}
"""The body of the block, definitions beside it, the levels, and the loop."""


def add(name: str, text: str, levels: Callable[[], list[Level]], body: Body, beside: str = "") -> None:
    CASES[name] = text, beside, levels, body


# --- maps and rules by hand ---------------------------------------------------------------------


def mlp(w: Weights, z: Tensor) -> Tensor:
    return w["W1"] @ F.silu(w["W2"] @ z)


def residual(w: Weights, z: Tensor) -> Tensor:
    return z + mlp(w, z)


def swiglu(w: Weights, z: Tensor) -> Tensor:
    return w["W3"] @ (F.silu(w["W1"] @ z) * (w["W2"] @ z))


def matrix(w: Weights, z: Tensor) -> Tensor:
    return w["weight"] @ z


def gd(lr: float) -> Any:
    return lambda w, g, kept, t: w - lr * g


def momentum(lr: float, beta: float) -> Any:
    def step(w: Tensor, g: Tensor, kept: dict[str, Any], t: int) -> Tensor:
        kept["m"] = beta * kept.get("m", 0) - lr * g
        return w + kept["m"]

    return step


def adamw(lr: float) -> Any:
    def step(w: Tensor, g: Tensor, kept: dict[str, Any], t: int) -> Tensor:
        m = kept["m"] = 0.9 * kept.get("m", 0) + 0.1 * g
        s = kept["s"] = 0.999 * kept.get("s", 0) + 0.001 * g * g
        return (1 - lr * 0.01) * w - lr * (m / (1 - 0.9**t)) / ((s / (1 - 0.999**t)).sqrt() + 1e-8)

    return step


def lion(lr: float) -> Any:
    def step(w: Tensor, g: Tensor, kept: dict[str, Any], t: int) -> Tensor:
        m = kept.get("m", torch.zeros_like(w))
        kept["m"] = 0.99 * m + 0.01 * g
        return w - lr * torch.sign(0.9 * m + 0.1 * g)

    return step


def two_clocks(w: Tensor, g: Tensor, kept: dict[str, Any], t: int) -> Tensor:
    kept["m"] = kept.get("m", 0) + g
    if t % 2:
        return w - 0.05 / t * g
    m, kept["m"] = kept["m"], 0
    return w - 0.05 / t * g - 0.1 * m


def chain(levels: list[str]) -> Body:
    def body(slow: dict[str, Tensor], read: Any, x: Tensor, kept: dict[str, Any]) -> Tensor:
        for i, path in enumerate(levels):
            x = x + read(path, rms(x, slow[f"system.x[{i}].norm.weight"]))
        return x

    return body


# --- the systems --------------------------------------------------------------------------------

add(
    "chain of three clocks",
    """  for c, i in [3, 6, 12] {
    level f every c tokens { memory F = mlp(2) }
    F minimizes task by gd(lr = 0.3)
    x = x + F[norm(x)]
  }
  return x""",
    lambda: [Level(f"system.F[{i}]", c, mlp, gd(0.3)) for i, c in enumerate((3, 6, 12))],
    chain([f"system.F[{i}]" for i in range(3)]),
)
add(
    "a step every token",
    """  for c, i in [1, 5] {
    level f every c tokens { memory F = residual_mlp(1) }
    F minimizes task by momentum(lr = 0.1, beta = 0.5)
    x = x + F[norm(x)]
  }
  return x""",
    lambda: [Level(f"system.F[{i}]", c, residual, momentum(0.1, 0.5)) for i, c in enumerate((1, 5))],
    chain([f"system.F[{i}]" for i in range(2)]),
)


def named(*paths: str) -> Body:
    """`x = x + A[norm(x)]`, then the next, statement by statement."""

    def body(slow: dict[str, Tensor], read: Any, x: Tensor, kept: dict[str, Any]) -> Tensor:
        norms = sorted((n for n in slow if n.startswith("system.x.norm")), key=lambda n: (len(n), n))
        for path, norm in zip(paths, norms, strict=True):
            x = x + read(path, rms(x, slow[norm]))
        return x

    return body


add(
    "a rule and a map for each level",
    """  level a every 2 tokens { memory A = swiglu_map(1) }
  level b every 6 tokens { memory B = matrix() init learned }
  level c every 4 tokens { memory C = mlp(3) }
  A minimizes task by adamw(lr = 0.05)
  B minimizes task by lion(lr = 0.02)
  C minimizes task by momentum(lr = 0.2, beta = 0.8)
  x = x + A[x]
  x = x + B[x]
  return x + C[x]""",
    lambda: [
        Level("system.A", 2, swiglu, adamw(0.05)),
        Level("system.B", 6, matrix, lion(0.02)),
        Level("system.C", 4, mlp, momentum(0.2, 0.8)),
    ],
    lambda slow, read, x, kept: (
        (u := (v := x + read("system.A", x)) + read("system.B", v)) + read("system.C", u)
    ),
)
NESTED = """  level slow every 9 tokens { memory B = mlp(2) }
  level fast every 3 tokens { memory A = mlp(2) init B reset every 9 tokens }
"""


def side_by_side(slow: dict[str, Tensor], read: Any, x: Tensor, kept: dict[str, Any]) -> Tensor:
    return x + read("system.A", x) + read("system.B", 2 * x)


add(
    "nested",
    NESTED
    + "  A minimizes task by gd(lr = 0.3)\n  B minimizes task by gd(lr = 0.2)\n  return x + A[x] + B[2 * x]",
    lambda: [
        Level("system.B", 9, mlp, gd(0.2)),
        Level("system.A", 3, mlp, gd(0.3), reset=9, start="system.B"),
    ],
    side_by_side,
)
add(
    "nested with a memory of its rule and a pull to its start",
    NESTED
    + "  A minimizes task by momentum(lr = 0.3, beta = 0.5) retain 0.8 toward init\n"
    + "  B minimizes task by adamw(lr = 0.05)\n  return x + A[x] + B[2 * x]",
    lambda: [
        Level("system.B", 9, mlp, adamw(0.05)),
        Level(
            "system.A", 3, mlp, momentum(0.3, 0.5), reset=9, start="system.B", retain=0.8, toward_init=True
        ),
    ],
    side_by_side,
)
add(
    "three nested",
    """  level slow every 8 tokens { memory C = mlp(1) }
  level mid every 4 tokens { memory B = mlp(1) init C reset every 8 tokens }
  level fast every 2 tokens { memory A = mlp(1) init B reset every 4 tokens }
  C minimizes task by gd(lr = 0.2)
  B minimizes task by lion(lr = 0.02)
  A minimizes task by momentum(lr = 0.2, beta = 0.9)
  return x + A[x] + B[2 * x] + C[3 * x]""",
    lambda: [
        Level("system.C", 8, mlp, gd(0.2)),
        Level("system.B", 4, mlp, lion(0.02), reset=8, start="system.C"),
        Level("system.A", 2, mlp, momentum(0.2, 0.9), reset=4, start="system.B"),
    ],
    lambda slow, read, x, kept: x + read("system.A", x) + read("system.B", 2 * x) + read("system.C", 3 * x),
)
add(
    "resets that cut a chunk",
    """  level a every 4 tokens { memory A = mlp(2) reset every 6 tokens }
  level b every 2 tokens { memory B = mlp(1) reset every 10 tokens }
  A minimizes task by momentum(lr = 0.3, beta = 0.5)
  B minimizes task by gd(lr = 0.3)
  return x + A[x] + B[2 * x]""",
    lambda: [
        Level("system.A", 4, mlp, momentum(0.3, 0.5), reset=6),
        Level("system.B", 2, mlp, gd(0.3), reset=10),
    ],
    side_by_side,
)
add(
    "independent, with a learnt sum",
    """  h = norm(x)
  y = x
  for c, i in [2, 6] {
    level f every c tokens { memory F = mlp(2) }
    F minimizes task by gd(lr = 0.3)
    y = y + 2 * sigmoid(readout(split(h, 1))) * split(F[h], 1)
  }
  return merge(y)""",
    lambda: [Level(f"system.F[{i}]", c, mlp, gd(0.3)) for i, c in enumerate((2, 6))],
    lambda slow, read, x, kept: (
        x
        + sum(
            2
            * torch.sigmoid(
                (slow[f"system.y[{i}].readout.weight"] * (h := rms(x, slow["system.h.norm.weight"]))).sum()
                + slow[f"system.y[{i}].readout.bias"].sum()
            )
            * read(f"system.F[{i}]", h)
            for i in range(2)
        )
    ),
)
add(
    "one memory read twice",
    """  level a every 3 tokens { memory A = mlp(2) }
  A minimizes task by gd(lr = 0.2)
  x = x + A[x]
  return x + 0.5 * A[2 * x]""",
    lambda: [Level("system.A", 3, mlp, gd(0.2))],
    lambda slow, read, x, kept: (u := x + read("system.A", x)) + 0.5 * read("system.A", 2 * u),
)
add(
    "weights that fade",
    """  level a every 2 tokens { memory A = mlp(2) }
  level b every 4 tokens { memory B = matrix() init learned }
  A minimizes task by gd(lr = 0.3) retain 0.9
  B minimizes task by momentum(lr = 0.1, beta = 0.5) retain 0.7 toward init
  return x + A[x] + B[2 * x]""",
    lambda: [
        Level("system.A", 2, mlp, gd(0.3), retain=0.9),
        Level("system.B", 4, matrix, momentum(0.1, 0.5), retain=0.7, toward_init=True),
    ],
    side_by_side,
)
add(
    "a rule of one's own with two clocks and a schedule",
    """  for c, i in [2, 4] {
    level f every c tokens { memory F = mlp(2) }
    F minimizes task by mine(lr = 0.05)
    x = x + F[norm(x)]
  }
  return x""",
    lambda: [Level(f"system.F[{i}]", c, mlp, two_clocks) for i, c in enumerate((2, 4))],
    chain([f"system.F[{i}]" for i in range(2)]),
    """rule mine(lr) {
  memory m = like(W)
  m = m + g
  W = W - lr / step * g
  every 2 steps { W = W - 2 * lr * m; m = 0 }
}""",
)
add(
    "a clock longer than the text",
    """  level a every 64 tokens { memory A = mlp(2) }
  level b every 32 tokens { memory B = mlp(1) }
  A minimizes task by gd(lr = 5)
  B minimizes task by gd(lr = 5)
  return x + A[x] + B[2 * x]""",
    lambda: [Level("system.A", 64, mlp, gd(5.0)), Level("system.B", 32, mlp, gd(5.0))],
    side_by_side,
)


def averaged(slow: dict[str, Tensor], read: Any, x: Tensor, kept: dict[str, Any]) -> Tensor:
    """A vector that runs along, in front of the memory."""
    h = kept["h"] = 0.8 * kept.get("h", torch.zeros_like(x)) + 0.2 * x
    x = x + read("system.A", h)
    last, kept["last"] = kept.get("last", torch.zeros_like(x)), x
    return x + read("system.B", x - last)


add(
    "state that crosses the edges of segments",
    """  level token every 1 token { memory h = matrix(out = dim(x), in = 1) }
  level a every 3 tokens { memory A = mlp(2) }
  level b every 6 tokens { memory B = mlp(1) }
  A minimizes task by gd(lr = 0.3)
  B minimizes task by gd(lr = 0.3)
  h = 0.8 * h[1] + 0.2 * x
  x = x + A[h[1]]
  return x + B[x - shift(x)]""",
    lambda: [Level("system.A", 3, mlp, gd(0.3)), Level("system.B", 6, mlp, gd(0.3))],
    averaged,
)


def associative(slow: dict[str, Tensor], read: Any, x: Tensor, kept: dict[str, Any]) -> Tensor:
    """A matrix with an objective of its own, l2 on what is there, in front of the memory of the task."""
    M = kept.get("M", torch.zeros(len(x), len(x), dtype=x.dtype))
    k = x / torch.sqrt((x * x).sum() + 1e-6)
    M = kept["M"] = M - 0.5 * torch.outer(M @ k - x, k)
    return x + M @ k + read("system.A", x + M @ k)


add(
    "a local objective before that of the task",
    """  level token every 1 token { memory M = matrix() }
  level a every 3 tokens { memory A = mlp(2) }
  A minimizes task by gd(lr = 0.3)
  k = l2norm(x)
  M[k] <- x  minimize l2  by gd(lr = 0.5)
  x = x + M[k]
  return x + A[x]""",
    lambda: [Level("system.A", 3, mlp, gd(0.3))],
    associative,
)


def held(slow: dict[str, Tensor], read: Any, x: Tensor, kept: dict[str, Any]) -> Tensor:
    """A local memory on a slow clock: gradients at what is committed, seen when five tokens are over."""
    zero = torch.zeros(len(x), len(x), dtype=x.dtype)
    M, gathered = kept.get("M", zero), kept.get("gathered", zero)
    count = int(kept.get("count", torch.tensor(0)))
    k = x / torch.sqrt((x * x).sum() + 1e-6)
    y = x + M @ k
    gathered = gathered - 0.5 * torch.outer(M @ k - x, k)
    if (count + 1) % 5 == 0:
        M, gathered = M + gathered, zero
    kept.update(M=M, gathered=gathered, count=torch.tensor(count + 1))
    return y + read("system.A", y)


add(
    "a local objective on a clock of its own",
    """  level local every 5 tokens { memory M = matrix() }
  level a every 2 tokens { memory A = mlp(2) }
  A minimizes task by momentum(lr = 0.2, beta = 0.5)
  k = l2norm(x)
  y = x + M[k]
  M[k] <- x  minimize l2  by gd(lr = 0.5)
  return y + A[y]""",
    lambda: [Level("system.A", 2, mlp, momentum(0.2, 0.5))],
    held,
)


def per_head(slow: dict[str, Tensor], read: Any, x: Tensor, kept: dict[str, Any]) -> Tensor:
    return x + read("system.A", x)


def heads_of(w: Weights, z: Tensor) -> Tensor:
    return torch.cat([w["W1"][h] @ F.silu(w["W2"][h] @ z.view(2, -1)[h]) for h in range(2)])


add(
    "a memory per head",
    """  level a every 3 tokens { memory A = mlp(2) per head(2) }
  A minimizes task by adamw(lr = 0.05)
  return x + merge(A[split(x, 2)])""",
    lambda: [Level("system.A", 3, heads_of, adamw(0.05))],
    per_head,
)
