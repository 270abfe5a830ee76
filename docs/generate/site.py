"""All generated pages, and the navigation of the whole site."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from docs.generate import api, citations, codes, commands, graphs, primitives, spec_pages
from docs.generate.library import Spec, specs
from nldsl.cli.app import COMMANDS

Page = Callable[[], str]


def pages() -> dict[str, Page]:
    """Where each generated file stands, and what makes it."""
    found: dict[str, Page] = {
        "library/index.md": spec_pages.library_index,
        "library/memories.md": spec_pages.memories_page,
        "reference/primitives.md": primitives.primitives_page,
        "reference/python.md": api.api_page,
        "diagnostics/index.md": codes.codes_index,
        "commands/index.md": commands.commands_index,
        "paper/equations.md": citations.map_page,
        "paper/readings.md": citations.readings_page,
        "assets/graphs.css": graphs.colours,
    }
    for stage in codes.stages():
        found[codes.page_of(stage)] = partial(codes.stage_page, stage)
    for name in COMMANDS:
        found[f"commands/{name}.md"] = partial(commands.command_page, name)
    for spec in specs():
        found[spec.page] = partial(spec_pages.spec_page, spec)
        if spec.main[0] in ("model", "block"):
            place = spec.page.rpartition("/")[0]
            found[f"{place}/graph-{spec.stem}.html"] = partial(_graph, spec)
    return found


def _graph(spec: Spec) -> str:
    found = spec_pages.explained(spec)
    return graphs.graph_page(found[0]) if not isinstance(found, Exception) else ""


def navigation(written: list[Any]) -> list[Any]:
    """The navigation of `mkdocs.yml`, with `@library` and the like replaced by the pages there are."""
    made: dict[str, Callable[[], list[Any]]] = {
        "@library": _library,
        "@diagnostics": _diagnostics,
        "@commands": _commands,
    }
    out: list[Any] = []
    for item in written:
        if isinstance(item, str) and item in made:
            out += made[item]()
        elif isinstance(item, dict):
            out.append({k: navigation(v) if isinstance(v, list) else v for k, v in item.items()})
        else:
            out.append(item)
    return out


def _library() -> list[Any]:
    folders: dict[str, list[Any]] = {}
    for spec in specs():
        folders.setdefault(spec.folder, []).append({spec.stem: spec.page})
    return [{spec_pages.folder_title(folder): inside} for folder, inside in folders.items()]


def _diagnostics() -> list[Any]:
    return [{codes.stage_title(stage): codes.page_of(stage)} for stage in codes.stages()]


def _commands() -> list[Any]:
    return [{f"nldsl {name}": f"commands/{name}.md"} for name in COMMANDS]


__all__ = ["navigation", "pages"]
