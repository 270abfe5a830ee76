"""From a plan to the emitted file: one class per distinct block, its functions, a `build`."""

from __future__ import annotations

import re
from collections.abc import Callable

from nldsl.emit.imports import import_block
from nldsl.emit.nodes import (
    ClassDef,
    Comprehension,
    Evaluate,
    Expression,
    FunctionDef,
    Like,
    Literal,
    Module,
    Parameter,
    Statement,
    assign,
    call,
    compare,
    name,
    returns,
    to_expression,
)
from nldsl.lowerings import attention, chunk, delta_attention, held, matrix, sequential, static
from nldsl.lowerings.blocks import BlockCode
from nldsl.lowerings.everywhere import spread, spread_for
from nldsl.lowerings.forms import added_lowerings
from nldsl.lowerings.functions import Functions
from nldsl.lowerings.gated import in_one_pass
from nldsl.lowerings.perceptrons import with_surroundings
from nldsl.lowerings.prune import inline, prune
from nldsl.lowerings.scope import RESERVED, Imports, Names, Scope
from nldsl.lowerings.states import initial_state, lasting, noted_values, task_table
from nldsl.plan.plan import BlockPlan, Plan, Unit
from nldsl.spec.program import Apply, Block, Call, Repeat, TaskWrite, Value, Write
from nldsl.spec.program import Parameter as SlowParameter

LOWERINGS: dict[str, Callable[[BlockCode, Unit], None]] = {
    **dict.fromkeys(matrix.FORMS, matrix.lower),
    "static": static.lower,
    "task": static.lower,
    "attention": attention.lower,
    "delta_attention": delta_attention.lower,
    "linear": matrix.plain_or_general,
    "delta": matrix.plain_or_general,
    "held": held.lower,
    "chunk": chunk.lower,
    "sequential": sequential.lower,
}


def lower(plan: Plan, doc: str) -> Module:
    """The emitted module of a plan: imports, functions, classes (callees first), `build`."""
    imported, defined = frozenset[str](), frozenset[str]()
    while True:
        # What a file imports does not depend on names, so the second or third turn is the last.
        imports = Imports()
        names = Names(RESERVED | imported, {p.class_name for p in plan.blocks})
        functions = Functions(imports, names, RESERVED | imported | defined)
        classes = [_class(plan, p, functions) for p in plan.blocks]
        build = _build(plan, plan.of(plan.program.root), imports)
        found = frozenset(imports.functions), frozenset(names.taken)
        if found == (imported, defined):
            break
        imported, defined = found
    body: tuple[Statement, ...] = (*functions.definitions, *classes, build)
    members = {"torch": {"Tensor"}, "typing": {"Any"}, **{m: set(n) for m, n in imports.names.items()}}
    return Module(doc, (*import_block(members, body=body), *body))


def _class(plan: Plan, block_plan: BlockPlan, functions: Functions) -> ClassDef:
    block = block_plan.block
    functions.imports.use("nldsl.runtime.module:Module")
    own = [o for s in block.body for o in getattr(s, "outs", None) or (getattr(s, "out", None),)]
    promised = frozenset(v.name for v in (*block.inputs, *own) if isinstance(v, Value))
    scope = Scope(functions.imports, Names(functions.locals, promised=promised), "sequence")
    inputs = [scope.names.of(v) for v in block.inputs]
    if inputs:
        scope.source = name(inputs[0])
    code = BlockCode(plan, block_plan, functions, scope)
    forms = LOWERINGS | {f.name: f.lower for f in added_lowerings()}
    for unit in block_plan.units:
        looped = unit.lowering not in ("static", "task")
        for index in unit.statements:
            spread_for(scope, block.body[index], looped)
        forms[unit.lowering](code, unit)
    for step in block.body:
        if isinstance(step, TaskWrite):
            _carry(code, step)
    for output in block.outputs:
        spread(scope, output)
    outputs = [scope.ref(v) for v in block.outputs]
    start = assign("new", {}, name("dict")[name("str"), name("Any")])
    forward = FunctionDef(
        "forward",
        (
            Parameter("self"),
            *(Parameter(i, name("Tensor")) for i in inputs),
            Parameter("state", name("dict")[name("str"), name("Any")]),
            Parameter("mask", maybe_tensor()),
        ),
        in_one_pass(
            with_surroundings(
                inline(prune((start, *scope.body, returns(*outputs, name("new")))), temporaries(block, scope))
            ),
            functions.imports,
            scope.names,
        ),
        "All tokens of a call: outputs and the state after them.",
        name("tuple")[(*[name("Tensor")] * len(outputs), name("dict")[name("str"), name("Any")])],
    )
    body: list[Statement] = [*task_table(code), *lasting(code), _init(plan, block, functions.imports)]
    body += [initial_state(code), *code.methods, forward]
    return ClassDef(block_plan.class_name, (name("Module"),), tuple(body), _doc(block_plan))


