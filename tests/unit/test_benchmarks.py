"""The run of all benchmarks: none stops the others, an interrupted one keeps what it has, plots are drawn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import peers
from benchmarks.loglog import loglog
from benchmarks.measure import about
from benchmarks.peer import Pair
from benchmarks.plan import PLAN, title

ROOT = Path(__file__).resolve().parents[2]
runner = import_module("benchmarks.__main__")
SLOW = """
import sys
from importlib import import_module
runner = import_module("benchmarks.__main__")
sleep = "import time; print('sleeps', flush=True); time.sleep(60)"
code = {"peak": "print('first of all')", "linears": sleep}
runner.commands = lambda benchmark, name, quick, out: [[sys.executable, "-c", code[name]]]
sys.argv = ["benchmarks", "peak", "linears", "gpu"]
sys.exit(runner.main())
"""
PAGES = """
import resource
import sys
import torch
import nldsl
from benchmarks import lengths

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if not nldsl.keep_freed_memory():
    sys.exit(print("none"))
lengths.peak_mib(lambda: torch.ones(1 << 20))
# Something small may take the end of what was just freed: then the next array lies elsewhere, once.
anew = min(faults() for _ in range(8))
lengths.allocator(fresh=False)
print(anew, min(faults() for _ in range(8)))
"""


def test_every_benchmark_has_its_place() -> None:
    """What can be called by itself is run by `make bench`, and has a title and an expected time."""
    parts = {p.stem for p in (ROOT / "benchmarks").glob("*.py") if "if __name__ ==" in p.read_text()}
    assert parts - {"__main__"} == set(PLAN)
    assert all(title(name).endswith(".") and PLAN[name].quick_seconds > 0 for name in PLAN)


def test_one_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = {"peak": "import sys; print('half'); sys.exit('no luck')", "linears": "print('all well')"}
    monkeypatch.setattr(runner, "commands", lambda b, name, *_: [[sys.executable, "-c", code[name]]])
    monkeypatch.setattr(sys, "argv", ["benchmarks", "peak", "linears"])
    monkeypatch.chdir(tmp_path)
    assert runner.main() == 1
    printed, report = capsys.readouterr().out, Path("build/bench/report.md").read_text()
    assert "FAILED: peak" in printed and "2 of 2 benchmarks" in printed and "all that is left" in printed
    assert Path("build/bench/peak.txt").read_text() == "half\nno luck\n"
    assert "FAILED (exit code 1)" in report and "all well" in report and torch.__version__ in report
    code["peak"] = "open('build/bench/lengths.svg', 'w').write('<svg/>')"
    monkeypatch.setattr(runner, "PLAN", {**PLAN, "peak": replace(PLAN["peak"], plots=("lengths.svg",))})
    assert runner.main() == 0
    assert "![peak](lengths.svg)" in Path("build/bench/report.md").read_text()


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "sleeps\n":
            break
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    last = process.communicate()[0]
    assert process.returncode == runner.INTERRUPTED and time.monotonic() - began < 30
    assert 'make bench BENCH="linears gpu"' in last
    report = (tmp_path / "build/bench/report.md").read_text()
    assert "first of all" in report and "interrupted" in report and "sleeps" in report


def test_a_run_leaves_other_results_alone() -> None:
    """Whatever writes tables and plots is told the folder of the run."""
    for name, benchmark in PLAN.items():
        for quick, out in ((False, runner.OUT), (True, runner.QUICK_OUT)):
            for command in runner.commands(benchmark, name, quick, out):
                told = any(part.startswith(f"{out}/") for part in command)
                assert told == (bool(benchmark.plots) and "--rates" not in command)


def test_plots_of_what_cannot_be_drawn() -> None:
    """A logarithm takes no zero: such points are left out, and a panel without points says so."""
    picture = loglog({"ms": {"a": [(64, 0.0), (128, 2.0), (256, 3.0)]}, "MiB": {"b": [(64, 0.0)]}}, "tokens")
    assert picture.count("<polyline") == 1 and "nothing to draw" in picture
    assert ">128<" in picture and ">64<" not in picture


def test_peaks_do_not_lengthen_the_times_behind_them() -> None:
    """To measure a peak, memory is fetched anew for every array; times are taken with memory that is kept."""
    command = [sys.executable, "-c", PAGES]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    if found.strip() == "none":
        pytest.skip("this C library keeps no memory")
    anew, kept = map(int, found.split())
    assert anew > 10 and kept < anew / 10


def test_headings_say_what_and_where() -> None:
    told = about(peers.__doc__, 2)
    assert "python -m" not in told and "ratio" in told
    assert f"torch {torch.__version__}" in told and "2 threads" in told


def test_peers_on_several_threads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both sides have them, and ratios are of elapsed time: to sleep takes no CPU time."""
    seen, before = [], torch.get_num_threads()

    def sleeping(seconds: float) -> None:
        seen.append(torch.get_num_threads())
        time.sleep(seconds)

    pair = Pair("sleep", lambda: sleeping(0.05), lambda: sleeping(0.2))
    monkeypatch.setattr(peers, "import_module", lambda name: SimpleNamespace(pairs=lambda: [pair]))
    monkeypatch.setattr(peers, "version", lambda name: "1")
    monkeypatch.setattr(sys, "argv", ["peers", "--threads", "2", "--rounds", "3", "hope"])
    try:
        peers.main()
    finally:
        torch.set_num_threads(before)
    printed = capsys.readouterr().out
    assert set(seen) == {2} and "elapsed time, 2 threads each" in printed
    ratio = float(printed.splitlines()[-1].split(" x")[0].split()[-1])
    assert 2 < ratio < 8


@pytest.mark.parametrize("wrong", [["nosuch"], ["gla", "--lengths", "0"], ["gla", "--rounds", "0"]])
def test_lengths_says_what_it_takes(
    wrong: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lengths", *wrong])
    with pytest.raises(SystemExit) as ended:
        import_module("benchmarks.lengths").main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and ("there are mamba2" in said or "1 or more" in said)
