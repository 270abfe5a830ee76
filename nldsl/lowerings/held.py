"""Memories whose gradients and reads look at the last commit: all chunks in one call of the runtime."""

from __future__ import annotations

from nldsl.calculus.expression import Expr
from nldsl.emit.nodes import Expression, Like, assign, call, name
from nldsl.lowerings import chunk
from nldsl.lowerings.blocks import BlockCode
from nldsl.lowerings.exprs import ExprRows
from nldsl.lowerings.pullbacks import pulled
from nldsl.plan.details import ChunkMemory
from nldsl.plan.held import HeldDetail
from nldsl.plan.plan import Unit
from nldsl.spec.program import Value

HEADLESS = (slice(None), slice(None), None)


def lower(code: BlockCode, unit: Unit) -> None:
    """Append the pass to `forward`; with checkpoints, the loop over chunks."""
    detail = unit.detail
    assert isinstance(detail, HeldDetail)
    if code.plan.target.checkpoint:
        chunk.lower(code, unit)
    else:
        HeldPass(code, detail).emit()


class HeldPass:
    """Emits the pass of one memory."""

    def __init__(self, code: BlockCode, detail: HeldDetail) -> None:
        self.code, self.detail, self.scope = code, detail, code.scope
        self.member: ChunkMemory = detail.members[0]
        self.memory, self.write = self.member.memory, self.member.write
        self.term = self.write.terms[0]
        assert self.memory.function is not None
        self.weights = tuple(w.name for w in self.memory.function.weights)

    def emit(self) -> None:
        """The grid, what fades, the pass, the new state."""
        fresh, runtime = self.scope.names.fresh, self.code.runtime
        path, label = self.memory.path, self.memory.name
        grid, fade, held = fresh("grid"), fresh(f"{label}_fade"), fresh(f"{label}_held")
        state = name("state")[path]
        tokens = self.scope.source.attr("shape")[1]
        cut = call(runtime("grid", "ChunkGrid"), state["count"], name("mask"), tokens, self.detail.grid)
        self.scope.add(assign(grid, cut))
        self.scope.add(assign(fade, self._fading(name(grid))))
        queries = tuple(self._row(r.key) for r in self.detail.reads)
        rows = (queries, self._row(self.term.key), self._row(self.term.target))
        groups = (
            self._held(state["running"], self.weights),
            self._held(state["committed"], self.weights),
            self._held(state["slots"], self._slots()) if self._slots() else (),
        )
        clock = self.memory.clock.every
        made = call(
            runtime("held_pass", "held_pass"), name(grid), clock, self._functions(), rows, name(fade), groups
        )
        self.scope.add(assign(held, made))
        for i, read in enumerate(self.detail.reads):
            answer = name(held).attr("reads")[i]
            shaped = answer if self.memory.per_head else answer.attr("squeeze")(2)
            self.scope.add(assign(self.scope.names.of(read.out), shaped))
        self._store(name(held), name(grid).attr("count"))

    def _functions(self) -> Expression | tuple[Expression, Expression]:
        detail, function = self.detail, self.memory.function
        assert detail.answer is not None
        assert detail.gradient is not None
        assert function is not None
        functions = self.code.functions
        learnt = f"{function.name}_{self.term.objective.name}_gradient"
        return (
            pulled(functions, detail.answer, function.name, self.weights),
            pulled(functions, detail.gradient, learnt, self.weights),
        )

    def _slots(self) -> tuple[str, ...]:
        momentum = self.member.steps[0][0].momentum
        return () if momentum is None else tuple(f"{momentum.slot}.{w}" for w in self.weights)

    def _held(self, group: Expression, keys: tuple[str, ...]) -> tuple[Expression, ...]:
        """Weights `[B, H, out, in]`."""
        found = [group[k] for k in keys]
        return tuple(w if self.memory.per_head else w[slice(None), None] for w in found)

    def _row(self, value: Value) -> Expression:
        """Rows `[B, T, H, d]`."""
        expression = self.scope.ref(value)
        return expression if self.memory.per_head else expression[HEADLESS]

    def _gate(self, value: Value) -> Expression:
        """`[B, T, H]`, `[B, T, 1]`, or a literal."""
        expression = self.scope.ref(value)
        if value.name in self.scope.constants or value.shape:
            return expression
        return expression[..., None]

    def _fading(self, grid: Expression) -> Expression:
        step, options = self.member.steps[0][0], dict[str, Like]()
        rows = ExprRows.inside(self.scope)
        for argument, value in self.term.rule.arguments:
            rows.bind(argument, self._gate(value), "argument")
        if self.write.retain_log is not None:
            options["log_retain"] = self._gate(self.write.retain_log)
        elif self.write.retain is not None:
            options["retain"] = self._gate(self.write.retain)
        momentum = step.momentum
        asked: tuple[tuple[str, Expr | None], ...] = (("rate", step.rate),)
        if momentum is not None:
            asked += (("beta", momentum.beta), ("slot_rate", momentum.rate), ("read", momentum.read))
        known = [(label, rows.known(e)) for label, e in asked if e is not None]
        rows.count(e for _, e in known)
        options |= {label: rows.write(e) for label, e in known}
        return call(self.code.runtime("held_gates", "fading"), grid, self._row(self.term.key), **options)

    def _store(self, held: Expression, count: Expression) -> None:
        groups: list[tuple[str, tuple[str, ...]]] = [("running", self.weights), ("committed", self.weights)]
        if self._slots():
            groups.append(("slots", self._slots()))
        entries: dict[str, Like] = {}
        for group, keys in groups:
            found = [held.attr(group)[i] for i in range(len(keys))]
            shaped = [w if self.memory.per_head else w.attr("squeeze")(1) for w in found]
            entries[group] = dict(zip(keys, shaped, strict=True))
        entries["count"] = count
        self.scope.add(assign(name("new")[self.memory.path], entries))
