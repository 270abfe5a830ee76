"""What the tests of the zoo share: a block with drawn weights, its answer, numpy words to write with.

An oracle is `oracle(p, x) -> y`: `x [T, d]` one sequence, `p` the weights by path.  It is written from the
paper in loops over tokens and heads, and shares no code with nldsl.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nldsl.driver import compile
from nldsl.graph import open_program
from nldsl.spec.program import Program
from tests.conformance.builders import draw

torch.set_num_threads(1)
T, D, H = 11, 8, 2
Array = np.ndarray
Oracle = Callable[["Weights", Array], Array]


class Weights:
    """The weights of a block by path, and the layers that are made of them."""

    def __init__(self, found: dict[str, Array], prefix: str = "") -> None:
        self.found, self.prefix = found, prefix

    def __call__(self, path: str) -> Array:
        return self.found[self.prefix + path]

    def below(self, path: str) -> Weights:
        """Those of a block called inside."""
        return Weights(self.found, f"{self.prefix}{path}.")

    def linear(self, x: Array, name: str) -> Array:
        """`x W^T (+ b)` with `name.weight` and, if there is one, `name.bias`."""
        bias = self.found.get(f"{self.prefix}{name}.bias")
        y = x @ self(f"{name}.weight").T
        return y if bias is None else y + bias

    def conv(self, x: Array, name: str) -> Array:
        """Causal depthwise convolution of `[T, d]`."""
        w, b = self(f"{name}.weight"), self(f"{name}.bias")
        padded = np.concatenate([np.zeros((w.shape[1] - 1, x.shape[1])), x])
        return np.stack([(padded[t : t + w.shape[1]].T * w).sum(1) + b for t in range(len(x))])

    def short(self, x: Array, name: str) -> Array:
        """linear, convolution, SiLU."""
        return silu(self.conv(self.linear(x, f"{name}.linear"), f"{name}.conv"))

    def rms(self, x: Array, name: str, eps: float = 1e-6) -> Array:
        """Root mean square norm of the last axis."""
        return self(f"{name}.weight") * x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)

    def layernorm(self, x: Array, name: str, eps: float = 1e-5) -> Array:
        """Layer norm of the last axis."""
        centred = x - x.mean(-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        return self(f"{name}.weight") * unit + self(f"{name}.bias")


def sigmoid(x: Array) -> Array:
    """`1 / (1 + e^-x)`."""
    return 1 / (1 + np.exp(-x))


def silu(x: Array) -> Array:
    """`x sigmoid(x)`."""
    return x * sigmoid(x)


def softplus(x: Array) -> Array:
    """`log(1 + e^x)`."""
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def unit(x: Array, eps: float = 1e-6) -> Array:
    """L2-normalised along the last axis."""
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + eps)


def cut(x: Array, heads: int = H) -> Array:
    """`[T, d]` in heads, `[T, H, d / H]`."""
    return x.reshape(len(x), heads, -1)


def join(x: Array) -> Array:
    """Heads side by side again."""
    return x.reshape(len(x), -1)


def scan(step: Callable[..., tuple[Any, Array]], start: Callable[[int], Any], *streams: Array) -> Array:
    """`state, y = step(state, *tokens)` for every head of `[T, H, ..]` streams, from `start(head)`."""
    columns = []
    for h in range(streams[0].shape[1]):
        state, rows = start(h), []
        for t in range(len(streams[0])):
            state, y = step(state, *(s[t, h] for s in streams))
            rows.append(y)
        columns.append(np.stack(rows))
    return np.stack(columns, 1)


def rotate(x: Array, base: float = 10000.0) -> Array:
    """Rotary positions of `[T, H, d]`: pairs (i, i + d/2) turned by t base^(-2i/d)."""
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None, None] * base ** (-np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], -1)


def answer(program: Program, weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The compiled block's output."""
    layer = compile(program, dtype=torch.float64)
    with torch.no_grad():
        for path, parameter in layer.parameter_paths().items():
            parameter.copy_(weights[path])
        return layer(x)[0]


def agree(name: str, oracle: Oracle, source: str = "", **arguments: Any) -> None:
    """The block `name`, of the file `source`, and its oracle give the same for two sequences."""
    program = open_program(source or name, block=name, dim=D, **arguments)
    weights = draw(program)
    x = torch.randn(2, T, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = answer(program, weights, x)
    plain = Weights({path: w.numpy() for path, w in weights.items()})
    expected = torch.stack([torch.from_numpy(oracle(plain, sample)) for sample in x.numpy()])
    assert expected.abs().max() > 1e-3, "an oracle that says nothing"
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
