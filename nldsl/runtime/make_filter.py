"""The causal filter of some gates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.runtime.filters import ChannelFilter, Filter, PlainFilter, ScalarFilter


def make_filter(gates: Sequence[tuple[Tensor, bool]], width: int, like: Tensor) -> Filter:
    """The filter of some gates in order: each `[X, C]` or `[X, C, K]`, and whether it is a logarithm.

    Gates per channel all come as logarithms; others are a `state_filter.StateFilter` of one state.
    """
    if not gates:
        return PlainFilter(width, like)
    if not any(g.dim() == 3 for g, _ in gates):
        logs = all(is_log for _, is_log in gates)
        return ScalarFilter(
            torch.stack([g.exp() if is_log and not logs else g for g, is_log in gates], 2), logs
        )
    size = next(g.shape[-1] for g, _ in gates if g.dim() == 3)
    wide = [g if g.dim() == 3 else g.unsqueeze(-1).expand(*g.shape, size) for g, _ in gates]
    return ChannelFilter(torch.stack(wide, 2))
