"""`nldsl export --to hf`: the folder loads in a process that has no nldsl, and says the same there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nldsl.cli.guard import guarded
from nldsl.diagnostics import SpecError
from nldsl.evaluate import Sampling, generate
from nldsl.exchange import export_hub
from nldsl.train import load_run, train

pytest.importorskip("transformers")
torch.set_num_threads(1)
MODELS = ("hope_tiny", "transformer")
PROMPTS = ["a prompt of some length", "short"]
SIZES = {"dim": 16, "depth": 1, "heads": 2}

THERE = """
import importlib.abc, json, sys
from pathlib import Path

class NoNldsl(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "nldsl":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoNldsl())
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
top, prompts = Path(sys.argv[1]), json.loads(sys.argv[2])
greedy = {"max_new_tokens": 7, "do_sample": False}
for name in sys.argv[3:]:
    model = AutoModelForCausalLM.from_pretrained(top / f"{name}-hf", trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(top / f"{name}-hf", trust_remote_code=True)
    tokens = tokenizer(prompts[0], return_tensors="pt").input_ids
    padded = tokenizer(prompts, return_tensors="pt", padding=True)
    with torch.no_grad():
        first = model(tokens[:, :5])
        found = {
            "logits": model(tokens).logits,
            "rest": model(tokens[:, 5:], state=first.state).logits,
            "loss": model(tokens, labels=tokens).loss,
            "one": [model.generate(**tokenizer(p, return_tensors="pt"), **greedy)[0, -7:] for p in prompts],
            "both": model.generate(**padded, **greedy)[:, -7:],
            "beams": model.generate(tokens, num_beams=3, **greedy)[0],
            "beams without a cache": model.generate(tokens, num_beams=3, use_cache=False, **greedy)[0],
            "empty": model.generate(**greedy)[0, -7:],
        }
        model.save_pretrained(top / f"{name}-again")
        again = AutoModelForCausalLM.from_pretrained(top / f"{name}-again", trust_remote_code=True)
        found["again"] = again(tokens).logits
    odd = "Zoë \\N{GRINNING FACE}\\n\\t  <pad> Ā"
    assert tokenizer(odd).input_ids == list(odd.encode()) and tokenizer.decode(list(odd.encode())) == odd
    torch.save(found, top / f"{name}.pt")
"""


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    (folder / "text.txt").write_text("to be or not to be, that is the question. " * 200)
    for name in MODELS:
        asked = {"data": str(folder / "text.txt"), "steps": 2, "batch": 2, "length": 32}
        train(name, out=folder / name, arguments=dict(SIZES), show=False, **asked)
        export_hub(folder / name, folder / f"{name}-hf")
    (folder / "there.py").write_text(THERE)
    keep = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HF_HOME")}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "there.py", str(folder), json.dumps(PROMPTS), *MODELS]
    subprocess.run(command, cwd=folder, env=keep | offline, check=True)
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_the_folder_says_what_the_run_says(top: Path, name: str) -> None:
    found = torch.load(top / f"{name}.pt")
    model = load_run(top / name).model
    tokens = torch.tensor([list(PROMPTS[0].encode())])
    with torch.no_grad():
        logits, _ = model(tokens)
    assert torch.equal(found["logits"], logits) and torch.equal(found["again"], logits)
    torch.testing.assert_close(found["rest"], logits[:, 5:])
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:])
    torch.testing.assert_close(found["loss"], loss)
    greedy = [list(generate(model, p.encode(), 7, Sampling(temperature=0))) for p in [*PROMPTS, ""]]
    assert [row.tolist() for row in found["one"]] == greedy[:2]
    assert found["both"].tolist() == greedy[:2], "padding in front changes nothing"
    assert found["empty"].tolist() == greedy[2]
    assert torch.equal(found["beams"], found["beams without a cache"])


def test_the_folder_is_whole(top: Path) -> None:
    names = {path.name for path in (top / "hope_tiny-hf").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "program_nldsl.py"} <= names
    card = (top / "hope_tiny-hf" / "README.md").read_text()
    assert "trust_remote_code=True" in card and "every 64 tokens" in card
    assert not [line for line in (top / "hope_tiny-hf" / "program_nldsl.py").open() if "from nldsl" in line]


def test_nothing_is_written_over(top: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(SpecError, match="NL1101"):
            export_hub(top / "hope_tiny", mine, force=force)
    assert (mine / "thesis.txt").read_text() == "years of work"
    export_hub(top / "hope_tiny", tmp_path / "made")
    with pytest.raises(SpecError, match="NL1101"):
        export_hub(top / "hope_tiny", tmp_path / "made")
    export_hub(top / "hope_tiny", tmp_path / "made", force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", "mine"]


def test_what_is_no_run_is_refused(top: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="NL0982"):
        export_hub(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        export_hub(top / "hope_tiny", tmp_path / "no" / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    assert guarded(lambda: export_hub(top / "hope_tiny", tmp_path / "out")) == 2
    assert "NL1005" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
