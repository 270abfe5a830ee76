"""Threads that share one lane, where there are too few lanes for all of them.

Products are shared by columns or rows, loops by their outermost axis, sums by parts: a number is
made by one thread as it would be by one alone, so that results do not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from nldsl.native.graph import Product
from nldsl.native.nests import Nest
from nldsl.native.schedule import Stage

MANY = 2**21
"""Products of two numbers in a product of matrices that threads share: it takes longer than to call them."""
LONG = 2**15
"""Places of a loop that threads share."""
PART = 2**13
"""Places whose sum one thread makes."""
TEAM = "num_threads(nl_team) if(parallel: nl_team > 1)"
"""What stands at a loop that threads share."""


def many(product: Product) -> bool:
    """Whether threads share a product."""
    return prod(product.a.shape[-2:]) * product.b.shape[-1] >= MANY


def shares(stages: Sequence[Stage | Nest]) -> bool:
    """Whether threads share a lane: most of what it multiplies is in products that are long enough."""
    found = [0, 0]
    for stage in stages:
        inner, count = (stage.stages, stage.count) if isinstance(stage, Nest) else ([stage], 1)
        for product in inner:
            if isinstance(product, Product):
                found[many(product)] += count * prod(product.a.shape) * product.b.shape[-1]
    return found[True] > found[False]
