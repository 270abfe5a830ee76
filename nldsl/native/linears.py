"""Linear layers whose products are made in C, where that is faster than by torch (`c/linears.h`).

Which machines these are is asked of the compiler and the processor, never timed: what a run computes does
not depend on what else the machine does.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from inspect import unwrap
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from nldsl.native.kernels import linears_text
from nldsl.native.store import empty_like_rows
from nldsl.runtime.c_calls import call, traced
from nldsl.runtime.each_gradient import each_gradient
from nldsl.runtime.module import Module
from nldsl.runtime.native import REAL, Step, built
from nldsl.runtime.precision import as_given, chosen
from nldsl.runtime.rule_rows import ATTRIBUTE

NAMES = ("linear", "head")
"""The names under which the files of emitted modules have what they call."""
LEAST = 1 << 19
"""Multiplications from which on a call of C is worth it."""
FEWEST = 256
"""Rows of every thread from which on."""
THIN = 4
"""Inputs or outputs from which on."""
ROWS, INPUTS, WEIGHTS, FASTER, SEVERAL = range(5)
"""The functions in C."""
_PLAIN = (Tensor, Parameter)


class _Limits(threading.local):
    """What a product needs to be made in C, in this thread."""

    least, fewest, thin = LEAST, FEWEST, THIN


_limits = _Limits()


@contextmanager
def every_product() -> Iterator[None]:
    """Inside, in this thread, small products are made in C too: what is to be proved of large ones is cheap.

    >>> with every_product():
    ...     ready(torch.ones(2, 3), torch.ones(1, 3)) is products(torch.float32)
    True
    """
    before = _limits.least, _limits.fewest, _limits.thin
    _limits.least, _limits.fewest, _limits.thin = 1, 0, 1
    try:
        yield
    finally:
        _limits.least, _limits.fewest, _limits.thin = before


def linears_of(block: type[Module]) -> list[str]:
    """What a class of blocks calls for its linear layers."""
    forward: Any = unwrap(block.forward)
    # A part of the module, or a function of torch, may have one of the names.
    names = set(forward.__code__.co_names) & set(forward.__globals__)
    return [name for name in NAMES if name in names]


class Linears:
    """`function(x, weight, bias)`, which is `x weight^T + bias`, with large products in C."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.shapes: set[tuple[int, int]] = set()
        """Of the weights whose products have been in C."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """As `runtime.values.linear`."""
        step = ready(x, weight, bias)
        if step is None:
            return self.function(x, weight, *(() if bias is None else (bias,)))
        self.shapes.add((weight.shape[0], weight.shape[1]))
        if not torch.is_grad_enabled():
            return rows(step, x, weight, bias)
        y: Tensor = _Linear.apply(x, weight, bias, step)  # type: ignore[no-untyped-call]
        return y


def ready(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Step | None:
    """The functions in C, if they take such rows `x [..., K]` and a weight `[N, K]`."""
    if weight.shape[0] < _limits.thin:
        return None
    step = worth(x, weight.shape[0])
    return step if step is not None and fits(x, weight, bias) else None


def fits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether these are an ordinary value and an ordinary layer; `worth` asks what call it is."""
    kind = x.dtype
    for t in (x, weight) if bias is None else (x, weight, bias):
        if not _plain(t, kind):
            return False
    alike = weight.dim() == 2 and x.dim() > 1 and x.shape[-1] == weight.shape[1]
    return alike and kind in REAL and getattr(weight, ATTRIBUTE, None) is None


def taken(*tensors: Tensor | None) -> bool:
    """Whether gradients, the first of them, and what was kept for them are ordinary values of one type."""
    first = tensors[0]
    return first is not None and _ordinary() and all(t is None or _plain(t, first.dtype) for t in tensors)


def _plain(t: Tensor, kind: torch.dtype) -> bool:
    return type(t) in _PLAIN and t.dtype == kind and t.is_cpu and not t.is_neg()


def _ordinary() -> bool:
    return not traced() and chosen() is None and not torch.is_autocast_enabled("cpu")


def worth(x: Tensor, outputs: int) -> Step | None:
    """The functions in C, if products of rows `x [..., K]` with so many `outputs` are large enough."""
    if not _ordinary() or not x.is_cpu or x.dtype not in REAL:
        return None
    inner, count = x.shape[-1], x.numel()
    few = count < inner * _limits.fewest * torch.get_num_threads() or count * outputs < _limits.least
    return None if few or inner < _limits.thin else products(x.dtype)


