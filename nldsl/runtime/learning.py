"""How `learn` walks a sequence: pieces that end where segments end, and the token held back."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.growth import Room
from nldsl.runtime.module import Module
from nldsl.runtime.periods import Periods
from nldsl.runtime.segments import Segments
from nldsl.runtime.task import PlacedTask, find_tasks, get_at

UNLABELLED = -100
"""The target of a token that has none."""
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


def streams_of(root: Module) -> list[str]:
    """What a model reads: all that its pass takes but state and mask."""
    return list(inspect.signature(root.forward).parameters)[:-2]


def summed(losses: Tensor) -> Tensor:
    """The sum of losses in float64 (where a device has it): in float32 the sum of a batch loses two digits.

    Example:
        >>> float(summed(torch.tensor([1e8, 1.0, -1e8])))
        1.0
    """
    return losses.sum(dtype=torch.float32 if losses.device.type == "mps" else torch.float64)


def check_asked(backward: object, levels: object, tasks: Collection[PlacedTask]) -> None:
    """Whether a call of `learn` asks for what there is.

    Errors: `ValueError` unless `backward` is a finite number and `levels` are levels of task memories.

    >>> check_asked("exact", None, [])
    Traceback (most recent call last):
    ValueError: `backward` is 'exact', expected a number, the scale of the loss; `carry` can be exact
    """
    scale = backward.item() if isinstance(backward, Tensor) and backward.numel() == 1 else backward
    if not isinstance(scale, int | float) or not math.isfinite(scale):
        raise ValueError(
            f"`backward` is {backward!r}, expected a number, the scale of the loss; `carry` can be exact"
        )
    known = sorted({task.memory.level for task in tasks})
    wrong = [levels] if isinstance(levels, str) else sorted({*(levels or ())} - {*known})  # type: ignore[misc]
    if wrong:
        raise ValueError(
            f"`levels` has {wrong[0]!r}, expected a collection of levels with task memories: "
            f"{', '.join(map(repr, known)) or 'none'}"
        )


class Learning:
    """One call of `learn`.

    `differentiable`: the gradient of the loss is or may be asked for.  If not, what crosses a segment's
    edge needs no history, whatever `carry` says: deltas are constants of the outer problem.
    """

    def __init__(
        self,
        root: Module,
        carry: str,
        backward: float,
        levels: Collection[str] | None = None,
        *,
        differentiable: bool = True,
    ) -> None:
        self.root = root
        self.carry = carry if differentiable else "trunc"
        self.backward = backward
        self.levels = levels
        self.differentiable = differentiable
        self.streams = streams_of(root)
        """What the model reads: all it takes but state and mask."""
        self.right: Tensor | None = None
        """Which labels `[B, T]` were the likeliest classes, behind a run with labels."""
        self.hits: list[Tensor] = []

    def writes(self, tree: Any) -> bool:
        """Whether the model has task memories at all."""
        return bool(find_tasks(self.root, tree))

    def run(
        self, tokens: Tensor, tree: dict[str, Any], mask: Tensor | None, label: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Any], int]:
        """The summed loss, the new tree, and how many targets were scored."""
        self._check_labels(tokens, mask, label, tree["root"])
        stream, live, kept = tokens, mask, None
        if tree.get("held") is not None:
            stream, live, kept = release(tree["held"], tokens, mask)
        if label is None:
            inputs, targets, scored, held = _pairs(stream, live, kept)
        else:
            inputs, targets, scored, held = tokens, label.masked_fill(label < 0, UNLABELLED), mask, None
        state = tree["root"]
        tasks = [self._allowed(task) for task in find_tasks(self.root, state)]
        like = next(self.root.parameters())
        grid = self._grid(tasks, state, inputs, scored)
        total = summed(like.new_zeros(0))
        parts = zip(grid.cut(inputs, "token"), grid.cut(targets, "token"), strict=True)
        segments, room = self._segments(tasks, state, grid, like), Room(sum(grid.widths))
        segments.look_ahead(self.root, self._given(inputs, targets), state, grid)
        for n, (piece, target) in enumerate(parts):
            state = segments.open(state)
            with room.piece(grid.widths[n]), segments.ahead(n):
                loss, state = self._piece(piece, target, state, grid.valid[n])
            last = n + 1 == len(grid.full)
            state = segments.close(state, loss, grid.held(n), grid.full[n], last)
            total = total + (loss if self.differentiable and not segments.at_once else loss.detach())
            # Nothing above the state that is handed on has to stay.
            del loss
        if self.backward and not segments.at_once and total.requires_grad:
            (total * self.backward).backward()
        state = segments.finish(state)
        count = inputs.numel() if scored is None else int(scored.sum())
        if label is not None:
            count = int((label >= 0).sum() if mask is None else ((label >= 0) & mask).sum())
            found = grid.join(self.hits, "token") if self.hits else torch.zeros_like(label, dtype=torch.bool)
            self.right = found & (label >= 0)
        return total, {"root": state, **({} if held is None else {"held": held})}, count

    def _check_labels(self, tokens: Tensor, mask: Tensor | None, label: Tensor | None, tree: Any) -> None:
        wanted = "label" in self.streams
        if wanted != (label is not None):
            said = "has" if wanted else "does not have"
            raise ValueError(
                f"the model {said} the stream `label`: `learn(tokens{', label = ...' * wanted})`"
            )
        others = [name for name in self.streams if name != "label"]
        if len(others) > 1:
            raise ValueError(f"`learn` knows one stream beside `label`; the model has {', '.join(others)}")
        if label is None:
            return
        if label.shape != tokens.shape:
            raise ValueError(f"`label` has shape {list(label.shape)}, `tokens` {list(tokens.shape)}")
        missing = label < 0 if mask is None else (label < 0) & mask
        if bool(missing.any()) and self.writes(tree):
            raise ValueError(
                "memories that minimise the task need the label of every token: some are negative"
            )

    def _segments(self, tasks: list[PlacedTask], state: Any, grid: ChunkGrid, like: Tensor) -> Segments:
        """The fast way for training passes over samples in step, else the general one."""
        counts = [get_at(state, task.keys)["count"] for task in tasks]
        together = grid.count.numel() > 0 and all(isinstance(full, bool) for full in grid.full)
        # In step on the shortest clock only, samples fire longer ones apart.
        together = together and all(bool((count == count[:1]).all()) for count in counts)
        closed = all("open" not in get_at(state, task.keys) for task in tasks)
        kind = Periods if self.backward and together and closed else Segments
        return kind(tasks, self.carry, self.backward, like)

    def _allowed(self, task: PlacedTask) -> PlacedTask:
        if self.levels is None or task.memory.level in self.levels:
            return task
        return replace(task, memory=replace(task.memory, idle=True))

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
        count, *others = (get_at(state, task.keys)["count"] for task in tasks)
        if any(not torch.equal(count % segment, other % segment) for other in others):
            raise ValueError(
                f"memories that outlive a sequence stand within a segment of {segment} tokens where others "
                f"begin one: end sequences at multiples of {segment}, or give all of them `reset never`"
            )
        return ChunkGrid(count, scored, inputs.shape[1], segment)

    def _given(self, tokens: Tensor, target: Tensor) -> list[Tensor]:
        return [target if name == "label" else tokens for name in self.streams]

    def _piece(self, piece: Tensor, target: Tensor, state: Any, valid: Tensor | None) -> tuple[Tensor, Any]:
        logits, state = self.root(*self._given(piece, target), state, valid)
        if "label" in self.streams:
            self.hits.append(logits.detach().argmax(-1) == target)
        losses = F.cross_entropy(
            logits.flatten(0, 1), target.flatten().long(), reduction="none", ignore_index=UNLABELLED
        )
        if valid is not None:
            losses = losses.masked_fill(~valid.flatten(), 0.0)
        return summed(losses), state


def _pairs(
    stream: Tensor, live: Tensor | None, kept: Held | None
) -> tuple[Tensor, Tensor, Tensor | None, Held | None]:
    """Inputs and their targets, who is scored (`None`: all), and the last token of each sequence."""
    batch, length = stream.shape
    if live is None and length:
        last = torch.ones(batch, dtype=torch.bool, device=stream.device)
        return stream[:, :-1], stream[:, 1:], None, {"token": stream[:, -1].clone(), "valid": last}
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
