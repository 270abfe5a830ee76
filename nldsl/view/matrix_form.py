"""Matrix memories written every token by rank-one pieces: the chunk form in words, and what it costs."""

from __future__ import annotations

from typing import get_args

from nldsl.plan.matrix_form import (
    MatrixDetail,
    MatrixLowering,
    MatrixMember,
    WriteStep,
    fades_across,
    fades_along,
    has_channels,
    has_log,
    pieces_of,
)
from nldsl.spec.program import Update

MATRIX_FORMS = (*get_args(MatrixLowering), "recurrence")
"""Names of the forms of `MatrixDetail`, and of the family in a verdict that refuses."""


def matrix_form(detail: MatrixDetail) -> str:
    """The chunk form; `A_tj` is the product of the gates from j to t, `G_tj` a filter of several."""
    solved = {r.solve[0]: r.solve[2] for r, _, _ in detail.reads if r.solve}
    steps = ", ".join(f"{n} steps of conjugate gradients with {name}_t" for name, n in solved.items())
    if len(detail.members) == 1:
        return _member(detail.members[0]) + (
            f"; {steps} at every token, for all tokens at once" if steps else ""
        )
    names = [_called(m) for m in detail.members]
    each = "; ".join(f"{name}: {_member(m)}" for name, m in zip(names, detail.members, strict=True))
    return f"{each}; {steps} at every token, each one read for all tokens at once" if steps else each


def _called(member: MatrixMember) -> str:
    """The memory, or the weights of it that are one matrix."""
    return member.memory.name if member.map.plain else " ".join([member.memory.name, *member.stack.names])


def _member(member: MatrixMember) -> str:
    if member.elementwise:
        return "none: a scan over the tokens, its states computed again in the backward pass"
    fading = _fading(member)
    key, answer = ("k", "q") if member.side == "key" else ("v", "q")
    start = f"{fading[1]}M_0 {answer}_t"
    pieces = pieces_of(member)
    counted = sum(n for p, n in pieces if p.seen is not None)
    if not counted:
        return f"y_t = {start} + sum_j {fading[0]}(k_j^T q_t) u_j, two products per chunk{_anchors(member)}"
    rank = "one" if counted == 1 else str(counted)
    system = f"(I + N) u = w - e {fading[1]}M_0 s with N_tj = e_t {fading[0]}(s_t^T {key}_j)"
    return (
        f"{system}, one triangular inverse per chunk, {rank} row{'' if counted == 1 else 's'} per token; "
        f"y_t = {start} + sum_j {fading[0]}(k_j^T q_t) u_j{_anchors(member)}"
    )


def _fading(member: MatrixMember) -> tuple[str, str]:
    if member.momentum is not None:
        return "G_tj ", "(A_t, B_t) (M_0, P_0), here "
    if member.held:
        return "G_tj ", "(row of A_t .. A_1) Z_0, here "
    gated = any(_fades(s, member) for s in member.steps)
    return ("A_tj ", "A_t ") if gated else ("", "")


def _fades(step: Update | WriteStep, member: MatrixMember) -> bool:
    """Whether a step has a gate that pairs of tokens feel; what acts across is a matter of each row."""
    if isinstance(step, WriteStep) and not step.gated:
        return False
    axis = step.axis if isinstance(step, Update) else step.write.retain_axis
    return axis in ("scalar", "element", member.side)


def _anchors(member: MatrixMember) -> str:
    if member.held:
        names = ", ".join(["M", *(h.key for h in member.held)])
        wide = ", every channel a filter of its own" if has_channels(member) else ""
        return f"; G_tj = (A_t .. A_{{j+1}} b_j) at M for Z = ({names}), chunks folded by doubling{wide}"
    if fades_across(member):
        return _across(member)
    if not has_channels(member):
        return "; G = L_gates L_momentum, one product per chunk" if member.momentum is not None else ""
    return _per_channel(member)


def _per_channel(member: MatrixMember) -> str:
    """How products of gates per channel are taken."""
    if not all(has_log(s) for s in member.steps if isinstance(s, Update) or s.gated):
        return "; A per channel by products only, chunks folded by doubling, exact at every sign"
    return (
        "; A per channel as two factors around an anchor: the middle of the chunk while no factor leaves "
        "the range of the numbers, else borders of halves down to single tokens, exact at every decay"
    )


def _across(member: MatrixMember) -> str:
    """Rows that fade apart, in the terms of rows that do not."""
    along = _per_channel(member) if fades_along(member) else ""
    return f"; w, e and y of a row scaled by its own gates around the middle of the chunk{along}"


def member_flops(member: MatrixMember, queries: int, chunk: int) -> int | None:
    """Products of one token in chunks of so many, all copies together; `None` for a scan."""
    if member.elementwise:
        return None
    memory = member.memory
    v, k = member.sizes
    queries *= len(member.questions)
    erasing = sum(n for p, n in pieces_of(member) if p.seen is not None)
    plain = sum(n for p, n in pieces_of(member) if p.seen is None)
    c, states = max(1, chunk), member.states
    columns = (erasing + plain) * c
    solve = erasing * (2 * k * columns + 2 * (k + v) * erasing * c + 2 * v * plain * c)
    solve += erasing**3 * c * c // 3
    scan = 2 * k * v * states * (2 * erasing + plain)
    read = queries * (2 * k * v * states + 2 * columns * (k + v))
    return memory.heads * (solve + scan) + read


def members_of(detail: MatrixDetail, memory: str) -> list[MatrixMember]:
    """The parts of a unit that are one memory."""
    return [m for m in detail.members if m.memory.name == memory]
