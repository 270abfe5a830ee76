"""What a compiled program is given: shapes and kinds, compared before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Taken(NamedTuple):
    """An input of a program: `[B, T, *shape]`, of whole numbers if it holds tokens or labels."""

    name: str
    shape: tuple[int, ...]
    whole: bool


def check_inputs(
    program: str, inputs: Sequence[Tensor], mask: Tensor | None, taken: Sequence[Taken] = ()
) -> None:
    """Compare what is given with what is taken; without `taken`, only what holds of every program.

    Errors: `ValueError` with both shapes.

    >>> check_inputs("mixer", [torch.zeros(3, 8)], None, [Taken("x", (8,), False)])
    Traceback (most recent call last):
    ValueError: `x` of `mixer` is [3, 8], expected [batch, tokens, 8]
    """
    if not inputs or (taken and len(inputs) != len(taken)):
        names = ", ".join(f"`{one.name}`" for one in taken)
        raise ValueError(
            f"`{program}` takes {names or 'an input'} in front of the state, found {len(inputs)} tensors"
        )
    for place, x in enumerate(inputs):
        _check(program, x, taken[place] if taken else None)
    batch, tokens = inputs[0].shape[:2]
    for x in inputs[1:]:
        if x.shape[:2] != (batch, tokens):
            raise ValueError(
                f"the inputs of `{program}` are {list(inputs[0].shape)} and {list(x.shape)}, expected equal "
                "batch and tokens"
            )
    if mask is not None and (mask.shape != (batch, tokens) or mask.dtype != torch.bool):
        raise ValueError(
            f"the mask of `{program}` is {list(mask.shape)} of {mask.dtype}, expected [{batch}, {tokens}] of "
            "torch.bool, true at real tokens"
        )


def _check(program: str, x: Tensor, one: Taken | None) -> None:
    if one is None:
        if x.dim() < 2:
            raise ValueError(f"an input of `{program}` is {list(x.shape)}, expected [batch, tokens, ...]")
        return
    if x.dim() < 2 or tuple(x.shape[2:]) != one.shape:
        expected = ", ".join(["batch", "tokens", *map(str, one.shape)])
        raise ValueError(f"`{one.name}` of `{program}` is {list(x.shape)}, expected [{expected}]")
    if one.whole and x.is_floating_point():
        raise ValueError(f"`{one.name}` of `{program}` are {x.dtype}, expected whole numbers (torch.long)")
