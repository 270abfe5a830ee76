"""N and N steps are 2N to the last bit: every rule of the library, cut within a slow level's window."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from nldsl.assets import specs_folder
from nldsl.train import checkpoint as saved
from nldsl.train.config import RunConfig
from nldsl.train.loop import CHECKPOINTS, Trainer
from nldsl.train.prepared import prepare_documents
from nldsl.train.run import start
from nldsl.train.tokenizing import train_tokenizer

RULES = sorted(p.stem for p in (specs_folder() / "rules").glob("*.nl"))
FAST = ("adamw", "soap", "dgd")
OPTIONS = {"m3": ", slow = 2", "m3_ema": ", slow = 2", "soap": ", slow = 2", "shampoo": ", slow = 2"}
MODEL = """
model small(tokens, vocab = 300, dim = 16) {
  x = embed(tokens, vocab, dim)
  x = x + gated_deltanet(norm(x), 2)
  x = x + cms(x, chunks = [4, 8])
  return head(norm(x), vocab)
}
train small {
  task next_token(carry = "trunc")
  truncate 8 tokens
  clip 1.0
  level often every 1 step { matrices by %s }
  level seldom every 3 steps { rest, norms, embeddings, head by adamw(lr = wsd(1e-2, steps = 9, warmup = 2)) }
}
"""
LENGTH, STEPS, CUTS = 12, 8, (1, 4)


def call(rule: str) -> str:
    """A rule under a schedule; one that goes around another one has no rate of its own."""
    if rule == "lookahead":
        return "lookahead(inner = adamw(lr = 1e-3), slow = 3)"
    return f"{rule}(lr = wsd(1e-3, steps = 9, warmup = 2){OPTIONS.get(rule, '')})"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Documents of many lengths, as tokens where the package for them is there."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "text").mkdir()
    for n in range(40):
        lines = "".join(f"document {n}, line {i}: {n * i} bottles\n" for i in range(1, 3 + n % 7))
        (folder / "text" / f"{n}.txt").write_text(lines)
    tokenizer = ""
    if find_spec("tokenizers"):
        tokenizer = str(folder / "tokenizer.json")
        train_tokenizer([str(folder / "text")], tokenizer, vocab=300)
    prepare_documents([str(folder / "text")], str(folder / "shards"), tokenizer=tokenizer)
    return str(folder / "shards")


def trainer(rule: str, data: str, folder: Path, resume: bool = False, **options: Any) -> Trainer:
    source = folder.parent / f"{rule}.nl"
    source.write_text(MODEL % call(rule))
    given: dict[str, Any] = {"data": data, "batch": 2, "length": LENGTH, "stream": True, "seed": 2, **options}
    return start(RunConfig(str(source), steps=STEPS, **given), folder, resume)


def steps(trained: Trainer, until: int) -> list[dict[str, Any]]:
    found = []
    while trained.step < until:
        record = trained.train_step()
        found.append({n: v for n, v in record.items() if n not in ("seconds", "tokens_per_second")})
    return found


def check(rule: str, data: str, folder: Path, **options: Any) -> None:
    """Weights, memories of rules, gathered gradients, clocks, carried states, generator: all there is."""
    whole = trainer(rule, data, folder / "whole", **options)
    told = steps(whole, STEPS)
    whole.save(keep=1)
    wanted = saved.load_newest(folder / "whole" / CHECKPOINTS)
    assert {"gathered", "count"} <= {name.replace("/", ":").split(":")[-1] for name in wanted.tensors}
    for cut in CUTS:
        where = folder / f"cut{cut}"
        first = trainer(rule, data, where, **options)
        steps(first, cut)
        first.save(keep=1)
        torch.manual_seed(99)
        again = trainer(rule, data, where, resume=True, **options)
        assert again.step == cut and steps(again, STEPS) == told[cut:]
        again.save(keep=1)
        found = saved.load_newest(where / CHECKPOINTS)
        assert found.tensors.keys() == wanted.tensors.keys()
        assert [n for n, t in wanted.tensors.items() if not torch.equal(t, found.tensors[n])] == []


@pytest.mark.parametrize("rule", [r if r in FAST else pytest.param(r, marks=pytest.mark.long) for r in RULES])
def test_a_run_that_was_cut_is_the_run(rule: str, data: str, tmp_path: Path) -> None:
    check(rule, data, tmp_path, accumulate=2)


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"recompute": "blocks"}], ids=str)
def test_in_every_manner(options: dict[str, Any], data: str, tmp_path: Path) -> None:
    check("muon", data, tmp_path, **options)
