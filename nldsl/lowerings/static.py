"""Statements that need no state over time: computed for all tokens at once."""

from __future__ import annotations

from nldsl.emit.nodes import Expression, assign, call, name, to_expression
from nldsl.lowerings.apply import lower_apply, parameter
from nldsl.lowerings.blocks import BlockCode, as_row
from nldsl.lowerings.gates import heads_of
from nldsl.lowerings.layout import to_chunk, to_sequence
from nldsl.lowerings.perceptrons import CALL, is_perceptron
from nldsl.lowerings.slots import origin_of
from nldsl.plan.plan import Unit
from nldsl.spec.program import Apply, Call, Memory, Read, Repeat, TaskWrite

COLON = slice(None)


def lower(code: BlockCode, unit: Unit) -> None:
    """Append the one statement of a static unit to `forward`."""
    for index in unit.statements:
        statement = code.block.body[index]
        if isinstance(statement, Apply):
            lower_apply(code.scope, statement)
        elif isinstance(statement, Call | Repeat):
            code.lower_call(code.scope, statement)
        elif isinstance(statement, Read):
            _read(code, statement)
        else:
            assert isinstance(statement, TaskWrite), "only task writes have no effect in `forward`"


def _read(code: BlockCode, read: Read) -> None:
    """A memory that `forward` never changes: its learned weights, plus what `learn` has added to them."""
    memory = code.memory(read.memory)
    key = to_chunk(code.scope.ref(read.key), read.key.kind)
    weights = static_weights(code, memory)
    assert memory.function is not None
    if learns_from_task(code, memory) and not memory.per_head and is_perceptron(memory.function):
        value: Expression = call(code.runtime("kept_layers", CALL), key, *weights)
    else:
        value = answer(code, memory, read, key, weights)
    code.scope.add(assign(code.scope.names.of(read.out), to_sequence(value, read.out.kind)))


def answer(
    code: BlockCode, memory: Memory, read: Read, key: Expression, weights: list[Expression]
) -> Expression:
    """`map(key, weights)` in chunk layout; m query heads on one copy read it together."""
    groups = heads_of(read.key) // memory.heads if memory.per_head else 1
    if groups == 1:
        return code.map_call(memory, key, weights)
    key = key.method("unflatten", 1, (memory.heads, groups))
    weights = [w[..., None, COLON, COLON] for w in weights]
    return code.map_call(memory, key, weights).method("flatten", 1, 2)


def solved(code: BlockCode, system: Memory, read: Read, key: Expression, matrix: Expression) -> Expression:
    """`(H + ridge I)^-1 q` in chunk layout, every copy for its own queries."""
    assert read.solve is not None
    _, ridge, iterations = read.solve
    function = code.runtime("solve", "ridge_solve")
    groups = heads_of(read.key) // system.heads if system.per_head else 1
    if groups == 1:
        return call(function, matrix, key, ridge=ridge, iterations=iterations)
    key = key.method("unflatten", 1, (system.heads, groups))
    found = call(function, matrix[..., None, COLON, COLON], key, ridge=ridge, iterations=iterations)
    return found.method("flatten", 1, 2)


def static_weights(code: BlockCode, memory: Memory) -> list[Expression]:
    """`W` itself, or `adapted(W, state["F"], "W")` for a memory that learns from the task."""
    assert memory.function is not None
    weights = []
    for weight, owner in zip(memory.function.weights, source(code, memory).initial, strict=True):
        if owner is None:
            shape = (memory.heads, *weight.shape) if memory.per_head else weight.shape
            plain: Expression = call("self.zeros", *map(to_expression, shape))
        else:
            plain = parameter(owner.path)
        if learns_from_task(code, memory):
            plain = call(code.runtime("task", "adapted"), plain, name("state")[memory.path], weight.name)
        weights.append(as_row(weight.shape, plain))
    return weights


def source(code: BlockCode, memory: Memory) -> Memory:
    """The memory whose parameters it starts from: its own, or those at the end of `init M2` (Eq. 72)."""
    return origin_of(memory, code.block.memories)


def learns_from_task(code: BlockCode, memory: Memory) -> bool:
    """Whether a task write names this memory."""
    return any(isinstance(s, TaskWrite) and s.memory == memory.name for s in code.block.body)
