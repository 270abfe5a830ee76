"""What an evaluation says of a run besides held-out text: its levels, its pace, its memory."""

from __future__ import annotations

import resource
import sys
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.model import Model
from nldsl.train.bound import operations, peak
from nldsl.train.levels import by_level, lives

WINDOWS, SHORTEST = 2, 4


def levels_of(model: Any, tokens: Tensor) -> dict[str, Any]:
    """`levels` and `memories` on the first two windows `[n, T + 1]`; nothing for a model without memories.

    Example:
        >>> import nldsl
        >>> model = nldsl.compile("deltanet", dim=16, depth=1, heads=2)
        >>> sorted(levels_of(model, torch.arange(18).view(2, 9))["levels"]["context"])
        ['rate', 'state_norm', 'used', 'write_norm']
    """
    tokens = tokens[:WINDOWS]
    if tokens.shape[1] < SHORTEST or not isinstance(model, Model):
        return {}
    found = lives(model, tokens)
    memories = {one.memory: {k: v for k, v in asdict(one).items() if isinstance(v, float)} for one in found}
    return {"levels": by_level(found), "memories": memories} if found else {}


def pace_of(
    model: Any, tokens: int, seconds: float, length: int, device: torch.device, world: int
) -> dict[str, Any]:
    """The share of the best rate of products that training has had so far, and its most memory, in bytes."""
    if device.type == "cuda":
        most = torch.cuda.max_memory_allocated(device)
    else:  # kibibytes, but on macOS
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if not seconds or not isinstance(model, Model):
        return {"peak_memory_bytes": most}
    reached = operations(model, length) * tokens / seconds
    share = reached / (peak(str(device), torch.float32) * world)
    return {"share_of_bound": round(share, 4), "peak_memory_bytes": most}
