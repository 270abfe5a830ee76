"""How `learn` walks a sequence: segments, the token held back, gradients for the task memories."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.module import Module
from nldsl.runtime.state import map_tree
from nldsl.runtime.task import (
    PlacedTask,
    find_tasks,
    gather,
    get_at,
    prepare,
    put_at,
    reopen,
    variables,
)
from nldsl.runtime.task_step import Due, reset, step

Held = dict[str, Tensor]
"""The last token of each sequence, whose target has not come: `{"token": [B], "valid": [B]}`."""


def release(held: Held, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, Held | None]:
    """The held tokens in front of those of a call, where the call has a real one; and who stays held."""
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    comes = real.any(1)
    goes, stays = held["valid"] & comes, held["valid"] & ~comes
    live: Tensor | None = torch.cat([goes.unsqueeze(1), real], 1)
    stream = torch.cat([held["token"].unsqueeze(1), tokens], 1)
    if mask is None and bool(goes.all()):
        live = None
    return stream, live, {"token": held["token"], "valid": stays} if bool(stays.any()) else None


class Learning:
    """One call of `learn`."""

    def __init__(self, root: Module, carry: str, backward: float) -> None:
        self.root = root
        self.carry = carry
        self.backward = backward

    def writes(self, tree: Any) -> bool:
        """Whether the model has task memories at all."""
        return bool(find_tasks(self.root, tree))

    def run(
        self, tokens: Tensor, tree: dict[str, Any], mask: Tensor | None
    ) -> tuple[Tensor, dict[str, Any], int]:
        """The summed loss, the new tree, and how many targets were scored."""
        stream, live, kept = tokens, mask, None
        if tree.get("held") is not None:
            stream, live, kept = release(tree["held"], tokens, mask)
        inputs, targets, scored, held = _pairs(stream, live, kept)
        state = tree["root"]
        tasks = find_tasks(self.root, state)
        like = next(self.root.parameters())
        grid = self._grid(tasks, state, inputs, scored)
        total = like.new_zeros(())
        parts = zip(grid.cut(inputs, "token"), grid.cut(targets, "token"), strict=True)
        moving = [task for task in tasks if not task.memory.idle]
        for n, (piece, target) in enumerate(parts):
            for task in moving:
                state = put_at(state, task.keys, prepare(task, get_at(state, task.keys), like))
            loss, state = self._piece(piece, target, state, grid.valid[n])
            state = self._close(tasks, state, loss, grid.held(n), grid.full[n])
            total = total + (loss.detach() if self._at_once else loss)
        if self.backward and not self._at_once and total.requires_grad:
            (total * self.backward).backward()
        count = inputs.numel() if scored is None else int(scored.sum())
        return total, {"root": state, **({} if held is None else {"held": held})}, count

    @property
    def _at_once(self) -> bool:
        """Whether each segment is back-propagated as soon as it is done."""
        return bool(self.backward) and self.carry == "trunc"

    def _grid(self, tasks: list[PlacedTask], state: Any, inputs: Tensor, scored: Tensor | None) -> ChunkGrid:
        """Pieces that end where segments end; without task memories one piece."""
        if not tasks:
            count = torch.zeros(inputs.shape[0], dtype=torch.int64, device=inputs.device)
            return ChunkGrid(count, scored, inputs.shape[1], max(1, inputs.shape[1]))
        segment = min(task.memory.every for task in tasks)
        for task in tasks:
            if task.memory.every % segment or task.memory.reset % segment:
                raise ValueError(
                    f"the clock of `{task.memory.path}`, {task.memory.every}, is no multiple of the "
                    f"smallest task clock, {segment}"
                )
        count = get_at(state, tasks[0].keys)["count"]
        return ChunkGrid(count, scored, inputs.shape[1], segment)

    def _piece(self, piece: Tensor, target: Tensor, state: Any, valid: Tensor | None) -> tuple[Tensor, Any]:
        logits, state = self.root(piece, state, valid)
        losses = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
        if valid is not None:
            losses = losses.masked_fill(~valid.flatten(), 0.0)
        return losses.sum(), state

    def _close(
        self,
        tasks: list[PlacedTask],
        state: Any,
        loss: Tensor,
        felt: int | Tensor,
        full: bool | Tensor,
    ) -> Any:
        """Gradients to what is pending; at the segment's edge the rules that are due, resets, constants."""
        ended, due = bool(tasks) and full is not False, Due()
        for task in tasks:
            entry = get_at(state, task.keys)
            state = put_at(state, task.keys, {**entry, "count": entry["count"] + felt})
        moving = [task for task in tasks if not task.memory.idle]
        found = [get_at(state, task.keys) for task in moving]
        gradients = iter(self._gradients(loss, [leaf for entry in found for leaf in variables(entry)]))
        if ended and self.carry == "trunc":
            state = map_tree(lambda x: choose(full, x.detach(), x) if x.requires_grad else x, state)
        for task, old in zip(moving, found, strict=True):
            entry = gather(old, gradients)
            if ended:
                entry = step(task, entry, due(entry, felt, task.memory.every, task.memory.reset))
            state = put_at(state, task.keys, entry)
        if ended:
            state = _reset(tasks, state, felt, due)
            for task, old in zip(moving, found, strict=True):
                state = put_at(state, task.keys, reopen(get_at(state, task.keys), old["delta"], full))
        return map_tree(lambda x: x.detach(), state) if self._at_once else state

    def _gradients(self, loss: Tensor, leaves: list[Tensor]) -> list[Tensor | None]:
        if not loss.requires_grad:
            return [None] * len(leaves)
        if not self._at_once:
            if not leaves:
                return []
            return list(torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True))
        for leaf in leaves:
            leaf.grad = None
        (loss * self.backward).backward()
        return [None if leaf.grad is None else leaf.grad / self.backward for leaf in leaves]


