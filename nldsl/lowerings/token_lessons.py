"""What a term tells a memory at one token: the gradients of the lessons in its window, summed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nldsl.emit.nodes import Expression, Like, assign, call, name
from nldsl.lowerings.functions import slow_parameters
from nldsl.lowerings.gates import head_gate, target_rows
from nldsl.spec.program import Term, Value, Write

if TYPE_CHECKING:
    from nldsl.lowerings.token_memory import TokenMemory

COLON = slice(None)


class TokenLessons:
    """The windows of one memory's terms (`kept`: names carried from token to token) and their evidence."""

    def __init__(self, memory: TokenMemory) -> None:
        self.owner = memory
        self.kept = {
            (n, part): memory.code.scope.names.fresh(f"{memory.label}_{part}_{n + 1}")
            for n, _, term in memory.terms
            if term.window > 1
            for part in ("key", "target", "weight")
        }
        self.current: dict[tuple[int, str], Expression] = {p: name(n) for p, n in self.kept.items()}

    def evidence(self, n: int, write: Write, term: Term) -> dict[str, Expression]:
        """Per weight the gradient `g_W`, and `x_W`, `dy_W` of the present token where it has them."""
        scope, memory = self.owner.scope, self.owner.memory
        key = self._given(term.key, scope.ref(term.key), write)
        if self.owner.size > 1:
            return self._gradients(write, term, key.method("unsqueeze", -3), self._targets(key, write))
        target = self._given(term.target, target_rows(scope, term.target, key, memory), write)
        if term.window == 1 and term.weight is None:
            return self._gradients(write, term, key, target)
        weight = self._weight(term, key)
        if term.window > 1:
            key, target, weight = self._window(n, write, key, target, weight)
        one_by_one = self.owner.code.runtime("lessons", "one_by_one")
        found = self._gradients(write, term, call(one_by_one, key), call(one_by_one, target))
        return self._summed(found, weight)

    def _given(self, value: Value, expression: Expression, write: Write) -> Expression:
        """A key or a target, in rows; literals and slow parameters have no samples."""
        whole = value.name in self.owner.scope.constants or value.name in self.owner.scope.unbatched
        return expression if whole else self.owner.lasting(write, expression)

    def _targets(self, key: Expression, write: Write) -> Expression:
        """The targets of a family, side by side, or the one they share."""
        owner = self.owner
        targets = tuple(w.terms[0].target for w in (write, *owner.others))
        if targets[0].kind in ("headed", "vector"):
            return owner.loop.stacker.stacked(targets)
        return target_rows(owner.scope, targets[0], key, owner.memory).method("unsqueeze", -3)

    def whole(self, found: dict[str, Expression], weight: str) -> Expression:
        """The gradient of a weight as one tensor."""
        if f"g_{weight}" in found:
            return found[f"g_{weight}"]
        return found[f"dy_{weight}"].attr("mT") @ found[f"x_{weight}"]

    def _gradients(
        self, write: Write, term: Term, key: Expression, target: Expression
    ) -> dict[str, Expression]:
        scope, owner = self.owner.scope, self.owner
        gradient = owner.code.gradient(owner.memory, term.objective)
        at = owner.base(write)
        if owner.memory.init == "first":
            at = [w.method("detach") for w in at]
        arguments = (key, target, *at, *slow_parameters(owner.function, ""))
        results = {r: scope.names.fresh(f"{owner.label}_{r}") for r in gradient.results}
        names = list(results.values())
        scope.add(assign(names if len(names) > 1 else names[0], call(gradient.function, *arguments)))
        return {r: name(m) for r, m in results.items()}

    def _weight(self, term: Term, key: Expression) -> Expression:
        """The weight of the present token's lessons, `[B, H, lessons]`."""
        scope = self.owner.scope
        spread = self.owner.code.runtime("token", "spread_heads")
        if term.weight is None:
            return call(spread, 1.0, key)
        weight = head_gate(scope, term.weight, self.owner.memory)
        if term.weight.name in scope.constants:
            return call(spread, weight, key)
        return weight.method("expand", key.attr("shape")[slice(None, -1)])

    def _window(
        self, n: int, write: Write, key: Expression, target: Expression, weight: Expression
    ) -> tuple[Expression, Expression, Expression]:
        """The lessons of the window; all but the oldest token's stay for the next token."""
        scope, code = self.owner.scope, self.owner.code
        window = next(term.window for m, _, term in self.owner.terms if m == n)
        found = []
        for part, now in (("key", key), ("target", target), ("weight", weight)):
            place = (n, part)
            function = "with_earlier" if part != "weight" else "with_earlier_weights"
            extra = (key,) if part == "weight" else ()
            lessons = scope.names.fresh(f"{part}_lessons")
            joined = call(
                code.runtime("lessons", function),
                self.owner.lasting(write, name(self.kept[place])),
                now,
                *extra,
            )
            scope.add(assign(lessons, joined))
            axis: dict[str, Like] = {"axis": -1} if part == "weight" else {}
            last = call(code.runtime("lessons", "last_lessons"), name(lessons), window - 1, None, **axis)
            after = scope.names.fresh(f"{self.kept[place]}_next")
            scope.add(assign(after, last))
            self.current[place] = name(after)
            found.append(name(lessons))
        return found[0], found[1], found[2]

    def _summed(self, found: dict[str, Expression], weight: Expression) -> dict[str, Expression]:
        """Over the lessons; what a rule sees beside `g` is the present token's, if it has one key."""
        code, out = self.owner.code, dict[str, Expression]()
        for w in self.owner.weights:
            total = self.owner.scope.names.fresh(f"{self.owner.label}_g_{w}")
            summed = call(code.runtime("lessons", "weighted_sum"), self.whole(found, w), weight)
            self.owner.scope.add(assign(total, summed))
            out[f"g_{w}"] = name(total)
            if f"x_{w}" in found:
                now = weight[..., slice(-1, None), None]
                out[f"x_{w}"] = found[f"x_{w}"][-1]
                out[f"dy_{w}"] = found[f"dy_{w}"][-1] * now
        return out
