"""Rates of writes that follow the steps of training: `M[k] <- v by gd(lr = cosine(0.1, warmup = 100))`.

Such a number is a parameter of one element that no gradient and no rule moves: `train` sets it before every
step to what its schedule says.  It starts at the peak: a model that is not trained steps at that rate, and
one that was trained keeps the last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from nldsl.catalog.values import Initialiser
from nldsl.source import Span
from nldsl.spec.clauses import bind_rule, bound_rule
from nldsl.spec.frame import Frame
from nldsl.spec.functions import BoundDefinition
from nldsl.spec.items import Item, MemoryBox
from nldsl.spec.primitives import apply
from nldsl.spec.program import Apply, Rule, Statement, Value
from nldsl.spec.train import Scheduled, read_schedules
from nldsl.syntax import tree

_CHAIN = ("detach", "sum", "maximum", "minimum")
"""What stands behind a scheduled number, in order."""


def scheduled(
    frame: Frame, found: BoundDefinition, schedules: Iterable[Scheduled], memory: str, span: Span
) -> BoundDefinition:
    """The rule with a value of the block for every argument that follows a schedule."""
    definition, unit, bound = found
    variable = frame.variable
    moving: dict[str, Item] = {}
    for argument, name, options in schedules:
        frame.variable = f"{memory}_{argument}"
        drawn = apply(frame, "weight", (), {"sizes": (1,)}, span, derived=True)
        assert isinstance(drawn, Value)
        made = frame.body[-1]
        (own,) = made.parameters
        peak = float(dict(options)["value"])  # type: ignore[arg-type]
        init = Initialiser("constant", peak)
        frame.body[-1] = replace(made, parameters=(replace(own, init=init, schedule=(name, options)),))
        constant = apply(frame, "detach", (drawn,), {}, span, derived=True)
        assert isinstance(constant, Value)
        number = apply(frame, "sum", (constant,), {}, span, derived=True)
        # What is never left is said: a rate between 0 and its peak is known not to blow up.
        for limit, end in (("maximum", min(0.0, peak)), ("minimum", max(0.0, peak))):
            assert isinstance(number, Value)
            number = apply(frame, limit, (number, frame.constant(end, span)), {}, span, derived=True)
        moving[argument] = number
    frame.variable = variable
    return definition, unit, {**bound, **moving}


def memory_rule(frame: Frame, node: tree.Expr, box: MemoryBox) -> Rule | None:
    """The rule behind `by` of a write; its arguments may be values of the block or follow schedules."""
    plain, schedules = read_schedules(frame, node)
    found = bind_rule(frame, plain) if schedules is not None else None
    if found is None or schedules is None:
        return None
    memory = box.name.split("[")[0]
    return bound_rule(frame, scheduled(frame, found, schedules, memory, node.span), box, node.span)


def without_schedules(body: Iterable[Statement], unused: set[str]) -> list[Statement]:
    """The statements without those that make the values `unused` from scheduled numbers."""
    statements, dead = list(body), set(unused)
    chains: dict[str, list[Apply]] = {}
    for s in statements:
        if isinstance(s, Apply) and s.op == "weight" and s.parameters[0].schedule is not None:
            chains[s.out.name] = [s]
        elif isinstance(s, Apply) and s.op in _CHAIN and s.args[0].name in chains:
            chains[s.out.name] = [*chains[s.args[0].name], s]
    gone = {id(s) for name in dead for s in chains.get(name, ())}
    return [s for s in statements if id(s) not in gone]
