"""Which numbers kept for the way back are made again from others: what is made element by element.

Writing and reading a number that lies outside of the cache takes longer than a sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from nldsl.native.formulas import BINARY, UNARY
from nldsl.native.graph import UnsupportedError
from nldsl.native.trace import traced

aten = torch.ops.aten
SAME = (aten.view, aten._unsafe_view, aten.clone, aten.alias, aten.detach)
"""The same numbers."""
ALIKE = {*UNARY, *BINARY, aten.add, aten.sub, aten.rsub, aten.silu}
"""Operations of numbers at one place."""


class Remade(NamedTuple):
    """`recipes`: for places among what is kept how the numbers there follow from those at other places."""

    recipes: dict[int, Callable[[Sequence[Tensor]], Tensor]]

    def without(self, kept: Sequence[Any]) -> list[Any]:
        """What is left of all that is kept."""
        return [x for n, x in enumerate(kept) if n not in self.recipes]

    def whole(self, left: Sequence[Tensor]) -> list[Tensor]:
        """All that was to be kept."""
        rest, found = iter(left), list[Any]()
        for n in range(len(left) + len(self.recipes)):
            found.append(None if n in self.recipes else next(rest))
        for n, recipe in self.recipes.items():
            found[n] = recipe(found)
        return found


NOTHING = Remade({})


def remade(keeps: Callable[..., Sequence[Tensor]], given: Sequence[Tensor | None]) -> Remade:
    """What of all that a function keeps can be left out.

    >>> def keeps(x, W):
    ...     a = x @ W
    ...     return a, a * torch.sigmoid(a), a @ W
    >>> found = remade(keeps, (torch.ones(3, 2), torch.ones(2, 2)))
    >>> list(found.recipes), [x.tolist() for x in found.whole([torch.zeros(1), torch.ones(1)])]
    ([1], [[0.0], [0.0], [1.0]])
    """
    try:
        graph = traced(keeps, given)
    except UnsupportedError:
        return NOTHING
    (made,) = next(iter(reversed(graph.graph.nodes))).args
    assert isinstance(made, (list, tuple))
    nodes = [_plain(node) for node in made]
    first = {node: n for n, node in reversed(list(enumerate(nodes)))}
    recipes: dict[int, Callable[[Sequence[Tensor]], Tensor]] = {}
    for n, node in enumerate(nodes):
        steps = _steps(
            node, {other: m for other, m in first.items() if m not in recipes and other is not node}
        )
        if steps and first[node] == n and not _leads_back(nodes, recipes, node):
            recipes[n] = _Recipe(steps, first)
    return Remade(recipes)


def _leads_back(nodes: list[fx.Node], recipes: dict[int, Any], node: fx.Node) -> bool:
    """Whether a recipe found before takes this number from where it is kept."""
    steps = (step for recipe in recipes.values() for step in recipe.steps)
    return any(node in map(_plain, step.all_input_nodes) for step in steps)


def _plain(made: Any) -> fx.Node:
    """What first had these numbers in this shape: others are made of numbers place by place."""
    assert isinstance(made, fx.Node)
    node: Any = made
    found = made
    while node.op == "call_function" and getattr(node.target, "overloadpacket", None) in SAME:
        node = node.args[0]
        if node.meta["val"].shape == made.meta["val"].shape:
            found = node
    return found


def _steps(node: fx.Node, kept: dict[fx.Node, int]) -> list[fx.Node]:
    """The operations that make a number from kept ones of its shape, none if there are none."""
    if node.op != "call_function" or getattr(node.target, "overloadpacket", None) not in ALIKE:
        return []
    found: list[fx.Node] = []
    for given in map(_plain, node.all_input_nodes):
        if given.meta["val"].shape != node.meta["val"].shape:
            return []
        if given in kept:
            continue
        more = _steps(given, kept)
        if not more:
            return []
        found += [step for step in more if step not in found]
    return [*found, node]


class _Recipe:
    def __init__(self, steps: list[fx.Node], places: dict[fx.Node, int]) -> None:
        self.steps, self.places = steps, places

    def __call__(self, kept: Sequence[Tensor]) -> Tensor:
        made: dict[fx.Node, Tensor] = {}

        def value(node: fx.Node) -> Tensor:
            plain = _plain(node)
            return made[plain] if plain in made else kept[self.places[plain]]

        for step in self.steps:
            given: Any = fx.map_arg((step.args, step.kwargs), value)
            target: Any = step.target
            made[step] = target(*given[0], **given[1])
        return made[self.steps[-1]]
