"""A chunk step whose backward pass is code of its own: what is dear is kept, the rest is computed again.

The emitted step `f` of a chunk has a twin `f_back`, which computes what it needs of the step again and then
the gradients, by formulas (`pullbacks`), without recording anything.  Between the two stand the arguments of
the step and the triangular inverses of its writes.  Both run over a few samples at a time: their intermediate
results then stay in the cache, which costs less than what computing them again does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.first_order import first_order
from nldsl.runtime.precision import chosen, restored

CACHE = 2**21
"""Bytes of the largest argument of the samples that are worked on together on a CPU."""


class WholeStep(ABC):
    """What may stand in the place of an emitted step: all samples at once, and a way back of its own.

    `plain` is the step in whose place it stands, as it was emitted.
    """

    plain: Callable[..., Any]

    @abstractmethod
    def pair(
        self,
        arguments: Sequence[Tensor | None],
        parameters: Sequence[Tensor],
        shared: Sequence[int],
        recorded: bool,
        spare: bool,
    ) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
        """The step and its backward pass, called as emitted ones are; `None`: `plain` is to be taken.

        `recorded`: whether there will be a way back; `spare`: whether memory matters more than time.
        """


def chunk_step(
    step: Callable[..., Any] | WholeStep,
    back: Callable[..., Any],
    arguments: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    shared: Sequence[int] = (),
    *,
    always: bool = False,
    compiled: bool = True,
) -> Any:
    """`step(*arguments)`, with `back(*arguments, kept, *d_results)` for its gradients.

    `step(*arguments, kept)` leaves in the list what `back` finds there.  `back` returns one gradient per
    argument but the last (`valid`), then one per parameter.  `shared`: places of the arguments without a
    batch axis.  A step that is not compiled is recorded unless `always`: that keeps six times as much and is
    a sixth faster, call by call; compiled, the two take the same time.  `compiled = False`: `back` calls what
    torch does not compile.  A `WholeStep` in the place of the step says itself what it takes.  Second
    derivatives are refused (NL0977).

    >>> step = lambda x, valid, kept=None: (3 * x,)
    >>> x = torch.ones(2, 1, requires_grad=True)
    >>> (y,) = chunk_step(step, lambda x, valid, kept, dy: (3 * dy,), (x, None), (), always=True)
    >>> torch.autograd.grad(y.sum(), x)[0].flatten().tolist()
    [3.0, 3.0]
    """
    given = [*arguments, *parameters]
    recorded = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given)
    apart, whole = torch.compiler.is_compiling(), None
    if isinstance(step, WholeStep):
        whole = None if apart else step.pair(arguments, parameters, shared, recorded, always)
        step = step.plain if whole is None else whole[0]
    if not recorded or apart or not (whole or always or (compiled and is_compiled(step))):
        return step(*arguments)
    call = _Call(step, back if whole is None else whole[1], len(arguments), frozenset(shared))
    call.whole = whole is not None
    found = _ChunkStep.apply(call, *given)  # type: ignore[no-untyped-call]
    return found if call.many else found[0]


def is_compiled(step: Callable[..., Any]) -> bool:
    """Whether `torch.compile` has wrapped a step.

    >>> is_compiled(torch.nn.functional.silu)
    False
    """
    return hasattr(step, "_torchdynamo_orig_callable")


def largest(tensors: Sequence[Tensor | None]) -> int:
    """Bytes of the largest tensor.

    >>> largest([torch.ones(2, 3), None])
    24
    """
    return max((x.numel() * x.element_size() for x in tensors if x is not None), default=0)


class _Call:
    """What is not a tensor of one call."""

    def __init__(
        self, step: Callable[..., Any], back: Callable[..., Any], count: int, shared: frozenset[int]
    ) -> None:
        self.step, self.back, self.count, self.shared = step, back, count, shared
        self.many, self.whole = True, False
        self.parts: list[slice] = []
        self.kind = chosen()
        self.places: list[list[bool]] = []
        """Which writes of a part keep one."""

    def split(self, arguments: Sequence[Tensor | None]) -> list[slice]:
        """Samples that are worked on together."""
        batched = [x for i, x in enumerate(arguments) if x is not None and i not in self.shared]
        batch = batched[0].shape[0]
        if self.whole or batched[0].device.type != "cpu" or not batch:
            return [slice(0, batch)]
        width = max(1, CACHE // max(1, largest(batched) // batch))
        return [slice(start, min(start + width, batch)) for start in range(0, batch, width)]

    def at(self, part: slice, arguments: Sequence[Tensor | None]) -> Iterator[Tensor | None]:
        """The arguments of some samples."""
        for i, x in enumerate(arguments):
            yield x if x is None or i in self.shared else x[part]


class _ChunkStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *given: Tensor | None) -> tuple[Tensor, ...]:
        arguments, kept = given[: call.count], []
        call.parts, results = call.split(arguments), []
        for part in call.parts:
            inverses: list[Tensor | None] = []
            found = call.step(*call.at(part, arguments), inverses)
            call.many = isinstance(found, tuple)
            results.append(found if call.many else (found,))
            call.places.append([x is not None for x in inverses])
            kept += [x for x in inverses if x is not None]
        ctx.call = call
        ctx.save_for_backward(*given, *kept)
        return tuple(_joined(list(column)) for column in zip(*results, strict=True))

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        call, saved = ctx.call, ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:]
        arguments, kept = saved[: call.count], iter(saved[len(wanted) :])
        columns: list[list[Tensor | None]] = [[] for _ in range(len(wanted) - 1)]
        for part, places in zip(call.parts, call.places, strict=True):
            inverses = [next(kept) if held else None for held in places]
            with restored(call.kind):
                flows = call.back(*call.at(part, arguments), inverses, *(g[part] for g in grads))
            for column, flow in zip(columns, flows, strict=True):
                column.append(flow)
        # `valid`, the last argument, has no gradient.
        columns.insert(call.count - 1, [None])
        found = []
        for i, (column, asked) in enumerate(zip(columns, wanted, strict=True)):
            known = [x for x in column if x is not None] if asked else []
            whole = i >= call.count or i in call.shared
            found.append(None if not known else _summed(known) if whole else _joined(known))
        return None, *found


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _summed(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
