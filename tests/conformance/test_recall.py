"""The memory is useful: Hope answers in-context recall by what it wrote, and not without it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytestmark = pytest.mark.long
SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "recall" / "run.py"


@pytest.fixture(scope="module")
def recall() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recall_example", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.set_num_threads(1)
    return module


def test_every_question_has_its_pair_in_the_context(recall: ModuleType) -> None:
    tokens, targets = recall.batch(16, torch.Generator().manual_seed(1))
    asked = 2 * recall.PAIRS + recall.FILLER
    for row, wanted in zip(tokens.tolist(), targets.tolist(), strict=True):
        pairs = dict(zip(row[0 : 2 * recall.PAIRS : 2], row[1 : 2 * recall.PAIRS : 2], strict=True))
        assert [pairs[k] for k in row[asked::2]] == wanted[asked::2]
        assert all(w == -100 for w in wanted[:asked])


def test_hope_recalls_with_writes_and_not_without(recall: ModuleType) -> None:
    model, history = recall.train(1000, 0, writes=True)
    assert history[-1][1] >= 0.95
    with torch.no_grad():
        recall.writes_off(model)
    assert recall.accuracy(model, torch.Generator().manual_seed(7)) < 0.3


def test_a_hope_that_never_writes_does_not_learn_to_recall(recall: ModuleType) -> None:
    _, history = recall.train(400, 0, writes=False)
    assert history[-1][1] < 0.3
