"""`nldsl list`: what the library holds, with one line each."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from nldsl.assets import specs_folder
from nldsl.catalog.components import components, specifications
from nldsl.cli.common import out, print_json
from nldsl.cli.guard import CommandError
from nldsl.library import PRIMITIVES
from nldsl.view.library_table import library_table, markdown


class Kind(StrEnum):
    """What can be listed."""

    models = "models"
    blocks = "blocks"
    maps = "maps"
    objectives = "objectives"
    rules = "rules"
    primitives = "primitives"


@dataclass(frozen=True)
class Line:
    """A name of the library and what it is."""

    kind: str
    name: str
    doc: str


_DEFINITION = re.compile(r"^(model|block|map|objective|rule|variant)\s+(\w+)([^{\n]*)", re.MULTILINE)


def command(
    kind: Annotated[Kind | None, typer.Argument(help="Show these only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    as_table: Annotated[
        bool, typer.Option("--table", help="The memories of the blocks side by side, as Markdown.")
    ] = False,
) -> None:
    """List the specifications of the library and the primitives, with one line each.

    With `--table` what every memory of a block minimises, by which rule, retention and clock, its class, its
    compiled form and its equation, all derived.
    """
    if as_table:
        _table(kind, as_json)
        return
    lines = [line for line in _everything() if kind is None or line.kind == kind.value]
    if as_json:
        print_json({"entries": [asdict(line) for line in lines]})
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    previous = ""
    for line in lines:
        if line.kind != previous:
            table.add_row(f"[bold]{line.kind}[/]", "")
            previous = line.kind
        table.add_row(f"  {escape(line.name)}", escape(line.doc))
    out().print(table)


def _table(kind: Kind | None, as_json: bool) -> None:
    if kind is not None and kind is not Kind.blocks:
        raise CommandError("NL1024", f"`--table` shows blocks, not {kind.value}", "`nldsl list --table`")
    rows = library_table()
    if as_json:
        print_json({"memories": [asdict(row) for row in rows]})
    else:
        print(markdown(rows), end="")


def _everything() -> list[Line]:
    found = [
        line for path in sorted(specs_folder().rglob("*.nl")) for line in _defined(path.read_text("utf-8"))
    ]
    found += [line for c in components() for _, text in specifications(c) for line in _defined(text)]
    found += [Line("primitives", p.name, p.doc.splitlines()[0]) for p in PRIMITIVES.values()]
    order = [kind.value for kind in Kind]
    return sorted(dict.fromkeys(found), key=lambda line: (order.index(line.kind), line.name))


def _defined(text: str) -> list[Line]:
    """The definitions of one file; the first line of the comment above one is its doc."""
    lines = []
    for match in _DEFINITION.finditer(text):
        kind, name, rest = match.groups()
        doc = _comment_above(text[: match.start()])
        if kind == "variant":
            doc = doc or f"variant{rest.rstrip()}"
        lines.append(Line("models" if kind == "variant" else f"{kind}s", name, doc))
    return lines


def _comment_above(before: str) -> str:
    above: list[str] = []
    for line in reversed(before.splitlines()):
        if not line.startswith("#"):
            break
        above.append(line.removeprefix("#").strip())
    return above[-1] if above else ""
