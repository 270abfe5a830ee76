"""The examples run."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import nldsl
from nldsl.train.data import prepare

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    """The script of an example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / name / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Scripts find what lies beside them, as when they are run; `report` is of one example only.
    before = list(sys.path)
    sys.path.insert(0, str(EXAMPLES / name))
    for other in ("domains", "report"):
        sys.modules.pop(other, None)
    try:
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.rglob("*.nl")), ids=lambda p: p.relative_to(EXAMPLES).as_posix()
)
def test_specs_of_examples_are_without_findings(path: Path) -> None:
    assert nldsl.check(path) == []


def test_the_demonstration_compares_models_of_one_size() -> None:
    demo = load("demo")
    target = demo.size_of(demo.HOPE)
    count = demo.size_of(demo.TRANSFORMER, **demo.equal_transformer(target))
    assert abs(count - target) <= 0.03 * target
    model = nldsl.compile(demo.HOPE)
    assert sum(p.numel() for p in model.parameters()) == target


def test_delta_momentum_is_there_first() -> None:
    """Fig. 4: at the best rate of each rule, and only because it stands a larger one."""
    example = load("delta_momentum")
    found = {
        name: {lr: example.reached(example.descend(rule.format(lr=lr), 400)) for lr in (0.005, 0.01, 0.02)}
        for name, rule in example.RULES.items()
    }
    best = {name: min(n for n in runs.values() if n is not None) for name, runs in found.items()}
    assert best == {"momentum": 135, "delta momentum": 104}
    assert found["momentum"][0.02] is None and found["delta momentum"][0.01] == 176
    kept = (EXAMPLES / "delta_momentum" / "fig4.svg").read_text()
    curves = {
        f"{name}, lr = {lr}": example.descend(example.RULES[name].format(lr=lr), 400)
        for name, lr in (("momentum", 0.01), ("delta momentum", 0.02))
    }
    assert example.picture(curves) == kept


def test_forgetting_is_measured_as_it_is_said() -> None:
    """Numbers by hand: two domains learnt to 2.0 and 3.0, the first lost again by 0.5."""
    report = load("continual").report.__globals__
    matrix = [[2.0, 5.0], [2.5, 3.0]]
    assert (report["learned"](matrix), report["final"](matrix), report["forgotten"](matrix)) == (
        2.5,
        2.75,
        0.5,
    )


def test_a_stream_is_learnt_from_and_the_weights_stay() -> None:
    """What a memory system learnt of earlier windows helps with the next; switched off, it is plain."""
    example = load("continual")
    model = nldsl.compile(EXAMPLES / "continual" / "hope_attention_2.nl", seed=0)
    before = {path: p.detach().clone() for path, p in model.parameter_paths().items()}
    text = torch.tensor(list(b"again and again, "))[torch.arange(2 * 64 * 4 + 1) % 17]
    windows = text.unfold(0, 129, 128)[:, None].repeat(1, 2, 1)
    off, window, stream = (example.loss(model, windows, mode) for mode in example.MODES)
    assert stream < window - 0.5 and window < off
    logits, _ = model(windows[:, 0, :-1])
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 0, 1:].flatten())
    assert off == pytest.approx(plain.item() / math.log(2), rel=1e-5)
    assert all(torch.equal(before[path], p) for path, p in model.parameter_paths().items())


def test_windows_side_by_side_are_read_as_one_by_one() -> None:
    """Each in a fresh context, learning within it; along a stream only what is told of it is read."""
    example = load("continual")
    model = nldsl.compile(EXAMPLES / "continual" / "hope_attention_2.nl", seed=0)
    windows = torch.randint(0, 256, (3, 2, 129), generator=torch.Generator().manual_seed(0))
    for mode in ("off", "window"):
        each = [example.loss(model, windows[n : n + 1, r : r + 1], mode) for n in range(3) for r in range(2)]
        assert example.loss(model, windows, mode) == pytest.approx(sum(each) / 6, rel=1e-5)
    rows = [example.row_of(model, [windows] * 3, number, "stream") for number in range(3)]
    assert [[x is not None for x in row] for row in rows] == [
        [True, False, False],
        [False, True, False],
        [True, True, True],
    ]


