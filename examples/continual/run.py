"""Three domains, one after another: what a model still knows of the first when it has learnt the last.

    python examples/continual/run.py                       # every model, three seeds; then tables and plots
    python examples/continual/run.py --quick               # the same in seconds, too short to mean anything
    python examples/continual/run.py --only hope --seed 0  # one run; what is there already is not run again
    python examples/continual/run.py --data A B C          # other domains: files or folders of text
    python examples/continual/run.py --out NEW --figures examples/continual  # renews its tables

Every model has 164 to 169 thousand parameters and sees the same bytes in the same order.  All are trained by
the rules of their own `train` section; rates and memories of the rules begin anew with every domain.
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
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

# Threads that wait asleep: spinning ones crawl where others use the machine too.  Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

import nldsl  # noqa: E402
from nldsl.evaluate.contract import writes_task  # noqa: E402
from nldsl.train import RunConfig, Trainer  # noqa: E402

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from domains import Domain, of_folders, of_python  # noqa: E402
from report import report  # noqa: E402

MODELS = (
    "transformer",
    "hope_attention_1",
    "hope_attention_2",
    "hope_attention_3",
    "hope_attention_3_steps",
    "hope",
)
SEEDS = (0, 1, 2)
BATCH, LENGTH = 8, 256
SIDE_BY_SIDE = 32
"""Windows that are read at once."""
MODES = ("off", "window", "stream")
"""Memory systems at test time: held still, learning within each window, learning on along the stream."""


@dataclass(frozen=True)
class Plan:
    """How long a run is: steps and looks at the held-out text per domain, and how much of it is read."""

    steps: int = 112
    looks: int = 4
    rows: int = 4
    windows: int = 8


QUICK = Plan(steps=2, looks=1, rows=2, windows=2)


def main() -> None:
    """Do what is missing, then write tables and plots."""
    options = parse_arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    plan = QUICK if options.quick else Plan(steps=options.steps)
    wanted = [
        (model, seed)
        for seed in SEEDS[: 1 if options.quick else None]
        for model in MODELS
        if options.only in (None, model) and options.seed in (None, seed)
    ]
    missing = [one for one in wanted if not result_file(options.out, *one).is_file()]
    if options.only is not None and options.seed is not None:
        for model, seed in missing:
            run(model, seed, plan, options)
        return
    # The dearest models stand last and begin first, so that no core waits for the other at the end.
    side_by_side(sorted(missing, key=lambda one: MODELS.index(one[0]), reverse=True), options)
    results = [json.loads(result_file(options.out, m, s).read_text(encoding="utf-8")) for m, s in wanted]
    if len({json.dumps(r["asked"], sort_keys=True) for r in results}) != 1:
        raise SystemExit(f"`{options.out}` holds runs of different settings: give another `--out`")
    print(report(results, options.figures or options.out))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=None, help="folder of the results (runs/continual)")
    parser.add_argument("--figures", type=Path, help="folder of tables and plots (that of the results)")
    parser.add_argument("--only", choices=MODELS, help="only this model")
    parser.add_argument("--seed", type=int, choices=SEEDS, help="only this seed")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once, one thread each")
    parser.add_argument("--steps", type=int, default=Plan.steps, help="training steps per domain")
    parser.add_argument("--data", nargs="+", metavar="DOMAIN", help="files or folders, in this order")
    parser.add_argument("--quick", action="store_true", help="a few steps, one seed")
    options = parser.parse_args()
    options.out = options.out or Path("runs/continual-quick" if options.quick else "runs/continual")
    if options.data is not None and len(options.data) < 2:
        parser.error("--data takes at least two domains")
    return options


def result_file(out: Path, model: str, seed: int) -> Path:
    """Where a run leaves its figures: a model whose program has changed is run again."""
    return out / f"{model}-{seed}-{digest_of(model)}.json"


@cache
def digest_of(model: str) -> str:
    """What tells programs of one name apart, and how they are trained; not comments, nor places in a text."""
    program = nldsl.program(HERE / f"{model}.nl")
    return sha256(repr((program.root, program.train)).encode()).hexdigest()[:12]


def side_by_side(missing: list[tuple[str, int]], options: argparse.Namespace) -> None:
    """One process per run, at most `--jobs` at once."""
    waiting = [
        [
            sys.executable,
            __file__,
            *sys.argv[1:],
            "--out",
            str(options.out),
            "--only",
            model,
            "--seed",
            str(seed),
        ]
        for model, seed in missing
    ]
    if waiting:
        domains_of(options)  # written once, before anyone reads them
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


def domains_of(options: argparse.Namespace) -> list[Domain]:
    """The domains, in the order in which they are met."""
    folder = options.out / "data"
    return of_folders(options.data, folder, LENGTH) if options.data else of_python(folder, LENGTH)


# --- one run ---------------------------------------------------------------------------------


def run(name: str, seed: int, plan: Plan, options: argparse.Namespace) -> None:
    """Train one model on every domain in turn and write its figures; what a domain ends with is kept.

    Seconds are all that the process has used, loading torch and looking at held-out text too.
    """
    torch.set_num_threads(1)
    begin = 0.0
    domains = domains_of(options)
    model = nldsl.compile(HERE / f"{name}.nl", seed=seed)
    held_out = [domain.held_out(plan.rows, plan.windows, LENGTH) for domain in domains]
    place = result_file(options.out, name, seed)
    result = resumed(place.with_suffix(".pt"), model, asked(domains, plan)) or {
        "model": name,
        "seed": seed,
        "asked": asked(domains, plan),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": 0.0,
        "curve": [look(model, held_out, 0)],
        "matrices": {mode: [] for mode in modes_of(model)},
    }
    for number in range(len(result["matrices"]["off"]), len(domains)):
        learn(model, domains[number], seed, plan, held_out, number, result["curve"])
        for mode, matrix in result["matrices"].items():
            matrix.append(row_of(model, held_out, number, mode))
        begin, result["seconds"] = time.process_time(), result["seconds"] + time.process_time() - begin
        torch.save({"result": result, "weights": model.state_dict()}, place.with_suffix(".pt"))
        last = zip(domains, result["matrices"]["off"][-1], strict=True)
        shown = "  ".join(f"{domain.name} {found:.3f}" for domain, found in last)
        print(f"{name} seed {seed}, behind {domains[number].name}: {shown}", flush=True)
    part = place.with_suffix(".part")
    part.write_text(json.dumps(rounded(result)) + "\n", encoding="utf-8")
    part.replace(place)


def resumed(kept: Path, model: nldsl.Model, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The figures behind the last domain of a run that was stopped, its weights put into the model."""
    if not kept.is_file():
        return None
    found = torch.load(kept, weights_only=True)
    if found["result"]["asked"] != wanted:
        raise SystemExit(f"`{kept}` is of other settings: give another `--out`")
    model.load_state_dict(found["weights"])
    result: dict[str, Any] = found["result"]
    return result


