"""What stands in the state of a weight, before a step uses it: users write there, and give weights shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.rule_kernel import Kernel, Memory, refusal
from nldsl.runtime.rule_shards import divided_alike

AFRESH = "`optimizer.state[weight].clear()` lets a weight start afresh at the next step"


def emptied(kernel: Kernel, state: Mapping[str, Any]) -> bool:
    """Whether nothing of the rule is left, as behind `optimizer.state.clear()`: the weight starts afresh."""
    return "step" not in state and not any(m.name in state for m in kernel.memories)


def require_state(kernel: Kernel, p: Tensor, state: dict[str, Any], name: str) -> None:
    """Raise NL0969 for a memory that is not there or not of its weight; a count of any type is put right.

    A loop in C would read and write beyond the end of a memory that is too small.
    """
    for memory in kernel.memories:
        value, shape = state.get(memory.name), shape_of(kernel, memory, p)
        if not isinstance(value, Tensor):
            raise _refused(memory.name, name, f"`{value!r}`" if value is not None else "missing", shape)
        if value.shape != shape:
            raise _refused(memory.name, name, str(list(value.shape)), shape)
        if memory.shape is None and not divided_alike(value, p):
            raise refusal(
                "NL0969",
                f"`{memory.name}` in the state of {name} is not divided among processes as the weight is",
                "`torch.distributed.checkpoint.state_dict.set_optimizer_state_dict` divides a whole state",
            )
        if value.device != p.device:
            raise refusal(
                "NL0969",
                f"`{memory.name}` in the state of {name} is on {value.device}, the weight on {p.device}",
                "move a model before its optimizer is made",
            )
        if value.is_neg():  # lists of torch do not write into what is only marked as negative
            state[memory.name] = value.resolve_neg()
    count = state.get("step")
    if isinstance(count, Tensor) and count.numel() == 1:
        usual = type(count) is Tensor and count.is_cpu and count.dtype == torch.float32
        if not usual or count.is_inference() or count.is_neg():
            state["step"] = torch.tensor(float(count), dtype=torch.float32)
    elif isinstance(count, int | float):
        state["step"] = torch.tensor(float(count), dtype=torch.float32)
    else:
        raise refusal("NL0969", f"`step` in the state of {name} is `{count!r}`, expected a number", AFRESH)


def shape_of(kernel: Kernel, memory: Memory, p: Tensor) -> tuple[int, ...]:
    """The shape of a memory of `p`; of one that is not as large as its weight, one for every matrix."""
    if memory.shape is None:
        return tuple(p.shape)
    return (*p.shape[:1], *memory.shape) if stacked(kernel, p) else memory.shape


def stacked(kernel: Kernel, p: Tensor) -> bool:
    """Whether `p` is a stack of matrices, each with memories of its own."""
    return p.ndim == 3 and kernel.form == "matrix"


def _refused(memory: str, name: str, found: str, shape: tuple[int, ...]) -> Exception:
    message = f"`{memory}` in the state of {name} is {found}, expected a tensor {list(shape)}"
    return refusal("NL0969", message, AFRESH)
