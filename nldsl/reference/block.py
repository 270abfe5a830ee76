"""A block at one token: its statements, one after the other, in program order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from nldsl.reference import hidden
from nldsl.reference.attention import SoftmaxMemory
from nldsl.reference.functions import apply, join
from nldsl.reference.inner import Scope
from nldsl.reference.memory import ParametricMemory
from nldsl.reference.states import CacheState, MemoryState, ParametricState, Sample, TaskState
from nldsl.reference.task import TaskMemory
from nldsl.spec.program import (
    Apply,
    Block,
    Call,
    Memory,
    Read,
    Repeat,
    Statement,
    TaskWrite,
    Update,
    Write,
)

AnyMemory = ParametricMemory | SoftmaxMemory | TaskMemory
Report = Callable[[str, str], None]
"""Called with (absolute memory path, "write" or "commit")."""


class BlockMeaning:
    """A block at an absolute path, with the meanings of its memories and of the blocks it calls."""

    def __init__(self, block: Block, path: str, scope: Scope, dtype: torch.dtype) -> None:
        self.block = block
        self.path = path
        self.scope = Scope(scope.parameters, path)
        self.dtype = dtype
        self.memories = {m.name: self._memory(m) for m in block.memories}
        for memory in block.memories:
            self._connect(memory)
        self.children: dict[int, list[BlockMeaning]] = {}
        for index, statement in enumerate(block.body):
            if isinstance(statement, Call):
                self.children[index] = [self._child(statement.block, statement.path)]
            elif isinstance(statement, Repeat):
                names = [f"{statement.path}[{i}]" for i in range(statement.count)]
                self.children[index] = [self._child(statement.block, name) for name in names]

    def _child(self, block: Block, path: str) -> BlockMeaning:
        return BlockMeaning(block, join(self.path, path), self.scope, self.dtype)

    def _memory(self, memory: Memory) -> AnyMemory:
        if memory.function is None:
            return SoftmaxMemory(memory, self.scope, self.dtype)
        for statement in self.block.body:
            if isinstance(statement, TaskWrite) and statement.memory == memory.name:
                return TaskMemory(memory, statement, self.scope, self.dtype)
        writes = tuple(s for s in self.block.body if isinstance(s, Write) and s.memory == memory.name)
        return ParametricMemory(memory, writes, self.scope, self.dtype)

    def _connect(self, memory: Memory) -> None:
        """A task memory that starts from another shares its parameter (Eq. 72)."""
        own = self.memories[memory.name]
        if isinstance(own, TaskMemory) and memory.init_from is not None:
            source = self.memories[memory.init_from]
            if not isinstance(source, TaskMemory):
                raise ValueError(f"`{memory.name}` minimises the task, but `{memory.init_from}` does not")
            own.source = source

    def everything(self) -> Iterator[tuple[str, AnyMemory]]:
        """Every memory below, by absolute path."""
        for name, memory in self.memories.items():
            yield self.memory_path(name), memory
        for children in self.children.values():
            for child in children:
                yield from child.everything()

    def memory_path(self, name: str) -> str:
        """The absolute path of a memory of this block."""
        return join(self.path, self.memories[name].memory.path)

    # --- states ------------------------------------------------------------------------------

    def begin(self, sample: Sample, keep: bool = False) -> None:
        """Set every memory and tail below to its start; with `keep`, `reset never` memories stay."""
        for name, memory in self.memories.items():
            if keep and memory.memory.reset == "never" and self.memory_path(name) in sample.memories:
                continue
            sample.memories.pop(self.memory_path(name), None)
        for name in self.memories:
            if self.memory_path(name) not in sample.memories:
                self.reset(sample, name)
        for statement in self.block.body:
            if isinstance(statement, Apply) and statement.op in hidden.HIDDEN:
                self.empty_tail(sample, statement)
        for children in self.children.values():
            for child in children:
                child.begin(sample, keep)

    def empty_tail(self, sample: Sample, statement: Apply) -> None:
        """Zeros stand before the first token."""
        zero = torch.zeros(statement.out.shape, dtype=self.dtype)
        sample.tails[join(self.path, statement.path)] = [zero] * hidden.tail_length(statement)

    def reset(self, sample: Sample, name: str) -> None:
        """The start of one memory; one that starts from another sees what that one shows now."""
        path, memory = self.memory_path(name), self.memories[name]
        source: MemoryState | None = None
        before = memory.memory.init_from
        if before is not None:
            if self.memory_path(before) not in sample.memories:
                self.reset(sample, before)
            source = sample.memories[self.memory_path(before)]
        if isinstance(memory, SoftmaxMemory):
            sample.memories[path] = memory.initial()
        elif isinstance(memory, TaskMemory):
            sample.memories[path] = memory.initial(cast("TaskState | None", source))
        elif before is None:
            sample.memories[path] = memory.initial()
        else:
            other = self.memories[before]
            assert not isinstance(other, SoftmaxMemory)
            sample.memories[path] = memory.initial(other.visible(source))  # type: ignore[arg-type]

    # --- one token ---------------------------------------------------------------------------

    def token(self, sample: Sample, inputs: Sequence[Tensor], report: Report) -> tuple[Tensor, ...]:
        """The outputs at one unmasked token; `sample` moves on by one token."""
        values = dict(zip((v.name for v in self.block.inputs), inputs, strict=True))
        for index, statement in enumerate(self.block.body):
            self.statement(index, statement, sample, values, report)
        self.tick(sample, values, report)
        return tuple(values[v.name] for v in self.block.outputs)

    def statement(
        self, index: int, statement: Statement, sample: Sample, values: dict[str, Tensor], report: Report
    ) -> None:
        """One statement: it adds values, or it changes a memory."""
        if isinstance(statement, Apply):
            values[statement.out.name] = self.primitive(statement, sample, values)
        elif isinstance(statement, Read):
            values[statement.out.name] = self.read(statement, sample, values)
        elif isinstance(statement, Call):
            args = [values[a.name] for a in statement.args]
            outs = self.children[index][0].token(sample, args, report)
            values.update(zip((v.name for v in statement.outs), outs, strict=True))
        elif isinstance(statement, Repeat):
            self.repeat(index, statement, sample, values, report)
        else:
            self.change(statement, sample, values, report)

    def primitive(self, statement: Apply, sample: Sample, values: dict[str, Tensor]) -> Tensor:
        """A primitive of the library, with or without hidden state."""
        if statement.op not in hidden.HIDDEN:
            return apply(statement, values, self.scope.parameters, self.path, self.dtype)
        path = join(self.path, statement.path)
        args = [values[a.name] for a in statement.args]
        own = [self.scope.parameters[join(self.path, p.path)] for p in statement.parameters]
        tail, position = sample.tails[path], sample.position
        value, sample.tails[path] = hidden.step(statement, args, own, tail, position, self.dtype)
        return value

    def read(self, statement: Read, sample: Sample, values: dict[str, Tensor]) -> Tensor:
        """`M[q]`, or `M[solve(H, q, ridge)]`."""
        key = values[statement.key.name]
        if statement.solve is not None:
            name, ridge, iterations = statement.solve
            system = self.memories[name]
            assert isinstance(system, ParametricMemory)
            state = cast(ParametricState, sample.memories[self.memory_path(name)])
            key = system.solve(state, key, ridge, iterations)
            if statement.lone:
                return key
        memory = self.memories[statement.memory]
        return memory.read(sample.memories[self.memory_path(statement.memory)], key)  # type: ignore[arg-type]

    def repeat(
        self, index: int, statement: Repeat, sample: Sample, values: dict[str, Tensor], report: Report
    ) -> None:
        """Copies one after the other: the first inputs are carried, the rest are the same for all."""
        args = [values[a.name] for a in statement.args]
        carried = len(statement.outs)
        for child in self.children[index]:
            args = [*child.token(sample, args, report), *args[carried:]]
        values.update(zip((v.name for v in statement.outs), args[:carried], strict=True))

    def change(
        self,
        statement: Write | TaskWrite | Update,
        sample: Sample,
        values: dict[str, Tensor],
        report: Report,
    ) -> None:
        """A write of any kind."""
        path, memory = self.memory_path(statement.memory), self.memories[statement.memory]
        state = sample.memories[path]
        if isinstance(statement, TaskWrite):
            assert isinstance(memory, TaskMemory) and isinstance(state, TaskState)
            memory.note(state, values)
            return
        report(path, "write")
        if isinstance(memory, SoftmaxMemory):
            assert isinstance(statement, Write) and isinstance(state, CacheState)
            term = statement.terms[0]
            memory.append(state, values[term.key.name], values[term.target.name])
            return
        assert isinstance(memory, ParametricMemory) and isinstance(state, ParametricState)
        if isinstance(statement, Update):
            memory.update(state, statement, values)
        else:
            memory.write(state, statement, values)

    def tick(self, sample: Sample, values: dict[str, Tensor], report: Report) -> None:
        """After all statements: commits, base snapshots, then resets whose period is over."""
        due: list[str] = []
        for name, memory in self.memories.items():
            path = self.memory_path(name)
            state = sample.memories[path]
            if isinstance(memory, ParametricMemory) and isinstance(state, ParametricState):
                if memory.tick(state, values):
                    report(path, "commit")
            elif isinstance(memory, SoftmaxMemory) and isinstance(state, CacheState):
                state.count += 1
            else:
                continue
            if memory.memory.reset == "tokens" and state.count == memory.memory.reset_every:
                due.append(name)
        self.reset_all(sample, due)

    def reset_all(self, sample: Sample, due: Sequence[str]) -> None:
        """Reset several memories at once: one that starts from another waits for it."""
        for name in due:
            sample.memories.pop(self.memory_path(name))
        for name in due:
            if self.memory_path(name) not in sample.memories:
                self.reset(sample, name)

    def reset_due_tasks(self, sample: Sample) -> None:
        """At the end of a segment: task memories whose `reset every N tokens` is over."""
        due = []
        for name, memory in self.memories.items():
            state = sample.memories[self.memory_path(name)]
            if isinstance(memory, TaskMemory) and isinstance(state, TaskState):
                if memory.memory.reset == "tokens" and state.count == memory.memory.reset_every:
                    due.append(name)
        self.reset_all(sample, due)
        for children in self.children.values():
            for child in children:
                child.reset_due_tasks(sample)
