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
    for weight, old in state["delta"].items():
        parameter = task.parameters[weight]
        if task.memory.descent is not None:
            new, kept = torch.sub(old, pending[weight], alpha=task.memory.descent), Weights()
        else:
            away = task.memory.toward == "init"
            anchor = state.get("anchor", {}).get(weight) if away else None
            start = old if away or parameter is None else parameter + old
            start = start if anchor is None else start - anchor
            made, kept = apply_rule(task, state, weight, start)
            # What the rule leaves alone stays to the last bit, whatever it was measured from.
            new = made if start is old else old + (made - start)
        delta[weight] = choose(due, new, old)
        pending[weight] = choose(due, torch.zeros_like(pending[weight]), pending[weight])
        for slot, value in kept.items():
            slots[slot] = choose(due, value, slots[slot])
    return {**state, "delta": delta, "pending": pending, "slots": slots}


def apply_rule(task: PlacedTask, state: dict[str, Any], weight: str, W: Tensor) -> tuple[Tensor, Weights]:
    """What the rule and the gate make of `W`, and everything the rule remembers of this weight."""
    count, slots = state["count"] // task.memory.every, state["slots"]
    vector, whole = weight in task.memory.vectors, W.shape
    W, g = (x.unsqueeze(-2) if vector else x for x in (W, state["pending"][weight]))
    copies = W.dim() - 2
    known = {
        "W": W,
        "g": g,
        "step": _spread(count.to(W.dtype), W),
        **{key: _spread(value, W) for key, value in state.get("seen", {}).items()},
        **{slot: _as_rows(slots[f"{slot}.{weight}"], copies) for slot in task.memory.remembered},
    }
    result = task.memory.rule(*(known[name] for name in task.memory.inputs))
    new, *after = result if isinstance(result, tuple) else (result,)
    if GATE in known:
        new = new + (known[GATE] - 1.0) * W
    new = new.view(whole)
    kept = {
        f"{slot}.{weight}": value.reshape(slots[f"{slot}.{weight}"].shape)
        for slot, value in zip(task.memory.slots, after, strict=True)
    }
    for twin, slot, every in task.memory.twins:
        shown = f"{twin}.{weight}"
        kept[shown] = choose(count % every == 0, kept[f"{slot}.{weight}"], slots[shown])
    return new, kept


@torch.no_grad()
def apply_by_sample(task: PlacedTask, state: dict[str, Any], weight: str, W: Tensor, out: Tensor) -> None:
    """The same of a rule without memories, one sample after the other: `out [B, ...]` may be `W` itself.

    What a rule needs on its way is then small enough to stay in the cache.
    """
    for b in range(W.shape[0]):
        one = {
            "count": state["count"][b : b + 1],
            "pending": {weight: state["pending"][weight][b : b + 1]},
            "seen": {key: value[b : b + 1] for key, value in state.get("seen", {}).items()},
            "slots": {},
        }
        out[b : b + 1].copy_(apply_rule(task, one, weight, W[b : b + 1])[0])


def _as_rows(value: Tensor, copies: int) -> Tensor:
    """A memory of a rule as the rule sees it, behind `copies` axes: a vector is a row, a number `[1, 1]`."""
    missing = copies + 2 - value.dim()
    return value.view(*value.shape[:copies], *(1,) * missing, *value.shape[copies:])


def _spread(value: Tensor, like: Tensor) -> Tensor:
    """A value per sample or per head, with axes of length one for those of the weight."""
    return value.view(*value.shape, *(1,) * (like.dim() - value.dim()))


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
            before = set(count.cpu().tolist()) if isinstance(felt, int) else set()
            if len(before) == 1:
                (tokens,) = before
                self.known[clock, reset] = felt > 0 and tokens > 0 and tokens % clock == 0
                return self.known[clock, reset]
            moved = torch.as_tensor(felt, device=count.device) > 0
            found: Tensor = (count % clock == 0) & (count > 0) & moved
            same = found.numel() > 0 and bool((found == found[0]).all())
            self.known[clock, reset] = bool(found[0]) if same else found
        return self.known[clock, reset]
