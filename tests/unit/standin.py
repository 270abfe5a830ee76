"""A small hand-written model with the interface of a compiled one, for tests of what uses models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nldsl.spec.program import Block, GroupRule, Program, TrainPlan


@dataclass(frozen=True)
class HeldState:
    """The state of `StandIn`: one vector per sample."""

    h: Tensor

    def detach(self) -> HeldState:
        return HeldState(self.h.detach())


def plan_of(*groups: GroupRule, **options: object) -> TrainPlan:
    """A plan for bytes."""
    return TrainPlan("next_token", "trunc", groups, **options)


MUON = GroupRule(("matrices",), "muon", (("lr", 0.02),))
ADAMW = GroupRule(("embeddings", "head", "norms", "rest"), "adamw", (("lr", 0.01),))


class StandIn(nn.Module):
    """h' = a h + W e(token); logits = V h'; `a` learned, `M` a stack of two matrices on the way."""

    def __init__(self, plan: TrainPlan | None = None, dim: int = 16, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) * shape[-1] ** -0.5)

        self.embedding, self.w, self.v = draw(256, dim), draw(dim, dim), draw(256, dim)
        self.m, self.a = draw(2, dim, dim), nn.Parameter(torch.zeros(dim))
        self.program = Program(
            "standin", "model", Block("standin", (), (), (), ()), plan or plan_of(MUON, ADAMW)
        )

    def parameter_paths(self) -> dict[str, nn.Parameter]:
        return {
            "embed.weight": self.embedding,
            "blocks[0].q.linear.weight": self.w,
            "blocks[0].M.W1": self.m,
            "blocks[0].decay": self.a,
            "out.head.weight": self.v,
        }

    def drawn_paths(self) -> dict[str, Tensor]:
        return dict(self.parameter_paths())

    def parameter_roles(self) -> dict[str, str]:
        return dict(
            zip(self.parameter_paths(), ("embedding", "matrix", "matrix", "rest", "head"), strict=True)
        )

    def forward(
        self, tokens: Tensor, state: HeldState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, HeldState]:
        h = self.a.new_zeros(len(tokens), len(self.a)) if state is None else state.h
        decay, hidden = torch.sigmoid(self.a), []
        for e in F.embedding(tokens, self.embedding).unbind(1):
            h = decay * h + e @ self.w.T
            hidden.append(h)
        x = torch.stack(hidden, 1)
        x = x + torch.tanh(x @ self.m[0].T) @ self.m[1].T
        return x @ self.v.T, HeldState(h)
