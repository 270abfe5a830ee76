"""What the text of a rule says about the numbers it takes, and which of those given are none of them."""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.catalog.bounds import ANY, NAMED, SHARE, Bounds
from nldsl.spec.items import Item, RuleItem, is_number
from nldsl.spec.streams import walk
from nldsl.syntax import tree

BETA = "beta"
"""How the names of shares of averages begin."""


def bounds_of(definition: tree.Definition, name: str) -> Bounds:
    """What the argument `name` may be: by its name, and for a `beta` by what is made of it.

    `beta * m + (1 - beta) * g` and `unbias(m, beta)` are averages, `beta * m + g` is none.
    """
    if name.startswith(BETA) and any(_averages(node, name) for node in walk(definition.body)):
        return SHARE
    return NAMED.get(name, ANY)


def _averages(node: tree.Node, name: str) -> bool:
    """Whether a node is `1 - name` or `unbias(..., name)`."""
    match node:
        case tree.Binary(op="-", left=tree.Number(value=1), right=tree.Name(id=found)):
            return found == name
        case tree.Call(function=tree.Name(id="unbias"), args=[_, tree.Arg(value=tree.Name(id=found))]):
            return found == name
    return False


def bounds_by_path(
    definition: tree.Definition, arguments: tuple[tuple[str, Item], ...], prefix: str = ""
) -> Iterator[tuple[str, Bounds, int | float]]:
    """Every number among the arguments of a rule, and of rules in it: path, what it may be, what it is."""
    for name, item in arguments:
        if isinstance(item, RuleItem):
            yield from bounds_by_path(item.definition, item.arguments, f"{prefix}{name}.")
        elif is_number(item):
            yield f"{prefix}{name}", bounds_of(definition, name), item
