"""Memories that minimise the task: what `learn` does to them (continuum memory systems, Eq. 70-74).

A task memory is its parameter plus a `delta` of each sequence's own, zero at the start.  Its state is
`{"delta": {weight: [B, ...]} or None, "count": [B]}`, and once `learn` has seen it also `"pending"` (the
gradient gathered since its last step), `"slots"` (memories of its rule, `slot.weight`) and, if samples are
out of step, `"open"` (see `parts`).  `count` counts the tokens whose error it has felt since its reset.
Where a rate or a gate comes from the tokens, `"seen"` holds that of the last one; where retention
is toward a start that another memory gave, `"anchor"` holds the delta it started with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from nldsl.runtime.grid import choose
from nldsl.runtime.module import Module

Weights = dict[str, Tensor]
Key = str | int


@dataclass(frozen=True)
class TaskMemory:
    """What an emitted block says of one task memory.

    `path` in the block, `every` its clock in tokens, its `weights`, and its `rule`: a function of the
    values named by `inputs` (`W`, `g`, `step`, slots) that returns the new weight, then the new `slots`.
    `parameters` are the paths of the weights' parameters in the block, `None` for a zero start, whose
    `shapes` are given; left out, they are `path.weight`.  `twins`: (input, slot, N), what is visible of
    a slot on a clock of N steps.  `own`: what is not of a weight's shape, and its shape beside each of
    the `weights` (for one copy).  `vectors`: weights that are rows.
    `toward`: what the rule and the gate act on the distance from.
    `reset`: it starts anew every so many tokens, `source`: from what that memory of the block shows.
    `descent`: its rule is `W - descent g`.  `idle`: its rule never moves it (a rate of zero), so it has no
    deltas: reads are those of the plain map, to the last bit.
    """

    path: str
    every: int
    weights: tuple[str, ...]
    rule: Callable[..., Any]
    inputs: tuple[str, ...]
    slots: tuple[str, ...] = ()
    parameters: tuple[str | None, ...] | None = None
    shapes: tuple[tuple[int, ...], ...] = ()
    twins: tuple[tuple[str, str, int], ...] = ()
    own: tuple[tuple[str, tuple[tuple[int, ...], ...]], ...] = ()
    toward: Literal["zero", "init"] = "zero"
    reset: int = 0
    source: str | None = None
    idle: bool = False
    descent: float | None = None
    vectors: tuple[str, ...] = ()
    level: str = ""
    """The level it is declared in."""

    @property
    def remembered(self) -> tuple[str, ...]:
        """Everything its rule remembers per weight: slots, and what is visible of slow ones."""
        return (*self.slots, *(twin for twin, _, _ in self.twins))

    def shape_of(self, slot: str, weight: str, whole: torch.Size) -> tuple[int, ...]:
        """The shape in a state of `slot` beside `weight`, whose own shape there is `whole`."""
        found = dict(self.own).get(slot)
        if found is None:
            return whole
        copies = whole[: len(whole) - (1 if weight in self.vectors else 2)]
        return (*copies, *found[self.weights.index(weight)])


@dataclass(frozen=True)
class PlacedTask:
    """A task memory of a model: where its state lies in the tree, and its parameters."""

    memory: TaskMemory
    keys: tuple[Key, ...]
    parameters: dict[str, Tensor | None]

    @property
    def source(self) -> tuple[Key, ...] | None:
        """Where the memory lies that it starts from."""
        return None if self.memory.source is None else (*self.keys[:-1], self.memory.source)


def adapted(parameter: Tensor, state: dict[str, Any], weight: str) -> Tensor:
    """The weight a read sees: the parameter, plus the sequence's own delta `[B, ...]` if it has one.

    `"whole"` in the state is that sum, made by a training pass.

    >>> adapted(torch.ones(2), {"delta": None}, "W")
    tensor([1., 1.])
    >>> adapted(torch.ones(2), {"delta": {"W": torch.ones(3, 2)}}, "W").shape
    torch.Size([3, 2])
    """
    whole: Weights | None = state.get("whole")
    if whole is not None:
        return whole[weight]
    delta: Weights | None = state["delta"]
    return parameter if delta is None else parameter + delta[weight]


def noted(state: dict[str, Any], values: Weights, mask: Tensor | None) -> dict[str, Any]:
    """The state of a task memory with the values `[B, T, ...]` at the last real token, as constants.

    >>> rate = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> late = torch.tensor([[True, False], [False, False]])
    >>> noted({"seen": {"lr": torch.zeros(2)}}, {"lr": rate}, late)["seen"]["lr"].tolist()
    [1.0, 0.0]
    """
    found = {}
    for key, value in values.items():
        before, value = state["seen"][key], value.detach()
        if not value.shape[1]:
            found[key] = before
        elif mask is None:
            found[key] = value[:, -1].clone()
        else:
            places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
            last = places.masked_fill(~mask, -1).amax(1)
            rows = torch.arange(value.shape[0], device=value.device)
            found[key] = choose(last >= 0, value[rows, last.clamp_min(0)], before)
    return {**state, "seen": found}


def find_tasks(root: Module, tree: Any) -> list[PlacedTask]:
    """Every task memory below `root`; `tree` is a state of it."""
    return list(_walk(root, tree, ()))


def _walk(module: Module, tree: Any, keys: tuple[Key, ...]) -> Iterator[PlacedTask]:
    memories: Sequence[TaskMemory] = getattr(module, "tasks", ())
    for memory in memories:
        paths = memory.parameters or tuple(f"{memory.path}.{w}" for w in memory.weights)
        owned: dict[str, Tensor | None] = {
            w: None if path is None else module.parameter(path)
            for w, path in zip(memory.weights, paths, strict=True)
        }
        yield PlacedTask(memory, (*keys, memory.path), owned)
    for path, child in module.attached().items():
        below = _below(path, tree)
        if below is not None:
            yield from _walk(child, get_at(tree, below), (*keys, *below))


def _below(path: str, tree: Any) -> tuple[Key, ...] | None:
    """Where the state of a block lies: under its path, or in the list of its repeats."""
    if path in tree:
        return (path,)
    match = re.fullmatch(r"(.*)\[(\d+)\]", path)
    if match is not None and isinstance(tree.get(match.group(1)), list):
        return match.group(1), int(match.group(2))
    return None


def get_at(tree: Any, keys: Sequence[Any]) -> Any:
    """The part of a tree under `keys`."""
    for key in keys:
        tree = tree[key]
    return tree


def put_at(tree: Any, keys: Sequence[Any], value: Any) -> Any:
    """A tree with the part under `keys` exchanged; the rest is shared.

    >>> put_at({"a": [1, 2]}, ("a", 0), 3)
    {'a': [3, 2]}
    """
    if not keys:
        return value
    copied: Any = list(tree) if isinstance(tree, list) else dict(tree)
    copied[keys[0]] = put_at(copied[keys[0]], keys[1:], value)
    return copied


def prepare(task: PlacedTask, state: dict[str, Any], like: Tensor) -> dict[str, Any]:
    """The state with deltas that are variables to differentiate by, and room for what is pending.

    Variables of a segment begun in an earlier call stay the same ones, so that its history leads to
    them; a state that was detached gets fresh ones.
    """
    batch = state["count"].shape[0]
    delta, pending = dict(state["delta"] or {}), dict(state.get("pending") or {})
    slots = dict(state.get("slots") or {})
    for index, (weight, parameter) in enumerate(task.parameters.items()):
        if weight not in delta:
            shape = task.memory.shapes[index] if parameter is None else parameter.shape
            delta[weight] = nothing(like, batch, *shape)
    prepared = {**state, "delta": delta}
    if not all(leaf.requires_grad and leaf.is_leaf for leaf in variables(prepared)):
        prepared = {**without_parts(prepared), "delta": {w: variable(d) for w, d in delta.items()}}
    for weight, old in delta.items():
        if weight not in pending:
            pending[weight] = nothing(like, *old.shape)
            for slot in task.memory.remembered:
                shape = task.memory.shape_of(slot, weight, old.shape)
                slots.setdefault(f"{slot}.{weight}", nothing(like, *shape))
    return {**prepared, "pending": pending, "slots": slots}


def nothing(like: Tensor, *shape: int) -> Tensor:
    """Zeros of this shape that take no room: states are values, nothing is written into them."""
    return like.new_zeros(()).expand(shape)


def variable(delta: Tensor) -> Tensor:
    """A fresh variable with the value of `delta`."""
    return delta.detach().requires_grad_()


def parts(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The variables of the segments under way, and whose: `{"mine": [B], "delta": {weight: variable}}`.

    Samples in step share one part, the deltas themselves; those that stand at different places in
    their segments have the parts listed under `"open"`.
    """
    whole = {"mine": True, "delta": state["delta"]}
    return state.get("open") or [whole]


