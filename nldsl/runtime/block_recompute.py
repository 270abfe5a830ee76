"""Blocks that are computed again in the backward pass: a block saves what it is given only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from nldsl.runtime.first_order import first_order
from nldsl.runtime.kept_rows import KeptWeight, Rows
from nldsl.runtime.module import Module
from nldsl.runtime.precision import chosen, restored


def recompute_blocks(root: Module) -> tuple[str, ...]:
    """Let every copy of a repeated block (or every block that `root` calls) be computed again; their paths.

    Doing so twice does nothing more.
    Values, states and gradients stay what they are, to the last bit where the second pass is the first one
    again; second derivatives are refused by torch.

    >>> recompute_blocks(Module())
    ()
    """
    attached = root._attached
    chosen_paths = [path for path in attached if path.endswith("]")] or list(attached)
    for path in chosen_paths:
        if not hasattr(attached[path].forward, "again"):
            recompute_again(attached[path])
    return tuple(chosen_paths)


def recompute_again(block: Module) -> None:
    """Let a block with a forward pass that is not computed again yet be."""
    object.__setattr__(block, "forward", _again(block, block.forward))


def _again(block: Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments)
        leaves, tree = pytree.tree_flatten(arguments)
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        call = _Call(forward, leaves, tree)
        given = call.variables(tensors)
        parameters = [p for p in block.parameters() if p.requires_grad]
        found = _Block.apply(call, len(given), *given, *parameters)  # type: ignore[no-untyped-call]
        return call.results(tensors, found)

    run.again = forward  # type: ignore[attr-defined]  # by which it is known
    return run


class _Call:
    """What is not a tensor of one call, and the form of its arguments and results."""

    def __init__(self, forward: Callable[..., Any], leaves: list[Any], tree: Any) -> None:
        self.forward, self.tree = forward, tree
        self.leaves = [None if isinstance(x, Tensor) else x for x in leaves]
        self.places = [i for i, x in enumerate(leaves) if isinstance(x, Tensor)]
        self.kind = chosen()
        self.kept = [(i, x.rows) for i, x in enumerate(filter(_is_tensor, leaves)) if type(x) is KeptWeight]
        """Weights of task memories, whose gradients go to those who keep their rows."""
        self.shared = [rows.shared for _, rows in self.kept]
        self.out_leaves: list[Any] = []
        self.out_tree: Any = None
        self.passed: dict[int, int] = {}
        """Results that are arguments, handed on untouched: which one."""

    def variables(self, tensors: list[Tensor]) -> list[Tensor]:
        """What is differentiated by: the arguments, variables in place of weights whose rows are kept."""
        given = list(tensors)
        for place, rows in self.kept:
            given[place] = rows.leaf
        return given

    def again(self, given: list[Tensor]) -> list[Tensor]:
        """The second run, on variables of its own."""
        with _standing_for(self.kept, self.shared, given):
            return self.run(given)

    def run(self, given: list[Tensor]) -> list[Tensor]:
        """The tensors among the results that were made here."""
        leaves, tensors = list(self.leaves), given[: len(self.places)]
        for place, rows in self.kept:
            tensors[place] = rows.weight()
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        found, self.out_tree = pytree.tree_flatten(self.forward(*pytree.tree_unflatten(leaves, self.tree)))
        self.out_leaves = [None if isinstance(x, Tensor) else x for x in found]
        number = {id(x): i for i, x in enumerate(tensors)}
        self.passed = {i: number[id(x)] for i, x in enumerate(found) if id(x) in number}
        self.out_places = [i for i, x in enumerate(found) if isinstance(x, Tensor) and i not in self.passed]
        return [found[i] for i in self.out_places]

    def results(self, given: list[Tensor], tensors: tuple[Tensor, ...]) -> Any:
        """The results in their form; what was handed on untouched is what was given."""
        leaves = list(self.out_leaves)
        for place, index in self.passed.items():
            leaves[place] = given[index]
        for place, tensor in zip(self.out_places, tensors, strict=True):
            leaves[place] = tensor
        return pytree.tree_unflatten(leaves, self.out_tree)


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


@contextmanager
def _standing_for(
    kept: list[tuple[int, Rows]], shared: list[Tensor | None], given: list[Tensor]
) -> Iterator[None]:
    """Inside, weights whose rows are kept are what they were in the first run, and the variables `given`."""
    before = [(rows, rows.leaf, rows.shared) for _, rows in kept]
    for (place, rows), values in zip(kept, shared, strict=True):
        rows.leaf, rows.shared = given[place], values
    try:
        yield
    finally:
        for rows, leaf, values in before:
            rows.leaf, rows.shared = leaf, values


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.call, ctx.count = call, count
        ctx.save_for_backward(*tensors)
        found = call.run(list(tensors[:count]))
        ctx.mark_non_differentiable(*(x for x in found if not x.is_floating_point()))
        return tuple(found)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[2:]
        arguments = [
            x.detach().requires_grad_(w)
            for x, w in zip(tensors[: ctx.count], wanted[: ctx.count], strict=True)
        ]
        with torch.enable_grad(), restored(ctx.call.kind):
            results = ctx.call.again(arguments)
        flowing = [(r, g) for r, g in zip(results, grads, strict=True) if g is not None and r.requires_grad]
        sources = [*arguments, *tensors[ctx.count :]]
        asked = [x for x, w in zip(sources, wanted, strict=True) if w]
        outputs, seeds = [r for r, _ in flowing], [g for _, g in flowing]
        found = iter(torch.autograd.grad(outputs, asked, seeds, allow_unused=True) if outputs else ())
        return None, None, *(next(found, None) if w else None for w in wanted)
