"""Table 6: self-modifying Titans and what its rows take away or add, from Eq. 83-92 and the readings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conformance.zoo import Array, H, Weights, agree, cut, join, silu
from tests.conformance.zoo_deep import tensor

CLOCKS = {"Mk": 3, "Mv": 3, "Mq": 3, "Me": 3, "Ma": 3, "M": 4}
"""Tokens between two commits of each memory."""


def residual(w: dict[str, Tensor], z: Tensor) -> Tensor:
    """Eq. 89: z + W1 silu(W2 z)."""
    return z + w["W1"] @ torch.nn.functional.silu(w["W2"] @ z)


def unit(z: Tensor) -> Tensor:
    return z / torch.sqrt((z * z).sum() + 1e-6)


class Memory:
    """One memory of one head: running weights, those of the last commit, and where it started."""

    def __init__(self, p: Weights, name: str, head: int) -> None:
        self.every = CLOCKS[name]
        self.start = {n: tensor(p(f"{name}.{n}")[head]) for n in ("W2", "W1")}
        self.running, self.seen = dict(self.start), dict(self.start)
        self.momentum = {n: torch.zeros_like(w) for n, w in self.start.items()}

    def __call__(self, z: Tensor) -> Tensor:
        return residual(self.seen, z)

    def write(self, k: Tensor, target: Tensor, eta: float, alpha: float, form: dict[str, Any]) -> None:
        """Eq. 88 and 92 at the committed weights, the rate by the square of each own input (P5, P22)."""
        fixed = {n: w.clone().requires_grad_() for n, w in self.seen.items()}
        loss = -(residual(fixed, k) * target).sum()
        slopes = torch.autograd.grad(loss, [fixed["W2"], fixed["W1"]])
        inputs = (k, torch.nn.functional.silu(self.seen["W2"] @ k))
        for n, g, z in zip(("W2", "W1"), slopes, inputs, strict=True):
            away = self.running[n] - self.start[n]
            erased = torch.outer(away @ z, z) if form.get("erase", True) else torch.zeros_like(g)
            step = -eta / (1e-2 + z @ z) * (erased + g)
            beta = form.get("beta", 0.0)
            self.momentum[n] = beta * self.momentum[n] + (1 - beta) * step
            self.running[n] = self.start[n] + alpha * away + self.momentum[n]


def titans(p: Weights, x: Array, **form: Any) -> Array:
    """The mixer: `inner` are the projections that are memories, `decay` and `erase` parts of the rule."""
    inner, decays = form.get("inner", "kv"), form.get("decay", True)
    u = silu(p.conv(x, "u.conv")) + x
    z = p.rms(cut(u), "z.norm")
    fixed = {n: cut(p.linear(u, f"{n}.linear")) for n in "qkv" if n not in inner}
    y = np.zeros_like(z)
    for h in range(H):
        named = [f"M{n}" for n in inner] + ["Me"] + ["Ma"] * decays + ["M"]
        memories = {name: Memory(p, name, h) for name in named}

        def read(name: str, token: Tensor, h: int = h, memories: dict[str, Memory] = memories) -> float:
            short = {"Me": "eta", "Ma": "alpha"}[name]
            score = memories[name](token) @ tensor(p(f"{short}.readout.weight")[h])
            return float(torch.sigmoid(score + float(p(f"{short}.readout.bias")[h])))

        for t in range(len(x)):
            token = tensor(z[t, h])
            q, k, v = (
                unit(memories[f"M{n}"](token) if n in inner else tensor(fixed[n][t, h])) for n in "qkv"
            )
            alpha = read("Ma", token) if decays else 1.0
            eta = (1 + alpha) * read("Me", token)
            y[t, h] = memories["M"](q).numpy()
            targets = {name: unit(memory(v)) for name, memory in memories.items()}
            for name, memory in memories.items():
                memory.write(k, targets[name], eta, alpha, form)
                if (t + 1) % memory.every == 0:
                    memory.seen = dict(memory.running)
    return p.linear(join(p.rms(y, "out.norm")), "out.linear")


ROWS: dict[str, dict[str, Any]] = {
    "self_modifying_titans": {},
    "self_modifying_titans_without_dgd": {"erase": False},
    "self_modifying_titans_without_decay": {"decay": False},
    "self_modifying_titans_without_inner_key": {"inner": "v"},
    "self_modifying_titans_without_inner_value": {"inner": "k"},
    "self_modifying_titans_with_inner_query": {"inner": "kvq"},
    "self_modifying_titans_with_momentum": {"beta": 0.5},
}
FILES = {name: name.replace("self_modifying_titans", "hope") for name in ROWS} | {
    "self_modifying_titans": "self_modifying_titans"
}


@pytest.mark.parametrize("name", ROWS)
def test_row_of_table_6(name: str) -> None:
    sizes = {"heads": H, "chunk": CLOCKS["Mk"], "memory_chunk": CLOCKS["M"]}
    agree(name, lambda p, x: titans(p, x, **ROWS[name]), source=FILES[name], **sizes)
