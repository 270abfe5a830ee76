"""`nldsl export RUN --to torch` and `--to onnx`: programs that need neither nldsl nor its source."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file

from nldsl.diagnostics import SpecError
from nldsl.exchange.errors import needed
from nldsl.exchange.place import new_folder
from nldsl.exchange.stepping import (
    Step,
    Whole,
    beginning,
    example,
    frozen,
    grows,
    require_steps,
    unsupported,
    variable_sizes,
)
from nldsl.runtime.model import Model
from nldsl.runtime.state import State
from nldsl.train import load_run

INTERFACE, STATE = "interface.json", "state.safetensors"
FIXED = 256
"""Tokens of a whole sequence where the program cannot be written for any number of them."""


def export_torch(run: str | Path, out: str | Path, *, force: bool = False) -> Path:
    """Write `forward.pt2` (a whole sequence) and `step.pt2` (one token with the state) of `torch.export`.

    `state.safetensors` is the state of a new sequence, `interface.json` the order of its tensors.
    Errors: as `load_run`; NL1101 (`out`), NL1108 (what has no such form).
    """
    model = frozen(cast(Model, load_run(run).model))
    require_steps(model)
    start = beginning(model)
    with new_folder(out, mark=INTERFACE, force=force) as folder, quiet():
        step = _exported(model, Step(model, start), example(model, start), variable_sizes(start))
        torch.export.save(step, folder / "step.pt2")
        whole, length = _whole(model)
        torch.export.save(whole, folder / "forward.pt2")
        _describe(folder, model, start, {"forward": {"tokens": ["batch 1", length]}})
    return Path(out)


def export_onnx(run: str | Path, out: str | Path, *, force: bool = False) -> Path:
    """Write `step.onnx`: one token with the state in and out.

    `state.safetensors` is the state of a new sequence, `interface.json` the order of its tensors.  Errors:
    as `load_run`; NL1007 (packages), NL1101 (`out`), NL1108 (what has no such form).
    """
    for package in ("onnx", "onnxscript"):
        needed(package, "onnx", "`--to onnx`")
    model = frozen(cast(Model, load_run(run).model))
    require_steps(model)
    start = beginning(model)
    step = Step(model, start)
    with new_folder(out, mark=INTERFACE, force=force) as folder, quiet():
        named = [f"in/{name}" for name in step.names], [f"out/{name}" for name in step.names]
        try:
            made: Any = torch.onnx.export(
                step,
                cast(Any, example(model, start)),
                dynamo=True,
                dynamic_shapes=cast(Any, variable_sizes(start)),
                input_names=["tokens", *named[0]],
                output_names=["logits", *named[1]],
                verbose=False,
            )
            made.save(str(folder / "step.onnx"))
        except SpecError:
            raise
        except Exception as wrong:  # the exporter has no narrower class
            raise unsupported(model, wrong) from wrong
        _describe(folder, model, start, {})
    return Path(out)


def _exported(model: Model, module: torch.nn.Module, arguments: Any, sizes: Any) -> Any:
    try:
        with torch.no_grad():
            return torch.export.export(module, arguments, dynamic_shapes=sizes)
    except Exception as wrong:  # the exporter has no narrower class
        raise unsupported(model, wrong) from wrong


def _whole(model: Model) -> tuple[Any, int | str]:
    """The program of a whole sequence for any length, or else for `FIXED` tokens."""
    auto = torch.export.Dim.AUTO
    tokens = torch.zeros(1, 64, dtype=torch.int64)
    try:
        found = _exported(model, Whole(model), (tokens,), ({1: auto},))
        # A form for some lengths exports too, and says so when it is run at another.
        if all(_agrees(model, found.module(), length) for length in (37, 130)):
            return found, "any number from 2"
    except SpecError:
        pass
    fixed = torch.zeros(1, FIXED, dtype=torch.int64)
    return _exported(model, Whole(model), (fixed,), None), FIXED


def _agrees(model: Model, program: Any, length: int) -> bool:
    """Whether an exported program gives the logits of the model at this length."""
    tokens = torch.arange(length).unsqueeze(0) % 2
    try:
        with torch.no_grad():
            return torch.allclose(program(tokens), model(tokens)[0], atol=1e-4)
    except (AssertionError, RuntimeError):
        return False


def _describe(folder: Path, model: Model, start: State, more: dict[str, Any]) -> None:
    """What a caller has to know: the tensors of the state in their order, and the state to begin with."""
    tensors = start.tensors()
    save_file({name: x.clone() for name, x in tensors.items()}, folder / STATE, {"format": "pt"})
    state = [
        {"name": name, "shape": [1, "grows", *x.shape[2:]] if grows(name) else list(x.shape)}
        | {"dtype": str(x.dtype).removeprefix("torch.")}
        for name, x in tensors.items()
    ]
    step = {"tokens": [1, 1], "state": state, "returns": "logits [1, 1, vocab], then the state in this order"}
    body = {"format": "nldsl-program", "version": 1, "program": model.name, "step": step, **more}
    (folder / INTERFACE).write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters say on the way; what they cannot do is raised."""
    loud = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(loud)
