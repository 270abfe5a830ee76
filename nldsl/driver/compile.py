"""From a specification to a running module: parse, elaborate, plan, lower, emit, load."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from nldsl.emit.loader import load_module
from nldsl.emit.printer import print_module
from nldsl.emit.standalone import inline
from nldsl.graph import open_program
from nldsl.lowerings.forms import plan_program
from nldsl.lowerings.module import lower
from nldsl.plan.plan import Plan, Target
from nldsl.runtime.inputs import Taken
from nldsl.runtime.model import Layer, Model
from nldsl.spec.program import Program

Lowering = Literal["auto", "sequential"]


def plan_of(
    program: Program, *, lowering: Lowering = "auto", checkpoint: bool = False, family: str = ""
) -> Plan:
    """Which lowering computes which memories, and why; `family` where it accepts a unit.

    Errors: `SpecError` (NL0701) for constructs that no lowering supports yet.
    """
    return plan_program(program, Target(lowering, checkpoint, family))


def emit(plan: Plan) -> str:
    """The Python source of a plan.

    Example:
        >>> "class Transformer(" in emit(plan_of(open_program("transformer")))
        True
    """
    from_files = ", ".join(name for name, _ in plan.program.sources[:1]) or plan.program.name
    doc = (
        f"`{plan.program.name}`, compiled by nldsl from {from_files}.  Edit the specification, not this file."
    )
    return print_module(lower(plan, doc))


def compile_source(
    source: str | Path,
    *,
    block: str | None = None,
    standalone: bool = False,
    lowering: Lowering = "auto",
    checkpoint: bool = False,
    **arguments: Any,
) -> str:
    """The PyTorch source of a specification; with `standalone` it needs nothing but torch.

    Errors: `SpecError`.
    """
    program = open_program(source, block=block, **arguments)
    text = emit(plan_of(program, lowering=lowering, checkpoint=checkpoint))
    return inline(text) if standalone else text


def compile(
    source: str | Path | Program,
    *,
    block: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    lowering: Lowering = "auto",
    checkpoint: bool = False,
    **arguments: Any,
) -> Model | Layer:
    """A module with initialised parameters: a `Model` of token streams, or the `Layer` of one block.

    source: library name, path, text, or a program elaborated before.  arguments: static parameters
    by name; widths for the inputs of a block (`x = 64`, or `dim = 64` for all).  lowering:
    `sequential` walks token by token whatever the memory.  checkpoint: recompute chunks in the
    backward pass.  The emitted text is `.source`, the plan `.plan`, the program `.program`.

    Errors: `SpecError` with every diagnostic.

    Example:
        >>> model = compile("hope_tiny", depth=1)
        >>> logits, state = model(torch.zeros(1, 5, dtype=torch.long))
        >>> logits.shape
        torch.Size([1, 5, 256])
    """
    program = source if isinstance(source, Program) else open_program(source, block=block, **arguments)
    plan = plan_of(program, lowering=lowering, checkpoint=checkpoint)
    text = emit(plan)
    built: Model | Layer = load_module(text, f"nldsl_{program.name}").build(seed)
    # Plain attributes: `nn.Module.__setattr__` is for tensors and modules.
    vars(built).update(program=program, plan=plan, source=text, taken=_taken(program))
    if dtype is not None and torch.get_default_dtype().itemsize < torch.float32.itemsize:
        # Parameters began in the default type of torch: a narrower one would have rounded what was drawn.
        built.to(torch.float32).root.initialise(seed)
    return built.to(device=device, dtype=dtype)


def _taken(program: Program) -> tuple[Taken, ...]:
    """What a call of the module is given, `[B, T, ...]` each."""
    return tuple(Taken(v.name, tuple(v.shape), v.kind == "token") for v in program.root.inputs)
