"""How the terms of a write move the weights of a memory, or of a family, at one token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nldsl.calculus.pieces import TermForm
from nldsl.emit.nodes import Expression, assign, call, name
from nldsl.lowerings.chunk_commit import argument_axes
from nldsl.lowerings.rank_one import OuterStep, Total, pieces_of
from nldsl.lowerings.stepping import adds_only, apply_rule, combine, projected
from nldsl.spec.program import Term, Write

if TYPE_CHECKING:
    from nldsl.lowerings.token_memory import TokenMemory


@dataclass(frozen=True)
class Told:
    """What one term tells one weight; both are numbered, `found` holds the factors of the gradients."""

    number: int
    index: int
    weight: str
    term: Term
    found: dict[str, Expression]


class TokenSteps:
    """Writes the new weights, and the memories of the rules, of one memory or family."""

    def __init__(self, memory: TokenMemory) -> None:
        self.owner = memory
        self.code, self.scope = memory.code, memory.scope

    def step(
        self,
        write: Write,
        terms: list[tuple[int, Term]],
        found: dict[int, dict[str, Expression]],
        steps: Expression,
    ) -> None:
        """`W' = r + a (W - r) + sum of deltas`; `steps` counts how often the rules had run."""
        owner = self.owner
        toward = self._toward(write)
        kept = None if write.retain is None else owner.gate(write.retain, write.retain_axis)
        stepped: dict[str, Expression] = {}
        for i, weight in enumerate(owner.weights):
            given = owner.current[weight]
            if toward is not None:
                offset = self.scope.names.fresh(f"{owner.label}_{weight}_offset")
                self.scope.add(assign(offset, given - toward[i]))
                given = name(offset)
            anchor = None if toward is None else toward[i]
            told = [Told(n, i, weight, term, found[n]) for n, term in terms]
            forms = [self._pieces(t) for t in told]
            if any(f is not None for f in forms):
                made = self._outer(told, forms, Total(given, kept), steps).written(anchor)
            else:
                made = self._as_written(write, told, (given, kept, anchor), steps)
            stepped[weight] = projected(self.scope, write, made)
        for weight, expression in stepped.items():
            owner.assign(weight, expression)

    def _toward(self, write: Write) -> list[Expression] | None:
        owner = self.owner
        if write.toward == "zero":
            return None
        if "origin" in owner.carried:
            return [name(n) for n in owner.carried["origin"].values()]
        if owner.starts:
            return [name(n) for n in owner.starts.values()]
        return [self.code.initial(owner.memory, i) for i in range(len(owner.weights))]

    # --- rules of rank one -------------------------------------------------------------------

    def _pieces(self, told: Told) -> TermForm | None:
        """The form of a rule along the input of a weight, if the gradient is one outer product."""
        known = f"x_{told.weight}" in told.found
        return pieces_of(told.term, self.owner.shapes[told.weight]) if known else None

    def _outer(
        self, told: Sequence[Told], forms: Sequence[TermForm | None], total: Total, steps: Expression
    ) -> Total:
        """The new weight as one sum."""
        for one, form in zip(told, forms, strict=True):
            if form is None:
                total.replace(self._rule(one, total.given, steps))
            else:
                self._add(total, one, form)
        return total

    def _add(self, total: Total, told: Told, form: TermForm) -> None:
        """The pieces of one term, through its memory of gradients if it has one."""
        owner, axes = self.owner, argument_axes(told.term.rule)
        rates = {n: owner.gate(v, axes.get(n, "scalar")) for n, v in told.term.rule.arguments}
        x, dy = (told.found[f"{part}_{told.weight}"] for part in ("x", "dy"))
        step = OuterStep(self.scope, x, dy, rates)
        wanted = f"{owner.label}_{told.weight}_taken"
        outers = [step.outer(piece, total.given, wanted) for piece in form.pieces]
        if form.keep.value != 1.0:
            total.scale(step.write(form.keep))
        if form.momentum is None:
            total.added += [("-", outer) for outer in outers]
            return
        beta, read = form.momentum
        (slot,) = (p.key for p in owner.places if (p.term, p.weight) == (told.number, told.index))
        filtered = step.write(beta) * owner.current_slots[slot]
        for outer in outers:
            filtered = filtered - outer
        fresh = self.scope.names.fresh(f"{owner.label}_{slot.replace('.', '_')}_next")
        self.scope.add(assign(fresh, filtered))
        owner.current_slots[slot] = name(fresh)
        total.added.append(("+", name(fresh) if read.value == 1.0 else step.write(read) * name(fresh)))

    # --- rules as written --------------------------------------------------------------------

    def _as_written(
        self,
        write: Write,
        told: Sequence[Told],
        around: tuple[Expression, Expression | None, Expression | None],
        steps: Expression,
    ) -> Expression:
        """The new weight where no rule has such a form; `around`: what they are given, gate, anchor."""
        given, kept, anchor = around
        shape = self.owner.shapes[told[0].weight]
        if kept is not None and len(told) == 1 and adds_only(told[0].term.rule, shape):
            # The rule leaves what it is given alone, so it may be given what retention has left.
            stepped = self._rule(told[0], kept * given, steps)
            return combine(write, None, [stepped], given, anchor)
        return combine(write, kept, [self._rule(t, given, steps) for t in told], given, anchor)

    def _rule(self, told: Told, given: Expression, steps: Expression) -> Expression:
        """The rule's new weight; its slots step on the way."""
        owner, rule, weight = self.owner, told.term.rule, told.weight
        axes = argument_axes(rule)
        own = [p for p in owner.places if (p.term, p.weight) == (told.number, told.index)]
        known: dict[str, Expression] = {
            "W": given,
            "g": owner.lessons.whole(told.found, weight),
            "step": call(self.code.runtime("token", "next_step"), steps, given),
            **{n: owner.gate(v, axes.get(n, "scalar")) for n, v in rule.arguments},
        }
        factors = {part: f"{part}_{weight}" for part in ("x", "dy")}
        known |= {part: told.found[key] for part, key in factors.items() if key in told.found}
        label = (owner.label, weight)
        return apply_rule(self.code, self.scope, rule, known, own, owner.current_slots, steps, label)
