"""Tables and plots from the figures of the runs."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from panels import Panel, dots, picture

Result = dict[str, Any]
LABELS = {
    "transformer": "Transformer",
    "hope_attention_1": "Hope-Attention, 1 level",
    "hope_attention_2": "Hope-Attention, 2 levels",
    "hope_attention_3": "Hope-Attention, 3 levels",
    "hope_attention_3_steps": "the same on 3 step clocks",
    "hope": "Hope, 3 levels",
}
MODES = {"off": "off", "window": "within a window", "stream": "along the stream"}
TOP = 8.0
"""Where the plots are cut: guessing bytes takes as many bits."""


def report(results: list[Result], folder: Path) -> str:
    """Write `results.json`, `report.md`, `domains.svg` and `forgetting.svg`; the text of the report.

    A `README.md` that is there gets the new tables in the place of the old ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(result) for result in results)
    text = tables(results)
    (folder / "results.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    (folder / "report.md").write_text(text, encoding="utf-8")
    for name, drawing in (("domains.svg", domains_svg(results)), ("forgetting.svg", forgetting_svg(results))):
        (folder / name).write_text(drawing, encoding="utf-8")
    page = folder / "README.md"
    if page.is_file():
        page.write_text(renewed(page.read_text(encoding="utf-8"), text), encoding="utf-8")
    return text


def renewed(page: str, text: str) -> str:
    """A page with the tables of `text` in the place of those that begin with the same row.

    >>> renewed("# Title\\n\\n| a |\\n|---|\\n| old |\\n\\nend\\n", "| a |\\n|---|\\n| new |\\n")
    '# Title\\n\\n| a |\\n|---|\\n| new |\\n\\nend\\n'
    """
    fresh = {table.splitlines()[0]: table for table in text.strip().split("\n\n")}
    # What stands between two empty lines may be nothing.
    return "\n\n".join(fresh.get(part.partition("\n")[0], part) for part in page.split("\n\n"))


def tables(results: list[Result]) -> str:
    """Summary, matrices and learning at test time, as Markdown."""
    return "\n".join([summary(results), "", forgetting_matrices(results), "", at_test_time(results), ""])


def by_model(results: list[Result]) -> dict[str, list[Result]]:
    """The runs of every model."""
    return {
        name: [r for r in results if r["model"] == name]
        for name in LABELS
        if any(r["model"] == name for r in results)
    }


def trained(result: Result) -> list[list[float]]:
    """The matrix of a run, read as the model was trained: memory systems learn within each window."""
    matrices = result["matrices"]
    found: list[list[float]] = matrices["window" if "window" in matrices else "off"]
    return found


def learned(matrix: list[list[float]]) -> float:
    """Mean loss on every domain right after it was learnt."""
    return mean(matrix[i][i] for i in range(len(matrix)))


def final(matrix: list[list[float]]) -> float:
    """Mean loss on all domains at the end."""
    return mean(matrix[-1])


def forgotten(matrix: list[list[float]]) -> float:
    """What the loss on the earlier domains has risen by since each was learnt: backward transfer, negated."""
    return mean(matrix[-1][i] - matrix[i][i] for i in range(len(matrix) - 1))


def spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def row(*cells: str) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def summary(results: list[Result]) -> str:
    """A row per model: what was learnt, what is left, what was forgotten, and the time of all runs."""
    lines = [
        row("model", "seeds", "parameters", "right after each", "at the end", "forgotten", "CPU s per run"),
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in by_model(results).items():
        cells = [spread([measure(trained(r)) for r in runs]) for measure in (learned, final, forgotten)]
        seconds = f"{mean(r['seconds'] for r in runs):.0f}"
        lines.append(row(LABELS[name], str(len(runs)), f"{runs[0]['parameters']:,}", *cells, seconds))
    total = sum(r["seconds"] for r in results)
    lines.append(row("all of them", str(len(results)), "", "", "", "", f"{total:.0f} in all"))
    return "\n".join(lines)


def forgetting_matrices(results: list[Result]) -> str:
    """Loss on each domain (columns) behind each (rows)."""
    domains = list(results[0]["asked"]["domains"])
    lines = [row("model", "behind", *domains), "|---|---|" + "---|" * len(domains)]
    for name, runs in by_model(results).items():
        for i, domain in enumerate(domains):
            cells = [spread([trained(r)[i][j] for r in runs]) for j in range(len(domains))]
            cells[i] = f"**{cells[i]}**"
            lines.append(row(LABELS[name] if i == 0 else "", domain, *cells))
    return "\n".join(lines)


def at_test_time(results: list[Result]) -> str:
    """The loss at the end under the three ways to read, and what a domain's own stream gives back."""
    domains = list(results[0]["asked"]["domains"])
    lines = [row("model", "memory systems", *domains, "forgotten"), "|---|---|" + "---|" * (len(domains) + 1)]
    for name, runs in by_model(results).items():
        if len(runs[0]["matrices"]) == 1:
            continue
        for i, (mode, label) in enumerate(MODES.items()):
            matrices = [r["matrices"][mode] for r in runs]
            cells = [spread([m[-1][j] for m in matrices]) for j in range(len(domains))]
            lost = spread([forgotten(m) for m in matrices])
            lines.append(row(LABELS[name] if i == 0 else "", label, *cells, lost))
    return "\n".join(lines)


def domains_svg(results: list[Result]) -> str:
    """The loss on every domain over the whole of training."""
    asked = results[0]["asked"]
    domains, steps = list(asked["domains"]), asked["steps"]
    marks = [(i * steps, f"learns {domain}") for i, domain in enumerate(domains)]
    panels = []
    for j, domain in enumerate(domains):
        runs = {
            LABELS[n]: [[(p[0], p[1 + j]) for p in r["curve"]] for r in rs]
            for n, rs in by_model(results).items()
        }
        panels.append(Panel(f"loss on {domain}", "step", "held-out bits per byte", runs, marks, TOP))
    return picture(panels, list(panels[0].runs), "One domain after another: mean and range over seeds")


def forgetting_svg(results: list[Result]) -> str:
    """What was learnt, what is left and what was forgotten; a dot per run."""
    measures = {"right after each domain": learned, "on all at the end": final, "forgotten": forgotten}
    runs = by_model(results)
    columns = {
        label: {LABELS[n]: [measure(trained(r)) for r in rs] for n, rs in runs.items()}
        for label, measure in measures.items()
    }
    return dots(columns, [LABELS[n] for n in runs], "Held-out bits per byte: less is better, a dot per seed")
