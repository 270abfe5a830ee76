"""The catalogue of codes: a page per stage, a section per code, with the message as it is given now."""

from __future__ import annotations

from collections.abc import Iterator

from docs.generate.markdown import code, count, fence, page, table
from nldsl.diagnostics import Entry, catalogue, render_all
from nldsl.diagnostics.catalogue import STAGES
from nldsl.view.codes import findings_of

_WIDEST = 120


def stages() -> dict[str, dict[str, Entry]]:
    """The codes by stage."""
    found: dict[str, dict[str, Entry]] = {}
    for number, entry in catalogue().items():
        found.setdefault(number[2:4], {})[number] = entry
    return found


def page_of(stage: str) -> str:
    """Where the page of a stage stands."""
    return f"diagnostics/{STAGES[stage].replace(' ', '-').lower()}.md"


def stage_title(stage: str) -> str:
    """What a stage is called: `Clocks and levels`."""
    title = STAGES[stage]
    return f"{title[0].upper()}{title[1:]}"


def codes_index() -> str:
    """Every code with its title."""
    parts = [
        "Every finding has a code that does not change. `nldsl explain NL0412` prints its page; these "
        "pages say the same. A finding names the place, what was found and what was expected, and what to "
        "do."
    ]
    for stage, entries in stages().items():
        link = page_of(stage).removeprefix("diagnostics/")
        parts.append(f"## {stage_title(stage)}")
        rows = [(f"[`{number}`]({link}#{number.lower()})", entry.title) for number, entry in entries.items()]
        parts.append(table(("code", "finding"), rows))
    return page("Diagnostics", *parts)


def stage_page(stage: str) -> str:
    """Every code of one stage."""
    entries = stages()[stage]
    parts = [f"{count(len(entries), 'code')}: NL{stage}xx."]
    for number, entry in entries.items():
        heading = f"## {number}: {entry.title} {{#{number.lower()}}}"
        parts += [heading, entry.explanation, *_snippets(number, entry)]
    return page(stage_title(stage), *parts)


def _snippets(number: str, entry: Entry) -> Iterator[str]:
    if entry.failing:
        language = "yaml" if entry.form == "yaml" else "nl"
        yield fence(_short(entry.failing), language, "has it")
        yield fence(_short(render_all(findings_of(number, entry.failing))), "text", "says")
        yield fence(_short(entry.working), language, "has it not")
    elif entry.failing_command:
        yield fence(entry.failing_command, "sh", "has it")
        yield fence(entry.working_command, "sh", "has it not")


def _short(text: str) -> str:
    """Lines that go on and on are cut for the eye."""
    lines = text.rstrip("\n").replace("\0", "\N{SYMBOL FOR NULL}").split("\n")
    return "\n".join(line if len(line) <= _WIDEST else f"{line[:90]} ... {line[-15:]}" for line in lines)


def cited(text: str) -> str:
    """A code as a link, for pages one folder down."""
    return f"[{code(text)}](../{page_of(text[2:4])}#{text.lower()})"
