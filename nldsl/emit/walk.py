"""Which names emitted nodes mention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from nldsl.emit.expressions import Expression, Var
from nldsl.emit.statements import Import, Statement


def mentioned(nodes: Iterable[Statement | Expression]) -> frozenset[str]:
    """Every name the nodes read or assign, apart from what imports bind.

    Example:
        >>> from nldsl.emit.nodes import assign, call
        >>> sorted(mentioned([assign("y", call("torch.exp", Var("x")))]))
        ['torch', 'x', 'y']
    """
    return frozenset(node.name for node in _walk(tuple(nodes)) if isinstance(node, Var))


def _walk(node: Any) -> Iterator[Any]:
    if isinstance(node, tuple):
        for part in node:
            yield from _walk(part)
    elif is_dataclass(node) and not isinstance(node, Import):
        yield node
        for part in fields(node):
            yield from _walk(getattr(node, part.name))
