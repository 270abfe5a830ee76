"""Emitted operations on rows that one function of the runtime does in one pass: what follows from what.

`conv` and the `silu` of its result alone, `a * silu(b)` and `a * sigmoid(b)`, `rates[..., None] * rows`, and
the parts of one value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

from nldsl.emit.nodes import (
    Assign,
    Expression,
    For,
    FunctionDef,
    If,
    Invoke,
    Item,
    Literal,
    Operation,
    Statement,
    TupleOf,
    Var,
    With,
    name,
)
from nldsl.lowerings.prune import reads, substitute
from nldsl.lowerings.scope import Imports, Names

SILU = name("functional.silu")
GATES = {SILU: "times_silu", name("torch.sigmoid"): "times_sigmoid"}


def in_one_pass(body: tuple[Statement, ...], imports: Imports, names: Names) -> tuple[Statement, ...]:
    """`body` with such operations as one call each."""
    body = _split(_activated(body, names))
    used = Counter(v for s in body for v in reads(s))
    for i, statement in enumerate(body):
        gate = _opened(statement)
        if gate is not None and used[gate] == 1:
            body = _with_gate(body, i, gate, names)
    # In loops a turn sees few rows.
    return tuple(
        s if isinstance(s, For | If | With) else _everywhere(s, lambda node: _one_call(node, imports))
        for s in body
    )


def _split(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """Parts of one value as one split of it: apart, each would have a gradient of the size of the whole."""
    groups: dict[tuple[Expression, Expression], dict[int, int]] = {}
    for n, statement in enumerate(body):
        found = _part(statement)
        if found is not None:
            groups.setdefault(found[:2], {}).setdefault(found[2], n)
    out: list[Statement | None] = list(body)
    for (whole, sizes), places in groups.items():
        if len(places) < 2 or not isinstance(sizes, TupleOf):
            continue
        names = [_name(body[places[i]]) if i in places else Var("_") for i in range(len(sizes.items))]
        for n in places.values():
            out[n] = None
        out[min(places.values())] = Assign((TupleOf(tuple(names)),), whole.method("split", sizes, -1))
    return tuple(s for s in out if s is not None)


def _part(statement: Statement) -> tuple[Expression, Expression, int] | None:
    """The value, the sizes of its parts and the number of the part, if one is taken."""
    if not isinstance(statement, Assign) or not isinstance(statement.value, Invoke):
        return None
    call, options = statement.value, dict(statement.value.kwargs)
    index = options.get("index")
    if call.function != Var("parts") or not isinstance(call.args[0], Var) or not isinstance(index, Literal):
        return None
    return call.args[0], options["sizes"], int(index.value)  # type: ignore[arg-type]


def _name(statement: Statement) -> Expression:
    assert isinstance(statement, Assign)
    return statement.targets[0]


def _activated(body: tuple[Statement, ...], names: Names) -> tuple[Statement, ...]:
    """Convolutions with the activation of their result, which has a name of its own."""
    out = list(body)
    for i, statement in enumerate(body):
        made = _convolved(statement)
        if made is None or sum(v == made for s in body for v in reads(s)) != 1:
            continue
        call = Invoke(SILU, (Var(made),))
        place = next((j for j, s in enumerate(out) if j > i and _contains(s, call)), None)
        if place is None:
            continue
        assert isinstance(statement, Assign)
        assert isinstance(statement.value, Invoke)
        assert isinstance(statement.targets[0], TupleOf)
        kwargs = (*statement.value.kwargs, ("activation", Literal("silu")))
        whole = Var(names.fresh(f"{made}_silu"))
        targets = (TupleOf((whole, *statement.targets[0].items[1:])),)
        out[i] = replace(statement, targets=targets, value=replace(statement.value, kwargs=kwargs))
        out[place] = _everywhere(out[place], partial(_instead, call, whole))
    return tuple(out)


def _instead(old: Expression, new: Expression, node: Any) -> Any:
    return new if node == old else node


def _convolved(statement: Statement) -> str | None:
    """The name of what a convolution makes, if it is one."""
    if not isinstance(statement, Assign) or not isinstance(statement.value, Invoke):
        return None
    if statement.value.function != Var("conv") or not isinstance(statement.targets[0], TupleOf):
        return None
    target = statement.targets[0].items[0]
    return target.name if isinstance(target, Var) else None


def _opened(statement: Statement) -> str | None:
    """The name of a gate, if a statement makes one: `gate = functional.silu(..)`."""
    if not isinstance(statement, Assign) or len(statement.targets) != 1:
        return None
    target, value = statement.targets[0], statement.value
    opens = isinstance(value, Invoke) and value.function in GATES
    return target.name if opens and isinstance(target, Var) else None


def _with_gate(body: tuple[Statement, ...], i: int, gate: str, names: Names) -> tuple[Statement, ...]:
    """The activation of a gate that is only multiplied by, put where that is done.

    What is activated there has a name of its own: that of the gate means the gate wherever it stands.
    """
    statement = body[i]
    assert isinstance(statement, Assign)
    assert isinstance(statement.value, Invoke)
    for j in range(i + 1, len(body)):
        if _multiplied(body[j], gate):
            raw = Var(names.fresh(f"{gate}_raw"))
            late = replace(statement.value, args=(raw,))
            opened = replace(statement, targets=(raw,), value=statement.value.args[0])
            return (*body[:i], opened, *body[i + 1 : j], substitute(body[j], gate, late), *body[j + 1 :])
    return body


def _multiplied(node: Any, gate: str) -> bool:
    """Whether `gate` is a factor of a product in a node."""
    found = False

    def look(part: Any) -> Any:
        nonlocal found
        found |= isinstance(part, Operation) and part.op == "*" and Var(gate) in (part.left, part.right)
        return part

    _everywhere(node, look)
    return found and isinstance(node, Assign)


def _one_call(node: Any, imports: Imports) -> Any:
    if not isinstance(node, Operation) or node.op != "*":
        return node
    for value, gate in ((node.left, node.right), (node.right, node.left)):
        if isinstance(gate, Invoke) and gate.function in GATES and not _number(value):
            return imports.use(f"nldsl.runtime.ops:{GATES[gate.function]}")(value, *gate.args)
    for rates, rows in ((node.left, node.right), (node.right, node.left)):
        if _late(rates) and not _late(rows) and not _number(rows):
            return imports.use("nldsl.runtime.ops:scaled")(rates, rows)
    return node


def _late(node: Expression) -> bool:
    """Whether it is `x[..., None]` or `x[:, None]`."""
    return (
        isinstance(node, Item) and isinstance(node.index, TupleOf) and node.index.items[-1] == Literal(None)
    )


def _number(node: Expression) -> bool:
    return isinstance(node, Literal) or not any(True for _ in reads(node))


def _contains(node: Any, wanted: Expression) -> bool:
    found = False

    def look(part: Any) -> Any:
        nonlocal found
        found |= part == wanted
        return part

    _everywhere(node, look)
    return found


def _everywhere(node: Any, change: Callable[[Any], Any]) -> Any:
    """`node` with `change` applied to its parts, then to itself."""
    if isinstance(node, tuple):
        return tuple(_everywhere(part, change) for part in node)
    if not is_dataclass(node) or isinstance(node, type | FunctionDef):
        return node
    parts = {f.name: getattr(node, f.name) for f in fields(node)}
    new = {key: _everywhere(part, change) for key, part in parts.items()}
    # What is as it was stays the same node.
    changed = {key: part for key, part in new.items() if part is not parts[key] and part != parts[key]}
    return change(replace(node, **changed) if changed else node)
