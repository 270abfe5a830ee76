"""What a compiled program is given: shapes and kinds, compared before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.module import Module
from nldsl.runtime.state import State

TRACED = "NL0978"
TRANSFORMED = "NL0979"
NO_RULE = ("setup_context", "the jvp function", "data pointer of Tensor that doesn't have storage")
"""What torch says where a function with a pass back of its own is transformed."""
INDICES = (torch.int64, torch.int32)
"""Types in which torch takes numbers of tokens."""


class Taken(NamedTuple):
    """An input of a program: `[B, T, *shape]`, of whole numbers if it holds tokens or labels."""

    name: str
    shape: tuple[int, ...]
    whole: bool


def check_inputs(
    program: str,
    inputs: Sequence[Any],
    mask: Any,
    taken: Sequence[Taken] = (),
    *,
    state: object = None,
    like: Tensor | None = None,
) -> None:
    """Compare what is given with what is taken; without `taken`, only what holds of every program.

    Looks at types and shapes, never at numbers.  `like` has the type and the device of the parameters.

    Errors: `ValueError` with what was found and what was expected, `RuntimeError` under `torch.jit.trace`.

    >>> check_inputs("mixer", [torch.zeros(3, 8)], None, [Taken("x", (8,), False)])
    Traceback (most recent call last):
    ValueError: `x` of `mixer` is [3, 8], expected [batch, tokens, 8]
    """
    _check_trace(program)
    if not inputs or (taken and len(inputs) != len(taken)):
        names = ", ".join(f"`{one.name}`" for one in taken)
        raise ValueError(
            f"`{program}` takes {names or 'an input'} in front of the state, found {len(inputs)} tensors"
        )
    for place, x in enumerate(inputs):
        _check(program, x, taken[place] if taken else None)
        if like is not None and taken:
            _check_kind(program, x, taken[place], like)
    batch, tokens = inputs[0].shape[:2]
    for x in inputs[1:]:
        if x.shape[:2] != (batch, tokens):
            raise ValueError(
                f"the inputs of `{program}` are {list(inputs[0].shape)} and {list(x.shape)}, expected equal "
                "batch and tokens"
            )
    given = mask if mask is None or isinstance(mask, Tensor) else type(mask).__name__
    if isinstance(given, str) or (
        given is not None and (given.shape != (batch, tokens) or given.dtype != torch.bool)
    ):
        found = given if isinstance(given, str) else f"{list(given.shape)} of {given.dtype}"
        raise ValueError(
            f"the mask of `{program}` is {found}, expected [{batch}, {tokens}] of torch.bool, true at real "
            "tokens"
        )
    if state is not None and not isinstance(state, State):
        raise ValueError(
            f"the state of `{program}` is {type(state).__name__}, expected what an earlier call returned, or "
            "`init_state(batch)`"
        )


def _check_trace(program: str) -> None:
    if torch._C._get_tracing_state() is not None:
        raise RuntimeError(
            f"{TRACED}: `torch.jit.trace` would make constants of the lengths and counts of this call of "
            f"`{program}`: use `torch.compile`, `torch.export` or `nldsl export`"
        )


def check_batch(batch: object) -> None:
    """Errors: `ValueError` unless `batch` is a number of sequences."""
    if isinstance(batch, bool) or not isinstance(batch, int | torch.SymInt) or batch < 0:
        raise ValueError(f"`batch` is {batch!r}, expected a number of sequences")


@contextmanager
def tokens_in_range(module: Module, program: str, inputs: Sequence[Tensor]) -> Iterator[None]:
    """Say which tokens are out of range where torch says only that some index is.

    Errors: `ValueError` for them; any other `IndexError` as it is.  `RuntimeError` (NL0979) for transforms.
    """
    try:
        yield
    except IndexError as wrong:
        roles = module.parameter_roles()
        size = min(
            (p.shape[0] for n, p in module.parameter_paths().items() if roles[n] == "embedding"), default=0
        )
        for x in inputs:
            if size and x.dtype in INDICES and x.numel():
                least, most = int(x.min()), int(x.max())
                if least < 0 or most >= size:
                    found = least if least < 0 else most
                    raise ValueError(
                        f"a token of `{program}` is {found}, expected 0 to {size - 1}"
                    ) from wrong
        raise
    except RuntimeError as wrong:
        if any(said in str(wrong) for said in NO_RULE):
            raise RuntimeError(
                f"{TRANSFORMED}: passes of `{program}` have no rule for `torch.func` and forward derivatives"
                ": call samples one by one and take gradients by `torch.autograd.grad`, or `functional_call`"
            ) from wrong
        raise


def _check_kind(program: str, x: Tensor, one: Taken, like: Tensor) -> None:
    """Whether an input has the type and is on the device of the parameters."""
    if one.whole and x.dtype not in INDICES:
        raise ValueError(
            f"`{one.name}` of `{program}` are {x.dtype}, expected whole numbers (torch.long): "
            f"`{one.name}.long()`"
        )
    if not one.whole and x.dtype != like.dtype:
        raise ValueError(
            f"`{one.name}` of `{program}` is {x.dtype}, expected {like.dtype} as the parameters are: "
            f"`{one.name}.to({like.dtype})`"
        )
    if x.device != like.device:
        raise ValueError(
            f"`{one.name}` of `{program}` is on {x.device}, expected {like.device}: the parameters"
        )


def _check(program: str, x: Any, one: Taken | None) -> None:
    if not isinstance(x, Tensor):
        name = "an input" if one is None else f"`{one.name}`"
        raise ValueError(f"{name} of `{program}` is of type {type(x).__name__}, expected a tensor")
    if one is None:
        if x.dim() < 2:
            raise ValueError(f"an input of `{program}` is {list(x.shape)}, expected [batch, tokens, ...]")
        return
    if x.dim() < 2 or tuple(x.shape[2:]) != one.shape:
        expected = ", ".join(["batch", "tokens", *map(str, one.shape)])
        raise ValueError(f"`{one.name}` of `{program}` is {list(x.shape)}, expected [{expected}]")
    if one.whole and x.is_floating_point():
        raise ValueError(f"`{one.name}` of `{program}` are {x.dtype}, expected whole numbers (torch.long)")
