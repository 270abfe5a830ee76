"""What a name means, as a short text: kind and shape, level and equation, signature and example."""

from __future__ import annotations

from functools import lru_cache
from math import prod

from nldsl.calculus import describe, update_class
from nldsl.catalog.schedules import SCHEDULES
from nldsl.graph.equations import formula, rule_formula
from nldsl.graph.levels import spoken
from nldsl.library import PRIMITIVES
from nldsl.server.document import Document
from nldsl.server.facts import MemoryUse, shape
from nldsl.server.occurrences import Occurrence, Symbol
from nldsl.server.texts import code, definition_text, literal, options_text, primitive_text, word_text
from nldsl.server.words import ALIASES, CLAUSES, ITEMS, STATEMENTS, WORDS
from nldsl.spec.program import TaskWrite, Write, option
from nldsl.syntax import show, tree
from nldsl.syntax.scan import Scanned, scan

_WRITTEN = frozenset(
    {*CLAUSES, *ITEMS, *STATEMENTS, *ALIASES, "per", "head", "init", "reset", "every", "never"}
)
_SINGLE = frozenset(
    {"tokens", "steps", "sequence", "each", "of", "in", "else", "commit", "minimizes", "zero"}
)
_KEYWORDS = _WRITTEN | _SINGLE | {"learned", "fixed", "and", "or", "not"}


def hover(document: Document, offset: int) -> tuple[str, int, int] | None:
    """Markdown about what stands at `offset`, and the characters it is about.

    Example:
        >>> document = Document("a.nl", "block f(x) { return sigmoid(x) }")
        >>> hover(document, 22)[0].splitlines()[1]
        'sigmoid(x)'
    """
    occurrence = document.names.at(offset)
    if occurrence is not None:
        text = about(document, occurrence)
        if text:
            return text, occurrence.start, occurrence.end
    token = _token(document, offset)
    if token is None:
        return None
    word = document.text[token.start : token.end]
    if token.kind == "sign":
        return (_SIGNS[word], token.start, token.end) if word in _SIGNS else None
    return (word_text(word), token.start, token.end) if ALIASES.get(word, word) in _KEYWORDS else None


_SIGNS = {
    "<-": "`M[k] <- v` writes: one step of a rule on an inner objective, so that `M[k]` comes closer to `v`.",
    "@": "`A @ b` is the product of a matrix with a vector or a matrix.",
    "//": "`a // b` is integer division; both are static.",
}


def _token(document: Document, offset: int) -> Scanned | None:
    """The word or sign at an offset; comments and strings are none."""
    line = document.text.rfind("\n", 0, offset) + 1
    end = document.text.find("\n", offset)
    for token in scan(document.text[line : len(document.text) if end < 0 else end]):
        if token.start + line <= offset <= token.end + line and token.kind in ("name", "sign"):
            if offset < token.end + line or token.kind == "name":
                return Scanned(token.kind, token.start + line, token.end + line)
    return None


def about(document: Document, occurrence: Occurrence) -> str:
    """Markdown about a name; empty if nothing is known."""
    symbol = occurrence.symbol
    if symbol.kind == "primitive":
        return primitive_text(PRIMITIVES[symbol.name]) + _result(document, occurrence)
    if symbol.kind == "schedule":
        schedule = SCHEDULES[symbol.name]
        return f"{code(f'{symbol.name}({options_text(schedule.options)})')}\n\n{schedule.doc}"
    if symbol.kind == "word":
        return word_text(symbol.name) if symbol.name in WORDS else ""
    if symbol.kind == "memory":
        return _memory(document, occurrence)
    if symbol.kind == "level":
        return _level(document, occurrence)
    if symbol.kind in ("parameter", "variable"):
        return _value(document, occurrence)
    return definition_text(document.unit, symbol) + _result(document, occurrence)


# --- what was elaborated ---------------------------------------------------------------------------


def _inside(document: Document, offset: int) -> tuple[int, int]:
    """The key of an offset in `Facts`."""
    section = document.sections.at(offset)
    return id(section.file), offset - section.start


def _result(document: Document, occurrence: Occurrence) -> str:
    """What the call or read that begins with this name gives."""
    found = document.facts.results.get(_inside(document, occurrence.start), [])
    section = document.sections.at(occurrence.start)
    longer = [r for r in found if r.end + section.start > occurrence.end]
    if not longer:
        return ""
    end = min(r.end for r in longer)
    said = {f"{shape(r.values[-1])} {r.where}": None for r in longer if r.end == end}
    return "\n\ngives " + ", ".join(list(said)[:3])


