"""What elaboration found out, by the place in the text: shapes of expressions, memories, bound numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from nldsl.source import Span
from nldsl.spec.loader import Named
from nldsl.spec.program import (
    Apply,
    Block,
    Call,
    Memory,
    Program,
    Read,
    Repeat,
    TaskWrite,
    Update,
    Value,
    Write,
)
from nldsl.syntax import tree

At = tuple[int, int]
"""Identity of a file and an offset in it."""


@dataclass(frozen=True)
class Result:
    """Values an expression has in one elaboration of its block."""

    values: tuple[Value, ...]
    end: int
    where: str


@dataclass(frozen=True)
class MemoryUse:
    """A memory as one elaboration of its block has it, with what acts on it."""

    memory: Memory
    writes: tuple[Write | TaskWrite | Update, ...]
    where: str


@dataclass
class Facts:
    """All facts of a document; several elaborations of one block give several facts per place."""

    results: dict[At, list[Result]] = field(default_factory=dict)
    memories: dict[At, list[MemoryUse]] = field(default_factory=dict)
    blocks: dict[At, list[tuple[Block, str]]] = field(default_factory=dict)
    programs: dict[At, Program] = field(default_factory=dict)


def facts_of(programs: Iterable[tuple[Named, Program]]) -> Facts:
    """The facts of every program of a document."""
    facts = Facts()
    seen: set[int] = set()
    for item, program in programs:
        facts.programs[_at(item.name.span)] = program
        probe = isinstance(item, tree.Definition) and item.kind == "block"
        where = "checked alone" if probe else f"in `{program.name}`"
        for block in _blocks(program.root):
            if id(block) not in seen:
                seen.add(id(block))
                _read(facts, block, where)
    return facts


def _at(span: Span) -> At:
    return id(span.file), span.start


def _blocks(root: Block) -> Iterator[Block]:
    """The blocks of a program, each once."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        block = stack.pop()
        if id(block) not in seen:
            seen.add(id(block))
            yield block
            stack += [s.block for s in block.body if isinstance(s, Call | Repeat)]


def _read(facts: Facts, block: Block, where: str) -> None:
    if block.span is not None:
        facts.blocks.setdefault(_at(block.span), []).append((block, where))
    for memory in block.memories:
        if memory.span is not None:
            acts = tuple(
                s for s in block.body if isinstance(s, Write | TaskWrite | Update) and s.memory == memory.name
            )
            facts.memories.setdefault(_at(memory.span), []).append(MemoryUse(memory, acts, where))
    by_span: dict[tuple[int, int, int], list[Value]] = {}
    for statement in block.body:
        if statement.span is None or not isinstance(statement, Apply | Read | Call | Repeat):
            continue
        outs = (statement.out,) if isinstance(statement, Apply | Read) else statement.outs
        key = (*_at(statement.span), statement.span.end)
        by_span.setdefault(key, []).extend(outs)
    for (file, start, end), values in by_span.items():
        facts.results.setdefault((file, start), []).append(Result(tuple(values), end, where))


def shape(value: Value) -> str:
    """A value in words: its kind and, if it has one, its shape.

    Example:
        >>> shape(Value("q", (4, 16), "headed")), shape(Value("a", (), "scalar"))
        ('headed [4, 16]', 'scalar')
    """
    return f"{value.kind} [{', '.join(map(str, value.shape))}]" if value.shape else value.kind