def _carry(code: BlockCode, write: TaskWrite) -> None:
    """`forward` leaves a task memory as it is, but for what its next step needs of the last token."""
    path = code.memory(write.memory).path
    kept: Expression = name("state")[path]
    values = noted_values(write)
    for value in values.values():
        spread(code.scope, value)
    if values:
        seen = {key: code.scope.ref(value) for key, value in values.items()}
        kept = call(code.runtime("task", "noted"), kept, to_expression(seen), name("mask"))
    code.scope.add(assign(name("new")[path], kept))


def temporaries(block: Block, scope: Scope) -> frozenset[str]:
    """Python names of values the elaborator named after an operation (`q_linear`), not the author."""
    named = {
        s.out.name for s in block.body if isinstance(s, Apply) and re.search(rf"_{s.op}(_\d+)?$", s.out.name)
    }
    return frozenset(scope.names.of(n) for n in named if n in scope.names.known)


def maybe_tensor() -> Expression:
    """The annotation `Tensor | None`."""
    return compare("|", name("Tensor"), None)


def _doc(block_plan: BlockPlan) -> str:
    """Signature of the block and how each of its memories is computed."""
    block = block_plan.block
    static_part = ", ".join(f"{k} = {v}" for k, v in block.static)
    lines = [
        f"`{block.name}({', '.join(v.name for v in block.inputs)})`"
        + (f" with {static_part}." if static_part else ".")
    ]
    for unit in block_plan.units:
        if unit.memories:
            lines.append(f"{', '.join(unit.memories)}: {unit.lowering} ({unit.reason}).")
    return "\n\n".join(lines)


def _init(plan: Plan, block: Block, imports: Imports) -> FunctionDef:
    """`declare` every slow parameter, `attach` every block."""
    body: list[Statement] = [Evaluate(call("super").method("__init__"))]
    for owned in parameters_of(block):
        body.append(Evaluate(_declare(owned, imports)))
    for step in block.body:
        if isinstance(step, Call):
            made = call(plan.of(step.block).class_name)
            body.append(Evaluate(call("self.attach", step.path, made)))
        elif isinstance(step, Repeat):
            made = call(plan.of(step.block).class_name)
            body.append(
                Evaluate(
                    call(
                        "self.attach_repeated",
                        step.path,
                        Comprehension(made, ("_",), call("range", step.count)),
                    )
                )
            )
    return FunctionDef("__init__", (Parameter("self"),), tuple(body), "", to_expression(None))


def parameters_of(block: Block) -> list[SlowParameter]:
    """The slow parameters a block owns itself, each once, in program order; then its memories'."""
    found: dict[str, SlowParameter] = {}
    for step in block.body:
        if isinstance(step, Apply):
            found |= {p.path: p for p in step.parameters}
        elif isinstance(step, Write):
            slots = [s for t in step.terms for s in t.rule.slots]
            found |= {s.initial.path: s.initial for s in slots if s.initial is not None}
    for memory in block.memories:
        found |= {p.path: p for p in memory.initial if p is not None}
        found |= {p.path: p for p in memory.parameters}
        if memory.function is not None:
            found |= {p.path: p for a in memory.function.body for p in a.parameters}
    return list(found.values())


def _declare(owned: SlowParameter, imports: Imports) -> Expression:
    fill = imports.use(f"nldsl.runtime.module:{owned.init.kind}")
    options: dict[str, Like] = {"learned": False} if owned.fixed else {}
    return call("self.declare", owned.path, owned.shape, owned.role, fill(owned.init.scale), **options)


def _build(plan: Plan, root: BlockPlan, imports: Imports) -> FunctionDef:
    """`build(seed)` makes the public wrapper with initialised parameters."""
    wrapper = imports.use(f"nldsl.runtime.model:{'Model' if plan.program.kind == 'model' else 'Layer'}")
    made = call(root.class_name).method("initialise", name("seed"))
    train = plan.program.train
    extra = {"carry": Literal(train.carry)} if train is not None and plan.program.kind == "model" else {}
    return FunctionDef(
        "build",
        (Parameter("seed", name("int"), Literal(0)),),
        (returns(wrapper(made, Literal(plan.program.name), **extra)),),
        f"The compiled `{plan.program.name}`, its parameters drawn from `seed`.",
        wrapper,
    )
