"""What the lowering of a matrix memory on clock 1 needs to know, whatever its form is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nldsl.calculus.expression import Expr
from nldsl.calculus.pieces import Piece, Side, TermForm
from nldsl.calculus.stacks import Question, Stack, StackedMap
from nldsl.catalog.widths import doubled_width, general_width, pass_width
from nldsl.spec.program import Apply, Memory, Read, Term, Update, Value, Write


@dataclass(frozen=True)
class WriteStep:
    """One write: the rank-one pieces of every term, as the chosen side has them."""

    write: Write
    terms: tuple[tuple[Term, TermForm], ...]

    @property
    def gated(self) -> bool:
        """Whether the memory decays in the same step."""
        return self.write.retain is not None or any(f.keep.value != 1.0 for _, f in self.terms)


@dataclass(frozen=True)
class Filtered:
    """The momentum of the one write: `P' = beta P + pieces`, `M' = M + read P'`.

    `log` is the logarithm of `beta`, or computes it, where there is one.
    """

    slot: str
    beta: Expr
    read: Expr
    log: Value | Apply | None


@dataclass(frozen=True)
class Held:
    """What a rule remembers beside the memory: a slot of a term, by its number among all terms."""

    term: int
    name: str
    key: str
    """In the state, without the name of the weight."""


@dataclass(frozen=True)
class MatrixMember:
    """One matrix of a memory of the unit, the stack `place` of its map: gates and writes in program order.

    `momentum`: one filter in front of the weight, with a kernel of its own; else what rules remember is
    `held`, and steps together with the memory.  `start`: what gates pull toward is its learned initial state.
    `window` tokens are looked back upon.  `elementwise`: no chunk form, but a scan over the tokens.
    """

    memory: Memory
    map: StackedMap
    place: int
    steps: tuple[Update | WriteStep, ...]
    side: Side
    momentum: Filtered | None
    start: bool
    window: int
    elementwise: bool
    held: tuple[Held, ...] = ()

    @property
    def stack(self) -> Stack:
        """The weights it is made of."""
        return self.map.stacks[self.place]

    @property
    def questions(self) -> tuple[Question, ...]:
        """What a read asks it."""
        return tuple(q for q in self.map.questions if q.stack == self.place)

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.stack.matrix.shape
        return rows, columns

    @property
    def states(self) -> int:
        """The memory, and what its rules remember."""
        return 1 + len(self.held) + (self.momentum is not None)


@dataclass(frozen=True)
class MatrixDetail:
    """Memories that are read and written every token; `reads` with the number of steps above each.

    A read through `solve` also has the number of steps above it of the memory it solves with.
    """

    members: tuple[MatrixMember, ...]
    reads: tuple[tuple[Read, int, int], ...]

    @property
    def lowering(self) -> MatrixLowering:
        """Which form this is."""
        if len({m.memory.name for m in self.members}) > 1:
            return "mesa"
        names = {_name(m) for m in self.members}
        return names.pop() if len(names) == 1 else "filtered" if "filtered" in names else "delta_block"


MatrixLowering = Literal[
    "linear",
    "linear_channel",
    "delta",
    "delta_channel",
    "delta_block",
    "delta_value",
    "filtered",
    "scan",
    "mesa",
]


def _name(member: MatrixMember) -> MatrixLowering:
    if member.elementwise:
        return "scan"
    if member.states > 1 or member.window > 1:
        return "filtered"
    pieces = [p for w in writes_of(member) for _, f in w.terms for p in f.pieces]
    channels = has_channels(member)
    if all(p.seen is None for p in pieces):
        return "linear_channel" if channels else "linear"
    if member.side == "value":
        return "delta_value"
    if len(pieces) > 1 or pieces[0].seen is not pieces[0].along:
        return "delta_block"
    return "delta_channel" if channels else "delta"


def writes_of(member: MatrixMember) -> list[WriteStep]:
    """The writes of a member, in program order."""
    return [s for s in member.steps if isinstance(s, WriteStep)]


def has_channels(member: MatrixMember) -> bool:
    """Whether a gate has one number per channel."""
    return bool(_axes(member) & {"key", "value"})


def fades_along(member: MatrixMember) -> bool:
    """Whether a gate has one number per channel of the side along which is written."""
    return member.side in _axes(member)


def fades_across(member: MatrixMember) -> bool:
    """Whether a gate has one number per channel of the other side."""
    return not member.elementwise and bool(_axes(member) & {"key", "value"} - {member.side})


def _axes(member: MatrixMember) -> set[str]:
    return {s.axis if isinstance(s, Update) else s.write.retain_axis for s in member.steps}


def pieces_of(member: MatrixMember) -> list[tuple[Piece, int]]:
    """Every piece, and how many of its kind a token has."""
    return [(p, t.window if p.lagged else 1) for w in writes_of(member) for t, f in w.terms for p in f.pieces]


def chunk_width(member: MatrixMember, detail: MatrixDetail, device: str) -> int:
    """Tokens that are computed at once; 0 for a scan.

    What `matrix_memory` takes where the values of a call allow it; steep decays take halves of it on a CPU,
    or the general form.
    """
    if member.elementwise:
        return 0
    erasing = sum(n for p, n in pieces_of(member) if p.seen is not None)
    if _in_one_pass(member, detail):
        width = general_width(erasing, pass_width(erasing > 0, device))
    else:
        width = general_width(erasing)
        width = doubled_width(width) if fades_along(member) else width
    # No chunk is longer than the period between two resets.
    return min(width, member.memory.reset_every or width)


def _in_one_pass(member: MatrixMember, detail: MatrixDetail) -> bool:
    """Whether the first read comes from a pass over the chunks (`quick_chunks`, `filtered_chunks`)."""
    memory, pieces = member.memory, pieces_of(member)
    first = next((r.key for r, _, _ in detail.reads if r.memory == memory.name and r.solve is None), None)
    grouped = first is not None and first.kind == "headed" and first.shape[0] != memory.heads
    grouped = grouped or len(member.questions) > 1
    if member.side != "key" or fades_across(member) or grouped or first is None:
        return False
    if any(n > 1 or p.lagged for p, n in pieces):
        return False
    erasing = [p for p, _ in pieces if p.seen is not None]
    if member.states > 1:
        looks = all(f.mixing().of == (0,) * len(f.pieces) for w in writes_of(member) for _, f in w.terms)
        return len(pieces) == len(erasing) and looks and not has_channels(member)
    gates = [s for s in member.steps if isinstance(s, Update) or s.gated]
    few = len(erasing) <= 1 and len(pieces) - len(erasing) <= 1 and len(gates) <= 1
    ends = isinstance(member.steps[-1], Update) or len(writes_of(member)) != 1
    return few and not ends and all(has_log(s) for s in gates)


def has_log(step: Update | WriteStep) -> bool:
    """Whether the gate comes as its logarithm."""
    if isinstance(step, Update):
        return step.value_log is not None
    return step.write.retain_log is not None and all(f.keep.value == 1.0 for _, f in step.terms)
