"""Learning rates for `run.py`: every model learns the first domain at several of them, on a seed of its own.

    python examples/continual/tune.py [--jobs 2]
    python examples/continual/tune.py --starts 0 -1 -2 -20    # Hope, its inner rate begun elsewhere

What is compared is the loss on held-out text of the first domain, so nothing here looks at forgetting.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import torch  # noqa: E402
from domains import Domain, of_python  # noqa: E402
from report import LABELS  # noqa: E402
from run import BATCH, LENGTH, MODELS, Plan, learn, loss, modes_of  # noqa: E402

import nldsl  # noqa: E402
from nldsl.spec.program import Program  # noqa: E402
from nldsl.train.passes import backward  # noqa: E402

SEED = 10
SCALES = (0.25, 0.5, 1.0, 2.0)
"""Of every rate in the `train` section."""
RATES = (3e-3,)
"""Of the memory system itself."""
START = "eta.readout.bias"
"""The parameter that says where the rate of Hope's inner memories starts."""


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


@dataclass(frozen=True)
class Attempt:
    """A run on the first domain: the norm of its first gradient, and the loss on held-out text behind it."""

    name: str
    scale: float
    rate: float | None
    start: float | None
    first: float
    losses: dict[str, float]

    def __str__(self) -> str:
        """A line."""
        found = "  ".join(f"{mode} {loss:.3f}" for mode, loss in self.losses.items())
        begun = "" if self.start is None else f"start {self.start:<4g} "
        said = f"rate {self.rate or '-':<7} {begun}first gradient {self.first:<8.2f}"
        return f"{self.name:24} x {self.scale:<4} {said} {found}"


def attempt(name: str, scale: float, rate: float | None, start: float | None, out: Path) -> Attempt:
    """Learn the first domain."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    plan = Plan(looks=1)
    domain = of_python(out / "data", LENGTH)[0]
    given = {} if rate is None else {"rate": rate}
    model = nldsl.compile(scaled(nldsl.program(str(HERE / f"{name}.nl"), **given), scale), seed=SEED)
    if start is not None:
        for path, parameter in model.parameter_paths().items():
            if path.endswith(START):
                torch.nn.init.constant_(parameter, start)
    first = first_gradient(model, domain)
    held_out = domain.held_out(plan.rows, plan.windows, LENGTH)
    learn(model, domain, SEED, plan, [held_out], 0, [])
    losses = {mode: loss(model, held_out, mode) for mode in modes_of(model)}
    return Attempt(name, scale, rate, start, first, losses)


def table(found: list[Attempt]) -> str:
    """A row per model, the loss at each scale of its rates, the best bold; read as it was trained."""
    lines = ["| model | " + " | ".join(f"x {scale:g}" for scale in SCALES) + " |"]
    lines.append("|---|" + "---|" * len(SCALES))
    for name in dict.fromkeys(one.name for one in found):
        by_scale = {
            one.scale: one.losses.get("window", one.losses["off"]) for one in found if one.name == name
        }
        best = min(by_scale.values())
        cells = [f"**{x:.3f}**" if x == best else f"{x:.3f}" for x in by_scale.values()]
        lines.append(f"| {LABELS[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def first_gradient(model: nldsl.Model, domain: Domain) -> float:
    """The norm of the gradient of the mean loss on the first batch."""
    batch = domain.corpus.batch(seed=SEED, step=0, batch=BATCH, length=LENGTH)
    backward(model, torch.from_numpy(batch).long(), 0)
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    model.zero_grad(set_to_none=True)
    return float(norm)


def attempts(options: argparse.Namespace) -> list[tuple[str, float, float | None, float | None]]:
    """Model, scale, rate of the memory systems, start of the inner rate."""
    if options.starts:
        return [("hope", 1.0, None, start) for start in options.starts]
    return [
        (name, scale, rate, None)
        for name in MODELS
        if options.only is None or name in options.only
        for rate in ((None,) if name == "transformer" else RATES)
        for scale in SCALES
    ]


def main() -> None:
    """Print a line per attempt, and the table of rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", choices=MODELS, nargs="+")
    parser.add_argument("--starts", type=float, nargs="+", help=f"Hope with its `{START}` at these")
    parser.add_argument("--out", type=Path, default=Path("runs/continual"))
    options = parser.parse_args()
    of_python(options.out / "data", LENGTH)
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        futures = [pool.submit(attempt, *arguments, options.out) for arguments in attempts(options)]
        found = []
        for future in futures:
            found.append(future.result())
            print(found[-1], flush=True)
    if not options.starts:
        print(table(found))


if __name__ == "__main__":
    main()
