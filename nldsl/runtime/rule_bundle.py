"""How the weights of one kernel are updated: by torch, matrix by matrix, or in one loop in C."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nldsl.runtime.native import REAL, Step, compiled, compiler
from nldsl.runtime.rule_kernel import Kernel, refusal

if TYPE_CHECKING:
    from nldsl.runtime.rule_optimizer import RuleOptimizer

LEAST = 1 << 16
"""Elements from which on compiling a loop (a third of a second) is worth it by itself."""
FORMS = ("auto", "eager", "compiled")


@dataclass(frozen=True)
class Choice:
    """The loop of a kernel for one type of numbers, if it is used, and why."""

    step: Step | None
    reason: str


def choose(optimizer: RuleOptimizer, kernel: Kernel, like: Tensor) -> Choice:
    """Compiled or eager; raises NL0968 where `form = "compiled"` cannot be had."""
    wanted = optimizer.form
    if wanted not in FORMS:
        raise refusal("NL0968", f"`form` is one of {', '.join(FORMS)}; found `{wanted}`")
    against = _against(optimizer, kernel, like)
    if wanted == "compiled" and against and kernel.form == "elementwise":
        raise refusal("NL0968", f"`{optimizer.rule}` cannot be compiled: {against}")
    if wanted == "eager" or against:
        return Choice(None, against or "asked for")
    count = sum(p.numel() for g in optimizer.param_groups for p in g["params"])
    if wanted == "auto" and count < LEAST:
        return Choice(None, f"{count} elements are too few to compile a loop for (fewer than {LEAST})")
    step = compiled(kernel.native, REAL[like.dtype])
    if step is None:
        against = f"`{compiler()}` makes no loop that runs here"
        if wanted == "compiled":
            raise refusal("NL0968", f"`{optimizer.rule}` cannot be compiled: {against}")
        return Choice(None, against)
    return Choice(step, "one pass over weight, gradient and memories")


def _against(optimizer: RuleOptimizer, kernel: Kernel, like: Tensor) -> str:
    """Why a loop in C is impossible; empty if it is possible."""
    if not kernel.native:
        return kernel.native_reason or kernel.reason
    if like.device.type != "cpu":
        return f"weights are on {like.device.type}"
    if like.dtype not in REAL:
        return f"no loop for {like.dtype}"
    return "" if compiler() else "there is no C compiler (`CC` names one)"


class Place:
    """Where one weight, its memories and its count are, found once and used at every step."""

    def __init__(
        self,
        kernel: Kernel,
        state: dict[str, Tensor],
        p: Tensor,
        choice: Choice,
        rows: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.rows = rows
        self.kernel, self.kernel_id, self.weight = kernel, id(kernel), p.detach()
        self.count = state["step"]
        self.memories = [state[m.name] for m in kernel.memories]
        self.named = [("step", self.count), *((m.name, state[m.name]) for m in kernel.memories)]
        # The count is one float on the CPU: written in place, without an operation of torch for each.
        self.counter = ctypes.c_float.from_address(self.count.data_ptr())
        self.pointer = p.data_ptr()
        arrays = (self.weight, self.weight, *self.memories)
        dense = all(t.is_contiguous() and t.dtype == p.dtype for t in arrays)
        self.loop = choice.step if dense else None
        self.size, self.kind = p.numel(), p.dtype
        self.arrays = (ctypes.c_void_p * len(arrays))(*(t.data_ptr() for t in arrays))
        self.address = ctypes.addressof(self.arrays)

    def fits(self, state: dict[str, Tensor], p: Tensor) -> bool:
        """Whether nobody has moved the weight or replaced a memory since."""
        for name, tensor in self.named:
            if state[name] is not tensor:
                return False
        return p.data_ptr() == self.pointer

    def tick(self) -> float:
        """Count one application."""
        self.counter.value += 1.0
        return self.counter.value

    def loops(self, g: Tensor) -> bool:
        """Whether the loop in C takes this gradient; it does not lie between other numbers then."""
        if self.loop is None or g.dtype is not self.kind or not g.is_contiguous():
            return False
        self.arrays[1] = g.data_ptr()
        return True

    def apply(self, g: Tensor, numbers: Numbers) -> None:
        """One application of the rule, in place, by torch."""
        cast = numbers.cast(self.weight)
        if self.rows is not None:
            self.kernel.update(self.weight, *self.rows(g), *self.memories, *cast)
            return
        for weight, gradient, kept in _pieces(self.kernel, self.weight, g, self.memories):
            self.kernel.update(weight, gradient, *kept, *cast)


class Bundle:
    """The weights of one kernel that are at one step: those with a loop take it in one call.

    A call for each costs about ten microseconds, as much as a loop over 15,000 elements.
    """

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self.looped: dict[torch.dtype, list[Place]] = {}

    def add(self, place: Place, g: Tensor) -> None:
        """Update one weight, now or with the others at `run`."""
        if place.loops(g):
            self.looped.setdefault(g.dtype, []).append(place)
        else:
            place.apply(g, self.numbers)

    def run(self) -> None:
        """The loops, over all weights they have in common."""
        for places in self.looped.values():
            sizes = (ctypes.c_long * len(places))(*(place.size for place in places))
            arrays = (ctypes.c_void_p * len(places))(*(place.address for place in places))
            loop = places[0].loop
            assert loop is not None
            loop(len(places), sizes, arrays, self.numbers.plain(), torch.get_num_threads())


class Numbers:
    """The numbers of one kernel at one step, in the forms they are asked for."""

    def __init__(self, values: Sequence[Tensor]) -> None:
        self.values = values
        self.array: ctypes.Array[ctypes.c_double] | None = None

    def plain(self) -> ctypes.Array[ctypes.c_double]:
        """As an array of doubles."""
        if self.array is None:
            found = torch.stack(list(self.values)).tolist() if self.values else [0.0]
            self.array = (ctypes.c_double * len(found))(*found)
        return self.array

    def cast(self, like: Tensor) -> list[Tensor]:
        """As tensors on the device of a weight, at least in single precision."""
        kind = like.dtype if like.dtype == torch.float64 else torch.float32
        return [n.to(like.device, kind) for n in self.values]


def _pieces(
    kernel: Kernel, weight: Tensor, g: Tensor, memories: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Tensor, Sequence[Tensor]]]:
    """What one call of a kernel takes: a weight, the matrices of a stack, a number as a vector."""
    if kernel.form == "matrix" and weight.ndim == 3:
        for h in range(len(weight)):
            yield weight[h], g[h], [m[h] for m in memories]
    elif weight.ndim == 0:
        yield weight.view(1), g.view(1), [m.view(1) for m in memories]
    else:
        yield weight, g, memories
