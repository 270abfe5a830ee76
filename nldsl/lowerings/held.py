"""Memories whose gradients and reads look at the last commit: all chunks in one call of the runtime."""

from __future__ import annotations

from nldsl.calculus.expression import Expr, number
from nldsl.calculus.lift import parameter_symbol, weight_symbol
from nldsl.emit.nodes import Expression, Like, assign, call, name, to_expression
from nldsl.lowerings import chunk
from nldsl.lowerings.blocks import BlockCode, as_row, as_state
from nldsl.lowerings.exprs import ExprRows
from nldsl.lowerings.numbered import number_steps
from nldsl.lowerings.pullbacks import pulled
from nldsl.lowerings.slots import origin_of
from nldsl.plan.details import ChunkMemory
from nldsl.plan.held import HeldDetail
from nldsl.plan.plan import Unit
from nldsl.spec.program import Value

HEADLESS = (slice(None), slice(None), None)
WINDOW = ("key", "target", "weight")
"""What the state keeps of the lessons that later windows hold."""
_FIELDS = {"base": "committed"}
"""What a group of the state is called behind the pass."""


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
        assert detail.step is not None
        self.step = detail.step
        assert self.memory.function is not None
        self.weights = tuple(w.name for w in self.memory.function.weights)
        self.shapes = {w.name: w.shape for w in self.memory.function.weights}
        self.base = "base" if self.member.live else "committed"

    def emit(self) -> None:
        """The grid, what fades, the pass, the new state."""
        fresh, runtime = self.scope.names.fresh, self.code.runtime
        path, label = self.memory.path, self.memory.name
        grid, fade, held = fresh("grid"), fresh(f"{label}_fade"), fresh(f"{label}_held")
        state = name("state")[path]
        tokens = self.scope.source.attr("shape")[1]
        cut = call(runtime("grid", "ChunkGrid"), state["count"], name("mask"), tokens, self.detail.grid)
        self.scope.add(assign(grid, cut))
        key = self._row(self.term.key)
        lessons = self._lessons(name(grid), key, state)
        gates = self._gates()
        if lessons is not None:
            gates["lessons"] = lessons.attr("lessons")
        elif self.term.weight is not None:
            weighed = call(runtime("held_lessons", "weighed"), name(grid), self._weight(key))
            gates["lessons"] = self._named(weighed, f"{label}_lessons")
        self.scope.add(assign(fade, self._fade(name(grid), key, gates)))
        queries = tuple(self._row(r.key) for r in self.detail.reads)
        told = (
            (key, self._row(self.term.target))
            if lessons is None
            else (lessons.attr("key"), lessons.attr("target"))
        )
        rows: tuple[Like, ...] = (queries, *told, *self._arguments(key))
        groups = (
            self._held(state["running"], self.weights),
            self._held(state[self.base], self.weights),
            self._held(state["slots"], self._slots()) if self._slots() else (),
        )
        made = call(
            runtime("held_pass", "held_pass"),
            name(grid),
            self.write.base_every,
            self._functions(),
            rows,
            name(fade),
            groups,
            **self._waiting(state),
            **self._around(),
            **self._besides(),
            **self._following(name(grid), key, gates),
        )
        self.scope.add(assign(held, made))
        for i, read in enumerate(self.detail.reads):
            answer = name(held).attr("reads")[i]
            shaped = answer if self.memory.per_head else answer.attr("squeeze")(2)
            self.scope.add(assign(self.scope.names.of(read.out), shaped))
        self._store(name(held), name(grid).attr("count"), lessons)

    def _fade(self, grid: Expression, key: Expression, gates: dict[str, Like]) -> Expression:
        """What is left of every step, or what the one step at the commit is made of."""
        if not self.write.at_commit:
            return call(self.code.runtime("held_gates", "fading"), grid, key, **gates)
        made = self.code.runtime("held_commit", "committing")
        return call(made, grid, self.write.base_every, key, **gates)

    def _waiting(self, state: Expression) -> dict[str, Like]:
        """The sums of gradients that wait for the commit."""
        if not self.write.at_commit:
            return {}
        return {"gathered": self._held(state["gathered"]["0"], self.weights)}

    def _lessons(self, grid: Expression, key: Expression, state: Expression) -> Expression | None:
        """The lessons in the windows of all chunks."""
        if self.term.window == 1:
            return None
        kept = [state["windows"]["0"][part] for part in WINDOW]
        behind = tuple(w if self.memory.per_head else w[slice(None), None] for w in kept)
        rows = (key, self._row(self.term.target), self._weight(key))
        told = self.code.runtime("held_lessons", "window_lessons")
        return self._named(call(told, grid, rows, behind, self.term.window), f"{self.memory.name}_lessons")

    def _named(self, made: Expression, wanted: str) -> Expression:
        label = self.scope.names.fresh(wanted)
        self.scope.add(assign(label, made))
        return name(label)

    def _weight(self, key: Expression) -> Expression:
        """What a token's lesson counts, `[B, T, H, 1]`."""
        weight = self.term.weight
        given = to_expression(1.0) if weight is None else self._gate(weight)
        return call(self.code.runtime("held_gates", "gate_rows"), key, given)

    def _functions(self) -> Expression | tuple[Expression, Expression]:
        detail, function = self.detail, self.memory.function
        assert detail.answer is not None
        assert detail.gradient is not None
        assert function is not None
        functions = self.code.functions
        weights = tuple(weight_symbol(w.name, w.shape) for w in function.weights)
        weights += tuple(parameter_symbol(p) for a in function.body for p in a.parameters)
        scaled = f"_{self.term.rule.name}" if detail.scaled else ""
        learnt = f"{function.name}_{self.term.objective.name}{scaled}_gradient"
        return (
            pulled(functions, detail.answer, function.name, weights, self.member.live),
            pulled(functions, detail.gradient, learnt, weights, owned=True),
        )

    def _arguments(self, key: Expression) -> tuple[Expression, ...]:
        """Arguments of the rule that stand in front of gradients, as rows `[B, T, H, 1]`."""
        given, runtime = dict(self.term.rule.arguments), self.code.runtime
        asked = (self._steps() if a == "step" else self._gate(given[a]) for a in self.detail.arguments)
        return tuple(call(runtime("held_gates", "gate_rows"), key, a) for a in asked)

    def _steps(self) -> Expression:
        """The number of the rule's application, `[B, T, 1]`; at a commit as if it were one at every token."""
        tokens = number_steps(self.code, self.memory)[..., None]
        return tokens / float(self.memory.clock.every) if self.write.at_commit else tokens

    def _around(self) -> dict[str, Like]:
        """What retention moves the weights toward."""
        initial = [self.code.initial(self.memory, i) for i in range(len(self.weights))]
        origin = origin_of(self.memory, self.code.block.memories)
        if self.write.toward != "init" or any(p is None for p in origin.initial):
            return {}
        return {"toward": tuple(w if self.memory.per_head else w[None] for w in initial)}

    def _besides(self) -> dict[str, Like]:
        """Which weights are biases, and slow parameters of the map."""
        found = tuple(i for i, w in enumerate(self.weights) if len(self.shapes[w]) == 1)
        assert self.memory.function is not None
        shared = tuple(self.code.slow(self.memory.function))
        window: dict[str, Like] = {} if self.term.window == 1 else {"window": self.term.window}
        return ({"biases": found} if found else {}) | ({"shared": shared} if shared else {}) | window

    def _following(self, grid: Expression, key: Expression, gates: dict[str, Like]) -> dict[str, Like]:
        """What is left of every step at every token, for reads of the running state."""
        if not self.member.live:
            return {}
        made = self.code.runtime("held_gates", "following")
        kinds = sorted(set(self.detail.before))
        found = []
        for before in kinds:
            label = self.scope.names.fresh(f"{self.memory.name}_{'before' if before else 'after'}")
            how: dict[str, Like] = {"before": True} if before else {}
            self.scope.add(assign(label, call(made, grid, key, **gates, **how)))
            found.append(name(label))
        return {"live": tuple(found[kinds.index(b)] for b in self.detail.before)}

    def _slots(self) -> tuple[str, ...]:
        momentum = self.step.momentum
        return () if momentum is None else tuple(f"{momentum.slot}.{w}" for w in self.weights)

    def _held(self, group: Expression, keys: tuple[str, ...]) -> tuple[Expression, ...]:
        """Weights `[B, H, out, in]`, biases `[B, H, 1, out]`."""
        found = [as_row(self.shapes[w], group[k]) for k, w in zip(keys, self.weights, strict=True)]
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

    def _gates(self) -> dict[str, Like]:
        """The numbers of a step, as the runtime takes them."""
        step, options = self.step, dict[str, Like]()
        rows = ExprRows.inside(self.scope)
        if step.counted:
            rows.bind("step", self._steps())
        for argument, value in self.term.rule.arguments:
            rows.bind(argument, self._gate(value), "argument")
        if self.write.retain_log is not None and not self.write.at_commit:
            options["log_retain"] = self._gate(self.write.retain_log)
        elif self.write.retain is not None:
            options["retain"] = self._gate(self.write.retain)
        momentum, one = step.momentum, number(1.0)
        scaled = self.detail.scaled
        asked: tuple[tuple[str, Expr | None], ...] = (("scale", step.keep), ("rate", step.rate))
        if momentum is not None:
            slot_rate = one if scaled else momentum.rate
            asked += (("beta", momentum.beta), ("slot_rate", slot_rate), ("read", momentum.read))
        elif scaled:
            asked = (("rate", one),)
        known = [(label, rows.known(e)) for label, e in asked if e is not None]
        # Each is asked for by what ends and by what follows.
        rows.count(e for _, e in known * (2 if self.member.live else 1))
        return options | {label: rows.write(e) for label, e in known}

    def _store(self, held: Expression, count: Expression, lessons: Expression | None) -> None:
        groups: list[tuple[str, tuple[str, ...]]] = [("running", self.weights), (self.base, self.weights)]
        if self._slots():
            groups.append(("slots", self._slots()))
        entries: dict[str, Like] = {group: self._shaped(held, group, keys) for group, keys in groups}
        if lessons is not None:
            kept = [lessons.attr("kept")[i] for i in range(len(WINDOW))]
            whole = [w if self.memory.per_head else w.attr("squeeze")(1) for w in kept]
            entries["windows"] = {"0": dict(zip(WINDOW, whole, strict=True))}
        if self.write.at_commit:
            entries["gathered"] = {"0": self._shaped(held, "gathered", self.weights)}
        entries["count"] = count
        self.scope.add(assign(name("new")[self.memory.path], entries))

    def _shaped(self, held: Expression, group: str, keys: tuple[str, ...]) -> Like:
        """A group of weights behind the pass as the state has it."""
        found = [held.attr(_FIELDS.get(group, group))[i] for i in range(len(keys))]
        whole = [w if self.memory.per_head else w.attr("squeeze")(1) for w in found]
        shaped = [as_state(self.shapes[n], w) for n, w in zip(self.weights, whole, strict=True)]
        return dict(zip(keys, shaped, strict=True))
