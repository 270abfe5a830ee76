"""Learning rates for `run.py`: every model learns the first domain at several of them, on a seed of its own.

    python examples/continual/tune.py [--jobs 2]

What is compared is the loss on held-out text of the first domain, so nothing here looks at forgetting.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import torch  # noqa: E402
from domains import of_python  # noqa: E402
from run import LENGTH, MODELS, Plan, learn, loss, modes_of  # noqa: E402

import nldsl  # noqa: E402
from nldsl.spec.program import Program  # noqa: E402

SEED = 10
SCALES = (0.25, 0.5, 1.0, 2.0)
"""Of every rate in the `train` section."""
RATES = (3e-3,)
"""Of the memory system itself."""


def scaled(program: Program, scale: float) -> Program:
    """The program with every rate of its `train` section times `scale`."""
    assert program.train is not None
    groups = []
    for group in program.train.groups:
        peaks = tuple(
            (name, schedule, tuple({**dict(options), "value": dict(options)["value"] * scale}.items()))
            for name, schedule, options in group.schedules
        )
        groups.append(replace(group, schedules=peaks))
    return replace(program, train=replace(program.train, groups=tuple(groups)))


def attempt(name: str, scale: float, rate: float | None, out: Path) -> str:
    """One line: the loss on the first domain after it was learnt."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    plan = Plan(looks=1)
    domain = of_python(out / "data", LENGTH)[0]
    given = {} if rate is None else {"rate": rate}
    model = nldsl.compile(scaled(nldsl.program(str(HERE / f"{name}.nl"), **given), scale), seed=SEED)
    held_out = domain.held_out(plan.rows, plan.windows, LENGTH)
    learn(model, domain, SEED, plan, [held_out], 0, [])
    found = "  ".join(f"{mode} {loss(model, held_out, mode):.3f}" for mode in modes_of(model))
    return f"{name:24} x {scale:<4} rate {rate or '-':<7} {found}"


def main() -> None:
    """Print a line per attempt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", choices=MODELS, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("runs/continual"))
    options = parser.parse_args()
    of_python(options.out / "data", LENGTH)
    asked = [
        (name, scale, rate)
        for name in MODELS
        if options.only is None or name in options.only
        for rate in ((None,) if name == "transformer" else RATES)
        for scale in SCALES
    ]
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        futures = [pool.submit(attempt, *arguments, options.out) for arguments in asked]
        for future in futures:
            print(future.result(), flush=True)


if __name__ == "__main__":
    main()
