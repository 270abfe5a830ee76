"""The write of one family inside a chunk: gradients at the base, then the course of every weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nldsl.calculus.expression import Expr, symbols
from nldsl.emit.nodes import Expression, Like, Starred, assign, call, name
from nldsl.lowerings.chunk_commit import commit_values
from nldsl.lowerings.chunk_family import Family, Part
from nldsl.lowerings.chunk_states import StatesWriter
from nldsl.lowerings.exprs import ExprRows
from nldsl.lowerings.functions import slow_parameters
from nldsl.lowerings.gates import gate, head_gate, rows_of, target_rows
from nldsl.lowerings.numbered import STEP
from nldsl.plan.details import MomentumStep, WeightStep
from nldsl.spec.program import Read, Term, Value

if TYPE_CHECKING:
    from nldsl.lowerings.chunk_step import ChunkStep

COLON = slice(None)


class ChunkWriter:
    """Emits the write of one family into the step, once, when something first needs it."""

    def __init__(self, step: ChunkStep, family: Family, valid: Expression) -> None:
        self.step, self.family, self.valid = step, family, valid
        self.scope, self.code = step.scope, step.code
        self.gradients: list[dict[str, Expression]] = []
        self.weights: list[Expression | None] = []
        self.new: dict[int, Expression] = {}
        """What each moved part became, by the identity of the part."""
        self.courses: dict[str, Expression] = {}
        self.filters: dict[tuple[int, tuple[Expr, ...]], Expression] = {}
        self.states = StatesWriter(self)
        self.ready = False

    def results(self) -> list[Expression]:
        """The new value of everything the step moves; then what the rule needs at the commit."""
        self._write()
        for w, course in self.courses.items():
            self._close(w, course)
        family = self.family
        found = [self.new[id(p)] for p in family.moved()]
        asked = [(v, axis) for v, axis in commit_values(family) if v.name not in self.scope.constants]
        return [*found, *(self._last(v, axis) for v, axis in asked)]

    def answer(self, read: Read, when: str) -> None:
        """`y = map(q, W.after, ...)`: every weight answers for the state at each token."""
        self._write()
        memory, function = self.family.memory, self.family.function
        key = self.step.value(read.key)
        weights = [
            course.attr(when) if len(self.family.shapes[w]) == 2 else self._bias_rows(course, key, when)
            for w, course in self.courses.items()
        ]
        value = call(self.code.functions.live_map(memory), key, *weights, *slow_parameters(function, ""))
        self.scope.add(assign(self.scope.names.of(read.out), value))

    def _bias_rows(self, course: Expression, key: Expression, when: str) -> Expression:
        return call(course.attr(when), key.method("new_ones", (*_lead(key), 1)))

    # --- one write ---------------------------------------------------------------------------

    def _write(self) -> None:
        if self.ready:
            return
        self.ready = True
        family = self.family
        for n, term in enumerate(family.write.terms):
            self._gradient(n, term)
        if family.write.at_commit:
            self._gather()
            return
        mixed = family.members[0].mixed
        gates = None if self._own_gates() or mixed else self._gates()
        for i, w in enumerate(family.weights):
            steps = [term[i] for term in family.members[0].steps]
            if mixed:
                self.courses[w] = self.named(self.states.course(w, steps), f"{family.label}_{w}_course")
            elif family.members[0].plain and not family.live:
                self.new[id(family.running[w])] = self._plain(w, steps[0], gates)
            else:
                self.courses[w] = self._course(w, steps, gates)

    def _own_gates(self) -> bool:
        """Whether a rule scales the weight, so that every weight has gates of its own."""
        return any(s.keep is not None for term in self.family.members[0].steps for s in term)

    def named(self, expression: Expression, wanted: str) -> Expression:
        made = self.scope.names.fresh(wanted)
        self.scope.add(assign(made, expression))
        return name(made)

    # --- gradients ---------------------------------------------------------------------------

    def _gradient(self, n: int, term: Term) -> None:
        """Inputs and output gradients of every weight, for the tokens of the chunk or their windows."""
        family = self.family
        key = self.step.value(term.key)
        weight = None if term.weight is None else self.per_token(term.weight, key)
        if family.size > 1:
            key = key.method("unsqueeze", -3)
        target = self._target(n)
        if term.window > 1:
            key, target, weight = self._window(n, term, key, target, weight)
        bases = family.base or family.seen
        at = [name(bases[w].inner) for w in family.weights]
        if family.memory.init == "first":
            at = [w.method("detach") for w in at]
        gradient = self.code.pairs(family.memory, term.objective)
        names = {r: self.scope.names.fresh(r) for r in gradient.results}
        result = call(gradient.function, key, target, *at, *slow_parameters(family.function, ""))
        self.scope.add(assign(list(names.values()) if len(names) > 1 else next(iter(names.values())), result))
        self.gradients.append({r: name(m) for r, m in names.items()})
        self.weights.append(weight)

    def _target(self, n: int) -> Expression:
        family = self.family
        targets = tuple(m.write.terms[n].target for m in family.members)
        if family.size == 1 or targets[0].kind not in ("headed", "vector"):
            key = self.step.value(family.write.terms[n].key)
            self.step.value(targets[0])
            rows = target_rows(self.scope, targets[0], key, family.memory)
            return rows.method("unsqueeze", -3) if family.size > 1 else rows
        return self.step.stacker.stacked(targets)

    def _window(
        self, n: int, term: Term, key: Expression, target: Expression, weight: Expression | None
    ) -> tuple[Expression, Expression, Expression]:
        """The lessons in the windows of the chunk's tokens; the last ones stay for the next chunk."""
        runtime, found = self.code.runtime, []
        now: dict[str, Like] = {"key": key, "target": target, "weight": 1.0 if weight is None else weight}
        for part in ("key", "target", "weight"):
            kept = self.family.windows[n, part]
            function = "with_earlier" if part != "weight" else "with_earlier_weights"
            extra = (key,) if part == "weight" else ()
            joined = call(runtime("lessons", function), name(kept.inner), now[part], *extra)
            lessons = self.named(joined, f"{part}_lessons")
            axis: dict[str, Like] = {"axis": -1} if part == "weight" else {}
            last = call(runtime("lessons", "last_lessons"), lessons, term.window - 1, self.valid, **axis)
            self.new[id(kept)] = self.named(last, f"{part}_kept")
            found.append(lessons)
        return found[0], found[1], found[2]

    def _rows(self, n: int, step: WeightStep) -> tuple[Expression, Expression]:
        """`x` and `dy` of one weight; several outer products stand below one another."""
        found, w = self.gradients[n], step.weight
        if step.products == 0:
            dy = found[f"g_{w}"]
            return dy.method("new_ones", (*_lead(dy), 1)), dy
        marks = ["", *(f"_{i + 1}" for i in range(1, step.products))]
        xs, dys = ([found[f"{part}_{w}{mark}"] for mark in marks] for part in ("x", "dy"))
        if step.products == 1:
            return xs[0], dys[0]
        together = self.code.runtime("course", "together")
        return call(together, *xs), call(together, *dys)

    def seen(self, n: int, term: Term, step: WeightStep) -> tuple[Expression, Expression, Expression]:
        """The same, and the inputs of the tokens themselves."""
        x, dy = self._rows(n, step)
        now = x if step.products < 2 else self.gradients[n][f"x_{step.weight}"]
        return x, dy, now if term.window == 1 else now[..., slice(term.window - 1, None), COLON]

    # --- gates and rates ---------------------------------------------------------------------

    def _gates(self) -> Expression | None:
        """Retention over the chunk, prepared once for all weights of the family."""
        write, plain = self.family.write, self.family.members[0].plain and not self.family.live
        if write.retain is None:
            return None
        if write.retain_axis in ("key", "value"):
            self.step.value(write.retain)
            rows = gate(self.scope, write.retain, self.family.memory, "key")
            prepare = self.code.runtime("course", "channel_gates")
            return self.named(call(prepare, rows, write.retain_axis, self.valid), "gate")
        value = write.retain_log or write.retain
        expression = self.per_token(value, self.step.value(write.terms[0].key))
        if self.family.size > 1:
            expression = expression.method("unsqueeze", -2)
        erases = any(_erases(s) for term in self.family.members[0].steps for s in term)
        if plain and erases:
            module, function = "memory", "retention_kernel"
        elif erases or self.family.live:
            module, function = "course", "gate_kernel"
        else:
            # Nothing looks at the weight on its way through the chunk.
            module, function = "memory", "retention"
        keyword = "log_retain" if write.retain_log is not None else "retain"
        prepared = call(self.code.runtime(module, function), **{keyword: expression}, valid=self.valid)
        return self.named(prepared, "gate")

    def per_token(self, value: Value, key: Expression) -> Expression:
        """A number per copy and token, `[B, H, C]`; literals become tensors."""
        self.step.value(value)
        expression = head_gate(self.scope, value, self.family.memory)
        if value.name in self.scope.constants:
            expression = call(self.code.runtime("token", "spread_heads"), expression, key)
        return expression

    def expressions(self, term: Term, x: Expression, dy: Expression | None = None) -> ExprRows:
        """Where the coefficients of a rule are written: its arguments, the rows of the gradient."""
        rows = ExprRows.inside(self.scope)
        rows.bind("x", x)
        rows.bind("dy", x if dy is None else dy)
        if self.family.members[0].counted:
            number = rows_of(name(self.scope.names.of(STEP)), STEP, self.family.memory)
            rows.bind("step", number.method("unsqueeze", -3) if self.family.size > 1 else number)
        for argument, value in term.rule.arguments:
            self.step.value(value)
            expression = gate(self.scope, value, self.family.memory)
            stacked = self.family.size > 1 and value.name not in self.scope.constants
            rows.bind(argument, expression.method("unsqueeze", -3) if stacked else expression, "argument")
        return rows

    # --- steps -------------------------------------------------------------------------------

    def _plain(self, w: str, step: WeightStep, gates: Expression | None) -> Expression:
        """One `delta_write` or `decay_write`."""
        x, dy = self._rows(0, step)
        rows = self.expressions(self.family.write.terms[0], x, dy)
        rates: dict[str, Like] = {}
        assert step.rate is not None
        if step.erase is not None:
            rates["erase"] = self.named(rows.scalar(step.erase, x), f"erase_{w}")
        same = step.erase is step.rate
        rates["rate"] = rates["erase"] if same else self.named(rows.scalar(step.rate, x), f"rate_{w}")
        function = self.code.runtime("memory", "delta_write" if step.erase is not None else "decay_write")
        kept = {} if self.step.inverses is None or step.erase is None else {"kept": self.step.inverses}
        written = call(function, self.column(w, "running"), x, dy, **rates, **self._around(w, gates), **kept)
        return self.named(self._column_back(w, written), f"{self.family.label}_{w}_next")

    def _around(self, w: str, gates: Expression | None) -> dict[str, Like]:
        out: dict[str, Like] = {} if gates is None else {"gate": gates}
        if w in self.family.toward:
            out["toward"] = self.column(w, "toward")
        return {**out, "valid": self.valid}

    def column(self, w: str, group: str) -> Expression:
        """A weight as a matrix; a bias is a column, driven by an input of one."""
        part = {"running": self.family.running, "toward": self.family.toward}[group][w]
        return self.as_column(w, name(part.inner))

    def as_column(self, w: str, row: Expression) -> Expression:
        return row.attr("mT") if len(self.family.shapes[w]) == 1 else row

    _column_back = as_column

    def _course(self, w: str, steps: list[WeightStep], gates: Expression | None) -> Expression:
        """`Course(W, (Impulse(x, dy, ...), ...), gate)`."""
        impulses, keeps = [], []
        for n, (term, step) in enumerate(zip(self.family.write.terms, steps, strict=True)):
            x, dy, now = self.seen(n, term, step)
            rows = self.expressions(term, now, dy)
            impulses.append(self._impulse(n, term, step, (x, dy, now), rows))
            if step.keep is not None:
                keeps.append(self.named(rows.scalar(step.keep, now), f"keep_{w}"))
        if self._own_gates():
            gates = self._scaled_gates(keeps)
        slot = self._dual(w)
        start = self.column(w, "running") if slot is None else self.as_column(w, name(slot.inner))
        course = call(
            self.code.runtime("course", "Course"),
            start,
            tuple(impulses),
            **self._around(w, gates),
        )
        return self.named(course, f"{self.family.label}_{w}_course")

    def _scaled_gates(self, keeps: list[Expression]) -> Expression | None:
        """`a + sum of (keep - 1)`: retention and what the rules leave of the weight."""
        write = self.family.write
        total: Expression | None = None
        if write.retain is not None:
            total = self.per_token(write.retain, self.step.value(write.terms[0].key))
        for keep in keeps:
            total = keep if total is None else total + keep - 1.0
        if total is None:
            return None
        prepare = self.code.runtime("course", "gate_kernel")
        return self.named(call(prepare, retain=total, valid=self.valid), "gate")

    def _impulse(
        self,
        n: int,
        term: Term,
        step: WeightStep,
        seen: tuple[Expression, Expression, Expression],
        rows: ExprRows,
    ) -> Expression:
        x, dy, now = seen
        w, options = step.weight, dict[str, Like]()

        def rate(expr: Expr, wanted: str) -> Expression:
            return self.named(rows.scalar(expr, now), f"{wanted}_{w}")

        if step.erase is not None:
            options["erase"] = rate(step.erase, "erase")
        if step.rate is not None:
            options["rate"] = options["erase"] if step.rate is step.erase else rate(step.rate, "rate")
        if step.momentum is not None:
            m = step.momentum
            i = self.family.weights.index(w)
            place = next(p for p in self.family.places if (p.term, p.weight, p.name) == (n, i, m.slot))
            slot = self.as_column(w, name(self.family.slots[place.key].inner))
            filtered = self._filter(n, m, rate)
            options["momentum"] = call(self.code.runtime("course", "Momentum"), slot, filtered)
        options |= self.lesson_options(n, term, step)
        return call(self.code.runtime("course", "Impulse"), x, dy, **options)

    def lesson_options(self, n: int, term: Term, step: WeightStep) -> dict[str, Like]:
        """How the lessons of a term are told, beside `x` and `dy`."""
        options: dict[str, Like] = {}
        if self.weights[n] is not None:
            options["weight"] = self.weights[n]
        if term.window > 1:
            options["window"] = term.window
        if step.products > 1:
            options["products"] = step.products
        if step.constant:
            options["constant"] = self.gradients[n][f"c_{step.weight}"]
        return options

    def _filter(self, n: int, m: MomentumStep, rate: Callable[[Expr, str], Expression]) -> Expression:
        """The filter of a momentum; one for all weights, unless it asks for their inputs."""
        asked = (m.beta, m.rate, m.read, *(() if m.erase is None else (m.erase,)))
        if (n, asked) not in self.filters:
            names = ("beta", "slot_rate", "read", "slot_erase")
            coefficients = (rate(e, wanted) for e, wanted in zip(asked, names, strict=False))
            prepare = self.code.runtime("course", "momentum_filter")
            made = self.named(call(prepare, *coefficients, valid=self.valid), "momentum_filter")
            self.filters[n, asked] = made
        if any(s.role == "rule" for e in asked for s in symbols(e)):
            return self.filters.pop((n, asked))
        return self.filters[n, asked]

    def _close(self, w: str, course: Expression) -> None:
        """The weight and its momenta behind the chunk."""
        i = self.family.weights.index(w)
        slots = [p.key for p in self.family.places if p.weight == i]
        dual = self._dual(w)
        parts = [self.family.running[w], *(self.family.slots[k] for k in slots)] if dual is None else [dual]
        if len(parts) == 1:
            ends = [self.named(course.method("end"), f"{self.family.label}_{w}_next")]
        else:
            names = [self.scope.names.fresh(f"{p.outer}_next") for p in parts]
            self.scope.add(assign(names, course.method("close")))
            ends = [name(n) for n in names]
        for part, end in zip(parts, ends, strict=True):
            self.new[id(part)] = self.as_column(w, end)
        if dual is not None:
            self.new[id(self.family.running[w])] = self._linked(w, self.new[id(dual)])

    def _dual(self, w: str) -> Part | None:
        """The slot that steps in place of the weight."""
        i = self.family.weights.index(w)
        places = [p for p in self.family.places if p.weight == i] if self.family.mirrored else []
        return self.family.slots[places[0].key] if places else None

    def _linked(self, w: str, dual: Expression) -> Expression:
        """What the rule makes of the dual: the weight."""
        step = self.family.members[0].steps[0][self.family.weights.index(w)]
        assert step.dual is not None
        rows = ExprRows.inside(self.scope)
        rows.bind(step.dual.symbol.name, dual, "slot")
        rows.count([step.dual.link])
        return self.named(rows.write(step.dual.link), f"{self.family.label}_{w}_linked")

    # --- at the commit -----------------------------------------------------------------------

    def _gather(self) -> None:
        """What the rule will run on: the gradients of the chunk, summed."""
        for n, term in enumerate(self.family.write.terms):
            for step in self.family.members[0].steps[n]:
                x, dy = self._rows(n, step)
                part = self.family.gathered[n, step.weight]
                options = self.lesson_options(n, term, step)
                total = self.as_column(step.weight, name(part.inner))
                gathered = call(
                    self.code.runtime("course", "gather"), total, x, dy, **options, valid=self.valid
                )
                self.new[id(part)] = self.named(self.as_column(step.weight, gathered), f"{part.outer}_next")

    def _last(self, value: Value, axis: str) -> Expression:
        """A gate or rate at the last token of the chunk, `[B, H, 1, 1]` (or `[.., 1, n]`)."""
        self.step.value(value)
        rows = gate(self.scope, value, self.family.memory, "key" if axis == "value" else axis)
        return call(self.code.runtime("lessons", "last_token"), rows, self.valid)


def _erases(step: WeightStep) -> bool:
    return step.erase is not None or (step.momentum is not None and step.momentum.erase is not None)


def _lead(rows: Expression) -> tuple[Expression, ...]:
    return (Starred(rows.attr("shape")[slice(None, -1)]),)
