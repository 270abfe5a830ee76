"""Memories whose gradients are held at a base: one loop over chunks, everything inside a chunk in parallel.

The loop keeps, for every family of memories side by side, the running weights that the writes move
(`W`), what reads see (`W_seen`) and where gradients are taken (`W_base`, if that is not the same).
"""

from __future__ import annotations

from nldsl.emit.nodes import (
    Evaluate,
    Expression,
    For,
    FunctionDef,
    Like,
    Parameter,
    Statement,
    assign,
    call,
    compare,
    name,
    returns,
    to_expression,
)
from nldsl.emit.walk import mentioned
from nldsl.lowerings.blocks import BlockCode
from nldsl.lowerings.chunk_cache import KeptPairs
from nldsl.lowerings.chunk_commit import ChunkCommit
from nldsl.lowerings.chunk_family import Family
from nldsl.lowerings.chunk_step import ChunkStep
from nldsl.lowerings.functions import tensors
from nldsl.lowerings.numbered import STEP, number_steps
from nldsl.lowerings.step_back import written_back
from nldsl.plan.constants import constants_of
from nldsl.plan.details import ChunkDetail
from nldsl.plan.plan import Unit
from nldsl.spec.program import Value

VALID = "valid"
KEPT = "kept"


def lower(code: BlockCode, unit: Unit) -> None:
    """Append the loop to `forward`, and the step of one chunk as a method."""
    detail = unit.detail
    assert isinstance(detail, ChunkDetail)
    ChunkLoop(code, unit, detail).emit()


