"""Where every name of a document stands, and what it stands for.

One definition is one scope for values, memories and levels: braces inside of it open none.  Blocks,
models, maps, objectives and rules have a namespace each, told apart by position.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from nldsl.catalog.schedules import SCHEDULES
from nldsl.library import PRIMITIVES
from nldsl.server.sections import Section, Sections
from nldsl.source import Span
from nldsl.spec.frame import assigned_names
from nldsl.spec.loader import KINDS, Unit
from nldsl.syntax import tree

SymbolKind = Literal[
    "block",
    "model",
    "map",
    "objective",
    "rule",
    "primitive",
    "schedule",
    "parameter",
    "variable",
    "memory",
    "level",
    "word",
]
LOCAL = frozenset({"parameter", "variable", "memory", "level"})
"""Kinds that belong to one definition."""
BUILT_IN = frozenset({"matrix", "softmax", "like"})
HOOKS = frozenset({"W", "g", "x", "dy", "step"})
"""What a rule is given without asking."""
TOP: dict[str, SymbolKind] = {k: k for k in ("block", "model", "map", "objective", "rule")}


@dataclass(frozen=True)
class Symbol:
    """What a name stands for; `scope` is the definition it belongs to (`block cms`), if it is local."""

    kind: SymbolKind
    name: str
    scope: str = ""


@dataclass(frozen=True)
class Occurrence:
    """A name in the document; `binds` where it is declared or assigned."""

    start: int
    end: int
    symbol: Symbol
    binds: bool = False


@dataclass(frozen=True)
class Names:
    """All occurrences of a document in the order of the text."""

    all: tuple[Occurrence, ...]

    @cached_property
    def _starts(self) -> list[int]:
        return [o.start for o in self.all]

    def at(self, offset: int) -> Occurrence | None:
        """The name a cursor at `offset` touches, also right behind its last character."""
        index = bisect_right(self._starts, offset) - 1
        for occurrence in reversed(self.all[max(0, index - 1) : index + 1]):
            if occurrence.start <= offset <= occurrence.end:
                return occurrence
        return None

    def of(self, symbol: Symbol) -> list[Occurrence]:
        """Every occurrence of a symbol."""
        return [o for o in self.all if o.symbol == symbol]

    def binding(self, symbol: Symbol, before: int) -> Occurrence | None:
        """Where a symbol gets its meaning: the last place above `before` that binds it, else the first."""
        places = [o for o in self.of(symbol) if o.binds]
        above = [o for o in places if o.start <= before]
        return above[-1] if above else places[0] if places else None


def names_of(unit: Unit, sections: Sections) -> Names:
    """Every name of a document; `unit` says what can be seen from it."""
    found: list[Occurrence] = []
    for section in sections.list:
        for item in section.items:
            found += _Walk(unit, section, item).run()
    unique = {(o.start, o.end): o for o in found if o.end > o.start}
    return Names(tuple(sorted(unique.values(), key=lambda o: (o.start, o.end))))


def scope_of(item: tree.Item) -> str:
    """How the scope of a definition is called.

    A variant shares the parameters of its base, so these belong to the base.
    """
    if isinstance(item, tree.Definition):
        return f"{item.kind} {item.name.id}"
    return f"variant {item.name.id}" if isinstance(item, tree.Variant) else "train"


class _Walk:
    """Collects the occurrences of one item."""

    def __init__(self, unit: Unit, section: Section, item: tree.Item) -> None:
        self.unit = unit
        self.section = section
        self.item = item
        self.found: list[Occurrence] = []
        self.scope = scope_of(item)
        self.place = item.kind if isinstance(item, tree.Definition) else "rule"
        self.locals = dict(_locals(item)) if isinstance(item, tree.Definition) else {}

    def run(self) -> list[Occurrence]:
        item = self.item
        if isinstance(item, tree.Definition):
            self.add(item.name, Symbol(TOP[item.kind], item.name.id), True)
            for parameter in item.params:
                self.local(parameter.name, True)
                self.expression(parameter.default)
            self.body(item.body)
        elif isinstance(item, tree.Train):
            self.add(item.target, Symbol("model", item.target.id))
            self.body(item.body)
        elif isinstance(item, tree.Variant):
            self.add(item.name, Symbol("model", item.name.id), True)
            self.add(item.base, Symbol("model", item.base.id))
            self.arguments(item.args, "model", item.base.id)
            self.body(item.body)
        return self.found

    # --- adding --------------------------------------------------------------------------------

    def add(self, name: tree.Name, symbol: Symbol, binds: bool = False) -> None:
        self.add_span(name.span, symbol, binds)

    def add_span(self, span: Span, symbol: Symbol, binds: bool = False) -> None:
        if span.file is self.section.file:
            start, end = self.section.start + span.start, self.section.start + span.end
            if end - start == len(symbol.name):
                self.found.append(Occurrence(start, end, symbol, binds))

    def local(self, name: tree.Name, binds: bool = False) -> None:
        kind = self.locals.get(name.id, "variable")
        self.add(name, Symbol(kind, name.id, self.scope), binds)

    # --- statements ----------------------------------------------------------------------------

    def body(self, body: Iterable[tree.Statement]) -> None:
        for statement in body:
            _STATEMENTS[type(statement)](self, statement)

    def assign(self, node: tree.Assign) -> None:
        for name in node.targets:
            memory = self.locals.get(name.id) == "memory"
            self.local(name, not memory and node.op == "=")
        self.expression(node.value)

    def level(self, node: tree.LevelDecl) -> None:
        self.add(node.name, Symbol("level", node.name.id, self.scope), True)
        self.expression(node.clock.count)
        self.body(node.body)

    def memory(self, node: tree.MemoryDecl) -> None:
        for name in node.names:
            self.local(name, True)
        self.callee(node.map, "map")
        if isinstance(node.per_head, tree.Node):
            self.expression(node.per_head)
        if node.init is not None:
            self.expression(node.init.argument)
        if node.reset is not None:
            self.expression(node.reset.count)

    def write(self, node: tree.Write) -> None:
        for name in node.targets:
            self.local(name)
        for term in node.terms:
            self.expression(term.key)
            self.expression(term.value)
            self.clauses(term.clauses)
        self.clauses(node.clauses)

    def task_write(self, node: tree.TaskWrite) -> None:
        self.local(node.target)
        self.callee(node.objective, "objective")
        self.clauses(node.clauses)

    def clauses(self, node: tree.Clauses) -> None:
        self.callee(node.minimize, "objective")
        self.callee(node.by, "rule")
        for value in (node.over, node.weighted, node.retain, node.toward, node.gradient_every, node.project):
            self.expression(value)

    def give_back(self, node: tree.Return) -> None:
        for value in node.values:
            self.expression(value)

    def repeat(self, node: tree.Repeat) -> None:
        self.expression(node.count)
        self.body(node.body)

    def loop(self, node: tree.For) -> None:
        for name in node.names:
            self.local(name, True)
        self.expression(node.items)
        self.body(node.body)

    def choice(self, node: tree.If) -> None:
        self.expression(node.condition)
        self.body(node.body)
        self.body(node.orelse)

    def every(self, node: tree.Every) -> None:
        self.expression(node.clock.count)
        self.body(node.body)

    def group(self, node: tree.Group) -> None:
        for selector in node.selectors:
            if isinstance(selector, tree.Name):
                self.add(selector, Symbol("word", selector.id))
        self.callee(node.rule, "rule")
        if node.clock is not None:
            self.expression(node.clock.count)

    def setting(self, node: tree.Setting) -> None:
        self.add(node.key, Symbol("word", node.key.id))
        value = node.value.function if isinstance(node.value, tree.Call) else node.value
        if isinstance(value, tree.Name):
            self.add(value, Symbol("word", value.id))
        if isinstance(node.value, tree.Call):
            for argument in node.value.args:
                self.expression(argument.value)

    def level_edit(self, node: tree.LevelEdit) -> None:
        self.expression(node.clock.count)

    # --- expressions ---------------------------------------------------------------------------

    def expression(self, node: tree.Expr | None) -> None:
        stack: list[Any] = [node]
        while stack:
            node = stack.pop()
            match node:
                case tree.Name():
                    self.name(node)
                case tree.Call():
                    self.callee(node, "rule" if self.place == "rule" else "block")
                case tree.Index():
                    self.name(node.target)
                    stack.append(node.key)
                case tree.Binary():
                    stack += [node.right, node.left]
                case tree.Unary():
                    stack.append(node.operand)
                case tree.ListExpr():
                    stack += reversed(node.items)

    def name(self, node: tree.Name) -> None:
        """A name on its own: local, else the definition it hands on, else a word of the language."""
        if node.id in self.locals:
            self.local(node)
            return
        kind = next((k for k in KINDS if self.unit.find(k, node.id) is not None), None)
        known = kind is not None and not (self.place == "rule" and node.id in HOOKS)
        self.add(node, Symbol(TOP[kind], node.id) if known and kind else Symbol("word", node.id))

    def callee(self, node: tree.Expr | None, kind: str) -> None:
        """What is called or named where a definition of `kind` is expected, and the arguments."""
        function = node.function if isinstance(node, tree.Call) else node
        if not isinstance(function, tree.Name):
            self.expression(node)
            return
        found = self.meaning(function.id, kind)
        if found.kind in LOCAL:
            self.local(function)
        else:
            self.add(function, found)
        if isinstance(node, tree.Call):
            self.arguments(node.args, found.kind, found.name)

    def meaning(self, name: str, kind: str) -> Symbol:
        """What a name stands for where a definition of `kind` is expected; primitives go before blocks."""
        if name in self.locals:
            return Symbol(self.locals[name], name, self.scope)
        if name in PRIMITIVES and kind in ("block", "rule"):
            return Symbol("primitive", name)
        if (name in BUILT_IN and kind != "objective") or name in ("task", "solve"):
            return Symbol("word", name)
        if name in SCHEDULES and self.place == "rule" and self.unit.find(kind, name) is None:
            return Symbol("schedule", name)
        if name in PRIMITIVES and self.unit.find(kind, name) is None:
            return Symbol("primitive", name)
        wanted = self.place if kind == "block" and self.place in ("map", "objective") else kind
        return Symbol(TOP[wanted], name)

    def arguments(self, args: Iterable[tree.Arg], kind: SymbolKind, name: str) -> None:
        """Arguments by name are the parameters of what is called, if that is a definition."""
        for argument in args:
            if argument.name is not None and kind in TOP:
                base = self._base(name) if kind == "model" else name
                symbol = Symbol("parameter", argument.name, f"{kind} {base}")
                start = argument.span.start
                self.add_span(Span(argument.span.file, start, start + len(argument.name)), symbol)
            self.expression(argument.value)

    def _base(self, name: str) -> str:
        """The model behind variants of variants."""
        for _ in range(len(self.unit.own) + 1):
            found = self.unit.find("model", name)
            if found is None or not isinstance(found[0], tree.Variant):
                break
            name = found[0].base.id
        return name


def _locals(item: tree.Definition) -> Iterator[tuple[str, SymbolKind]]:
    """Names of one definition and what they are; the later ones win."""
    for name in assigned_names(item.body):
        yield name, "variable"
    for parameter in item.params:
        yield parameter.name.id, "parameter"
    yield from _memories(item.body)


def _memories(body: Iterable[Any]) -> Iterator[tuple[str, SymbolKind]]:
    for statement in body:
        if isinstance(statement, tree.MemoryDecl):
            for name in statement.names:
                yield name.id, "memory"
        for part in ("body", "orelse"):
            yield from _memories(getattr(statement, part, ()))


_STATEMENTS: dict[type, Callable[[_Walk, Any], None]] = {
    tree.Assign: _Walk.assign,
    tree.LevelDecl: _Walk.level,
    tree.MemoryDecl: _Walk.memory,
    tree.Write: _Walk.write,
    tree.TaskWrite: _Walk.task_write,
    tree.Return: _Walk.give_back,
    tree.Repeat: _Walk.repeat,
    tree.For: _Walk.loop,
    tree.If: _Walk.choice,
    tree.Every: _Walk.every,
    tree.Group: _Walk.group,
    tree.Setting: _Walk.setting,
    tree.LevelEdit: _Walk.level_edit,
}
"""How each kind of statement is walked."""
