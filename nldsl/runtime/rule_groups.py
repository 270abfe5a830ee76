"""What the groups of an optimizer hold: numbers the rule can work with, and a clock that may change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nldsl.catalog.bounds import ANY, Bounds
from nldsl.diagnostics import SpecError, did_you_mean
from nldsl.runtime.rule_gradients import Arrival
from nldsl.runtime.rule_kernel import Kernel, refusal

if TYPE_CHECKING:
    from nldsl.runtime.rule_optimizer import RuleOptimizer

GATHERED = ("gathered", "arrived", "calls")
"""What is kept of a parameter between the steps of a slow clock."""
LISTS = ("params", "param_names")
"""What numbers do not depend on."""
Settled = tuple[list[str], list[Any]]
"""What stood in a group when it was last looked at, if none of it can change in place."""
FLAT = "_fsdp_flattened"
"""What `FullyShardedDataParallel` marks with it has no longer the shape of a weight."""
CYCLES = (
    "; a scheduler cycles what may change, as `beta` of `momentum`, or nothing by `cycle_momentum = False`"
)
WORDS = {"nonfinite": ("raise", "skip", "zero", "ignore"), "form": ("auto", "eager", "compiled")}


def require_word(name: str, found: object) -> None:
    """Raise NL0968 for a word that a setting does not know."""
    if found not in WORDS[name]:
        raise refusal("NL0968", f"`{name}` is one of {', '.join(WORDS[name])}; found `{found}`")


class Setting:
    """A word of an optimizer.  Assigned between steps, it holds from the next one on."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, optimizer: RuleOptimizer, owner: type) -> str:
        found: str = optimizer.__dict__[self.name]
        return found

    def __set__(self, optimizer: RuleOptimizer, found: str) -> None:
        require_word(self.name, found)
        changed = optimizer.__dict__.get(self.name, found) != found
        optimizer.__dict__[self.name] = found
        if changed and self.name == "form":
            # How each weight is stepped was chosen under the word before.
            optimizer.forget_places()


def require_settings(nonfinite: object, form: object, seed: object) -> None:
    """Raise NL0968 for a setting of an optimizer that is none of its words."""
    for name, found in (("nonfinite", nonfinite), ("form", form)):
        require_word(name, found)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise refusal("NL0968", f"`seed` is a whole number, found {seed!r}")


