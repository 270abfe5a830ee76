"""What gates and rates are called in equations when the author gave them no name."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nldsl.calculus.classify import gate_name
from nldsl.calculus.memo import by_identity
from nldsl.library import PRIMITIVES
from nldsl.spec.program import Apply, Block, Read, Update, Value, Write

USUAL = {"lr": "eta"}
"""Letters of the field for arguments of rules; the others bear their own name."""

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_LONGEST = 60


def letter(block: Block, gate: Value) -> str:
    """The name of a gate or rate: the author's, or a letter by what it is for."""
    return letters(block).get(gate.name) or gate_name(block, gate)


@by_identity(8)
def letters(block: Block) -> dict[str, str]:
    """For every gate without a name of its own a letter that nothing else in the block bears.

    `eta` for a rate, `alpha` for what is retained, `gamma` for the weight of a token; other arguments of
    rules are called as the rule calls them.
    """
    makers = {s.out.name: s for s in block.body if isinstance(s, Apply)}
    taken = {v.name for v in block.inputs} | {s.out.name for s in block.body if isinstance(s, Apply | Read)}
    found: dict[str, str] = {}
    for wanted, value in _gates(block):
        if value.name in found or not unnamed(makers.get(value.name)):
            continue
        name, n = wanted, 1
        while name in taken:
            n += 1
            name = f"{wanted}{n}"
        taken.add(name)
        found[value.name] = name
    return found


def unnamed(step: Apply | None) -> bool:
    """Whether the elaborator named a value, after the operation that makes it; numbers need no letter."""
    if step is None or step.op == "constant":
        return False
    return re.search(rf"_{step.op}(_\d+)?$", step.out.name) is not None


def meaning(block: Block, name: str) -> str:
    """What a value without a name is computed from, as one would write it; short."""
    makers = {s.out.name: s for s in block.body if isinstance(s, Apply)}
    text = _schedule(makers, name) or _text(makers, name, top=True)
    return text if len(text) <= _LONGEST else ""


def _schedule(makers: dict[str, Apply], name: str) -> str:
    """The schedule that `train` sets a number by; empty for a value of tokens."""
    step = makers.get(name)
    while step is not None and step.op in ("minimum", "maximum", "sum", "detach"):
        step = makers.get(step.args[0].name)
    if step is None or not step.parameters or step.parameters[0].schedule is None:
        return ""
    kind, options = step.parameters[0].schedule
    given = dict(options)
    first = [f"{given.pop('value', 0.0):g}"]
    return f"{kind}({', '.join(first + [f'{n} = {v}' for n, v in given.items() if v])}), of the training step"


def _text(makers: dict[str, Apply], name: str, top: bool = False) -> str:
    step = makers.get(name)
    if step is None or not (top or unnamed(step) or step.op == "constant"):
        return name
    if step.op == "constant":
        return f"{dict(step.options)['value']:.6g}"
    if (number := _everywhere(makers, step)) is not None:
        return f"{number:.6g}"
    args = [_text(makers, a.name) for a in step.args]
    if step.op == "mul" and len(args) == 2 and "1" in args:
        return args[1 - args.index("1")]
    if step.op in _INFIX and len(args) == 2:
        text = f"{args[0]} {_INFIX[step.op]} {args[1]}"
        return text if top else f"({text})"
    if step.op == "neg":
        return f"-{args[0]}"
    if step.op == "linear" or not PRIMITIVES[step.op].options:
        return f"{step.op}({', '.join(args)})"
    return f"{step.op}({', '.join(args)}, ..)"


def _everywhere(makers: dict[str, Apply], step: Apply) -> float | None:
    """The number that a vector holds in every channel: `0 * index(n) + 1`, for all heads or one."""
    if step.op == "share":
        inner = makers.get(step.args[0].name)
        return None if inner is None else _everywhere(makers, inner)
    parts = [makers.get(a.name) for a in step.args]
    if step.op == "constant":
        value = dict(step.options)["value"]
        return float(value) if isinstance(value, int | float) else None
    if step.op not in ("add", "mul") or any(p is None for p in parts):
        return None
    numbers = [_everywhere(makers, p) for p in parts if p is not None]
    if step.op == "mul":
        return 0.0 if 0.0 in numbers and any(p is not None and p.op == "index" for p in parts) else None
    return None if None in numbers else sum(n for n in numbers if n is not None)


def _gates(block: Block) -> Iterator[tuple[str, Value]]:
    """(usual letter, value) of every gate, rate and weight, in program order."""
    for step in block.body:
        if isinstance(step, Update) and step.op == "scale":
            yield "alpha", step.value
        if isinstance(step, Write):
            if step.retain is not None:
                yield "alpha", step.retain
            for term in step.terms:
                yield from ((USUAL.get(name, name), value) for name, value in term.rule.arguments)
                if term.weight is not None:
                    yield "gamma", term.weight
