"""What schedulers that cycle a momentum call arguments of a rule: `betas`, or `momentum`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

from nldsl.runtime.rule_kernel import refusal

SCHEDULED = frozenset({"initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum"})
"""What schedulers keep in a group for themselves."""
CYCLED = (("betas", ("beta1", "beta2")), ("momentum", ("beta",)))
"""What schedulers that cycle a momentum look for, and the arguments it stands for."""


class Cycled:
    """`betas`, or `momentum`, in the groups of a rule that has `beta1` and `beta2`, or `beta`.

    Both names are one number: whichever was changed since the last step tells the other; if both were, it is
    the schedulers' name that counts.  A `momentum` that decides the code stands in the groups too: schedulers
    that look for it find it, and what they write there is refused at the next step.
    """

    def __init__(self, arguments: Collection[str], fixed: Mapping[str, Any]) -> None:
        taken = {*arguments, *fixed}
        found = [c for c in CYCLED if set(c[1]) <= set(arguments) and not {c[0], "momentum"} & taken]
        self.word: str = found[0][0] if found else ""
        self.own: tuple[str, ...] = found[0][1] if found else ()
        self.told: dict[int, tuple[float, ...]] = {}
        self.stands = {"momentum": fixed["momentum"]} if "momentum" in fixed else {}
        self.words = {self.word, *self.stands}

    def default(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The entry of a group with these arguments."""
        return {self.word: self._said([values[n] for n in self.own])} if self.own else self.stands

    def changed(self, group: Mapping[str, Any]) -> str:
        """What decides the code and is another in this group; empty if there is nothing."""
        return next((n for n, value in self.stands.items() if group.get(n, value) != value), "")

    def begin(self, group: MutableMapping[str, Any], said: bool) -> None:
        """Note a new group; `said` is whether somebody wrote the schedulers' name into it."""
        if not self.own:
            return
        if said:
            self._take(group)
        else:
            group.update(self.default(group))
        self.told[id(group)] = self._numbers(group)

    def follow(self, group: MutableMapping[str, Any]) -> None:
        """Bring what was changed since the last step to both names."""
        if not self.own:
            return
        now = self._numbers(group)
        if self.word not in group or self._heard(group) == self.told.get(id(group)):
            group.update(self.default(group))
        elif self._heard(group) != now:
            self._take(group)
        self.told[id(group)] = self._numbers(group)

    def _take(self, group: MutableMapping[str, Any]) -> None:
        heard = self._heard(group)
        if len(heard) != len(self.own):
            names = " and ".join(f"`{n}`" for n in self.own)
            raise refusal("NL0968", f"`{self.word}` stands for {names}, found {len(heard)} numbers")
        group.update(zip(self.own, heard, strict=True))

    def _heard(self, group: Mapping[str, Any]) -> tuple[float, ...]:
        value = group[self.word]
        return tuple(_number(self.word, v) for v in (value if isinstance(value, tuple | list) else (value,)))

    def _numbers(self, group: Mapping[str, Any]) -> tuple[float, ...]:
        return tuple(_number(n, group[n]) for n in self.own)

    def _said(self, values: list[Any]) -> Any:
        return tuple(values) if len(values) > 1 else values[0]


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise refusal("NL0968", f"`{name}` of a group is a number, found `{value!r}`") from None
