"""NL0606: a model that sees the future it is asked for, by the way it is built.

Everything in the language is causal but three things: `softmax(causal = false)`, and a stream of labels whose
value at a token reaches what the model returns at that very token.  The second is found by following what
the label touches through one token: a memory written with it is known to later tokens only, unless the
write stands above the read and the memory is visible at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from nldsl.diagnostics import Diagnostic, Label
from nldsl.source import Span
from nldsl.spec.program import (
    Apply,
    Block,
    Call,
    Memory,
    Program,
    Read,
    Repeat,
    Statement,
    TaskWrite,
    Update,
    Value,
    Write,
    option,
)


def future_findings(program: Program) -> Iterator[Diagnostic]:
    """The leaks of a model; a block alone has no task, and so no future."""
    if program.kind != "model":
        return
    labelled = any(v.name == "label" for v in program.root.inputs)
    task = program.train.task if program.train is not None else "label" if labelled else "next_token"
    if task == "next_token":
        yield from _looks_ahead(program.root, {})
    if task == "label":
        yield from _label(program)


def _looks_ahead(block: Block, seen: dict[int, Block]) -> Iterator[Diagnostic]:
    """Attention that is not causal below a model that predicts the next token."""
    if id(block) in seen:
        return
    seen[id(block)] = block
    for memory in block.memories:
        if memory.function is None and option(memory.options, "causal", True) is False:
            yield Diagnostic(
                "NL0606",
                f"`{memory.name}` sees later tokens (`causal = false`), and the model predicts the next "
                "token",
                memory.span,
                "looks at what is to be predicted",
                help="leave out `causal = false`; it is for models with `task label`",
            )
    for statement in block.body:
        if isinstance(statement, Call | Repeat):
            yield from _looks_ahead(statement.block, seen)


def _label(program: Program) -> Iterator[Diagnostic]:
    """The stream `label` reaching the outputs at its own token."""
    inputs = {v.name for v in program.root.inputs if v.name == "label"}
    trail: dict[str, Span | None] = {}
    found = _outputs(program.root, frozenset(inputs), trail)
    if not inputs or not found:
        return
    first = next((s for s in trail.values() if s is not None), program.root.span)
    known = program.train.span if program.train is not None else None
    yield Diagnostic(
        "NL0606",
        "the model's answer at a token depends on the `label` of that token",
        first,
        "uses the answer before it is known",
        secondary=(Label(known, "trained to predict `label`"),) if known is not None else (),
        help="read a memory above the write that stores the label, or use `shift(label_value)`",
    )


@dataclass
class _Token:
    """What is touched by the label within one token of one block."""

    values: set[str]
    memories: set[str] = field(default_factory=set)
    clocks: dict[str, Memory] = field(default_factory=dict)


def _outputs(block: Block, inputs: frozenset[str], trail: dict[str, Span | None]) -> frozenset[int]:
    """Positions of the outputs that touched inputs reach within a token."""
    token = _Token(set(inputs), clocks={m.name: m for m in block.memories})
    for statement in block.body:
        touched = _touched(statement, token, trail)
        for out in touched:
            trail.setdefault(f"{block.name}.{out}", getattr(statement, "span", None))
        token.values |= touched
    return frozenset(i for i, v in enumerate(block.outputs) if v.name in token.values)


def _touched(statement: Statement, token: _Token, trail: dict[str, Span | None]) -> set[str]:
    """The values that a statement makes from touched ones; memories are noted on the way."""
    if isinstance(statement, Apply):
        now = statement.op != "shift" and any(a.name in token.values for a in statement.args)
        return {statement.out.name} if now else set()
    if isinstance(statement, Read):
        memories = {statement.memory, *(statement.solve[:1] if statement.solve else ())}
        hit = statement.key.name in token.values or memories & token.memories
        return {statement.out.name} if hit else set()
    if isinstance(statement, Write | Update | TaskWrite):
        if _visible_at_once(token.clocks[statement.memory]) and _uses(statement, token.values):
            token.memories.add(statement.memory)
        return set()
    return _entered(statement, token, trail)


def _entered(statement: Call | Repeat, token: _Token, trail: dict[str, Span | None]) -> set[str]:
    """The results of a call; copies of a `repeat` hand what is touched on to the next."""
    block = statement.block
    inputs = {i.name for i, a in zip(block.inputs, statement.args, strict=True) if a.name in token.values}
    copies = statement.count if isinstance(statement, Repeat) else 1
    outs: frozenset[int] = frozenset()
    for _ in range(min(copies, len(block.inputs) + 1)):
        outs = _outputs(block, frozenset(inputs), trail)
        inputs |= {block.inputs[i].name for i in outs if i < len(block.inputs)}
    return {statement.outs[i].name for i in outs}


def _visible_at_once(memory: Memory) -> bool:
    return memory.clock.unit == "always" or (memory.clock.unit == "tokens" and memory.clock.every == 1)


def _uses(statement: Write | Update | TaskWrite, values: set[str]) -> bool:
    """Whether what is written is made of touched values."""
    taken: list[Value] = []
    if isinstance(statement, Update):
        taken = [statement.value]
    elif isinstance(statement, Write):
        for term in statement.terms:
            taken += [term.key, term.target, *(v for _, v in term.rule.arguments)]
            taken += [term.weight] if term.weight is not None else []
        taken += [statement.retain] if statement.retain is not None else []
    return any(v.name in values for v in taken)
