"""Linear layers whose weight is trained by a rule that looks at inputs: one fused product in the backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any
from weakref import WeakSet

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nldsl.runtime.first_order import first_order
from nldsl.runtime.precision import in_half
from nldsl.runtime.rule_kernel import refusal

ATTRIBUTE = "rule_rows"


class Passed:
    """The rows of one forward pass, alive as long as somebody may go back through it; none when one has."""

    def __init__(self, rows: int) -> None:
        self.rows = rows


class Rows:
    """What one weight does at its layer: counts rows on the way forward, pulls them on the way back.

    `function(x, y, dy, *arguments)` gives what takes the place of `dy` in `dy^T x` in two parts: what is a
    sum over rows, to be divided by their number (`None` if there is nothing), and what already is a mean.
    `arguments` gives the open numbers of the rule as they are now.
    """

    def __init__(
        self,
        function: Callable[..., tuple[Tensor | None, Tensor]],
        arguments: Callable[[], Sequence[float]],
        name: str = "a weight",
    ) -> None:
        self.function, self.arguments, self.name = function, arguments, name
        self.settled = 0
        self.passes = WeakSet[Passed]()
        self.pulled = False
        self.ever = False
        """Whether a backward pass has come through the layer at all."""
        self.processes = 1
        """How many of them have as many rows in this step; a row is a share of all."""
        self.several = False
        """Whether forward and backward passes of one step alternate: sums are kept, to be divided anew."""
        self.sums: Tensor | None = None
        self.divided = 0
        self.erases = False
        """Whether a part of what is pulled does not scale with the loss."""

    def forget(self) -> None:
        """After a step: the next rows are counted afresh."""
        self.settled, self.pulled, self.sums, self.divided = 0, False, None, 0

    @property
    def count(self) -> int:
        """Rows of the step: those that were pulled, and those of passes that may still be.

        A pass whose results are gone, as one that only looked at a loss, has no part in the step.
        """
        return self.settled + sum(one.rows for one in self.passes)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """`weight @ x (+ bias)` whose gradient at `weight` is that of the rule."""
        # Inside of `torch.func` gradients go elsewhere than to `weight.grad`.
        elsewhere = torch._C._are_functorch_transforms_active()
        if elsewhere or not torch.is_grad_enabled() or not weight.requires_grad:
            return F.linear(x, weight, bias)
        one = Passed(0)
        if not _computed_again():
            if self.pulled and weight.grad is None:
                self.forget()
            one.rows = x.numel() // x.shape[-1]
            self.passes.add(one)
        y: Tensor = _RowProduct.apply(x, weight, self, one)  # type: ignore[no-untyped-call]
        return y if bias is None else y + bias.to(y.dtype)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Copies and pickles of a weight have no rows: what they are worth is known to one optimizer."""
        return _none, ()

    def require_seen(self, weight: Tensor) -> None:
        """Raise NL0974 for a gradient of `weight` that has never come through its layer."""
        if not self.ever and weight.grad is not None and bool(weight.grad.any()):
            raise refusal(
                "NL0974",
                f"the gradient of {self.name} did not come through its layer, whose inputs the rule looks at",
                "call the layer itself, not a function with its weight (as `nn.MultiheadAttention` does with "
                "`out_proj`), or give the weight to another rule",
            )

    def again(self, x: Tensor, y: Tensor, before: Tensor, dy: Tensor) -> Tensor:
        """What a further pass over rows adds: `dy` is now what `before` was, and more."""
        given = self._arguments(x)
        (_, old), (_, new) = self.function(x, y, before, *given), self.function(x, y, dy, *given)
        return (new - old).mT @ x

    def _arguments(self, x: Tensor) -> list[Tensor]:
        return [torch.tensor(float(v), dtype=x.dtype, device=x.device) for v in self.arguments()]

    def gradient(self, x: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        """The effective gradient of the weight; rows `[N, in]`, `[N, out]`, `[N, out]`."""
        given = self._arguments(x)
        summed, mean = self.function(x, y, dy, *given)
        total = max(self.count * self.processes, 1)  # a batch without rows
        self.erases = summed is not None
        if self.pulled and self.divided != total and not self.several and summed is not None:
            raise refusal(
                "NL0975",
                f"{self.name} sees rows behind a backward pass, which has divided by the rows before",
                "let all forward passes of a step come first, or set `optimizer.several_passes = True`",
            )
        self.pulled, before, self.divided, self.ever = True, self.divided, total, True
        if summed is None:
            return mean.mT @ x
        if not self.several:
            return (summed * (1 / total) + mean).mT @ x
        now = summed.mT @ x
        found = (mean.mT @ x).add_(now, alpha=1 / total)
        if self.sums is None:
            self.sums = now
        else:
            found.add_(self.sums, alpha=1 / total - 1 / before)
            self.sums.add_(now)
        return found


class _RowProduct(torch.autograd.Function):
    """`y = x W^T`; backward: `dx = dy W`, and the rows of the rule in place of `dy` in `dy^T x`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rows: Rows, one: Passed) -> Tensor:
        y = F.linear(x, weight)
        ctx.save_for_backward(x, weight, y)
        ctx.rows, ctx.one, ctx.before = rows, one, None
        return y

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight, y = ctx.saved_tensors
        dy = grads[0]
        # Under `autocast` a product is of another type than what goes in.
        dx = (dy @ weight.to(dy.dtype)).to(x.dtype) if ctx.needs_input_grad[0] else None
        if not _gathers(weight):
            return dx, None, None, None
        x, y, dy = (t.flatten(0, -2).to(x.dtype) for t in (x, y, dy))
        if ctx.before is None:
            ctx.rows.settled, ctx.one.rows = ctx.rows.settled + ctx.one.rows, 0
            dw = ctx.rows.gradient(x, y, dy)
        else:
            # Rows stay the same rows when a later loss asks for more of them (`carry = "exact"`).
            dy = ctx.before + dy
            dw = ctx.rows.again(x, y, ctx.before, dy)
        ctx.before = dy
        return dx, dw.to(weight.dtype), None, None


def _computed_again() -> bool:
    """Whether `torch.utils.checkpoint` (not reentrant) repeats a forward pass, whose rows are counted."""
    inside = torch._C._current_graph_task_id() != -1
    return inside and torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def _gathers(weight: Tensor) -> bool:
    """Whether this pass asks for the gradient of `weight`: those of inner problems count no rows."""
    try:
        return bool(torch._C._will_engine_execute_node(torch.autograd.graph.get_gradient_edge(weight).node))
    except RuntimeError:  # `autograd.grad` with respect to the weight itself
        return True


def attach(module: nn.Module | None, weight: Tensor, rows: Rows) -> None:
    """Let `weight` be used through `rows`: by emitted models as they are, by `nn.Linear` from now on."""
    setattr(weight, ATTRIBUTE, rows)
    if module is not None:
        object.__setattr__(module, "forward", MethodType(forward, module))


def forward(self: nn.Linear, input: Tensor) -> Tensor:  # noqa: A002
    """`nn.Linear.forward` through the rows of its weight.

    A method of the layer: that of a copy belongs to the copy, and a pickle finds the one of the class.
    """
    if input.ndim == 1:  # one row
        return rows_linear(input.unsqueeze(0), self.weight, self.bias).squeeze(0)
    return rows_linear(input, self.weight, self.bias)


def multiplies(layer: nn.Module) -> bool:
    """Whether a layer is `W x + b` as `nn.Linear` has it: neither its class nor anybody else has changed it.

    >>> multiplies(nn.Linear(2, 2)), multiplies(nn.Tanh())
    (True, False)
    """
    own = vars(layer).get("forward", layer.forward)
    return isinstance(layer, nn.Linear) and getattr(own, "__func__", own) in (forward, nn.Linear.forward)


def _none() -> None:
    return None


def rows_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, or what the rule of the weight makes of it."""
    rows: Rows | None = getattr(weight, ATTRIBUTE, None)
    if rows is not None and x.ndim < 2:  # a value of no token: the gradient is taken as it is
        rows.ever, rows = True, None
    if rows is None:
        return in_half(F.linear, x, weight, bias)
    return rows.linear(x, weight, bias)
