"""What the page asks for.  Every job is plain data in and out, so that it can run in another process."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nldsl.diagnostics import SpecError, render, to_json
from nldsl.graph import build_graph
from nldsl.graph.fold import folded
from nldsl.server.completion import complete, explain_proposal
from nldsl.server.document import Document
from nldsl.server.fixes import fixes
from nldsl.server.hover import hover
from nldsl.source import SourceFile
from nldsl.studio.tables import tables
from nldsl.studio.text import program_of, targets, to_offset, to_units
from nldsl.syntax import format_text
from nldsl.view.explain import explain_program
from nldsl.view.page import draw_page
from nldsl.view.timeline import timeline
from nldsl.view.timeline_svg import draw_timeline

_SNIPPET = re.compile(r"\$\{\d+:([^}]*)\}|\$\d+|\$\{\d+\}")
_PLACE = re.compile(r"\$\{?1\b")

Answer = dict[str, Any]


@dataclass
class Desk:
    """The file being edited and its document, kept from job to job."""

    name: str
    path: Path | None = None
    document: Document | None = field(default=None, repr=False)

    def open(self, text: str) -> Document:
        """The document at this version of the text."""
        if self.document is None:
            self.document = Document(self.name, text, self.path)
        elif self.document.text != text:
            self.document.update(text)
        return self.document


def check(desk: Desk, ask: Answer) -> Answer:
    """Every finding with its place, its help and its fixes; and what can be drawn."""
    document = desk.open(ask["text"])
    text = document.text
    found = []
    for remark in document.remarks:
        edits = [
            {
                "title": fix.title, "start": to_units(text, fix.start), "end": to_units(text, fix.end),
                "text": fix.text,
            }
            for fix in fixes(document, remark.start, remark.end)
            if fix.remark == remark
        ]  # fmt: skip
        about = to_json(remark.finding)
        found.append(
            {
                "code": about["code"], "severity": about["severity"], "message": about["message"],
                "label": about["label"], "notes": about["notes"], "help": about["help"],
                "start": to_units(text, remark.start), "end": to_units(text, remark.end),
                "line": text.count("\n", 0, remark.start) + 1, "fixes": edits,
            }
        )  # fmt: skip
    return {"findings": found, "targets": [list(pair) for pair in targets(document.unit.tree)]}


def propose(desk: Desk, ask: Answer) -> Answer:
    """What may be written at the caret, and where the word being typed begins."""
    document = desk.open(ask["text"])
    proposals, start = complete(document, to_offset(document.text, ask["at"]))
    items = []
    for proposal in proposals[:400]:
        inserted = proposal.text or proposal.label
        caret = None
        if proposal.snippet:
            place = _PLACE.search(inserted)
            before = _SNIPPET.sub(r"\1", inserted[: place.start()]) if place else ""
            inserted = _SNIPPET.sub(lambda m: m[1] or "", inserted)
            caret = len(before) if place else None
        items.append(
            {
                "label": proposal.label, "kind": proposal.kind, "detail": proposal.detail,
                "text": inserted, "caret": caret, "about": list(proposal.about),
            }
        )  # fmt: skip
    return {"items": items, "start": to_units(document.text, start)}


def tell(desk: Desk, ask: Answer) -> Answer:
    """What a proposal is, or what stands at a place."""
    document = desk.open(ask["text"])
    if "about" in ask:
        kind, name = ask["about"]
        return {"text": explain_proposal(document, (str(kind), str(name)))}
    found = hover(document, to_offset(document.text, ask["at"]))
    if found is None:
        return {"text": ""}
    text, start, end = found
    return {"text": text, "start": to_units(document.text, start), "end": to_units(document.text, end)}


def tidy(desk: Desk, ask: Answer) -> Answer:
    """The text as the formatter writes it."""
    return {"text": format_text(SourceFile(desk.name, ask["text"]))}


def picture(desk: Desk, ask: Answer) -> Answer:
    """The page of the graph, the tables of the explanation, and the timeline."""
    program = program_of(desk.name, ask["text"], desk.path, _target(ask))
    graph = folded(build_graph(program))
    return {
        "page": draw_page(program),
        "name": program.name,
        "tables": list(tables(explain_program(program))),
        "timeline": draw_timeline(timeline(program, graph=graph), titled=False),
    }


def emitted(desk: Desk, ask: Answer) -> Answer:
    """The PyTorch source, and at which line each class begins; needs torch, which takes a moment to load."""
    if find_spec("torch") is None:
        return {"missing": "The source needs torch, which is not installed here."}
    # The one place that wants torch: in a process of its own, and only when somebody looks.
    from nldsl.driver.compile import emit, plan_of

    source = emit(plan_of(program_of(desk.name, ask["text"], desk.path, _target(ask))))
    return {"source": source, "classes": dict(_classes(source))}


def _classes(source: str) -> Iterator[tuple[str, int]]:
    for number, line in enumerate(source.splitlines(), 1):
        if line.startswith("class "):
            yield re.split(r"\W", line.removeprefix("class "), maxsplit=1)[0], number


def _target(ask: Answer) -> tuple[str, str] | None:
    target = ask.get("target")
    return (str(target[0]), str(target[1])) if target else None


JOBS: dict[str, Callable[[Desk, Answer], Answer]] = {
    "check": check,
    "complete": propose,
    "tell": tell,
    "format": tidy,
    "picture": picture,
    "source": emitted,
}


def run(desk: Desk, what: str, ask: Answer) -> Answer:
    """Do a job; what is wrong with the text is an answer too."""
    try:
        return JOBS[what](desk, ask)
    except SpecError as wrong:
        return {"errors": [render(d) for d in wrong.diagnostics] or ["there is nothing to draw yet"]}
    except (RecursionError, MemoryError) as wrong:
        desk.document = None
        return {"failed": f"the text is too much for this machine: {type(wrong).__name__}"}
