"""Bodies, levels, memories and groups of the YAML form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nldsl.diagnostics import did_you_mean
from nldsl.syntax import show
from nldsl.syntax import tree as t
from nldsl.syntax.build import FaultyStatementError
from nldsl.syntax.reader import Reader
from nldsl.syntax.scan import scan
from nldsl.syntax.split import split
from nldsl.syntax.yaml_nodes import Mapping, Scalar, Yaml, place_of
from nldsl.syntax.yaml_scalars import Entries, YamlScalars, as_text

_WORDS = ("return", "memory", "else", "use", "minimizes")
"""Words that begin a statement which has no mapping."""

CLAUSES = ("minimize", "over", "weighted", "by", "retain", "toward", "gradient", "at", "project")
"""Keys of a write that are clauses."""


class YamlBody:
    """Reads what may stand inside a definition, `train` or a variant."""

    def __init__(self, read: YamlScalars) -> None:
        self.read = read

    def parts(self, parts: Entries, context: str) -> tuple[Any, ...]:
        """The statements under `levels`, `memories`, `groups` and `body`, in the order of the file."""
        read: dict[str, Callable[[Yaml], tuple[Any, ...]]] = {
            "levels": lambda node: self.levels(node, context),
            "memories": self.memories,
            "groups": self.groups,
            "body": lambda node: self.body(node, context),
        }
        found: list[Any] = []
        for name, (_, node) in parts.items():
            if name in read:
                found.extend(self.read.each(read[name], [(node,)]))
        return tuple(found)

    def levels(self, node: Yaml, context: str) -> tuple[Any, ...]:
        entries = self.read.mapping(node, None, "levels").values()
        return self.read.each(self.level, ((k, k, v, context) for k, v in entries))

    def level(self, start: Scalar, name: Scalar, value: Yaml, context: str) -> t.LevelDecl:
        """A level from its name and the mapping that says the rest."""
        holds = "groups" if context == "train" else "memories"
        parts = self.read.mapping(value, ("level", "every", holds, "body"), "a level")
        inner = "train level" if context == "train" else "level"
        return t.LevelDecl(
            span=self.read.span(start, value),
            name=self.read.name(name, name.value.strip()),
            clock=self.read.clock(self.read.need(parts, "every", value)),
            body=self.parts({k: v for k, v in parts.items() if k in (holds, "body")}, inner),
        )

    def memories(self, node: Yaml) -> tuple[Any, ...]:
        entries = self.read.mapping(node, None, "memories").values()
        return self.read.each(self.memory, entries)

    def memory(self, key: Scalar, value: Yaml) -> t.MemoryDecl:
        names = self.read.build(key, "names", "names of memories")
        reader, concrete = self.read.parse(value, "memory_value", "a memory such as `matrix() per head`")
        reader.builder.check_depth(concrete)
        return reader.builder.memory(names, concrete, self.read.span(key, value))

    def groups(self, node: Yaml) -> tuple[Any, ...]:
        entries = self.read.mapping(node, None, "groups").values()
        return self.read.each(self.group, entries)

    def group(self, key: Scalar, value: Yaml) -> t.Group:
        reader, concrete = self.read.parse(value, "rule_value", "a rule such as `muon(lr = 0.02)`")
        reader.builder.check_depth(concrete)
        return reader.builder.group(self.selectors(key), concrete, self.read.span(key, value))

    def selectors(self, key: Scalar) -> tuple[t.Name | t.String, ...]:
        """`matrices`, `embeddings, head`, or a pattern, which needs no quotes of its own."""
        words = [(w.kind, key.value[w.start : w.end]) for w in scan(key.value) if w.kind != "newline"]
        listed = all(kind in ("name", "string") for kind, _ in words[::2])
        if words and listed and len(words) % 2 and all(word == "," for _, word in words[1::2]):
            reader, concrete = self.read.parse(key, "selectors", "names or patterns")
            return tuple(reader.builder.build(child) for child in concrete.children)
        return (t.String(span=self.read.span(key), value=key.value),)

    def body(self, node: Yaml, context: str) -> tuple[Any, ...]:
        """The statements of a body: texts and mappings."""
        found: list[Any] = []
        for item in self.read.sequence(node):
            try:
                self.body_item(item, context, found)
            except FaultyStatementError:
                continue
        return tuple(found)

    def body_item(self, item: Yaml, context: str, found: list[Any]) -> None:
        if isinstance(item, Scalar):
            place = place_of(item, self.read.place)
            reader = Reader(place)
            reader.read_into(found, split(place), context)
            return
        kinds: dict[str, Callable[[Mapping, str], Any]] = {
            "write": self.write,
            "for": self.for_,
            "repeat": self.repeat,
            "if": self.if_,
            "level": self.level_item,
            "every": self.every,
        }
        if not isinstance(item, Mapping) or not item.entries:
            raise self.read.fault(
                "NL0206", "found a list, expected a statement", item, "quote a text that begins with `[`"
            )
        names = [key.value for key, _ in item.entries]
        kind = next((name for name in ("level", *kinds) if name in names), None)
        if kind is None:
            text = as_text(item) if len(names) == 1 else ""
            given = item.entries[0][1]
            value = as_text(given) if text and isinstance(given, Scalar) else "..."
            help = (
                (f"one text: `- {names[0]} {value}`" if names[0] in _WORDS else "")
                or did_you_mean(names[0], kinds)
                or (f"write `- {text}`" if text else "")
                or f"quote a text with `: `, or use one of {', '.join(f'`{kind}`' for kind in kinds)}"
            )
            raise self.read.fault("NL0205", f"unknown statement `{names[0]}`", item.entries[0][0], help)
        if context not in ("body", "train") or (context == "train" and kind != "level"):
            raise self.read.fault(
                "NL0112", "this statement cannot stand here", item.entries[0][0], "move it into a block"
            )
        found.append(kinds[kind](item, context))

    def write(self, item: Mapping, context: str) -> t.Write:
        parts = self.read.mapping(item, ("write", "key", "value", "terms", *CLAUSES), "a write")
        each, names = self.write_target(parts["write"][1])
        here = self.clauses(parts, item)
        nothing = t.Clauses(span=self.read.place.locate(item.end, item.end))
        if "terms" in parts:
            terms = self.read.each(self.term, ((n,) for n in self.read.sequence(parts["terms"][1])))
            if "key" in parts or "value" in parts:
                raise self.read.fault(
                    "NL0205", "`key` beside `terms`", item.entries[0][0], "put it into `terms`"
                )
            made = t.Write(
                span=self.read.span(item), targets=names, terms=terms, clauses=here, each=each, braces=True
            )
            return _told(made)
        key, value = (
            self.read.need(parts, "key", item.entries[0][0]),
            self.read.need(parts, "value", item.entries[0][0]),
        )
        term = t.Term(
            span=self.read.span(item), key=self.read.expr(key), value=self.read.expr(value), clauses=here
        )
        made = t.Write(
            span=self.read.span(item), targets=names, terms=(term,), clauses=nothing, each=each, braces=each
        )
        return _told(made)

    def write_target(self, node: Yaml) -> tuple[bool, tuple[t.Name, ...]]:
        reader, concrete = self.read.parse(node, "write_target", "a memory, or `each of A, B`")
        each, names = concrete.children
        return each is not None, reader.builder.build(names)

    def term(self, node: Yaml) -> t.Term:
        parts = self.read.mapping(node, ("key", "value", *CLAUSES), "a term")
        key, value = self.read.need(parts, "key", node), self.read.need(parts, "value", node)
        return t.Term(
            span=self.read.span(node),
            key=self.read.expr(key),
            value=self.read.expr(value),
            clauses=self.clauses(parts, node),
        )

    def clauses(self, parts: Entries, node: Yaml) -> t.Clauses:
        found: dict[str, Any] = {}
        for name, (_, value) in parts.items():
            if name in ("over", "gradient"):
                clock = self.read.clock(value)
                if clock.unit != "tokens":
                    raise self.read.fault("NL0206", f"`{name}` counts tokens", value, "write `16 tokens`")
                found["gradient_every" if name == "gradient" else name] = clock.count
            elif name == "at":
                if self.read.scalar(value, "`commit`").value.strip() != "commit":
                    raise self.read.fault(
                        "NL0206", "`at` has the one value `commit`", value, "write `at: commit`"
                    )
                found["at_commit"] = True
            elif name in CLAUSES:
                found[name] = self.read.expr(value)
        return t.Clauses(span=self.read.span(node), **found)

    def for_(self, item: Mapping, context: str) -> t.For:
        parts = self.read.mapping(item, ("for", "body"), "a `for`")
        reader, concrete = self.read.parse(parts["for"][1], "for_value", "`c in list` or `c, i in list`")
        names, items = concrete.children
        return t.For(
            span=self.read.span(item),
            names=reader.builder.build(names),
            items=reader.builder.top(items),
            body=self.parts(parts, context),
        )

    def repeat(self, item: Mapping, context: str) -> t.Repeat:
        parts = self.read.mapping(item, ("repeat", "body"), "a `repeat`")
        count = self.read.expr(parts["repeat"][1])
        return t.Repeat(span=self.read.span(item), count=count, body=self.parts(parts, context))

    def if_(self, item: Mapping, context: str) -> t.If:
        parts = self.read.mapping(item, ("if", "body", "else"), "an `if`")
        orelse = self.body(parts["else"][1], context) if "else" in parts else ()
        condition = self.read.expr(parts["if"][1])
        body = self.parts({k: v for k, v in parts.items() if k == "body"}, context)
        return t.If(span=self.read.span(item), condition=condition, body=body, orelse=orelse)

    def every(self, item: Mapping, context: str) -> t.Every:
        parts = self.read.mapping(item, ("every", "body"), "an `every`")
        clock = self.read.clock(parts["every"][1])
        return t.Every(span=self.read.span(item), clock=clock, body=self.parts(parts, context))

    def level_item(self, item: Mapping, context: str) -> t.LevelDecl:
        name = next(value for key, value in item.entries if key.value == "level")
        return self.level(self.read.scalar(name, "a name"), self.read.scalar(name, "a name"), item, context)


def _told(node: t.Write) -> t.Write:
    """The same write, its places with what stands there in the text form: what is shown of it is shown so."""
    words = [" ".join(show.term(term)) for term in node.terms]
    terms = tuple(
        replace(term, span=replace(term.span, said=said))
        for term, said in zip(node.terms, words, strict=True)
    )
    if node.braces:
        each = "each of " if node.each else ""
        body = f"write {each}{show.names(node.targets)} {{ {' '.join(words)} }}"
        whole = [body, *show.clauses(node.clauses)]
    else:
        whole = show.line(node)
    return replace(node, terms=terms, span=replace(node.span, said=" ".join(whole)))
