"""Inside one chunk: reads, gradients and writes of memories that run side by side.

Memories of one family differ in their targets only, so their weights are stacked on an axis behind
the heads, `[B, H, m, out, in]`, and one product serves all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nldsl.emit.nodes import Expression, Like, Statement, assign, call, name
from nldsl.lowerings.apply import lower_apply
from nldsl.lowerings.blocks import BlockCode
from nldsl.lowerings.exprs import ExprRows
from nldsl.lowerings.functions import slow_parameters
from nldsl.lowerings.gates import gate, head_gate, target_rows
from nldsl.lowerings.scope import Imports, Names, Scope
from nldsl.lowerings.stacking import Stacker
from nldsl.plan.details import ChunkDetail, ChunkMemory, WeightStep
from nldsl.plan.plan import Unit
from nldsl.spec.program import Apply, Read, Value

COLON = slice(None)


@dataclass
class Family:
    """Memories side by side, and the names of their stacked weights in `forward`."""

    members: tuple[ChunkMemory, ...]
    label: str
    weights: tuple[str, ...]
    running: dict[str, str]
    seen: dict[str, str]
    new: dict[str, str]
    toward: dict[str, str]
    inner: dict[str, str] = field(default_factory=dict)
    """Names inside the step: `W`, `W_seen`, `W_init`."""

    @classmethod
    def of(cls, detail: ChunkDetail, names: tuple[str, ...], fresh: Callable[[str], str]) -> Family:
        """The family of the memories called `names`."""
        members = tuple(m for n in names for m in detail.members if m.memory.name == n)
        function = members[0].memory.function
        assert function is not None
        label = names[0] if len(names) == 1 else fresh("memories")
        weights = tuple(w.name for w in function.weights)
        named = {part: {w: fresh(f"{label}_{w}{part}") for w in weights} for part in ("", "_seen", "_new")}
        toward = {
            w: fresh(f"{label}_{w}_init")
            for i, w in enumerate(weights)
            if members[0].write.toward == "init" and members[0].memory.initial[i] is not None
        }
        return cls(members, label, weights, named[""], named["_seen"], named["_new"], toward)

    @property
    def size(self) -> int:
        """How many memories run side by side."""
        return len(self.members)

    @property
    def every(self) -> int:
        """The clock they share."""
        return self.members[0].memory.clock.every

    @property
    def stack_axis(self) -> int:
        """Where the memory axis goes in a weight of the state `[B, H, out, in]` or `[B, out, in]`."""
        return 2 if self.members[0].memory.per_head else 1

    def load(self, code: BlockCode) -> list[Statement]:
        """Committed, running and initial weights, stacked."""
        out: list[Statement] = []
        for w in self.weights:
            for group, target in (("committed", self.seen[w]), ("running", self.running[w])):
                parts = [name("state")[m.memory.path][group][w] for m in self.members]
                out.append(assign(target, self._stack(parts, self.stack_axis)))
        for w, target in self.toward.items():
            index = self.weights.index(w)
            initials = [code.initial(m.memory, index) for m in self.members]
            out.append(assign(target, self._stack(initials, self.stack_axis - 1)))
        return out

    def _stack(self, parts: Sequence[Expression], axis: int) -> Expression:
        return parts[0] if self.size == 1 else call("torch.stack", tuple(parts), dim=axis)

    def arguments(self) -> list[Expression]:
        """What the step is given."""
        return [name(n) for part in (self.seen, self.running, self.toward) for n in part.values()]

    def parameter_names(self, scope: Scope) -> list[str]:
        """The same inside the step."""
        self.inner = {f"{w}_seen": scope.names.fresh(f"{self.label}_{w}_seen") for w in self.weights}
        self.inner |= {w: scope.names.fresh(f"{self.label}_{w}") for w in self.weights}
        self.inner |= {f"{w}_init": scope.names.fresh(f"{self.label}_{w}_init") for w in self.toward}
        return list(self.inner.values())

    def new_names(self) -> list[str]:
        """Names for the running weights the step returns."""
        return list(self.new.values())

    def commit(self, code: BlockCode, ends: Expression) -> list[Statement]:
        """`W = W_new`, and `W_seen` too where the chunk ends."""
        choose = code.runtime("grid", "choose")
        out: list[Statement] = []
        for w in self.weights:
            out.append(assign(self.running[w], name(self.new[w])))
            out.append(assign(self.seen[w], call(choose, ends, name(self.new[w]), name(self.seen[w]))))
        return out

    def store(self, code: BlockCode, count: Expression) -> list[Statement]:
        """The new state of every member."""
        out: list[Statement] = []
        axis = self.stack_axis
        for i, member in enumerate(self.members):
            entries: dict[str, Like] = {}
            for group, names in (("running", self.running), ("committed", self.seen)):
                entries[group] = {
                    w: name(n) if self.size == 1 else name(n).method("select", axis, i)
                    for w, n in names.items()
                }
            entries["count"] = count
            out.append(assign(name("new")[member.memory.path], entries))
        return out


class ChunkStep:
    """The body of the step method."""

    def __init__(self, code: BlockCode, unit: Unit, detail: ChunkDetail, families: list[Family]) -> None:
        self.code, self.detail, self.families = code, detail, families
        imports: Imports = code.scope.imports
        self.scope = Scope(imports, Names(code.functions.locals), "chunk")
        self.steps = [code.block.body[i] for i in unit.statements]
        self.maker = {s.out.name: s for s in self.steps if isinstance(s, Apply | Read)}
        self.stacker = Stacker(self, {f.label: f for f in families})
        self.done: set[str] = set()

    def emit(self, outgoing: list[Value], valid: Expression) -> list[Expression]:
        """Everything that is needed outside, then the new running weights."""
        self.done |= {v.name for v in self.detail.incoming}
        results = [self.value(v) for v in outgoing]
        for family in self.families:
            results += self._write(family, valid)
        return results

    def value(self, value: Value) -> Expression:
        """A value in scope, computed now if it is not there yet."""
        if value.name not in self.done and value.name not in self.scope.constants:
            self.done.add(value.name)
            maker = self.maker[value.name]
            if isinstance(maker, Apply):
                for argument in maker.args:
                    self.value(argument)
                lower_apply(self.scope, maker)
            else:
                self.stacker.read(maker)
        return self.scope.ref(value)

    # --- writes ------------------------------------------------------------------------------

    def _write(self, family: Family, valid: Expression) -> list[Expression]:
        member = family.members[0]
        memory, term = member.memory, member.term
        assert memory.function is not None
        key = self.value(term.key)
        if family.size > 1:
            key = key.method("unsqueeze", -3)
        target = self._target(family)
        gradient = self.code.gradient(memory, term.objective)
        seen = [name(family.inner[f"{w}_seen"]) for w in family.weights]
        names = {r: self.scope.names.fresh(r) for r in gradient.results}
        arguments = (key, target, *seen, *slow_parameters(memory.function, ""))
        self.scope.add(assign(list(names.values()), call(gradient.function, *arguments)))
        gates = self._gates(family, valid)
        out = []
        for step in member.steps:
            x, dy = name(names[f"x_{step.weight}"]), name(names[f"dy_{step.weight}"])
            out.append(self._step(family, step, x, dy, gates, valid))
        return out

    def _target(self, family: Family) -> Expression:
        targets = tuple(m.term.target for m in family.members)
        memory = family.members[0].memory
        if family.size == 1 or targets[0].kind not in ("headed", "vector"):
            key = self.value(family.members[0].term.key)
            self.value(targets[0])
            rows = target_rows(self.scope, targets[0], key, memory)
            return rows.method("unsqueeze", -3) if family.size > 1 else rows
        return self.stacker.stacked(targets)

    def _gates(self, family: Family, valid: Expression) -> dict[str, Expression]:
        """`gate=retention(...)`, shared by all weights of the family."""
        write = family.members[0].write
        if write.retain is None:
            return {}
        value = write.retain_log or write.retain
        self.value(value)
        expression = self._spread(head_gate(self.scope, value, family.members[0].memory), value, family)
        erases = any(s.erase is not None for s in family.members[0].steps)
        function = self.code.runtime("memory", "retention_kernel" if erases else "retention")
        keyword = "log_retain" if write.retain_log is not None else "retain"
        made = self.scope.names.fresh("gate")
        self.scope.add(assign(made, function(**{keyword: expression}, valid=valid)))
        return {"gate": name(made)}

    def _spread(self, expression: Expression, value: Value, family: Family) -> Expression:
        """A gate `[B, H, C]` with the memory axis if there is one; literals become tensors."""
        if value.name in self.scope.constants:
            key = self.scope.ref(family.members[0].term.key)
            expression = call(self.code.runtime("token", "spread_heads"), expression, key)
        return expression.method("unsqueeze", -2) if family.size > 1 else expression

    def _step(
        self,
        family: Family,
        step: WeightStep,
        x: Expression,
        dy: Expression,
        gates: dict[str, Expression],
        valid: Expression,
    ) -> Expression:
        """One `delta_write` or `decay_write`."""
        member = family.members[0]
        rows = ExprRows.inside(self.scope)
        rows.bind("x", x)
        for argument, value in member.term.rule.arguments:
            self.value(value)
            expression = gate(self.scope, value, member.memory)
            plain = value.name in self.scope.constants
            rows.bind(
                argument,
                expression.method("unsqueeze", -3) if family.size > 1 and not plain else expression,
                "argument",
            )
        rates: dict[str, Expression] = {}
        if step.erase is not None:
            rates["erase"] = self._named(rows.scalar(step.erase, x), f"erase_{step.weight}")
        same = step.erase is not None and step.erase is step.rate
        rates["rate"] = (
            rates["erase"] if same else self._named(rows.scalar(step.rate, x), f"rate_{step.weight}")
        )
        toward = {"toward": name(family.inner[f"{step.weight}_init"])} if step.weight in family.toward else {}
        function = self.code.runtime("memory", "delta_write" if step.erase is not None else "decay_write")
        running = name(family.inner[step.weight])
        return self._named(
            function(running, x, dy, **rates, **gates, **toward, valid=valid),
            f"{family.label}_{step.weight}_next",
        )

    def _named(self, expression: Expression, wanted: str) -> Expression:
        made = self.scope.names.fresh(wanted)
        self.scope.add(assign(made, expression))
        return name(made)
