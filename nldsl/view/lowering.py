"""Which lowering computes which memories, why that one and not the others, and the chunk form it runs."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.calculus.affine import scalar_value
from nldsl.plan.details import ChunkDetail, ChunkMemory, RecurrenceDetail
from nldsl.plan.matrix_form import MatrixDetail, chunk_width
from nldsl.plan.plan import BlockPlan, Plan, Unit
from nldsl.view.matrix_form import MATRIX_FORMS, matrix_form


@dataclass(frozen=True)
class Alternative:
    """A lowering that was asked and not chosen, and what it said."""

    lowering: str
    accepted: bool
    reason: str


@dataclass(frozen=True)
class LoweringRow:
    """How the memories of a unit are computed.

    `chunk` is how many tokens a CPU computes at once (0: no chunks), `elsewhere` another device, `form` the
    equation of that.
    """

    unit: str
    block: str
    memories: tuple[str, ...]
    lowering: str
    reason: str
    chunk: int
    form: str
    others: tuple[Alternative, ...]
    elsewhere: int = 0

    @property
    def width(self) -> str:
        """`32 tokens (64 on a GPU)`; empty without chunks."""
        if not self.chunk:
            return ""
        other = f" ({self.elsewhere} on a GPU)" if self.elsewhere != self.chunk else ""
        return f"{self.chunk} tokens{other}"


def lowering_rows(plan: Plan) -> tuple[LoweringRow, ...]:
    """One row per unit that holds a memory, in the order of the plan."""
    rows = (_row(block, unit) for block in plan.blocks for unit in block.units if unit.memories)
    # Every read of a memory that nothing writes is a unit of its own.
    return tuple(dict.fromkeys(rows))


def _row(block: BlockPlan, unit: Unit) -> LoweringRow:
    chunk, elsewhere, form = _width(unit, "cpu"), _width(unit, "cuda"), _form(unit)
    others = tuple(
        Alternative(v.lowering, v.accepted, v.reason) for v in unit.verdicts if v.lowering != unit.lowering
    )
    # The delta form is a linear recurrence that erases: the two are asked as one.
    if unit.lowering == "delta":
        others = tuple(o for o in others if o.lowering != "linear")
    if unit.lowering in ("linear", "delta"):
        others = tuple(o for o in others if o.lowering not in MATRIX_FORMS)
    return LoweringRow(
        block.class_name,
        block.block.name,
        unit.memories,
        unit.lowering,
        unit.reason,
        chunk,
        form,
        others,
        elsewhere,
    )


def _width(unit: Unit, device: str) -> int:
    """Tokens that are computed at once, those of the first memory of the unit."""
    if isinstance(unit.detail, RecurrenceDetail):
        return unit.detail.width(device)
    if isinstance(unit.detail, MatrixDetail):
        return chunk_width(unit.detail.members[0], unit.detail, device)
    return unit.detail.grid if isinstance(unit.detail, ChunkDetail) else 0


def _form(unit: Unit) -> str:
    if isinstance(unit.detail, RecurrenceDetail):
        return _recurrence(unit.detail)
    if isinstance(unit.detail, MatrixDetail):
        return matrix_form(unit.detail)
    if isinstance(unit.detail, ChunkDetail):
        return _held(unit.detail)
    said = {
        "attention": "all queries against all cached keys: softmax(Q K^T + causal mask) V",
        "delta_attention": "(I - c P) u = e + c P_0 u_0, one triangular solve for all tokens, P the softmax "
        "of keys against the pairs before; then all queries against all cached keys, over u",
        "task": "a plain map for all tokens of a segment at once",
        "static": "a plain map for all tokens at once",
        "sequential": "none: one token after the other",
    }
    return said.get(unit.lowering, "")


def _recurrence(detail: RecurrenceDetail) -> str:
    """With `A_tj` the product of the gates from j to t."""
    gated = detail.decay is not None
    decay, start = ("A_tj ", "A_t ") if gated else ("", "")
    if detail.erase is None:
        return f"y_t = {start}M_0 q_t + sum_j {decay}(k_j^T q_t) u_j, two products per chunk"
    return (
        f"(I + N) u = w - e {start}M_0 k with N_tj = e_t {decay}(k_t^T k_j), one triangular inverse per "
        f"chunk; y_t = {start}M_0 q_t + sum_j {decay}(k_j^T q_t) u_j"
    )


def _held(detail: ChunkDetail) -> str:
    """Weight by weight, gradients at the last commit."""
    erases = any(
        step.erase is not None and scalar_value(step.erase) != 0.0
        for m in detail.members
        for term in m.steps
        for step in term
    )
    gated = any(m.write.retain is not None for m in detail.members)
    decay, start = ("A_tj ", "A_t ") if gated else ("", "")
    if all(m.write.at_commit for m in detail.members):
        return "sum_j d_j z_j^T over all tokens of a chunk at once; one step of the rule where a chunk ends"
    if all(m.mirrored for m in detail.members):
        return "the dual steps by sum_j A_tj r_j d_j z_j^T, a chunk at once; weights are made where it ends"
    if any(m.mixed for m in detail.members):
        return _mixed(detail)
    together = [family for family in detail.families if len(family) > 1]
    side = f"; {', '.join(together[0])} side by side" if together else ""
    penalty = ""
    if any(step.constant for m in detail.members for term in m.steps for step in term):
        penalty = f" - sum_j {decay}r_j G (G of the penalty at the base)"
    if not erases:
        return (
            f"W_t = {start}W_0 - sum_j {decay}r_j d_j z_j^T{penalty} for all tokens of a chunk at once{side}"
        )
    return (
        f"W_t = {start}W_0 - sum_j {decay}u_j z_j^T{penalty} with (I + N) u = r ({start}W_0 z + d), "
        f"N_tj = r_t {decay}(z_t^T z_j){side}"
    )


def _mixed(detail: ChunkDetail) -> str:
    """Weights that mix with what their rules remember."""
    member = next(m for m in detail.members if m.mixed)
    slots = ", ".join(dict.fromkeys(s.name for t in member.write.terms for s in t.rule.slots))
    solved = "; what is erased solves one triangular system" if _erases(member) else ""
    return (
        f"W_t = (row of A_t .. A_1) Z_0 - sum_j G_tj d_j z_j^T for all tokens of a chunk at once, "
        f"G_tj = (A_t .. A_{{j+1}} b_j) at W for Z = (W, {slots}), folded by doubling{solved}"
    )


def _erases(member: ChunkMemory) -> bool:
    return any(step.erases for term in member.steps for step in term)
