"""`nldsl plan SPEC`: the memory that a training step will take."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from nldsl.cli.common import SetOption, parse_settings, print_json
from nldsl.train.memory import available, shown
from nldsl.train.run import predict_memory


def command(
    spec: Annotated[str, typer.Argument(help="A library name or a file.")],
    batch: Annotated[int, typer.Option(min=1, help="Windows per step.")] = 16,
    length: Annotated[int, typer.Option(min=2, help="Bytes predicted per window.")] = 256,
    settings: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Predict the memory of a training step: parameters, gradients, optimiser, state, activations.

    The first three are counted; state and activations are measured in one short sequence and scaled.
    `nldsl train` refuses a step that takes more than the machine has.
    """
    found = predict_memory(spec, batch=batch, length=length, arguments=parse_settings(settings))
    if as_json:
        print_json(asdict(found) | {"total": found.total, "available": available()})
        return
    lengths = ", ".join(str(n) for n in found.measured)
    scaled = "" if found.measured == (length,) else f", scaled to {length}"
    how = f"measured at length {lengths}{scaled}, times {batch}"
    rows = [
        ("parameters", found.parameters, "counted"),
        ("gradients", found.gradients, "counted"),
        ("optimiser", found.optimiser, "counted"),
        ("state", found.state, how),
        ("activations", found.activations, how),
        ("total", found.total, f"the machine has {shown(available())}" if available() else ""),
    ]
    for name, size, note in rows:
        print(f"{name:<12}{shown(size):>12}  {note}".rstrip())
