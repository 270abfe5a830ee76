"""Key and target of `S += a * outer(v, k)`, as written."""

from __future__ import annotations

import re

from nldsl.spec.program import Term

_OUTER = re.compile(r"outer\((.+)\)")
_FACTORS_BEFORE = re.compile(r"[+=] *((?:[\w.]+ \* )*)$")
_FACTORS_BEHIND = re.compile(r"((?: \* [\w.]+)*) *(?:[;}#]|$)")


def outer_pair(term: Term) -> tuple[str, str]:
    """What stands in `outer` for a key and a target that have no name of their own; else their names."""
    span, key, target = term.span, term.key.name, term.target.name
    found = _OUTER.fullmatch(" ".join(span.text.split())) if span else None
    sides = _two(found[1]) if found else None
    if span is None or sides is None:
        return key, target
    first, second = sides
    text = span.file.text
    before = _FACTORS_BEFORE.search(text[: span.start].rpartition("\n")[2])
    behind = _FACTORS_BEHIND.match(text[span.end :].partition("\n")[0])
    # Of an erase it is the whole error, not the target.
    if before and behind and term.objective.name == "dot" and not _named(target, first):
        target = f"{before[1]}{first}{behind[1]}"
    return key if _named(key, second) else second, target


def _named(value: str, text: str) -> bool:
    return re.search(rf"\b{re.escape(value)}\b", text) is not None


def _two(arguments: str) -> tuple[str, str] | None:
    """The two arguments of a call.

    >>> _two("f(u, 1), l2norm(x)")
    ('f(u, 1)', 'l2norm(x)')
    """
    depth, commas = 0, []
    for place, letter in enumerate(arguments):
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            commas.append(place)
    if len(commas) != 1 or depth:
        return None
    return arguments[: commas[0]].strip(), arguments[commas[0] + 1 :].strip()
