"""Rules of the library as optimisers of one small language model: loss against steps and against seconds.

    python examples/optimisers/run.py                     # every rule, three seeds; then table and plot
    python examples/optimisers/run.py --quick             # the same in seconds, too short to mean anything
    python examples/optimisers/run.py --only m3 --seed 0  # one run; what is there already is not run again
    python examples/optimisers/run.py --tune              # every rule at the rates it was chosen from

A rule trains the matrices; embeddings, head and norms are AdamW's in every run, at one and the same rate.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

# Threads that wait asleep: spinning ones crawl where others use the machine too.  Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

import nldsl  # noqa: E402
from nldsl.catalog.schedules import SCHEDULES  # noqa: E402
from nldsl.train.data import Corpus, prepare  # noqa: E402

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))


from panels import Panel, picture  # noqa: E402

MODEL = HERE / "model.nl"
DATA, BATCH, LENGTH = "python-stdlib", 8, 256
SEEDS, TUNING_SEED = (0, 1, 2), 10
HELD_OUT = 24
"""Windows of held-out text behind every mark of the curves."""
REST = 2e-2
"""AdamW's rate for what is no matrix."""


@dataclass(frozen=True)
class Entry:
    """A rule as it is written, its name in tables, its rate and the rates it was chosen from."""

    label: str
    rule: str
    rate: float
    rates: tuple[float, ...]


RULES = {
    "adamw": Entry("AdamW", "adamw", 1e-2, (5e-3, 1e-2, 2e-2)),
    "momentum": Entry("momentum", "momentum", 0.4, (0.1, 0.4, 1.6)),
    "delta_momentum": Entry("delta momentum (Eq. 49)", "delta_momentum", 1.6, (0.4, 1.6, 6.4)),
    "muon": Entry("Muon", "muon", 5e-2, (2e-2, 5e-2, 1e-1)),
    "m3": Entry("M3 (Alg. 1 to the letter)", "m3", 6e-5, (1.5e-5, 6e-5, 2.5e-4)),
    "m3_ema": Entry("M3 that forgets", "m3_ema", 5e-5, (1.25e-5, 5e-5, 2e-4)),
    "still": Entry("matrices as they were drawn", "sgd", 0.0, (0.0,)),
    "dgd": Entry("DGD (Eq. 57)", "dgd", 0.001, (0.001, 0.01, 0.1)),
}


@dataclass(frozen=True)
class Plan:
    """How long a run is, and how often the held-out text is looked at."""

    steps: int = 200
    every: int = 20


def main() -> None:
    """Do what is missing, then write the table and the plot."""
    options = parse_arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    prepare(DATA, options.out / "data", length=LENGTH)  # written once, before several read it
    if options.only is not None and options.seed is not None:
        rate = options.rate or RULES[options.only].rate
        run(options.only, rate, options.seed, options)
        return
    jobs = jobs_of(options)
    side_by_side([job for job in jobs if not place_of(options.out, *job).is_file()], options)
    results = [json.loads(place_of(options.out, *job).read_text(encoding="utf-8")) for job in jobs]
    if len({json.dumps(r["asked"], sort_keys=True) for r in results}) != 1:
        raise SystemExit(f"`{options.out}` holds runs of different settings: give another `--out`")
    if options.tune:
        print(tuned(results))
    else:
        print(report(results, options.figures or options.out))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=None, help="folder of the results (runs/optimisers)")
    parser.add_argument("--figures", type=Path, help="folder of the table and the plot (that of the results)")
    parser.add_argument("--only", choices=RULES, help="only this rule")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--rate", type=float, help="another rate than that of the table")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once, one thread each")
    parser.add_argument("--tune", action="store_true", help="every rule at every rate it was chosen from")
    parser.add_argument("--quick", action="store_true", help="a few steps, one seed")
    options = parser.parse_args()
    options.out = options.out or Path("runs/optimisers-quick" if options.quick else "runs/optimisers")
    options.plan = Plan(steps=4, every=2) if options.quick else Plan()
    return options


def jobs_of(options: argparse.Namespace) -> list[tuple[str, float, int]]:
    """Every run that is wanted: rule, rate, seed."""
    names = [name for name in RULES if options.only in (None, name)]
    if options.tune:
        return [(name, rate, TUNING_SEED) for name in names for rate in RULES[name].rates]
    seeds = [seed for seed in SEEDS[: 1 if options.quick else None] if options.seed in (None, seed)]
    return [(name, options.rate or RULES[name].rate, seed) for seed in seeds for name in names]


