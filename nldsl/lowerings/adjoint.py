"""Gradients of the values of a step in the making: each is summed under one name, in place where possible."""

from __future__ import annotations

from nldsl.emit.nodes import (
    AugmentedAssign,
    Evaluate,
    Expression,
    Invoke,
    Operation,
    Statement,
    Var,
    assign,
    call,
)
from nldsl.lowerings.flat import MODULES, Flat, operands
from nldsl.lowerings.scope import Imports

WITHOUT = frozenset({"detach", "new_ones", "new_full", "new_zeros", "zeros_like", "ones_like", "full_like"})
"""Functions and methods whose results do not depend on the values of their arguments."""

ARITHMETIC = frozenset("+ - * / ** @".split())


class Adjoint:
    """What a rule works with: names of forward values, and gradients that it adds to."""

    def __init__(self, flat: Flat, imports: Imports, fixed: frozenset[str], kept: str) -> None:
        self.flat, self.names, self.imports = flat, flat.names, imports
        self.made = {t: b for b in flat.bindings for t in b.targets}
        self.fixed = fixed
        self.body: list[Statement] = []
        self.grads: dict[str, str] = {}
        self.owned: set[str] = set()
        """Values whose gradient is a tensor of its own, so that more may be added in place."""
        self.active = self._depending()
        writes = [b.out for b in flat.bindings if function_of(b.value) == "delta_write"]
        self.places = {out: i for i, out in enumerate(writes)}
        self.kept = Var(kept)

    def _depending(self) -> set[str]:
        active: set[str] = set(self.flat.parameters)
        for binding in self.flat.bindings:
            compares = isinstance(binding.value, Operation) and binding.value.op not in ARITHMETIC
            if compares or function_of(binding.value) in WITHOUT:
                continue
            if any(o not in self.fixed and (o not in self.made or o in active) for o in used(binding.value)):
                active |= set(binding.targets)
        return active

    def depends(self, operand: Expression) -> bool:
        """Whether an operand has a gradient."""
        if not isinstance(operand, Var) or operand.name in self.fixed:
            return False
        return operand.name not in self.made or operand.name in self.active

    def pullback(self, function: str) -> Expression:
        """A formula of the runtime."""
        return self.imports.use(f"nldsl.runtime.pullbacks:{function}")

    def let(self, wanted: str, value: Expression) -> Expression:
        """A name for a value that several gradients need."""
        fresh = self.names.fresh(wanted)
        self.body.append(assign(fresh, value))
        return Var(fresh)

    def add(self, operand: Expression, gradient: Expression, *, owned: bool = False) -> None:
        """Add to the gradient of an operand; `owned`: nothing else holds the tensor."""
        if not isinstance(operand, Var) or not self.depends(operand):
            return
        key = operand.name
        if key not in self.grads:
            self.grads[key] = self.names.fresh(f"d_{key}")
            self.body.append(assign(self.grads[key], gradient))
            self.owned |= {key} if owned else set()
            return
        so_far = self.grads[key]
        if key in self.owned:
            self.body.append(AugmentedAssign(Var(so_far), "+", gradient))
        else:
            self.body.append(assign(so_far, Var(so_far) + gradient))
            self.owned.add(key)

    def add_product(self, operand: Expression, left: Expression, right: Expression) -> None:
        """Add a matrix product, in place where possible."""
        if not isinstance(operand, Var) or not self.depends(operand):
            return
        if operand.name in self.owned:
            total = Var(self.grads[operand.name])
            self.body.append(Evaluate(call(self.pullback("add_product"), total, left, right)))
        else:
            self.add(operand, call(self.pullback("product"), left, right, operand), owned=True)

    def add_square(self, operand: Expression, gradient: Expression) -> None:
        """Add what the gradient of its square sends to an operand, in one pass where possible."""
        if isinstance(operand, Var) and operand.name in self.owned:
            total = Var(self.grads[operand.name])
            self.body.append(Evaluate(total.method("addcmul_", gradient, operand, value=2)))
        else:
            self.add(operand, gradient * (operand * 2), owned=True)

    def add_parts(self, operand: Expression, gradient: Expression) -> None:
        """Add to the gradient of a value with parts (gates)."""
        if not isinstance(operand, Var) or not self.depends(operand):
            return
        if operand.name not in self.grads:
            self.add(operand, gradient)
            return
        so_far = self.grads[operand.name]
        self.body.append(assign(so_far, call(self.pullback("together"), Var(so_far), gradient)))

    def of(self, target: str) -> Expression | None:
        """The gradient of a value, once all who use it have added to it."""
        return Var(self.grads[target]) if target in self.grads else None


def function_of(value: Expression) -> str:
    """The last word of the function or method a value calls."""
    if not isinstance(value, Invoke):
        return ""
    function = value.function
    return getattr(function, "name", "")


def used(value: Expression) -> list[str]:
    """Names of the operands of one operation, without that of the function."""
    if isinstance(value, Invoke):
        own = operands(value.function) if not isinstance(value.function, Var) else iter(())
        own = (name for name in own if name not in MODULES)
        return [*own, *operands(value.args), *operands(tuple(v for _, v in value.kwargs))]
    return list(operands(value))