def without_parts(state: dict[str, Any]) -> dict[str, Any]:
    """The state of samples in step."""
    return {key: value for key, value in state.items() if key != "open"}


def variables(state: dict[str, Any]) -> list[Tensor]:
    """Every variable of the segments under way."""
    return [leaf for part in parts(state) for leaf in part["delta"].values()]


def gather(state: dict[str, Any], gradients: Iterator[Tensor | None]) -> dict[str, Any]:
    """The state with the gradients of its `variables` added to what is pending, each for its samples."""
    pending = dict(state["pending"])
    for part in parts(state):
        for weight in part["delta"]:
            g = next(gradients)
            if g is None:
                continue
            mine = part["mine"]
            own = g.detach() if mine is True else choose(mine, g.detach(), torch.zeros_like(g))
            pending[weight] = pending[weight] + own
    return {**state, "pending": pending}


def reopen(state: dict[str, Any], used: Weights, full: bool | Tensor) -> dict[str, Any]:
    """Fresh variables for the samples whose segment ends; the others keep the delta they `used`."""
    fresh = {weight: variable(delta) for weight, delta in state["delta"].items()}
    if isinstance(full, bool):
        return {**without_parts(state), "delta": fresh}
    delta = {weight: choose(full, fresh[weight], old) for weight, old in used.items()}
    under_way = [{**part, "mine": ~full & part["mine"]} for part in parts({**state, "delta": used})]
    kept = [part for part in under_way if bool(part["mine"].any())]
    return {**state, "delta": delta, "open": [*kept, {"mine": full, "delta": fresh}]}
