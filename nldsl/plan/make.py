"""Make the plan of a program: partition every block, ask every lowering, take the first that accepts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nldsl.diagnostics import Diagnostic, SpecError
from nldsl.plan import attention, chunk, held, matrix, recurrence, sequential
from nldsl.plan.closed import makes_matrices
from nldsl.plan.delta_attention import DeltaAttentionDetail
from nldsl.plan.details import RecurrenceDetail
from nldsl.plan.fold import fold_literals
from nldsl.plan.fuse import fuse
from nldsl.plan.gates import with_log_gates
from nldsl.plan.matrix_form import MatrixDetail
from nldsl.plan.plan import BlockPlan, Lowering, LoweringName, Plan, Recogniser, Target, Unit, Verdict
from nldsl.plan.units import memories_of, partition
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Block, Call, Memory, Program, Read, Repeat, TaskWrite, Write

RECOGNISERS: tuple[tuple[LoweringName, Recogniser], ...] = (
    ("attention", attention.recognise),
    ("linear", recurrence.recognise),
    ("recurrence", matrix.recognise),
    ("held", held.recognise),
    ("chunk", chunk.recognise),
    ("sequential", sequential.recognise),
)
BUILT_IN = frozenset({"static", "task", "delta", "delta_attention", *(family for family, _ in RECOGNISERS)})
"""Names that no added lowering may take."""


def make_plan(program: Program, target: Target | None = None, added: Sequence[Lowering] = ()) -> Plan:
    """The plan of `program` for `target`; `added` are lowerings beside those of the compiler.

    Errors: `SpecError` with one NL0701 per construct that no lowering supports yet, naming it.
    """
    target = target or Target()
    found: list[Diagnostic] = []
    names = ClassNames()
    asked = _asked(added)
    plans = tuple(_block_plan(b, (target, asked), names, found) for b in blocks_below(program.root))
    if found:
        raise SpecError(found)
    return Plan(program, target, plans)


Asked = tuple[tuple[LoweringName, Recogniser], ...]
"""Lowerings in the order in which they are asked."""


def _asked(added: Sequence[Lowering]) -> Asked:
    first = [(f.name, _guarded(f)) for f in added if f.first]
    late = [(f.name, _guarded(f)) for f in added if not f.first]
    return (*first, *RECOGNISERS[:-1], *late, RECOGNISERS[-1])


def _guarded(form: Lowering) -> Recogniser:
    """A lowering of somebody else that fails takes nothing, and says so."""

    def recognise(block: Block, statements: tuple[int, ...]) -> tuple[Any, str] | Refusal:
        try:
            return form.recognise(block, statements)
        except Exception as error:
            return Refusal(f"it failed with {type(error).__name__}: {error}")

    return recognise


def blocks_below(root: Block) -> tuple[Block, ...]:
    """Every distinct block of a program, callees before callers."""
    order: dict[Block, None] = {}

    def visit(block: Block) -> None:
        for step in block.body:
            if isinstance(step, Call | Repeat):
                visit(step.block)
        order.setdefault(block)

    visit(root)
    return tuple(order)


class ClassNames:
    """CamelCase class names; a second block of the same name (other sizes) gets a number."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def fresh(self, block: str) -> str:
        """`gated_deltanet` -> `GatedDeltanet`."""
        base = "".join(p[:1].upper() + p[1:] for p in block.split("_")) or "Block"
        base = (
            base
            if base.isidentifier() and base.isascii() and base not in RESERVED_CLASSES
            else f"{base}Block"
        )
        name, n = base, 1
        while name in self.taken:
            n += 1
            name = f"{base}{n}"
        self.taken.add(name)
        return name


RESERVED_CLASSES = frozenset(
    {"Module", "Model", "Layer", "Tensor", "Any", "None", "True", "False", "ChunkGrid", "TaskMemory", "F"}
)


def _block_plan(
    block: Block, how: tuple[Target, Asked], names: ClassNames, found: list[Diagnostic]
) -> BlockPlan:
    target, _ = how
    folded = fold_literals(block)
    prepared = with_log_gates(folded) if target.lowering == "auto" else folded
    units = []
    for statements in partition(prepared):
        unit = _unit(prepared, statements, *how)
        if isinstance(unit, Diagnostic):
            found.append(unit)
        else:
            units.append(unit)
    found.extend(_tasks(prepared))
    if not block.inputs:
        found.append(_diagnostic(f"block `{block.name}`, which takes no value", block))
    ordered = tuple(units) if found else fuse(prepared, tuple(units))
    return BlockPlan(block, prepared, names.fresh(block.name), ordered)


