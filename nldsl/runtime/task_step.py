"""What task memories do at the end of a segment: rules of those that are due, then resets (Eq. 71-72)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.grid import choose
from nldsl.runtime.task import PlacedTask, Weights

GATE = "retain"
"""The key of the gate among the noted values."""


@torch.no_grad()
def step(task: PlacedTask, state: dict[str, Any], due: bool | Tensor) -> dict[str, Any]:
    """One application of the rule for the samples that are `due`: their period of C tokens is over.

    `W' = r + a (W - r) + (rule(W - r) - (W - r))`, with `r` zero or the state at the last reset and `a`
    the gate at the last token, one if there is none.
    """
    if due is False:
        return state
    delta, pending, slots = dict(state["delta"]), dict(state["pending"]), dict(state["slots"])
    count = state["count"] // task.memory.every
    for weight, old in state["delta"].items():
        origin = _origin(task, state, weight)
        kept = _total(task, weight, old) if origin is None else old - _anchor(state, weight)
        known = {
            "W": kept,
            "g": pending[weight],
            "step": _spread(count.to(kept.dtype), kept),
            **{key: _spread(value, kept) for key, value in state.get("seen", {}).items()},
            **{slot: slots[f"{slot}.{weight}"] for slot in task.memory.remembered},
        }
        result = task.memory.rule(*(known[name] for name in task.memory.inputs))
        new, *after = result if isinstance(result, tuple) else (result,)
        if GATE in known:
            new = new + (known[GATE] - 1.0) * kept
        delta[weight] = choose(due, _moved(task, weight, new, origin, state), old)
        pending[weight] = choose(due, torch.zeros_like(pending[weight]), pending[weight])
        for slot, value in zip(task.memory.slots, after, strict=True):
            slots[f"{slot}.{weight}"] = choose(due, value, slots[f"{slot}.{weight}"])
        for twin, slot, every in task.memory.twins:
            shown, now = f"{twin}.{weight}", slots[f"{slot}.{weight}"]
            slots[shown] = choose(due & (count % every == 0), now, slots[shown])
    return {**state, "delta": delta, "pending": pending, "slots": slots}


def _spread(value: Tensor, like: Tensor) -> Tensor:
    """A value per sample or per head, with axes of length one for those of the weight."""
    return value.view(*value.shape, *(1,) * (like.dim() - value.dim()))


def _total(task: PlacedTask, weight: str, delta: Tensor) -> Tensor:
    parameter = task.parameters[weight]
    return delta if parameter is None else parameter + delta


def _anchor(state: dict[str, Any], weight: str) -> Tensor | float:
    """The delta it started with: zero, unless another memory gave the start."""
    anchor: Weights | None = state.get("anchor")
    return 0.0 if anchor is None else anchor[weight]


def _origin(task: PlacedTask, state: dict[str, Any], weight: str) -> Tensor | float | None:
    """The delta of what the rule and the gate measure from; `None` if they measure from zero."""
    return None if task.memory.toward == "zero" else _anchor(state, weight)


def _moved(
    task: PlacedTask, weight: str, new: Tensor, origin: Tensor | float | None, state: dict[str, Any]
) -> Tensor:
    """The new delta, from what the rule made of the distance."""
    parameter = task.parameters[weight]
    if origin is not None:
        return new + origin
    return new if parameter is None else new - parameter


@torch.no_grad()
def reset(
    task: PlacedTask, state: dict[str, Any], source: dict[str, Any] | None, due: bool | Tensor
) -> dict[str, Any]:
    """The samples that are `due` start anew: from zero, or from what the `source` shows now (Eq. 72)."""
    if due is False:
        return state
    again = {**state, "count": choose(due, torch.zeros_like(state["count"]), state["count"])}
    for part in ("pending", "slots", "seen"):
        if part in state:
            again[part] = {name: choose(due, torch.zeros_like(x), x) for name, x in state[part].items()}
    if state["delta"] is None:
        return again
    given = None if source is None else source["delta"]
    fresh: Weights = {
        weight: torch.zeros_like(delta) if given is None else given[weight].detach()
        for weight, delta in state["delta"].items()
    }
    again["delta"] = {weight: choose(due, fresh[weight], old) for weight, old in state["delta"].items()}
    if task.memory.toward == "init" and given is not None:
        before = state.get("anchor") or {w: torch.zeros_like(d) for w, d in fresh.items()}
        again["anchor"] = {weight: choose(due, fresh[weight], old) for weight, old in before.items()}
    return again


class Due:
    """Whose count has come to a multiple of a clock, at the end of one segment.

    Memories that reset every so many tokens all have the same counts, so each question is asked once.

    >>> Due()({"count": torch.tensor([4, 6])}, 2, 4, 0)
    tensor([ True, False])
    """

    def __init__(self) -> None:
        self.known: dict[tuple[int, int], bool | Tensor] = {}

    def __call__(self, state: dict[str, Any], felt: int | Tensor, clock: int, reset: int) -> bool | Tensor:
        """`felt` tokens have just been added to the count of a memory that resets every `reset` tokens."""
        if (clock, reset) not in self.known:
            count = state["count"]
            moved = torch.as_tensor(felt, device=count.device) > 0
            found: Tensor = (count % clock == 0) & (count > 0) & moved
            same = found.numel() > 0 and bool((found == found[0]).all())
            self.known[clock, reset] = bool(found[0]) if same else found
        return self.known[clock, reset]
