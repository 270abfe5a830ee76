"""The form that always exists: one token after the other, statements in program order.

Emitted code keeps, for every memory, its running weights (`S_weight`), and where the clock asks
for it what reads see (`S_weight_seen`) and where gradients are taken (`S_weight_base`).
"""

from __future__ import annotations

from nldsl.emit.nodes import Expression, For, Statement, assign, call, name
from nldsl.emit.statements import Evaluate
from nldsl.lowerings.apply import lower_apply
from nldsl.lowerings.blocks import BlockCode, fork
from nldsl.lowerings.gates import rows_of
from nldsl.lowerings.layout import to_chunk
from nldsl.lowerings.stacking import Stacker
from nldsl.lowerings.static import answer, solved, static_weights
from nldsl.lowerings.token_memory import TokenMemory
from nldsl.plan.details import SequentialDetail
from nldsl.plan.plan import Unit
from nldsl.plan.units import memories_of, used
from nldsl.spec.program import Apply, Call, Memory, Read, Repeat, Update, Value, Write
from nldsl.spec.program import Statement as Step


def lower(code: BlockCode, unit: Unit) -> None:
    """Append the loop over tokens for `unit` to the body of the block's `forward`."""
    detail = unit.detail
    assert isinstance(detail, SequentialDetail)
    loop = TokenLoop(code, unit, detail)
    loop.emit()


