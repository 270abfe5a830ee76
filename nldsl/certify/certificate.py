"""The certificate: what was compared, on what, and how it came out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nldsl.certify.render import render

SCHEMA = 1


@dataclass(frozen=True)
class CheckResult:
    """One check on one set of clocks: its worst comparison, relative to what is allowed.

    `error` is `None` where nothing finite can be said (other shapes, not a number, an exception);
    `where` names the comparison, `note` what was raised or why it was left out.
    """

    name: str
    passed: bool
    cases: int
    error: float | None
    bound: float
    where: str = ""
    note: str = ""


@dataclass(frozen=True)
class Lowering:
    """How the memories of a class are computed, and why."""

    block: str
    memories: str
    lowering: str
    reason: str


@dataclass(frozen=True)
class Growth:
    """float32 against float64, both compiled: relative error of the outputs of the last tokens."""

    tokens: int
    error: float | None


@dataclass(frozen=True)
class Difference:
    """The first place where the compiled program leaves the interpreter.

    `token` and `memory` (path), or an output, with `level` and `part`; `calls` says how the compiled
    program was called: `prefixes` (each length in one call) or `token by token`.
    """

    token: int
    memory: str
    level: str
    part: str
    error: float | None
    calls: str

    def __str__(self) -> str:
        level = f" ({self.level})" if self.level else ""
        return f"first difference: token {self.token}, `{self.memory}`{level}, {self.part} ({self.calls})"


@dataclass(frozen=True)
class Section:
    """Everything compared on one set of clocks; `copies` says how often a `repeat` runs at most."""

    name: str
    clocks: tuple[tuple[int, int], ...]
    task_clocks: tuple[tuple[int, int], ...]
    copies: int
    tokens: int
    lengths: tuple[int, ...]
    diverges: int | None
    lowerings: tuple[Lowering, ...]
    checks: tuple[CheckResult, ...]
    growth: tuple[Growth, ...] = ()
    difference: Difference | None = None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check did."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True)
class Certificate:
    """The result of `verify`.

    `sources` are (file, sha256) of every text that took part, `program` the sha256 of the elaborated
    program, `shrunk` what was made smaller and how, `seed` what inputs and parameters were drawn from.
    """

    spec: str
    kind: str
    nldsl: str
    torch: str
    sources: tuple[tuple[str, str], ...]
    program: str
    arguments: tuple[tuple[str, Any], ...]
    shrunk: tuple[str, ...]
    seed: int
    full: bool
    bounds: tuple[tuple[str, float], ...]
    sections: tuple[Section, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every section did."""
        return all(section.passed for section in self.sections)

    @property
    def difference(self) -> Difference | None:
        """The first place where compiled form and interpreter part, if they do."""
        return next((s.difference for s in self.sections if s.difference is not None), None)

    def failures(self) -> list[CheckResult]:
        """The checks that failed."""
        return [check for section in self.sections for check in section.checks if not check.passed]

    def text(self) -> str:
        """The certificate for people: a table per section, then the verdict."""
        return render(self)

    def to_json(self) -> dict[str, Any]:
        """The certificate as data for JSON: no number in it is infinite."""
        data = asdict(self)
        for name in ("sources", "arguments", "bounds"):
            data[name] = dict(data[name])
        for section, plain in zip(self.sections, data["sections"], strict=True):
            plain |= {
                "passed": section.passed,
                "clocks": _named(section.clocks),
                "task_clocks": _named(section.task_clocks),
            }
        return {"schema": SCHEMA, "passed": self.passed, **data}


def _named(clocks: tuple[tuple[int, int], ...]) -> dict[str, int]:
    """JSON has no numbers as keys."""
    return {str(old): new for old, new in clocks}
