"""A saved state that is put back into an optimizer: of its rule, in its types, where memories lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nldsl.runtime.rule_groups import GATHERED
from nldsl.runtime.rule_kernel import refusal
from nldsl.runtime.rule_room import apart
from nldsl.runtime.rule_states import shape_of

if TYPE_CHECKING:
    from nldsl.runtime.rule_optimizer import RuleOptimizer

Wanted = Mapping[Tensor, Mapping[str, Tensor]]
"""The state of every weight before it is loaded."""


def require_rule(optimizer: RuleOptimizer, wanted: Wanted, group: dict[str, Any]) -> None:
    """Raise NL0969 for a loaded group without the arguments of the rule, or weights without its memories."""
    said = f"the saved state is of another rule than `{optimizer.rule}`"
    missing = [f"`{n}`" for n in (*optimizer.arguments, "every") if n not in group]
    if missing:
        raise refusal("NL0969", f"{said}: a group lacks {', '.join(missing)}")
    if name := optimizer.cycled.changed(group):
        raise refusal("NL0969", f"{said}: `{name}` is {group[name]}, here {optimizer.fixed[name]}")
    optimizer.cycled.begin(group, optimizer.cycled.word in group)
    for p in group["params"]:
        found = optimizer.state.get(p, {})
        # The clock of a group is restored with it, so what it gathers need not have been there.
        shapes = _shapes(optimizer, p)
        different = (set(found) ^ (set(wanted[p]) | set(shapes))) - set(GATHERED)
        if different:
            raise refusal("NL0969", f"{said}: {', '.join(f'`{n}`' for n in sorted(different))}")
        for name, shape in shapes.items():
            value = found.get(name)
            counted = name not in found or (shape == () and isinstance(value, int | float))
            if not counted and (not isinstance(value, Tensor) or value.shape != shape):
                kind = list(value.shape) if isinstance(value, Tensor) else f"`{value!r}`"
                what = f"`{name}` of {optimizer.name_of(p)} is {kind}"
                said = f"the saved state is of other weights: {what}, expected {list(shape)}"
                raise refusal("NL0969", said)


def _shapes(optimizer: RuleOptimizer, p: Tensor) -> dict[str, tuple[int, ...]]:
    """What the state of a weight holds; whatever else a user keeps there is left to torch."""
    kernel = optimizer.kernel_of(p)
    gathered: dict[str, tuple[int, ...]] = {n: tuple(p.shape) if n == "gathered" else () for n in GATHERED}
    return {"step": (), **gathered, **{m.name: shape_of(kernel, m, p) for m in kernel.memories}}


def put_back(optimizer: RuleOptimizer, saved: Mapping[str, Any], wanted: Wanted) -> None:
    """The saved values in the types that the state had.

    torch gives everything the type of the weight, and bfloat16 cannot count beyond 256.
    """
    numbers = (number for group in saved["param_groups"] for number in group["params"])
    room = optimizer._room(list(wanted))
    for p, number in zip(wanted, numbers, strict=True):
        places = [m.name for m in optimizer.kernel_of(p).memories]
        count = torch.tensor(0.0, dtype=torch.float32)
        for name, value in saved["state"][number].items():
            if name not in _shapes(optimizer, p):
                continue
            like = wanted[p].get(name, p if name in ("gathered", *places) else count)
            like = like if isinstance(like, Tensor) else count
            value = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
            made = value.detach().to(like.device, like.dtype, copy=True)
            if name in places:
                made = room.put(made, p, apart(places.index(name), len(places)))
            optimizer.state[p][name] = made
