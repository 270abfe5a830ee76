"""The zoo's models: layers by pattern, each with its norm, residual and feed-forward, written out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nldsl.driver import compile
from nldsl.graph import open_program
from nldsl.train.config import RunConfig
from nldsl.train.data import prepare
from nldsl.train.loop import Trainer
from tests.conformance.builders import draw
from tests.conformance.test_zoo_erase import delta, gated, kda, projected
from tests.conformance.test_zoo_sums import mamba1, mamba2
from tests.conformance.zoo import (
    Array,
    D,
    H,
    Oracle,
    T,
    Weights,
    agree,
    answer,
    cut,
    join,
    rotate,
    sigmoid,
    silu,
    softplus,
)
from tests.conformance.zoo_deep import attend


def attention(p: Weights, x: Array, window: int = T, heads: int = H, groups: int = 1) -> Array:
    """Softmax attention (Eq. 62-63): `groups` query heads share a key, the last `window` tokens are seen."""
    q = cut(p.linear(x, "q.linear"), heads)
    k, v = (np.repeat(cut(p.linear(x, f"{n}.linear"), heads // groups), groups, 1) for n in "kv")
    y = np.zeros_like(q)
    for pair in range(0, heads, H):
        near = slice(pair, pair + H)
        y[:, near] = attend(
            rotate(q[:, near]), rotate(k[:, near]), v[:, near], lambda t: max(0, t - window + 1)
        )
    return p.linear(join(y), "out.linear")


def windowed(p: Weights, x: Array) -> Array:
    return attention(p.below("attention"), x, window=4)


def whole(p: Weights, x: Array) -> Array:
    """A window longer than the text."""
    return attention(p.below("attention"), x)


def gated_deltanet(p: Weights, x: Array) -> Array:
    alpha = np.exp(-softplus(p.linear(x, "alpha.linear")))
    return gated(p, x, delta(*projected(p, x), alpha, sigmoid(p.linear(x, "beta.linear"))))


def swiglu(p: Weights, x: Array) -> Array:
    return p.linear(silu(p.linear(x, "gate.linear")) * p.linear(x, "out.linear"), "out.linear_2")


def stack(p: Weights, tokens: Array, layers: list[tuple[str, str, Oracle]]) -> Array:
    """Embedding, `x + layer(norm(x))` for (path, norm, layer) in turn, norm, scores."""
    x = p("x.embed.weight")[tokens]
    inner = p.below("blocks[0]")
    for path, norm, layer in layers:
        x = x + layer(inner.below(path), inner.rms(x, norm))
    return p.linear(p.rms(x, "out.norm"), "out.head")


def pattern(*mixers: tuple[str, Oracle]) -> list[tuple[str, str, Oracle]]:
    """The layers of `hybrid`: every mixer with its feed-forward."""
    found = []
    for i, (name, oracle) in enumerate(mixers):
        found += [(f"{name}[{i}]", f"x[{i}].norm", oracle), (f"swiglu[{i}]", f"x[{i}].norm_2", swiglu)]
    return found


MODELS: dict[str, list[tuple[str, str, Oracle]]] = {
    "lm": [("attention", "x.norm", attention), ("swiglu", "x.norm_2", swiglu)],
    "kda": [("kda", "x.norm", kda), ("swiglu", "x.norm_2", swiglu)],
    "mamba": [("mamba1", "x.norm", mamba1)],
    "samba": [
        ("mamba1", "x.norm", mamba1),
        ("swiglu", "x.norm_2", swiglu),
        ("sliding_window_attention", "x.norm_3", windowed),
        ("swiglu_2", "x.norm_4", swiglu),
    ],
    "hybrid": pattern(("gated_deltanet", gated_deltanet), ("attention", attention)),
    "gated_deltanet_h1": pattern(("gated_deltanet", gated_deltanet), ("sliding_window_attention", whole)),
    "kimi_linear": pattern(("kda", kda), ("kda", kda), ("kda", kda), ("attention", attention)),
    "mamba2_hybrid": pattern(
        ("mamba2", mamba2), ("mamba2", mamba2), ("mamba2", mamba2), ("attention", attention)
    ),
}
SIZES = {"mamba": {}, "samba": {"heads": H, "window": 4}}


@pytest.mark.parametrize("name", MODELS)
def test_model_is_the_stack_of_its_layers(name: str) -> None:
    program = open_program(name, dim=D, vocab=7, depth=1, **SIZES.get(name, {"heads": H}))
    weights = draw(program)
    tokens = torch.randint(0, 7, (2, T), generator=torch.Generator().manual_seed(3))
    plain = Weights({path: w.numpy() for path, w in weights.items()})
    expected = torch.stack([torch.from_numpy(stack(plain, row, MODELS[name])) for row in tokens.numpy()])
    torch.testing.assert_close(answer(program, weights, tokens), expected, rtol=1e-10, atol=1e-10)


def test_sliding_window_attention() -> None:
    agree("sliding_window_attention", windowed, heads=H, window=4)


def test_grouped_query_attention() -> None:
    agree(
        "grouped_query_attention", lambda p, x: attention(p.below("attention"), x, heads=4, groups=2), heads=4
    )


def test_drawn_features_stay_as_drawn(tmp_path: Path) -> None:
    """Performer learns, its random features do not: no gradient, and no decay either."""
    (tmp_path / "text").write_bytes(b"a line of text that comes again\n" * 400)
    corpus = prepare(str(tmp_path / "text"), tmp_path / "shards", length=12)
    model = compile("performer", dim=D, depth=1, heads=H)
    before = {path: w.detach().clone() for path, w in model.parameter_paths().items()}
    config = RunConfig(source="performer", data="text", batch=2, length=12, seed=1, steps=4)
    Trainer(model, corpus, config, tmp_path).run(keep=1, show=False)
    still = {path for path, w in model.parameter_paths().items() if torch.equal(w, before[path])}
    assert still == {p for p in before if "random_features" in p} != set()
