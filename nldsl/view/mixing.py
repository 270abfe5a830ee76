"""What is known of a matrix memory whose rule keeps more than one filter: its class, and eigenvalues.

Weight and slots step together, `Z' = A Z + b g`: along a key of length one `Z` moves by `A - b c^T`, with `c`
what the gradient looks at, elsewhere by `A` alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nldsl.calculus import Expr, build, number, substitute, symbol
from nldsl.calculus.lift import source_expression
from nldsl.calculus.pieces import NotRankOneError, TermForm, term_form
from nldsl.calculus.sorting import PAST
from nldsl.spec.program import Block, Memory, Update, Write
from nldsl.view.transition import key_is_unit, samples

STRONGEST = 64.0
"""Up to how many times its own strength a step is tried."""


def mixed_form(memory: Memory, write: Write) -> TermForm | None:
    """The one term of a write as states that mix, where that is more than one filter in front of a weight."""
    online = memory.clock.every == 1 and write.base_every == 1
    plain = not write.append and write.project is None and not write.at_commit
    if not online or not plain or memory.function is None or len(write.terms) != 1:
        return None
    try:
        form = term_form(memory, write.terms[0], write.toward == "init", False)
    except NotRankOneError:
        return None
    return form if form.mixed is not None else None


def mixed_letter(form: TermForm) -> str:
    """D if the gradient does not look at the memory and the rule erases nothing, else R."""
    return "R" if any(p.seen is not None for p in form.pieces) else "D"


def mixed_words(block: Block, memory: Memory, write: Write, scale: Update | None, form: TermForm) -> str:
    """Eigenvalues along a key and elsewhere, over the ranges of all gates; how strong a step may be."""
    term = write.terms[0]
    names = ", ".join([memory.name, *(s.name for s in term.rule.slots)])
    first = f"Z = ({names}) steps by numbers, Z_t = A_t Z_{{t-1}} + b_t g_t"
    wide = write.retain_axis != "scalar" or (scale is not None and scale.axis != "scalar")
    if wide or term.window > 1 or form.side == "value":
        return first
    found = list(_matrices(block, write, scale, form))
    if not found:
        return f"{first}; a gate without a known range"
    kept, pulled = (np.array(x) for x in zip(*found, strict=True))
    if not np.abs(pulled).max():
        return f"{first}; {_sizes(kept)}"
    unit = "of length one" if key_is_unit(block, term.key) else "if its length is one"
    along = f"along a key {unit}, {_sizes(kept - pulled)}{_room(kept, pulled)}"
    return f"{first}; {along}; elsewhere {_sizes(kept)}"


def _sizes(matrices: np.ndarray) -> str:
    """The eigenvalues in words."""
    values = np.linalg.eigvals(matrices)
    size = np.abs(values).max(-1)
    low, high = float(size.min()), float(size.max())
    sizes = f"{high:.3g}" if high - low < 5e-4 else f"{low:.3g} .. {high:.3g}"
    kind = "may be complex" if (np.abs(values.imag) > 1e-9).any() else "are real"
    if kind == "are real" and (values.real < -1e-9).any():
        kind = "are real and may be negative"
    return f"the largest eigenvalue has size {sizes}, and they {kind}"


def _room(kept: np.ndarray, pulled: np.ndarray) -> str:
    """How much stronger the step may be before an eigenvalue leaves the unit circle."""

    def bounded(times: float) -> bool:
        return bool(np.abs(np.linalg.eigvals(kept - times * pulled)).max() <= 1.0 + 1e-9)

    if not bounded(1.0):
        return ", beyond the unit circle for some of its gates"
    if bounded(STRONGEST):
        return f", within the unit circle at {STRONGEST:g} times the rate too"
    low, high = 1.0, STRONGEST
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if bounded(middle) else (low, middle)
    return f", within the unit circle up to {low:.3g} times the rate"


def _matrices(
    block: Block, write: Write, scale: Update | None, form: TermForm
) -> Iterator[tuple[list[list[float]], list[list[float]]]]:
    """`A` and what is taken along the key, at points of the ranges of all gates (at most four of them)."""
    term, mixed = write.terms[0], form.mixing()
    known: dict[Expr, Expr] = {}
    for name, value in term.rule.arguments:
        made = source_expression(block, value.name)
        known[symbol(name, value.shape, value.kind, role="argument")] = made
        known[symbol(name, role="argument")] = made
    if term.weight is not None:
        known[symbol("weighting", role=PAST)] = source_expression(block, term.weight.name)
    one = number(1.0)
    gate = one if write.retain is None else source_expression(block, write.retain.name)
    above = one if scale is None else source_expression(block, scale.value.name)
    count = len(mixed.rows)
    rows = [list(row) for row in mixed.rows]
    rows[0][0] = build("sub", build("add", gate, rows[0][0]), one)
    taken = [[number(0.0)] * count for _ in range(count)]
    for piece, way, of in zip(form.pieces, mixed.into, mixed.of, strict=True):
        if piece.erase is not None and piece.seen is not None:
            for i, entry in enumerate(way):
                taken[i][of] = build("add", taken[i][of], build("mul", entry, piece.erase))
    for table in (rows, taken):
        for row in table:
            row[0] = build("mul", row[0], above)
    asked = [substitute(_at_unit(e), known) for table in (rows, taken) for row in table for e in row]
    for point in samples(asked, {}):
        cells = [list(point[i : i + count]) for i in range(0, 2 * count * count, count)]
        yield cells[:count], cells[count:]


def _at_unit(expr: Expr) -> Expr:
    """The expression where every key has length one."""
    found: dict[Expr, Expr] = {}
    waiting = [expr]
    while waiting:
        node = waiting.pop()
        square = node.op == "dot" and node.args[0] is node.args[1]
        power = node.op == "sum" and node.args[0].op == "pow" and node.args[0].args[1].value == 2.0
        if square or power:
            found[node] = number(1.0)
        else:
            waiting += node.args
    return substitute(expr, found) if found else expr
