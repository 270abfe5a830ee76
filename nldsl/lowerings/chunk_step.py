"""Inside one chunk: values, reads and writes, each computed when first needed."""

from __future__ import annotations

from nldsl.emit.nodes import Expression, name
from nldsl.lowerings.apply import lower_apply
from nldsl.lowerings.blocks import BlockCode
from nldsl.lowerings.chunk_cache import KeptPairs
from nldsl.lowerings.chunk_family import Family
from nldsl.lowerings.chunk_write import ChunkWriter
from nldsl.lowerings.scope import Imports, Names, Scope
from nldsl.lowerings.stacking import Stacker
from nldsl.plan.details import ChunkDetail
from nldsl.plan.plan import Unit
from nldsl.spec.program import Apply, Read, Value, Write


class ChunkStep:
    """The body of the step method."""

    def __init__(
        self,
        code: BlockCode,
        unit: Unit,
        detail: ChunkDetail,
        families: list[Family],
        caches: list[KeptPairs],
    ) -> None:
        self.code, self.detail, self.families, self.caches = code, detail, families, caches
        imports: Imports = code.scope.imports
        self.scope = Scope(imports, Names(code.functions.locals), "chunk")
        self.steps = [code.block.body[i] for i in unit.statements]
        self.maker = {s.out.name: s for s in self.steps if isinstance(s, Apply | Read)}
        self.stacker = Stacker(self, {f.label: f for f in families})
        self.writers: dict[str, ChunkWriter] = {}
        self.kept = {r.out.name: (c, n) for c in caches for r, n in c.cache.reads}
        self.valid: Expression = name("valid")
        self.inverses: Expression | None = None
        """Where writes leave what the written backward pass needs."""
        self.done: set[str] = set()

    def emit(self, outgoing: list[Value], valid: Expression) -> list[Expression]:
        """Everything that is needed outside, then what every family has moved."""
        self.writers = {f.label: ChunkWriter(self, f, valid) for f in self.families}
        self.valid = valid
        self.done |= {v.name for v in self.detail.incoming}
        results = [self.value(v) for v in outgoing]
        for family in self.families:
            results += self.writers[family.label].results()
        for cache in self.caches:
            results += cache.results(self, valid)
        return results

    def value(self, value: Value) -> Expression:
        """A value in scope, computed now if it is not there yet."""
        if value.name not in self.done and value.name not in self.scope.constants:
            self.done.add(value.name)
            maker = self.maker[value.name]
            if isinstance(maker, Apply):
                for argument in maker.args:
                    self.value(argument)
                lower_apply(self.scope, maker)
            elif value.name in self.kept:
                cache, unseen = self.kept[value.name]
                cache.answer(self, maker, unseen, self.valid)
            elif (family := self._family(maker)).live:
                self.read_live(maker, family)
            else:
                self.stacker.read(maker)
        return self.scope.ref(value)

    def _family(self, read: Read) -> Family:
        return next(f for f in self.families if read.memory in {m.name for m in f.memories})

    def read_live(self, read: Read, family: Family) -> None:
        """A read of the running state: above the write it sees the state before the token's own step."""
        below = any(
            isinstance(s, Write) and s.memory == read.memory for s in self.steps[: self.steps.index(read)]
        )
        self.writers[family.label].answer(read, "after" if below else "before")
