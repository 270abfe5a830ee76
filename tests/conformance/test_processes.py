"""Two processes are one: weights, losses and norms to 1e-6, checkpoints from any number to any number."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nldsl.train import load_run
from nldsl.train.checkpoint import SHARED, checkpoints
from tests.conformance.processes import Case, outcome, spec, together

CLOSE = 1e-6
PAIRS = [
    ("hope", "m3", "fsdp"),
    ("hope", "adamw", "ddp"),
    ("transformer", "muon", "fsdp"),
    ("transformer", "dgd", "ddp"),
    ("hope_attention", "slow", "ddp"),
    ("gated_deltanet", "adafactor", "fsdp"),
]
MATRIX = [
    (model, rule, kind)
    for model in ("hope", "hope_attention", "transformer")
    for rule in ("adamw", "muon", "m3")
    for kind in ("ddp", "fsdp")
]
MORE = [("hope_trunc", "shampoo", "fsdp"), ("gated_deltanet", "slow", "ddp"), ("hope", "dgd", "ddp")]


def compare(one: dict[str, Any], two: dict[str, Any], close: float = CLOSE) -> None:
    """Weights, losses and held-out bits are close; the weights have moved much further than that."""
    assert one["weights"].keys() == two["weights"].keys()
    for path, weight in one["weights"].items():
        assert float((weight - two["weights"][path]).abs().max()) <= close, path
    moved = max(float((w - one["before"][path]).abs().max()) for path, w in one["weights"].items())
    assert moved > 1000 * close
    for (loss, norm), (other, others) in zip(one["told"], two["told"], strict=True):
        assert abs(loss - other) <= close and abs(norm - others) <= 2e-5 * norm
    assert abs(one["bits"] - two["bits"]) <= close


def agree(folder: Path, pairs: list[tuple[str, str, str]], **options: Any) -> None:
    cases = [
        Case(spec(model, rule, folder), f"{model}_{rule}_{kind}", kind, options=options)
        for model, rule, kind in pairs
    ]
    for case, two in zip(cases, together(2, cases, folder), strict=True):
        one = outcome(replace(case, kind="", folder=f"{case.folder}_alone"), folder)
        compare(one, two)


def test_two_processes_are_one(tmp_path: Path) -> None:
    """Rules by element, by matrix, on slow clocks and by rows; task memories and learned starts."""
    agree(tmp_path, PAIRS)


@pytest.mark.long
def test_every_model_with_every_rule(tmp_path: Path) -> None:
    agree(tmp_path / "one", MATRIX[:9])
    agree(tmp_path / "two", MATRIX[9:] + MORE)
    agree(tmp_path / "sums", [("hope", "muon", "fsdp"), ("transformer", "m3", "ddp")], accumulate=2)


def test_a_checkpoint_goes_to_any_number_of_processes(tmp_path: Path) -> None:
    """Two write, one goes on; one writes, two go on; as the run that was never cut, and streams too."""
    options = {"stream": True}
    hope, plain = spec("hope", "m3", tmp_path), spec("gated_deltanet", "muon", tmp_path)
    whole = Case(hope, "whole", steps=8, take=8, options=options)
    first = replace(whole, folder="two", kind="fsdp", take=5, save=True)
    async_first = Case(plain, "later", "ddp", steps=8, take=5, save=True, later=True)
    one = replace(first, folder="one", kind="")
    outcome(one, tmp_path)
    goes_on = replace(one, kind="ddp", take=3, save=False, resume=True)
    cut, later, continued = together(2, [first, async_first, goes_on], tmp_path)
    uncut = outcome(whole, tmp_path)
    assert [norm for _, norm in cut["told"]] == pytest.approx([norm for _, norm in uncut["told"][:5]])
    for found in (continued, outcome(replace(first, kind="", take=3, save=False, resume=True), tmp_path)):
        for path, weight in uncut["weights"].items():
            assert float((weight - found["weights"][path]).abs().max()) <= CLOSE, path
        assert found["told"] == [pytest.approx(told, rel=1e-5) for told in uncut["told"][5:]]
    saved = checkpoints(tmp_path / "later" / "checkpoints")
    assert [json.loads((path / "state.json").read_text())["format"] for path in saved] == [SHARED]
    # What was written while training went on is what stood then, not what came of it.
    kept = load_run(tmp_path / "later").model.parameter_paths()
    five = outcome(Case(plain, "five", steps=8, take=5), tmp_path)["weights"]
    for path, weight in kept.items():
        assert float((five[path] - weight).abs().max()) <= CLOSE
        assert not torch.equal(later["weights"][path], weight), path
