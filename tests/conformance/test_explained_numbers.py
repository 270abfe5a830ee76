"""What `explain` counts against what is there: states and parameters of compiled programs."""

from __future__ import annotations

import re
from math import prod
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import nldsl
from nldsl.assets import specs_folder
from nldsl.runtime.state import State

DIM, TOKENS = 16, 3
SMALL: dict[str, dict[str, Any]] = {
    "lact": {"window": 2, "chunk": 4},
    "titans_mac": {"segment": 4},
    **dict.fromkeys(
        ("persistent_attention", "sliding_window_attention", "titans_mag", "titans_mal"), {"window": 2}
    ),
}
"""Sizes for which a cache is full after `TOKENS` tokens."""
BLOCKS = sorted(
    path.stem
    for path in (specs_folder() / "blocks").glob("*.nl")
    if re.search(rf"^block {path.stem}\(", path.read_text(encoding="utf-8"), re.MULTILINE)
)


def numbers(state: State) -> int:
    """Floating-point numbers of a state of one sequence; counters are none."""
    return sum(t.numel() for t in state.tensors().values() if t.is_floating_point())


@pytest.mark.parametrize("name", BLOCKS)
def test_states_and_parameters_of_blocks(name: str) -> None:
    text = (specs_folder() / "blocks" / f"{name}.nl").read_text(encoding="utf-8")
    heads = {"heads": 2} if re.search(rf"^block {name}\([^)]*\bheads\b", text, re.MULTILINE) else {}
    settings = {"dim": DIM, **heads, **SMALL.get(name, {})}
    explained = nldsl.explain(name, block=name, **settings)
    model = nldsl.compile(name, block=name, **settings)
    assert (
        sum(p.numel() for p in model.parameters()) == explained.parameter_count == explained.cost.parameters
    )
    _, state = model(torch.randn(1, TOKENS, DIM))
    tasks = sum(
        r.state_bytes for level in explained.levels for r in level.problems if r.kind == "task memory"
    )
    counted = explained.cost.state_bytes(context=TOKENS) - tasks
    assert numbers(state) * 4 == counted


SIZES = {"dim": 16, "depth": 2, "vocab": 11}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("hope_tiny", {"dim": 16, "depth": 2, "heads": 2, "vocab": 11}),
        ("hope_attention", {**SIZES, "heads": 2}),
        ("gated_deltanet", {**SIZES, "heads": 2}),
        ("transformer", {**SIZES, "heads": 2}),
    ],
)
def test_states_and_parameters_of_models(name: str, settings: dict[str, Any]) -> None:
    explained = nldsl.explain(name, **settings)
    model: Any = nldsl.compile(name, **settings)
    assert sum(p.numel() for p in model.parameters()) == explained.parameter_count
    paths = {path: tuple(p.shape) for path, p in model.parameter_paths().items()}
    assert paths == {row.path: row.shape for row in explained.parameters}
    # The last token waits for its target, so it has not been processed yet.
    _, state = model.learn(torch.randint(0, 11, (1, TOKENS + 1)))
    assert numbers(state) * 4 == explained.cost.state_bytes(context=TOKENS)


@pytest.mark.parametrize(
    "name", ["swiglu", "linear_attention", "deltanet", "gated_deltanet", "titans_linear"]
)
def test_operations_of_a_token_are_those_that_torch_counts(name: str) -> None:
    settings = {"dim": 32, **({} if name == "swiglu" else {"heads": 2})}
    explained = nldsl.explain(name, block=name, **settings)
    model = nldsl.compile(name, block=name, lowering="sequential", **settings)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randn(1, 5, 32))
    # Convolutions are written as sums of shifted products, which the counter does not see.
    windows = sum(2 * prod(row.shape) for row in explained.parameters if row.path.endswith(".conv.weight"))
    assert counter.get_total_flops() == 5 * (explained.cost.decode.fixed - windows)
