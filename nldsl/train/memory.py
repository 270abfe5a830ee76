"""How much memory a training step takes, predicted before it is taken.

Parameters, gradients and optimiser memories are counted exactly, the latter on the device `meta`, which
allocates nothing.  State and activations (what the forward pass saves for the backward pass, at its peak)
are measured in one sequence at short lengths and scaled: a parabola in the length, a line in the batch.
Temporaries inside of single operations are not counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from weakref import finalize

import numpy as np
import torch
from torch import Tensor, nn

from nldsl.diagnostics import SpecError
from nldsl.evaluate import labelled
from nldsl.spec.program import TrainPlan
from nldsl.train.errors import fault
from nldsl.train.fitting import vocabulary_of
from nldsl.train.groups import Claimed, claim, inner_schedules, training_plan
from nldsl.train.optimisers import RuleGroup

SHORT = 64
"""Lengths are measured at once, twice and four times this."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one training step; `measured` are the lengths at which state and activations were measured."""

    parameters: int
    gradients: int
    optimiser: int
    state: int
    activations: int
    batch: int
    length: int
    measured: tuple[int, ...]

    @property
    def total(self) -> int:
        """All of them."""
        return self.parameters + self.gradients + self.optimiser + self.state + self.activations


class Held:
    """A saved tensor; what it holds is counted while it lives."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class Peak:
    """The most bytes that were saved for the backward pass at any one time; views of one storage count once.

    `known` are tensors that exist anyway, such as parameters.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        self.known = {t.untyped_storage().data_ptr() for t in known}
        self.uses: dict[int, int] = {}
        self.now = self.most = 0

    def pack(self, tensor: Tensor) -> Held:
        """Take a tensor in."""
        held, storage = Held(tensor.detach()), tensor.untyped_storage()  # an output would hold itself
        place, size = storage.data_ptr(), storage.nbytes()
        if place not in self.known and size:
            if not self.uses.get(place):
                self.now += size
                self.most = max(self.most, self.now)
            self.uses[place] = self.uses.get(place, 0) + 1
            finalize(held, self.drop, place, size)
        return held

    def drop(self, place: int, size: int) -> None:
        """A tensor is held no longer."""
        self.uses[place] -= 1
        if not self.uses[place]:
            self.now -= size


def measure(model: Any, step: Callable[[Any, Tensor], Any], length: int) -> tuple[int, int]:
    """Bytes of state behind, and of activations saved in, one sequence of `length` predictions.

    The model, its gradients and the random numbers are left as they were found.
    """
    parameters = dict(model.named_parameters())
    before = {name: p.grad for name, p in parameters.items()}
    for p in parameters.values():
        p.grad = None
    peak = Peak(parameters.values())
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(peak.pack, unpack):
        tokens = torch.arange(length + 1)[None] % min(251, vocabulary_of(model) or 251)
        if labelled(model.program):
            tokens = torch.stack([tokens[:, 1:], torch.zeros(1, length, dtype=torch.int64)], -1)
        _, state = step(model, tokens)
    for name, p in parameters.items():
        p.grad = before[name]
    return state.bytes(), peak.most


def unpack(held: Held) -> Tensor:
    """The tensor that was saved."""
    return held.tensor


def scaled(lengths: tuple[int, ...], found: list[int], length: int) -> int:
    """What a parabola through measurements says at `length`; never less than the largest of them.

    Example:
        >>> scaled((1, 2, 4), [11, 24, 56], 8)
        144
    """
    if length in lengths:
        return found[lengths.index(length)]
    curve = np.polyfit(np.array(lengths, float), np.array(found, float), len(lengths) - 1)
    return max(max(found), round(float(np.polyval(curve, length))))


def predict(
    model: Any, plan: TrainPlan | None, step: Callable[[Any, Tensor], Any], *, batch: int, length: int
) -> Memory:
    """The memory of a step of `batch` windows of `length`; `step(model, tokens)` does one: loss and state."""
    plan = plan or training_plan(model.program)
    size = bytes_of(model.parameter_paths().values())
    lengths = tuple(sorted({min(length, SHORT * k) for k in (1, 2, 4)}))
    if length <= SHORT * 4:
        lengths = (length,)
    found = [measure(model, step, at) for at in lengths]
    history = min(length, plan.truncate or length)
    return Memory(
        parameters=bytes_of(model.drawn_paths().values()),
        gradients=size,
        optimiser=optimiser_bytes(model, plan),
        state=batch * scaled(lengths, [state for state, _ in found], length),
        activations=batch * scaled(lengths, [saved for _, saved in found], max(history, lengths[-1])),
        batch=batch,
        length=length,
        measured=lengths,
    )


def optimiser_bytes(model: Any, plan: TrainPlan) -> int:
    """Bytes of the memories of every group, without allocating them where the rule allows."""
    parameters, roles = model.parameter_paths(), model.parameter_roles()
    total = 0
    rates = inner_schedules(model.program)
    for claimed in claim(plan, {p: t for p, t in parameters.items() if p not in rates}, roles):
        shadow = {path: torch.empty_like(p, device="meta") for path, p in claimed.parameters.items()}
        try:
            group = RuleGroup(Claimed(claimed.rule, shadow))
        except SpecError:  # a rule that looks at the layers, which exist
            group = RuleGroup(claimed, cast(nn.Module, model))
        total += bytes_of(group.state().values())
    return total


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """The bytes of tensors that share nothing."""
    return sum(t.numel() * t.element_size() for t in tensors)


def available() -> int:
    """The memory of this machine, or of the container it is: bytes; 0 if the system does not say."""
    found = []
    if hasattr(os, "sysconf") and {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= os.sysconf_names.keys():
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            found.append(int(text))
    return min(found, default=0)


def require_memory(
    model: Any,
    plan: TrainPlan | None,
    step: Callable[[Any, Tensor], Any],
    *,
    batch: int,
    length: int,
    have: int,
) -> None:
    """Raise NL0991 with the numbers if a step takes more than the machine has: `have` bytes (0: unknown)."""
    if not have or surely_fits(model, step, batch=batch, length=length, have=have):
        return
    found = predict(model, plan, step, batch=batch, length=length)
    if found.total > have:
        parts = ("parameters", "gradients", "optimiser", "state", "activations")
        raise refused({part: getattr(found, part) for part in parts}, have, "the machine")


def surely_fits(
    model: Any, step: Callable[[Any, Tensor], Any], *, batch: int, length: int, have: int
) -> bool:
    """Whether even the square of the length would fit, by one short sequence."""
    short = min(length, SHORT)
    state, activations = measure(model, step, short)
    size = bytes_of(model.parameter_paths().values())
    # Eight memories per weight are more than any rule of the library keeps.
    return 10 * size + batch * (state + activations) * (length / short) ** 2 < have


def refused(parts: Mapping[str, int], have: int, who: str) -> SpecError:
    """NL0991: a step takes the sum of `parts`, in bytes, and `who` has less."""
    return fault(
        "NL0991",
        f"a step takes about {shown(sum(parts.values()))}, and {who} has {shown(have)}",
        notes=(", ".join(f"{part} {shown(size)}" for part, size in parts.items()),),
        help="use a smaller `--batch` with `--accumulate`, a smaller `--length`, `--recompute blocks`, "
        "or `truncate`",
    )


def shown(size: int) -> str:
    """Bytes in a unit one can read.

    Example:
        >>> shown(512), shown(3 * 2**20), shown(5 * 2**40)
        ('512 B', '3.0 MiB', '5120.0 GiB')
    """
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 2**power:
            return f"{size / 2**power:.1f} {unit}"
    return f"{size} B"
