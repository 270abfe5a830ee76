"""`nldsl plot RUN...`: the loss curves of runs in one picture."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from nldsl.cli.common import write_atomic, wrote
from nldsl.cli.guard import CommandError


class By(Enum):
    """What the curves are drawn against."""

    STEP = "step"
    TOKENS = "tokens"
    SECONDS = "seconds"


def command(
    runs: Annotated[list[str], typer.Argument(help="Folders of runs of `nldsl train`.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The picture, an SVG file.")] = "runs.svg",
    by: Annotated[By, typer.Option(help="What the curves are drawn against.")] = By.STEP,
) -> None:
    """Draw bits per byte of runs in one SVG: training thin and smoothed, held-out bold.

    What is last known of each is printed too.
    """
    from nldsl.train.config import read_config
    from nldsl.train.errors import fault
    from nldsl.train.log import read_log
    from nldsl.train.plot import HELD_OUT, compare_svg, points_of, unit_of

    if Path(output).suffix.lower() != ".svg":
        raise CommandError("NL1015", f"`{output}` is not a form of the plot", "expected a name in .svg")
    logs = {}
    for run in runs:
        read_config(Path(run))
        logs[run] = read_log(Path(run))
        if not logs[run]:
            raise fault("NL0982", f"the run in `{run}` has no log yet", help="train it for a step")
    write_atomic(output, compare_svg(logs, by.value))
    for run, records in logs.items():
        held, unit = [bits for _, bits in points_of(records, HELD_OUT)], unit_of(records)
        last = (
            f"{held[-1]:.4f} bits per {unit} held out, least {min(held):.4f}" if held else "nothing held out"
        )
        print(f"{run}: {records[-1]['step']} steps, {last}")
    wrote(output)
