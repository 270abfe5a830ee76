"""Recurrences that have a name, told by what they compute and not by what a block is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nldsl.calculus import Expr, TermClass, UpdateClass, build, equal, number, symbols
from nldsl.calculus.affine import scalar_value
from nldsl.spec.program import Memory, Write, option

Erase = Literal["none", "rate", "proximal", "twice", "own"]
Gating = Literal["none", "constant", "scalar", "key", "value", "element"]


@dataclass(frozen=True)
class Known:
    """The name of a recurrence and the equations of the paper it belongs to."""

    name: str
    paper: str


_DELTA = "Eq. 65"
_MOMENTUM = "Titans, a deep memory with momentum (Behrouz et al. 2024)"
_MATRIX_MOMENTUM = "Titans, a matrix memory with momentum (Behrouz et al. 2024)"
_MATRIX: dict[tuple[Erase, Gating, bool], Known] = {
    ("none", "none", False): Known("linear attention (Katharopoulos et al. 2020)", "Eq. 15, 64"),
    ("none", "constant", False): Known("RetNet (Sun et al. 2023)", "Eq. 64"),
    ("none", "scalar", False): Known("Mamba-2, a scalar gate per head (Dao and Gu 2024)", "Eq. 64"),
    ("none", "key", False): Known("gated linear attention, GLA (Yang et al. 2024)", "Eq. 64"),
    ("none", "element", False): Known("the element-wise gate of Mamba (Gu and Dao 2023)", "Eq. 64"),
    ("rate", "none", False): Known("DeltaNet (Yang et al. 2024)", _DELTA),
    ("rate", "scalar", True): Known("Gated DeltaNet (Yang et al. 2025)", _DELTA),
    ("rate", "constant", True): Known("Gated DeltaNet with a fixed gate", _DELTA),
    ("rate", "key", True): Known("Kimi Delta Attention, KDA (Kimi Team 2025)", _DELTA),
    ("rate", "scalar", False): Known("the gated delta rule of Hope, gate and erase in one step", "Eq. 92"),
    ("rate", "constant", False): Known("the gated delta rule of Hope with a fixed gate", "Eq. 92"),
    ("proximal", "none", False): Known("Longhorn, the exact step (Liu et al. 2024)", "Eq. 9, 31"),
    ("twice", "scalar", False): Known("L2 with the erase of delta gradient descent", "Eq. 93"),
    ("twice", "none", False): Known("L2 with the erase of delta gradient descent", "Eq. 93"),
}
_DEEP: dict[tuple[str, bool, bool], Known] = {
    ("affine", False, False): Known("a TTT layer (Sun et al. 2024)", "Sec. 5"),
    ("affine", False, True): Known(_MOMENTUM, "Eq. 33"),
    ("constant", False, False): Known("gradient descent on the inner product", "Eq. 8, 15"),
    ("constant", True, False): Known("delta gradient descent on the inner product", "Eq. 57, 92"),
    ("affine", True, False): Known("delta gradient descent on L2", "Eq. 57, 93"),
    ("nonlinear", False, False): Known("an objective of the Miras family", "Sec. 5"),
    ("nonlinear", False, True): Known("an objective of the Miras family, with momentum", "Sec. 5"),
}
"""By how the gradient depends on the answer, whether the rule erases, and momentum."""


def known_as(memory: Memory, write: Write, update: UpdateClass, gate: tuple[Gating, bool]) -> Known | None:
    """The name of what `write` does to `memory`.

    `gate` is what kind of gate it has, and whether that acts before the step (`S *= gate`).
    """
    if write.append:
        window = option(memory.options, "window", 0)
        name = "sliding-window attention" if window else "softmax attention"
        return Known(name, "Eq. 62-63")
    if write.project is not None:  # no other memory keeps its weights on a sphere
        return None
    if any(t.gradient is not None and t.gradient.sees_memory for t in update.terms):
        return Known("Oja's rule (OjaNet)", "Eq. 66-67") if _is_oja(write) else None
    if any(t.window > 1 for t in write.terms):
        return Known("OmegaNet, the Omega rule (Behrouz et al. 2025)", "Eq. 68")
    if len(update.terms) != 1:
        return None
    term = update.terms[0]
    if update.stacks is not None and memory.clock.every == 1 and write.base_every == 1:
        return None
    if term.linear is None:
        return _deep(term)
    if write.base_every == 1:
        return _matrix(term, *gate)
    return _held_matrix(term, gate[0], memory.clock.every > 1)


def is_zero(expr: Expr) -> bool:
    """Whether an expression is a zero of any shape."""
    bare = expr.args[0] if expr.op == "expand_last" else expr
    return scalar_value(bare) == 0.0


def _matrix(term: TermClass, gate: Gating, first: bool) -> Known | None:
    if term.online is None:
        return _deep(term)
    if term.online.momentum is not None:
        plain = scalar_value(term.online.erase) != 0.0
        titans = Known(_MATRIX_MOMENTUM, "Eq. 33")
        return titans if plain else None
    erase = _erase(term)
    if erase is None:
        return None
    # Without an erase it makes no difference where the decay stands.
    return _MATRIX.get((erase, gate, first and erase != "none"))


def _held_matrix(term: TermClass, gate: Gating, committed: bool) -> Known | None:
    """One matrix whose gradients are older than its tokens."""
    deep = _deep(term)
    if deep is not None and deep.name == _MOMENTUM:
        return Known(f"{_MATRIX_MOMENTUM}, gradients held for a chunk", deep.paper)
    if deep is None or deep.name != "gradient descent on the inner product":
        return deep
    plain = _MATRIX.get(("none", gate, False))
    if plain is None or not committed:
        return plain
    return Known(f"{plain.name}, read as of the last commit", plain.paper)


def _erase(term: TermClass) -> Erase | None:
    """How the erase along the key compares with what is written."""
    form = term.online
    assert form is not None
    if scalar_value(form.erase) == 0.0:
        return "none"
    target = next((s for s in symbols(form.value) if s.role == "target"), None)
    if target is None:
        return None
    for kind, times in (("rate", 1.0), ("twice", 0.5)):
        if equal(form.value, build("mul", build("mul", number(times), form.erase), target)):
            return _exact(form.erase, form.x) if kind == "rate" else "twice"
    return "own"


def _exact(erase: Expr, x: Expr) -> Erase:
    """`proximal` for `lr / (1 + lr ||x||^2)`, else `rate`."""
    square = build("dot", x, x)
    for rate in (s for s in symbols(erase) if s.role == "argument"):
        exact = build("div", rate, build("add", 1.0, build("mul", rate, square)))
        if equal(erase, exact):
            return "proximal"
    return "rate"


def _deep(term: TermClass) -> Known | None:
    form = term.rules[0].form if term.rules else None
    if form is None:
        return None
    if form.momentum is not None and scalar_value(form.rate) != 0.0:
        return None
    erases = scalar_value(form.taken) != 0.0
    return _DEEP.get((term.dependence, erases, form.momentum is not None))


def _is_oja(write: Write) -> bool:
    return len(write.terms) == 1 and write.terms[0].objective.name == "oja"