class TokenLoop:
    """Emits one loop; `outer` is the block's scope, `inner` the body of the loop."""

    def __init__(self, code: BlockCode, unit: Unit, detail: SequentialDetail) -> None:
        self.code = code
        self.detail = detail
        self.steps = [code.block.body[i] for i in unit.statements]
        self.maker = {s.out.name: s for s in self.steps if isinstance(s, Apply | Read)}
        self.outer = code.scope
        self.inner = self.scope = fork(self.outer, "chunk")
        self.plain: dict[str, list[Expression]] = {}
        self.rows: dict[tuple[str, str, bool], Expression] = {}
        self.slices: list[Statement] = []
        self.done = {v.name for v in detail.incoming}
        named = {m.name: m for m in memories_of(code.block, unit.statements)}
        self.families = [TokenMemory(self, tuple(named[n] for n in f)) for f in detail.families]
        self.memories = {m.name: f for f in self.families for m in f.memories}
        self.stacker = Stacker(self, {f.label: f for f in self.families if f.size > 1})

    def emit(self) -> None:
        """Before the loop, the loop, after it."""
        gates = only_gates(self.steps)
        for value in self.detail.incoming:
            if value.name not in gates or value.kind == "matrix" or self._whole(value):
                self._slice(value)
        states = self._load_states()
        self.inner.mask = name("live")
        for step in self.steps:
            self._step(step)
        for memory in self.families:
            memory.end_of_token()
        for memory in self._sources_first():
            memory.reset(self._shown)
        collected = [(v, self.outer.names.fresh(f"{v.name}_all")) for v in self.detail.outgoing]
        self.inner.add(*(Evaluate(name(c).method("append", self.inner.ref(v))) for v, c in collected))
        live = assign("live", call(self.code.runtime("token", "live_at"), self.outer.mask, name("t")))
        self.outer.add(*(assign(c, []) for _, c in collected))
        tokens = self._tokens()
        self.outer.add(For(("t",), call("range", tokens), (live, *self.slices, *self.inner.body)))
        for value, pieces in collected:
            self._join(value, pieces)
        self._store_states(states)

    def _sources_first(self) -> list[TokenMemory]:
        """A memory that starts from another one resets behind it."""
        order: list[TokenMemory] = []
        waiting = list(self.families)
        while waiting:
            names = {w.memory.name for w in waiting}
            ready = [m for m in waiting if m.memory.init_from not in names]
            order += ready
            waiting = [m for m in waiting if m not in ready]
        return order

    def _shown(self, memory: str) -> list[Expression]:
        """What reads of a memory see behind this token."""
        if memory in self.memories:
            return self.memories[memory].shown()
        return self._plain_weights(self.code.memory(memory))

    def _tokens(self) -> Expression:
        return self.outer.source.attr("shape")[1]

    def _whole(self, value: Value) -> bool:
        """Literals and slow parameters have no tokens."""
        return value.name in self.outer.constants or value.name in self.outer.unbatched

    def _slice(self, value: Value) -> None:
        """`k_t = k_tokens[t]`, heads first; literals and slow parameters stay as they are."""
        if self._whole(value):
            self.inner.constants |= {k: v for k, v in self.outer.constants.items() if k == value.name}
            self.inner.unbatched |= self.outer.unbatched & {value.name}
            self.inner.names.known[value.name] = self.outer.names.of(value)
            return
        whole = self.outer.ref(value)
        axis = 1
        if value.kind in ("headed", "heads"):
            whole, axis = to_chunk(whole, value.kind), 2
        self.inner.names.known[value.name] = self._tokens_of(value, whole, axis)

    def _tokens_of(self, value: Value, whole: Expression, axis: int) -> str:
        """The name of one token's part of `whole`.

        One split: the way back of a slice per token would fill a tensor of zeros for every token.
        """
        tokens = self.outer.names.fresh(f"{value.name}_tokens")
        self.outer.add(assign(tokens, whole.method("split", 1, axis)))
        one = self.outer.names.fresh(f"{value.name}_t")
        self.slices.append(assign(one, name(tokens)[name("t")]))
        return one

    def row(self, value: Value, memory: Memory, axis: str) -> Expression | None:
        """A gate that comes in, as rows of one token, made for all tokens at once; `None` if it does not."""
        incoming = any(v.name == value.name for v in self.detail.incoming)
        if not incoming or self._whole(value) or value.kind == "matrix":
            return None
        key = (value.name, axis, memory.per_head)
        if key not in self.rows:
            whole = rows_of(to_chunk(self.outer.ref(value), value.kind), value, memory, axis)
            self.rows[key] = name(self._tokens_of(value, whole, -1 if axis == "value" else -2))
        return self.rows[key]

    def value(self, value: Value) -> Expression:
        """A value of this token, computed now if it is not there yet."""
        if value.name not in self.done and value.name not in self.inner.constants:
            self._step(self.maker[value.name])
        return self.inner.ref(value)

    def _step(self, step: Step) -> None:
        if isinstance(step, Apply | Read):
            if step.out.name not in self.done:
                self.done.add(step.out.name)
                self._make(step)
        elif isinstance(step, Write):
            family = self.memories[step.memory]
            # A family is written where the last of its members is; nothing reads it in between.
            if step.memory == family.last:
                family.write(family.writes[0] if family.size > 1 else step)
        elif isinstance(step, Update):
            self.memories[step.memory].update(step)
        else:
            assert isinstance(step, Call | Repeat)
            self.code.lower_call(self.inner, step)

    def _make(self, step: Apply | Read) -> None:
        if isinstance(step, Apply):
            if any(f.size > 1 for f in self.families):
                # A family's reads stand together, so what they need may come earlier than written.
                for argument in step.args:
                    self.value(argument)
            lower_apply(self.inner, step)
        elif step.memory in self.memories and self.memories[step.memory].size > 1:
            self.stacker.read(step)
        else:
            self.value(step.key)
            self._read(step)

    def _read(self, read: Read) -> None:
        key = self.inner.ref(read.key)
        if read.solve is not None:
            key = self._solve(read, key, read.solve[0])
        if read.lone:
            self.inner.add(assign(self.inner.names.of(read.out), key))
            return
        if read.memory in self.memories:
            self.memories[read.memory].read(read, key)
            return
        memory = self.code.memory(read.memory)
        value = answer(self.code, memory, read, key, self._plain_weights(memory))
        self.inner.add(assign(self.inner.names.of(read.out), value))

    def _solve(self, read: Read, key: Expression, system: str) -> Expression:
        """`(H + ridge I)^-1 q` with what reads of `H` see."""
        memory, known = self.code.memory(system), self.memories
        (matrix,) = known[system].visible() if system in known else self._plain_weights(memory)
        return solved(self.code, memory, read, key, matrix)

    def _plain_weights(self, memory: Memory) -> list[Expression]:
        """The weights of a memory that is never written: made before the loop."""
        if memory.name not in self.plain:
            assert memory.function is not None
            weights = static_weights(self.code, memory)
            names = [self.outer.names.fresh(f"{memory.name}_{w.name}") for w in memory.function.weights]
            self.outer.add(*(assign(n, w) for n, w in zip(names, weights, strict=True)))
            self.plain[memory.name] = [name(n) for n in names]
        return self.plain[memory.name]

    def _load_states(self) -> list[tuple[str, str]]:
        """Hidden states of convolutions and inner blocks get a local name for the loop."""
        paths = [p for s in self.steps for p in self.code.state_paths(s)]
        local = [
            (p, self.outer.names.fresh(p.replace(".", "_").replace("[", "_").replace("]", "") + "_state"))
            for p in paths
        ]
        for path, chosen in local:
            self.outer.add(assign(chosen, name("state")[path]))
            self.inner.local_state[path] = chosen
        for memory in self.families:
            self.outer.add(*memory.load(), *memory.prepare_reset())
        return local

    def _store_states(self, local: list[tuple[str, str]]) -> None:
        for path, chosen in local:
            self.outer.add(assign(name("new")[path], name(chosen)))
        for memory in self.families:
            self.outer.add(*memory.store())

    def _join(self, value: Value, pieces: str) -> None:
        """Pieces `[B, (H,) 1, ...]` to sequence layout `[B, T, ...]`, also for T = 0."""
        axis = 2 if value.kind in ("headed", "heads") else 1
        empty = call("self.zeros", self.outer.source.attr("shape")[0], 0, *value.shape)
        joined = call(self.code.runtime("token", "join_tokens"), name(pieces), axis, empty, self.outer.mask)
        self.outer.add(assign(self.outer.names.of(value), joined))


def only_gates(steps: list[Step]) -> set[str]:
    """Values that serve as gates and rates and as nothing else."""
    gates, others = set[str](), set[str]()
    for step in steps:
        if isinstance(step, Write):
            gates |= {v.name for t in step.terms for _, v in t.rule.arguments}
            gates |= {step.retain.name} if step.retain is not None else set()
            others |= {v.name for t in step.terms for v in (t.key, t.target, t.weight) if v is not None}
        elif isinstance(step, Update):
            gates.add(step.value.name)
        else:
            others |= {v.name for v in used(step)}
    return gates - others
