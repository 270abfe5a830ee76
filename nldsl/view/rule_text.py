"""The page of a rule for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from nldsl.view.rule_page import RulePage, RuleView


def render_rule(page: RulePage) -> RenderableType:
    """What `nldsl explain RULE` prints."""
    parts: list[RenderableType] = [Text.assemble((page.name, "bold"), "  rule")]
    parts += [_indented(text, 2) for text in (page.title, page.paper) if text]
    for view in page.views:
        parts += _section(view.weights, _view(view))
    parts += _section("numbers", _numbers(page))
    parts += _section("stability", [_indented(page.stability, 2)])
    if page.in_a_write:
        parts += _section("in a write at every token", [_indented(page.in_a_write, 2)])
    parts += _section("how to use it", [_indented(text, 2) for text in page.uses])
    return Group(*parts)


def render_rule_latex(page: RulePage) -> str:
    """The recurrences as LaTeX, one `gather*` for each kind of weight."""
    blocks = []
    for view in page.views:
        lines = [f"  {line.latex} \\\\" for line in view.lines]
        if lines:
            blocks.append(
                "\n".join([f"% {page.name}, {view.weights}", "\\begin{gather*}", *lines, "\\end{gather*}"])
            )
    return "\n\n".join(blocks)


def _view(view: RuleView) -> Iterator[RenderableType]:
    """Class, recurrence, memories and the form of the code for one kind of weight."""
    if view.refused:
        yield _indented(f"refused: {view.refused}", 2, "yellow")
        for text in view.computed:
            if not text.startswith("refused"):
                yield _indented(text, 2)
        return
    yield Text.assemble("  ", (view.letter, "bold cyan"), f": {view.reason}")
    for line in view.lines:
        yield _indented(line.text, 6, "bold")
    for text in view.settings:
        yield _indented(text, 10, "dim")
    for memory in view.memories:
        clock = f", shown to others {memory.clock}" if memory.clock else ""
        yield _indented(f"remembers {memory.name}: {memory.size}, starts at {memory.start}{clock}", 2)
    own = "out" if view.weights == "vectors" else "out in"
    beside = f"{view.total} numbers beside the `{own}` of W" if view.total else "remembers nothing"
    yield _indented(beside, 2, "dim")
    for text in view.computed:
        yield _indented(text, 2)


def _numbers(page: RulePage) -> Iterator[RenderableType]:
    width = max((len(n.name) for n in page.numbers), default=0)
    values = max((len(n.value) for n in page.numbers), default=0)
    for n in page.numbers:
        said = ["may change at every step" if n.changes else "decides the code"]
        said += ["has to be given, here a usual value"] if n.needed else []
        said += [n.bounds] if n.bounds else []
        yield Text(f"  {n.name:<{width}}  {n.value:<{values}}  {'; '.join(said)}")
    if not page.numbers:
        yield Text("  none")


def _section(title: str, lines: Iterable[RenderableType]) -> Iterator[RenderableType]:
    yield Text("")
    yield Rule(title, align="left", style="dim")
    yield from lines


def _indented(text: str, by: int, style: str = "") -> RenderableType:
    return Padding(Text(text, style=style), (0, 0, 0, by), expand=False)
