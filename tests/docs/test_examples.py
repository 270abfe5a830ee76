"""The examples run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import nldsl

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    """The script of an example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / name / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
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
