"""`initial_state` of an emitted class, and the table of its task memories."""

from __future__ import annotations

from nldsl.calculus.rules import leaves_weight, rule_form
from nldsl.catalog.values import Shape
from nldsl.emit.nodes import (
    Comprehension,
    Expression,
    FunctionDef,
    Like,
    Parameter,
    Statement,
    assign,
    call,
    name,
    returns,
    to_expression,
)
from nldsl.library import PRIMITIVES
from nldsl.lowerings.apply import parameter
from nldsl.lowerings.blocks import BlockCode, has_state
from nldsl.lowerings.slots import (
    SlotPlace,
    bases_of,
    numbered_terms,
    origin_of,
    restarts_from,
    slot_places,
)
from nldsl.lowerings.static import source
from nldsl.plan.units import written_in_forward
from nldsl.spec.program import Apply, Call, Memory, Repeat, TaskWrite, Term, Value, Write, option

GATE = "retain"
"""Under which key a task write notes its gate; no argument of a rule can bear this word of the language."""


def initial_state(code: BlockCode) -> FunctionDef:
    """`initial_state(batch)`: what stands before the first token of a sequence."""
    entries: dict[str, Like] = {}
    batch = name("batch")
    for step in code.block.body:
        if isinstance(step, Apply) and PRIMITIVES[step.op].stateful:
            entries[step.path] = _hidden(step)
        elif isinstance(step, Call) and has_state(step.block):
            entries[step.path] = parameter(step.path).method("initial_state", batch)
        elif isinstance(step, Repeat) and has_state(step.block):
            made = name("layer").method("initial_state", batch)
            entries[step.path] = Comprehension(made, ("layer",), parameter(step.path))
    changing = written_in_forward(code.block)
    tasks = {s.memory: s for s in code.block.body if isinstance(s, TaskWrite)}
    for memory in code.block.memories:
        if memory.function is None and memory.name in changing:
            entries[memory.path] = _cache(memory)
        elif memory.name in tasks:
            entries[memory.path] = _task(tasks[memory.name])
        elif memory.name in changing:
            entries[memory.path] = _weights(code, memory)
    state = name("dict")[name("str"), name("Any")]
    return FunctionDef(
        "initial_state",
        (Parameter("self"), Parameter("batch", name("int"))),
        (returns(to_expression(entries)),),
        "The state before the first token of `batch` sequences.",
        state,
    )


def _hidden(step: Apply) -> Like:
    """What `conv`, `shift`, `position` and `rope` remember."""
    batch = name("batch")
    if step.op == "conv":
        size, window = step.parameters[0].shape
        return {"tail": call("self.zeros", batch, window - 1, size)}
    if step.op == "shift":
        by = option(step.options, "by")
        assert isinstance(by, int)
        return {"tail": call("self.zeros", batch, by, *step.out.shape)}
    return {"count": call("self.counter", batch)}


def _task(write: TaskWrite) -> Like:
    """Nothing learnt yet; the values of the last token, where the rule or the gate need them."""
    batch = name("batch")
    entries: dict[str, Like] = {"delta": None, "count": call("self.counter", batch)}
    values = noted_values(write)
    if values:
        entries["seen"] = {key: call("self.zeros", batch, *v.shape) for key, v in values.items()}
    return entries


def noted_values(write: TaskWrite) -> dict[str, Value]:
    """Values of the token that a task write needs: arguments of its rule by name, and the gate."""
    found = dict(write.rule.arguments)
    return found if write.retain is None else {**found, GATE: write.retain}


def _cache(memory: Memory) -> Like:
    """An empty attention cache."""
    batch = name("batch")
    keys = call("self.zeros", batch, 0, memory.heads, memory.key_size)
    values = call("self.zeros", batch, 0, memory.heads, memory.value_size)
    counted = {"count": call("self.counter", batch)} if memory.reset == "tokens" else {}
    return {"keys": keys, "values": values, "valid": None, **counted}


def _weights(code: BlockCode, memory: Memory) -> Like:
    """Running weights, committed and base ones where the clock asks for them, rule memories, count."""
    assert memory.function is not None
    writes = [s for s in code.block.body if isinstance(s, Write) and s.memory == memory.name]
    start = {w.name: _start(code, memory, i) for i, w in enumerate(memory.function.weights)}
    entries: dict[str, Like] = {"running": start}
    if memory.clock.every > 1:
        entries["committed"] = start
    entries |= dict.fromkeys(bases_of(memory, writes), start)
    if restarts_from(memory) is not None:
        entries["origin"] = start
    slots = {p.key: _slot(memory, p) for p in slot_places(memory, writes)}
    windows = {str(n): _window(memory, t) for n, _, t in numbered_terms(writes) if t.window > 1}
    gathered = {str(n): _gathered(memory) for n, w, _ in numbered_terms(writes) if w.at_commit}
    for key, group in (("slots", slots), ("windows", windows), ("gathered", gathered)):
        if group:
            entries[key] = group
    entries["count"] = call("self.counter", name("batch"))
    return entries


def _window(memory: Memory, term: Term) -> Like:
    """The lessons of earlier tokens: none yet, so their weights are zero."""
    kept = term.window - 1
    return {
        "key": _zeros(memory, (kept, memory.key_size)) + 1.0,
        "target": _zeros(memory, (kept, memory.value_size)) + 1.0,
        "weight": _zeros(memory, (kept,)),
    }


