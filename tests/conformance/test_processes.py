"""Two processes are one: weights, losses and norms to 1e-6, checkpoints from any number to any number."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import nldsl
from nldsl.train import load_run
from nldsl.train.checkpoint import SHARED, checkpoints, load, load_newest
from nldsl.train.parallel import Processes
from tests.conformance.processes import Case, outcome, spec, together
from tests.conformance.test_inner_schedules import TEXT
from tests.conformance.test_step_memories import WIDER

CLOSE = 1e-6
PAIRS = [
    ("hope", "m3", "fsdp"),
    ("hope", "adamw", "ddp"),
    ("transformer", "muon", "fsdp"),
    ("hope_attention", "slow", "ddp"),
]
STREAM = {"stream": True, "accumulate": 2}
MATRIX = [
    (model, rule, kind)
    for model in ("hope", "hope_attention", "transformer")
    for rule in ("adamw", "muon", "m3")
    for kind in ("ddp", "fsdp")
]
MORE = [
    ("transformer", "dgd", "ddp"),
    ("transformer", "dgd_momentum", "ddp"),
    ("gated_deltanet", "shampoo", "fsdp"),
    ("hope_trunc", "shampoo", "fsdp"),
    ("gated_deltanet", "slow", "ddp"),
    ("hope", "dgd", "ddp"),
]


def compare(
    one: dict[str, Any],
    two: dict[str, Any],
    close: float = CLOSE,
    norms: float = 2e-5,
) -> None:
    """Weights, losses and held-out bits are close; the weights have moved much further than that."""
    assert one["weights"].keys() == two["weights"].keys()
    for path, weight in one["weights"].items():
        assert float((weight - two["weights"][path]).abs().max()) <= close, path
    moved = max(float((w - one["before"][path]).abs().max()) for path, w in one["weights"].items())
    assert moved > 1000 * close
    for (loss, norm), (other, others) in zip(one["told"], two["told"], strict=True):
        assert abs(loss - other) <= close
        assert abs(norm - others) <= norms * norm
    assert abs(one["bits"] - two["bits"]) <= close


def agree(
    folder: Path,
    pairs: list[tuple[str, str, str]],
    bounds: dict[str, float],
    own: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Two processes with `options` and those of their `own` against one with `options`."""
    cases = [
        Case(spec(model, rule, folder), f"{model}_{rule}_{kind}", kind, options=options | (own or {}))
        for model, rule, kind in pairs
    ]
    for case, two in zip(cases, together(2, cases, folder), strict=True):
        one = outcome(replace(case, kind="", folder=f"{case.folder}_alone", options=options), folder)
        compare(one, two, **bounds)


def test_two_processes_are_one(tmp_path: Path) -> None:
    """Rules by element, by matrix, on slow clocks and by rows; task memories and learned starts."""
    agree(tmp_path, PAIRS, {})


UNREAD = """
model unread(tokens, vocab = 256) {
  x = embed(tokens, vocab, 16)
  x = x + self_modifying_titans(norm(x), heads = 2, chunk = 8, memory_chunk = 64)
  return head(norm(x), vocab)
}

train unread {
  task next_token
  level pretraining every 1 step { rest by adamw(lr = 1e-3, decay = 0.1) }
}
"""


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_what_no_process_has_read_does_not_move(kind: str, tmp_path: Path) -> None:
    """What only writes a memory that is not read within the window has no gradient, and so no decay."""
    (tmp_path / "text").write_bytes(
        b"".join(b"%d bottles on the wall, %d left;\n" % (i, i * i) for i in range(3000))
    )
    (tmp_path / "m.nl").write_text(UNREAD)
    options = {"length": 5}
    case = Case(str(tmp_path / "m.nl"), "two", kind, steps=4, take=4, options=options)
    (two,) = together(2, [case], tmp_path)
    one = outcome(replace(case, kind="", folder="alone"), tmp_path)
    compare(one, two)
    still = {path for path, weight in two["weights"].items() if torch.equal(weight, two["before"][path])}
    assert any("eta.readout" in path for path in still) and not any("head" in path for path in still)


@pytest.mark.parametrize("length", [5, 20])
def test_a_wrapped_model_in_a_loop_of_ones_own(length: int) -> None:
    """Within the clock of a memory and behind it; what has no gradient has one of zero."""
    model, twin = (nldsl.compile("self_modifying_titans", dim=8, heads=2, memory_chunk=16) for _ in range(2))
    x = torch.randn(2, length, 8, generator=torch.Generator().manual_seed(0))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model, find_unused_parameters=True)
        state = other = None
        for _ in range(3):
            model.zero_grad()
            twin.zero_grad()
            (y, state), (z, other) = wrapped(x, state=state), twin(x, state=other)
            (y**2).sum().backward()
            (z**2).sum().backward()
            state, other = state.detach(), other.detach()
            for p, q in zip(model.parameters(), twin.parameters(), strict=True):
                assert p.grad is not None
                torch.testing.assert_close(p.grad, torch.zeros_like(q) if q.grad is None else q.grad)
    finally:
        dist.destroy_process_group()


