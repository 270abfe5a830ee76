"""Contracts of the library: what a primitive declares, and the words every stage shares."""

from nldsl.catalog.binding import bind
from nldsl.catalog.broadcast import Broadcast, broadcast
from nldsl.catalog.naming import RESERVED, attribute, torch_name
from nldsl.catalog.primitive import (
    Builder,
    ContractError,
    Operand,
    Option,
    Outcome,
    ParameterSpec,
    Primitive,
    ShapeRule,
    Vjp,
)
from nldsl.catalog.registry import scan
from nldsl.catalog.values import Initialiser, Kind, Options, Role, Shape, Static

__all__ = [
    "RESERVED",
    "Broadcast",
    "Builder",
    "ContractError",
    "Initialiser",
    "Kind",
    "Operand",
    "Option",
    "Options",
    "Outcome",
    "ParameterSpec",
    "Primitive",
    "Role",
    "Shape",
    "ShapeRule",
    "Static",
    "Vjp",
    "attribute",
    "bind",
    "broadcast",
    "scan",
    "torch_name",
]
