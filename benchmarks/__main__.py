"""All benchmarks, one after the other: `python -m benchmarks [--quick] [NAME ...]`; `--list` names them.

Each runs in a process of its own; one that fails does not stop the others, and the exit code says at the end
that there was one.  What they print is kept in `build/bench/`, a file each, as they go, and in one page,
`build/bench/report.md`: an interrupted run keeps what it has.  `--quick` runs all of them at small sizes, to
see that they run: its numbers say nothing, and it writes into `build/bench-quick/`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks.measure import machine
from benchmarks.plan import PLAN, Benchmark, title

OUT, QUICK_OUT = Path("build/bench"), Path("build/bench-quick")
INTERRUPTED = 130


@dataclass
class Done:
    """A benchmark that has run: its exit code (`None`: interrupted), and what it took."""

    name: str
    code: int | None
    seconds: float
    plots: list[str]

    @property
    def result(self) -> str:
        if self.code is None:
            return "interrupted"
        return "ok" if self.code == 0 else f"FAILED (exit code {self.code})"


def span(seconds: float) -> str:
    """
    >>> span(8), span(340)
    ('8 s', '6 min')
    """
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def expected(name: str, quick: bool) -> float:
    return PLAN[name].quick_seconds if quick else PLAN[name].seconds


def listing(names: list[str], quick: bool) -> str:
    """A line for every benchmark: about how long it takes, and what it is."""
    return "\n".join(f"  {name:16s} {span(expected(name, quick)):>6s}  {title(name)}" for name in names)


def commands(benchmark: Benchmark, name: str, quick: bool, out: Path) -> list[list[str]]:
    """The processes of one benchmark."""
    runs = benchmark.quick if quick else benchmark.runs
    plain = [sys.executable, "-m", f"benchmarks.{name}"]
    return [[*plain, *shlex.split(run.format(out=out))] for run in runs]


def run(command: list[str], text: Path) -> int:
    """The exit code of one process, whose lines go to the terminal and behind those of the file."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        text.open("a", encoding="utf-8") as kept,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            process_group=0,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                kept.write(line)
                kept.flush()
                print(line, end="", flush=True)
        except KeyboardInterrupt:
            # The group: what the benchmark has started ends with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.wait()


def one(name: str, quick: bool, out: Path) -> Done:
    """Run a benchmark; what it printed is in its file, whatever becomes of it."""
    text, began, started = out / f"{name}.txt", time.monotonic(), time.time()
    text.write_text("", encoding="utf-8")
    code: int | None = 0
    try:
        for command in commands(PLAN[name], name, quick, out):
            code = max(code or 0, abs(run(command, text)))
    except KeyboardInterrupt:
        code = None
    # Those of an earlier run are not its own.
    plots = [p for p in PLAN[name].plots if (out / p).exists() and (out / p).stat().st_mtime >= started - 1]
    return Done(name, code, time.monotonic() - began, plots)


def report(done: list[Done], out: Path, where: str, quick: bool) -> None:
    """One page of everything so far: a table of what ran, and what each printed."""
    head = "Benchmarks at small sizes: the numbers say nothing" if quick else "Benchmarks"
    rows = [f"| [{d.name}](#{d.name}) | {title(d.name)} | {span(d.seconds)} | {d.result} |" for d in done]
    parts = [
        f"# {head}",
        where,
        "| benchmark | what | took | result |\n|---|---|---:|---|\n" + "\n".join(rows),
    ]
    for d in done:
        parts.append(f"## {d.name}")
        parts += [f"![{d.name}]({plot})" for plot in d.plots]
        parts.append(f"```text\n{(out / f'{d.name}.txt').read_text(encoding='utf-8').rstrip()}\n```")
    (out / "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def everything(names: list[str], quick: bool, out: Path) -> list[Done]:
    """Run them, and say how long the rest may take, by how long those before took."""
    where, done = f"{time.strftime('%Y-%m-%d %H:%M')}, {machine()}", []
    for number, name in enumerate(names):
        before, spent = sum(expected(d.name, quick) for d in done), sum(d.seconds for d in done)
        # What has run says how fast this machine is, the more of it the better.
        pace = (spent + 60) / (before + 60)
        rest = pace * sum(expected(n, quick) for n in names[number:])
        own = span(pace * expected(name, quick))
        head = f"== {name} ({number + 1} of {len(names)}): about {own}; all that is left: about {span(rest)}"
        print(f"\n{head}", flush=True)
        done.append(one(name, quick, out))
        report(done, out, where, quick)
        print(f"== {name}: {done[-1].result} after {span(done[-1].seconds)}", flush=True)
        if done[-1].code is None:
            break
    return done


def summary(done: list[Done], names: list[str], out: Path, quick: bool) -> int:
    """Say what failed, what is missing and where everything lies; the exit code."""
    failed = [d.name for d in done if d.code]
    finished = sum(d.code is not None for d in done)
    took = span(sum(d.seconds for d in done))
    fell = f"; FAILED: {', '.join(failed)}" if failed else ""
    print(f"\n{finished} of {len(names)} benchmarks in {took}{fell}")
    print(
        "kept: " + ", ".join(f"{out}/{kept}" for kept in ["report.md", *(p for d in done for p in d.plots)])
    )
    rest = names[finished:]
    if rest:
        again = " ".join([*(["--quick"] if quick else []), *rest])
        print(f'interrupted; the rest: make bench BENCH="{again}"')
        return INTERRUPTED
    return 1 if failed else 0


def interrupted(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="name them, and about how long each takes")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that all of them run")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(PLAN))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(PLAN)}")
    quick, out = options.quick, QUICK_OUT if options.quick else OUT
    names = list(dict.fromkeys(options.names)) or list(PLAN)
    if options.list:
        print(listing(names, quick))
        return 0
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, interrupted)
    total = span(sum(expected(name, quick) for name in names))
    print(
        f"{len(names)} benchmarks, about {total} where the times below were taken (an AMD EPYC, one thread)"
    )
    print("Ctrl-C ends the run; what has run is kept")
    print(f"{machine()}\n{listing(names, quick)}", flush=True)
    return summary(everything(names, quick, out), names, out, quick)


if __name__ == "__main__":
    sys.exit(main())
