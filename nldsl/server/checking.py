"""Elaboration over the versions of a document: only what a change can reach is elaborated again.

What an item says depends on the sections that its words lead to, from definition to definition.  As
long as these are the same objects, and the files in use did not change, its findings and its program
stand; so do the blocks that were elaborated on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nldsl.diagnostics import Diagnostic, DiagnosticBag
from nldsl.review.check import review
from nldsl.server.sections import Section, Sections
from nldsl.source import SourceFile, Span
from nldsl.spec.definition_checks import check_definitions
from nldsl.spec.elaborate import callers_first, check_item, is_model, nothing_defined
from nldsl.spec.loader import Named, Opened, Unit, duplicate_definitions, standard_library
from nldsl.spec.program import Block, Call, Program, Repeat
from nldsl.spec.session import Session
from nldsl.syntax import tree

_MAX_BLOCKS = 4_000
"""Elaborated blocks kept; beyond that everything is elaborated anew once."""

Key = frozenset[object]


@dataclass
class Checked:
    """One item elaborated: what it says, its program, and the definitions it reached."""

    key: Key
    item: Named
    findings: list[Diagnostic]
    program: Program | None
    reached: frozenset[int]


@dataclass
class _Used:
    """A file in use with all that it uses, and how these files looked on the disk."""

    unit: Unit
    findings: list[Diagnostic]
    stamps: tuple[object, ...]


@dataclass
class _Version:
    """One version of the document while it is checked."""

    unit: Unit
    sections: Sections
    keys: dict[int, Key]
    """By the identity of a section: what everything in it can depend on."""
    homes: dict[int, Section]
    """By the identity of a definition: its section."""
    outside: frozenset[int]
    """Identities of the definitions of other files."""

    def needs(self, key: Any) -> Key | None:
        """What an elaboration depends on; `None` if its definition is gone.

        `key` is (kind, identity of the definition, arguments, ...).  An argument may name a definition, as in
        `mixer = attention`, which the definition itself does not mention.
        """
        home = self.homes.get(key[1])
        if home is None and key[1] not in self.outside:
            return None
        found = set(self.keys[id(home)] if home is not None else self.unit.uses)
        names = set(_texts(key[2:]))
        for section in self.sections.list:
            if names & section.defines:
                found |= self.keys[id(section)]
        return frozenset(found)


@dataclass
class Checker:
    """The findings and programs of a document; `update` brings them up to date."""

    name: str
    path: Path | None
    findings: list[Diagnostic] = field(default_factory=list)
    checked: dict[int, Checked] = field(default_factory=dict)
    unit: Unit | None = None
    _used: dict[tuple[str, int], _Used] = field(default_factory=dict)
    _memo: dict[Any, tuple[Any, Key]] = field(default_factory=dict)
    """What was elaborated for which arguments, and what that depends on."""
    _unfolded: dict[int, tuple[Block, int]] = field(default_factory=dict)
    _before: list[object] = field(default_factory=list)

    @property
    def programs(self) -> Iterator[tuple[Named, Program]]:
        """Every item with its program, models first, then what stands alone."""
        for checked in self.checked.values():
            if checked.program is not None:
                yield checked.item, checked.program

    def update(self, sections: Sections) -> None:
        """Check a version of the document."""
        self.findings = []
        version = self._version(sections)
        self.unit = version.unit
        self._forget(version)
        self._single(version)
        fresh: dict[int, Checked] = {}
        for model in filter(is_model, sections.items):
            fresh[id(model)] = self._item(model, version)
        reached = frozenset[int]().union(*(c.reached for c in fresh.values()))
        for item in callers_first(sections.items):
            if id(item) not in reached:
                fresh[id(item)] = self._item(item, version)
                reached |= fresh[id(item)].reached
        for checked in fresh.values():
            self.findings += checked.findings
        self.checked = fresh
        # Identities stand for definitions, so no definition may be freed before the next version is known.
        self._before = [version.unit, list(sections.list)]

    # --- a version -----------------------------------------------------------------------------

    def _version(self, sections: Sections) -> _Version:
        span = Span(SourceFile(self.name, ""), 0, 0)
        unit = Unit(span.file, tree.Tree(span=span, items=sections.items), standard_library(), self.path)
        for item in sections.items:
            if isinstance(item, tree.Use):
                used = self._use(item)
                if used is not None and used not in unit.uses:
                    unit.uses.append(used)
        keys = {id(s): frozenset({*reach, *unit.uses}) for s, reach in _reaches(sections.list)}
        homes = {id(item): s for s in sections.list for item in s.items}
        others = [*unit.visible(), *unit.library.units.values()]
        outside = frozenset(id(item) for u in others if u is not unit for item in u.tree.items)
        return _Version(unit, sections, keys, homes, outside)

    def _use(self, item: tree.Use) -> Unit | None:
        """The unit of a `use` line; read again if a file changed on the disk."""
        place = (item.path.value, id(item))
        known = self._used.get(place)
        if known is None or known.stamps != _stamps(known.unit):
            bag = DiagnosticBag()
            root = self.path.parent if self.path is not None else None
            opened = Opened(root, standard_library(), bag)
            unit = opened.follow(item, self.path, () if self.path is None else (self.path,))
            if unit is None:
                self.findings += bag.items
                return None
            known = self._used[place] = _Used(unit, bag.items, _stamps(unit))
        self.findings += known.findings
        return known.unit

    def _forget(self, version: _Version) -> None:
        """Drop what was elaborated from definitions that changed, or that can see a change."""
        if len(self._memo) > _MAX_BLOCKS:
            self._memo, self._unfolded = {}, {}
        self._memo = {
            key: (value, needs)
            for key, (value, needs) in self._memo.items()
            if version.needs(key) == needs is not None
        }

    def _single(self, version: _Version) -> None:
        """Checks that look at one definition, and those of names over the whole file."""
        unit, sections = version.unit, version.sections.list
        if not unit.tree.items and sections and not any(s.findings for s in sections):
            self.findings.append(nothing_defined(unit, Span(sections[0].file, 0, len(sections[0].file.text))))
        self.findings += duplicate_definitions(unit)
        trains: list[tree.Item] = [i for i in unit.tree.items if isinstance(i, tree.Train)]
        self.findings += _definition_findings(unit, trains)
        for section in version.sections.list:
            if section.checked is None:
                definitions = [i for i in section.items if isinstance(i, tree.Definition)]
                section.checked = [f for d in definitions for f in _definition_findings(unit, [d])]
            self.findings += section.checked

    # --- one item ------------------------------------------------------------------------------

    def _item(self, item: Named, version: _Version) -> Checked:
        key = version.keys[id(version.homes[id(item)])]
        known = self.checked.get(id(item))
        if known is not None and known.key == key and known.item is item:
            return known
        memo = _Memo({key: value for key, (value, _) in self._memo.items()})
        session = Session(DiagnosticBag(), unfolded=self._unfolded, memo=memo)
        program = None
        with session.bounded(item.span):
            program = check_item(session, item, version.unit)
        findings = session.bag.items
        self._keep(memo, findings, version)
        if program is not None and not session.bag.errors:
            findings = [*findings, *review(program)]
        return Checked(key, item, findings, program, memo.reached(version.unit.tree.items))

    def _keep(self, memo: _Memo, findings: list[Diagnostic], version: _Version) -> None:
        """Remember what was elaborated, except where a finding lies: those are said once per elaboration."""
        faulty = {id(f.span.file) if f.span else 0 for f in findings}
        own = {id(s.file) for s in version.sections.list}
        if faulty - own:
            return
        for key, value in memo.items():
            needs = version.needs(key)
            if needs is not None and not any(id(s.file) in faulty for s in needs if isinstance(s, Section)):
                self._memo[key] = value, needs


class _Memo(dict[Any, Any]):
    """What one session elaborated or found elaborated; notes what was asked for."""

    def __init__(self, known: dict[Any, Any]) -> None:
        super().__init__(known)
        self.asked: set[Any] = set()

    def __contains__(self, key: object) -> bool:
        self.asked.add(key)
        return super().__contains__(key)

    def reached(self, items: Iterable[tree.Item]) -> frozenset[int]:
        """Identities of the definitions that took part, also of those inside of known blocks."""
        at = {(id(i.span.file), i.span.start): id(i) for i in items}
        found = {key[1] for key in self.asked if key[0] in ("block", "map")}
        seen: set[int] = set()
        stack = [
            v.block for k in self.asked if k[0] == "block" and (v := self.get(k)) and v.block is not None
        ]
        while stack:
            block = stack.pop()
            if id(block) in seen:
                continue
            seen.add(id(block))
            spans = [block.span, *(m.function.span for m in block.memories if m.function is not None)]
            found |= {at[p] for s in spans if s is not None and (p := (id(s.file), s.start)) in at}
            stack += [s.block for s in block.body if isinstance(s, Call | Repeat)]
        return frozenset(found)


def _definition_findings(unit: Unit, items: list[tree.Item]) -> list[Diagnostic]:
    """What the checks of definitions say about `items` as if they stood alone, all names known."""
    session = Session(DiagnosticBag())
    part = tree.Tree(span=unit.tree.span, items=tuple(items))
    with session.bounded(unit.tree.span):
        check_definitions(
            session, Unit(unit.file, part, unit.library, unit.path, dict(unit.own), {}, unit.uses)
        )
    return session.bag.items


def _reaches(sections: list[Section]) -> Iterator[tuple[Section, set[Section]]]:
    """For every section those that its words lead to, itself included."""
    homes: dict[str, list[Section]] = {}
    for section in sections:
        for name in section.defines:
            homes.setdefault(name, []).append(section)
    names = homes.keys()
    next_to = {id(s): [t for n in s.words & names for t in homes[n]] for s in sections}
    for section in sections:
        found, stack = {section}, [section]
        while stack:
            for other in next_to[id(stack.pop())]:
                if other not in found:
                    found.add(other)
                    stack.append(other)
        yield section, found


def _texts(arguments: Any) -> Iterator[str]:
    """Every text in nested tuples."""
    if isinstance(arguments, str):
        yield arguments
    elif isinstance(arguments, tuple):
        for argument in arguments:
            yield from _texts(argument)


def _stamps(unit: Unit) -> tuple[object, ...]:
    """How the files of a unit look on the disk."""
    found: list[object] = []
    for one in unit.visible():
        try:
            stat = one.path.stat() if one.path is not None else None
        except OSError:
            stat = None
        found.append((stat.st_mtime_ns, stat.st_size) if stat is not None else None)
    return tuple(found)
