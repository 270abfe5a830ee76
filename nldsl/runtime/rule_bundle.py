"""How the weights of one kernel are updated: one by one, matrix by matrix, or many as one vector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nldsl.runtime.rule_kernel import Kernel

if TYPE_CHECKING:
    from nldsl.runtime.rule_optimizer import RuleOptimizer

Numbers = Sequence[Tensor]


@dataclass(frozen=True)
class Bundle:
    """Weights that are updated in one call of a kernel, with their gradients and memories."""

    kernel: Kernel
    weight: Tensor
    gradient: Tensor
    memories: tuple[Tensor, ...]

    def apply(self, numbers: Numbers) -> None:
        """One application of the rule, in place."""
        kind = self.weight.dtype if self.weight.dtype == torch.float64 else torch.float32
        cast = [n.to(self.weight.device, kind) for n in numbers]
        self.kernel.update(self.weight, self.gradient, *self.memories, *cast)


def bundled(
    optimizer: RuleOptimizer, group: int, kernel: Kernel, pairs: Sequence[tuple[Tensor, Tensor]]
) -> Iterator[Bundle]:
    """The calls that update these weights."""
    for p, g in pairs:
        state = optimizer.state[p]
        memories = tuple(state[m.name] for m in kernel.memories)
        weight = p.detach()
        if kernel.form == "matrix" and weight.ndim == 3:
            for h in range(len(weight)):
                yield Bundle(kernel, weight[h], g[h], tuple(m[h] for m in memories))
        elif weight.ndim == 0:
            yield Bundle(kernel, weight.view(1), g.view(1), tuple(m.view(1) for m in memories))
        else:
            yield Bundle(kernel, weight, g, memories)
