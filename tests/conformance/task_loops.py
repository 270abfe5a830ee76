"""Continuum memory systems as literal loops over the tokens of one sequence: no code of the language.

A `Level` is what one memory does: how it answers, when it commits, by which rule, when it starts again.  The
tokens of a segment (the smallest clock) are computed one by one with the weights that are visible; the
gradient of their summed error by these weights is added to what is pending, and every C tokens the rule runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]
Rule = Callable[[Tensor, Tensor, dict[str, Any], int], Tensor]
"""The new weight from the old one, the gradient, what is remembered, and the count of steps."""


@dataclass
class Level:
    """One memory under `minimizes task`; `start` names the level whose weights it starts from."""

    path: str
    every: int
    answer: Callable[[Weights, Tensor], Tensor]
    rule: Rule
    reset: int = 0
    start: str = ""
    retain: float = 1.0
    toward_init: bool = False
    delta: Weights = field(default_factory=dict)
    anchor: Weights = field(default_factory=dict)
    pending: Weights = field(default_factory=dict)
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: int = 0
    seen: int = 0


Body = Callable[[dict[str, Tensor], Callable[[str, Tensor], Tensor], Tensor, dict[str, Any]], Tensor]
"""`(slow parameters, read(level, key), embedded token, state of the sequence) -> value before the head`."""


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean() + 1e-6) * weight


class Loop:
    """One sequence: its levels, and the sum of the errors so far."""

    def __init__(self, slow: dict[str, Tensor], levels: list[Level], body: Body, exact: bool) -> None:
        self.slow, self.levels, self.body, self.exact = slow, {v.path: v for v in levels}, body, exact
        self.carried: dict[str, Any] = {}
        self.loss = torch.zeros((), dtype=torch.float64)
        for level in levels:
            own = self.parameter(level)
            level.delta = {n: torch.zeros_like(w) for n, w in own.items()}
            level.anchor, level.pending = dict(level.delta), dict(level.delta)
            level.kept, level.steps, level.seen = {n: {} for n in own}, 0, 0

    def parameter(self, level: Level) -> Weights:
        if level.start:
            return self.parameter(self.levels[level.start])
        head = level.path + "."
        return {n.removeprefix(head): w for n, w in self.slow.items() if n.startswith(head)}

    def logits(self, token: int, leaves: dict[str, Weights] | None = None) -> Tensor:
        def read(path: str, key: Tensor) -> Tensor:
            level = self.levels[path]
            visible = level.delta if leaves is None else leaves[path]
            return level.answer({n: w + visible[n] for n, w in self.parameter(level).items()}, key)

        x = self.body(self.slow, read, self.slow["x.embed.weight"][token], self.carried)
        return self.slow["out.head.weight"] @ rms(x, self.slow["out.norm.weight"])

    def run(self, tokens: list[int]) -> Tensor:
        """The error of every token but the last by its successor."""
        segment = min(level.every for level in self.levels.values())
        pairs = list(zip(tokens, tokens[1:], strict=False))
        for begin in range(0, len(pairs), segment):
            self._segment(pairs[begin : begin + segment])
        return self.loss

    def _segment(self, pairs: list[tuple[int, int]]) -> None:
        leaves = {
            p: {n: d.clone().requires_grad_() for n, d in v.delta.items()} for p, v in self.levels.items()
        }
        loss = torch.zeros((), dtype=torch.float64)
        for token, target in pairs:
            y = self.logits(token, leaves)
            loss = loss + torch.logsumexp(y, 0) - y[target]
        flat = [w for found in leaves.values() for w in found.values()]
        found = iter(torch.autograd.grad(loss, flat, retain_graph=True, allow_unused=True))
        for path, own in leaves.items():
            level = self.levels[path]
            for name in own:
                g = next(found)
                level.pending[name] = level.pending[name] + (0 if g is None else g)
        self.loss = self.loss + loss
        for level in self.levels.values():
            level.seen += len(pairs)
        for level in self.levels.values():
            if level.seen % level.every == 0:
                self._commit(level)
        for level in self.levels.values():  # the slow ones first: those written above
            if level.reset and level.seen % level.reset == 0:
                self._begin(level)
        if not self.exact:
            self.carried = {n: v.detach() for n, v in self.carried.items()}

    def _commit(self, level: Level) -> None:
        level.steps += 1
        for name, slow in self.parameter(level).items():
            w = slow.detach()
            toward = w + level.anchor[name] if level.toward_init else torch.zeros_like(w)
            away = w + level.delta[name] - toward
            stepped = level.rule(away, level.pending[name], level.kept[name], level.steps)
            level.delta[name] = toward + level.retain * away + (stepped - away) - w
            level.pending[name] = torch.zeros_like(w)

    def _begin(self, level: Level) -> None:
        zero = {n: torch.zeros_like(w) for n, w in self.parameter(level).items()}
        level.delta = dict(self.levels[level.start].delta) if level.start else dict(zero)
        level.anchor, level.pending = dict(level.delta), zero
        level.kept, level.steps, level.seen = {n: {} for n in zero}, 0, 0
