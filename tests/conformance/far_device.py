"""A second device for machines that have only one: tensors that claim to be elsewhere.

`far_device()` is a mode in which the device `meta` computes: a tensor on it wraps one on the CPU.
As on a real accelerator, an operation on tensors of both devices is an error (numbers without axes may come
from the CPU, copies may cross), and so is reading the memory of a far tensor from outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

NAME = "meta"
"""What the far device is called; torch's own use of the name is overlaid while the mode is active."""
CROSSING = {"aten::_to_copy", "aten::copy_", "aten::_copy_from"}


class MixedDevicesError(RuntimeError):
    """An operation met tensors of two devices."""


class Far(Tensor):
    """A tensor on the far device; `near` holds its numbers."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        self = Tensor._make_wrapper_subclass(
            cls,
            near.size(),
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=NAME,
        )
        self.near = near
        return self

    def __repr__(self, **_: Any) -> str:
        return f"Far({self.near})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with _Dispatch():
            return function(*args, **(kwargs or {}))


@contextmanager
def far_device() -> Iterator[None]:
    """Inside, `device="meta"` holds numbers."""
    with (
        patch("torch.tensor", _from_data(torch.tensor)),
        patch("torch.as_tensor", _from_data(torch.as_tensor)),
        _Dispatch(),
    ):
        yield


def _from_data(make: Any) -> Any:
    """Torch makes tensors of Python numbers past the dispatcher."""

    def made(data: Any, *, device: Any = None, dtype: Any = None) -> Tensor:
        if torch.device(device or "cpu").type != NAME:
            return make(data, device=device, dtype=dtype)
        return data.to(NAME, dtype) if isinstance(data, Tensor) else Far(make(data, dtype=dtype))

    return made


class _Dispatch(TorchDispatchMode):
    """Every operation, on the tensors inside."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        near: list[Tensor] = []
        far: list[Tensor] = []

        def opened(x: Any) -> Any:
            if isinstance(x, Far):
                far.append(x)
                return x.near
            if isinstance(x, Tensor):
                near.append(x)
            return x

        inner, options = tree_map(opened, (args, dict(kwargs or {})))
        name = function._schema.name
        there = bool(far)
        if options.get("device") is not None:
            there = torch.device(options["device"]).type == NAME
            options["device"] = torch.device("cpu")
        apart = [x for x in near if x.dim()] if far and name not in CROSSING else []
        if apart:
            raise MixedDevicesError(f"{name}: {[tuple(x.shape) for x in apart]} on the CPU, the rest far")
        made = function(*inner, **options)
        if name == "aten::copy_":
            return args[0]
        return tree_map(_sent, made) if there else made


def _sent(x: Any) -> Any:
    return Far(x) if isinstance(x, Tensor) and not isinstance(x, Far) else x
