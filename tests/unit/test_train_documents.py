"""Prepared documents: what is written, who is held out, and that no window crosses into another document."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nldsl.cli import main
from nldsl.diagnostics import SpecError
from nldsl.evaluate.bits import as_tokens, bits_per_byte, summed_loss
from nldsl.train import load_run, train
from nldsl.train.config import RunConfig
from nldsl.train.data import prepare
from nldsl.train.documents import PADDING, Documents
from nldsl.train.loop import Trainer
from nldsl.train.prepared import prepare_documents
from tests.unit.standin import StandIn

LENGTH = 16


def texts(count: int = 60) -> list[bytes]:
    """Documents of many lengths that say whose every byte is: only letter `i` in document `i`."""
    return [bytes([65 + i]) * (1 + (7 * i) % 53) for i in range(count)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    for i, text in enumerate(texts()):
        (tmp_path / "texts" / f"{i:02}.txt").write_bytes(text)
    return tmp_path / "texts"


def code_of(caught: pytest.ExceptionInfo[SpecError]) -> str:
    return caught.value.diagnostics[0].code


def parts_of(folder: Path) -> dict[str, list[bytes]]:
    """The documents of both shards, by the offsets."""
    found = {}
    for part in ("train", "heldout"):
        data, cut = (folder / f"{part}.bin").read_bytes(), np.fromfile(folder / f"{part}.offsets", "<i8")
        found[part] = [data[a:b] for a, b in zip(cut, cut[1:], strict=False)]
    return found


def test_every_document_is_once_in_one_part(source: Path, tmp_path: Path) -> None:
    found = prepare_documents([str(source)], tmp_path / "data", heldout=0.2)
    parts = parts_of(tmp_path / "data")
    assert sorted(parts["train"] + parts["heldout"]) == sorted(texts())
    assert parts["train"] == [t for t in texts() if t in set(parts["train"])]  # in order
    assert (found.documents, found.heldout_documents) == (len(parts["train"]), len(parts["heldout"]))
    assert 3 <= found.heldout_documents <= 25
    about = json.loads((tmp_path / "data" / "data.json").read_text())
    assert (about["tokenizer"], about["dtype"], about["documents"]) == ("bytes", "uint8", "respected")


def test_who_is_held_out_depends_on_the_document_alone(source: Path, tmp_path: Path) -> None:
    prepare_documents([str(source)], tmp_path / "a", heldout=0.2)
    lines = [json.dumps({"id": i, "text": t.decode("latin-1")}) for i, t in enumerate(texts(30))]
    (tmp_path / "x.jsonl").write_text("\n".join([*lines, "", lines[0], json.dumps({"text": ""})]) + "\n")
    found = prepare_documents([str(tmp_path / "x.jsonl")], tmp_path / "b", field="text", heldout=0.2)
    a, b = parts_of(tmp_path / "a"), parts_of(tmp_path / "b")
    ascii_texts = {t for t in texts(30) if t[0] < 128}
    assert set(b["heldout"]) & ascii_texts == set(a["heldout"]) & ascii_texts
    assert found.left_out == 2 and found.documents + found.heldout_documents == 30


def test_without_a_field_a_jsonl_file_is_one_text(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    (tmp_path / "y.txt").write_text("plain")
    found = prepare_documents([str(tmp_path / "x.jsonl"), str(tmp_path / "y.txt")], tmp_path / "data")
    assert (found.documents, found.heldout_documents) == (1, 1)


@pytest.mark.parametrize(
    ("line", "says"),
    [("{", "is no JSON"), ('{"txt": "a"}', "`txt`"), ("[1]", "no fields"), ('{"text": 3}', "`text`")],
)
def test_a_line_without_a_document_is_named(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(SpecError) as caught:
        prepare_documents([str(tmp_path / "x.jsonl")], tmp_path / "data", field="text")
    finding = caught.value.diagnostics[0]
    assert finding.code == "NL0956" and "x.jsonl:2" in finding.message
    assert says in finding.message + finding.help
    assert not (tmp_path / "data").exists() and not list(tmp_path.glob(".*"))


def test_findings_of_preparation(source: Path, tmp_path: Path) -> None:
    def code(*paths: object, out: str = "data", **options: object) -> str:
        with pytest.raises(SpecError) as caught:
            prepare_documents([str(p) for p in paths], tmp_path / out, **options)
        return code_of(caught)

    assert code(tmp_path / "nowhere") == "NL0951"
    assert code(source / "00.txt") == "NL0958"
    assert code(source, heldout=1.0) == "NL0981"
    assert code(source, out="texts") == "NL0957"
    prepare_documents([str(source)], tmp_path / "data")
    assert code(source) == "NL0957"


@pytest.mark.parametrize("name", ["train.bin", "heldout.offsets", "data.json"])
def test_damaged_data_are_refused(source: Path, tmp_path: Path, name: str) -> None:
    prepare_documents([str(source)], tmp_path / "data")
    data = bytearray((tmp_path / "data" / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "data" / name).write_bytes(data)
    with pytest.raises(SpecError) as caught:
        prepare(str(tmp_path / "data"), tmp_path / "unused", length=LENGTH)
    assert code_of(caught) == "NL0955"


def test_a_sidecar_of_something_else_is_refused(source: Path, tmp_path: Path) -> None:
    prepare_documents([str(source)], tmp_path / "data")
    sidecar = tmp_path / "data" / "data.json"
    whole = sidecar.read_text()
    for before, now in (
        ("uint8", "uint16"),
        ('"bytes",', '"bpe",'),
        ("respected", "shuffled"),
        (": 1,", ": 2,"),
    ):
        sidecar.write_text(whole.replace(before, now, 1))
        with pytest.raises(SpecError) as caught:
            prepare(str(tmp_path / "data"), tmp_path / "unused", length=LENGTH)
        assert code_of(caught) == "NL0955"


def test_windows_stay_within_documents_and_reach_every_prediction(source: Path, tmp_path: Path) -> None:
    prepare_documents([str(source)], tmp_path / "data")
    corpus = prepare(str(tmp_path / "data"), tmp_path / "unused", length=LENGTH)
    assert not (tmp_path / "unused").exists()
    seen: set[int] = set()
    for step in range(60):
        windows = corpus.batch(seed=1, step=step, batch=8, length=LENGTH)
        assert np.array_equal(windows, corpus.batch(seed=1, step=step, batch=8, length=LENGTH))
        for row in windows:
            real = row[row != PADDING]
            assert len(set(real.tolist())) == 1 and len(real) >= 2  # one letter: one document
            size = len(texts()[real[0] - 65])
            assert len(real) == min(LENGTH + 1, size) and (row[len(real) :] == PADDING).all()
            seen.add(int(real[0]))
    assert len(seen) > 40
    held = corpus.heldout_windows(length=LENGTH, limit=10**6)
    assert sum((held[:, 1:] != PADDING).sum(1)) == corpus.heldout_documents.predictions


def test_windows_cover_a_long_document(tmp_path: Path) -> None:
    documents = Documents(np.arange(100, dtype=np.uint8), np.array([0, 1, 41, 100]))
    raw = np.arange(documents.predictions, dtype=np.uint64)
    windows = documents.drawn(raw, 10)
    assert windows.shape == (39 + 58, 11) and (windows != PADDING).all()
    assert {int(w[0]) for w in windows} == {*range(1, 31), *range(41, 90)}


def test_packed_windows_cross(source: Path, tmp_path: Path) -> None:
    prepare_documents([str(source)], tmp_path / "data", packed=True)
    corpus = prepare(str(tmp_path / "data"), tmp_path / "unused", length=LENGTH)
    windows = corpus.batch(seed=0, step=0, batch=64, length=LENGTH)
    assert windows.dtype == np.uint8 and any(len(set(row.tolist())) > 1 for row in windows)
    prepare_documents([str(source)], tmp_path / "other")
    assert corpus.digest != prepare(str(tmp_path / "other"), tmp_path / "unused", length=LENGTH).digest


def test_padding_is_no_target(source: Path, tmp_path: Path) -> None:
    """The gradient of a padded batch is that of its documents, one by one, each at its own length."""
    prepare_documents([str(source)], tmp_path / "data")
    corpus = prepare(str(tmp_path / "data"), tmp_path / "unused", length=LENGTH)
    config = RunConfig("standin", data="x", batch=3, accumulate=2, length=LENGTH, steps=4)
    trainer, alone = Trainer(StandIn(), corpus, config, tmp_path), StandIn()
    trainer.gradients()
    windows, _ = trainer.windows()
    count = int((windows[:, 1:] != PADDING).sum())
    assert count < windows[:, 1:].numel()
    for row in windows:
        (summed_loss(alone, row[row != PADDING][None]) / count).backward()
    for path, p in alone.parameter_paths().items():
        assert torch.allclose(p.grad, trainer.parameters[path].grad, rtol=1e-4, atol=1e-6), path


@pytest.mark.parametrize("name", ["gated_deltanet", "hope_tiny"])
def test_padding_changes_no_loss_of_a_compiled_model(source: Path, tmp_path: Path, name: str) -> None:
    """Also where memories learn from the task while they read."""
    sizes = {
        "gated_deltanet": {"dim": 16, "depth": 1, "heads": 2},
        "hope_tiny": {"dim": 16, "depth": 1, "chunks": (4, 8)},
    }
    prepare_documents([str(source)], tmp_path / "data", heldout=0.3)
    train(
        name,
        out=tmp_path / "run",
        data=str(tmp_path / "data"),
        steps=2,
        batch=4,
        length=LENGTH,
        arguments=sizes[name],
        show=False,
    )
    model = load_run(tmp_path / "run").model
    corpus = prepare(str(tmp_path / "data"), tmp_path / "unused", length=LENGTH)
    windows = corpus.heldout_windows(length=LENGTH, limit=12)
    assert (windows == PADDING).any()
    with torch.no_grad():
        rows = [as_tokens(row[row != PADDING][None]) for row in windows]
        alone = sum(float(summed_loss(model, row)) for row in rows)
    count = int((windows[:, 1:] != PADDING).sum())
    assert bits_per_byte(model, windows, batch=5) == pytest.approx(alone / count / np.log(2), rel=1e-4)


def test_the_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def nldsl(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        return int(left.value.code or 0), capsys.readouterr().out

    out = str(tmp_path / "data")
    code, said = nldsl("data", "prepare", str(source), "--out", out, "--heldout", "0.2", "--json")
    assert code == 0 and json.loads(said)["documents"] > 30
    assert nldsl("data", "prepare", str(source), "--out", out)[0] == 1
    assert nldsl("data", "shred", str(source), "--out", out)[0] == 2
    size = ["--batch", "2", "--length", "16", "--set", "dim=16", "--set", "depth=1", "--set", "heads=2"]
    run = str(tmp_path / "run")
    start = ["train", "gated_deltanet", "--data", out, "--out", run, *size]
    assert nldsl(*start, "--steps", "2", "--accumulate", "2")[0] == 0
    assert nldsl(*start, "--steps", "3", "--accumulate", "2", "--resume")[0] == 0
    assert nldsl(*start, "--steps", "3", "--resume")[0] == 1
