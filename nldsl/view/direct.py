"""What changes a memory beside the step of a rule: `S *= a`, `S += e`, `S = e`; what values are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nldsl.calculus import gate_expression, gate_name
from nldsl.calculus.affine import scalar_value
from nldsl.calculus.letters import letter, letters, meaning, unnamed
from nldsl.calculus.lift import source_expression
from nldsl.calculus.ranges import range_of
from nldsl.spec.program import Apply, Block, Memory, Read, Update, Value, Write
from nldsl.view.pens import Formula, Pen, authors, both


def spoken_names(block: Block) -> dict[str, str]:
    """How values are written where not by name: as a number, or as the vector of one that holds them."""
    found = {}
    for step in block.body:
        if isinstance(step, Apply):
            value = scalar_value(gate_expression(block, step.out)) if not step.out.shape else None
            if value is not None:
                found[step.out.name] = f"{value:.6g}"
            elif step.op == "mul" and any(
                scalar_value(gate_expression(block, a)) == 0.0 for a in step.args if not a.shape
            ):
                found[step.out.name] = "0"
            elif step.op == "mean":
                found[step.out.name] = gate_name(block, step.out)
    return found | letters(block)


def update_formula(block: Block, memory: Memory, update: Update, spoken: Mapping[str, str]) -> Formula:
    """`S_t = a_t S_{t-1}` and its kin, the gate on the side where it acts."""
    value, name = update.value, memory.name
    text = _spelt(block, value)

    def line(pen: Pen) -> str:
        old, new = (pen.style.symbol(authors(name), index) for index in ("t-1", "t"))
        if update.op == "scale":
            return f"{new} = {pen.gate(value.name, update.axis, old)}"
        what = text if text else pen.name(value.name)
        return f"{new} = {what}" if update.op == "set" else f"{new} = {old} + {what}"

    return both(spoken, line)


def _spelt(block: Block, value: Value) -> str:
    """A value without a name as it is computed; empty if the author named it."""
    maker = next((s for s in block.body if isinstance(s, Apply) and s.out.name == value.name), None)
    number = scalar_value(gate_expression(block, value))
    if number is not None and not value.shape:
        return f"{number:.6g}"
    return meaning(block, value.name) if maker is not None and unnamed(maker) else ""


def scaled_too(block: Block, updates: list[Update]) -> str:
    """What every token scales a memory by beside the step whose transition is told; empty for nothing."""
    found = []
    for update in updates:
        if update.op == "scale":
            value = scalar_value(gate_expression(block, update.value))
            between = range_of(source_expression(block, update.value.name))
            name = letter(block, update.value)
            found.append(f"{value:.6g}" if value is not None else f"{name} in {between}")
    return f"beside that, every token scales what is held by {', '.join(found)}" if found else ""


def own_answer(block: Block, memory: Memory, write: Write) -> str:
    """A read of the memory that a target of its own write is made of, as `S[k]`; empty if there is none."""
    return answer_in(block, memory, [t.target for t in write.terms])


def answer_in(block: Block, memory: Memory, values: list[Value]) -> str:
    """A read of the memory that one of some values is made of, also by way of what another one is taught."""
    taught = _taught_each_token(block)
    makers = {s.out.name: s for s in block.body if isinstance(s, Apply | Read)}
    waiting, seen = [v.name for v in values], set[str]()
    while waiting:
        made = makers.get(name := waiting.pop())
        if made is None or name in seen:
            continue
        seen.add(name)
        if isinstance(made, Read):
            if made.memory == memory.name:
                return f"{memory.name}[{_spelt(block, made.key) or made.key.name}]"
            waiting += [made.key.name, *taught.get(made.memory, ())]
        else:
            waiting += [a.name for a in made.args]
    return ""


def _taught_each_token(block: Block) -> dict[str, list[str]]:
    """All that steps every memory whose reads see its steps at once or a token later."""
    online = {m.name for m in block.memories if (m.clock.every, m.clock.unit) == (1, "tokens")}
    found: dict[str, list[str]] = {}
    for step in block.body:
        if isinstance(step, Write | Update) and step.memory in online:
            found.setdefault(step.memory, []).extend(v.name for v in _given(step))
    return found


def _given(step: Write | Update) -> Iterator[Value]:
    """What a step is made of: targets, keys, rates, weights and gates."""
    if isinstance(step, Update):
        yield step.value
        return
    for term in step.terms:
        yield from (term.target, term.key, *(v for _, v in term.rule.arguments))
        yield from (term.weight,) if term.weight is not None else ()
    yield from (step.retain,) if step.retain is not None else ()