def _value(document: Document, occurrence: Occurrence) -> str:
    """A variable or a parameter: its kind and shape where it got its value last."""
    symbol = occurrence.symbol
    kind, name = symbol.kind, symbol.name
    lines = [code(f"{name}  # {kind} of {symbol.scope}")]
    binding = document.names.binding(symbol, occurrence.start)
    shapes = _assigned(document, binding, name) if binding is not None else []
    if not shapes and kind == "parameter":
        shapes = _given(document, symbol)
    lines += [f"* {text}" for text in list(dict.fromkeys(shapes))[:4]]
    return "\n".join(lines)


def _assigned(document: Document, binding: Occurrence, name: str) -> list[str]:
    """Shapes of the value that an assignment gives a name."""
    value = document.assignments.get(_inside(document, binding.start))
    if value is None:
        return []
    key = (id(value.span.file), value.span.start)
    found = [r for r in document.facts.results.get(key, []) if r.end == value.span.end]
    texts = []
    for result in found:
        own = [v for v in result.values if v.name == name or v.name.startswith(f"{name}_")]
        texts.append(f"{shape((own or list(result.values))[-1])} {result.where}")
    return texts


def _given(document: Document, symbol: Symbol) -> list[str]:
    """What a parameter was bound to in each elaboration of its definition."""
    kind, _, title = symbol.scope.partition(" ")
    found = document.unit.find(kind, title)
    if found is None:
        return []
    texts = []
    for block, where in document.facts.blocks.get((id(found[0].span.file), found[0].span.start), []):
        texts += [f"{shape(v)} {where}" for v in block.inputs if v.name in (symbol.name, f"{symbol.name}_")]
        value = option(block.static, symbol.name)
        texts += [f"`{literal(value)}` {where}"] if value is not None else []
    if not texts and isinstance(found[0], tree.Definition):
        defaults = [p for p in found[0].params if p.name.id == symbol.name and p.default is not None]
        texts += [f"default `{show.show(p.default)}`" for p in defaults if p.default is not None]
    return texts


def _level(document: Document, occurrence: Occurrence) -> str:
    symbol = occurrence.symbol
    uses = [u for found in document.facts.memories.values() for u in found if u.memory.level == symbol.name]
    lines = [code(f"level {symbol.name}  # of {symbol.scope}")]
    lines += [f"* `{u.memory.path}` {spoken(u.memory.clock)} {u.where}" for u in uses]
    return "\n".join(dict.fromkeys(lines[:12]))


def _memory(document: Document, occurrence: Occurrence) -> str:
    """Level, clock, map, objective, rule, update equation and size of a memory."""
    symbol = occurrence.symbol
    binding = document.names.binding(symbol, len(document.text))
    uses = document.facts.memories.get(_inside(document, binding.start), []) if binding else []
    head = code(f"memory {symbol.name}  # of {symbol.scope}")
    if not uses:
        return head
    return "\n".join([head, *memory_lines(uses[0]), *_others(uses)]) + _result(document, occurrence)


def _others(uses: list[MemoryUse]) -> list[str]:
    wheres = list(dict.fromkeys(u.where for u in uses))
    return [f"* seen {', '.join(wheres[:4])}"] if wheres else []


@lru_cache(maxsize=256)
def memory_lines(use: MemoryUse) -> tuple[str, ...]:
    """The facts about a memory as a list."""
    memory = use.memory
    lines = [f"* level `{memory.level}`, {spoken(memory.clock)}" if memory.level else "* outside of levels"]
    copies = f"{memory.heads} heads, " if memory.per_head else ""
    lines.append(f"* {copies}keys of {memory.key_size}, values of {memory.value_size}; starts {memory.init}")
    if memory.function is not None:
        lines.append(f"* map `{memory.function.name}`: `{formula(memory.function)}`")
        size = memory.heads * sum(prod(w.shape) for w in memory.function.weights)
        lines.append(f"* state {4 * size} bytes per sequence (float32)")
    for act in use.writes:
        if isinstance(act, TaskWrite):
            lines.append(f"* learns on the task by `{act.rule.name}`: `{rule_formula(act.rule)}`")
        elif isinstance(act, Write):
            lines += _write_lines(use, act)
    return tuple(dict.fromkeys(lines))


def _write_lines(use: MemoryUse, write: Write) -> list[str]:
    if write.append:
        return ["* appends: nothing is learned by gradient"]
    lines = [
        f"* minimizes `{t.objective.name}` by `{t.rule.name}`: `{formula(t.objective)}`" for t in write.terms
    ]
    description = describe(use.memory, write, update_class(use.memory, write))
    return lines + [f"* `{text}`" for text in description.text[:4]]
