"""The reference of primitives, from their contracts: equation, arguments, shapes, places, example."""

from __future__ import annotations

from collections.abc import Iterator

from docs.generate.markdown import code, fence, page, table
from nldsl.catalog.primitive import ContractError, Operand, Option, Primitive
from nldsl.catalog.schedules import SCHEDULES
from nldsl.catalog.values import Static
from nldsl.library import PRIMITIVES

_PLACES = ("block", "map", "objective", "rule")
_TRIED: dict[str, Operand] = {
    "a vector `[6]`": Operand((6,), "vector"),
    "a headed value `[2, 3]`": Operand((2, 3), "headed"),
    "a number per head `[2]`": Operand((2,), "heads"),
    "a matrix `[6, 4]`": Operand((6, 4), "matrix"),
    "a number": Operand((), "scalar"),
}


def written() -> list[Primitive]:
    """What one can write: primitives that have a place."""
    return [p for _, p in sorted(PRIMITIVES.items()) if p.places]


def primitives_page() -> str:
    """Every primitive."""
    groups = {
        "With slow parameters or hidden state": [p for p in written() if p.stateful or _owns(p)],
        "Element by element": [p for p in written() if p.elementwise],
    }
    taken = {p.name for group in groups.values() for p in group}
    groups["Shapes, sums and products"] = [p for p in written() if p.name not in taken]
    parts = [
        "What the language cannot say in itself. Everything else (maps, objectives, rules, blocks) is "
        "[written in the language](../library/index.md). Arguments behind `*` are static: numbers or words "
        "known before anything runs."
    ]
    for title, group in groups.items():
        parts.append(f"## {title}")
        for primitive in group:
            parts += _section(primitive)
    parts += ["## Schedules {#schedules}", "Arguments of the rules in `train` may change with the step:"]
    for schedule in SCHEDULES.values():
        parts += [
            f"### {schedule.name} {{#schedule-{schedule.name}}}",
            schedule.doc,
            _options(schedule.options),
        ]
    return page("Primitives", *parts)


def _section(primitive: Primitive) -> Iterator[str]:
    yield f"### {primitive.name} {{#{primitive.name.replace('_', '-')}}}"
    yield primitive.doc
    yield fence(primitive.example, "nl")
    if primitive.equation:
        yield fence(primitive.equation, "text")
    rows = [(code(signature(primitive)), _where(primitive), _facts(primitive))]
    yield table(("call", "where", "remarks"), rows)
    yield _options(primitive.options)
    shapes = list(_shapes(primitive))
    yield table(("of", "gives"), shapes) if shapes else ""


def signature(primitive: Primitive) -> str:
    """How it is called.

    Example:
        >>> signature(PRIMITIVES["linear"])
        'linear(x, *, out = none, bias = false)'
    """
    values = list(primitive.values)
    if primitive.variadic:
        values[-1] += ", ..."
    options = [_option(o) for o in primitive.options]
    return f"{primitive.name}({', '.join([*values, *(['*', *options] if options else [])])})"


def _option(option: Option) -> str:
    if option.variadic:
        return f"{option.name}, ..."
    return option.name if option.default == "REQUIRED" else f"{option.name} = {_value(option.default)}"


def _value(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return (
        f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
    )


def _options(options: tuple[Option, ...]) -> str:
    rows = []
    for o in options:
        bounds = " to ".join("" if b is None else f"{b:g}" for b in (o.minimum, o.maximum))
        bounds = f"at least {o.minimum:g}" if o.maximum is None and o.minimum is not None else bounds
        allowed = ", ".join(map(code, o.choices)) or (bounds if bounds != " to " else "")
        default = "required" if o.default == "REQUIRED" else code(_value(o.default))
        rows.append((code(o.name), o.help, o.unit, o.type, allowed, default))
    return table(("argument", "what it is", "unit", "type", "allowed", "default"), rows) if rows else ""


def _where(primitive: Primitive) -> str:
    return ", ".join(f"{place}s" for place in _PLACES if place in primitive.places)


def _facts(primitive: Primitive) -> str:
    facts = []
    if primitive.stateful:
        facts.append("carries hidden state from token to token")
    if _owns(primitive):
        facts.append(f"has slow parameters: {', '.join(map(code, _owns(primitive)))}")
    if primitive.merges:
        facts.append("merges heads first")
    return "; ".join(facts)


def _owns(primitive: Primitive) -> list[str]:
    """Its slow parameters, as a contract on some value names them."""
    options = {o.name: _filler(o) for o in primitive.options}
    for operand in _TRIED.values():
        try:
            outcome = primitive.shape((operand,) * len(primitive.values), options)
        except (ContractError, KeyError, IndexError, TypeError, ValueError, AttributeError):
            continue
        return [p.name for p in outcome.parameters]
    return []


def _filler(option: Option) -> Static:
    if option.default != "REQUIRED":
        return option.default
    return (3,) if option.variadic else 3


def _shapes(primitive: Primitive) -> Iterator[tuple[str, str]]:
    """The shape of the result for each kind of value that it takes."""
    if (
        len(primitive.values) != 1
        or any(o.default == "REQUIRED" for o in primitive.options)
        or primitive.folded
    ):
        return
    options = {o.name: o.default for o in primitive.options}
    for words, operand in _TRIED.items():
        try:
            outcome = primitive.shape((operand,), options)
        except (ContractError, KeyError, IndexError, TypeError, ValueError):
            continue
        shape = f"`[{', '.join(map(str, outcome.shape))}]`" if outcome.shape else "a number"
        yield words, shape
