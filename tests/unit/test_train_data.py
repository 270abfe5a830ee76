"""Corpora: what is taken, what is held out, which window a step sees, and what bad data say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nldsl.diagnostics import SpecError
from nldsl.train.data import Corpus, prepare, shard_digest
from nldsl.train.files import discover

TEXT = b"".join(b"line %d of the text\n" % i for i in range(4000))


def corpus_of(folder: Path, source: Path | str, length: int = 32) -> Corpus:
    return prepare(str(source), folder / "shards", length=length)


def code_of(caught: pytest.ExceptionInfo[SpecError]) -> str:
    return caught.value.diagnostics[0].code


def test_a_file_is_split_into_blocks_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(TEXT)
    corpus = corpus_of(tmp_path, tmp_path / "a.bin")
    assert len(corpus.train) + len(corpus.heldout) == len(TEXT)
    assert 0.005 < len(corpus.heldout) / len(TEXT) < 0.15
    assert corpus.heldout.tobytes()[:1024] in TEXT
    assert corpus.heldout.tobytes()[:1024] not in corpus.train.tobytes()


def test_held_out_files_depend_on_names_alone(tmp_path: Path) -> None:
    def write(root: Path, text: str) -> set[str]:
        (root / "deep").mkdir(parents=True)
        for i in range(60):
            (root / ("deep" if i % 2 else ".") / f"file{i}.txt").write_text(f"<{i}>{text}" * 30)
        corpus = prepare(str(root), root.parent / f"shards-{root.name}", length=16)
        assert corpus.files == 60 and 0 < corpus.heldout_files < 12
        return {str(i) for i in range(60) if f"<{i}>".encode() in corpus.heldout.tobytes()}

    assert write(tmp_path / "a", "one") == write(tmp_path / "b", "another")


def test_a_folder_gives_its_text_files_once_each(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config.txt").write_text("hidden")
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "copy.txt").write_text("text")
    (tmp_path / "plain").write_text("ünder no suffix")
    (tmp_path / "binary").write_bytes(b"\0\1\2")
    (tmp_path / "empty.txt").write_bytes(b"")
    found = discover(str(tmp_path))
    assert [name for name, _ in found.files] == ["a.txt", "plain"]
    assert found.left_out == 3


def test_a_file_may_be_binary(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(range(256)) * 40)
    assert set(corpus_of(tmp_path, tmp_path / "x").train.tolist()) == set(range(256))


def test_the_standard_library_is_a_source() -> None:
    names = [name for name, _ in discover("python-stdlib").files]
    assert "json/decoder.py" in names and len(names) > 300
    assert not any("site-packages" in name or "/test" in name for name in names)


def test_a_batch_is_a_function_of_seed_and_step(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(TEXT)
    corpus = corpus_of(tmp_path, tmp_path / "a")
    first = corpus.batch(seed=1, step=7, batch=5, length=32)
    assert first.shape == (5, 33) and first.dtype == np.uint8
    assert np.array_equal(first, corpus.batch(seed=1, step=7, batch=5, length=32))
    assert not np.array_equal(first, corpus.batch(seed=1, step=8, batch=5, length=32))
    assert not np.array_equal(first, corpus.batch(seed=2, step=7, batch=5, length=32))


def test_held_out_windows_do_not_overlap(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(TEXT)
    corpus = corpus_of(tmp_path, tmp_path / "a")
    available = (len(corpus.heldout) - 1) // 32
    assert corpus.heldout_windows(length=32, limit=10**6).shape == (available, 33)
    windows = corpus.heldout_windows(length=32, limit=7)
    assert len({bytes(w) for w in windows}) == len(windows) == 7


def test_shards_are_opened_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(TEXT)
    before = corpus_of(tmp_path, tmp_path / "a")
    (tmp_path / "a").unlink()
    assert corpus_of(tmp_path, tmp_path / "a").digest == before.digest == shard_digest(tmp_path / "shards")


@pytest.mark.parametrize("size", [42, 43, 200, 1023, 1024, 1100, 2047, 2048])
def test_a_small_file_is_cut_too(size: int, tmp_path: Path) -> None:
    """What holds two windows is enough, and nothing is in both parts or in none."""
    (tmp_path / "small.txt").write_bytes(bytes(i * 7 % 251 for i in range(size)))
    corpus = prepare(str(tmp_path / "small.txt"), tmp_path / "data", length=20)
    assert min(len(corpus.train), len(corpus.heldout)) >= 21
    assert len(corpus.train) + len(corpus.heldout) == size
    assert len(corpus.train) >= len(corpus.heldout)


@pytest.mark.parametrize(("content", "code"), [(None, "NL0951"), (b"", "NL0953"), (b"ab" * 40, "NL0954")])
def test_bad_data(tmp_path: Path, content: bytes | None, code: str) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(SpecError) as caught:
        corpus_of(tmp_path, tmp_path / "x", length=64)
    assert code_of(caught) == code


def test_unreadable_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(TEXT)

    def refuse(self: Path, *_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SpecError) as caught:
        discover(str(tmp_path))
    assert code_of(caught) == "NL0952"


def test_shards_of_another_source_or_damaged(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(TEXT)
    corpus_of(tmp_path, tmp_path / "a")
    with pytest.raises(SpecError) as caught:
        corpus_of(tmp_path, "python-stdlib")
    assert code_of(caught) == "NL0955"
    (tmp_path / "shards" / "train.bin").write_bytes(TEXT)
    with pytest.raises(SpecError) as caught:
        corpus_of(tmp_path, tmp_path / "a")
    assert code_of(caught) == "NL0955"


@pytest.mark.parametrize("left", ["", "{", "[]", "{}"])
def test_a_sidecar_that_was_cut_off_is_a_finding(tmp_path: Path, left: str) -> None:
    (tmp_path / "a").write_bytes(TEXT)
    corpus_of(tmp_path, tmp_path / "a")
    (tmp_path / "shards" / "corpus.json").write_text(left)
    with pytest.raises(SpecError) as caught:
        corpus_of(tmp_path, tmp_path / "a")
    assert code_of(caught) == "NL0955" and "delete" in caught.value.diagnostics[0].help
