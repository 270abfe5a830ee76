"""Guards that the shape rules share; each refusal says what was found and what was expected."""

from __future__ import annotations

from nldsl.catalog.broadcast import describe
from nldsl.catalog.primitive import ContractError, Operand
from nldsl.catalog.values import Kind, Shape, Static


def expect(operand: Operand, kinds: tuple[Kind, ...], name: str, why: str) -> None:
    """Refuse an operand that is of none of `kinds`."""
    if operand.kind not in kinds:
        wanted = " or ".join(kinds)
        raise ContractError(f"`{name}` expected a {wanted}, found a {describe(operand)}; {why}")


def merged_size(operand: Operand, name: str) -> int:
    """Number of channels of a vector, or of a headed value once merged."""
    expect(operand, ("vector", "headed"), name, "it acts on the channels of one token")
    return operand.shape[0] if operand.kind == "vector" else operand.shape[0] * operand.shape[1]


def last_axis(operand: Operand, name: str) -> int:
    """Size of the last axis; refuses values that have none."""
    if not operand.shape:
        raise ContractError(f"`{name}` acts on the last axis, found a {operand.kind}, which has none")
    return operand.shape[-1]


def without_last(operand: Operand, name: str) -> tuple[Shape, Kind]:
    """Shape and kind once the last axis is summed away."""
    last_axis(operand, name)
    kinds: dict[Kind, Kind] = {"vector": "scalar", "heads": "scalar", "headed": "heads", "matrix": "vector"}
    return operand.shape[:-1], kinds[operand.kind]


def whole(value: Static, name: str, option: str) -> int:
    """A static whole number of at least one."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ContractError(f"`{option}` of `{name}` must be a whole number of at least 1, found `{value}`")
    return value


def real(value: Static, name: str, option: str) -> float:
    """A static number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ContractError(f"`{option}` of `{name}` must be a number, found `{value}`")
    return float(value)


def square(operand: Operand, name: str) -> None:
    """Refuse anything but a square matrix."""
    expect(operand, ("matrix",), name, "it is a function of symmetric matrices")
    if operand.shape[0] != operand.shape[1]:
        raise ContractError(f"`{name}` expected a square matrix, found {describe(operand)}")
