"""Bind the static arguments of a call to the options of a primitive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nldsl.catalog.primitive import ContractError, Option, Primitive
from nldsl.catalog.values import Static
from nldsl.diagnostics import did_you_mean


def bind(
    primitive: Primitive, positional: Sequence[Static], named: Mapping[str, Static]
) -> dict[str, Static]:
    """Every option of `primitive` with its value: given by position, by name, or its default.

    Errors: `ContractError` for an unknown name, one given twice, one too many, one missing, a
    wrong type, or a value outside its range.

    Example:
        >>> from nldsl.library import PRIMITIVES
        >>> bind(PRIMITIVES["conv"], [4], {})
        {'window': 4, 'bias': True}
    """
    names = [o.name for o in primitive.options]
    for name in named:
        if name not in names:
            hint = did_you_mean(name, names)
            known = ", ".join(f"`{n}`" for n in names) or "none"
            raise ContractError(
                f"`{primitive.name}` has no option `{name}`; it has {known}{'; ' + hint if hint else ''}"
            )
    bound = _positional(primitive, positional)
    for name, value in named.items():
        if name in bound:
            raise ContractError(f"`{primitive.name}` is given `{name}` twice: by position and by name")
        bound[name] = value
    return {o.name: _checked(primitive, o, bound) for o in primitive.options}


def _positional(primitive: Primitive, positional: Sequence[Static]) -> dict[str, Static]:
    """Options in positional order; a variadic one takes all that is left."""
    bound: dict[str, Static] = {}
    rest = list(positional)
    for option in primitive.options:
        if not rest:
            break
        if option.variadic:
            bound[option.name], rest = tuple(rest), []
        else:
            bound[option.name] = rest.pop(0)
    if rest:
        most = len(primitive.options)
        count = f"{most} static argument{'s' * (most != 1)}"
        raise ContractError(f"`{primitive.name}` takes at most {count}, found {len(positional)}")
    return bound


def _checked(primitive: Primitive, option: Option, bound: Mapping[str, Static]) -> Static:
    """The value of one option, of the right type and in range."""
    if option.name not in bound:
        if option.default == "REQUIRED":
            given = ", ".join((*primitive.values, f"{option.name} = ..."))
            same = ", the same number as `embed` has" if primitive.name == "head" else ""
            raise ContractError(
                f"`{primitive.name}` needs `{option.name}`: {option.help}; `{primitive.name}({given})`{same}"
            )
        return option.default
    value = bound[option.name]
    if option.variadic:
        items = value if isinstance(value, tuple) else (value,)
        return tuple(_one(primitive, option, item) for item in items)
    if value is None and option.default is None:
        return None
    return _one(primitive, option, value)


def _one(primitive: Primitive, option: Option, value: Static) -> Static:
    """One value against type, choices and range of its option."""
    where = f"`{option.name}` of `{primitive.name}`"
    if not _has_type(option, value):
        words = {"int": "a whole number", "float": "a number", "bool": "`true` or `false`", "str": "a string"}
        raise ContractError(f"{where} must be {words[option.type]}, found `{value}`")
    if option.choices and value not in option.choices:
        raise ContractError(f"{where} must be one of {', '.join(option.choices)}, found `{value}`")
    if isinstance(value, int | float):
        if option.minimum is not None and value < option.minimum:
            raise ContractError(f"{where} must be at least {option.minimum:g}{_unit(option)}, found {value}")
        if option.maximum is not None and value > option.maximum:
            raise ContractError(f"{where} must be at most {option.maximum:g}{_unit(option)}, found {value}")
    return value


def _unit(option: Option) -> str:
    return f" {option.unit}" if option.unit else ""


def _has_type(option: Option, value: Static) -> bool:
    """`true` is no number, and `4.0` is no whole number."""
    match option.type:
        case "bool":
            return isinstance(value, bool)
        case "str":
            return isinstance(value, str)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
