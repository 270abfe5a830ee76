"""What `nldsl plan --devices` predicts is what two processes hold and send."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

import nldsl
from nldsl.cli import main
from nldsl.train.config import RunConfig
from nldsl.train.spreading import predict_spread, sketch
from tests.conformance.processes import Case, spec, started

NAMES = {
    "all_reduce": "gradients summed",
    "broadcast": "matrices from owners",
    "all_gather_single": "weights gathered",
    "reduce_scatter_single": "gradients scattered",
}


@pytest.mark.long
def test_two_processes_hold_and_send_what_was_predicted(tmp_path: Path) -> None:
    cases = [
        Case(spec(model, "muon", tmp_path), f"{model}_{kind}", kind)
        for model in ("hope", "transformer")
        for kind in ("ddp", "fsdp")
    ]
    started(2, "measured", tmp_path, cases=[asdict(case) for case in cases])
    for case, found in zip(cases, json.loads((tmp_path / "measured.json").read_text()), strict=True):
        wanted = predict_spread(case.source, devices=2, parallel=case.kind, batch=4, length=32)
        assert {n: found[n] for n in ("parameters", "optimiser")} == {
            "parameters": wanted.parameters,
            "optimiser": wanted.optimiser,
        }
        assert case.kind == "ddp" or found["masters"] == wanted.masters
        told = dict(found["received"])
        exchanged = told.pop("all_to_all_single", 0)
        assert {NAMES[name]: size for name, size in told.items()} == {
            name: size for name, size in wanted.received.items() if name in map(NAMES.get, told)
        }
        assert sum(told.values()) + exchanged == wanted.communication > 0


def test_deep_models_are_measured_at_two_depths() -> None:
    """Depth 5 from depths 1 and 2 is depth 5 itself."""
    sizes = {"dim": 16, "heads": 2, "chunks": (8, 16), "depth": 5}
    config = RunConfig("hope", arguments=sizes, batch=2, length=32, steps=1)
    found, model = sketch(config, 2), nldsl.compile("hope", **sizes)
    shapes = {path: tuple(p.shape) for path, p in model.parameter_paths().items()}
    assert {path: tuple(p.shape) for path, p in found.weights.items()} == shapes
    assert found.roles == model.parameter_roles()
    alone = predict_spread("hope", devices=1, parallel="ddp", batch=2, length=32, arguments=sizes)
    assert alone.communication == 0 and alone.parameters == sum(4 * p.numel() for p in model.parameters())


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "transformer", "--set", "dim=16", "--set", "depth=1", "--set", "heads=2", "--batch", "4"]
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--devices", "4", "--parallel", "fsdp"])
    said = capsys.readouterr().out
    assert "per device" in said and "gradients to owners" in said
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--devices", "4", "--parallel", "ddp", "--json"])
    body = json.loads(capsys.readouterr().out)
    assert body["received"]["gradients summed"] == 2 * 3 * body["weights"] // 4
    with pytest.raises(SystemExit, match="1"):
        main([*words, "--devices", "3"])
