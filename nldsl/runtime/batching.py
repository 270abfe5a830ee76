"""States of several sequences put side by side, and taken apart again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.runtime.state import State, StateMismatchError, map_tree

_CACHE = {"keys", "values", "valid"}
_UNDER_WAY = "open"
"""Variables of segments under way: a state that was cut loose from its history has none."""


def take(state: State, rows: Sequence[int]) -> State:
    """The sequences `rows` of a state, in that order, without their history.

    >>> both = State({"root": {"S": {"count": torch.tensor([3, 5])}}})
    >>> take(both, [1]).tree["root"]["S"]["count"].tolist()
    [5]
    """
    index = torch.tensor(list(rows), dtype=torch.int64)
    tree = map_tree(lambda x: x.detach()[index.to(x.device)], _closed(state.tree))
    return State(tree, program=state.program)


def join(states: Sequence[State]) -> State:
    """The sequences of several states of one program side by side.

    Attention caches of different lengths are filled up in front; what one state has not begun to learn is
    zero.  Errors: `StateMismatchError` for states of different programs, `ValueError` for none.

    >>> one, two = (State({"root": {"S": {"count": torch.tensor([n])}}}) for n in (3, 5))
    >>> join([one, two]).tree["root"]["S"]["count"].tolist()
    [3, 5]
    """
    if not states:
        raise ValueError("expected at least one state")
    for other in states[1:]:
        if other.program != states[0].program:
            raise StateMismatchError(
                f"a state of `{other.program}` cannot stand beside one of `{states[0].program}`"
            )
    sizes = [_batch(state.tree) for state in states]
    return State(_joined([_closed(s.tree) for s in states], sizes), program=states[0].program)


def _batch(tree: Any) -> int:
    found = next(iter(State(tree).tensors().values()), None)
    return 1 if found is None else found.shape[0]


def _closed(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _closed(value) for key, value in tree.items() if key != _UNDER_WAY}
    return [_closed(value) for value in tree] if isinstance(tree, list) else tree


def _joined(parts: list[Any], sizes: list[int]) -> Any:
    if all(part is None for part in parts):
        return None
    known = next(part for part in parts if part is not None)
    if isinstance(known, Tensor):
        rows = [
            known.new_zeros(n, *known.shape[1:]) if part is None else part.detach()
            for part, n in zip(parts, sizes, strict=True)
        ]
        return torch.cat(rows)
    if isinstance(known, list):
        return [_joined([_at(part, i) for part in parts], sizes) for i in range(len(known))]
    if set(known) >= _CACHE:
        rest = {name for name in known if name not in _CACHE}
        return _caches(parts) | {name: _joined([_at(part, name) for part in parts], sizes) for name in rest}
    names = dict.fromkeys(name for part in parts if part is not None for name in part)
    return {name: _joined([_at(part, name) for part in parts], sizes) for name in names}


def _at(part: Any, key: Any) -> Any:
    if part is None:
        return None
    return part.get(key) if isinstance(part, dict) else part[key]


def _caches(parts: list[dict[str, Tensor | None]]) -> dict[str, Tensor | None]:
    """Caches side by side, the newest pair last in each."""
    keys = [part["keys"] for part in parts]
    longest = max(k.shape[1] for k in keys if k is not None)
    made: dict[str, Tensor | None] = {}
    for name in ("keys", "values"):
        found = [part[name] for part in parts]
        made[name] = torch.cat(
            [F.pad(x.detach(), (0, 0, 0, 0, longest - x.shape[1], 0)) for x in found if x is not None]
        )
    flags = []
    for part in parts:
        k, valid = part["keys"], part["valid"]
        assert k is not None
        seen = torch.ones(k.shape[:2], dtype=torch.bool, device=k.device) if valid is None else valid
        flags.append(F.pad(seen, (longest - k.shape[1], 0), value=False))
    together = torch.cat(flags)
    made["valid"] = None if bool(together.all()) else together
    return made
