"""Walk over the parameters of a program with their absolute paths."""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.spec.program import Apply, Block, Call, Parameter, Repeat


def own_parameters(block: Block) -> Iterator[Parameter]:
    """Slow parameters of a block itself: of its primitives, its memories' maps and learned initial states."""
    for statement in block.body:
        if isinstance(statement, Apply):
            yield from statement.parameters
    for memory in block.memories:
        yield from memory.parameters
        yield from (p for p in memory.initial if p is not None and not p.fixed)


LINEAR = ("linear", "head")
"""Primitives that use their first parameter as `W @ x`."""


def linear_paths(block: Block, prefix: str = "") -> Iterator[str]:
    """Paths of the slow parameters that are used as `W @ x`: they have an input and an output gradient."""
    for statement in block.body:
        if isinstance(statement, Apply) and statement.op in LINEAR:
            yield f"{prefix}{statement.parameters[0].path}"
        elif isinstance(statement, Call):
            yield from linear_paths(statement.block, f"{prefix}{statement.path}.")
        elif isinstance(statement, Repeat):
            for copy in range(statement.count):
                yield from linear_paths(statement.block, f"{prefix}{statement.path}[{copy}].")


def parameters_of(block: Block, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
    """Every slow parameter below `block` with its absolute path; copies of a `repeat` one after the other.

    Example:
        >>> list(parameters_of(Block("none", (), (), (), ())))
        []
    """
    for parameter in own_parameters(block):
        yield f"{prefix}{parameter.path}", parameter
    for statement in block.body:
        if isinstance(statement, Call):
            yield from parameters_of(statement.block, f"{prefix}{statement.path}.")
        elif isinstance(statement, Repeat):
            for copy in range(statement.count):
                yield from parameters_of(statement.block, f"{prefix}{statement.path}[{copy}].")
