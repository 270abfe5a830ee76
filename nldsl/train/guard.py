"""Steps that must not be taken: something is not finite, or the gradient is far above its usual norm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.evaluate import LanguageModel
from nldsl.evaluate.bits import PADDING, by_token, read_labels, without_padding

RECENT, FEWEST = 64, 16
"""A norm is compared with the median of the `RECENT` last ones, once there are `FEWEST`."""
SKIPS_IN_A_ROW = 20


@dataclass
class Guard:
    """The gradient norms of the last steps that were taken, and how many were skipped since.

    `factor` times the median of the norms is a spike; 0 looks for none.  It is part of a checkpoint:
    a resumed run judges as the one that was not stopped.
    """

    factor: float = 0.0
    norms: list[float] = field(default_factory=list)
    skipped: int = 0

    def judge(self, loss: float, norm: float) -> str:
        """What is wrong with a step: `not finite`, `spike` or nothing.

        Example:
            >>> guard = Guard(10.0, norms=[1.0] * 16)
            >>> guard.judge(2.0, 10.5), guard.judge(2.0, math.nan), guard.judge(2.0, 9.5)
            ('spike', 'not finite', '')
        """
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return "not finite"
        if self.factor and len(self.norms) >= FEWEST and norm > self.factor * median(self.norms):
            return "spike"
        return ""

    def taken(self, norm: float) -> None:
        """A step with this norm was taken."""
        self.norms = [*self.norms, norm][-RECENT:]
        self.skipped = 0

    def saved(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"norms": self.norms, "skipped": self.skipped}

    def restore(self, found: Mapping[str, Any]) -> None:
        """Go back to what `saved` gave; a checkpoint from before there were guards gave nothing."""
        self.norms = [float(n) for n in found.get("norms", ())]
        self.skipped = int(found.get("skipped", 0))


def not_finite(tensors: Mapping[str, Tensor | None]) -> list[str]:
    """The names of the tensors that hold NaN or infinity.

    Example:
        >>> not_finite({"a": torch.tensor([1.0]), "b": torch.tensor([math.inf]), "c": None})
        ['b']
    """
    return [name for name, t in tensors.items() if t is not None and not bool(torch.isfinite(t).all())]


def listed(names: Sequence[str]) -> str:
    """Up to three names in back-quotes, and how many more.

    Example:
        >>> listed(["a", "b", "c", "d"])
        '`a`, `b`, `c` and 1 more'
    """
    shown = ", ".join(f"`{name}`" for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def culprit(gradients: Mapping[str, Tensor | None]) -> tuple[str, str]:
    """The parameter to look at, and why: its gradient is not finite, or else the largest.

    Example:
        >>> culprit({"a": torch.tensor([1.0]), "b": torch.tensor([math.nan])})
        ('b', 'the gradient of `b` is not finite')
        >>> culprit({"a": torch.tensor([1.0]), "b": torch.tensor([3.0])})
        ('b', 'the gradient of `b` is 90% of its square')
    """
    broken = not_finite(gradients)
    if broken:
        return broken[0], f"the gradient of {listed(broken)} is not finite"
    squares = {name: float(g.double().pow(2).sum()) for name, g in gradients.items() if g is not None}
    name = max(squares, key=lambda n: squares[n])
    return (
        name,
        f"the gradient of `{name}` is {squares[name] / (sum(squares.values()) or 1.0):.0%} of its square",
    )


def worst_token(model: LanguageModel, tokens: Tensor) -> str:
    """Where in a batch `[B, T + 1]` the loss is first not finite, or else highest (without task writes)."""
    with torch.no_grad():
        if tokens.dim() == 3:
            (logits, _), targets = read_labels(model, tokens), tokens[..., 1].flatten()
        else:
            inputs, mask = without_padding(tokens[:, :-1])
            logits, _ = model(inputs, None, mask)
            targets = tokens[:, 1:].flatten()
        losses = F.cross_entropy(by_token(logits), targets, reduction="none", ignore_index=PADDING)
    broken = ~torch.isfinite(losses)
    index = int(broken.int().argmax()) if bool(broken.any()) else int(losses.argmax())
    row, column = divmod(index, tokens.shape[1] - (tokens.dim() != 3))
    kind = "first loss that is not finite" if bool(broken.any()) else "highest loss of the batch"
    return f"the {kind}, {float(losses[index]):.4g}, is at byte {column + 1} of window {row}"


def trained_by(name: str, groups: Iterable[tuple[str, Mapping[str, Tensor]]]) -> str:
    """The group that trains a parameter, for a message."""
    return next((f"`{name}` is trained by `{group}`" for group, own in groups if name in own), "")
