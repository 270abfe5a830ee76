"""The ablations of a model: rows of a table of the paper, each a specification of the library."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from nldsl.graph import open_program
from nldsl.graph.places import all_parameters
from nldsl.spec.loader import standard_library
from nldsl.spec.program import Program
from nldsl.view.diff import Change, Difference, diff_programs


@dataclass(frozen=True)
class Row:
    """One row of the table: what is taken away, and the specification that does it (empty if none does).

    `perplexity` and `accuracy` are the paper's; `note` says how the row is read.
    """

    title: str
    spec: str
    perplexity: float
    accuracy: float
    note: str = ""


TABLES: dict[str, tuple[Row, ...]] = {
    "hope": (
        Row("Hope", "hope", 12.24, 58.1),
        Row("without DGD", "hope_without_dgd", 13.41, 56.5),
        Row(
            "without momentum",
            "hope",
            13.58,
            56.9,
            "Eq. 88 has no momentum, so `hope` is this row (reading P8); the last row has one",
        ),
        Row("without weight decay", "hope_without_decay", 13.71, 57.2),
        Row("without CMS", "hope_without_cms", 13.04, 57.3),
        Row("without inner projection k", "hope_without_inner_key", 13.77, 56.9),
        Row("without inner projection v", "hope_without_inner_value", 13.90, 55.1),
        Row(
            "without inner projection q",
            "hope",
            12.19,
            57.4,
            "q is static by Sec. 8, so `hope` is this row (reading P7); the row below has the projection",
        ),
        Row("with inner projection q", "hope_with_inner_query", 12.24, 58.1, "the first row, read literally"),
        Row("with momentum", "hope_with_momentum", 12.24, 58.1, "the first row, read literally"),
    ),
}
"""By the model they belong to; for `hope` Table 6 of the paper, with its perplexity and accuracy."""


@dataclass(frozen=True)
class Ablation:
    """A row with what it changes, computed by comparing the specifications."""

    row: Row
    parameters: int | None
    difference: Difference | None

    @property
    def summary(self) -> tuple[str, ...]:
        """The changes in short: memories that came, went or have another rule, and lines."""
        return tuple(_summary(self.difference)) if self.difference is not None else ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        changes = self.difference.to_json()["changes"] if self.difference is not None else []
        return {
            **asdict(self.row),
            "parameters": self.parameters,
            "summary": self.summary,
            "changes": changes,
        }


def ablations(name: str, **arguments: Any) -> tuple[Ablation, ...]:
    """The ablations of the model `name`, each compared with it; `arguments` are bound in all of them.

    Raises:
        KeyError: there is no table for `name`.
        SpecError: a specification has errors.
    """
    base = open_program(name, **arguments)
    found = []
    for row in TABLES[name]:
        if not row.spec:
            found.append(Ablation(row, None, None))
            continue
        program = base if row.spec == name else open_program(row.spec, **arguments)
        difference = diff_programs(base, program)
        found.append(Ablation(row, _count(program), difference))
    return tuple(found)


def _count(program: Program) -> int:
    return sum(prod(p.shape) for _, p in all_parameters(program))


def source_of(spec: str) -> tuple[str, str]:
    """(file name, text) of the library specification `spec`.

    Raises:
        KeyError: the library has no model of that name.
    """
    path: Path = standard_library().index["model", spec]
    return path.name, path.read_text(encoding="utf-8")


def _summary(difference: Difference) -> list[str]:
    lines: list[str] = []
    for sign, word in (("-", "without"), ("+", "with")):
        names = [c.name for c in difference.of("memory") if c.sign == sign]
        if names:
            lines.append(f"{word} {', '.join(names)}")
    rules: dict[tuple[str, str, str], list[str]] = {}
    for c in difference.of("memory"):
        if c.sign == "~" and c.what in ("rule", "retention", "along a key"):
            rules.setdefault((c.what, _short(c.what, c.before), _short(c.what, c.after)), []).append(c.name)
    lines += [
        f"{what} of {', '.join(names)}: {before or 'none'} -> {after or 'none'}"
        for (what, before, after), names in rules.items()
    ]
    lines += [_computed(c) for c in difference.of("block") if c.what == "computes" and not _is_write(c)]
    return lines


def _short(what: str, text: str) -> str:
    return text.partition("(")[0] if what == "rule" else text


def _is_write(change: Change) -> bool:
    """Lines of writes are told by what they do to the memories."""
    return any(
        "<-" in text or "write " in text or "minimizes" in text for text in (change.before, change.after)
    )


def _computed(change: Change) -> str:
    return " -> ".join(text for text in (change.before, change.after) if text)
