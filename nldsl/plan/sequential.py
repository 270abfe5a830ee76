"""The form that takes any unit the run-time library can step through, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nldsl.calculus.affine import affine_in, is_affine
from nldsl.calculus.classify import TermClass, update_class
from nldsl.calculus.mirror import mirror_form
from nldsl.calculus.rules import rule_form
from nldsl.plan.closed import closed_gradient
from nldsl.plan.details import SequentialDetail
from nldsl.plan.units import boundary, defined, feeds_itself, memories_of, turns_of
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Apply, Block, Memory, Read, Statement, Term, Value, Write


def recognise(block: Block, statements: tuple[int, ...]) -> tuple[SequentialDetail, str] | Refusal:
    """Everything but the constructs that no compiled form supports yet; those are refused by name."""
    memories = memories_of(block, statements)
    body = [block.body[i] for i in statements]
    for memory in memories:
        refusal = outlived(block, memory) or _memory(memory, body)
        if refusal is not None:
            return refusal
    changing = {m.name for m in memories}
    for read in (s for s in body if isinstance(s, Read)):
        if read.memory not in changing and _without_weights(block, read.memory):
            return Refusal(f"softmax memory `{read.memory}`, read but never written")
    incoming, outgoing = boundary(block, statements)
    return SequentialDetail(
        memories, families(memories, body), incoming, outgoing
    ), "one token after the other"


def families(memories: tuple[Memory, ...], body: list[Statement]) -> tuple[tuple[str, ...], ...]:
    """Memories that differ in their targets and initial states only; each alone where order matters.

    Side by side they are read and written out of order, so every read of the unit must see what stood
    before the token.
    """
    alone = tuple((m.name,) for m in memories)
    if not _order_free(memories, body):
        return alone
    groups: dict[object, list[str]] = {}
    for memory in memories:
        groups.setdefault(_alike(memory, body), []).append(memory.name)
    return tuple(tuple(g) for g in groups.values())


def _order_free(memories: tuple[Memory, ...], body: list[Statement]) -> bool:
    """Whether every read sees what stood before the token, and nothing else has an order."""
    if any(not isinstance(s, Apply | Read | Write) for s in body):
        return False
    live = {m.name for m in memories if m.clock.every == 1}
    written: set[str] = set()
    for statement in body:
        if isinstance(statement, Write):
            written.add(statement.memory)
        elif isinstance(statement, Read) and (statement.solve or statement.memory in written & live):
            return False
    return True


def _alike(memory: Memory, body: list[Statement]) -> object:
    """What members of a family have in common; a memory that cannot join one has its name."""
    writes = [s for s in body if isinstance(s, Write) and s.memory == memory.name]
    assert memory.function is not None
    if len(writes) != 1 or len(writes[0].terms) != 1 or any(a.parameters for a in memory.function.body):
        return memory.name
    (write,) = writes
    (term,) = write.terms
    slots = any(s.shape is not None or s.clock is not None or s.initial is not None for s in term.rule.slots)
    gates = [v for _, v in term.rule.arguments] + ([write.retain] if write.retain is not None else [])
    special = (
        slots,
        term.window > 1 or term.weight is not None or write.at_commit or write.project is not None,
        write.retain_axis != "scalar" or any(v.kind in ("headed", "matrix") for v in gates),
        memory.reset != "sequence" or memory.init in ("from", "first"),
        memory.per_head and term.key.kind == "headed" and term.key.shape[0] != memory.heads,
    )
    if any(special):
        return memory.name
    return (
        (memory.function, memory.heads, memory.per_head, memory.clock, memory.init),
        tuple(p is None for p in memory.initial),
        (term.key, term.target.kind if term.target.kind in ("headed", "vector") else term.target),
        (term.objective, term.rule.function, term.rule.arguments),
        (write.retain, write.toward, write.base_every),
    )


def why(block: Block, statements: tuple[int, ...], refused: Mapping[str, str]) -> str:
    """What keeps a unit from being parallel; `refused` is what the other forms said, by family."""
    named = {m.name: m for m in memories_of(block, statements)}
    writes = [s for i in statements if isinstance(s := block.body[i], Write)]
    online = [w for w in writes if w.base_every == 1 and named[w.memory].clock.every == 1]
    made = {v.name for i in statements for v in defined(block.body[i])}
    directing = {v.name for w in online for v in _directing(w)}
    if directing & made:
        return (
            "one token after the other: its keys, rates or gates are made of what it reads in the state that "
            "the token before has left, and no form is parallel in that"
        )
    if online and turns_of(block, statements) is not None and feeds_itself(block, statements):
        return (
            "one token after the other: what it reads asks it again, and only kernels of one gate take that"
        )
    if online and feeds_itself(block, statements):
        return "one token after the other: what it reads in the state of every token is what it writes"
    found = [update_class(named[w.memory], w) for w in online]
    held = any((c.letter, c.chunked_letter) == ("X", "N") for c in found)
    advice = "; held over a chunk (`gradient every 16 tokens`) they make a parallel form"
    if any(_dual(named[w.memory], t) for w in online for t in w.terms):
        advice = "; on a level `every 16 tokens`, whose reads see the last commit, they make a parallel form"
    bent = [t for c in found for t in c.terms if held and _bends(t)]
    if bent:
        how = "mix or weigh the channels of its answer" if all(map(_mixes, bent)) else "are not linear in it"
        return (
            f"one token after the other: gradients are taken at the state of every token, and {how}{advice}"
        )
    reason = refused.get("recurrence" if len(online) == len(writes) else "chunk", "")
    if not reason:
        return "one token after the other"
    return f"one token after the other: {reason}{advice.replace('they', 'gradients') if held else ''}"


def _bends(term: TermClass) -> bool:
    """Whether a gradient is not linear in the memory: by its objective, or by a map that is not."""
    found = term.gradient
    if found is None:
        return False
    if found.sees_memory:
        bent = [g.general is not None and affine_in(g.general, g.weight) is None for g in found.gradients]
        return all(r.form is not None for r in term.rules) and any(bent)
    several = sum(len(w.shape) == 2 for w in found.weights) > 1
    return term.dependence == "nonlinear" or (several and not is_affine(found.forward, *found.weights))


def _mixes(term: TermClass) -> bool:
    """Whether the gradient at one matrix is linear in what it answers, but not a number times it."""
    found = term.gradient
    if found is None or found.sees_memory or term.linear is None:
        return False
    return is_affine(found.objective_delta, found.prediction)


def _dual(memory: Memory, term: Term) -> bool:
    """Whether the rule steps in a dual, of which reads of a running state would need every weight."""
    shapes = () if memory.function is None else (w.shape for w in memory.function.weights)
    return any(rule_form(term.rule, s).form is None and mirror_form(term.rule, s) is not None for s in shapes)


def _directing(write: Write) -> Iterator[Value]:
    """Everything of a write but its targets: where it writes, and how much."""
    for term in write.terms:
        yield term.key
        yield from (v for _, v in term.rule.arguments)
        yield from (term.weight,) if term.weight is not None else ()
    yield from (write.retain,) if write.retain is not None else ()


def _without_weights(block: Block, memory: str) -> bool:
    return any(m.name == memory and m.function is None for m in block.memories)


def outlived(block: Block, memory: Memory) -> Refusal | None:
    """A start that depends on the sequences before: no compiled state holds it yet."""
    source = memory
    while source.init_from is not None:
        source = next(m for m in block.memories if m.name == source.init_from)
        if source.reset == "never":
            return Refusal(f"`init {source.name}`, which outlives the sequence, for `{memory.name}`")
    return None


def _memory(memory: Memory, body: list[Statement]) -> Refusal | None:
    if memory.function is None:
        return Refusal(f"softmax memory `{memory.name}`, whose cache grows with every token")
    if memory.clock.unit != "tokens":
        return Refusal(f"a write of `{memory.name}` on a clock of {memory.clock.unit}")
    writes = [s for s in body if isinstance(s, Write) and s.memory == memory.name]
    for write in writes:
        refusal = _write(memory, write)
        if refusal is not None:
            return refusal
    return None


def _write(memory: Memory, write: Write) -> Refusal | None:
    for term in write.terms:
        refusal = _term(memory, term)
        if refusal is not None:
            return refusal
    return None


def _term(memory: Memory, term: Term) -> Refusal | None:
    found = closed_gradient(memory, term)
    if isinstance(found, Refusal) and "looks at the memory" not in found.reason:
        return found
    asked = {v.name for v in term.rule.function.inputs} & {"x", "dy"}
    if not asked:
        return None
    rule = term.rule.name
    if isinstance(found, Refusal):
        return Refusal(
            f"rule `{rule}`, which asks for `{min(asked)}`, with objective `{term.objective.name}`, whose "
            "gradient is more than one outer product"
        )
    if any(g.x is None for g in found.gradients):
        return Refusal(f"rule `{rule}` on a weight that is not used as `W @ z`")
    return None