def place_of(out: Path, name: str, rate: float, seed: int) -> Path:
    """Where a run leaves its figures."""
    return out / f"{name}-{rate:g}-{seed}.json"


def side_by_side(missing: list[tuple[str, float, int]], options: argparse.Namespace) -> None:
    """One process per run, at most `--jobs` at once."""
    fixed = ["--out", str(options.out), *(["--quick"] if options.quick else [])]
    waiting = [
        [sys.executable, __file__, *fixed, "--only", name, "--rate", repr(rate), "--seed", str(seed)]
        for name, rate, seed in missing
    ]
    running: list[subprocess.Popen[bytes]] = []
    while waiting or running:
        while waiting and len(running) < options.jobs:
            running.append(subprocess.Popen(waiting.pop(0)))
        time.sleep(0.2)
        if any(process.poll() for process in running):
            for process in running:
                process.terminate()
            raise SystemExit("a run failed; what is done is kept")
        running = [process for process in running if process.poll() is None]


# --- one run ---------------------------------------------------------------------------------


def run(name: str, rate: float, seed: int, options: argparse.Namespace) -> None:
    """Train the model by one rule and write its curve: `[step, CPU seconds of training, bits per byte]`.

    Seconds are those of this process on one thread, evaluation not counted, so they depend on the machine,
    but hardly on what else it does.
    """
    torch.set_num_threads(1)
    corpus, plan = prepare(DATA, options.out / "data", length=LENGTH), options.plan
    model = nldsl.compile(MODEL, seed=seed)
    optimizers = optimizers_of(model, name, rate)
    held_out = torch.from_numpy(corpus.heldout_windows(length=LENGTH, limit=HELD_OUT)).long()
    seconds, curve = 0.0, [[0, 0.0, bits(model, held_out)]]
    for step in range(plan.steps):
        begin = time.process_time()
        train_step(model, optimizers, corpus, step, seed, plan)
        seconds += time.process_time() - begin
        if (step + 1) % plan.every == 0:
            curve.append([step + 1, seconds, bits(model, held_out)])
            if not math.isfinite(curve[-1][2]):
                break
    result = {
        "rule": name,
        "rate": rate,
        "seed": seed,
        "asked": {
            "python": platform.python_version(),
            "data": corpus.digest[:16],
            "steps": plan.steps,
            "batch": BATCH,
            "length": LENGTH,
            "rest": REST,
        },
        "parameters": sum(p.numel() for p in model.parameters()),
        "curve": [[step, round(s, 3), round(b, 4) if math.isfinite(b) else None] for step, s, b in curve],
    }
    place = place_of(options.out, name, rate, seed)
    part = place.with_suffix(".part")
    part.write_text(json.dumps(result) + "\n", encoding="utf-8")
    part.replace(place)
    print(f"{name} rate {rate:g} seed {seed}: {curve[-1][2]:.3f} bits per byte, {seconds:.1f} s", flush=True)


def optimizers_of(model: nldsl.Model, name: str, rate: float) -> list[tuple[torch.optim.Optimizer, float]]:
    """The rule for the matrices and AdamW for the rest, each with its highest rate."""
    roles = model.parameter_roles()
    matrices = [(path, p) for path, p in model.parameter_paths().items() if roles[path] == "matrix"]
    others = [(path, p) for path, p in model.parameter_paths().items() if roles[path] != "matrix"]
    chosen = nldsl.optimizer(RULES[name].rule, matrices, lr=rate, module=model, nonfinite="ignore")
    return [(chosen, rate), (nldsl.optimizer("adamw", others, lr=REST, nonfinite="ignore"), REST)]


def train_step(
    model: nldsl.Model,
    optimizers: list[tuple[torch.optim.Optimizer, float]],
    corpus: Corpus,
    step: int,
    seed: int,
    plan: Plan,
) -> None:
    """One step: ten of warm-up, then half a cosine."""
    windows = torch.from_numpy(corpus.batch(seed=seed, step=step, batch=BATCH, length=LENGTH)).long()
    for optimizer, peak in optimizers:
        options = {"value": peak, "warmup": 10}
        optimizer.param_groups[0]["lr"] = SCHEDULES["cosine"].value(step, step / plan.steps, options)
        optimizer.zero_grad()
    mean_loss(model, windows).backward()
    for optimizer, _ in optimizers:
        optimizer.step()


