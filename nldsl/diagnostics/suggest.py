"""The nearest name: the one helper behind every "did you mean"."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A help sentence naming the nearest of `known`, or the empty string.

    Example:
        >>> did_you_mean("sigmod", ["sigmoid", "silu"])
        'did you mean `sigmoid`?'
        >>> did_you_mean("AdamW", ["adam", "adamw"])
        'did you mean `adamw`?'
    """
    names = list(known)
    alike = [n for n in names if n.lower() == name.lower()]
    close = alike or get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else ""
