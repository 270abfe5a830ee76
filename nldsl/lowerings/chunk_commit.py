"""Rules `at commit`: one step per chunk, on the gradients the chunk has gathered."""

from __future__ import annotations

from nldsl.emit.nodes import Expression, If, Statement, assign, call, name
from nldsl.lowerings.blocks import BlockCode
from nldsl.lowerings.chunk_family import Family
from nldsl.lowerings.gates import gate
from nldsl.lowerings.scope import Scope
from nldsl.lowerings.stepping import apply_rule, combine, projected
from nldsl.spec.program import Rule, Value


class ChunkCommit:
    """Emits the commit of one family into the loop over chunks.

    `given`: names, in `forward`, of the gates and rates of the committing token, as the step returns them.
    """

    def __init__(self, code: BlockCode, family: Family) -> None:
        self.code, self.family = code, family
        self.scope = Scope(code.scope.imports, code.scope.names, "chunk", constants=code.scope.constants)
        varying = [v for v, _ in commit_values(family) if v.name not in code.scope.constants]
        self.given = [family.fresh(f"{v.name}_last") for v in varying]

    def emit(self, ends: Expression, behind: Expression) -> Statement:
        """`if fires(ends): ...`: the new weights and slots of the samples whose chunk ends."""
        family, write = self.family, self.family.write
        values = self._values()
        before = self.scope.names.fresh("commits")
        reset = family.memory.reset_every if family.memory.reset == "tokens" else 0
        counted = call(self.code.runtime("token", "commits_before"), behind, family.memory.clock.every, reset)
        self.scope.add(assign(before, counted))
        slots: dict[str, Expression] = {k: name(p.outer) for k, p in family.slots.items()}
        new: dict[str, Expression] = {}
        for i, w in enumerate(family.weights):
            given: Expression = name(family.running[w].outer)
            toward = name(family.toward[w].outer) if w in family.toward else None
            if toward is not None:
                offset = self.scope.names.fresh(f"{family.label}_{w}_offset")
                self.scope.add(assign(offset, given - toward))
                given = name(offset)
            steps = []
            for n, term in enumerate(write.terms):
                places = [p for p in family.places if (p.term, p.weight) == (n, i)]
                known = {
                    "W": given,
                    "g": call(
                        self.code.runtime("grid", "of_firing"), ends, name(family.gathered[n, w].outer)
                    ),
                    "step": call(self.code.runtime("token", "next_step"), name(before), given),
                    **{a: values[v.name] for a, v in term.rule.arguments},
                }
                label = (family.label, w)
                stepped = apply_rule(
                    self.code, self.scope, term.rule, known, places, slots, name(before), label
                )
                steps.append(stepped)
            kept = None if write.retain is None else values[write.retain.name]
            total = projected(self.scope, write, combine(write, kept, steps, given, toward))
            fresh = self.scope.names.fresh(f"{family.label}_{w}_next")
            self.scope.add(assign(fresh, total))
            new[w] = name(fresh)
        self._choose(ends, new, slots)
        return If(call(self.code.runtime("grid", "fires"), ends), tuple(self.scope.body))

    def _choose(self, ends: Expression, new: dict[str, Expression], slots: dict[str, Expression]) -> None:
        """Only the samples whose chunk ends step; what they had gathered is used up."""
        family, choose = self.family, self.code.runtime("grid", "choose")
        chosen = [(family.running[w].outer, e) for w, e in new.items()]
        chosen += [(p.outer, slots[k]) for k, p in family.slots.items()]
        for outer, expression in chosen:
            self.scope.add(assign(outer, call(choose, ends, expression, name(outer))))
        for part in family.gathered.values():
            empty = call("torch.zeros_like", name(part.outer))
            self.scope.add(assign(part.outer, call(choose, ends, empty, name(part.outer))))

    def _values(self) -> dict[str, Expression]:
        """Gates and rates of the committing token, by the name of the value."""
        found: dict[str, Expression] = {}
        names = iter(self.given)
        for value, axis in commit_values(self.family):
            if value.name in self.scope.constants:
                found[value.name] = gate(self.scope, value, self.family.memory)
            else:
                row: Expression = name(next(names))
                found[value.name] = row.attr("mT") if axis == "value" else row
        return found


def commit_values(family: Family) -> list[tuple[Value, str]]:
    """What a rule at the commit needs of its token: (value, axis) of every gate and rate."""
    write = family.write
    if not write.at_commit:
        return []
    found: list[tuple[Value, str]] = [] if write.retain is None else [(write.retain, write.retain_axis)]
    for term in write.terms:
        axes = argument_axes(term.rule)
        found += [(v, axes.get(n, "scalar")) for n, v in term.rule.arguments]
    return found


def argument_axes(rule: Rule) -> dict[str, str]:
    """Along which axis the arguments of a rule run: a vector stands for the key channels."""
    return {v.name: "key" if v.kind == "vector" else "scalar" for v in rule.function.inputs}
