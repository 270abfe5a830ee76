"""Rules that need every row of a linear layer: the rows are kept until the step, and taken one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nldsl.runtime.rule_kernel import refusal
from nldsl.runtime.rule_rows import Rows

AT_ONCE = 1 << 20
"""Elements of one value, over the rows that are looked at together."""


class GatheredRows(Rows):
    """What one weight sees at its layer in one step: x `[N, in]` and dy `[N, out]`, a pair per backward pass.

    The gradient that `weight.grad` shows is the ordinary one.
    """

    def __init__(self, name: str = "a weight") -> None:
        super().__init__(lambda x, y, dy: (None, dy), lambda: (), name)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forget(self) -> None:
        """The next rows are those of another step."""
        super().forget()
        self.seen.clear()

    def again(self, x: Tensor, y: Tensor, before: Tensor, dy: Tensor) -> Tensor:
        """What is more than `before` of these rows, which are kept already."""
        place = next(n for n, (_, kept) in enumerate(self.seen) if kept.data_ptr() == before.data_ptr())
        self.seen[place] = self.seen[place][0], dy.detach()
        return (dy - before).mT @ x

    def gradient(self, x: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        """`dy^T x`, the rows kept."""
        self.pulled = self.ever = True
        self.seen.append((x.detach(), dy.detach()))
        return dy.mT @ x

    def take(self, g: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """The rows of the step that gave the gradient `g`, dy times N: the gradient of each row by itself.

        What scaled `g` as a whole (clipping, a loss scale) scales the rows; raises NL0974 for other changes.
        """
        x, dy = (torch.cat(part) for part in zip(*self.seen, strict=True))
        self.forget()
        told = dy.mT @ x
        size = float((told * told).sum())
        factor = float((told * g).sum()) / size if size else 1.0
        bound = 1e-3 if g.dtype in (torch.bfloat16, torch.float16) else 1e-5
        if not float((g - factor * told).norm()) <= bound * float(g.norm()):
            raise refusal(
                "NL0974",
                f"the gradient of {name} is not that of its rows: something else than a factor changed it",
                "the rule looks at rows, which only a scaling of the whole gradient can follow",
            )
        return x, dy * (factor * len(x))


def mean_over_rows(
    function: Callable[[Tensor, Tensor], tuple[Tensor, ...]], x: Tensor, dy: Tensor
) -> tuple[Tensor, ...]:
    """The mean of `function(x_t, dy_t)` over rows; x `[N, in]`, dy `[N, out]`.

    Example:
        >>> ones = torch.ones(3, 2)
        >>> mean_over_rows(lambda x, dy: (torch.outer(dy, x),), ones, 2 * ones)[0]
        tensor([[2., 2.],
                [2., 2.]])
    """
    together = max(1, AT_ONCE // (x.shape[1] * dy.shape[1]))
    sums: list[Tensor] = []
    for xs, dys in zip(x.split(together), dy.split(together), strict=True):
        found = [value.sum(0) for value in torch.vmap(function)(xs, dys)]
        sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
    return tuple(value / len(x) for value in sums)
