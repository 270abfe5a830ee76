"""One draw of sizes, lengths, splits and masks, and what it is called when a property does not hold in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nldsl.certify.compare import Finding

_MOST = 1_000_000


@dataclass(frozen=True)
class Case:
    """One draw: sizes, which short clocks, parameters and inputs by their seed, and how they are called.

    `cuts` are the ends of the calls; `masked` the (sequence, token) that are padding.
    """

    tokens: int = 1
    batch: int = 1
    seed: int = 0
    clocks: int = 0
    cuts: tuple[int, ...] = ()
    masked: tuple[tuple[int, int], ...] = ()
    arguments: tuple[tuple[str, Any], ...] = ()

    def text(self) -> str:
        """The case in words."""
        parts = [f"{name} = {value}" for name, value in self.arguments]
        parts += [f"{self.tokens} {'token' if self.tokens == 1 else 'tokens'}", f"{self.batch} in the batch"]
        parts += [f"calls that end at {', '.join(map(str, self.cuts))}"] if len(self.cuts) > 1 else []
        parts += [f"{len(self.masked)} masked"] if self.masked else []
        return ", ".join([*parts, f"clocks {self.clocks}", f"seed {self.seed}"])

    def to_json(self) -> dict[str, Any]:
        """The case as data for JSON."""
        return asdict(self) | {"arguments": dict(self.arguments)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Case:
        """The case that `to_json` wrote.

        Errors: `TypeError`, `ValueError` for anything else.

        Example:
            >>> Case.from_json(Case(3, cuts=(1, 3)).to_json()) == Case(3, cuts=(1, 3))
            True
        """
        given = dict(data)
        given["cuts"] = tuple(int(n) for n in given.get("cuts", ()))
        given["masked"] = tuple((int(b), int(t)) for b, t in given.get("masked", ()))
        given["arguments"] = tuple(sorted(dict(given.get("arguments", {})).items()))
        for name, least in (("tokens", 1), ("batch", 1), ("seed", 0), ("clocks", 0)):
            value = given.get(name, least)
            if type(value) is not int or not least <= value <= _MOST:
                raise ValueError(f"`{name}` is a whole number from {least} on, found {value!r}")
        return cls(**given)


class FailedError(AssertionError):
    """A property does not hold: which one, in which case, and what was found."""

    def __init__(self, name: str, case: Case, finding: Finding, note: str = "") -> None:
        told = note or f"{finding.where}: {finding.error:.1e} apart, {finding.bound:.0e} allowed"
        super().__init__(f"{name}: {told} ({case.text()})")
        self.name, self.case, self.finding, self.note, self.told = name, case, finding, note, told

    @property
    def kind(self) -> str:
        """A difference, or the type of what was raised: a smaller program must fail in the same way."""
        return self.note.partition(":")[0]


class UnfitError(Exception):
    """The sizes of a case do not make a program."""
