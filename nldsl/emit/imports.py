"""The import block of an emitted module, in the order ruff's import rules want."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping

from nldsl.emit.expressions import Expression
from nldsl.emit.statements import Blank, Import, Statement
from nldsl.emit.walk import mentioned

NaturalKey = tuple[tuple[int, int, str], ...]


def import_block(
    names: Mapping[str, Iterable[str]],
    modules: Iterable[str] = ("torch",),
    body: Iterable[Statement | Expression] | None = None,
) -> tuple[Statement, ...]:
    """`from __future__`, then `import` of `modules` and `from` imports of `names`, by section.

    names: module -> names taken from it.  modules: imported whole.  body: if given, what it does
    not mention is left out.  `nldsl` counts as third-party, as it is where emitted files live.

    Example:
        >>> from nldsl.emit.printer import print_module
        >>> from nldsl.emit.statements import Module
        >>> block = import_block({"nldsl.runtime.ops": {"mean"}, "typing": {"Any"}})
        >>> print(print_module(Module("A file.", block)))
        \"\"\"A file.\"\"\"
        <BLANKLINE>
        from __future__ import annotations
        <BLANKLINE>
        from typing import Any
        <BLANKLINE>
        import torch
        from nldsl.runtime.ops import mean
        <BLANKLINE>
    """
    used = None if body is None else mentioned(body)
    imports = [Import(m) for m in modules if used is None or m.split(".")[0] in used]
    for module, members in names.items():
        kept = tuple(m for m in members if used is None or m in used)
        imports += [Import(module, kept)] if kept else []
    return (Import("__future__", ("annotations",)), *in_sections(imports))


def in_sections(imports: Iterable[Import]) -> tuple[Statement, ...]:
    """The imports sorted, with their names, a blank line before each section."""
    sections: dict[bool, list[Import]] = {}
    ordered = {
        Import(node.module, node.names and tuple(sorted(set(node.names), key=member_key)), node.alias)
        for node in imports
    }
    for node in sorted(ordered, key=_import_key):
        sections.setdefault(_is_standard(node.module), []).append(node)
    result: list[Statement] = []
    for standard in (True, False):
        if standard in sections:
            result += [Blank(), *sections[standard]]
    return tuple(result)


def member_key(member: str) -> tuple[int, NaturalKey, str]:
    """Constants, then classes, then the rest; each in natural order."""
    if len(member) > 1 and member.isupper():
        kind = 0
    else:
        kind = 1 if member[:1].isupper() else 2
    return kind, natural_key(member), member


def natural_key(text: str) -> NaturalKey:
    """Sorts letters without case and numbers by value.

    Example:
        >>> sorted(["b10", "b9", "A"], key=natural_key)
        ['A', 'b9', 'b10']
    """
    parts = re.findall(r"\d+|\D", text.lower())
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


def _import_key(node: Import) -> tuple[bool, NaturalKey, str]:
    return node.names is not None, natural_key(node.module), node.alias or ""


def _is_standard(module: str) -> bool:
    return module.split(".")[0] in sys.stdlib_module_names
