"""The nearest name: the one helper behind every "did you mean"."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

ELSEWHERE = {
    "max": "`maximum(a, b)`, or `largest(x)` of the last axis",
    "amax": "`largest(x)`, of the last axis",
    "amin": "`-largest(-x)`, of the last axis",
    "qr": "`orthonormal(x)`, its Q",
    "cat": "`concat(a, b)`",
    "min": "`minimum(a, b)`, or `-largest(-x)` of the last axis",
    "clamp": "`minimum(maximum(x, low), high)`",
    "clip": "`minimum(maximum(x, low), high)`",
    "square": "`x ** 2`",
    "rsqrt": "`1 / sqrt(x)`",
    "zeros_like": "`0 * x`, or `memory m = like(x)`",
    "ones_like": "`0 * x + 1`",
    "eye": "`identity(n)`",
}
"""Functions of other languages, and how they are said here."""


OF_TORCH = {
    "weight_decay": ("decay",),
    "betas": ("beta1", "beta2"),
    "momentum": ("beta",),
    "learning_rate": ("lr",),
}
"""Arguments of optimizers by the names they have elsewhere, and by those they have in rules."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A help sentence naming the nearest of `known`, or the empty string.

    Example:
        >>> did_you_mean("sigmod", ["sigmoid", "silu"])
        'did you mean `sigmoid`?'
        >>> did_you_mean("AdamW", ["adam", "adamw"])
        'did you mean `adamw`?'
        >>> did_you_mean("weight_decay", ["lr", "decay"])
        'did you mean `decay`?'
    """
    names = list(known)
    ours = OF_TORCH.get(name.lower(), ())
    if ours and all(n in names for n in ours):
        return f"did you mean {' and '.join(f'`{n}`' for n in ours)}?"
    alike = [n for n in names if n.lower() == name.lower()]
    close = alike or get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else ""
