"""What every lowering of one block shares: its scope, its functions, its way to call blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

from nldsl.catalog.values import Shape
from nldsl.emit.nodes import (
    Assign,
    Evaluate,
    Expression,
    For,
    Statement,
    TupleOf,
    assign,
    call,
    name,
    to_expression,
)
from nldsl.library import PRIMITIVES
from nldsl.lowerings.apply import parameter
from nldsl.lowerings.functions import Functions, slow_parameters
from nldsl.lowerings.gradients import Gradient, gradient
from nldsl.lowerings.layout import to_chunk, to_sequence
from nldsl.lowerings.scope import Layout, Names, Scope
from nldsl.lowerings.slots import origin_of
from nldsl.plan.plan import BlockPlan, Plan
from nldsl.plan.units import written_in_forward
from nldsl.spec.program import Apply, Block, Call, Function, Memory, Repeat, TaskWrite, Value
from nldsl.spec.program import Statement as Step

COLON = slice(None)


def fork(scope: Scope, layout: Layout) -> Scope:
    """A scope for code nested in another (a loop body, a step): same file, own names."""
    inner_names = Names(scope.names.reserved, scope.names.taken, promised=scope.names.promised)
    return Scope(scope.imports, inner_names, layout, source=scope.source, mask=scope.mask)


@dataclass
class BlockCode:
    """One emitted class in the making; `scope` is the body of its `forward`."""

    plan: Plan
    block_plan: BlockPlan
    functions: Functions
    scope: Scope
    methods: list[Statement] = field(default_factory=list)

    @property
    def block(self) -> Block:
        """The block it computes."""
        return self.block_plan.block

    def runtime(self, module: str, function: str) -> Expression:
        """A function of the run-time library, imported when first named."""
        return self.scope.imports.use(f"nldsl.runtime.{module}:{function}")

    def memory(self, wanted: str) -> Memory:
        """The memory of that name."""
        return next(m for m in self.block.memories if m.name == wanted)

    # --- memories ----------------------------------------------------------------------------

    def initial(self, memory: Memory, index: int) -> Expression:
        """The learned initial state of one weight, or 0.0; a bias is one row."""
        assert memory.function is not None
        owner = origin_of(memory, self.block.memories).initial[index]
        if owner is None:
            return to_expression(0.0)
        return as_row(memory.function.weights[index].shape, parameter(owner.path))

    def map_call(self, memory: Memory, key: Expression, weights: list[Expression]) -> Expression:
        """`map(key, weights..., slow parameters...)`."""
        assert memory.function is not None
        return call(self.functions.map(memory), key, *weights, *self.slow(memory.function))

    def slow(self, function: Function) -> list[Expression]:
        """Slow parameters of a map (norms inside it)."""
        return slow_parameters(function, "")

    def gradient(self, memory: Memory, objective: Function) -> Gradient:
        """The emitted gradient of `objective` at the memory's map."""
        assert memory.function is not None
        return gradient(self.functions, memory.function, objective)

    def pairs(self, memory: Memory, objective: Function) -> Gradient:
        """The same, row by row: the factors of every weight's gradient."""
        assert memory.function is not None
        return gradient(self.functions, memory.function, objective, rows=True)

    # --- state -------------------------------------------------------------------------------

    def state_paths(self, step: Step) -> list[str]:
        """Keys under which a statement keeps hidden state."""
        if isinstance(step, Apply) and PRIMITIVES[step.op].stateful:
            return [step.path]
        return [step.path] if isinstance(step, Call | Repeat) and has_state(step.block) else []

    # --- calls -------------------------------------------------------------------------------

    def lower_call(self, scope: Scope, step: Call | Repeat) -> None:
        """`y, new["mixer"] = self.mixer(x, state["mixer"], mask)`; a loop for `repeat`."""
        args = [self._whole(scope, v) for v in step.args]
        if isinstance(step, Repeat):
            self._repeat(scope, step, args)
        else:
            self._call(scope, step, args)

    def _whole(self, scope: Scope, value: Value) -> Expression:
        expression = scope.ref(value)
        return to_sequence(expression, value.kind) if scope.layout == "chunk" else expression

    def _call(self, scope: Scope, step: Call, args: list[Expression]) -> None:
        outs = [scope.names.of(v) for v in step.outs]
        stateful = has_state(step.block)
        old = scope.old_state(step.path) if stateful else name("state")
        result = call(parameter(step.path), *args, old, scope.mask)
        kept: Expression = scope.new_state(step.path) if stateful else name("_")
        scope.add(Assign((TupleOf((*map(name, outs), kept)),), result))
        self._after(scope, step.outs)

    def _repeat(self, scope: Scope, step: Repeat, args: list[Expression]) -> None:
        carried = [scope.names.of(v) for v in step.outs]
        scope.add(*(assign(c, a) for c, a in zip(carried, args, strict=False)))
        fixed = args[len(carried) :]
        layers, layer, old = (scope.names.fresh(n) for n in ("layers", "layer", "before"))
        stateful = has_state(step.block)
        after = scope.names.fresh("after")
        blocks = parameter(step.path)
        result = call(
            name(layer), *map(name, carried), *fixed, name(old) if stateful else name("state"), scope.mask
        )
        kept = name(after) if stateful else name("_")
        body: list[Statement] = [Assign((TupleOf((*map(name, carried), kept)),), result)]
        if stateful:
            body.append(_append(layers, name(after)))
            scope.add(assign(layers, []))
            pairs = call("zip", blocks, scope.old_state(step.path), strict=True)
            scope.add(For((layer, old), pairs, tuple(body)))
            scope.add(assign(scope.new_state(step.path), name(layers)))
        else:
            scope.add(For((layer,), blocks, tuple(body)))
        self._after(scope, step.outs)

    def _after(self, scope: Scope, outs: tuple[Value, ...]) -> None:
        if scope.layout == "chunk":
            for value in outs:
                if value.kind in ("headed", "heads"):
                    out = scope.names.of(value)
                    scope.add(assign(out, to_chunk(name(out), value.kind)))


def _append(target: str, value: Expression) -> Statement:
    return Evaluate(name(target).method("append", value))


def as_row(shape: Shape, weight: Expression) -> Expression:
    """A weight as functions of a memory take it: a bias `[..., n]` is a row, a number `[..., 1, 1]`."""
    if not shape:
        return weight[..., None, None]
    return weight.method("unsqueeze", -2) if len(shape) == 1 else weight


def as_state(shape: Shape, weight: Expression) -> Expression:
    """The reverse of `as_row`: a bias has no axis of rows in the state, a number none at all."""
    if not shape:
        return weight[..., 0, 0]
    return weight.method("squeeze", -2) if len(shape) == 1 else weight


def has_state(block: Block) -> bool:
    """Whether anything inside a block is carried from token to token."""
    return any(_keeps(block, s) for s in block.body)


def _keeps(block: Block, step: Step) -> bool:
    if isinstance(step, Apply):
        return PRIMITIVES[step.op].stateful
    if isinstance(step, Call | Repeat):
        return has_state(step.block)
    if isinstance(step, TaskWrite):
        return True
    return bool(written_in_forward(block))
