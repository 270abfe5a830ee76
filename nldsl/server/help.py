"""Signature help: the call the cursor stands in, and which of its arguments."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.library import PRIMITIVES
from nldsl.server.completion import arguments_of
from nldsl.server.cursor import cursor_at
from nldsl.server.document import Document


@dataclass(frozen=True)
class Signature:
    """How a function is called, and which argument is being written."""

    label: str
    arguments: tuple[str, ...]
    active: int
    text: str


def signature_help(document: Document, offset: int) -> Signature | None:
    """The signature of the innermost open call.

    Example:
        >>> signature_help(Document("a.nl", "block f(x) { y = norm(x, "), 25).label
        'norm(x, eps = 1e-6)'
    """
    cursor = cursor_at(document, offset)
    if cursor.quiet or not cursor.calls:
        return None
    name, number, _ = cursor.calls[-1]
    primitive = PRIMITIVES.get(name)
    arguments = list(primitive.values) if primitive is not None else []
    for label, default, _ in arguments_of(document, cursor, name):
        arguments.append(f"{label} = {default}" if default else label)
    if not arguments:
        return None
    named = cursor.words[-2] if cursor.last == "=" and len(cursor.words) > 1 else ""
    active = next((i for i, a in enumerate(arguments) if named and a.split(" ")[0] == named), number)
    text = primitive.doc if primitive is not None else ""
    return Signature(f"{name}({', '.join(arguments)})", tuple(arguments), active, text)
