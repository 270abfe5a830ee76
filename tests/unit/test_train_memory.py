"""The predicted memory of a step: counted by hand, measured at the length itself, refused if too much."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import nldsl
from nldsl.cli import main
from nldsl.diagnostics import SpecError
from nldsl.train import memory, train
from nldsl.train.building import step_of
from nldsl.train.config import RunConfig
from nldsl.train.memory import Peak, measure, optimiser_bytes, predict, unpack
from nldsl.train.run import predict_memory
from tests.unit.standin import ADAMW, MUON, StandIn, plan_of

ONE = RunConfig("a model", steps=1)
SIZES = {
    "gated_deltanet": {"dim": 16, "depth": 1, "heads": 2},
    "transformer": {"dim": 16, "depth": 1, "heads": 2},
    "hope_tiny": {"dim": 16, "depth": 1, "chunks": (32, 64)},
}


@pytest.mark.parametrize("name", SIZES)
def test_what_is_scaled_is_what_is_there(name: str) -> None:
    """A batch of 3 at a length beyond all that was measured, and measured itself."""
    model = nldsl.compile(name, **SIZES[name])
    found = predict(model, model.program.train, step_of(model, ONE), batch=3, length=384)
    assert found.measured == (64, 128, 256)
    state, activations = measure(
        model, lambda m, tokens: step_of(m, ONE)(m, tokens.expand(3, -1).contiguous()), 384
    )
    assert found.state == pytest.approx(state, rel=0.01)
    assert found.activations == pytest.approx(activations, rel=0.03)
    sizes = [p.numel() * 4 for p in model.parameters()]
    assert found.parameters == found.gradients == sum(sizes)
    assert found.total > found.activations + 2 * sum(sizes)


def test_activations_are_what_autograd_saves() -> None:
    """A chain whose saved tensors one can count: tanh keeps its output, the product its input."""
    x, w = torch.randn(5, 7), torch.randn(7, 7, requires_grad=True)
    peak = Peak([w])
    with torch.autograd.graph.saved_tensors_hooks(peak.pack, unpack):
        y = torch.tanh(x @ w)
        z = torch.tanh(y @ w)
        assert peak.now == peak.most == 3 * 5 * 7 * 4  # x, y (saved twice, once counted), z
        z.sum().backward()
    assert peak.now == 0 and peak.most == 3 * 5 * 7 * 4


def test_optimiser_memories_are_counted_by_hand() -> None:
    """AdamW keeps two per weight, muon one; every weight has a step count of its own."""
    model = StandIn()
    plan = plan_of(MUON, ADAMW)
    slots = {"M.W1": 1, "linear.weight": 1}
    wanted = 0
    for path, p in model.parameter_paths().items():
        wanted += p.numel() * 4 * next((n for end, n in slots.items() if path.endswith(end)), 2)
    assert 0 <= optimiser_bytes(model, plan) - wanted <= 5 * 4 * 16


def test_measuring_leaves_no_trace() -> None:
    model = nldsl.compile("gated_deltanet", **SIZES["gated_deltanet"])
    marked = next(iter(model.parameters()))
    marked.grad = torch.ones_like(marked)
    rng = torch.get_rng_state()
    measure(model, step_of(model, ONE), 40)
    assert torch.equal(torch.get_rng_state(), rng) and torch.equal(marked.grad, torch.ones_like(marked))
    assert [p for p in model.parameters() if p.grad is not None] == [marked]


def test_truncation_bounds_the_history(tmp_path: Path) -> None:
    spec = """
    model cut(tokens, vocab = 256, dim = 16) {
      return head(gated_deltanet(norm(embed(tokens, vocab, dim)), 2), vocab)
    }
    train cut {
      task next_token
      %s
      rest by adamw(lr = 1e-3)
    }
    """
    sizes = []
    for line in ("", "truncate 32 tokens"):
        (tmp_path / "cut.nl").write_text(spec % line)
        sizes.append(predict_memory(tmp_path / "cut.nl", batch=1, length=256).activations)
    assert sizes[1] < sizes[0] / 4


def test_what_does_not_fit_is_refused_with_the_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_bytes(b"some text that is read again and again " * 300)
    common = {"data": str(tmp_path / "text"), "steps": 1, "length": 32, "show": False}
    common |= {"arguments": SIZES["gated_deltanet"]}
    monkeypatch.setattr(memory, "available", lambda: 8 * 2**20)
    with pytest.raises(SpecError) as caught:
        train("gated_deltanet", out=tmp_path / "run", batch=512, **common)
    finding = caught.value.diagnostics[0]
    assert finding.code == "NL0991" and "8.0 MiB" in finding.message and "activations" in finding.notes[0]
    assert not (tmp_path / "run" / "run.json").exists()
    assert train("gated_deltanet", out=tmp_path / "run", batch=2, **common).steps == 1
    size = ["--set", "dim=16", "--set", "depth=1", "--set", "heads=2", "--length", "32"]
    with pytest.raises(SystemExit):
        main(["plan", "gated_deltanet", *size, "--batch", "512", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["total"] == sum(
        told[n] for n in ("parameters", "gradients", "optimiser", "state", "activations")
    )
    assert told["total"] > 8 * 2**20  # the number that was refused


def test_the_estimate_is_of_what_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks computed again, and half precision, save what they are for."""
    size = ["--set", "dim=32", "--set", "depth=4", "--set", "heads=2", "--length", "128", "--json"]
    told = []
    for words in ([], ["--recompute", "blocks"], ["--precision", "bfloat16"]):
        with pytest.raises(SystemExit, match="0"):
            main(["plan", "transformer", *size, *words])
        told.append(json.loads(capsys.readouterr().out)["activations"])
    assert told[1] < told[0] / 2 and told[2] < told[0]


def test_a_process_that_holds_a_share_is_asked_for_a_share() -> None:
    """What is refused whole goes in shares, by the numbers of `plan --devices`."""
    from nldsl.train.spreading import predict_spread, refusal  # torch.distributed takes a second

    config = RunConfig(
        "transformer", arguments={"dim": 32, "depth": 8, "heads": 2}, batch=4, length=16, steps=1
    )
    model = nldsl.compile("transformer", **config.arguments)
    size = {"batch": 4, "length": 16, "arguments": config.arguments}
    whole, share = (predict_spread("transformer", devices=4, parallel=p, **size) for p in ("ddp", "fsdp"))
    assert share.total < 0.75 * whole.total
    between = (share.total + whole.total) // 2
    error = refusal(model, config, 4, sharded=False, have=between)
    assert error is not None and error.diagnostics[0].code == "NL0991"
    assert "each of the processes" in error.diagnostics[0].message
    assert "gathered" in error.diagnostics[0].notes[0]
    assert refusal(model, config, 4, sharded=True, have=between) is None
    assert refusal(model, config, 4, sharded=True, have=share.total) is None
    assert refusal(model, config, 4, sharded=True, have=share.total - 1) is not None