@cache
def products(dtype: torch.dtype) -> Step | None:
    """The functions in C for numbers of a type, where they are faster than torch's and agree with them."""
    step = built(linears_text(), REAL[dtype])
    if isinstance(step, str) or not faster(step):
        return None
    made = torch.Generator().manual_seed(0)
    x, w, b, dy = (
        torch.randn(s, generator=made, dtype=dtype, device="cpu") for s in ((7, 67), (70, 67), (70,), (7, 70))
    )
    found = (rows(step, x, w, b), inputs(step, dy, w), weights(step, dy, x))
    right = zip(found, (x @ w.mT + b, dy @ w, dy.mT @ x), strict=True)
    return step if all(torch.allclose(a, c, rtol=1e-4, atol=1e-4) for a, c in right) else None


def faster(step: Step) -> bool:
    """Whether this is a machine on which they are faster."""
    return bool(step(FASTER, (ctypes.c_long * 4)(), None, None, 1))


class Product(NamedTuple):
    """A call of one of the functions; who has it keeps the arrays till it is made."""

    what: int
    sizes: tuple[int, int, int, int]
    arrays: tuple[Tensor | None, ...]

    def made(self, step: Step) -> None:
        """Make it."""
        call(step, self.what, self.sizes, self.arrays)


def several(step: Step, products: Sequence[Product]) -> None:
    """Make products one behind the other, in one call."""
    sizes, arrays = [len(products)], list[Tensor | None]()
    for one in products:
        sizes += (one.what, *one.sizes)
        arrays += one.arrays
    call(step, SEVERAL, sizes, arrays)


def rows_of(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Product]:
    """Room for `rows`, and the product."""
    y = empty_like_rows(x, weight.shape[0])
    plain = None if bias is None else bias.contiguous()
    return y, _product(ROWS, y, weight, (x.contiguous(), weight.contiguous(), y, plain))


def inputs_of(dy: Tensor, weight: Tensor, into: Tensor | None = None) -> tuple[Tensor, Product]:
    """Room for `inputs`, and the product."""
    dx, more = empty_like_rows(dy, weight.shape[1]) if into is None else into, into is not None
    return dx, _product(INPUTS, dy, weight, (dy.contiguous(), weight.contiguous(), dx, None), more)


def weights_of(dy: Tensor, x: Tensor) -> tuple[Tensor, Product]:
    """Room for `weights`, and the product."""
    dw = x.new_empty(dy.shape[-1], x.shape[-1])
    return dw, _product(WEIGHTS, dy, dw, (dy.contiguous(), x.contiguous(), dw, None))


def rows(step: Step, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x weight^T + bias` for rows `x [..., K]`, a weight `[N, K]` and a bias `[N]`."""
    y, product = rows_of(x, weight, bias)
    product.made(step)
    return y


def inputs(step: Step, dy: Tensor, weight: Tensor, into: Tensor | None = None) -> Tensor:
    """`dy weight` for rows `dy [..., N]`, added `into` what is there."""
    dx, product = inputs_of(dy, weight, into)
    product.made(step)
    return dx


def weights(step: Step, dy: Tensor, x: Tensor) -> Tensor:
    """`dy^T x` for rows `dy [..., N]` and `x [..., K]`."""
    dw, product = weights_of(dy, x)
    product.made(step)
    return dw


def _product(
    what: int, y: Tensor, weight: Tensor, arrays: tuple[Tensor | None, ...], more: bool = False
) -> Product:
    outputs, inner = weight.shape
    return Product(what, (y.numel() // y.shape[-1], outputs, inner, int(more)), arrays)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, step: Step) -> Tensor:
        # A frozen weight asks for no rows, rows that ask for nothing need no weight.
        to_x, to_weight, *_ = ctx.needs_input_grad
        ctx.save_for_backward(x if to_weight else None, weight if to_x else None)
        ctx.step = step
        return rows(step, x, weight, bias)

    @staticmethod
    @each_gradient
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (dy,) = grads
        to_x, to_weight, to_bias, _ = ctx.needs_input_grad
        with as_given(dy.device):
            db = dy.flatten(0, -2).sum(0) if to_bias else None
            if torch.is_grad_enabled() or not taken(dy, x, weight):
                dx = dy @ weight if to_x else None
                return dx, dy.flatten(0, -2).mT @ x.flatten(0, -2) if to_weight else None, db, None
            dx = inputs(ctx.step, dy, weight) if to_x else None
            return dx, weights(ctx.step, dy, x) if to_weight else None, db, None
