"""What stands in the box of a problem, broken into lines that fit; and how tall boxes are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from nldsl.graph import Problem
from nldsl.view.measure import fit, width, wrap

PAD, LINE, FINE = 12.0, 15.0, 10.5
"""Room at the sides, distance of lines, and size of the fine print."""

LEAST, MOST = 136.0, 188.0
"""How narrow and how wide a box may be."""

LEAST_SLOW = 160.0
"""The same for slow parameters: from afar their number stands in the box, as large as other names."""

_NAME, _LONG_NAME = 13.5, 12.0


@dataclass(frozen=True)
class BoxText:
    """The lines of a box from the top; `badge` stands to the right of the name."""

    name: tuple[str, ...]
    size: float
    badge: str
    lines: tuple[str, ...]

    @property
    def height(self) -> float:
        """How tall a box must be to hold it."""
        return 19 + LINE * (len(self.name) + len(self.lines))


def box_lines(problem: Problem) -> tuple[str, str]:
    """The two lines below a problem's name, uncut: what it is, and how it learns."""
    if problem.kind == "slow parameters":
        return f"{problem.parameters:,} numbers", problem.rule or "trained from outside"
    if problem.kind == "optimiser memory":
        return problem.context.removeprefix("the "), problem.rule
    return f"{problem.map} · {problem.objective or 'set directly'}", problem.rule or "no rule"


def box_text(problem: Problem, wide: float) -> BoxText:
    """The text of a problem's box that is `wide` pixels wide."""
    room = wide - 2 * PAD
    what, rule = box_lines(problem)
    if problem.kind == "slow parameters":
        # With arguments where there is room; the panel of the page has them in any case.
        if width(rule, FINE, mono=True) > room:
            rule = re.sub(r"\([^()]*\)", "", rule)
        short = width(problem.name, _NAME) <= room
        size = _NAME if short else _LONG_NAME
        name = (problem.name,) if short else tuple(wrap(problem.name, size, room, 2))
        return BoxText(name, size, "", (what, fit(rule, FINE, room, mono=True)))
    badge = f"{problem.copies} heads" if problem.copies > 1 else ""
    name = (fit(problem.name, _NAME, room - (width(badge, FINE) + 8 if badge else 0)),)
    lines = (*_broken(what, room), *_broken(rule, room))
    return BoxText(name, _NAME, badge, lines)


def box_width(problem: Problem) -> float:
    """As wide as the text wants, within bounds."""
    text = box_text(problem, MOST)
    name = max(width(line, text.size) for line in text.name)
    badge = width(text.badge, FINE) + 8 if text.badge else 0.0
    lines = max(width(line, FINE, mono=True) for line in text.lines)
    least = LEAST_SLOW if problem.kind == "slow parameters" else LEAST
    return min(MOST, max(least, 2 * PAD + max(name + badge, lines)))


def box_height(problems: Iterable[Problem], widths: dict[str, float]) -> float:
    """The height that holds the text of every box, the same for all."""
    return max((box_text(p, widths[p.id]).height for p in problems), default=0.0)


def _broken(text: str, room: float) -> list[str]:
    """A text on at most two lines, broken behind a comma."""
    if width(text, FINE, mono=True) <= room or ", " not in text:
        return [fit(text, FINE, room, mono=True)]
    words = [f"{part}," for part in text.split(", ")]
    taken = 1
    while taken < len(words) and width(" ".join(words[: taken + 1]), FINE, mono=True) <= room:
        taken += 1
    first, rest = " ".join(words[:taken]), " ".join(words[taken:]).removesuffix(",")
    return [fit(first, FINE, room, mono=True), fit(f"  {rest}", FINE, room, mono=True)]
