"""Several processes stop, refuse and begin anew together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from nldsl.cli import main
from nldsl.diagnostics import SpecError
from nldsl.train import join, load_run
from nldsl.train.checkpoint import checkpoints
from nldsl.train.log import read_log
from tests.conformance.processes import (
    ROOT,
    Case,
    ended,
    environment,
    free_port,
    outcome,
    spawned,
    spec,
    started,
)


def test_faults_of_one_process_are_those_of_all(tmp_path: Path) -> None:
    plain, rows = spec("transformer", "adamw", tmp_path), spec("transformer", "dgd", tmp_path)
    case = Case(plain, "poisoned", "ddp", take=1)
    cases = {
        "poisoned": case,
        "poisoned_skipped": replace(
            case, folder="skipped", kind="fsdp", take=3, options={"on_fault": "skip"}
        ),
        "uneven": replace(case, folder="uneven", options={"batch": 3}),
        "different": replace(case, folder="different"),
        "rows": Case(rows, "rows", "fsdp", take=1),
        "compiled": replace(case, folder="compiled", kind="fsdp", options={"compiled": "auto"}),
        "nowhere": replace(case, folder="nowhere", options={"data": "/no/such/file"}),
        "attention": replace(case, folder="attention", options={"stream": True}),
    }
    started(2, "faults", tmp_path, cases={name: asdict(c) for name, c in cases.items()})
    first, second = (json.loads((tmp_path / f"met{rank}.json").read_text()) for rank in (0, 1))
    shared = {
        "poisoned_skipped": ["not finite"] * 3,
        "uneven": "NL0993",
        "rows": "NL0994",
        "compiled": "NL0994",
        "attention": "NL0990",
    }
    both = {"poisoned": "NL0985", "different": "", "nowhere": "NL0951"}
    assert first == shared | both | {"different": first["different"]}
    assert second == shared | {"poisoned": "left", "different": "NL0995", "nowhere": "left"}
    assert len(checkpoints(tmp_path / "poisoned" / "checkpoints")) == 1


@pytest.mark.parametrize("words", [["--parallel", "ddp"], ["--async-save"], ["--device", "cuda:99"]])
def test_what_is_not_there_is_said(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(["train", "transformer", "--out", str(tmp_path / "run"), "--steps", "1", *words])
    assert "NL0992" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_words_that_are_unknown() -> None:
    for given in ({"parallel": "tensor"}, {"backend": "mpi"}):
        with pytest.raises(SpecError, match="NL0981"):
            join(**given)


def test_who_finds_nobody_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (environment(1, 2, free_port()) | {"NLDSL_TIMEOUT": "1"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SpecError) as caught:
        join("ddp")
    (found,) = caught.value.diagnostics
    assert found.code == "NL0998" and "--resume" in found.help and found.notes[0]


def words(source: str, run: Path, steps: int, folder: Path) -> list[str]:
    options = {"--data": str(folder / "text"), "--steps": steps, "--batch": 4, "--length": 16}
    return ["train", source, "--out", str(run), *(str(w) for pair in options.items() for w in pair)]


@pytest.mark.long
def test_a_signal_to_one_process_saves_once_and_ends_all(tmp_path: Path) -> None:
    source, run = spec("transformer", "muon", tmp_path), tmp_path / "run"
    running = spawned(2, "command", tmp_path, words=words(source, run, 100000, tmp_path))
    until = time.monotonic() + 120
    while len(read_log(run)) < 3 and time.monotonic() < until and running[0].poll() is None:
        time.sleep(0.05)
    running[1].send_signal(signal.SIGTERM)
    running[1].send_signal(signal.SIGINT)  # what torchrun passes on besides changes nothing
    said = ended(running)
    assert [p.returncode for p in running] == [130, 130], said
    (saved,) = checkpoints(run / "checkpoints")
    assert int(saved.name.removeprefix("step-")) == read_log(run)[-1]["step"] >= 3


@pytest.mark.long
def test_a_process_that_dies_is_started_anew_and_goes_on(tmp_path: Path) -> None:
    """torchrun starts all again; they go on from the checkpoint behind step 6 as if nothing had been."""
    source, run = spec("transformer", "adamw", tmp_path), tmp_path / "run"
    given = {"words": [*words(source, run, 10, tmp_path), "--parallel", "fsdp"], "at": 6}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--monitor-interval", "0.2"]
    job = ["-m", "tests.conformance.processes", "flaky", str(tmp_path), json.dumps(given)]
    known = {n: v for n, v in environment(0, 1, 0).items() if "RANK" not in n and "MASTER" not in n}
    one = subprocess.Popen(
        [*torchrun, *job],
        cwd=ROOT,
        env={n: v for n, v in known.items() if "WORLD" not in n},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        (said,) = ended([one])
    finally:
        if one.poll() is None:
            os.killpg(one.pid, signal.SIGKILL)
    assert one.returncode == 0, said
    assert [r["step"] for r in read_log(run) if "loss" in r] == list(range(1, 11))
    alone = outcome(Case(source, "alone", options={"length": 16, "seed": 0}), tmp_path)
    for path, weight in load_run(run).model.parameter_paths().items():
        assert float((weight.detach() - alone["weights"][path]).abs().max()) <= 1e-6, path
