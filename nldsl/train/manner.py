"""How a step is computed: in which precision, what is computed again, what torch compiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from nldsl.evaluate import LanguageModel
from nldsl.runtime.block_recompute import recompute_blocks
from nldsl.runtime.model import Model
from nldsl.runtime.module import Module
from nldsl.train.config import BFLOAT16
from nldsl.train.errors import fault
from nldsl.train.optimisers import OptimiserGroup

STEP = "_step_"
"""How the methods of emitted modules that take one chunk begin."""
ROWS = ("_kept", "_pullback")
"""How functions on the rows of a chunk end, in files whose memories run in one pass."""


class Lowered:
    """A model under autocast on the way forward: products with weights, and attention, in bfloat16.

    State, gates, scans and inner gradients are float32 (`runtime/precision.py`), and so are weights and
    their gradients.
    """

    def __init__(self, model: LanguageModel, device: torch.device) -> None:
        self.model, self.device, self.program = model, device, model.program

    def __call__(self, tokens: Tensor, state: Any = None, mask: Tensor | None = None) -> tuple[Tensor, Any]:
        """The model's own, under autocast."""
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.model(tokens, state, mask)

    def learn(
        self, tokens: Tensor, state: Any = None, mask: Tensor | None = None, *, backward: float = 0.0
    ) -> tuple[Tensor, Any]:
        """The model's own, under autocast."""
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.model.learn(tokens, state, mask, backward=backward)


def face(model: LanguageModel, precision: str, device: torch.device) -> LanguageModel:
    """What is called in place of a model in this precision."""
    return Lowered(model, device) if precision == BFLOAT16 else model


def recompute(model: Any, what: str) -> None:
    """Let blocks be computed again in the backward pass.  Raises NL0996 where there is none."""
    if what != "none" and not recompute_blocks(cast(Model, model).root):
        raise fault("NL0996", f"`{model.name}` calls no block that could be computed again")


def require_rows_once(groups: list[OptimiserGroup], what: str) -> None:
    """Raise NL0996 if a rule would see the rows of a layer twice."""
    found = next((group for group in groups if group.counts_rows), None)
    if found is not None and what != "none":
        raise fault(
            "NL0996",
            f"the rule of `{found.name}` counts rows of layers: blocks computed again show them twice",
            help="leave `--recompute` out, or use another rule",
        )


def compile_steps(model: Any) -> int:
    """Let torch compile the step of every loop over chunks, and what a pass over all chunks does with the
    rows of one; how many functions there are.

    Elsewhere it does not pay: kernels are hand-written, and a whole graph would unroll every chunk.
    Raises NL0997 if there is no such loop.
    """
    root = cast(Model, model).root
    steps, rows = list(chunk_steps(root)), list(row_functions(root))
    if not steps and not rows:
        raise fault(
            "NL0997",
            f"nothing of `{model.name}` is worth compiling: it has no loop over chunks",
            help="leave `--compile` out",
        )
    for module, name in steps:
        object.__setattr__(module, name, torch.compile(getattr(module, name), dynamic=False))
    for functions, name in rows:
        functions[name] = torch.compile(functions[name], dynamic=False)
    return len(steps) + len(rows)


def chunk_steps(root: Module) -> Iterator[tuple[Module, str]]:
    """Every method that takes one chunk."""
    for module in root.modules():
        if isinstance(module, Module):
            yield from ((module, name) for name in dir(type(module)) if name.startswith(STEP))


def row_functions(root: Module) -> Iterator[tuple[dict[str, Any], str]]:
    """Every function on the rows of a chunk that `held_pass` calls: names of the emitted file, and which."""
    files = {id(f): f for m in root.modules() if (f := getattr(type(m).forward, "__globals__", None))}
    for names in files.values():
        if "held_pass" in names:
            own = [n for n, f in names.items() if getattr(f, "__module__", "") == names["__name__"]]
            yield from ((names, n) for n in own if n.endswith(ROWS))
