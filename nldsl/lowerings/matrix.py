"""Matrix memories written every token by rank-one pieces: one `MatrixMemory` per memory, then its reads."""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.calculus.expression import Expr
from nldsl.calculus.pieces import PAST, WEIGHTING, Piece, TermForm
from nldsl.emit.nodes import Expression, Like, Literal, Starred, assign, call, name, to_expression
from nldsl.lowerings import recurrence
from nldsl.lowerings.apply import lower_apply
from nldsl.lowerings.blocks import BlockCode
from nldsl.lowerings.everywhere import spread
from nldsl.lowerings.exprs import ExprRows
from nldsl.lowerings.numbered import asks
from nldsl.lowerings.recurrence import by_head, gate_rows, step_rows, target_rows
from nldsl.plan.details import RecurrenceDetail
from nldsl.plan.matrix_form import Filtered, MatrixDetail, MatrixMember, WriteStep, writes_of
from nldsl.plan.plan import Unit
from nldsl.spec.program import Apply, Read, Term, Update, Value

COLON = slice(None)

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
    codes = {m.memory.name: MemberCode(code, m) for m in detail.members}
    for member in codes.values():
        member.emit([(r, at) for r, at, _ in detail.reads if r.memory == member.memory.name])
    for read, at, asked in detail.reads:
        codes[read.memory].read(read, at, codes[read.solve[0]] if read.solve else None, asked)
    for member in codes.values():
        member.store()


