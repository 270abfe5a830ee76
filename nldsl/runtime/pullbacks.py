"""Formulas of the backward pass that emitted code calls: from the gradient of a result to its arguments'.

All of them run without recording.  `d` is the gradient at the result; every gradient comes out in the shape
of its argument.  Products work on `[*lead, a, b]`, broadcasting where an operand has size 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.activations import silu_bend
from nldsl.runtime.memory import Retention, alive


def summed_to(d: Tensor, like: Tensor) -> Tensor:
    """`d` summed over the axes along which `like` was broadcast.

    >>> summed_to(torch.ones(2, 3), torch.ones(3)).tolist()
    [2.0, 2.0, 2.0]
    """
    if d.shape == like.shape:
        return d
    while d.dim() > like.dim() and d.shape[0] == 1:
        d = d.squeeze(0)
    return d if d.shape == like.shape else d.sum_to_size(like.shape)


def reshaped(d: Tensor, like: Tensor) -> Tensor:
    """`d` in the shape of `like`, whose elements it has in the same order."""
    return d.reshape(like.shape)


def product(left: Tensor, right: Tensor, like: Tensor) -> Tensor:
    """`left @ right`, summed to the leading axes of `like`.

    >>> product(torch.ones(5, 2, 3), torch.ones(5, 3, 2), torch.ones(1, 2, 2)).flatten().tolist()
    [15.0, 15.0, 15.0, 15.0]
    """
    return summed_to(_matmul(left, right), like)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """`total += left @ right`, summed to the leading axes of `total`."""
    if left.shape[:-2] == right.shape[:-2] == total.shape[:-2] and total.is_contiguous():
        total.flatten(0, -3).baddbmm_(left.flatten(0, -3), right.flatten(0, -3))
        return
    total += summed_to(_matmul(left, right), total)


def _matmul(left: Tensor, right: Tensor) -> Tensor:
    if left.dim() < 4 or left.shape[:-2] != right.shape[:-2]:
        return left @ right
    made = torch.bmm(left.flatten(0, -3), right.flatten(0, -3))
    return made.view(*left.shape[:-1], right.shape[-1])


def stacked(parts: Sequence[Tensor | None], whole: Tensor, axis: int) -> Tensor:
    """The gradient of what was taken apart along `axis`; zeros where nothing came back.

    >>> stacked((torch.ones(1), None), torch.ones(2, 1), 0).flatten().tolist()
    [1.0, 0.0]
    """
    d = torch.empty_like(whole, memory_format=torch.contiguous_format)
    for row, part in zip(d.unbind(axis), parts, strict=True):
        if part is None:
            row.zero_()
        else:
            row.copy_(part)
    return d


def silu_back(d: Tensor, x: Tensor) -> Tensor:
    """`d silu'(x)`."""
    made: Tensor = torch.ops.aten.silu_backward(d, x)
    return made


def silu_pullback_back(d: Tensor, grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of `grad silu'(x)`, whose own derivative is `grad s (1 - s) (2 + x (1 - 2 s))`."""
    slope = silu_back(d, x)
    return summed_to(slope, grad), summed_to(silu_bend(d, slope, grad, x), x)


def l2norm_back(d: Tensor, unit: Tensor, x: Tensor, *, eps: float) -> Tensor:
    """Of `unit = x / sqrt(sum(x^2) + eps)`."""
    inverse = torch.rsqrt(torch.linalg.vecdot(x, x).unsqueeze(-1) + eps)
    along = torch.linalg.vecdot(d, unit).unsqueeze(-1)
    return torch.addcmul(d, unit, along, value=-1).mul_(inverse)


def readout_back(d: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of `sum(x * weight) + bias`."""
    wide = d.unsqueeze(-1)
    return summed_to(wide * weight, x), summed_to(wide * x, weight), summed_to(d, bias)


def sigmoid_back(d: Tensor, out: Tensor) -> Tensor:
    """Of `out = sigmoid(x)`."""
    made: Tensor = torch.ops.aten.sigmoid_backward(d, out)
    return made


def logsigmoid_back(d: Tensor, x: Tensor) -> Tensor:
    """Of `log sigmoid(x)`."""
    return d * torch.sigmoid(-x)


def retention_kernel_back(d: Retention, gate: Retention, log_retain: Tensor, valid: Tensor | None) -> Tensor:
    """Of `gate = retention_kernel(log_retain=..., valid=...)`: every entry is `exp` of a difference of sums.

    With `P = d_scores * scores`, the gradient of the running sum is the sum of a row of `P` less that of its
    column, and likewise at both ends.
    """
    assert gate.carried is not None and gate.scores is not None
    assert d.carried is not None and d.scores is not None
    pairs = d.scores * gate.scores
    # Row t of the scores, and entry t of `carried`, stand for the sum in front of token t.
    front = pairs.sum(-1) + d.carried * gate.carried
    end = d.to_end * gate.to_end
    last = d.total * gate.total + end.sum(-1)
    d_sum = torch.cat([front[..., 1:], last.unsqueeze(-1)], -1) - pairs.sum(-2) - end
    d_log = d_sum.flip(-1).cumsum(-1).flip(-1)
    return alive(d_log, valid).view(log_retain.shape)


def together(total: Any, more: Any) -> Any:
    """The sum of two gradients, part by part where the value has parts; `None` is zero.

    >>> one = torch.ones(1)
    >>> together(Retention(one, one), Retention(one, one)).total
    tensor([2.])
    """
    if total is None or more is None:
        return more if total is None else total
    if isinstance(total, tuple):
        return type(total)(*(together(a, b) for a, b in zip(total, more, strict=True)))
    return total + more


def by_differentiation(
    function: Callable[..., Any], d: Any, arguments: Sequence[Any], options: Mapping[str, Any] | None = None
) -> list[Any]:
    """One gradient per argument, then per option: of a function without a formula here, recorded alone.

    >>> by_differentiation(torch.tanh, torch.ones(1), (torch.zeros(1),))
    [tensor([1.])]
    """
    options = options or {}
    given = [_leaf(x) for x in (*arguments, *options.values())]
    named = dict(zip(options, given[len(arguments) :], strict=True))
    with torch.enable_grad():
        found = function(*given[: len(arguments)], **named)
    results = (found,) if isinstance(found, Tensor) else found
    seeds = (d,) if isinstance(found, Tensor) else d or (None,) * len(results)
    flowing = [(r, g) for r, g in zip(results, seeds, strict=True) if g is not None and _asked(r)]
    asked = [leaf for x in given for leaf in (x if isinstance(x, tuple) else (x,)) if _asked(leaf)]
    outputs, flows = [r for r, _ in flowing], [g for _, g in flowing]
    grads = iter(torch.autograd.grad(outputs, asked, flows, allow_unused=True) if outputs else ())
    return [_grad_of(x, grads) for x in given]


def _leaf(x: Any) -> Any:
    """A tensor (or a tuple of tensors, as gates are) to differentiate at."""
    if isinstance(x, tuple):
        return type(x)(*map(_leaf, x)) if hasattr(x, "_fields") else tuple(map(_leaf, x))
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return x
    return x.detach().requires_grad_()


def _asked(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _grad_of(x: Any, grads: Iterator[Tensor | None]) -> Any:
    if isinstance(x, tuple):
        # Unused parts stay `None`: another user of the gate may have a gradient of another form there.
        parts: list[Any] = [next(grads, None) if _asked(part) else _grad_of(part, grads) for part in x]
        return type(x)(*parts) if hasattr(x, "_fields") else tuple(parts)
    if not _asked(x):
        return None
    found = next(grads, None)
    return torch.zeros_like(x) if found is None else found