def test_renewed_tables_take_the_place_of_the_old() -> None:
    """A page keeps its words; a table is known by its first row."""
    renewed = load("continual").report.__globals__["renewed"]
    page = "# A\n\n| a | b |\n|---|---|\n| old | 1 |\n\nwords\n\n| c |\n|---|\n| 2 |\n"
    table = "| a | b |\n|---|---|\n| new | 3 |\n"
    assert renewed(page, table) == page.replace("| old | 1 |", "| new | 3 |")


@pytest.mark.parametrize("name", ["continual", "optimisers"])
def test_kept_figures_are_those_of_the_kept_results(name: str, tmp_path: Path) -> None:
    """Tables, plots and the README are made of `results.json`, one run of every model and seed at most."""
    example, folder = load(name), EXAMPLES / name
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    key, named = ("model", example.MODELS) if name == "continual" else ("rule", example.RULES)
    assert {r[key] for r in results} == set(named)
    assert {r["seed"] for r in results} <= set(example.SEEDS)
    assert len({(r[key], r["seed"]) for r in results}) == len(results)
    assert len({json.dumps(r["asked"], sort_keys=True) for r in results}) == 1
    text = example.report(results, tmp_path)
    for made in tmp_path.glob("*"):
        assert made.read_text(encoding="utf-8") == (folder / made.name).read_text(encoding="utf-8")
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert all(table in page for table in text.strip().split("\n\n"))


def test_domains_of_ones_own(tmp_path: Path) -> None:
    """The whole of `continual/run.py`, one model, on given files; then it finds nothing left to do."""
    for name, letters in (("first", "abc "), ("second", "xyz\n")):
        (tmp_path / f"{name}.txt").write_text("".join(letters[i * i % 7 % 4] for i in range(40_000)))
    command = [
        sys.executable,
        str(EXAMPLES / "continual" / "run.py"),
        "--quick",
        "--only",
        "hope_attention_2",
    ]
    command += [
        "--out",
        str(tmp_path / "out"),
        "--data",
        *(str(tmp_path / f"{n}.txt") for n in ("first", "second")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (kept,) = (tmp_path / "out").glob("hope_attention_2-0-*.json")  # its name tells the program, too
    result = json.loads(kept.read_text())
    assert list(result["asked"]["domains"]) == ["first", "second"]
    matrix = result["matrices"]["window"]
    assert matrix[0][0] < result["curve"][0][1] and matrix[1][1] < result["curve"][0][2]
    assert (tmp_path / "out" / "domains.svg").is_file()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "behind" not in again.stdout.split("|")[0]


def test_optimisers_train_and_what_diverges_is_told(tmp_path: Path) -> None:
    """One rule at a rate that works and one that cannot, in seconds."""
    (tmp_path / "text.txt").write_text("one line after another\n" * 4000)
    example = load("optimisers")
    corpus = prepare(str(tmp_path / "text.txt"), tmp_path / "data", length=example.LENGTH)
    model = nldsl.compile(example.MODEL, seed=0)
    optimizers = example.optimizers_of(model, "m3", 4e-3)
    held_out = torch.from_numpy(corpus.heldout_windows(length=example.LENGTH, limit=2)).long()
    start = example.bits(model, held_out)
    for step in range(4):
        example.train_step(model, optimizers, corpus, step, 0, example.Plan(steps=4))
    assert example.bits(model, held_out) < start - 0.5
    assert example.final({"curve": [[0, 0.0, 8.0], [20, 1.0, None]]}) == math.inf


@pytest.mark.long
def test_the_demonstration(tmp_path: Path) -> None:
    """Too short to win: the table is there, and the exit code says who won."""
    command = [sys.executable, str(EXAMPLES / "demo" / "run.py"), "--seconds", "4", "--no-verify"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    won = "Hope beats order-1" in done.stdout
    assert done.returncode == (0 if won else 1), done.stdout + done.stderr
    assert won or "Hope does NOT beat order-1" in done.stdout
    for row in ("hope_tiny", "transformer", "order-1 byte counts", "order-2 byte counts"):
        assert row in done.stdout
    for name in ("hope.svg", "hope.html", "hope_tiny/loss.svg", "transformer/loss.svg"):
        assert (tmp_path / "demo" / name).is_file()
