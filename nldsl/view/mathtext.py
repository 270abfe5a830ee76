"""Plain equations as runs of styled text: `W_{t-1}`, `k^T` and `alpha_t` as one would print them."""

from __future__ import annotations

import re
from typing import Literal

Style = Literal["", "italic", "upright", "sub", "super"]
Run = tuple[str, Style]

GREEK = dict(
    zip(
        "alpha beta gamma delta eps epsilon zeta eta theta kappa lambda lam mu nu xi pi rho sigma tau phi chi"
        " psi omega".split(),
        "αβγδεεζηθκλλμνξπρστφχψω",
        strict=True,
    )
)
"""Greek letters by the names specs give them."""

_TOKEN = re.compile(
    r"(?P<name>[^\W\d]\w*?)(?P<index>_(?:t\b|\{[^}]*\}))?(?P<power>\^(?:T|\{[^}]*\}|[\w.]+))?(?!\w)"
    r"|(?P<raise>\^(?:T|\{[^}]*\}|-?[\w.]+))"
    r"|(?P<power_of>\s*\*\*\s*[\w.]+)"
    r"|(?P<norm>\|\|)|(?P<times> @ )|(?P<star> \* )|(?P<minus>(?<!\de)-)|(?P<rest>.)",
    re.DOTALL,
)
_HAT = re.compile(r"[a-zA-Z]hat")
_SIGNS = {"norm": "‖", "times": " ", "star": " · ", "minus": "−"}


def runs(equation: str) -> tuple[Run, ...]:
    """The runs of an equation; neighbours of one style are joined.

    Example:
        >>> runs("S_t = alpha_t S_{t-1} + v_t k_t^T")[:4]
        (('S', 'italic'), ('t', 'sub'), (' = ', ''), ('α', 'italic'))
    """
    found: list[Run] = []
    for match in _TOKEN.finditer(equation):
        if match["name"]:
            found += _name(match, _is_call(equation, match.end()))
        elif match["raise"] or match["power_of"]:
            found.append((_inner(match["raise"] or match["power_of"].strip()[1:]), "super"))
        else:
            kind = match.lastgroup or "rest"
            found.append((_SIGNS.get(kind, match[0]), ""))
    return _joined(found)


def _is_call(equation: str, end: int) -> bool:
    return equation[end : end + 1] == "("


def _name(match: re.Match[str], call: bool) -> list[Run]:
    """A letter (or a word) with its index and its power."""
    name = match["name"]
    head, _, tail = name.partition("_")
    if _HAT.fullmatch(head):
        head = f"{head[0]}\N{COMBINING CIRCUMFLEX ACCENT}"
    shown = GREEK.get(head, head)
    single = len(shown.rstrip("0123456789'\N{COMBINING CIRCUMFLEX ACCENT}")) == 1
    style: Style = "italic" if single and not call else "upright"
    found: list[Run] = []
    if tail and not single:
        found.append((name, "upright"))
    else:
        letters = shown.rstrip("0123456789") if single else shown
        index = ",".join(part for part in (shown[len(letters) :], tail) if part)
        found.append((letters, style))
        if index:
            found.append((index, "sub"))
    if match["index"]:
        index = _inner(match["index"])
        joint = "," if found[-1][1] == "sub" else ""
        found.append((joint + index, "sub"))
    if match["power"]:
        found.append((_inner(match["power"]), "super"))
    return found


def _inner(mark: str) -> str:
    """What stands behind `_` or `^`, a transpose as its sign."""
    text = mark[1:].removeprefix("{").removesuffix("}").replace("-", "−")
    return "⊤" if text == "T" else text


def _joined(found: list[Run]) -> tuple[Run, ...]:
    joined: list[Run] = []
    for text, style in found:
        if joined and joined[-1][1] == style:
            joined[-1] = (joined[-1][0] + text, style)
        else:
            joined.append((text, style))
    return tuple(joined)
