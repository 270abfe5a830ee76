"""A softmax memory inside the loop over chunks: what it keeps, and attention in the step of a chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nldsl.emit.nodes import Expression, Like, Statement, assign, call, name, to_expression
from nldsl.lowerings.apply import parameter
from nldsl.lowerings.blocks import BlockCode
from nldsl.lowerings.scope import Scope
from nldsl.plan.details import ChunkCache
from nldsl.spec.program import Read, Value, option

if TYPE_CHECKING:
    from nldsl.lowerings.chunk_step import ChunkStep

PARTS = ("keys", "values", "valid")


class KeptPairs:
    """The names of a cache in `forward`, and the code that fills and reads it."""

    def __init__(self, code: BlockCode, cache: ChunkCache) -> None:
        self.code, self.cache, self.memory = code, cache, cache.memory
        fresh = code.scope.names.fresh
        self.outer = {p: fresh(f"{self.memory.name}_{p}") for p in PARTS}
        self.new = {p: fresh(f"{self.memory.name}_{p}_new") for p in PARTS}
        self.inner: dict[str, str] = {}
        self.rows: tuple[Expression, Expression] | None = None
        self.after: str | None = None

    # --- in `forward` ------------------------------------------------------------------------

    def load(self) -> list[Statement]:
        """Local names before the loop."""
        state = name("state")[self.memory.path]
        return [assign(local, state[part]) for part, local in self.outer.items()]

    def arguments(self) -> list[Expression]:
        """What the step is given."""
        return [name(n) for n in self.outer.values()]

    def parameter_names(self, scope: Scope) -> list[str]:
        """The same inside the step."""
        self.inner = {part: scope.names.fresh(local) for part, local in self.outer.items()}
        return list(self.inner.values())

    def settle(self, ends: Expression | None) -> list[Statement]:
        """What the step has kept; forgotten by the samples whose period ends."""
        moved = [assign(self.outer[p], name(self.new[p])) for p in PARTS]
        if ends is None:
            return list(moved)
        forgotten = call(self.code.runtime("attention", "forget"), ends, *self.arguments())
        return [*moved, assign(list(self.outer.values()), forgotten)]

    def store(self, count: Expression) -> list[Statement]:
        """The new state."""
        entries: dict[str, Like] = {p: name(n) for p, n in self.outer.items()}
        if self.memory.reset == "tokens":
            entries["count"] = count % self.memory.reset_every
        return [assign(name("new")[self.memory.path], entries)]

    # --- in the step -------------------------------------------------------------------------

    def answer(self, step: ChunkStep, read: Read, unseen: int, valid: Expression) -> None:
        """`y`, and with the first read what is kept behind the chunk."""
        scope = step.scope
        query = self._heads(step, read.key)
        options = {**self._options(read, unseen), "mask": valid}
        result = call(self.code.runtime("attention", "attention"), query, *self._given(step), **options)
        kept, answer = scope.names.fresh(f"{self.memory.name}_kept"), scope.names.of(read.out)
        scope.add(assign([answer, kept], result))
        self.after = self.after or kept
        seen = name(answer)
        moved = seen.method("transpose", 1, 2) if self.memory.per_head else seen.method("squeeze", 2)
        scope.add(assign(answer, moved))

    def results(self, step: ChunkStep, valid: Expression) -> list[Expression]:
        """The cache behind the chunk, whether anything needed its answer or not."""
        for read, unseen in self.cache.reads if self.after is None else ():
            step.done.add(read.out.name)
            self.answer(step, read, unseen, valid)
        assert self.after is not None
        return [name(self.after)[part] for part in PARTS]

    def _given(self, step: ChunkStep) -> list[Expression]:
        """Keys and values of the chunk `[B, C m, J, d]`, those of a token together, and what was kept."""
        if self.rows is None:
            both = [[self._heads(step, pair[n]) for pair in self.cache.pairs] for n in (0, 1)]
            together = self.code.runtime("attention", "interleaved")
            keys, values = (
                rows[0] if len(rows) == 1 else self._named(step, call(together, *rows), part)
                for rows, part in zip(both, ("keys", "values"), strict=True)
            )
            self.rows = keys, values
        return [*self.rows, to_expression({part: name(n) for part, n in self.inner.items()})]

    def _named(self, step: ChunkStep, made: Expression, part: str) -> Expression:
        fresh = step.scope.names.fresh(f"{self.memory.name}_{part}_here")
        step.scope.add(assign(fresh, made))
        return name(fresh)

    def _heads(self, step: ChunkStep, value: Value) -> Expression:
        """`[B, C, H, d]`."""
        found = step.value(value)
        if value.kind == "headed":
            return found.method("transpose", 1, 2)
        return found.method("unsqueeze", 2)

    def _options(self, read: Read, unseen: int) -> dict[str, Like]:
        options, size = self.memory.options, read.key.shape[-1]
        scale, window = option(options, "scale"), option(options, "window")
        found: dict[str, Like] = {"scale": float(scale) if isinstance(scale, int | float) else size**-0.5}
        if isinstance(window, int) and window:
            found["window"] = window
        if self.memory.parameters:
            found["start"] = tuple(parameter(p.path) for p in self.memory.parameters)
        if len(self.cache.pairs) > 1:
            found["pairs"] = len(self.cache.pairs)
        if unseen:
            found["unseen"] = unseen
        return found
