"""`nldsl plan SPEC`: the memory that a training step will take."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nldsl.cli.common import SetOption, parse_settings, print_json, refuse_given
from nldsl.graph import open_program
from nldsl.plan.compiling import compiling

if TYPE_CHECKING:
    from nldsl.train.spreading import Spread


def command(
    context: typer.Context,
    spec: Annotated[str, typer.Argument(help="A library name or a file.")],
    batch: Annotated[int, typer.Option(min=1, help="Windows per step.")] = 16,
    length: Annotated[int, typer.Option(min=2, help="Bytes predicted per window.")] = 256,
    settings: SetOption = None,
    devices: Annotated[int, typer.Option(min=0, help="Of several devices, what one takes and sends.")] = 0,
    parallel: Annotated[str, typer.Option(help="How they share the model: `ddp` or `fsdp`.")] = "fsdp",
    precision: Annotated[str, typer.Option(help="As of `nldsl train`.")] = "float32",
    recompute: Annotated[str, typer.Option(help="As of `nldsl train`.")] = "none",
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Predict the memory of a training step: parameters, gradients, optimiser, state, activations.

    The first three are counted; state and activations are measured in one short sequence and scaled.
    `nldsl train` refuses a step that takes more than the machine has.  With --devices: memory and messages
    of one of them, which share --batch; a --set depth above 2 is measured at 1 and 2.
    """
    from nldsl.driver.compile import plan_of
    from nldsl.train.memory import available, shown
    from nldsl.train.run import predict_memory
    from nldsl.train.spreading import predict_spread

    if not devices:
        refuse_given(context, ("parallel",), "is for several devices", "say how many by `--devices`")
    asked: dict[str, Any] = {"batch": batch, "length": length, "arguments": parse_settings(settings)}
    asked |= {"precision": precision, "recompute": recompute}
    if devices:
        _print_spread(predict_spread(spec, devices=devices, parallel=parallel, **asked), as_json)
        return
    found = predict_memory(spec, **asked)
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
    for said in compiling(plan_of(open_program(spec, **asked["arguments"]))):
        print(f"torch.compile {said.class_name}: {'pays' if said.pays else 'no'}, {said.reason}")


def _print_spread(found: Spread, as_json: bool) -> None:
    """Memory and messages of one device of several."""
    from nldsl.train.memory import shown

    if as_json:
        print_json(asdict(found) | {"total": found.total, "communication": found.communication})
        return
    print(f"{found.parallel} on {found.devices} devices, {shown(found.weights)} of weights; per device:")
    notes = {
        "parameters": "its share" if found.parallel == "fsdp" else "all",
        "masters": "whole matrices it owns",
        "gathered": "whole weights while they are needed",
        "gradients": "while a step is under way",
    }
    parts = ("parameters", "masters", "gathered", "gradients", "optimiser", "state", "activations", "total")
    for part in parts:
        print(f"{part:<12}{shown(getattr(found, part)):>12}  {notes.get(part, '')}".rstrip())
    print("received per step:")
    for what, size in (*found.received.items(), ("total", found.communication)):
        print(f"{what:<22}{shown(size):>12}")