def _reset(tasks: list[PlacedTask], state: Any, felt: int | Tensor, due: Due) -> Any:
    """Task memories whose `reset every N tokens` is over start anew, those that others start from first."""
    waiting = [t for t in tasks if t.memory.reset]
    while waiting:
        after = {t.keys for t in waiting}
        task = next(t for t in waiting if t.source not in after)
        waiting.remove(task)
        entry = get_at(state, task.keys)
        source: Any = None if task.source is None else get_at(state, task.source)
        over = due(entry, felt, task.memory.reset, task.memory.reset)
        state = put_at(state, task.keys, reset(task, entry, source, over))
    return state


def _pairs(
    stream: Tensor, live: Tensor | None, kept: Held | None
) -> tuple[Tensor, Tensor, Tensor | None, Held | None]:
    """Inputs and their targets, who is scored (`None`: all), and the last token of each sequence."""
    batch, length = stream.shape
    if live is None and length:
        last = torch.ones(batch, dtype=torch.bool, device=stream.device)
        return stream[:, :-1], stream[:, 1:], None, {"token": stream[:, -1], "valid": last}
    if not length:
        return stream, stream, None, kept
    assert live is not None
    places = torch.arange(length, device=stream.device).expand(batch, -1)
    own = places.masked_fill(~live, length)
    # The next real token behind each place, `length` if there is none.
    nearest = own.flip(1).cummin(1).values.flip(1)
    behind = torch.cat([nearest[:, 1:], nearest.new_full((batch, 1), length)], 1)
    scored = live & (behind < length)
    targets = stream.gather(1, behind.clamp_max(length - 1))
    last = places.masked_fill(~live, -1).amax(1)
    token = stream.gather(1, last.clamp_min(0).unsqueeze(1)).squeeze(1)
    valid = last >= 0
    if kept is not None:
        token, valid = torch.where(kept["valid"], kept["token"], token), valid | kept["valid"]
    return stream, targets, scored, {"token": token, "valid": valid} if bool(valid.any()) else None
