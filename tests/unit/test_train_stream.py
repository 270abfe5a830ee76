"""Rows that read on: every window once, state carried as in one long reading, exact resumption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import nldsl
from nldsl.diagnostics import SpecError
from nldsl.evaluate.bits import PADDING, summed_loss, targets_of
from nldsl.train import checkpoint as saved
from nldsl.train import train
from nldsl.train.config import RunConfig
from nldsl.train.data import Corpus, prepare
from nldsl.train.documents import Documents
from nldsl.train.loop import CHECKPOINTS, Trainer
from nldsl.train.prepared import prepare_documents
from nldsl.train.run import start

SIZES = {
    "gated_deltanet": {"dim": 16, "depth": 1, "heads": 2},
    "hope_tiny": {"dim": 16, "depth": 1, "chunks": (4, 8)},
}
LENGTH = 6


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Documents of 2 to 30 bytes."""
    draw = np.random.default_rng(0)
    (tmp_path / "texts").mkdir()
    for i in range(14):
        text = bytes(draw.integers(97, 123, 2 + (11 * i) % 29).tolist())
        (tmp_path / "texts" / f"{i:02}.txt").write_bytes(text)
    prepare_documents([str(tmp_path / "texts")], tmp_path / "data", heldout=0.2)
    return str(tmp_path / "data")


def corpus_of(data: str) -> Corpus:
    return prepare(data, Path(data) / "unused", length=LENGTH)


def test_every_prediction_is_read_once_and_in_order() -> None:
    sizes = [5, 1, 14, 0, 2, 7, 30]
    offsets = np.cumsum([0, *sizes])
    documents = Documents(np.arange(offsets[-1], dtype=np.uint8), offsets)
    total = sum(-(-(n - 1) // 4) for n in sizes if n > 1)
    rows = [[documents.read_on(step=s, rows=r, length=4, seed=5) for s in range(total)] for r in (1, 2)]
    read = [int(b) for windows, _ in rows[0] for b in windows[0, 1:] if b != PADDING]
    assert sorted(read) == sorted(
        b for a, z in zip(offsets, offsets[1:], strict=False) for b in range(a + 1, z)
    )
    begins = [int(w[0, 0]) for w, fresh in rows[0] if fresh[0]]
    assert sorted(begins) == [int(a) for a, n in zip(offsets, sizes, strict=False) if n > 1]
    for (before, _), (after, fresh) in zip(rows[0], rows[0][1:], strict=False):
        assert fresh[0] or after[0, 0] == before[0, -1]  # a window begins with the last one's last byte
    for step in range(total - total // 2):
        assert np.array_equal(rows[1][step][0][1], rows[0][step + total // 2][0][0])
    other = documents.read_on(step=0, rows=1, length=4, seed=6)[0], documents.course(4, 5)[0]
    assert not np.array_equal(documents.course(4, 6)[0], other[1])


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("packed", [False, True])
def test_losses_are_those_of_reading_without_steps(
    name: str, packed: bool, data: str, tmp_path: Path
) -> None:
    """The sum of what steps say is what whole documents say; where a row begins within one, of its rest."""
    if packed:
        prepare_documents([str(tmp_path / "texts")], tmp_path / "packed", heldout=0.2, packed=True)
        data = str(tmp_path / "packed")
    model = nldsl.compile(name, **SIZES[name])
    config = RunConfig(name, data=data, batch=3, length=LENGTH, steps=99, stream=True)
    trainer, total, pieces = Trainer(model, corpus_of(data), config, tmp_path), 0.0, [[], [], []]
    for _ in range(12):
        windows, fresh = trainer.windows()
        for row, begin, mine in zip(windows, fresh.tolist(), pieces, strict=True):
            real = row[row != PADDING].tolist()
            if begin:
                mine.append(real)
            else:
                mine[-1] += real[1:]
        trainer.gradients()
        total += trainer.loss * targets_of(windows)
        trainer.carried.after(trainer.behind, model)
        trainer.step += 1
    read = [torch.tensor([piece]) for mine in pieces for piece in mine]
    assert any(len(piece[0]) > 2 * LENGTH for piece in read)
    with torch.no_grad():
        whole = sum(float(summed_loss(model, piece)) for piece in read)
    assert total == pytest.approx(whole, rel=1e-5)


def test_a_carried_state_matters(data: str, tmp_path: Path) -> None:
    """Gradients differ from those of fresh windows, and the learned start of a memory is still trained."""
    model = nldsl.compile("gated_deltanet", **SIZES["gated_deltanet"])
    losses = []
    for carries in (True, False):
        config = RunConfig("x", data=data, batch=3, length=LENGTH, steps=99, stream=True)
        trainer = Trainer(model, corpus_of(data), config, tmp_path)
        for _ in range(4):
            trainer.gradients()
            if carries:
                trainer.carried.after(trainer.behind, model)
            trainer.step += 1
        losses.append(trainer.loss)
    assert abs(losses[0] - losses[1]) > 1e-6


@pytest.mark.parametrize("name", SIZES)
def test_resuming_a_stream_is_bit_exact(name: str, data: str, tmp_path: Path) -> None:
    common = {"data": data, "batch": 2, "length": LENGTH, "accumulate": 2, "stream": True, "show": False}
    common |= {"arguments": SIZES[name]}
    train(name, out=tmp_path / "whole", steps=9, **common)
    config = RunConfig(
        name, data=data, batch=2, length=LENGTH, accumulate=2, stream=True, steps=9, arguments=SIZES[name]
    )
    trainer = start(config, tmp_path / "parts", resume=False)
    for _ in range(4):
        trainer.train_step()
    trainer.save(keep=3)
    train(name, out=tmp_path / "parts", steps=9, resume=True, **common)
    whole, parts = (saved.load_newest(tmp_path / f / CHECKPOINTS).tensors for f in ("whole", "parts"))
    assert any(path.startswith("carried/1/") for path in whole) and whole.keys() == parts.keys()
    assert all(torch.equal(x, parts[path]) for path, x in whole.items())


def test_a_skipped_step_leaves_no_nan_in_the_state(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nldsl.compile("gated_deltanet", **SIZES["gated_deltanet"])
    config = RunConfig("x", data=data, batch=2, length=LENGTH, steps=9, stream=True, on_fault="skip")
    trainer, gradients = Trainer(model, corpus_of(data), config, tmp_path), Trainer.gradients

    def poisoned(self: Trainer) -> torch.Tensor:
        norm = gradients(self)
        if self.step == 2:
            self.behind = [state.map(lambda x: x * float("nan")) for state in self.behind]
            return norm * float("nan")
        return norm

    monkeypatch.setattr(Trainer, "gradients", poisoned)
    records = [trainer.train_step() for _ in range(5)]
    assert [bool(r.get("skipped")) for r in records] == [False, False, True, False, False]


def test_attention_cannot_be_carried(data: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        train(
            "transformer",
            out=tmp_path / "run",
            data=data,
            steps=2,
            batch=2,
            length=LENGTH,
            stream=True,
            arguments={"dim": 16, "depth": 1, "heads": 2},
            show=False,
        )
    assert caught.value.diagnostics[0].code == "NL0990" and "keys" in str(caught.value)