class ChunkLoop:
    """Emits the loop of one unit and its step."""

    def __init__(self, code: BlockCode, unit: Unit, detail: ChunkDetail) -> None:
        self.code, self.unit, self.detail = code, unit, detail
        self.scope = code.scope
        fresh = self.scope.names.fresh
        self.families = [Family(code, detail, names) for names in detail.families]
        self.caches = [KeptPairs(code, c) for c in detail.caches]
        self.commits = {f.label: ChunkCommit(code, f) for f in self.families if f.write.at_commit}
        labels = [f.label for f in self.families] or [c.memory.name for c in self.caches]
        self.method = fresh(f"_step_{'_'.join(labels)}")
        self.grid = fresh("grid")
        self.number = fresh("n")
        self.back: tuple[tuple[Expression, ...], tuple[int, ...]] | None = None
        """The parameters that the written backward pass has gradients of; places without a batch axis."""
        self.compiled = True
        """Whether all of it is formulas."""

    def emit(self) -> None:
        """States, pieces, loop, results."""
        first = self.detail.clock
        tokens = self.code.scope.source.attr("shape")[1]
        made = call(
            self.code.runtime("grid", "ChunkGrid"),
            name("state")[first.path]["count"],
            name("mask"),
            tokens,
            self.detail.grid,
        )
        self.scope.add(assign(self.grid, made))
        cut = [(v, self._cut(v)) for v in self.detail.incoming if not self._plain(v)]
        if any(m.counted for m in self.detail.members):
            cut.append((STEP, self._cut_of(number_steps(self.code, first), STEP)))
        for family in self.families:
            self.scope.add(*family.load(self.code, name(self.grid)))
        for cache in self.caches:
            self.scope.add(*cache.load())
        collected = [(v, self.scope.names.fresh(f"{v.name}_all")) for v in self.detail.outgoing]
        self.scope.add(*(assign(c, []) for _, c in collected))
        step = ChunkStep(self.code, self.unit, self.detail, self.families, self.caches)
        if self.detail.written_back:
            constants = {v for v in self.detail.incoming if v.name in constants_of(self.code.block)}
            method = self._method(step, cut, collected)
            self._write_back(method, len(cut), frozenset(step.scope.names.of(v) for v in constants))
        self.scope.add(
            For(
                (self.number,),
                call("range", call("len", name(self.grid))),
                tuple(self._turn(cut, collected, step)),
            )
        )
        for value, pieces in collected:
            joined = call(f"{self.grid}.join", name(pieces), value.kind)
            self.scope.add(assign(self.scope.names.of(value), joined))
        for family in self.families:
            self.scope.add(*family.finish(self.code, name(self.grid)))
            self.scope.add(*family.store(name(self.grid).attr("count")))
        for cache in self.caches:
            self.scope.add(*cache.store(name(self.grid).attr("count")))
        if not self.detail.written_back:
            self.code.methods.append(self._method(step, cut, collected))

    def _plain(self, value: Value) -> bool:
        return value.name in self.scope.constants or value.name in self.scope.unbatched

    def _cut(self, value: Value) -> str:
        return self._cut_of(self.scope.ref(value), value)

    def _cut_of(self, whole: Expression, value: Value) -> str:
        pieces = self.scope.names.fresh(f"{value.name}_cut")
        self.scope.add(assign(pieces, call(f"{self.grid}.cut", whole, value.kind)))
        return pieces

    def _turn(
        self, cut: list[tuple[Value, str]], collected: list[tuple[Value, str]], step: ChunkStep
    ) -> list[Statement]:
        """One turn of the loop: call the step, keep its results, commit what is due."""
        n = name(self.number)
        arguments: list[Like] = [name(c)[n] for _, c in cut]
        arguments += [self.scope.ref(v) for v in self._shared(step)]
        arguments += [e for f in self.families for e in f.arguments()]
        arguments += [e for cache in self.caches for e in cache.arguments()]
        arguments.append(name(self.grid).attr("valid")[n])
        outs = [self.scope.names.fresh(f"{v.name}_n") for v, _ in collected]
        news = [new for f in self.families for new in self._moved(f)]
        news += [new for cache in self.caches for new in cache.new.values()]
        target = name("self").attr(self.method)
        if self.back is not None:
            parameters, shared = self.back
            twin = name("self").attr(f"{self.method}_back")
            places: dict[str, Like] = {"shared": shared} if shared else {}
            if self.code.plan.target.checkpoint:
                places["always"] = True
            if not self.compiled:
                places["compiled"] = False
            step_of = self.code.runtime("chunk_back", "chunk_step")
            result = call(step_of, target, twin, tuple(arguments), parameters, **places)
        elif self.code.plan.target.checkpoint:
            result = call(self.code.runtime("recompute", "recomputed"), target, *arguments)
        else:
            result = call(target, *arguments)
        body: list[Statement] = [
            assign([*outs, *news], result) if len(outs) + len(news) > 1 else assign((outs + news)[0], result)
        ]
        body += [
            Evaluate(name(c).method("append", name(o))) for (_, c), o in zip(collected, outs, strict=True)
        ]
        for family in self.families:
            body += family.advance(self.code, name(self.grid).attr("begun")[n])
            if family.label in self.commits:
                behind = call(f"{self.grid}.behind", n)
                ends = call(f"{self.grid}.ends", family.memory.clock.every)[n]
                body.append(self.commits[family.label].emit(ends, behind))
            body += family.settle(self.code, lambda clock: call(f"{self.grid}.ends", clock)[n])
        body += self._again()
        for cache in self.caches:
            forgets = cache.memory.reset == "tokens"
            body += cache.settle(call(f"{self.grid}.ends", cache.memory.reset_every)[n] if forgets else None)
        return body

    def _again(self) -> list[Statement]:
        """Resets that start from another memory: behind all commits, and behind the other one's own reset."""
        of = {m.name: f for f in self.families for m in f.memories}
        waiting, out = [f for f in self.families if f.again], list[Statement]()
        while waiting:
            family = next(f for f in waiting if of[str(f.memory.init_from)] not in waiting)
            waiting.remove(family)
            ends = call(f"{self.grid}.ends", family.memory.reset_every)[name(self.number)]
            origin = str(family.memory.init_from)
            out.append(family.reset(self.code, ends, of[origin].shown(origin)))
        return out

    def _write_back(self, method: FunctionDef, cut: int, constants: frozenset[str]) -> None:
        """The step, and its backward pass as a method beside it."""
        functions = {f.name: f for f in self.code.functions.definitions}
        names = [p.name for p in method.parameters[1:-1]]
        toward = {p.inner for f in self.families for p in f.toward.values()}
        given = {p.inner for f in self.families for p in f.given()} | {names[-1]}
        shared = tuple(i for i, n in enumerate(names) if n in toward or (i >= cut and n not in given))
        twin, parameters = written_back(
            method, functions, self.scope.imports, self.code.functions.locals, names[-1], constants
        )
        self.code.methods += [method, twin]
        self.back = parameters, shared
        self.compiled = "by_differentiation" not in mentioned(twin.body)

    def _moved(self, family: Family) -> list[str]:
        """Names of what the step returns for a family."""
        commit = self.commits.get(family.label)
        return [*(p.new for p in family.moved()), *(commit.given if commit else ())]

    def _shared(self, step: ChunkStep) -> list[Value]:
        """Slow parameters that come in as values: the same for every chunk."""
        return [v for v in self.detail.incoming if v.name in self.scope.unbatched]

    def _method(
        self, step: ChunkStep, cut: list[tuple[Value, str]], collected: list[tuple[Value, str]]
    ) -> FunctionDef:
        """The step: reads at the committed weights, then the writes into the running ones."""
        inner = step.scope
        inner.constants |= {
            v.name: self.scope.constants[v.name]
            for v in self.detail.incoming
            if v.name in self.scope.constants
        }
        shared = self._shared(step)
        inner.unbatched |= {v.name for v in shared}
        parameters = [inner.names.of(v) for v in (*(v for v, _ in cut), *shared)]
        parameters += [p for f in self.families for p in f.parameter_names(inner)]
        parameters += [p for cache in self.caches for p in cache.parameter_names(inner)]
        inner.names.known[VALID] = inner.names.fresh(VALID)
        kept: tuple[Parameter, ...] = ()
        if self.detail.written_back:
            kept = (Parameter(inner.names.fresh(KEPT), name("Any"), to_expression(None)),)
            step.inverses = name(kept[0].name)
        results = step.emit([v for v, _ in collected], name(inner.names.of(VALID)))
        absent = {cache.inner["valid"] for cache in self.caches}
        annotated = tuple(Parameter(p, _maybe() if p in absent else name("Tensor")) for p in parameters)
        valid = Parameter(inner.names.of(VALID), _maybe())
        doc = (
            f"At most {self.detail.grid} tokens: what they read, and the running weights after their writes."
        )
        return FunctionDef(
            self.method,
            (Parameter("self"), *annotated, valid, *kept),
            (*inner.body, returns(*results)),
            doc,
            tensors(len(results)),
        )


def _maybe() -> Expression:
    return compare("|", name("Tensor"), None)
