"""Tokens that are not bytes: trained, prepared, trained on; tables as a source of documents."""

from __future__ import annotations

import json
import math
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest

from nldsl.catalog.schedules import SCHEDULES
from nldsl.cli import main
from nldsl.diagnostics import SpecError
from nldsl.train import train
from nldsl.train.data import open_prepared
from nldsl.train.prepared import prepare_documents
from nldsl.train.tokenizing import read_codec, train_tokenizer

tokenizers = pytest.importorskip("tokenizers")
WORDS = "the memory learns what the key says and the value keeps — naïve, 数学, \t tabs\n".split(" ")


def text(number: int) -> str:
    """A document of its own, of words that come again and again."""
    return " ".join(WORDS[(number * k * k + k) % len(WORDS)] for k in range(40 + 7 * number))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    for i in range(24):
        (tmp_path / "texts" / f"{i:02}.txt").write_text(text(i), encoding="utf-8")
    return tmp_path / "texts"


@pytest.fixture
def tokenizer(source: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    assert 257 < train_tokenizer([str(source)], path, vocab=300) <= 300
    return path


def code_of(caught: pytest.ExceptionInfo[SpecError]) -> str:
    return caught.value.diagnostics[0].code


def test_every_text_comes_back_exactly(tokenizer: Path) -> None:
    codec = read_codec(str(tokenizer))
    unseen = "Ω unseen \x00\x7f 🐍 text\r\n"
    ids = codec.encode(unseen.encode())
    assert codec.inner.decode(ids.tolist()) == unseen
    assert len(codec.encode(text(3).encode())) < len(text(3).encode()) / 2


def test_shards_hold_what_the_tokenizer_says(source: Path, tokenizer: Path, tmp_path: Path) -> None:
    found = prepare_documents([str(source)], tmp_path / "data", tokenizer=str(tokenizer))
    about = json.loads((tmp_path / "data" / "data.json").read_text())
    assert (about["dtype"], about["vocab"]) == ("<u2", found.vocab)
    reference = tokenizers.Tokenizer.from_file(str(tokenizer))
    wanted = sorted(reference.encode(text(i)).ids for i in range(24))
    held = []
    for part in ("train", "heldout"):
        data = np.fromfile(tmp_path / "data" / f"{part}.bin", "<u2").tolist()
        cut = np.fromfile(tmp_path / "data" / f"{part}.offsets", "<i8").tolist()
        held += [data[a:b] for a, b in zip(cut, cut[1:], strict=False)]
    assert sorted(held) == wanted
    assert found.bytes + found.heldout_bytes == sum(len(text(i).encode()) for i in range(24))
    assert found.tokens + found.heldout_tokens == sum(map(len, wanted))
    corpus = open_prepared(str(tmp_path / "data"))
    assert corpus.bytes_per_token[0] == found.bytes / found.tokens
    windows = corpus.batch(seed=0, step=0, batch=4, length=2000)
    assert windows.max() > 255 and windows.min() == -1


def test_bits_per_byte_count_bytes(source: Path, tokenizer: Path, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    found = prepare_documents([str(source)], data, tokenizer=str(tokenizer))
    asked = {"dim": 16, "depth": 1, "heads": 2}
    with pytest.raises(SpecError) as caught:
        train("transformer", out=tmp_path / "a", data=data, steps=1, arguments=asked, show=False)
    assert code_of(caught) == "NL0944" and f"vocab={found.vocab}" in caught.value.diagnostics[0].help
    asked["vocab"] = found.vocab
    made = train(
        "transformer", out=tmp_path / "b", data=data, steps=1, batch=2, length=32, arguments=asked, show=False
    )
    log = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    per_token = found.bytes / found.tokens
    assert log[0]["bits_per_byte"] == pytest.approx(log[0]["loss"] / math.log(2) / per_token)
    assert made.heldout_bits_per_byte < math.log2(found.vocab) / per_token * 1.5
    assert (tmp_path / "b" / "tokenizer.json").read_text() == tokenizer.read_text()


def test_a_changed_tokenizer_is_damage(source: Path, tokenizer: Path, tmp_path: Path) -> None:
    prepare_documents([str(source)], tmp_path / "data", tokenizer=str(tokenizer))
    kept = tmp_path / "data" / "tokenizer.json"
    kept.write_text(kept.read_text() + " ")
    with pytest.raises(SpecError) as caught:
        open_prepared(str(tmp_path / "data"))
    assert code_of(caught) == "NL0955"


def test_what_is_no_tokenizer_or_no_text_is_said(source: Path, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{}")
    for path in (tmp_path / "broken.json", tmp_path / "absent.json"):
        with pytest.raises(SpecError) as caught:
            read_codec(str(path))
        assert code_of(caught) == "NL0942"
    (source / "99.txt").write_bytes(b"latin \xe9 text")
    with pytest.raises(SpecError) as caught:
        prepare_documents([str(source)], tmp_path / "data", tokenizer=str(tokenizer))
    assert code_of(caught) == "NL0943" and not (tmp_path / "data").exists()
    with pytest.raises(SpecError) as caught:
        train_tokenizer([str(source)], tokenizer, vocab=300)
    assert code_of(caught) == "NL0957"
    with pytest.raises(SpecError) as caught:
        train_tokenizer([str(source)], tmp_path / "new.json", vocab=100)
    assert code_of(caught) == "NL0981"


def test_without_the_package_bytes_work_and_the_rest_says_what_to_install(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert prepare_documents([str(source)], tmp_path / "data").vocab == 256
    with pytest.raises(SpecError) as caught:
        train_tokenizer([str(source)], tmp_path / "new.json", vocab=300)
    assert code_of(caught) == "NL0941" and "nldsl[tokenizers]" in caught.value.diagnostics[0].help


def test_the_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (
        ["data", "tokenizer", str(source), "--vocab", "280", "--out", str(tmp_path / "t.json"), "--json"],
        ["data", "prepare", str(source), "--tokenizer", str(tmp_path / "t.json"), "-o", str(tmp_path / "d")],
    ):
        with pytest.raises(SystemExit) as leaving:
            main(line)
        assert leaving.value.code == 0
    said = capsys.readouterr().out
    assert '"vocab": 280' in said and "--set vocab=280" in said


def test_rows_of_a_parquet_file_are_documents(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "folder").mkdir()
    rows = [text(i) for i in range(12)]
    table = arrow.table({"id": list(range(12)), "text": rows})
    parquet.write_table(table, tmp_path / "folder" / "part.parquet", row_group_size=5)
    (tmp_path / "folder" / "more.txt").write_text("one more")
    prepare_documents([str(tmp_path / "folder")], tmp_path / "data", field="text", heldout=0.3)
    corpus = open_prepared(str(tmp_path / "data"))
    whole = bytes(corpus.train) + bytes(corpus.heldout)
    assert len(whole) == sum(len(r.encode()) for r in [*rows, "one more"])
    assert all(r.encode() in whole for r in rows)
    for field, said in (("", "is a table"), ("id", "is no text"), ("body", "no column `body`")):
        with pytest.raises(SpecError) as caught:
            prepare_documents([str(tmp_path / "folder")], tmp_path / "other", field=field)
        assert code_of(caught) == "NL0956" and said in caught.value.diagnostics[0].message
    (tmp_path / "folder" / "part.parquet").write_bytes(b"PAR1 is how it begins")
    with pytest.raises(SpecError) as caught:
        prepare_documents([str(tmp_path / "folder")], tmp_path / "other", field="text")
    assert code_of(caught) == "NL0952"


def test_warm_up_stable_decay() -> None:
    def at(step: int, progress: float, **options: float) -> float:
        return SCHEDULES["wsd"].value(step, progress, {"value": 2.0, **options})

    assert at(0, 0.0, warmup=4) == 0.5 and at(3, 0.03, warmup=4) == 2.0
    assert at(50, 0.5) == at(89, 0.89) == 2.0
    assert at(95, 0.95) == pytest.approx(1.0) and at(100, 1.0) == 0.0
    assert at(100, 1.0, floor=0.25) == 0.5
    assert at(75, 0.1, steps=100, decay=0.5) == pytest.approx(1.0)


def test_runs_with_a_tokenizer_generate_and_chat_in_its_words(
    source: Path,
    tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    prepare_documents([str(source)], str(tmp_path / "shards"), tokenizer=str(tokenizer))
    sizes = {"dim": 16, "depth": 1, "heads": 2, "vocab": 300}
    data = {"data": str(tmp_path / "shards"), "arguments": sizes, "show": False}
    train("gated_deltanet", out=tmp_path / "run", steps=40, batch=4, length=32, **data)

    def told(*words: str) -> bytes:
        with pytest.raises(SystemExit, match="0"):
            main([*words])
        return capsysbinary.readouterr().out

    draw = ("generate", str(tmp_path / "run"), "--prompt", "the naïve", "-n", "20", "--temperature", "0")
    found = told(*draw)
    # Twenty tokens are words of many bytes, the same ones each time.
    assert len(found) > 20 and found == told(*draw) and found.decode("utf-8", "replace").strip()
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO("the key 数学\nsays\n".encode())))
    answers = told("chat", str(tmp_path / "run"), "-n", "12", "--temperature", "0")
    assert len(answers.splitlines()) == 2 and all(line.strip() for line in answers.splitlines())
