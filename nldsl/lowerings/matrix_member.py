"""One matrix of a memory that is written every token: its `MatrixMemory`, what it answers, its new state."""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.calculus.expression import Expr, symbols
from nldsl.calculus.pieces import PAST, WEIGHTING, Piece, TermForm
from nldsl.calculus.stacks import PAD, Question
from nldsl.emit.nodes import Expression, Like, Literal, Starred, assign, call, name, to_expression
from nldsl.lowerings import recurrence
from nldsl.lowerings.apply import lower_apply
from nldsl.lowerings.blocks import BlockCode
from nldsl.lowerings.everywhere import spread
from nldsl.lowerings.exprs import ExprRows
from nldsl.lowerings.numbered import asks
from nldsl.lowerings.recurrence import by_head, gate_rows, step_rows, target_rows
from nldsl.plan.matrix_form import Filtered, MatrixMember, WriteStep, writes_of
from nldsl.spec.program import Apply, Read, Term, Update, Value

COLON = slice(None)


class MemberCode:
    """The emitted statements of one memory."""

    def __init__(self, code: BlockCode, member: MatrixMember) -> None:
        self.code, self.member, self.memory = code, member, member.memory
        self.stack = member.stack
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

    def joined(self, weights: Sequence[Expression], axis: int = 1) -> Expression:
        """The states of all its weights as one, with an axis of heads."""
        wide = [self.headed(w, axis) for w in weights]
        if self.stack.whole:
            return wide[0]
        return self.code.runtime("matrix_columns", "columns_of")(tuple(wide), **self._vectors())

    def _vectors(self) -> dict[str, Like]:
        """Which of its weights are biases."""
        places = tuple(i for i, v in enumerate(self.stack.vectors) if v)
        return {"vectors": places} if places else {}

    def running(self, state: Expression) -> Expression:
        """Its running state out of that of the memory."""
        return self.joined([state["running"][n] for n in self.stack.names])

    def held(self, state: Expression, slot: str) -> Expression:
        """What a rule remembers for all its weights."""
        return self.joined([state["slots"][f"{slot}.{n}"] for n in self.stack.names])

    # --- the steps ---------------------------------------------------------------------------

    def emit(self, reads: Sequence[tuple[Read, int]]) -> None:
        """`S_memory = MatrixMemory(state, steps, ...)`, or a scan that is given its queries."""
        self.answers = {id(r): i for i, (r, _) in enumerate(reads)}
        steps = tuple(self._step(s) for s in self.member.steps)
        options: dict[str, Like] = {"mask": self.code.scope.mask}
        if self.member.side != "key":
            options["side"] = Literal(self.member.side)
        if self.member.start:
            options["start"] = self._start()
        if self.member.momentum is not None:
            options["momentum"] = self._momentum(self.member.momentum)
        if self.member.held:
            options["held"] = tuple(self.held(self.old, s) for s in self._slots())
        given: list[Like] = [self.running(self.old), steps]
        if self.member.elementwise:
            given.append(
                tuple(
                    (self._question(self.member.questions[0], by_head(self.code, r.key, self.memory)), at)
                    for r, at in reads
                )
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
        begun = name(self.code.scope.names.fresh(f"{self.memory.name}_start"))
        batch = self.code.scope.source.attr("shape")[0]
        made = name("self").method("initial_state", batch)[self.memory.path]
        self.code.scope.add(assign(begun, made))
        fresh = (self.running(begun), *(self.held(begun, s) for s in self._slots()))
        resets = self.code.runtime("matrix_resets", "Resets")
        return call(resets, self.memory.reset_every, self.old["count"], fresh)

    def _start(self) -> Expression:
        """The learned initial state of all its weights; a bias comes as a row."""
        parts = [self.headed(self.code.initial(self.memory, i), 0) for i in self.stack.weights]
        if self.stack.whole:
            return parts[0]
        turned = [p.attr("mT") if v else p for p, v in zip(parts, self.stack.vectors, strict=True)]
        return self.code.runtime("matrix_columns", "columns_of")(tuple(turned))

    def _slots(self) -> list[str]:
        """What the rules remember, by its name in the state without that of the weight."""
        if self.member.momentum is not None:
            return [self.member.momentum.slot]
        return [h.key for h in self.member.held]

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
        self._pad(rows, name(names[0]))
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
        if isinstance(target, Literal) and not self.member.map.plain:
            # Parts of it may be asked for.
            target = self._full(target, key, self.memory.value_size)
        rows.bind("key", key)
        rows.bind("target", target)
        self._pad(rows, key)
        if any(asks(w.write) for w in writes_of(self.member)):
            rows.bind("step", step_rows(self.code, self.memory))
        for argument, value in term.rule.arguments:
            rows.bind(argument, self._argument(value), "argument")
        if term.weight is not None:
            rows.bind(WEIGHTING, self._argument(term.weight), PAST)
        return rows

    def _pad(self, rows: ExprRows, key: Expression) -> None:
        """What a stack is asked beside the key: a one for a bias, zeros for weights that are not asked."""
        asked = [s for q in self.member.questions for s in symbols(q.asked) if s.role == PAD]
        for symbol in dict.fromkeys(asked):
            like = (Starred(key.attr("shape")[slice(None, -1)]), symbol.shape[0])
            made = key.method("new_ones" if symbol.name == "one" else "new_zeros", like)
            rows.bind(symbol.name, made, PAD)

    def _argument(self, value: Value) -> Expression:
        """A rate as rows `[B, T, H, 1]`, or `[B, T, H, n]` per channel."""
        per_channel = value.kind == "headed" or (
            value.kind == "vector" and value.shape != (self.memory.heads,)
        )
        if per_channel or (value.kind == "vector" and not self.memory.per_head):
            return by_head(self.code, value, self.memory)
        return gate_rows(self.code, value, self.memory)

    def _piece(self, rows: ExprRows, key: Expression, piece: Piece) -> Expression:
        other, along = self.member.sizes
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
        held = self.held(self.old, self._slots()[0])
        plain = momentum.read.value == 1.0
        read = to_expression(None) if plain else rows.scalar(momentum.read, key)
        return call(self.runtime("Momentum"), beta, read, held)

    # --- reads and state -----------------------------------------------------------------------

    def answer(self, read: Read, question: Question, query: Expression, at: int) -> Expression:
        """What it answers to a question of a read."""
        if self.member.elementwise:
            return name(self.after).attr("reads")[self.answers[id(read)]]
        return name(self.after).method("read", self._question(question, query), at=at)

    def _question(self, question: Question, query: Expression) -> Expression:
        """What the matrix is asked at a key."""
        rows = ExprRows.inside(self.code.scope)
        rows.bind("key", query)
        self._pad(rows, query)
        return rows.vector(question.asked, query, self.member.sizes[1])

    def store(self, running: dict[str, Like], slots: dict[str, Like]) -> None:
        """Its part of the new state, weight by weight."""
        after = name(self.after)
        self._apart(running, [(n, n) for n in self.stack.names], after.attr("state"))
        states = [after.attr("momentum")] if self.member.momentum is not None else []
        states += [after.attr("held")[n] for n in range(len(self.member.held))]
        for slot, state in zip(self._slots(), states, strict=True):
            self._apart(slots, [(f"{slot}.{n}", f"{slot}_{n}") for n in self.stack.names], state)

    def _apart(self, entries: dict[str, Like], keys: Sequence[tuple[str, str]], state: Expression) -> None:
        """A state of the stack as entries of its weights; `keys` with names for them."""
        kept = self._kept(state)
        if self.stack.whole:
            entries[keys[0][0]] = kept
            return
        names = [self.code.scope.names.fresh(f"{self.memory.name}_{n}") for _, n in keys]
        parts = self.code.runtime("matrix_columns", "weights_of")(kept, self.stack.columns, **self._vectors())
        self.code.scope.add(assign(names, parts) if len(names) > 1 else assign(names[0], parts[0]))
        entries |= {key: name(n) for (key, _), n in zip(keys, names, strict=True)}

    def _kept(self, state: Expression) -> Expression:
        return state if self.memory.per_head else state.method("squeeze", 1)
