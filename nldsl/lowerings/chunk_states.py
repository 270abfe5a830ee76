"""Weights that mix with what their rules remember: `StatesCourse` in a chunk whose gradients are held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nldsl.calculus.expression import Expr, symbols
from nldsl.calculus.rule_states import StatesForm
from nldsl.emit.nodes import Expression, Like, call, name, to_expression
from nldsl.lowerings.exprs import ExprRows
from nldsl.plan.details import WeightStep

if TYPE_CHECKING:
    from nldsl.lowerings.chunk_write import ChunkWriter

Entries = list[Like]


class StatesWriter:
    """Emits the courses of one family; the numbers are prepared once for weights that share them."""

    def __init__(self, writer: ChunkWriter) -> None:
        self.writer, self.family = writer, writer.family
        self.mixings: dict[tuple[Expr, ...], Expression] = {}

    def course(self, w: str, steps: list[WeightStep]) -> Expression:
        """`StatesCourse(W, slots, taken, erased, mixing, toward)`."""
        writer, family = self.writer, self.family
        i = family.weights.index(w)
        terms = list(zip(family.write.terms, steps, strict=True))
        forms = [_known(s) for s in steps]
        seen = [writer.seen(n, term, step) for n, (term, step) in enumerate(terms)]
        runtime = self.writer.code.runtime
        taken, erased, way = [], [], 0
        for n, ((term, step), form) in enumerate(zip(terms, forms, strict=True)):
            x, dy, now = seen[n]
            if any(r.value != 0.0 for r in form.rates):
                options = writer.lesson_options(n, term, step)
                taken.append(call(runtime("course_states", "Taken"), x, dy, way, **options))
                way += 1
            for of, _ in form.erases:
                place = of + sum(len(f.slots) for f in forms[:n]) if of else 0
                erased.append(call(runtime("course_states", "Erased"), now, way, place))
                way += 1
        slots = [p for p in family.places if p.weight == i]
        held = tuple(writer.as_column(w, name(family.slots[p.key].inner)) for p in slots)
        toward = {"toward": writer.column(w, "toward")} if w in family.toward else {}
        return call(
            runtime("course_states", "StatesCourse"),
            writer.column(w, "running"),
            held,
            tuple(taken),
            tuple(erased),
            self._mixing(forms, [now for _, _, now in seen]),
            **toward,
        )

    def _mixing(self, forms: list[StatesForm], inputs: list[Expression]) -> Expression:
        """One for all weights, unless a rule asks for their inputs."""
        asked = tuple(e for form in forms for e in form.numbers())
        if asked in self.mixings:
            return self.mixings[asked]
        made = self.writer.named(self._prepared(forms, inputs), "mixing")
        if not any((s.role, s.name) == ("rule", "x") for e in asked for s in symbols(e)):
            self.mixings[asked] = made
        return made

    def _prepared(self, forms: list[StatesForm], inputs: list[Expression]) -> Expression:
        """`Mixing(key, rows, ways, valid)`: all slots of all terms behind the weight."""
        count = 1 + sum(len(form.slots) for form in forms)
        rows: list[Entries] = [[float(i == j) for j in range(count)] for i in range(count)]
        ways: list[Entries] = []
        keeps: list[Like] = []
        first = 1
        for term, form, now in zip(self.family.write.terms, forms, inputs, strict=True):
            written = self.writer.expressions(term, now)
            written.count(written.known(e) for e in form.numbers())
            places = [0, *range(first, first + len(form.slots))]
            first += len(form.slots)
            for i, row in zip(places, form.rows, strict=True):
                for j, entry in zip(places, row, strict=True):
                    if i or j:
                        rows[i][j] = _number(written, entry, now)
            if form.keep.value != 1.0:
                keeps.append(_number(written, form.keep, now))
            into = [form.rates] if any(r.value != 0.0 for r in form.rates) else []
            for way in (*into, *(w for _, w in form.erases)):
                full: Entries = [0.0] * count
                for i, entry in zip(places, way, strict=True):
                    full[i] = _number(written, entry, now)
                ways.append(full)
        rows[0][0] = self._kept(keeps)
        key = self.writer.step.value(self.family.write.terms[0].key)
        made = self.writer.code.runtime("course_states", "Mixing")
        return call(made, key, tuple(map(tuple, rows)), tuple(map(tuple, ways)), self.writer.valid)

    def _kept(self, keeps: list[Like]) -> Like:
        """`a + sum of (keep - 1)`: retention and what the rules leave of the weight."""
        write = self.family.write
        total: Like | None = None
        if write.retain is not None:
            total = self.writer.per_token(write.retain, self.writer.step.value(write.terms[0].key))
        for keep in keeps:
            if total is None:
                total = keep
            elif isinstance(keep, float):
                total = to_expression(total) + (keep - 1.0)
            else:
                total = to_expression(total) + keep - 1.0
        return 1.0 if total is None else total


def _known(step: WeightStep) -> StatesForm:
    assert step.states is not None
    return step.states


def _number(rows: ExprRows, entry: Expr, like: Expression) -> Like:
    """A number per token `[..., C]`, or one for all."""
    value = rows.known(entry).value
    return rows.scalar(entry, like) if value is None else value
