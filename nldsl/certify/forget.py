"""A state in which some memories have forgotten what they learned, and nothing else has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nldsl.certify.align import Place
from nldsl.runtime.state import State


def entry(state: State, place: Place) -> Any:
    """What a state holds for one place."""
    tree = state.tree
    for key in place.keys:
        tree = tree[key]
    return tree


def forgotten(state: State, fresh: State, places: Sequence[Place]) -> State:
    """`state` with what these memories hold as before the first token (`fresh`); their clocks go on.

    A memory that began its count anew would share no chunk with those beside it.
    """
    found = state.clone()
    for place in places:
        old, new = entry(found, place), entry(fresh, place)
        if place.kind == "task":
            new = {**old, "delta": new["delta"]}
        elif place.kind == "memory":
            new = {**new, "count": old["count"]}
        tree = found.tree
        for key in place.keys[:-1]:
            tree = tree[key]
        tree[place.keys[-1]] = new
    return found
