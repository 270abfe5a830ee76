"""How the weights of one kernel are updated: by torch, matrix by matrix, or in one loop in C."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nldsl.runtime.native import REAL, Step, compiled, compiler, no_compiler
from nldsl.runtime.rule_gradients import zeroing
from nldsl.runtime.rule_kernel import Kernel, Memory, refusal
from nldsl.runtime.rule_lineup import Lineup, States
from nldsl.runtime.rule_many import listed, update_many
from nldsl.runtime.rule_numbers import Numbers
from nldsl.runtime.rule_shards import local, on_whole, sharded
from nldsl.runtime.rule_where import answers, plain

if TYPE_CHECKING:
    from nldsl.runtime.rule_optimizer import RuleOptimizer

LEAST = 1 << 16
"""Elements from which on compiling a loop (a third of a second) is worth it by itself."""
MANY = 1 << 13
"""Weights times steps from which on it is for fewer elements: by torch a weight takes 40 us longer."""
FORMS = ("auto", "eager", "compiled")


@dataclass(frozen=True)
class Choice:
    """The loop of a kernel for one type of numbers, if it is used, and why."""

    step: Step | None
    reason: str
    until: float = math.inf
    """The application from which on to choose anew."""


def choose(optimizer: RuleOptimizer, kernel: Kernel, like: Tensor) -> Choice:
    """Compiled or eager; raises NL0968 where `form = "compiled"` cannot be had.

    Of the time that has passed nothing is asked: a run that goes on from a saved state does what it did.
    """
    wanted = optimizer.form
    if wanted not in FORMS:
        raise refusal("NL0968", f"`form` is one of {', '.join(FORMS)}; found `{wanted}`")
    against = _against(optimizer, kernel, like)
    if wanted == "compiled" and against and (kernel.form == "elementwise" or kernel.native):
        raise _uncompiled(optimizer, like, against)
    if wanted == "eager" or against:
        return Choice(None, against or "asked for")
    count = sum(p.numel() for g in optimizer.param_groups for p in g["params"])
    until = last_of_few(optimizer)
    if wanted == "auto" and count < LEAST and float(optimizer.state[like].get("step", 0)) < until:
        few = f"{count} elements are too few to compile a loop for (fewer than {LEAST})"
        return Choice(None, f"{few} before step {until}", until)
    step = compiled(kernel.native, REAL[like.dtype])
    if step is None:
        against = f"`{compiler()}` makes no loop that runs here"
        if wanted == "compiled":
            raise _uncompiled(optimizer, like, against)
        return Choice(None, against)
    once = kernel.form == "elementwise"
    return Choice(
        step, "one pass over weight, gradient and memories" if once else "loops with sums between them"
    )


def _uncompiled(optimizer: RuleOptimizer, like: Tensor, against: str) -> Exception:
    return refusal(
        "NL0968", f"`{optimizer.rule}` cannot be compiled for {optimizer.name_of(like)}: {against}"
    )


def last_of_few(optimizer: RuleOptimizer) -> int:
    """How many steps a few elements are updated without a loop of their own."""
    return -(-MANY // sum(len(g["params"]) for g in optimizer.param_groups))


def _against(optimizer: RuleOptimizer, kernel: Kernel, like: Tensor) -> str:
    """Why a loop in C is impossible; empty if it is possible."""
    if not kernel.native:
        return kernel.native_reason or kernel.reason
    if kernel.form == "matrix" and like.ndim == 3:
        return "a stack of matrices is taken one by one"
    if kernel.form == "matrix" and sharded(like):
        return "every process holds a share of the weight, and the rule looks at all of it"
    if like.device.type != "cpu":
        return f"weights are on {like.device.type}"
    if answers(local(like)):
        return f"a `{type(local(like)).__name__}` has its numbers elsewhere"
    if like.dtype not in REAL:
        return f"no loop for {like.dtype}"
    return "" if compiler() else no_compiler()


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
        self.kernel, self.kernel_id, self.weight = kernel, id(kernel), local(p.detach())
        self.count = state["step"]
        kept = [state[m.name] for m in kernel.memories]
        self.memories = list(map(local, kept))
        self.shared = sharded(p)
        self.whole = [p.detach(), *kept] if self.shared and kernel.form == "matrix" else []
        """Weight and memories of a rule that looks at all of them, where processes hold shares."""
        self.named = [("step", self.count), *((m.name, state[m.name]) for m in kernel.memories)]
        # The count is one float on the CPU: written in place, without an operation of torch for each.
        self.counter = ctypes.c_float.from_address(self.count.data_ptr())
        self.layout = self._layout(p)
        own = (self.weight, *self.memories)
        dense = all(t.is_contiguous() and t.dtype == p.dtype and plain(t) for t in own)
        self.loop = choice.step if dense else None
        self.lists = kernel.form == "elementwise" and rows is None and listed(self.weight)
        self.until = choice.until
        self.size, self.kind = self.weight.numel(), p.dtype
        self.addresses = [t.data_ptr() for t in own]

    def fits(self, state: dict[str, Tensor], p: Tensor) -> bool:
        """Whether nobody has moved the weight or replaced a memory since."""
        for name, tensor in self.named:
            if state.get(name) is not tensor:
                return False
        return self._layout(p) == self.layout

    def _layout(self, p: Tensor) -> list[tuple[int, int, tuple[int, ...]]]:
        found = (p, *(tensor for _, tensor in self.named))
        return layout(*(map(local, found) if self.shared else found))

    def tick(self) -> float:
        """Count one application."""
        self.counter.value += 1.0
        return self.counter.value

    def loops(self, g: Tensor) -> bool:
        """Whether the loop in C takes this gradient; it does not lie between other numbers then."""
        return self.loop is not None and g.dtype is self.kind and g.is_contiguous() and plain(g)

    def zeroes(self, g: Tensor) -> bool:
        """Whether it can take what is not finite in this gradient as zero."""
        return self.loops(g) and zeroing(self.kernel, self.kind) is not None

    def apply(self, g: Tensor, numbers: Numbers) -> None:
        """One application of the rule, in place, by torch."""
        cast = numbers.cast(self.weight)
        if self.whole:
            on_whole(partial(self._apply, cast=cast), self.whole, g)
            return
        if self.rows is not None:
            self.kernel.update(self.weight, *self.rows(g), *self.memories, *cast)
            return
        self._apply(self.weight, g, *self.memories, cast=cast)

    def _apply(self, weight: Tensor, g: Tensor, *memories: Tensor, cast: Sequence[Tensor]) -> None:
        for piece, gradient, kept in _pieces(self.kernel, weight, g, memories):
            self.kernel.update(piece, gradient, *kept, *cast)


def layout(*tensors: Tensor) -> list[tuple[int, int, tuple[int, ...]]]:
    """Where tensors lie and how, which `tensor.data = other` changes without changing the tensor.

    >>> x = torch.zeros(2, 3)
    >>> before = layout(x)
    >>> x.data = x.data.reshape(3, 2).t()
    >>> layout(x) == before
    False
    """
    return [(tensor.data_ptr(), tensor.numel(), tensor.stride()) for tensor in tensors]


class Bundle:
    """The weights of one kernel that are at one step: those with a loop take it in one call."""

    def __init__(self, numbers: Numbers, zero: bool) -> None:
        self.numbers, self.zero = numbers, zero
        self.zeroed = False
        self.looped: dict[tuple[torch.dtype, bool], list[tuple[Tensor, Place, Tensor]]] = {}
        self.listed: dict[tuple[torch.dtype, torch.device], list[tuple[Place, Tensor]]] = {}

    def add(self, p: Tensor, place: Place, g: Tensor) -> None:
        """Update one weight, now or with the others at `run`."""
        g = local(g) if place.shared and not place.whole else g
        if g.dtype is not place.kind and torch.promote_types(g.dtype, place.kind) is place.kind:
            # In the narrower type squares would be rounded, alone otherwise than in a list; rows know theirs.
            g = g if place.rows else g.to(place.kind)
        if place.loops(g):
            self.looped.setdefault((g.dtype, place.shared), []).append((p, place, g))
        elif place.lists:
            self.listed.setdefault((p.dtype, p.device), []).append((place, g))
        else:
            place.apply(g, self.numbers)

    def run(self, states: States) -> list[Lineup]:
        """The loops, over all weights they have in common; lists of what torch takes together."""
        for (first, gradient), *others in self.listed.values():
            if not others:
                first.apply(gradient, self.numbers)
                continue
            rows = [(place.weight, g, *place.memories) for place, g in [(first, gradient), *others]]
            update_many(first.kernel, rows, self.numbers.floats())
        made = []
        for found in self.looped.values():
            weights, places, gradients = map(list, zip(*found, strict=True))
            if places[0].shared:  # shares are asked anew where they lie
                lineup = Lineup([place.weight for place in places], places, _here(places))
            else:
                made.append(lineup := Lineup(weights, places, states))
            lineup.begin(gradients)
            self.zeroed |= lineup.run(self.numbers, self.zero)
        return made


def _here(places: Sequence[Place]) -> States:
    """The memories of shares, as those of whole weights stand in the state of an optimizer."""
    return {
        place.weight: {
            "step": place.count,
            **{m.name: t for m, t in zip(place.kernel.memories, place.memories, strict=True)},
        }
        for place in places
    }


def _of(kernel: Kernel, memories: Sequence[Tensor]) -> Iterator[tuple[Memory, Tensor]]:
    return zip(kernel.memories, memories, strict=True)


def _pieces(
    kernel: Kernel, weight: Tensor, g: Tensor, memories: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Tensor, Sequence[Tensor]]]:
    """What one call of a kernel takes: a weight, the matrices of a stack, a number as a vector.

    A weight of four axes and more is a vector; what is no view of it is put back behind the call.
    """
    if kernel.form == "matrix" and weight.ndim == 3:
        for h in range(len(weight)):
            yield weight[h], g[h], [m[h] for m in memories]
    elif weight.ndim == 0 or (kernel.form == "matrix" and weight.ndim > 3):
        flat = [m if of.shape is not None else m.reshape(-1) for of, m in _of(kernel, memories)]
        vector = weight.reshape(-1)
        yield vector, g.reshape(-1), flat
        for own, made in zip((weight, *memories), (vector, *flat), strict=True):
            if made.data_ptr() != own.data_ptr():
                own.copy_(made.view_as(own))
    else:
        yield weight, g, memories
