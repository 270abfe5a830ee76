"""`task label` on labelled documents: accuracy, streams, resumption, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nldsl
from nldsl.cli import main
from nldsl.diagnostics import SpecError
from nldsl.evaluate.bits import as_tokens, summed_hits, summed_loss, targets_of
from nldsl.train import load_run, train
from nldsl.train.data import prepare
from nldsl.train.log import read_log
from nldsl.train.passes import backward_from
from nldsl.train.prepared import Prepared, prepare_documents

LENGTH = 8
SPEC = """
block system(x) {
  level f every 4 tokens { memory F = mlp(2) }
  F minimizes task by gd(lr = 0.1)
  return x + F[norm(x)]
}
model m(tokens, label, vocab = 256, classes = 2, dim = 8) {
  x = embed(tokens, vocab, dim)
  x = x + gated_deltanet(norm(x), heads = 2)
  return head(norm(SYSTEM), classes)
}
train m {
  task label
  rest by adamw(lr = 1e-2)
}
"""
OTHER = "model n(tokens) { return head(embed(tokens, 32, 8), 32) }\ntrain n { rest by sgd(lr = 1) }"
PLAIN, TASK = SPEC.replace("SYSTEM", "x"), SPEC.replace("SYSTEM", "system(x)")


def written(folder: Path, records: list[dict[str, Any]], **options: Any) -> tuple[str, Prepared]:
    """Records as prepared data, and what was found."""
    (folder / "x.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    options = {"field": "text", "label_field": "kind", "heldout": 0.3, **options}
    found = prepare_documents([str(folder / "x.jsonl")], folder / "data", **options)
    return str(folder / "data"), found


def animals(count: int = 60) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    words = (("meow", "purr"), ("bark", "woof"))
    made = []
    for i in range(count):
        kind = int(draw.integers(2))
        text = " ".join(words[kind][j] for j in draw.integers(0, 2, 1 + i % 5)) + str(i)
        made.append({"text": text, "kind": ("cat", "dog")[kind]})
    return made


def spec_of(folder: Path, text: str) -> str:
    (folder / "m.nl").write_text(text)
    return str(folder / "m.nl")


def code_of(caught: pytest.ExceptionInfo[SpecError]) -> str:
    return caught.value.diagnostics[0].code


def test_every_window_has_the_labels_of_its_tokens(tmp_path: Path) -> None:
    # The label of a byte is its place in its document: no two agree by chance.
    counts = [1 + 5 * i % 19 for i in range(20)]
    records = [{"text": chr(97 + i) * n, "kind": list(range(n))} for i, n in enumerate(counts)]
    data, found = written(tmp_path, records)
    corpus = prepare(data, tmp_path / "unused", length=LENGTH)
    assert corpus.classes == found.classes == 19
    drawn = corpus.batch(seed=1, step=2, batch=50, length=LENGTH)
    windows = [drawn, corpus.heldout_windows(length=LENGTH, limit=99)]
    rows = [corpus.read_on(seed=0, step=s, batch=1, length=LENGTH)[0] for s in range(40)]
    for part in [*windows, *rows]:
        assert part.shape[1:] == (LENGTH, 2)
        for row in part:
            real = row[row[:, 0] >= 0]
            assert (row[len(real) :] == -1).all() and len(set(real[:, 0])) == 1
            assert (np.diff(real[:, 1]) == 1).all()
    read = {(int(a), int(b)) for row in rows for a, b in row[0] if a >= 0}
    assert read == {(letter, at) for letter in {a for a, _ in read} for at in range(counts[letter - 97])}
    assert corpus.documents is not None and corpus.documents.predictions == len(corpus.train)


def test_the_same_text_under_two_labels_stays_on_one_side(tmp_path: Path) -> None:
    records = [{"text": f"text {i}", "kind": kind} for i in range(30) for kind in ("b", "a")]
    data, found = written(tmp_path, [*records, records[0]])
    assert found.documents + found.heldout_documents == 60 and found.left_out == 1
    about = json.loads((Path(data) / "data.json").read_text())
    assert about["labels"] == {"field": "kind", "classes": 2, "names": ["a", "b"]}
    parts = [(Path(data) / f"{part}.bin").read_bytes() for part in ("train", "heldout")]
    assert parts[1] and not {t for t in parts[0].split(b"text ") if t} & {
        t for t in parts[1].split(b"text ") if t
    }


@pytest.mark.parametrize("text", [PLAIN, TASK], ids=["plain", "task memories"])
def test_a_pass_is_learn_on_labels(tmp_path: Path, text: str) -> None:
    data, _ = written(tmp_path, animals())
    windows = prepare(data, tmp_path / "unused", length=LENGTH).batch(seed=0, step=0, batch=4, length=LENGTH)
    model: Any = nldsl.compile(text, dtype=torch.float64)
    tokens = as_tokens(windows)
    count = targets_of(tokens)
    assert count == int((tokens[..., 1] >= 0).sum()) > 0
    losses = []
    for row in tokens:  # one by one and without padding
        real = row[row[:, 0] >= 0][None]
        losses.append(model.learn(real[..., 0], label=real[..., 1])[0])
    want = torch.stack(losses).sum() / count
    theirs = torch.autograd.grad(want, list(model.parameters()), allow_unused=True)
    for truncate in (0, LENGTH):
        model.zero_grad()
        mine, _ = backward_from(model, tokens, None, truncate)
        assert mine == pytest.approx(want.item(), rel=1e-12)
        for p, g in zip(model.parameters(), theirs, strict=True):
            torch.testing.assert_close(p.grad, g, rtol=1e-9, atol=1e-12)
    assert float(summed_loss(model, tokens)) == pytest.approx(want.item() * count, rel=1e-12)


def test_accuracy_is_counted_by_hand(tmp_path: Path) -> None:
    data, _ = written(tmp_path, animals())
    corpus = prepare(data, tmp_path / "unused", length=LENGTH)
    windows = corpus.heldout_windows(length=LENGTH, limit=99)
    model: Any = nldsl.compile(PLAIN)
    hits = last = 0
    for row in as_tokens(windows):
        real = row[row[:, 0] >= 0]
        guess = model(real[None, :, 0])[0].argmax(-1)[0]
        hits += int((guess == real[:, 1]).sum())
        last += int(guess[-1] == real[-1, 1])
    assert summed_hits(model, windows, batch=3) == (hits, last, len(windows))


@pytest.mark.parametrize("text", [PLAIN, TASK], ids=["plain", "task memories"])
@pytest.mark.parametrize("stream", [False, True], ids=["drawn", "stream"])
def test_a_run_learns_and_resumes_to_the_last_bit(tmp_path: Path, text: str, stream: bool) -> None:
    data, _ = written(tmp_path, animals())
    spec = spec_of(tmp_path, text)
    how: dict[str, Any] = {"data": data, "batch": 4, "length": LENGTH, "stream": stream, "show": False}
    whole = train(spec, out=tmp_path / "a", steps=30, **how)
    train(spec, out=tmp_path / "b", steps=11, **how)
    train(spec, out=tmp_path / "b", steps=30, resume=True, **how)
    first, second = (load_run(tmp_path / run).model.parameter_paths() for run in "ab")
    assert all(torch.equal(first[path], second[path]) for path in first)
    log = read_log(tmp_path / "a")
    held = [r for r in log if "heldout_bits_per_label" in r]
    assert (
        held[-1]["heldout_bits_per_label"] == whole.heldout_bits_per_byte < held[0]["heldout_bits_per_label"]
    )
    assert held[-1]["heldout_accuracy"] == whole.heldout_accuracy > 0.7
    assert 0 < held[-1]["heldout_accuracy_at_ends"] <= 1 and not any("bits_per_byte" in r for r in log)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    return int(left.value.code or 0)


def test_the_command_line_says_how_many_are_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, animals())
    spec = spec_of(tmp_path, PLAIN)
    shape = ["--batch", "2", "--length", "8"]
    given = ["data", "prepare", "x.jsonl", "--field", "text", "--label-field", "kind", "--heldout", "0.3"]
    assert run(*given, "--out", "d") == 0
    assert "2 classes" in capsys.readouterr().out
    assert run("train", spec, "--data", "d", "--steps", "3", *shape, "--out", "run") == 0
    assert "% right, after 3 steps" in capsys.readouterr().out
    assert run("plot", "run") == 0
    assert "bits per label held out" in capsys.readouterr().out
    assert "bits per label" in (tmp_path / "runs.svg").read_text()
    assert run("generate", "run") == 1
    assert "NL0984" in capsys.readouterr().err


REFUSED: list[tuple[str, list[dict[str, Any]], str]] = [
    ("a missing label", [{"text": "ab"}], "nothing as label"),
    ("a negative label", [{"text": "ab", "kind": -1}], "`-1` as label"),
    ("a fraction", [{"text": "ab", "kind": 0.5}], "`0.5` as label"),
    (
        "too few labels",
        [{"text": "abc", "kind": [0, 1]}, {"text": "d", "kind": 1}],
        "2 labels and 3",
    ),
    ("words and numbers", [{"text": "a", "kind": 0}, {"text": "b", "kind": "x"}], "others numbers"),
    ("none", [{"text": "a", "kind": [-1]}, {"text": "b", "kind": [-1]}], "no token has a label"),
]


@pytest.mark.parametrize(("records", "said"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_labels_that_are_none_are_refused(tmp_path: Path, records: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(SpecError, match=said) as caught:
        written(tmp_path, records)
    assert code_of(caught) == "NL0956" and not (tmp_path / "data").exists()


def test_labels_need_documents_with_fields(tmp_path: Path) -> None:
    for options in ({"packed": True}, {"field": ""}):
        with pytest.raises(SpecError) as caught:
            written(tmp_path, animals(), **options)
        assert code_of(caught) == "NL0981"
    (tmp_path / "plain.txt").write_text("no labels")
    with pytest.raises(SpecError, match="has no labels") as caught:
        prepare_documents([str(tmp_path / "plain.txt")], tmp_path / "d", field="text", label_field="kind")
    assert code_of(caught) == "NL0956"


def test_a_label_that_a_line_lacks_is_told_by_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="nothing as label under `knd`") as caught:
        written(tmp_path, animals(), label_field="knd")
    assert caught.value.diagnostics[0].help == "it has `text`, `kind`"


def test_a_refused_run_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("no labels " * 8000)
    data, _ = written(tmp_path, animals())
    out = tmp_path / "run"
    for source in (str(tmp_path / "plain.txt"), str(tmp_path / "missing")):
        with pytest.raises(SpecError):
            train(PLAIN, out=out, data=source, steps=1, batch=2, length=LENGTH, show=False)
        assert not out.exists()
    out.mkdir()
    (out / "note").write_text("mine")
    with pytest.raises(SpecError, match="has no labels"):
        train(PLAIN, out=out, data=str(tmp_path / "plain.txt"), steps=1, batch=2, length=LENGTH, show=False)
    assert [path.name for path in out.iterdir()] == ["note"]
    train(PLAIN, out=out, data=data, steps=1, batch=2, length=LENGTH, show=False)
    assert (out / "run.json").is_file() and (out / "note").read_text() == "mine"


def test_models_and_data_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    data, _ = written(tmp_path, animals())
    (tmp_path / "gaps").mkdir()
    gaps, _ = written(tmp_path / "gaps", [{"text": f"a{i:02}", "kind": [-1, -1, i % 2]} for i in range(20)])
    how: dict[str, Any] = {"steps": 1, "batch": 1, "length": LENGTH, "show": False}
    cases = [
        (PLAIN, str(tmp_path / "x.jsonl"), "NL0984", "has no labels"),
        (OTHER.replace("32", "256"), data, "NL0984", "has labels, and the task"),
        (PLAIN.replace("tokens, label", "tokens, other"), data, "NL0984", "the streams `tokens`, `other`"),
        (TASK, gaps, "NL0984", "does not label every token"),
        (PLAIN.replace("classes = 2", "classes = 1"), data, "NL0944", "2 classes, and `m` knows 1"),
        (PLAIN.replace("vocab = 256", "vocab = 64"), data, "NL0944", "256 tokens, and `m` 64"),
        (OTHER, str(tmp_path / "x.jsonl"), "NL0944", "256 tokens, and `n` 32"),
    ]
    for number, (text, source, code, said) in enumerate(cases):
        with pytest.raises(SpecError, match=said) as caught:
            train(spec_of(tmp_path, text), out=tmp_path / f"run{number}", data=source, **how)
        assert code_of(caught) == code
    train(spec_of(tmp_path, PLAIN), out=tmp_path / "ends", data=gaps, **how)


def test_a_damaged_label_is_found(tmp_path: Path) -> None:
    data, _ = written(tmp_path, animals())
    path = Path(data) / "train.labels"
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    with pytest.raises(SpecError, match=r"train\.labels") as caught:
        prepare(data, tmp_path / "unused", length=LENGTH)
    assert code_of(caught) == "NL0955"