def _unit(block: Block, statements: tuple[int, ...], target: Target, asked: Asked) -> Unit | Diagnostic:
    memories = memories_of(block, statements)
    if not memories:
        return _static(block, statements)
    verdicts: list[Verdict] = []
    taken: list[tuple[int, LoweringName, Any, str]] = []
    for family, recognise in asked:
        answer = recognise(block, statements)
        if isinstance(answer, Refusal):
            verdicts.append(Verdict(family, False, answer.reason, family))
            continue
        detail, reason = answer
        lowering = _form(family, detail)
        verdicts.append(Verdict(lowering, True, reason, family))
        skipped = target.lowering == "sequential" and family not in ("sequential", "attention")
        taken.append((-1 if family == target.family else int(skipped), lowering, detail, reason))
    if not taken:
        alone = len(memories) == 1 and memories[0].function is None
        return _unsupported(block, statements, verdicts[0 if alone else -1].reason)
    # Where nothing goes token by token, the form that there is stands for it.
    _, lowering, detail, reason = min(taken, key=lambda t: t[0])
    if lowering == "sequential" and target.lowering == "auto":
        reason = sequential.why(block, statements, {v.family: v.reason for v in verdicts})
    return Unit(statements, tuple(m.name for m in memories), lowering, reason, tuple(verdicts), detail)


def _form(family: LoweringName, detail: Any) -> LoweringName:
    """The name of the form that a family gives a unit."""
    if family == "linear" and isinstance(detail, RecurrenceDetail) and detail.erase is not None:
        return "delta"
    if isinstance(detail, DeltaAttentionDetail):
        return "delta_attention"
    return detail.lowering if family == "recurrence" and isinstance(detail, MatrixDetail) else family


def _static(block: Block, statements: tuple[int, ...]) -> Unit | Diagnostic:
    step = block.body[statements[0]]
    if isinstance(step, Read):
        if step.solve is not None:
            return _unsupported(block, statements, "a solve with a memory that is never written")
        memory = next(m for m in block.memories if m.name == step.memory)
        if memory.function is None:
            return _unsupported(block, statements, "a softmax memory that is read but never written")
        refusal = makes_matrices(memory)
        if refusal is not None:
            return _unsupported(
                block, statements, f"a read of `{memory.name}`, never written: {refusal.reason}"
            )
        task = any(isinstance(s, TaskWrite) and s.memory == step.memory for s in block.body)
        if task:
            reason = "learns from the task between segments; within one it is a plain map"
            return Unit(statements, (step.memory,), "task", reason)
        reason = "never written: a plain map"
        if memory.trained is not None:
            reason = f"moved by training every {memory.clock.every} steps: a plain map in between"
        return Unit(statements, (step.memory,), "static", reason)
    return Unit(statements, (), "static", "no memory")


def _tasks(block: Block) -> Iterator[Diagnostic]:
    """Task writes that `learn` cannot perform yet."""
    for step in block.body:
        if not isinstance(step, TaskWrite):
            continue
        memory = next(m for m in block.memories if m.name == step.memory)
        values = [v for _, v in step.rule.arguments]
        seen = {v.name for v in step.rule.function.inputs}
        problems = (
            (
                memory.init == "from" and _start_of(block, memory) is None,
                f"a task write on `{memory.name}`, whose start is a memory that does not minimise the task",
            ),
            (
                any(v.kind not in ("scalar", "heads") for v in values),
                f"a rate per channel in the task write on `{memory.name}`",
            ),
            (
                bool(seen & {"x", "dy"}),
                f"rule `{step.rule.name}`, which looks at single tokens, in a task write",
            ),
            (
                any(s.initial is not None for s in step.rule.slots),
                f"rule `{step.rule.name}`, which keeps a memory with a map of its own, in a task write",
            ),
        )
        for found, reason in problems:
            if found:
                yield _diagnostic(reason, step)


def _start_of(block: Block, memory: Memory) -> Memory | None:
    """The task memory at the end of a chain of `init M2`, or `None` if one of them is no task memory."""
    tasks = {s.memory for s in block.body if isinstance(s, TaskWrite)}
    while memory.init_from is not None:
        memory = next(m for m in block.memories if m.name == memory.init_from)
        if memory.name not in tasks:
            return None
    return memory


def _unsupported(block: Block, statements: tuple[int, ...], reason: str) -> Diagnostic:
    steps = [block.body[i] for i in statements]
    return _diagnostic(reason, next((s for s in steps if isinstance(s, Write)), steps[-1]))


def _diagnostic(reason: str, step: object) -> Diagnostic:
    return Diagnostic(
        "NL0701",
        f"not supported by the compiler yet: {reason}",
        getattr(step, "span", None),
        label="no compiled form takes this statement",
        help="".join(f"{advice}; " for part, advice in _ADVICE.items() if part in reason)
        + "the interpreter (`nldsl.reference.Interpreter`) runs it as it stands",
    )


_ADVICE = {
    "made of what it reads": "values may be a sum of vectors and of numbers times reads above the write, "
    "`A[k] <- v - a * A[k]`; else a memory that learns from its own answers is compiled where its state has "
    "one size, as `memory A = matrix()`; or let another memory make what this one is taught",
    "a softmax is not linear": "make keys of a matrix memory's answers, or of another attention's",
    "causal = false": "leave `causal = false` out, and a token reads those up to itself",
    "takes no value": "give it an input, `block b(x)`, which says how many samples and tokens there are",
}
"""What to write in the place of what no lowering takes."""
