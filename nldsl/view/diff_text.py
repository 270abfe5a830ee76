"""A difference as coloured lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from nldsl.view.diff import Change, Difference

STYLES = {"+": "green", "-": "red", "~": "yellow"}
MOST = 14
"""Parameters of one block that are shown one by one."""


def render_difference(difference: Difference) -> RenderableType:
    """What `nldsl diff` prints."""
    head = Text.assemble((difference.before, "bold red"), "  ->  ", (difference.after, "bold green"))
    if difference.equal:
        return Group(head, Text("  no difference in meaning", style="green"))
    parts: list[RenderableType] = [head, Text("")]
    for block in dict.fromkeys(c.block for c in difference.of("block", "memory", "parameter")):
        parts.append(Text(block, style="bold cyan"))
        parts += _block([c for c in difference.changes if c.block == block and block])
        parts.append(Text(""))
    for subject, title in (
        ("training", "training"),
        ("level", "levels"),
        ("cost", "cost per token and sequence"),
    ):
        mine = [c for c in difference.changes if c.subject == subject]
        if mine:
            width = max(len(c.name) for c in mine)
            parts.append(Text(title, style="bold cyan"))
            parts += [_line(c, f"{c.name:<{width}}" if subject != "level" else c.name) for c in mine]
            parts.append(Text(""))
    return Group(*parts)


def _block(changes: Sequence[Change]) -> Iterator[RenderableType]:
    for change in changes:
        if change.subject == "block":
            yield _line(change, change.what)
    yield from _memories([c for c in changes if c.subject == "memory"])
    parameters = [c for c in changes if c.subject == "parameter"]
    for change in parameters[:MOST]:
        label = change.name if change.what == "parameter" else f"{change.name} {change.what}"
        yield _line(change, label)
    if len(parameters) > MOST:
        yield Text(f"    and {len(parameters) - MOST} more parameters; --json has them all", style="dim")


def _memories(changes: Sequence[Change]) -> Iterator[RenderableType]:
    """Memories that change alike, together."""
    by_name: dict[str, list[Change]] = {}
    for change in changes:
        by_name.setdefault(change.name, []).append(change)
    alike: dict[tuple[tuple[str, str, str, str], ...], list[str]] = {}
    for name, mine in by_name.items():
        alike.setdefault(tuple((c.sign, c.what, c.before, c.after) for c in mine), []).append(name)
    for facts, names in alike.items():
        title = ", ".join(names)
        sign = facts[0][0]
        if sign != "~":
            (_, _, before, after) = facts[0]
            yield _line(Change("+" if sign == "+" else "-", "memory", "", title, "", before, after), title)
            continue
        yield Text.assemble((f"  ~ {title}", STYLES["~"]))
        width = max(len(what) for _, what, _, _ in facts)
        for _, what, before, after in facts:
            yield Padding(_change(f"{what:<{width}}", before, after), (0, 0, 0, 6), expand=False)


def _line(change: Change, label: str) -> RenderableType:
    style = STYLES[change.sign]
    if change.sign == "~":
        text = _change(label, change.before, change.after)
        if change.subject == "cost" and change.what:
            text.append(f"  {change.what}", style="bold")
        return Padding(Text.assemble(("~ ", style), text), (0, 0, 0, 2), expand=False)
    said = change.after if change.sign == "+" else change.before
    return Padding(Text.assemble((f"{change.sign} {label}", style), f"  {said}"), (0, 0, 0, 2), expand=False)


def _change(label: str, before: str, after: str) -> Text:
    return Text.assemble(
        f"{label}  ", (before or "none", "red"), ("  ->  ", "dim"), (after or "none", "green")
    )
