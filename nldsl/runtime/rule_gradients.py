"""Gradients that are not finite: found before anything is changed, named, and dealt with as asked."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from nldsl.runtime.rule_kernel import refusal

if TYPE_CHECKING:
    from nldsl.runtime.rule_optimizer import RuleOptimizer

Policy = Literal["raise", "skip", "zero", "ignore"]
POLICIES = ("raise", "skip", "zero", "ignore")


def checked(optimizer: RuleOptimizer, found: Iterable[tuple[str, Tensor, Tensor]]) -> bool:
    """Whether the step may be taken; raises NL0967, warns, or repairs, as the policy says."""
    policy = optimizer.nonfinite
    if policy not in POLICIES:
        raise refusal("NL0968", f"`nonfinite` is one of {', '.join(POLICIES)}; found `{policy}`")
    if policy == "ignore":
        return True
    bad = [(name, p, g) for name, p, g in found if not finite(g)]
    if not bad:
        return True
    step = int(max(optimizer.state[p]["step"] for _, p, _ in bad)) + 1
    shown = ", ".join(_described(name, g) for name, _, g in bad[:3])
    shown += f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    message = f"at step {step} the gradient of {shown} is not finite"
    if policy == "raise":
        raise refusal(
            "NL0967", message, 'no weight was changed; `nonfinite = "skip"` or `"zero"` would go on'
        )
    warnings.warn(f"{message}: {'step skipped' if policy == 'skip' else 'taken as zero'}", stacklevel=3)
    for _, _, g in bad if policy == "zero" else ():
        torch.nan_to_num_(g, nan=0.0, posinf=0.0, neginf=0.0)
    return policy == "zero"


def finite(g: Tensor) -> bool:
    """Whether every element is finite.

    Example:
        >>> finite(torch.tensor([1.0, float("nan")])), finite(torch.full((4,), 3e38))
        (False, True)
    """
    # A product with itself is the cheapest look at all elements; one that overflows is looked at again.
    if g.is_contiguous() and g.dtype in (torch.float32, torch.float64):
        flat = g.view(-1)
        if math.isfinite(float(torch.dot(flat, flat))):
            return True
    return bool(torch.isfinite(g).all())


def _described(name: str, g: Tensor) -> str:
    count = int((~torch.isfinite(g)).sum())
    shown = name if name.startswith("`") else f"parameter {name}"
    return f"{shown} ({count} of {g.numel()} elements)"
