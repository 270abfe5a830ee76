"""Runs of compiled models: training goes down, N + N steps are 2N, generation equals the full forward."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nldsl.cli import main
from nldsl.diagnostics import SpecError
from nldsl.evaluate import Sampling, generate
from nldsl.train import checkpoint as saved
from nldsl.train import load_run, train
from nldsl.train.config import read_config
from nldsl.train.loop import CHECKPOINTS
from nldsl.train.run import start

SMALL = {
    "gated_deltanet": {"dim": 32, "depth": 1, "heads": 2},
    "hope_tiny": {"dim": 16, "depth": 1, "chunks": (16, 32)},
    "transformer": {"dim": 32, "depth": 1, "heads": 2},
}
TEXT = b"".join(b"%d green bottles hanging on the wall, %d\n" % (i, i) for i in range(2000))


@pytest.fixture
def data(tmp_path: Path) -> str:
    (tmp_path / "text.txt").write_bytes(TEXT)
    return str(tmp_path / "text.txt")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return saved.load_newest(run / CHECKPOINTS).tensors


@pytest.mark.parametrize("name", SMALL)
def test_n_and_n_steps_are_two_n(name: str, data: str, tmp_path: Path) -> None:
    common = {"data": data, "batch": 2, "length": 40, "seed": 1, "arguments": SMALL[name], "show": False}
    train(name, out=tmp_path / "whole", steps=6, **common)
    train(name, out=tmp_path / "parts", steps=3, **common)
    train(name, out=tmp_path / "parts", steps=6, resume=True, **common)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(t, parts[path]) for path, t in whole.items())


@pytest.mark.parametrize("name", SMALL)
def test_training_learns_and_generation_is_the_full_forward(name: str, data: str, tmp_path: Path) -> None:
    result = train(
        name, out=tmp_path / "run", data=data, steps=30, batch=4, length=48, arguments=SMALL[name], show=False
    )
    assert result.heldout_bits_per_byte < 6.0
    run = load_run(tmp_path / "run")
    model, config = run.model, run.config
    assert config.arguments == SMALL[name]
    prompt = b"12 green "
    out = bytes(generate(model, prompt, 60, Sampling(temperature=0)))
    with torch.no_grad():
        whole, _ = model(torch.tensor([list(prompt + out)]))
    assert list(out) == whole[0, len(prompt) - 1 : -1].argmax(-1).tolist()


SPEC = """
use "parts/mix.nl"
model mine(tokens, vocab = 256, dim = 16) {
  x = embed(tokens, vocab, dim)
  return head(norm(x + mix(x)), vocab)
}
train mine { task next_token; level outer every 1 step { rest by adamw(lr = cosine(1e-2, warmup = 2)) } }
"""
MIX = "block mix(x) { return linear(silu(conv(linear(x), 3))) }\n"


def test_a_run_keeps_its_spec(data: str, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "mix.nl").write_text(MIX)
    (tmp_path / "mine.nl").write_text(SPEC)
    train(tmp_path / "mine.nl", out=tmp_path / "run", data=data, steps=3, batch=2, length=16, show=False)
    (tmp_path / "parts" / "mix.nl").unlink()
    (tmp_path / "mine.nl").unlink()
    (tmp_path / "run").rename(tmp_path / "moved")
    model = load_run(tmp_path / "moved").model
    assert len(list(generate(model, b"", 5, Sampling()))) == 5
    log = [json.loads(line) for line in (tmp_path / "moved" / "log.jsonl").read_text().splitlines()]
    assert [r["rest.lr"] for r in log if "rest.lr" in r][:2] == [0.005, 0.01]


SLOW = """
model slow(tokens, vocab = 256, dim = 16) {
  x = embed(tokens, vocab, dim)
  x = x + gated_deltanet(norm(x), 2)
  return head(norm(x), vocab)
}
train slow {
  task next_token
  truncate 12 tokens
  clip 0.5
  level fast every 1 step { matrices by %s }
  level slow every 4 steps { rest by adamw(lr = cosine(1e-2, warmup = 2)) }
}
"""


@pytest.mark.parametrize("cut", [2, 5])
def test_resuming_inside_a_slow_window_with_truncation_and_accumulation(
    data: str, tmp_path: Path, cut: int
) -> None:
    """Clocks, gathered gradients, clipping and micro-batches come back as they were."""
    (tmp_path / "slow.nl").write_text(SLOW % "muon(lr = 1e-2)")
    common = {"data": data, "batch": 2, "length": 40, "accumulate": 3, "show": False}
    train(tmp_path / "slow.nl", out=tmp_path / "whole", steps=8, **common)
    config = replace(read_config(tmp_path / "whole"), source=str(tmp_path / "slow.nl"))
    trainer = start(config, tmp_path / "parts", resume=False)
    for _ in range(cut):
        trainer.train_step()
    trainer.save(keep=3)
    train(tmp_path / "slow.nl", out=tmp_path / "parts", steps=8, resume=True, **common)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert any("gathered" in name for name in whole)
    assert whole.keys() == parts.keys() and all(torch.equal(t, parts[name]) for name, t in whole.items())


def test_findings_of_runs(data: str, tmp_path: Path) -> None:
    common = {"data": data, "batch": 2, "length": 16, "arguments": SMALL["gated_deltanet"], "show": False}

    def code(source: str, **options: object) -> str:
        with pytest.raises(SpecError) as caught:
            train(source, **(common | {"out": tmp_path / "run", "steps": 1} | options))
        return caught.value.diagnostics[0].code

    assert code("gated_deltanet", resume=True) == "NL0982"
    assert code("gated_deltanet", minutes=1.0) == "NL0981"
    train("gated_deltanet", out=tmp_path / "run", steps=1, **common)
    assert code("gated_deltanet") == "NL0988"
    assert code("gated_deltanet", resume=True, seed=5) == "NL0983"


def test_the_commands(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.chdir(tmp_path)

    def nldsl(*arguments: str) -> tuple[int, bytes]:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        return int(left.value.code or 0), capsysbinary.readouterr().out

    size = ["--batch", "2", "--length", "32", "--set", "dim=32", "--set", "depth=1", "--set", "heads=2"]
    train_it = ["train", "gated_deltanet", "--data", data, "--out", "run", *size]
    code, out = nldsl(*train_it, "--steps", "2", "--json")
    assert code == 0 and json.loads(out)["steps"] == 2
    assert nldsl(*train_it, "--steps", "3")[0] == 1
    code, out = nldsl(*train_it, "--steps", "3", "--resume")
    assert code == 0 and b"bits per byte" in out
    draw = ["generate", "run", "--prompt", "12 ", "--bytes", "20", "--top-k", "5", "--seed", "3"]
    code, out = nldsl(*draw)
    assert code == 0 and len(out) == 20 and nldsl(*draw) == (0, out)
    assert nldsl("generate", "nowhere")[0] == 1
    assert nldsl("train", "gated_deltanet", "--out", "x", "--data", "nowhere", "--steps", "1")[0] == 1
