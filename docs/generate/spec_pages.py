"""One page per file of the library: text, equations, graph, cost, lowerings, certificate, paper, tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from docs.generate.certificates import certificate_table
from docs.generate.citations import citation_rows, cited_by
from docs.generate.graphs import inline_graph
from docs.generate.library import Spec, specs
from docs.generate.markdown import code, fence, formulas, page, table
from docs.generate.probes import opens, shown
from nldsl.diagnostics import SpecError
from nldsl.graph.equations import rule_formula
from nldsl.spec.program import Program, Write
from nldsl.view import Explanation, explain_program
from nldsl.view.equations import Dynamics
from nldsl.view.explain import MemoryRow
from nldsl.view.explain_text import CLASSES
from nldsl.view.library_table import library_table, markdown
from nldsl.view.transition import Transition
from nldsl.view.words import spoken_bytes, spoken_count, spoken_flops, spoken_state


@cache
def explained(spec: Spec) -> tuple[Program, Explanation] | SpecError:
    """The program that shows a file, and what is known about it."""
    program = opens(spec)
    return program if isinstance(program, SpecError) else (program, explain_program(program))


def spec_page(spec: Spec) -> str:
    """The page of one file."""
    kind, name = spec.main
    head = f"`{kind}` · {code(f'specs/{spec.place}')}"
    about = [line for line in spec.comment[1:] if line]
    parts = [head, f"**{spec.title}**", " ".join(about), "## Text", fence(spec.text, "nl", spec.path.name)]
    found = explained(spec)
    if isinstance(found, SpecError):
        parts += ["## Not elaborated", *(f"{code(d.code)}: {d.message}" for d in found.diagnostics)]
    else:
        parts += _sections(spec, *found)
    parts += ["## Paper and tests", citation_rows(spec)]
    return page(name, *parts, wide=kind in ("model", "block"), description=spec.title)


def _sections(spec: Spec, program: Program, explanation: Explanation) -> Iterator[str]:
    whole = spec.main[0] in ("model", "block")
    what = shown(spec)
    if not whole:
        yield "## In a block"
        yield "What follows is derived from this block, whose one memory uses the definition:"
        yield fence(what.source, "nl")
    if spec.main[0] == "rule":
        yield "## One step"
        yield from (fence(line.replace("; ", "\n"), "nl") for line in _rules(program))
    if explanation.equations:
        yield "## Equations"
        yield "Derived from the text; point at a formula to see it as plain text."
        yield from equations(explanation.equations)
    if whole:
        yield "## Levels"
        own = f"[Open the graph on its own page](graph-{spec.stem}.html)"
        yield f"{own} to move in it, search it and follow its edges."
        yield inline_graph(program, spec.stem)
        yield "## Cost"
        yield f"{cost_line(explanation, what.note)}\n"
        yield levels_table(explanation)
    yield "## Lowerings"
    yield lowerings(explanation)
    yield "## Certificate"
    yield certificate_table(spec, program)


def _rules(program: Program) -> Iterator[str]:
    """What one application of the rule does, argument by argument."""
    for write in program.root.body:
        if isinstance(write, Write):
            yield from (rule_formula(term.rule) for term in write.terms)


# --- equations -------------------------------------------------------------------------------


def equations(rows: Iterable[Dynamics]) -> Iterator[str]:
    """Memories that change alike together: class, name of the recurrence, formulas, factor along the key."""
    groups: dict[tuple[object, ...], list[Dynamics]] = {}
    for row in rows:
        groups.setdefault((row.block, row.formulas, row.where, row.transitions, row.known_as), []).append(row)
    for same in groups.values():
        row = same[0]
        names = ", ".join(code(r.name) for r in same)
        block = code(row.block.rpartition(".")[2])
        yield f"**{names}** in {block}: class {row.letter}, {CLASSES[row.letter]}."
        if row.known_as:
            yield f"This is *{row.known_as}*" + (f" ({row.paper})." if row.paper else ".")
        yield formulas((f.text, f.latex) for f in (*row.formulas, *row.where))
        if row.gates:
            yield "with " + ", ".join(f"{code(name)} in {found}" for name, found in row.gates) + "."
        yield transitions(row)


def transitions(row: Dynamics) -> str:
    """What a write leaves of what was stored along its key."""
    rows: dict[Transition, tuple[str, ...]] = {}
    for name, step in row.transitions:
        what = "a unit key" if step.unit_key else "its input"
        notes = [step.sentence]
        notes += [f"contracts where {step.admissible}"] if step.admissible else []
        notes += [step.stale] if step.stale else []
        rows[step] = (
            code(name if step not in rows else f"{rows[step][0].strip('`')}, {name}"),
            what,
            code(step.factor),
            step.range,
            "; ".join(notes),
        )
    return table(("weight", "along", "kept times", "range", "that is"), rows.values()) if rows else ""


# --- cost ------------------------------------------------------------------------------------


def cost_line(explanation: Explanation, note: str) -> str:
    """The whole program in one small table."""
    cost = explanation.cost
    rows = [
        ("parameters", f"{explanation.parameter_count:,}", spoken_bytes(4 * explanation.parameter_count)),
        (
            "state of a sequence",
            spoken_state(explanation.state_bytes, cost.state_per_token * 4) or "none",
            "float32; n is the number of tokens" if cost.state_per_token else "float32",
        ),
        ("operations per token, decoding", spoken_flops(cost.decode) or "0", ""),
        ("operations per token, training", spoken_flops(cost.training) or "0", "forward and backward"),
    ]
    return table((note, "", " "), rows)


def levels_table(explanation: Explanation) -> str:
    """Every problem with its level, fastest first."""
    rows: list[Sequence[str]] = []
    for level in reversed(explanation.levels):
        heading = f"**{level.number}** {level.clock}"
        for same in _alike(level.problems):
            rows.append((heading, *_problem(same)))
            heading = ""
    head = (
        "level",
        "problem",
        "map: objective by rule",
        "state",
        "parameters",
        "decode",
        "training",
        "lives",
    )
    return table(head, rows)


def _alike(rows: Iterable[MemoryRow]) -> list[list[MemoryRow]]:
    groups: dict[tuple[object, ...], list[MemoryRow]] = {}
    for row in rows:
        same = (
            row.block,
            row.kind,
            row.map,
            row.objective,
            row.rule,
            row.retention,
            row.reset,
            row.state_bytes,
        )
        own = (row.id,) if row.kind == "slow parameters" else ()
        groups.setdefault((*same, *own), []).append(row)
    return list(groups.values())


def _problem(same: Sequence[MemoryRow]) -> tuple[str, ...]:
    row, n = same[0], len(same)
    solves = " by ".join(part for part in (row.objective, row.rule) if part)
    what = f"{row.map}: {solves}" if row.map and solves else row.map or solves
    if row.kind == "slow parameters":
        name = f"{code(row.block.rpartition('.')[2])} {row.name}"
    else:
        name = ", ".join(code(r.name) for r in same)
    life = row.sharing + (f", reset {row.reset}" if row.reset and row.kind != "slow parameters" else "")
    return (
        name,
        what,
        spoken_state(row.state_bytes * n, row.bytes_per_token * n),
        spoken_count(row.parameters * n) if row.parameters else "",
        spoken_flops(row.decode * n),
        spoken_flops(row.training * n),
        life,
    )


def lowerings(explanation: Explanation) -> str:
    """Which form computes which memories, why, and why not another."""
    if explanation.unsupported:
        return "The compiler does not take it yet: " + "; ".join(explanation.unsupported)
    rows = []
    for row in explanation.lowerings:
        others = [f"{o.lowering}: {'would do too, ' if o.accepted else ''}{o.reason}" for o in row.others]
        chunk = f"{row.width} at once" if row.chunk else ""
        rows.append(
            (
                ", ".join(map(code, row.memories)),
                code(row.lowering),
                row.reason,
                chunk,
                code(row.form) if row.form else "",
                "; ".join(others),
            )
        )
    if not rows:
        return "It holds no memory: everything is computed for all tokens at once."
    return table(("memories", "lowering", "because", "chunk", "form", "others"), rows)


# --- the library as a whole ------------------------------------------------------------------

FOLDER_TITLES = {
    "models": "Models",
    "blocks": "Blocks",
    "maps": "Maps",
    "objectives": "Objectives",
    "rules": "Rules",
    "ablations": "Ablations",
}


def library_index() -> str:
    """What there is, with one line and the cost of each."""
    parts = [
        "Everything here is written in the language; every page is made from its file. "
        "`nldsl list` prints the names, `nldsl explain NAME` what these pages show."
    ]
    folders: dict[str, list[Spec]] = {}
    for spec in specs():
        folders.setdefault(spec.folder, []).append(spec)
    for folder, inside in folders.items():
        parts.append(f"## {folder_title(folder)}")
        rows = [_line(spec) for spec in inside]
        parts.append(table(("name", "what it is", "paper", "parameters", "state", "decode"), rows))
    return page("The library", *parts, wide=True)


def memories_page() -> str:
    """The memories of every block side by side, from `nldsl list --table`."""
    intro = (
        "What every memory of a block minimises, by which rule, what it forgets, on which clock, the class of"
        " its update, the form it is compiled to, and its equation. Everything but the source is derived; "
        "`nldsl list --table` prints the same."
    )
    return page("Memories side by side", intro, markdown(library_table()), wide=True)


def folder_title(folder: str) -> str:
    """The heading of a folder of the library."""
    return FOLDER_TITLES.get(folder, folder.replace("_", " ").capitalize())


def _line(spec: Spec) -> tuple[str, ...]:
    link = f"[{code(spec.stem)}]({spec.page.removeprefix('library/')})"
    found = explained(spec)
    paper = ", ".join(cited_by(spec))
    if isinstance(found, SpecError) or spec.main[0] not in ("model", "block"):
        return link, spec.title, paper, "", "", ""
    explanation = found[1]
    cost = explanation.cost
    return (
        link,
        spec.title,
        paper,
        spoken_count(explanation.parameter_count),
        spoken_state(explanation.state_bytes, cost.state_per_token * 4),
        spoken_flops(cost.decode),
    )
