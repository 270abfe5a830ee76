"""Which slow parameters a program needs, by absolute path."""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.reference.functions import join
from nldsl.spec.program import Apply, Block, Call, Function, Memory, Parameter, Repeat, TaskWrite, Write


def parameters(root: Block) -> dict[str, Parameter]:
    """Every slow parameter and learned initial state of a program, in program order."""
    return dict(_walk(root, ""))


def _walk(block: Block, prefix: str) -> Iterator[tuple[str, Parameter]]:
    for parameter in _own(block):
        yield join(prefix, parameter.path), parameter
    for statement in block.body:
        if isinstance(statement, Call):
            yield from _walk(statement.block, join(prefix, statement.path))
        elif isinstance(statement, Repeat):
            for i in range(statement.count):
                yield from _walk(statement.block, join(prefix, f"{statement.path}[{i}]"))


def _own(block: Block) -> Iterator[Parameter]:
    """The parameters that belong to this block itself."""
    for memory in block.memories:
        yield from _of_memory(memory)
    for statement in block.body:
        if isinstance(statement, Apply):
            yield from statement.parameters
        elif isinstance(statement, TaskWrite):
            yield from _of_function(statement.rule.function)
        elif isinstance(statement, Write):
            for term in statement.terms:
                yield from _of_function(term.objective)
                yield from _of_function(term.rule.function)


def _of_memory(memory: Memory) -> Iterator[Parameter]:
    if memory.init != "from":
        yield from (p for p in memory.initial if p is not None)
    yield from memory.parameters
    if memory.function is not None:
        yield from _of_function(memory.function)


def _of_function(function: Function) -> Iterator[Parameter]:
    for statement in function.body:
        yield from statement.parameters