class MemberCode:
    """The emitted statements of one memory."""

    def __init__(self, code: BlockCode, member: MatrixMember) -> None:
        self.code, self.member, self.memory = code, member, member.memory
        assert self.memory.function is not None
        self.weight = self.memory.function.weights[0].name
        self.after = code.scope.names.fresh(f"{self.memory.name}_memory")
        self.windows: dict[str, Like] = {}
        self.answers: dict[int, int] = {}

    def runtime(self, function: str) -> Expression:
        """A function or class of the kernels' module."""
        return self.code.runtime("matrix_tokens", function)

    @property
    def old(self) -> Expression:
        """`state["S"]`."""
        return name("state")[self.memory.path]

    def headed(self, weight: Expression, axis: int = 1) -> Expression:
        """A state with its axis of heads."""
        return weight if self.memory.per_head else weight.method("unsqueeze", axis)

    # --- the steps ---------------------------------------------------------------------------

    def emit(self, reads: Sequence[tuple[Read, int]]) -> None:
        """`S_memory = MatrixMemory(state, steps, ...)`, or a scan that is given its queries."""
        self.answers = {id(r): i for i, (r, _) in enumerate(reads)}
        steps = tuple(self._step(s) for s in self.member.steps)
        options: dict[str, Like] = {"mask": self.code.scope.mask}
        if self.member.side != "key":
            options["side"] = Literal(self.member.side)
        if self.member.start:
            options["start"] = self.headed(self.code.initial(self.memory, 0), 0)
        if self.member.momentum is not None:
            options["momentum"] = self._momentum(self.member.momentum)
        if self.member.held:
            options["held"] = tuple(self.headed(self.old["slots"][s]) for s in self._slots())
        given: list[Like] = [self.headed(self.old["running"][self.weight]), steps]
        if self.member.elementwise:
            given.append(
                tuple((self._question(r, by_head(self.code, r.key, self.memory)), at) for r, at in reads)
            )
        made = self._made()
        if self.memory.reset == "tokens":
            given.append(self._resets())
        self.code.scope.add(assign(self.after, call(made, *given, **options)))

    def _made(self) -> Expression:
        """What computes the memory, between resets or without."""
        resets = self.memory.reset == "tokens"
        if resets:
            function = "scan_resetting" if self.member.elementwise else "ResettingMemory"
            return self.code.runtime("matrix_resets", function)
        if self.member.elementwise:
            return self.code.runtime("matrix_scan", "scan_memory")
        return self.code.runtime("matrix_memory", "MatrixMemory")

    def _resets(self) -> Expression:
        """`Resets(every, passed, fresh)`: with which states the memory begins anew, and when."""
        start = name(self.code.scope.names.fresh(f"{self.memory.name}_start"))
        batch = self.code.scope.source.attr("shape")[0]
        made = name("self").method("initial_state", batch)[self.memory.path]
        self.code.scope.add(assign(start, made))
        fresh = [start["running"][self.weight], *(start["slots"][s] for s in self._slots())]
        resets = self.code.runtime("matrix_resets", "Resets")
        return call(resets, self.memory.reset_every, self.old["count"], tuple(map(self.headed, fresh)))

    def _slots(self) -> list[str]:
        """What the rules remember, by its name in the state."""
        if self.member.momentum is not None:
            return [f"{self.member.momentum.slot}.{self.weight}"]
        return [f"{h.key}.{self.weight}" for h in self.member.held]

    def _step(self, step: Update | WriteStep) -> Expression:
        if isinstance(step, Update):
            return self._gate(step.value, step.value_log, step.axis)
        pieces = [p for term, form in step.terms for p in self._pieces(term, form)]
        arguments: list[Like] = [tuple(pieces)]
        if step.gated:
            arguments.append(self._retain(step))
        options: dict[str, Like] = {"mixing": self._mixing(step)} if self.member.held else {}
        return call(self.runtime("Write"), *arguments, **options)

    def _mixing(self, step: WriteStep) -> Expression:
        """`Mixing(rows, into, of)`: how the memory and all slots step; those of other writes stay."""
        count = self.member.states
        rows: list[list[Like]] = [[float(i == j) for j in range(count)] for i in range(count)]
        into: list[Like] = []
        of: list[int] = []
        for term, form in step.terms:
            mixed, written, number = form.mixing(), self._rows(term), self._number(term)
            key = by_head(self.code, term.key, self.memory)
            places = [0, *(i for i, h in enumerate(self.member.held, 1) if h.term == number)]
            for i, row in zip(places, mixed.rows, strict=True):
                for j, entry in zip(places, row, strict=True):
                    # What a rule leaves of the memory is part of the gate.
                    rows[i][j] = 1.0 if i == j == 0 else self._entry(written, entry, key)
            for way, looked in zip(mixed.into, mixed.of, strict=True):
                full: list[Like] = [0.0] * count
                for i, entry in zip(places, way, strict=True):
                    full[i] = self._entry(written, entry, key)
                into.append(tuple(full))
                of.append(places[looked])
        return call(self.runtime("Mixing"), tuple(map(tuple, rows)), tuple(into), tuple(of))

    def _entry(self, rows: ExprRows, entry: Expr, key: Expression) -> Like:
        """A number per head and token `[B, T, H]`, or one for all."""
        value = rows.known(entry).value
        return rows.scalar(entry, key) if value is None else value

    def _gate(self, value: Value, log: Value | None, axis: str) -> Expression:
        gate = self.runtime("Gate")
        if log is None:
            return call(gate, self._gate_rows(value, axis))
        across = axis not in ("scalar", self.member.side) and not self.member.elementwise
        options: dict[str, Like] = {"across": True} if across else {}
        return call(gate, log=self._gate_rows(log, axis), **options)

    def _gate_rows(self, value: Value, axis: str) -> Expression:
        """`[B, T, H]`, or `[B, T, H, n]` per channel."""
        if axis == "scalar":
            key = by_head(self.code, self._first_key(), self.memory)
            return recurrence.gate(self.code, value, key, self.memory)
        # A gate that is a slow parameter gets the axes of a sequence, as any other.
        spread(self.code.scope, value)
        expression = self.code.scope.ref(value)
        if value.kind == "matrix":
            return expression.method("unsqueeze", 2)
        expression = expression if self.memory.per_head else expression.method("unsqueeze", 2)
        if not self.member.elementwise:
            return expression
        return expression[..., None] if axis == "value" else expression[..., None, COLON]

    def _first_key(self) -> Value:
        return writes_of(self.member)[0].write.terms[0].key

    def _retain(self, step: WriteStep) -> Expression:
        """The gate of a write; a rule that scales the weight is part of it."""
        write = step.write
        keeps = [(t, f) for t, f in step.terms if f.keep.value != 1.0]
        if not keeps and write.retain is not None:
            return self._gate(write.retain, write.retain_log, write.retain_axis)
        base: Like = 1.0
        if write.retain is not None:
            base = self._gate_rows(write.retain, write.retain_axis)
        total = to_expression(base)
        for term, form in keeps:
            key = by_head(self.code, term.key, self.memory)
            kept = self._rows(term).scalar(form.keep, key)
            wide = write.retain is not None and write.retain_axis != "scalar"
            total = total + ((kept[..., None] if wide else kept) - 1.0)
        return call(self.runtime("Gate"), total)

    # --- pieces ------------------------------------------------------------------------------

    def _pieces(self, term: Term, form: TermForm) -> list[Expression]:
        rows = self._rows(term)
        key = by_head(self.code, term.key, self.memory)
        lagged = self._lessons(term, rows) if any(p.lagged for p in form.pieces) else None
        made = []
        for piece in form.pieces:
            if piece.lagged and lagged is not None:
                made.append(self._piece(lagged[0], lagged[1], piece))
            else:
                made.append(self._piece(rows, key, piece))
        return made

    def _lessons(self, term: Term, present: ExprRows) -> tuple[ExprRows, Expression]:
        """The lessons of the window as rows `[B, T, H, c, n]`, and their keys; they are remembered too."""
        scope, fresh = self.code.scope, self.code.scope.names.fresh
        key = by_head(self.code, term.key, self.memory)
        weight = present.symbols.get((PAST, WEIGHTING), to_expression(1.0))
        place = str(self._number(term))
        names = [fresh(f"{self.memory.name}_{n}") for n in ("keys", "targets", "weights", "lessons")]
        full = [
            present.symbols[("", "target")],
            weight,
        ]
        widths = (self.memory.value_size, 1)
        spread = [self._full(x, key, n) for x, n in zip(full, widths, strict=True)]
        state = self.old["windows"][place]
        past = self.code.runtime("past_lessons", "past_lessons")
        options: dict[str, Like] = {"state": state, "count": self.old["count"], "mask": scope.mask}
        if self.memory.reset == "tokens":
            options["reset"] = self.memory.reset_every
        found = past(key, *spread, **options)
        scope.add(assign(names, found))
        self.windows[place] = name(names[3])
        rows = ExprRows.inside(scope)
        for symbol, chosen in zip(("key", "target", WEIGHTING), names, strict=False):
            rows.bind(symbol, name(chosen), PAST)
        for (role, symbol), bound in present.symbols.items():
            if role != PAST:
                rows.bind(symbol, bound if isinstance(bound, Literal) else bound.method("unsqueeze", 3), role)
        return rows, name(names[0])

    def _full(self, value: Expression, key: Expression, size: int) -> Expression:
        """A literal as rows of its own."""
        if isinstance(value, Literal):
            return key.method("new_full", (Starred(key.attr("shape")[slice(None, -1)]), size), value)
        return value.method("expand", -1, -1, self.memory.heads, size)

    def _number(self, term: Term) -> int:
        terms = [t for w in writes_of(self.member) for t, _ in w.terms]
        return next(i for i, t in enumerate(terms) if t is term)

    def _rows(self, term: Term) -> ExprRows:
        rows = ExprRows.inside(self.code.scope)
        key = by_head(self.code, term.key, self.memory)
        target = target_rows(self.code, term, self.memory)
        rows.bind("key", key)
        rows.bind("target", target)
        if any(asks(w.write) for w in writes_of(self.member)):
            rows.bind("step", step_rows(self.code, self.memory))
        for argument, value in term.rule.arguments:
            rows.bind(argument, self._argument(value), "argument")
        if term.weight is not None:
            rows.bind(WEIGHTING, self._argument(term.weight), PAST)
        return rows

    def _argument(self, value: Value) -> Expression:
        """A rate as rows `[B, T, H, 1]`, or `[B, T, H, n]` per channel."""
        per_channel = value.kind == "headed" or (
            value.kind == "vector" and value.shape != (self.memory.heads,)
        )
        if per_channel or (value.kind == "vector" and not self.memory.per_head):
            return by_head(self.code, value, self.memory)
        return gate_rows(self.code, value, self.memory)

    def _piece(self, rows: ExprRows, key: Expression, piece: Piece) -> Expression:
        along, other = self.memory.key_size, self.memory.value_size
        if self.member.side == "value":
            along, other = other, along
        arguments: dict[str, Like] = {
            "along": rows.vector(piece.along, key, along),
            "add": rows.vector(piece.add, key, other),
        }
        if piece.seen is not None and piece.erase is not None:
            arguments["seen"] = rows.vector(piece.seen, key, along)
            arguments["erase"] = rows.scalar(piece.erase, key)
        if piece.from_state is not None:
            arguments["from_state"] = rows.scalar(piece.from_state, key)
        return call(self.runtime("Piece"), **arguments)

    def _momentum(self, momentum: Filtered) -> Expression:
        ((term, _),) = writes_of(self.member)[0].terms
        rows, key = self._rows(term), by_head(self.code, term.key, self.memory)
        beta: Expression
        if isinstance(momentum.log, Apply):
            lower_apply(self.code.scope, momentum.log)
        log = momentum.log.out if isinstance(momentum.log, Apply) else momentum.log
        if log is not None:
            beta = call(self.runtime("Gate"), log=recurrence.gate(self.code, log, key, self.memory))
        else:
            beta = call(self.runtime("Gate"), rows.scalar(momentum.beta, key))
        held = self.headed(self.old["slots"][self._slots()[0]])
        plain = momentum.read.value == 1.0
        read = to_expression(None) if plain else rows.scalar(momentum.read, key)
        return call(self.runtime("Momentum"), beta, read, held)

    # --- reads and state -----------------------------------------------------------------------

    def read(self, read: Read, at: int, solver: MemberCode | None, asked: int) -> None:
        """`y = S_memory.read(q, at=2)`, and what the map makes of the answer."""
        scope, out = self.code.scope, self.code.scope.names.of(read.out)
        query = by_head(self.code, read.key, self.memory)
        if solver is not None and read.solve is not None:
            _, ridge, iterations = read.solve
            options: dict[str, Like] = {"at": asked, "ridge": ridge, "iterations": iterations}
            query = name(solver.after).method("solve", query, **options)
        if read.lone:
            scope.add(assign(out, query if self.memory.per_head else query.method("squeeze", 2)))
            return
        form = self.member.read
        answer: Expression
        if self.member.elementwise:
            answer = name(self.after).attr("reads")[self.answers[id(read)]]
        else:
            answer = name(self.after).method("read", self._question(read, query), at=at)
        if form.result is not form.answer:
            rows = ExprRows.inside(scope)
            rows.bind("key", query)
            kept = scope.names.fresh(f"{self.memory.name}_answer")
            scope.add(assign(kept, answer))
            rows.bind("answer", name(kept), "answer")
            answer = self._live(rows.vector(form.result, name(kept), self.memory.value_size))
        scope.add(assign(out, answer if self.memory.per_head else answer.method("squeeze", 2)))

    def _question(self, read: Read, query: Expression) -> Expression:
        """What the matrix is asked at a key."""
        rows = ExprRows.inside(self.code.scope)
        rows.bind("key", query)
        return rows.vector(self.member.read.asked, query, self.memory.key_size)

    def _live(self, value: Expression) -> Expression:
        """Masked tokens read what one reads that counts, whatever the map adds."""
        return call(self.code.runtime("chunks", "stand_in"), value, self.code.scope.mask)

    def store(self) -> None:
        """`new["S"] = {...}`."""
        after = name(self.after)
        count = call(
            self.code.runtime("token", "tick_all"),
            self.old["count"],
            self.code.scope.mask,
            self.code.scope.source,
        )
        entries: dict[str, Like] = {"running": {self.weight: self._kept(after.attr("state"))}}
        if self.member.momentum is not None:
            entries["slots"] = {self._slots()[0]: self._kept(after.attr("momentum"))}
        if self.member.held:
            entries["slots"] = {s: self._kept(after.attr("held")[n]) for n, s in enumerate(self._slots())}
        if self.windows:
            entries["windows"] = self.windows
        entries["count"] = count % self.memory.reset_every if self.memory.reset == "tokens" else count
        self.code.scope.add(assign(name("new")[self.memory.path], entries))

    def _kept(self, state: Expression) -> Expression:
        return state if self.memory.per_head else state.method("squeeze", 1)
