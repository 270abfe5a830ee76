"""What the library holds, read from its files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nldsl.assets import specs_folder
from nldsl.spec.loader import standard_library

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("models", "blocks", "maps", "objectives", "rules", "ablations")
"""The order of the library; folders that are new come behind, by name."""


@dataclass(frozen=True)
class Spec:
    """One file of the library: what it defines, and what its comment says."""

    path: Path
    names: tuple[tuple[str, str], ...]
    text: str

    @property
    def place(self) -> str:
        """`models/hope.nl`."""
        return self.path.relative_to(specs_folder()).as_posix()

    @property
    def folder(self) -> str:
        return self.place.partition("/")[0]

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def page(self) -> str:
        """Where its page stands, relative to the documentation."""
        return f"library/{Path(self.place).with_suffix('.md').as_posix()}"

    @property
    def main(self) -> tuple[str, str]:
        """(kind, name) of what a file is about: its namesake, else the last of its models or blocks."""
        named = [n for n in self.names if n[1] == self.stem]
        order = ("model", "block", "rule", "map", "objective")
        return min(named or reversed(self.names), key=lambda n: order.index(n[0]))

    @property
    def comment(self) -> tuple[str, ...]:
        """The lines of the comment at the top."""
        lines = []
        for line in self.text.splitlines():
            if not line.startswith("#"):
                break
            lines.append(line.removeprefix("#").strip())
        return tuple(lines)

    @property
    def title(self) -> str:
        """The first line of the comment; the name if there is none."""
        return self.comment[0] if self.comment else self.stem


@cache
def specs() -> tuple[Spec, ...]:
    """Every file of the library, in the order of the folders."""
    names: dict[Path, list[tuple[str, str]]] = {}
    for key, path in standard_library().index.items():
        names.setdefault(path, []).append(key)
    found = [Spec(path, tuple(keys), path.read_text(encoding="utf-8")) for path, keys in names.items()]
    return tuple(sorted(found, key=lambda s: (rank(s.folder), s.folder, s.place)))


def rank(folder: str) -> int:
    """Where a folder stands in the navigation."""
    return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)


def homes() -> dict[tuple[str, str], Spec]:
    """(kind, name) -> the file that defines it."""
    return {key: spec for spec in specs() for key in spec.names}


_EQUATIONS = re.compile(r"\bEqs?\. ?(\d+(?:\s*(?:-|,|and|to)\s*\d+)*)")
_OTHERS = re.compile(r"\b(Table|Algorithm|Alg\.|Sec\.) ?(\d+(?:\.\d+)*)")
_ARXIV = re.compile(r"\barXiv \d{4}\.\d{5}\b")
_READINGS = re.compile(r"\bP(\d{1,2})(?:-P?(\d{1,2}))?\b")
_PARTS = re.compile(r";|\.\s+(?=[A-Z])|, and (?=Eq\.)")
_AUTHORS = (
    re.compile(r"((?:von )?[A-Z][\w'-]+ et al\.) \((\d{4})"),
    re.compile(r"((?:[A-Z][\w'-]+(?:, | and | ))*[A-Z][\w'-]+) \((\d{4})"),
)


@dataclass(frozen=True)
class Citation:
    """What a comment cites of one source: the paper itself (no name), or one of another author."""

    source: str
    equations: tuple[int, ...]
    others: tuple[str, ...]


def citations(text: str) -> Iterator[Citation]:
    """What a comment cites, source by source: a name with a year holds up to the next `;` or full stop.

    Of others a paper as a whole, by its number at arXiv, where no place in it is named.

    Example:
        >>> for found in citations("Paper: Eq. 65, 70-71 and Table 6; Hu et al. (2025), Eq. 8-9: S' = S."):
        ...     print(found)
        Citation(source='', equations=(65, 70, 71), others=('Table 6',))
        Citation(source='Hu et al. (2025)', equations=(8, 9), others=())
    """
    for part in _PARTS.split(" ".join(text.split())):
        cited = tuple(n for run in _EQUATIONS.findall(part) for n in _numbers(run))
        others = tuple(f"{'Algorithm' if w == 'Alg.' else w} {n}" for w, n in _OTHERS.findall(part))
        source = _source(part)
        if source and not (cited or others):
            others = tuple(_ARXIV.findall(part))
        if cited or others:
            yield Citation(source, cited, others)


def _source(part: str) -> str:
    named = next((m for m in (p.search(part) for p in _AUTHORS) if m), None)
    return f"{named[1]} ({named[2]})" if named else ""


def _numbers(cited: str) -> Iterator[int]:
    for part in re.split(r",|and", cited):
        ends = [int(n) for n in re.findall(r"\d+", part)]
        if ends:
            yield from range(ends[0], ends[-1] + 1)


def readings(text: str) -> Iterator[int]:
    """The numbers of the readings that a comment names: `P1-P3` are three.

    Example:
        >>> list(readings("Readings P1-P3 and P22"))
        [1, 2, 3, 22]
    """
    for first, last in _READINGS.findall(text):
        yield from range(int(first), int(last or first) + 1)


def comments(text: str) -> str:
    """Every comment of a text, joined."""
    return "\n".join(line.partition("#")[2] for line in text.splitlines() if "#" in line)
