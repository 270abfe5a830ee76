"""Names that need more than one write: what else a block does with a memory tells layers apart."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Literal

from nldsl.calculus import Expr, TermClass, UpdateClass, gate_expression
from nldsl.calculus.affine import scalar_value
from nldsl.calculus.evaluate import evaluate
from nldsl.calculus.expression import walk
from nldsl.calculus.mirror import mirror_form
from nldsl.calculus.ranges import range_of
from nldsl.catalog.numeric import np
from nldsl.graph.problems import written_pair
from nldsl.spec.program import Apply, Block, Memory, Read, Term, Update, Value, Write, option
from nldsl.view.direct import own_answer
from nldsl.view.known import Gating, Known, known_as

_DELTA = ("DeltaNet (", "Gated DeltaNet (", "Kimi Delta")
_MIRAS = "(Behrouz et al. 2025)"
_PAIRED = re.compile(r"\bself\[")


def name_of(
    block: Block, memory: Memory, write: Write, update: UpdateClass, gate: tuple[Gating, bool]
) -> Known | None:
    """The name of what `write` does in its block; `gate` as in `known_as`."""
    return in_its_block(block, memory, write, update, known_as(memory, write, update, gate))


def in_its_block(
    block: Block, memory: Memory, write: Write, update: UpdateClass, known: Known | None
) -> Known | None:
    """The name of what `write` does in its block; `known` is the name of the step alone."""
    if write.append:
        return _attention(memory, known)
    own = _makers(block)
    if _regresses(memory, write, own):
        return Known("MesaNet, reads that solve a regression (von Oswald et al. 2025)", "Sec. 5")
    special = _by_rule(write, update) or _two_terms(block, write, update, own)
    if special is not None:
        return special
    if known is not None and _generates_itself(memory, write, own):
        return Known(f"self-modifying Titans: {known.name}", f"Eq. 83-88, {known.paper.removeprefix('Eq. ')}")
    if _source(write.terms[0].key, own) == "numbers":
        return _of_vectors(block, memory, write)
    return _by_step(block, memory, write, known, own)


def _regresses(memory: Memory, write: Write, own: dict[str, Apply | Read]) -> bool:
    """Whether it is one of two sums of all pairs whose quotient is read; a sliding window is none."""
    solved = (r for r in own.values() if isinstance(r, Read) and r.solve is not None and not r.lone)
    (term, *others) = write.terms
    plain = not others and term.objective.name == "dot" and not term.rule.slots
    return plain and any(memory.name in (r.memory, *(r.solve or ())[:1]) for r in solved)


def _by_step(
    block: Block, memory: Memory, write: Write, known: Known | None, own: dict[str, Apply | Read]
) -> Known | None:
    """What the step itself tells, with where its gate and its target come from."""
    known = _but_for_sums_of_itself(known, memory, write, own)
    known = None if _taught_by_its_pupil(block, memory, write, own) else known
    known = _but_for_gates_of_no_token(known, _source(_gate(block, memory, write), own))
    if known is None:
        return _self_made(memory, write, own)
    if known.name.startswith(_DELTA):
        return _delta(block, memory, write, known, own)
    if known.name == "gradient descent on the inner product":
        if memory.function is None or all(len(w.shape) < 2 for w in memory.function.weights):
            return None
        return Known(f"deep linear attention, DLA {_MIRAS}", "Eq. 8, 15")
    if known.name.startswith("gated linear attention") and _forgets_its_key(write, own):
        return Known("HGRN-2 (Qin et al. 2024)", "Eq. 64")
    if known.name.startswith("the element-wise gate") and _diagonal_erase(write, own):
        return Known("Longhorn, the diagonal of the exact step (Liu et al. 2024)", "Eq. 31, 65")
    return known


def _of_vectors(block: Block, memory: Memory, write: Write) -> Known | None:
    """A memory whose keys are numbers remembers vectors: recurrences without outer products."""
    plain = len(write.terms) == 1 and not write.terms[0].rule.slots
    if memory.key_size != 1 or not plain or write.terms[0].objective.name != "dot":
        return None
    gates = [s for s in block.body if isinstance(s, Update) and s.memory == memory.name and s.op == "scale"]
    if write.retain is None and not gates:
        return Known("a running sum", "Eq. 64")
    if "value" in {write.retain_axis if write.retain is not None else "", *(g.axis for g in gates)}:
        return Known("an element-wise linear recurrence, as in QRNN, HGRN and RG-LRU", "Eq. 64")
    return Known("a decayed sum", "Eq. 64")


def beside_updates(known: Known | None, block: Block, memory: Memory, updates: list[Update]) -> Known | None:
    """The name of a memory that is also changed by what stands beside its writes."""
    if not updates or known is None:
        return known
    first = next((n for n, s in enumerate(block.body) if isinstance(s, Write) and s.memory == memory.name), 0)
    above = all(u.op == "scale" and block.body.index(u) < first for u in updates)
    if len(updates) == 1 and above and updates[0].axis == "scalar" and known.name.startswith("DeltaProduct"):
        return Known(f"Gated {known.name}", known.paper)
    return None


def _makers(block: Block) -> dict[str, Apply | Read]:
    return {s.out.name: s for s in block.body if isinstance(s, Apply | Read)}


def _attention(memory: Memory, known: Known | None) -> Known | None:
    pairs = option(memory.options, "start", 0)
    return Known(f"{known.name} with persistent pairs", known.paper) if known and pairs else known


def _by_rule(write: Write, update: UpdateClass) -> Known | None:
    """Layers whose rule is not linear in the gradient, or whose objective is robust."""
    term = write.terms[0]
    if "orthogonalize" in {a.op for a in term.rule.function.body}:
        if term.window > 1:
            return Known(f"Atlas {_MIRAS}", "Eq. 42, 68")
        return (
            Known("LaCT, one orthogonalised step per chunk (Zhang et al. 2025)", "Eq. 42")
            if write.at_commit
            else None
        )
    found = update.terms[0]
    link = _link(term, found)
    if link is not None and link.op == "softmax":
        return Known(f"Memora, a step in the dual of the entropy {_MIRAS}", "Sec. 5")
    if link is not None and {"abs", "pow", "div"} <= {e.op for e in walk([link])}:
        return Known(f"Moneta, a step in the dual of an L_q norm {_MIRAS}", "Sec. 5")
    forms = [r.form for r in found.rules]
    descends = all(f is not None and not f.momentum and scalar_value(f.taken) == 0.0 for f in forms)
    if term.window == 1 and descends and _is_huber(found):
        return Known(f"Yaad, the Huber loss {_MIRAS}", "Sec. 5")
    return None


def _link(term: Term, found: TermClass) -> Expr | None:
    """The weights as a function of the dual that the rule steps; `None` for a rule without one."""
    weights = found.gradient.gradients if found.gradient is not None else ()
    form = mirror_form(term.rule, weights[0].weight.shape) if weights else None
    return None if form is None else form.link


def _is_huber(found: TermClass) -> bool:
    """Whether the gradient is the error up to some size, and no larger beyond, on either side alike."""
    inner = found.gradient
    if inner is None or found.dependence != "nonlinear":
        return False
    size = inner.prediction.shape[-1] if inner.prediction.shape else 1
    sizes = [1e-6, 2e-6, 1e6, 2e6]
    values = []
    try:
        for error in (*sizes, *(-e for e in sizes)):
            given = {inner.prediction: np.full(size, error), inner.target: np.zeros(size)}
            values.append(float(np.max(np.asarray(evaluate(inner.objective_delta, given)))))
    except KeyError:
        return False
    small, double, large, larger = values[:4]
    same = small > 0 and math.isclose(double, 2 * small) and large > 0 and math.isclose(large, larger)
    return same and all(math.isclose(-a, b) for a, b in zip(values[:4], values[4:], strict=True))


def _two_terms(block: Block, write: Write, update: UpdateClass, own: dict[str, Apply | Read]) -> Known | None:
    """One term that erases and one that writes, at once: along one key (Comba), or along two (RWKV-7)."""
    if len(write.terms) != 2 or any(t.window > 1 or t.rule.slots for t in write.terms):
        return None
    if any(
        len(t.objective.inputs) > 2 or "dy" in {v.name for v in t.rule.function.inputs} for t in write.terms
    ):
        return None
    erase = [(t, c) for t, c in zip(write.terms, update.terms, strict=True) if _is_zero(t.target, own)]
    if len(erase) != 1 or not _erases(block, *erase[0]):
        return None
    if write.terms[0].key.name == write.terms[1].key.name:
        return (
            None
            if _has_channels(block, write)
            else Known("Comba, erase and write with rates of their own (Hu et al. 2025)", "Eq. 65")
        )
    if {t.dependence for t in update.terms} != {"affine", "constant"}:
        return None
    return Known("RWKV-7, two terms in one step (Peng et al. 2025)", "Eq. 65")


def _has_channels(block: Block, write: Write) -> bool:
    """Whether a rate or a gate differs from channel to channel: Comba has numbers per head."""
    memory = next(m for m in block.memories if m.name == write.memory)
    rates = {v.shape for t in write.terms for _, v in t.rule.arguments}
    gates = [s.axis for s in block.body if isinstance(s, Update) and s.memory == write.memory]
    kept = write.retain_axis if write.retain is not None else "scalar"
    numbers = {(), (memory.heads,)} if memory.per_head else {()}
    return not rates <= numbers or not {kept, *gates} <= {"scalar"}


def _erases(block: Block, term: Term, found: TermClass) -> bool:
    """Whether a term takes away what is stored at its key: it looks there, and its rate is not below zero."""
    rate = None if found.online is None else scalar_value(found.online.erase)
    if found.dependence == "constant" or (rate is not None and rate <= 0.0):
        return False
    return all(range_of(gate_expression(block, value)).high > 0 for _, value in term.rule.arguments)


def _is_zero(target: Value, own: dict[str, Apply | Read]) -> bool:
    made = own.get(target.name)
    return isinstance(made, Apply) and made.op == "constant" and option(made.options, "value") == 0


def _delta(block: Block, memory: Memory, write: Write, known: Known, own: dict[str, Apply | Read]) -> Known:
    """The delta rule: by itself, several times per token, on what it reads itself, with a rate above one."""
    if _is_zero(write.terms[0].target, own):
        return Known("erases of the delta rule alone, as PaTH has them (Yang et al. 2025)", "Eq. 65")
    target = own.get(write.terms[0].target.name)
    if isinstance(target, Read) and target.memory == memory.name:
        return Known("a self-referential weight matrix, SRWM (Irie et al. 2022)", "Eq. 58, 65")
    steps = sum(isinstance(s, Write) and s.memory == memory.name for s in block.body)
    if steps > 1:
        return Known(f"DeltaProduct, {steps} steps per token (Siems et al. 2025)", "Eq. 65")
    strength = _strength(block, write.terms[0])
    return Known(f"{known.name} with write strength {strength}", known.paper) if strength else known


def _strength(block: Block, term: Term) -> str:
    """`2 sigma` for a rate of two times a sigmoid; empty for one of a sigmoid alone, or another."""
    for _, value in term.rule.arguments:
        found = gate_expression(block, value)
        factors = list(_factors(found))
        numbers = [v for f in factors if (v := scalar_value(f)) is not None]
        if len(factors) == 2 and len(numbers) == 1 and any(f.op == "sigmoid" for f in factors):
            return f"{numbers[0]:g} sigma" if numbers[0] != 1.0 else ""
    return ""


def _factors(expr: Expr) -> Iterator[Expr]:
    if expr.op != "mul":
        yield expr
        return
    for argument in expr.args:
        yield from _factors(argument)


def _gate(block: Block, memory: Memory, write: Write) -> Value | None:
    """The gate of a write, or of the `S *= gate` beside it."""
    scales = [
        s.value for s in block.body if isinstance(s, Update) and s.memory == memory.name and s.op == "scale"
    ]
    return write.retain if write.retain is not None else scales[0] if len(scales) == 1 else None


Source = Literal["numbers", "weights", "position", "tokens"]
_SOURCES: tuple[Source, ...] = ("numbers", "weights", "position", "tokens")


def _source(gate: Value | None, own: dict[str, Apply | Read]) -> Source:
    """What a gate is made of: numbers alone, learned weights too, the place of the token, or the token."""
    if gate is None:
        return "numbers"
    made = own.get(gate.name)
    if not isinstance(made, Apply):
        return "tokens"
    least: Source = "position" if made.op == "position" else "weights" if made.parameters else "numbers"
    return max((least, *(_source(a, own) for a in made.args)), key=_SOURCES.index)


_FIXED_GATES = {
    "Mamba-2, a scalar gate": ("RetNet (Sun et al. 2023)", "RetNet with decays that are learned"),
    "Gated DeltaNet": ("Gated DeltaNet with a fixed gate", "Gated DeltaNet with a fixed gate"),
    "the gated delta rule of Hope": (
        "the gated delta rule of Hope with a fixed gate",
        "the gated delta rule of Hope with a fixed gate",
    ),
}
_TOKEN_GATES = (*_FIXED_GATES, "gated linear attention", "the element-wise gate", "Kimi Delta")


def _but_for_gates_of_no_token(known: Known | None, source: Source) -> Known | None:
    """Layers whose gates are made of their input keep the name only if these are."""
    if known is None or source == "tokens" or not known.name.startswith(_TOKEN_GATES):
        return known
    named = next((v for k, v in _FIXED_GATES.items() if known.name.startswith(k)), None)
    if named is None or source == "position":
        return None
    later = ", read as of the last commit" if known.name.endswith("commit") else ""
    return Known(named[source == "weights"] + later, known.paper)


def _generates_itself(memory: Memory, write: Write, own: dict[str, Apply | Read]) -> bool:
    """Whether the target stands as a read of the memory at something else than the key it is written to."""
    if not _PAIRED.search(written_pair(write.terms[0])[1].replace(f"{memory.name}[", "self[")):
        return False
    made = own.get(write.terms[0].target.name)
    while isinstance(made, Apply) and made.args and made.op != "sub":
        made = own.get(made.args[0].name)
    # What is taken from a given value is an erase at another key, not a target of its own.
    if isinstance(made, Apply) and made.op == "sub":
        return False
    return any(r.key.name != write.terms[0].key.name for r in _own_reads(memory, write, own))


def _self_made(memory: Memory, write: Write, own: dict[str, Apply | Read]) -> Known | None:
    """A memory that makes its own target, under a rule with memories that no closed form takes."""
    made = own.get(write.terms[0].target.name)
    while isinstance(made, Apply) and made.args:
        made = own.get(made.args[0].name)
    if isinstance(made, Read) and made.memory == memory.name and write.terms[0].rule.slots:
        return Known("self-modifying Titans with momentum", "Eq. 33, 83-92")
    return None


def _but_for_sums_of_itself(
    known: Known | None, memory: Memory, write: Write, own: dict[str, Apply | Read]
) -> Known | None:
    """A decayed sum has its name only if what is added does not look at the sum."""
    plain = known is not None and known.paper.startswith(("Eq. 15", "Eq. 64"))
    return None if plain and _sees_itself(memory, write, own) else known


def _taught_by_its_pupil(block: Block, memory: Memory, write: Write, own: dict[str, Apply | Read]) -> bool:
    """Whether its targets come of what it taught another memory: neither of the two has a name."""
    return bool(own_answer(block, memory, write)) and not _sees_itself(memory, write, own)


def _sees_itself(memory: Memory, write: Write, own: dict[str, Apply | Read]) -> bool:
    """Whether what is added is made of what the memory holds: then it is no plain sum."""
    return any(True for _ in _own_reads(memory, write, own))


def _own_reads(memory: Memory, write: Write, own: dict[str, Apply | Read]) -> Iterator[Read]:
    """The reads of a memory that the targets of its own write are made of."""
    waiting, seen = [t.target.name for t in write.terms], set[str]()
    while waiting:
        made = own.get(name := waiting.pop())
        if made is None or name in seen:
            continue
        seen.add(name)
        if isinstance(made, Read) and made.memory == memory.name:
            yield made
            continue
        waiting += [made.key.name] if isinstance(made, Read) else [a.name for a in made.args]


def _forgets_its_key(write: Write, own: dict[str, Apply | Read]) -> bool:
    """Keys that are one minus the gate."""
    made = own.get(write.terms[0].key.name)
    gate = write.retain.name if write.retain else ""
    return isinstance(made, Apply) and made.op == "sub" and made.args[1].name == gate


def _diagonal_erase(write: Write, own: dict[str, Apply | Read]) -> bool:
    """A gate of one minus the outer product of rates and squared keys."""
    made = own.get(write.retain.name) if write.retain else None
    inner = own.get(made.args[1].name) if isinstance(made, Apply) and made.op == "sub" else None
    if not isinstance(inner, Apply) or inner.op != "outer":
        return False
    square = own.get(inner.args[1].name)
    return isinstance(square, Apply) and square.op == "pow" and square.args[0].name == write.terms[0].key.name
