"""How a step is computed: in which precision, what is computed again, what torch compiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from nldsl.driver.compile import plan_of
from nldsl.evaluate import LanguageModel
from nldsl.native import native
from nldsl.plan.compiling import Compiling, compiling
from nldsl.runtime.block_recompute import recompute_blocks
from nldsl.runtime.model import Model
from nldsl.runtime.module import Module
from nldsl.runtime.native import compiler, no_compiler
from nldsl.train.config import BFLOAT16, FLOAT32, NATIVE
from nldsl.train.errors import fault
from nldsl.train.optimisers import OptimiserGroup

STEP = "_step_"
"""How the methods of emitted modules that take one chunk begin."""
ROWS = ("_kept", "_pullback")
"""How functions on the rows of a chunk end, in files whose memories run in one pass.

Those of reads that follow the running state (`_following`) take objects of the runtime in the place of
weights, which torch cannot compile: they stay as they are.
"""


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
        self,
        tokens: Tensor,
        state: Any = None,
        mask: Tensor | None = None,
        *,
        backward: float = 0.0,
        label: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """The model's own, under autocast."""
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.model.learn(tokens, state, mask, backward=backward, label=label)


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


def verdicts(model: Any) -> tuple[Compiling, ...]:
    """What the plan of a model says of `torch.compile`, block by block."""
    return compiling(plan_of(model.program))


def compile_blocks(model: Any, what: str, precision: str = FLOAT32) -> int:
    """Let torch compile blocks, by `auto` where the plan says that it pays, by `yes` all with memories.

    Of a block that loops over tokens or chunks it is the step that is compiled: a whole graph would unroll
    all of them.  By `native` it is C that computes these steps.  Returns how many functions are compiled.
    Raises NL0997 if `yes` or `native` finds none.
    """
    if what == "no":
        return 0
    if what == NATIVE:
        return compile_natively(model, precision)
    root, found = cast(Model, model).root, 0
    known = {c.class_name: c for c in verdicts(model) if what == "yes" or c.pays}
    for module in [m for m in root.modules() if isinstance(m, Module)]:
        # FSDP2 puts a class of its own in front.
        verdict = next((known[t.__name__] for t in type(module).__mro__ if t.__name__ in known), None)
        if verdict is not None:
            found += compile_module(module, verdict)
    for functions, name in row_functions(root) if what == "yes" else ():
        functions[name] = torch.compile(functions[name], dynamic=False)
        found += 1
    if any(hasattr(module.forward, "again") for module in root.modules()):
        recompute_blocks(root)
    if not found and what == "yes":
        raise fault(
            "NL0997",
            f"nothing of `{model.name}` can be compiled: it has no memories",
            help="leave `--compile` out",
        )
    return found


def waiting(what: str, made: int) -> str:
    """What the first step waits for, in words; empty if for nothing.

    Example:
        >>> waiting("native", 2), waiting("auto", 0)
        ('the first step waits for the C of 2 functions: seconds, less where a run before has left it', '')
    """
    if not made:
        return ""
    many = f"{made} function{'s' if made > 1 else ''}"
    if what == NATIVE:
        return f"the first step waits for the C of {many}: seconds, less where a run before has left it"
    return f"the first step waits for torch, which compiles {many}"


def compile_natively(model: Any, precision: str) -> int:
    """Compute the steps of a model in lanes of C; how many.  Raises NL0997 if that would change nothing.

    Where products of linear layers are faster in C, a model without such steps has those alone.
    """
    device = cast(Model, model).root.like.device
    why = ""
    if not compiler():
        why = no_compiler()
    elif device.type != "cpu":
        why = f"the model is on `{device}`, and lanes run on the CPU"
    elif precision == BFLOAT16:
        why = "lanes compute in float32, and `--precision bfloat16` leaves all of it to torch"
    report = None if why else native(model, at_once=True)
    if report is not None and not report.replaced and not report.linears:
        why = "; ".join(str(report).splitlines())
    if why or report is None:
        raise fault("NL0997", f"nothing of `{model.name}` runs natively: {why}", help="leave `--compile` out")
    return report.replaced


def compile_module(module: Module, verdict: Compiling) -> int:
    """Compile the passes of a block, or the step of its loop; how many functions these are."""
    steps = [name for name in dir(type(module)) if name.startswith(STEP)]
    names = steps if verdict.unrolls else ["forward"]
    for name in names:
        plain = getattr(module, name)
        # What is computed again is compiled itself, not what computes it again.
        object.__setattr__(module, name, torch.compile(getattr(plain, "again", plain), dynamic=False))
    return len(names)


def row_functions(root: Module) -> Iterator[tuple[dict[str, Any], str]]:
    """Every function on the rows of a chunk that `held_pass` calls: names of the emitted file, and which."""
    files = {id(f): f for m in root.modules() if (f := getattr(type(m).forward, "__globals__", None))}
    for names in files.values():
        if "held_pass" in names:
            own = [n for n, f in names.items() if getattr(f, "__module__", "") == names["__name__"]]
            yield from ((names, n) for n in own if n.endswith(ROWS))
