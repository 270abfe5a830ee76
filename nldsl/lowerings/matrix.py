"""Matrix memories written every token by rank-one pieces: one `MatrixMemory` per memory, then its reads."""

from __future__ import annotations

from nldsl.emit.nodes import Like, assign, call, name
from nldsl.lowerings import recurrence
from nldsl.lowerings.blocks import BlockCode
from nldsl.lowerings.exprs import ExprRows
from nldsl.lowerings.matrix_member import MemberCode
from nldsl.lowerings.recurrence import by_head
from nldsl.plan.details import RecurrenceDetail
from nldsl.plan.matrix_form import MatrixDetail
from nldsl.plan.plan import Unit
from nldsl.spec.program import Read

FORMS = ("linear_channel", "delta_channel", "delta_block", "delta_value", "filtered", "scan", "mesa")


def plain_or_general(code: BlockCode, unit: Unit) -> None:
    """One write of one piece and one number per gate has kernels of its own."""
    if isinstance(unit.detail, RecurrenceDetail):
        recurrence.lower(code, unit)
    else:
        lower(code, unit)


def lower(code: BlockCode, unit: Unit) -> None:
    """The memories after all tokens, their reads, their state."""
    detail = unit.detail
    assert isinstance(detail, MatrixDetail)
    codes: dict[str, list[MemberCode]] = {}
    for found in detail.members:
        codes.setdefault(found.memory.name, []).append(MemberCode(code, found))
    for memory, members in codes.items():
        for member in members:
            member.emit([(r, at) for r, at, _ in detail.reads if r.memory == memory])
    for read, at, above in detail.reads:
        solver = codes[read.solve[0]][0] if read.solve else None
        emit_read(code, codes[read.memory], (read, at), solver, above)
    for members in codes.values():
        _store(code, members)


def emit_read(
    code: BlockCode,
    members: list[MemberCode],
    asked: tuple[Read, int],
    solver: MemberCode | None,
    above: int,
) -> None:
    """`y = S_memory.read(q, at=2)` of every matrix, and what the map makes of the answers."""
    (read, at), scope, first = asked, code.scope, members[0]
    memory, out = first.memory, scope.names.of(read.out)
    query = by_head(code, read.key, memory)
    if solver is not None and read.solve is not None:
        _, ridge, iterations = read.solve
        options: dict[str, Like] = {"at": above, "ridge": ridge, "iterations": iterations}
        query = name(solver.after).method("solve", query, **options)
    if read.lone:
        scope.add(assign(out, query if memory.per_head else query.method("squeeze", 2)))
        return
    whole = first.member.map
    answers = [members[q.stack].answer(read, q, query, at) for q in whole.questions]
    answer = answers[0]
    if whole.result is not whole.questions[0].answer:
        rows = ExprRows.inside(scope)
        rows.bind("key", query)
        kept = [scope.names.fresh(f"{memory.name}_answer") for _ in answers]
        for question, given, called in zip(whole.questions, answers, kept, strict=True):
            scope.add(assign(called, given))
            rows.bind(question.answer.name, name(called), "answer")
        made = rows.vector(whole.result, name(kept[0]), memory.value_size)
        # Masked tokens read what one reads that counts, whatever the map adds.
        answer = call(code.runtime("chunks", "stand_in"), made, scope.mask)
    scope.add(assign(out, answer if memory.per_head else answer.method("squeeze", 2)))


def _store(code: BlockCode, members: list[MemberCode]) -> None:
    """`new["S"] = {...}`."""
    first = members[0]
    memory, old = first.memory, first.old
    count = call(code.runtime("token", "tick_all"), old["count"], code.scope.mask, code.scope.source)
    running, slots, windows = dict[str, Like](), dict[str, Like](), dict[str, Like]()
    for member in members:
        member.store(running, slots)
        windows |= member.windows
    entries: dict[str, Like] = {"running": running}
    entries |= {"slots": slots} if slots else {}
    entries |= {"windows": windows} if windows else {}
    entries["count"] = count % memory.reset_every if memory.reset == "tokens" else count
    code.scope.add(assign(name("new")[memory.path], entries))
