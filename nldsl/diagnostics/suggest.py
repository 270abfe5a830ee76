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
    "zeros": "`0 * x`",
    "ones": "`0 * x + 1`",
    "arange": "`index(n)`",
    "roll": "`shift(x, n)`",
    "normalize": "`l2norm(x)`, of length one, or `norm(x)`",
    "rms_norm": "`norm(x)`",
    "rmsnorm": "`norm(x)`",
    "swish": "`silu(x)`",
    "stop_gradient": "`detach(x)`",
    "stopgrad": "`detach(x)`",
    "sg": "`detach(x)`",
    "topk": "`where(x >= largest(x), x, 0)` for the largest",
    "argmax": "`where(x >= largest(x), 1, 0)`, one at the largest",
    "one_hot": "`where(x >= largest(x), 1, 0)`, one at the largest",
    "logsumexp": "`m + log(sum(exp(x - m)))` with `m = largest(x)`",
    "cumsum": "a memory: `memory h = matrix(in = 1)`, `h += x`, then `h[1]`",
    "einsum": "`W @ x`, `sum(a * b)` and `outer(a, b)`",
}
"""Functions of other languages, and how they are said here."""

OTHERWISE = {
    ("objective", "mse"): "l2",
    ("objective", "mse_loss"): "l2",
    ("objective", "squared_error"): "l2",
    ("objective", "l1"): "lp(p = 1)",
    ("objective", "mae"): "lp(p = 1)",
    ("objective", "smooth_l1"): "huber",
    ("objective", "hebbian"): "dot",
    ("objective", "inner_product"): "dot",
    ("rule", "gradient_descent"): "gd",
    ("rule", "delta"): "gd",
    ("rule", "nag"): "nesterov",
}
"""Objectives and rules by the names they have elsewhere."""


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