def number_of(rule: str, bounds: Mapping[str, Bounds], name: str, value: Any) -> float:
    """An argument of a group as a number; raises NL0968 for what is none, or out of its range.

    Example:
        >>> number_of("sgd", {}, "lr", torch.tensor(0.5))
        0.5
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    elif hasattr(value, "__float__") and not isinstance(value, bool | int | float | Tensor):
        value = float(value)  # numbers of numpy
    if wrong := bounds.get(name, ANY).refusal(name, value):
        raise refusal("NL0968", f"{wrong}, in `{rule}`", f'`group["{name}"]` is what a step uses')
    return float(value)


def bad_argument(optimizer: RuleOptimizer, name: str) -> SpecError:
    """The finding NL0968 for an entry of a group that is no open argument of the rule."""
    if name in optimizer.fixed:
        cycled = name in optimizer.cycled.stands
        return refusal(
            "NL0968",
            f"`{name}` of `{optimizer.rule}` decides the code of the optimizer: it is the same for all "
            "groups and steps",
            f"make one with another `{name}`" + (CYCLES if cycled else ""),
        )
    known = [*optimizer.arguments, "every"]
    help_ = did_you_mean(name, known) or f"known: {', '.join(known)}"
    return refusal("NL0968", f"`{optimizer.rule}` has no argument `{name}`", help_)


def require_numbers(optimizer: RuleOptimizer, group: Mapping[str, Any]) -> None:
    """Raise NL0968 for a number in a group with which the rule cannot work."""
    for name in optimizer.arguments:
        number_of(optimizer.rule, optimizer.bounds, name, group[name])


def settle(optimizer: RuleOptimizer, group: dict[str, Any]) -> None:
    """What was written into a group since the last step; raises NL0968 for what cannot be."""
    names, values = optimizer.settled.get(id(group), ([], []))
    if names and list(group) == names and all(map(is_, group.values(), values)):
        return
    cycled = optimizer.cycled
    wrong = (optimizer.fixed.keys() - cycled.words) & group.keys()
    if name := cycled.changed(group) or next(iter(wrong), ""):
        raise bad_argument(optimizer, name)
    cycled.follow(group)
    require_numbers(optimizer, group)
    if all(_stays(value) for name, value in group.items() if name not in LISTS):
        optimizer.settled[id(group)] = list(group), list(group.values())
    else:
        optimizer.settled.pop(id(group), None)


def _stays(value: object) -> bool:
    """Whether a value cannot change in place, as a tensor or a list can."""
    if isinstance(value, tuple):
        return all(map(_stays, value))
    return value is None or isinstance(value, int | float | str)


def clock_of(group: Mapping[str, Any]) -> int:
    """Steps of the clock of a group; raises NL0968 if these are no number of steps."""
    every: Any = group["every"]
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise refusal("NL0968", f"`every` counts steps, a whole number from 1; found `{every}`")
    return every


def require_clock(rule: str, kernel: Kernel, every: int) -> None:
    """Raise NL0968 for a slow clock of a rule that needs every row."""
    if kernel.by_rows and every > 1:
        raise refusal(
            "NL0968",
            f"`{rule}` needs every row of its layers, which are not kept for {every} steps",
            f"{kernel.reason}; let the rule have a slower memory instead of the group",
        )


def require_unscaled(optimizer: RuleOptimizer) -> None:
    """Raise NL0976 if a `GradScaler` has said that the loss is scaled."""
    if hasattr(optimizer, "found_inf"):
        raise refusal(
            "NL0976",
            f"`{optimizer.rule}` erases along the inputs of layers, which a scaled loss does not scale",
            "train in float32 or, by `torch.autocast`, in bfloat16, which need no `GradScaler`",
        )


def require_shape(optimizer: RuleOptimizer, p: Tensor, name: str) -> None:
    """Raise NL0963 for a piece of a vector of many weights, where the rule is not the same on all pieces."""
    if not hasattr(p, FLAT):
        return
    try:
        kernels = [optimizer.kernel_of(q, name) for q in (p, p.new_empty(3, 2))]
    except SpecError:
        kernels = []
    if not kernels or any(k.form != "elementwise" or k.looks_at_rows for k in kernels):
        raise refusal(
            "NL0963",
            f"`{optimizer.rule}` looks at a weight as a whole, and {name} is a piece of a vector of many, as "
            "`FullyShardedDataParallel` makes them",
            "`torch.distributed.fsdp.fully_shard` leaves weights their shapes",
        )


def gathering(p: Tensor) -> dict[str, Tensor]:
    """Where the gradients of a slow clock are summed, and counts of them and of calls."""
    one = torch.tensor(0.0, dtype=torch.float32)
    return {"gathered": torch.zeros_like(p), "arrived": one, "calls": one.clone()}


def slow(optimizer: RuleOptimizer, group: Mapping[str, Any]) -> bool:
    """Whether gradients of a group are summed: its clock is slow, or was and has left something."""
    return clock_of(group) > 1 or any("gathered" in optimizer.state[p] for p in group["params"])


def gathered(
    optimizer: RuleOptimizer, group: Mapping[str, Any], found: Iterable[Arrival]
) -> Iterator[Arrival]:
    """On a slow clock: sums, at the step where it fires.

    A clock that has become slow begins to count now; what one that is slow no longer has left goes into
    this step, and nothing is kept any more.  Steps are counted from the last one that fired.
    """
    every = clock_of(group)
    optimizer.lineups.pop(id(group), None)  # it knows nothing of what is gathered
    for p in group["params"]:
        if "gathered" not in optimizer.state[p]:
            require_clock(optimizer.rule, optimizer.kernel_of(p), every)
            optimizer.state[p].update(gathering(p.detach()))
    for p, g in found:
        optimizer.state[p]["gathered"].add_(g)
        optimizer.state[p]["arrived"].add_(1)
    for p in group["params"]:
        state = optimizer.state[p]
        state["calls"].add_(1)
        if int(state["calls"]) < every:
            continue
        state["calls"].zero_()
        if int(state["arrived"]):
            yield p, state["gathered"].clone()
        state["gathered"].zero_()
        state["arrived"].zero_()
        if every == 1:
            for name in GATHERED:
                del state[name]