def test_every_held_out_window_is_read_by_one_process() -> None:
    windows = np.arange(70).reshape(10, 7)
    parts = [Processes.part(SimpleNamespace(rank=r, world=4), windows) for r in range(4)]  # type: ignore[arg-type]
    assert {len(part) for part in parts} == {3}  # as many passes for all: FSDP2 gathers in each of them
    read = [tuple(row) for part in parts for row in part if row[0] >= 0]
    assert read == [tuple(row) for row in windows]


AGAIN = {"recompute": "blocks"}


def test_blocks_computed_again_in_several_processes(tmp_path: Path) -> None:
    """By FSDP2 and DDP, with task memories, as one process that keeps what it computes."""
    pairs = [("hope", "adamw", "fsdp"), ("transformer", "muon", "fsdp"), ("gated_deltanet", "slow", "ddp")]
    agree(tmp_path, pairs, {"norms": 1e-3}, own=AGAIN)


@pytest.mark.long
def test_every_model_computed_again(tmp_path: Path) -> None:
    kinds = ("ddp", "fsdp")
    pairs = [
        (m, "adamw", k) for m in ("hope", "hope_trunc", "hope_attention", "gated_deltanet") for k in kinds
    ]
    agree(tmp_path, pairs, {"norms": 1e-3}, own=AGAIN)


@pytest.mark.long
def test_every_model_with_every_rule(tmp_path: Path) -> None:
    agree(tmp_path / "one", MATRIX, {})
    # Gradients through a delta rule make more of a last digit than weights do; a forgotten row makes a tenth.
    agree(tmp_path / "two", MORE, {"norms": 1e-3})
    sums = [("hope", "muon", "fsdp"), ("transformer", "m3", "ddp")]
    agree(
        tmp_path / "sums", sums, {"close": 2 * CLOSE, "norms": 1e-3}, accumulate=2
    )  # twice as many terms are added


@pytest.mark.long
@pytest.mark.parametrize("text", [TEXT, WIDER], ids=["schedules of inner rates", "memories on steps"])
def test_what_training_moves_inside_a_model(text: str, tmp_path: Path) -> None:
    """Numbers that `train` sets and memories that it moves every few steps are the same in all processes."""
    (tmp_path / "text").write_bytes(
        b"".join(b"%d bottles on the wall, %d left;\n" % (i, i * i) for i in range(3000))
    )
    (tmp_path / "m.nl").write_text(text)
    cases = [Case(str(tmp_path / "m.nl"), kind, kind, steps=5, take=5) for kind in ("ddp", "fsdp")]
    for case, two in zip(cases, together(2, cases, tmp_path), strict=True):
        one = outcome(replace(case, kind="", folder=f"{case.folder}_alone"), tmp_path)
        compare(one, two, norms=1e-3)


def resumed(folder: Path, case: Case, kind: str) -> Case:
    """The rest of a run in another number of processes, in a copy of its folder."""
    copy = f"{case.folder}_{kind or 'alone'}"
    shutil.copytree(folder / case.folder, folder / copy)
    rest = case.steps - case.take
    return replace(case, folder=copy, kind=kind, take=rest, save=False, later=False, resume=True)


def close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], bound: float = CLOSE) -> None:
    assert found.keys() == wanted.keys()
    for path, weight in wanted.items():
        assert float((weight - found[path]).abs().max()) <= bound, path


@pytest.mark.parametrize("streams", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_checkpoint_goes_to_any_number_of_processes(streams: bool, tmp_path: Path) -> None:
    """One writes and two go on, two write and one goes on, as the run that was never cut; streams too."""
    if streams:
        source, kinds, options = spec("gated_deltanet", "slow", tmp_path), ("ddp", "fsdp"), STREAM
    else:
        source, kinds, options = spec("hope", "m3", tmp_path), ("fsdp", "ddp"), {}
    alone = Case(source, "one", steps=8, take=5, save=True, options=options)
    outcome(alone, tmp_path)
    spread = replace(alone, folder="two", kind=kinds[0], later=True)
    behind, found = together(2, [spread, resumed(tmp_path, alone, kinds[1])], tmp_path)
    uncut = outcome(replace(alone, folder="whole", take=8, save=False), tmp_path)
    one = outcome(resumed(tmp_path, spread, ""), tmp_path)
    for rest in (found, one):
        close(rest["weights"], uncut["weights"])
        assert [loss for loss, _ in rest["told"]] == pytest.approx(
            [loss for loss, _ in uncut["told"][5:]], abs=CLOSE
        )
    path = checkpoints(tmp_path / "two" / "checkpoints")[-1]
    assert json.loads((path / "state.json").read_text())["format"] == SHARED
    # All that is saved, memories, clocks and carried states too, has the names and values of one process.
    mine, theirs = load(path).tensors, load_newest(tmp_path / "one" / "checkpoints").tensors
    close({n: t.double() for n, t in mine.items()}, {n: t.double() for n, t in theirs.items()}, 1e-4)
    assert streams == any(name.startswith("carried/1/") for name in theirs)
    # What was written while training went on is what stood then, not what came of it.
    kept = load_run(tmp_path / "two").model.parameter_paths()
    assert not torch.equal(behind["weights"]["x.embed.weight"], kept["x.embed.weight"])