def asked(domains: list[Domain], plan: Plan) -> dict[str, Any]:
    """What must be the same in all runs that are compared."""
    return {
        "python": platform.python_version(),
        "domains": {d.name: d.corpus.digest[:16] for d in domains},
        "steps": plan.steps,
        "batch": BATCH,
        "length": LENGTH,
        "held out": [plan.rows, plan.windows],
    }


def learn(
    model: nldsl.Model,
    domain: Domain,
    seed: int,
    plan: Plan,
    held_out: list[Tensor],
    number: int,
    curve: list[Any],
) -> None:
    """Train on one domain by the rules of the model's `train` section, which begin anew; `curve` grows."""
    config = RunConfig(domain.name, data=domain.name, steps=plan.steps, batch=BATCH, length=LENGTH, seed=seed)
    trainer = Trainer(model, domain.corpus, config, Path())
    for step in range(1, plan.steps + 1):
        trainer.train_step()
        if step * plan.looks // plan.steps > (step - 1) * plan.looks // plan.steps:
            curve.append(look(model, held_out, number * plan.steps + step))


def row_of(model: nldsl.Model, held_out: list[Tensor], number: int, mode: str) -> list[float | None]:
    """A row of the matrix: the loss on every domain behind the domain `number`.

    Reading on along a stream is dear: what is told of it is the domain just learnt, and all at the end.
    """
    told = [mode != "stream" or number in (i, len(held_out) - 1) for i in range(len(held_out))]
    return [loss(model, w, mode) if asked else None for w, asked in zip(held_out, told, strict=True)]


def look(model: nldsl.Model, held_out: list[Tensor], step: int) -> list[float]:
    """The step, and the loss on the first half of every domain's held-out text, as the model was trained."""
    mode = modes_of(model)[min(1, len(modes_of(model)) - 1)]
    return [step, *(loss(model, windows[: max(1, len(windows) // 2)], mode) for windows in held_out)]


def modes_of(model: nldsl.Model) -> tuple[str, ...]:
    """What can be asked of a model: one without memories that minimise the task has nothing to switch on."""
    return MODES if writes_task(model.program) else MODES[:1]


def loss(model: nldsl.Model, windows: Tensor, mode: str) -> float:
    """Bits per byte of `windows [W, B, length + 1]`, each in a fresh context.

    Every byte is predicted before it is learnt.  `off`: no memory system learns.  `window`: each learns from
    the window and forgets it.  `stream`: what it learnt of the windows before stays (`reset never`).
    Windows that know nothing of one another are read side by side.
    """
    total, state = 0.0, None
    with torch.no_grad():
        for tokens in windows if mode == "stream" else windows.flatten(0, 1).split(SIDE_BY_SIDE):
            if mode == "off":
                logits, _ = model(tokens[:, :-1])
                total += float(
                    F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
                )
            else:
                summed, behind = model.learn(tokens, state)
                total += float(summed)
                state = model.new_sequence(behind) if mode == "stream" else None
    return total / windows[:, :, 1:].numel() / math.log(2)


def rounded(value: Any) -> Any:
    """Numbers with four decimals."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