def mean_loss(model: nldsl.Model, windows: Tensor) -> Tensor:
    """Next-token loss in nats of `[B, T + 1]`."""
    logits, _ = model(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def bits(model: nldsl.Model, windows: Tensor) -> float:
    """Bits per byte."""
    with torch.no_grad():
        return float(mean_loss(model, windows)) / math.log(2)


# --- what came out ---------------------------------------------------------------------------


def final(result: dict[str, Any]) -> float:
    """Bits per byte behind the last step; infinite if the run diverged."""
    last = result["curve"][-1][2]
    return math.inf if last is None else float(last)


def tuned(results: list[dict[str, Any]]) -> str:
    """A row per rule: bits per byte at each of its rates, the best bold."""
    lines = ["| rule | rates and bits per byte |", "|---|---|"]
    for name, entry in RULES.items():
        found = {r["rate"]: final(r) for r in results if r["rule"] == name}
        if not found:
            continue
        best = min(found, key=found.__getitem__)
        cells = [
            f"{rate:g}: {'**' * (rate == best)}{x:.3f}{'**' * (rate == best)}" for rate, x in found.items()
        ]
        lines.append(f"| {entry.label} | {', '.join(cells)} |")
    return "\n".join(lines)


def spread(values: list[float], digits: int = 3) -> str:
    """Mean and standard deviation over seeds."""
    found = f"{mean(values):.{digits}f}"
    return f"{found} ± {stdev(values):.{digits}f}" if len(values) > 1 else found


def reaching(curve: list[list[float]], goal: float) -> list[float] | None:
    """Steps and seconds at the first look at which the loss is no higher than `goal`."""
    return next((point[:2] for point in curve if point[2] is not None and point[2] <= goal), None)


def report(results: list[dict[str, Any]], folder: Path) -> str:
    """Write `results.json`, `report.md` and `loss.svg`; the text of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    text = table(results)
    lines = ",\n".join(json.dumps(result) for result in results)
    (folder / "results.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    (folder / "report.md").write_text(text + "\n", encoding="utf-8")
    (folder / "loss.svg").write_text(drawing(results), encoding="utf-8")
    return text


def by_rule(results: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The runs of every rule."""
    found = {name: [r for r in results if r["rule"] == name] for name in RULES}
    return {name: runs for name, runs in found.items() if runs}


def table(results: list[dict[str, Any]]) -> str:
    """A row per rule; how soon each reaches what AdamW ends with."""
    runs = by_rule(results)
    goal = mean(final(r) for r in runs["adamw"]) if "adamw" in runs else 0.0
    lines = [
        "| rule | rate | seeds | bits per byte | ms per step | steps to AdamW's loss | CPU s to it |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in runs.items():
        last = [r["curve"][-1] for r in found]
        each = spread([1000 * point[1] / point[0] for point in last], 0)
        reached = [reaching(r["curve"], goal) for r in found]
        sooner = ["", ""] if name == "adamw" else ["-", "-"]
        if name != "adamw" and all(point is not None for point in reached):
            sooner = [spread([point[i] for point in reached if point is not None], 0) for i in (0, 1)]
        rate, level = f"{found[0]['rate']:g}", spread([final(r) for r in found])
        cells = [RULES[name].label, rate, str(len(found)), level, each, *sooner]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def drawing(results: list[dict[str, Any]]) -> str:
    """Loss against steps and against seconds."""
    runs = by_rule(results)
    panels = []
    for place, title, label in ((0, "steps", "step"), (1, "seconds", "CPU seconds of training, one thread")):
        curves = {
            RULES[name].label: [[(p[place], p[2]) for p in r["curve"] if p[2] is not None] for r in found]
            for name, found in runs.items()
        }
        panels.append(Panel(f"loss against {title}", label, "held-out bits per byte", curves, top=5.0))
    return picture(
        panels, list(panels[0].runs), "One small language model, every rule: mean and range over seeds"
    )


if __name__ == "__main__":
    main()
