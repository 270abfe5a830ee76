"""What may be written next: names and options that fit the place, each with its text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from nldsl.catalog.primitive import Option
from nldsl.catalog.schedules import SCHEDULES
from nldsl.catalog.selectors import ROLES
from nldsl.library import PRIMITIVES
from nldsl.server.cursor import Cursor, cursor_at
from nldsl.server.document import Document
from nldsl.server.occurrences import HOOKS, TOP, Symbol
from nldsl.server.texts import definition_text, literal, option_text, primitive_text, signature, word_text
from nldsl.server.words import CLAUSES, ITEMS, STATEMENTS, WORDS
from nldsl.spec.clauses import PROJECTIONS
from nldsl.syntax import show, tree

ProposalKind = Literal["function", "definition", "variable", "memory", "option", "keyword", "file"]


@dataclass(frozen=True)
class Proposal:
    """One thing that may be written: `text` replaces the word being typed, as a snippet if `snippet`."""

    label: str
    kind: ProposalKind
    detail: str = ""
    text: str = ""
    snippet: bool = False
    about: tuple[str, str] = ("", "")
    """What `explain_proposal` needs to write the text."""
    order: int = 5


MATRIX_OPTIONS = ("out", "in")
SOFTMAX_OPTIONS = ("window", "start", "causal", "scale")


def complete(document: Document, offset: int) -> tuple[list[Proposal], int]:
    """The proposals at `offset`, and where the word being typed begins.

    Example:
        >>> document = Document("a.nl", "block f(x) { y = sigm")
        >>> [p.label for p in complete(document, 21)[0] if p.label.startswith("sigm")]
        ['sigmoid']
    """
    cursor = cursor_at(document, offset)
    found: dict[str, Proposal] = {}
    for proposal in _proposals(document, cursor):
        found.setdefault(proposal.label, proposal)
    return sorted(found.values(), key=lambda p: (p.order, p.label)), cursor.start


def explain_proposal(document: Document, about: tuple[str, str]) -> str:
    """The text of a proposal in markdown; worked out only when it is looked at."""
    kind, name = about
    if kind == "primitive" and name in PRIMITIVES:
        return primitive_text(PRIMITIVES[name])
    if kind == "word" and name in WORDS:
        return word_text(name)
    return definition_text(document.unit, Symbol(TOP[kind], name)) if kind in TOP else ""


def _proposals(document: Document, cursor: Cursor) -> Iterator[Proposal]:
    if cursor.path:
        yield from _files(document)
    if cursor.quiet:
        return
    if cursor.last == "=" and cursor.calls:
        yield from _equals(document, cursor)
        return
    if cursor.last in _AFTER and not cursor.calls:
        yield from _AFTER[cursor.last](document, cursor)
        return
    if not cursor.braces:
        yield from _outermost(document, cursor)
        return
    if not cursor.words:
        yield from _line_start(document, cursor)
        return
    if cursor.calls:
        yield from _options(document, cursor)
    yield from _behind(document, cursor)
    if cursor.inside not in ("train", "variant") and _wants_value(cursor):
        yield from _expression(document, cursor)


# --- places ----------------------------------------------------------------------------------------


def _outermost(document: Document, cursor: Cursor) -> Iterator[Proposal]:
    """Items, and in a header default values."""
    if not cursor.words:
        yield from (_snippet(word, text) for word, text in ITEMS.items())
    elif cursor.words[0] == "variant" and cursor.calls:
        yield from _options(document, cursor)
    elif cursor.last == "=":
        for kind in ("block", "map", "objective", "rule"):
            yield from _definitions(document, kind)
    elif cursor.words[0] == "variant" and len(cursor.words) == 2:
        yield _word("of")


def _line_start(document: Document, cursor: Cursor) -> Iterator[Proposal]:
    """The first word of a statement."""
    inner = cursor.braces[-1]
    if cursor.inside in ("train", "variant"):
        yield from (_word(role, 2) for role in ROLES)
        yield from (_word(word, 3) for word in ("task", "truncate", "clip"))
        level = 'level "${1:path}" every ${2:16} tokens'
        level = level if cursor.inside == "variant" else "level ${1:pretraining} every ${2:1} step {\n  $0\n}"
        yield _snippet("level", level)
    elif inner == "level":
        yield _snippet("memory", STATEMENTS["memory"])
    elif inner == "write":
        yield Proposal(
            "[k] <- v", "keyword", text="[${1:k}] <- ${2:v}", snippet=True, about=("word", "write")
        )
    else:
        for word, text in STATEMENTS.items():
            if word != "memory" or cursor.inside == "rule":
                yield _snippet(word, text)
        yield from _locals(cursor)
        yield from (Proposal(n, "variable", about=("word", n)) for n in _hooks(cursor))


def _wants_value(cursor: Cursor) -> bool:
    """Whether an expression may begin or go on: not behind a complete one."""
    last = cursor.last
    complete_before = last.isidentifier() or last[:1].isdigit() or last in (")", "]")
    return not complete_before or last in ("return", "repeat", "if", "in", "and", "or", "not", *_TAKES_VALUE)


_TAKES_VALUE = ("retain", "weighted", "over", "toward", "every")


def _behind(document: Document, cursor: Cursor) -> Iterator[Proposal]:
    """Words that may follow what is written: clauses, units, options of a memory."""
    words = cursor.words
    if cursor.calls or cursor.indexed or _wants_value(cursor):
        return
    counted = len(words) > 1 and words[-2] in ("every", "over")
    if counted or (words[0] == "level" and "every" in words):
        yield from (_word(unit, 0) for unit in ("tokens", "steps"))
        return
    if words[0] == "level" and len(words) == 2:
        yield from (_word(word, 0) for word in ("every", "never"))
    elif words[0] == "memory" and "=" in words:
        yield from (_word(w, 1) for w in ("per", "init", "reset") if w not in words)
    elif "<-" in words or "minimizes" in words:
        yield from (_snippet(w, text, 1) for w, text in CLAUSES.items() if w not in words)
    elif cursor.inside in ("train", "variant") and words[0] not in ("task", "truncate", "clip", "level"):
        yield _word("by", 0)
    elif len(words) == 1 and words[0] in cursor.memories:
        yield _word("minimizes", 1)


def _expression(document: Document, cursor: Cursor) -> Iterator[Proposal]:
    """Names with a value, and what can be called."""
    yield from _locals(cursor)
    yield from (Proposal(n, "variable", about=("word", n), order=3) for n in _hooks(cursor))
    if "each" in cursor.words or "write" in cursor.braces:
        yield _word("self", 3)
    place = cursor.inside if cursor.inside in ("block", "map", "objective", "rule") else "block"
    for name, primitive in PRIMITIVES.items():
        if place in primitive.places and not name.endswith("_pullback"):
            yield Proposal(
                name, "function", signature(primitive), f"{name}($0)", True, ("primitive", name), order=5
            )
    for kind in {"map": ["map"], "objective": ["objective"], "rule": []}.get(place, ["block"]):
        yield from (p for p in _definitions(document, kind, call=True) if p.label != cursor.title)
    if cursor.inside == "rule" and cursor.words[0] == "memory":
        yield _word("like", 1)


def _hooks(cursor: Cursor) -> tuple[str, ...]:
    return tuple(sorted(HOOKS)) if cursor.inside == "rule" else ()


def _locals(cursor: Cursor) -> Iterator[Proposal]:
    for name in cursor.variables:
        yield Proposal(name, "variable", "variable", order=1)
    for name in cursor.parameters:
        yield Proposal(name, "variable", "parameter", order=2)
    for name in cursor.memories:
        yield Proposal(name, "memory", "memory", f"{name}[$0]", True, order=2)


# --- behind one word -------------------------------------------------------------------------------


def _definitions(document: Document, kind: str, call: bool = False) -> Iterator[Proposal]:
    """Every definition of a kind that can be seen."""
    for name in dict.fromkeys(document.unit.names(kind)):
        text = f"{name}($0)" if call else name
        yield Proposal(name, "definition", kind, text, call, (kind, name), order=4)


def _objectives(document: Document, cursor: Cursor) -> Iterator[Proposal]:
    yield from _definitions(document, "objective")


def _rules(document: Document, cursor: Cursor) -> Iterator[Proposal]:
    for proposal in _definitions(document, "rule"):
        lr = f"{proposal.label}(lr = $0)"
        yield Proposal(proposal.label, "definition", "rule", lr, True, proposal.about, 1)


def _models(document: Document, cursor: Cursor) -> Iterator[Proposal]:
    if cursor.words[0] in ("train", "variant"):
        yield from _definitions(document, "model")
    elif cursor.words[0] == "write":
        yield from (Proposal(name, "memory", "memory", order=1) for name in cursor.memories)


def _words(*words: str) -> Callable[[Document, Cursor], Iterator[Proposal]]:
    def give(document: Document, cursor: Cursor) -> Iterator[Proposal]:
        yield from (_word(word, 0) for word in words)

    return give


def _starts(document: Document, cursor: Cursor) -> Iterator[Proposal]:
    yield from (_word(word, 0) for word in ("zero", "learned", "fixed"))
    yield from (Proposal(name, "memory", "memory", order=1) for name in cursor.memories)


def _equals(document: Document, cursor: Cursor) -> Iterator[Proposal]:
    """Behind `=`: maps for a memory, schedules for a group of `train`, else an expression."""
    if cursor.inside in ("train", "variant") and cursor.braces:
        for name, schedule in SCHEDULES.items():
            yield Proposal(name, "function", schedule.doc, f"{name}($0)", True, order=1)
    elif cursor.words[0] == "memory" and cursor.inside != "rule" and not cursor.calls:
        for word in ("matrix", "softmax"):
            yield Proposal(word, "function", "map", f"{word}($0)", True, ("word", word), 1)
        yield from _definitions(document, "map", call=True)
    elif not cursor.braces:
        yield from _outermost(document, cursor)
    else:
        yield from _expression(document, cursor)


def _written(document: Document, cursor: Cursor) -> Iterator[Proposal]:
    """Behind `write`: `each of`, or a memory."""
    yield Proposal("each of", "keyword", about=("word", "each"), order=1)
    yield from (Proposal(name, "memory", "memory", order=2) for name in cursor.memories)


_AFTER: dict[str, Callable[[Document, Cursor], Iterator[Proposal]]] = {
    "minimize": _objectives,
    "minimizes": _words("task"),
    "by": _rules,
    "project": _words(*PROJECTIONS),
    "at": _words("commit"),
    "per": _words("head"),
    "each": _words("of"),
    "gradient": _words("every"),
    "reset": _words("every", "never"),
    "init": _starts,
    "toward": _words("init"),
    "task": _words("next_token", "label"),
    "of": _models,
    "train": _models,
    "write": _written,
    "=": _equals,
}
"""What a word asks for, whatever stands before it."""


def _files(document: Document) -> Iterator[Proposal]:
    """Files below the folder of the document."""
    if document.path is None:
        return
    folder = document.path.parent
    for path in sorted([*folder.glob("*.nl"), *folder.glob("*.y*ml"), *folder.glob("*/*.nl")])[:200]:
        if path != document.path:
            yield Proposal(path.relative_to(folder).as_posix(), "file")


# --- options of a call -----------------------------------------------------------------------------


def _options(document: Document, cursor: Cursor) -> Iterator[Proposal]:
    """Arguments of the innermost call that were not given yet."""
    name, _, given = cursor.calls[-1]
    if cursor.last == "=":
        return
    for label, default, text in arguments_of(document, cursor, name):
        if label not in given:
            yield Proposal(label, "option", default, f"{label} = ", False, about=("text", text), order=0)


def arguments_of(document: Document, cursor: Cursor, name: str) -> Iterable[tuple[str, str, str]]:
    """The arguments a call of `name` may give by name: name, default, help."""
    if cursor.words[:1] == ["variant"] and not cursor.braces:
        name = cursor.words[3] if len(cursor.words) > 3 else ""
        return _parameters(document, ("model",), name)
    if name in SCHEDULES and cursor.inside in ("train", "variant"):
        return [_option(option) for option in SCHEDULES[name].options]
    if name in PRIMITIVES:
        return [_option(option) for option in PRIMITIVES[name].options if not option.variadic]
    if name in ("matrix", "softmax"):
        listed = MATRIX_OPTIONS if name == "matrix" else SOFTMAX_OPTIONS
        return [(option, "", WORDS[name].text) for option in listed]
    if name == "next_token":
        return [("carry", '"trunc"', "what crosses a segment: `trunc` or `exact`")]
    return _parameters(document, _kinds(cursor), name)


def _kinds(cursor: Cursor) -> tuple[str, ...]:
    """The kinds a call can be of, from the word before it."""
    words = cursor.words
    behind = {words[i - 1] for i, word in enumerate(words) if i and word == cursor.calls[-1][0]}
    if behind & {"minimize", "minimizes"}:
        return ("objective",)
    if "by" in behind:
        return ("rule",)
    if words[:1] == ["memory"]:
        return ("map",)
    return ("block", "rule", "map", "objective")


def _option(option: Option) -> tuple[str, str, str]:
    required = option.default in ("REQUIRED", None)
    return option.name, "" if required else literal(option.default), f"`{option_text(option)}`: {option.help}"


def _parameters(document: Document, kinds: Iterable[str], name: str) -> list[tuple[str, str, str]]:
    """The parameters of a definition; a variant has those of the model it changes."""
    for kind in kinds:
        found = document.unit.find(kind, name)
        for _ in range(16):
            if found is None or isinstance(found[0], tree.Definition):
                break
            found = found[1].find("model", found[0].base.id)
        if found is not None and isinstance(found[0], tree.Definition):
            return [
                (p.name.id, show.show(p.default) if p.default is not None else "", f"{kind} `{name}`")
                for p in found[0].params
                if kind != "model" or p.default is not None
            ]
    return []


def _snippet(word: str, text: str, order: int = 6) -> Proposal:
    return Proposal(word, "keyword", text=text, snippet=True, about=("word", word), order=order)


def _word(word: str, order: int = 6) -> Proposal:
    return Proposal(word, "keyword", about=("word", word), order=order)
