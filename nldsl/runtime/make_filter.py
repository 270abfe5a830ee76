"""The causal filter of some gates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.runtime.filters import ChannelFilter, Filter, PlainFilter, ScalarFilter
from nldsl.runtime.product_filter import ProductFilter


def make_filter(gates: Sequence[tuple[Tensor, bool]], width: int, like: Tensor) -> Filter:
    """The filter of some gates in order: each `[X, C]` or `[X, C, K]`, and whether it is a logarithm."""
    if not gates:
        return PlainFilter(width, like)
    channels = any(g.dim() == 3 for g, _ in gates)
    logs = all(is_log for _, is_log in gates)
    if not channels:
        return ScalarFilter(torch.stack([_as(g, is_log, logs) for g, is_log in gates], 2), logs)
    size = next(g.shape[-1] for g, _ in gates if g.dim() == 3)
    wide = [_as(g, is_log, logs) for g, is_log in gates]
    wide = [g if g.dim() == 3 else g.unsqueeze(-1).expand(*g.shape, size) for g in wide]
    return ChannelFilter(torch.stack(wide, 2)) if logs else ProductFilter(torch.stack(wide, 2))


def _as(gate: Tensor, is_log: bool, logs: bool) -> Tensor:
    return gate.exp() if is_log and not logs else gate