def _gathered(memory: Memory) -> Like:
    """Nothing is waiting for the rule."""
    assert memory.function is not None
    return {w.name: _zeros(memory, w.shape) for w in memory.function.weights}


def _start(code: BlockCode, memory: Memory, index: int) -> Expression:
    owner = origin_of(memory, code.block.memories).initial[index]
    if owner is None:
        return _empty(memory, index)
    return call("self.start", parameter(owner.path), name("batch"))


def _slot(memory: Memory, place: SlotPlace) -> Expression:
    if place.initial is None:
        return _zeros(memory, place.shape)
    return call("self.start", parameter(place.initial.path), name("batch"))


def _empty(memory: Memory, index: int) -> Expression:
    assert memory.function is not None
    return _zeros(memory, memory.function.weights[index].shape)


def _zeros(memory: Memory, shape: Shape) -> Expression:
    heads = (memory.heads,) if memory.per_head else ()
    return call("self.zeros", name("batch"), *heads, *shape)


def lasting(code: BlockCode) -> list[Statement]:
    """`lasting = ("M",)`: the memories that outlive a sequence."""
    changing = written_in_forward(code.block) | {
        s.memory for s in code.block.body if isinstance(s, TaskWrite)
    }
    paths = [m.path for m in code.block.memories if m.reset == "never" and m.name in changing]
    return [assign("lasting", tuple(paths))] if paths else []


def task_table(code: BlockCode) -> list[Statement]:
    """`tasks = (TaskMemory(...), ...)`: what `learn` updates, for memories with a task write."""
    rows: list[Expression] = []
    for step in code.block.body:
        if isinstance(step, TaskWrite):
            memory = code.memory(step.memory)
            assert memory.function is not None
            row: dict[str, Like] = {
                "path": memory.path,
                "every": memory.clock.every,
                "weights": tuple(w.name for w in memory.function.weights),
                "rule": code.functions.rule(step.rule),
                "inputs": tuple(v.name for v in step.rule.function.inputs),
                "slots": tuple(s.name for s in step.rule.slots),
                "level": memory.level,
                **_unusual(code, memory, step),
            }
            rows.append(call(code.runtime("task", "TaskMemory"), **row))
    return [assign("tasks", tuple(rows))] if rows else []


def _unusual(code: BlockCode, memory: Memory, write: TaskWrite) -> dict[str, Like]:
    """Fields of a `TaskMemory` that are not as they are for most."""
    assert memory.function is not None
    found: dict[str, Like] = {}
    if _never_moves(code, memory):
        found["idle"] = True
    elif (rate := _descent(memory, write)) is not None:
        found["descent"] = rate
    twins = tuple((s.visible, s.name, s.clock.every) for s in write.rule.slots if s.visible and s.clock)
    if twins:
        found["twins"] = twins
    found |= _shapes(memory, write)
    if write.toward == "init":
        found["toward"] = "init"
    if memory.reset == "tokens":
        found["reset"] = memory.reset_every
    owner = source(code, memory)
    if memory.init_from is not None:
        found["source"] = code.memory(memory.init_from).path
    if owner is not memory or None in owner.initial:
        found["parameters"] = tuple(None if p is None else p.path for p in owner.initial)
        heads = (memory.heads,) if memory.per_head else ()
        found["shapes"] = tuple((*heads, *w.shape) for w in memory.function.weights)
    return found


def _shapes(memory: Memory, write: TaskWrite) -> dict[str, Like]:
    """Memories of the rule that are not of the shape of their weight, and the weights that are vectors."""
    assert memory.function is not None
    found: dict[str, Like] = {}
    weights = [w.shape for w in memory.function.weights]
    own: dict[str, Like] = {
        name: tuple(slot.shape_beside(shape, i) for i, shape in enumerate(weights))
        for slot in write.rule.slots
        if slot.shape is not None
        for name in (slot.name, slot.visible)
        if name
    }
    if own:
        found["own"] = tuple((name, shapes) for name, shapes in own.items())
    vectors = tuple(w.name for w in memory.function.weights if len(w.shape) == 1)
    if vectors:
        found["vectors"] = vectors
    return found


def _descent(memory: Memory, write: TaskWrite) -> float | None:
    """The rate of a rule that is `W - rate g` for every weight, with one constant for all."""
    assert memory.function is not None
    found: set[float | None] = set()
    for weight in memory.function.weights:
        form = rule_form(write.rule, weight.shape).form
        if form is None or form.momentum is not None or write.retain is not None or write.rule.slots:
            return None
        plain = (form.keep.value, form.erase.value) == (1.0, 0.0)
        found.add(form.rate.value if plain else None)
    return found.pop() if len(found) == 1 else None


def _never_moves(code: BlockCode, memory: Memory) -> bool:
    """Whether neither its rule nor the memory it starts from ever moves it."""
    assert memory.function is not None
    write = next(s for s in code.block.body if isinstance(s, TaskWrite) and s.memory == memory.name)
    if write.retain is not None or not all(
        leaves_weight(write.rule, w.shape) for w in memory.function.weights
    ):
        return False
    return memory.init_from is None or _never_moves(code, code.memory(memory.init_from))
