"""Find and parse the texts that take part: the source, what it uses, and the library on demand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from hashlib import sha256
from itertools import islice
from pathlib import Path

from nldsl.assets import specs_folder
from nldsl.catalog.components import Component, components, report, specifications
from nldsl.diagnostics import Diagnostic, DiagnosticBag, Edit, Label, did_you_mean
from nldsl.source import SourceFile, Span
from nldsl.syntax import parse, read_source, tree
from nldsl.syntax.tree import Train, Tree

MAX_USES = 64
"""Files that may take part through `use`."""

_SUFFIXES = (".nl", ".yaml", ".yml")
_ITEM = re.compile(r"^(block|model|map|objective|rule|variant|train)\s+(\w+)", re.MULTILINE)
_YAML = re.compile(r"\A(\s*#[^\n]*\n|\s*\n)*\s*nldsl\s*:")
KINDS = ("model", "block", "rule", "map", "objective")

Named = tree.Definition | tree.Variant


@dataclass(eq=False)
class Unit:
    """One parsed text: what it defines and what it sees."""

    file: SourceFile
    tree: Tree
    library: Library
    path: Path | None = None
    own: dict[tuple[str, str], Named] = field(default_factory=dict)
    trains: dict[str, Train] = field(default_factory=dict)
    uses: list[Unit] = field(default_factory=list)

    def __post_init__(self) -> None:
        for item in self.tree.items:
            if isinstance(item, tree.Definition):
                self.own.setdefault((item.kind, item.name.id), item)
            elif isinstance(item, tree.Variant):
                self.own.setdefault(("model", item.name.id), item)
            elif isinstance(item, tree.Train):
                self.trains.setdefault(item.target.id, item)

    def find(self, kind: str, name: str) -> tuple[Named, Unit] | None:
        """The definition `name` of `kind` and its home: here, in what is used, else in the library."""
        for unit in self.visible():
            if (kind, name) in unit.own:
                return unit.own[kind, name], unit
        home = self.library.unit(kind, name)
        return (home.own[kind, name], home) if home and (kind, name) in home.own else None

    def visible(self) -> Iterator[Unit]:
        """This unit, then everything it uses, each once."""
        seen: list[Unit] = []
        queue = [self]
        while queue:
            unit = queue.pop(0)
            if unit not in seen:
                seen.append(unit)
                yield unit
                queue.extend(unit.uses)

    def names(self, kind: str) -> list[str]:
        """Every name of `kind` that can be seen from here."""
        own = [n for u in self.visible() for k, n in u.own if k == kind]
        return own + [n for k, n in self.library.index if k == kind]


class Library:
    """The standard library and what components add: one scan finds names, files are parsed when needed."""

    def __init__(self, root: Path, added: Iterable[Component] = ()) -> None:
        self.root = root
        self.labels: dict[Path, str] = {}
        self.index: dict[tuple[str, str], Path] = {}
        self.units: dict[Path, Unit] = {}
        for path in sorted(p for p in root.rglob("*") if p.suffix in _SUFFIXES):
            for kind, name in _ITEM.findall(path.read_text(encoding="utf-8")):
                if kind != "train":
                    self.index.setdefault(("model" if kind == "variant" else kind, name), path)
        for component in added:
            for path, text in specifications(component):
                self._add(component, path, text)

    def _add(self, component: Component, path: Path, text: str) -> None:
        """The names that a file of a component defines; those that exist already stay what they are."""
        self.labels[path] = f"{component.name}/{path.relative_to(component.folder).as_posix()}"
        for word, name in _ITEM.findall(text):
            kind = "model" if word == "variant" else word
            if word != "train" and self.index.setdefault((kind, name), path) != path:
                problem = f"{kind} `{name}` of `{path.name}` exists already, and stays as it is"
                report(component, "NL0822", problem, "give it another name")

    def unit(self, kind: str, name: str) -> Unit | None:
        """The parsed file that defines `name`, or `None`."""
        path = self.index.get((kind, name))
        if path is None:
            return None
        if path not in self.units:
            label = self.labels.get(path) or f"specs/{path.relative_to(self.root).as_posix()}"
            file = SourceFile(label, path.read_text(encoding="utf-8"))
            self.units[path] = Unit(file, parse(file, DiagnosticBag()), self, path)
        asked = _ASKED.get()
        if asked is not None:
            asked[path] = self.units[path]
        return self.units[path]


_ASKED: ContextVar[dict[Path, Unit] | None] = ContextVar("asked", default=None)


@contextmanager
def noting() -> Iterator[dict[Path, Unit]]:
    """The files of the library that are asked for inside the `with`."""
    asked: dict[Path, Unit] = {}
    token = _ASKED.set(asked)
    try:
        yield asked
    finally:
        _ASKED.reset(token)


@cache
def standard_library() -> Library:
    """The library that comes with the package, and the files of installed components."""
    return Library(specs_folder(), components())


@dataclass(eq=False)
class Bundle:
    """A source with everything it can see, and which definition it stands for (`None`: decided later)."""

    main: Unit
    wanted: tuple[str, str] | None = None

    def sources(self, asked: Iterable[Unit]) -> tuple[tuple[str, str], ...]:
        """(file name, sha256) of every text that takes part: the main one, then the others by name."""
        first, *others = [*self.main.visible(), *asked]
        files = [first.file, *sorted((u.file for u in others), key=lambda file: file.name)]
        return tuple({f.name: sha256(f.text.encode()).hexdigest() for f in files}.items())


def load(source: str | Path | SourceFile, bag: DiagnosticBag) -> Bundle:
    """Find `source` (a library name, a path, or program text), parse it and what it uses.

    A `SourceFile` is taken as it is; its name is the path beside which `use` looks.

    Never raises on what a user wrote: findings go to `bag`, and the bundle is what could be read.

    Example:
        >>> load("gated_deltanet", DiagnosticBag()).wanted
        ('model', 'gated_deltanet')
    """
    library = standard_library()
    if isinstance(source, SourceFile):
        home = Path(source.name)
        return Bundle(_text_unit(source, home if home.is_file() else None, library, bag))
    if isinstance(source, str) and ("\n" in source or "{" in source or _YAML.match(source)):
        name = "<text>.yaml" if _YAML.match(source) else "<text>"
        return Bundle(_text_unit(SourceFile(name, source), None, library, bag))
    if isinstance(source, str) and not source.endswith(_SUFFIXES):
        for kind in KINDS:
            unit = library.unit(kind, source)
            if unit is not None:
                return Bundle(unit, (kind, source))
    path = Path(source)
    text = _read(path, bag, None, library)
    if text is None:
        return Bundle(Unit(SourceFile(str(source), ""), tree.Tree((), span=_nowhere(str(source))), library))
    return Bundle(_text_unit(SourceFile(str(source), text), path, library, bag))


def _nowhere(name: str) -> Span:
    return Span(SourceFile(name, ""), 0, 0)


def _text_unit(file: SourceFile, path: Path | None, library: Library, bag: DiagnosticBag) -> Unit:
    """Parse `file` and follow its `use` lines."""
    root = path.resolve().parent if path is not None else None
    opened = Opened(root, library, bag)
    return opened.enter(file, path.resolve() if path is not None else None, ())


@dataclass
class Opened:
    """The files opened so far, so that one used twice is one, and a cycle is seen."""

    root: Path | None
    library: Library
    bag: DiagnosticBag
    units: dict[Path, Unit] = field(default_factory=dict)

    def enter(self, file: SourceFile, path: Path | None, trail: tuple[Path, ...]) -> Unit:
        """Parse one file, then what it uses."""
        unit = Unit(file, parse(file, self.bag), self.library, path)
        if path is not None:
            self.units[path] = unit
            trail = (*trail, path)
        for item in unit.tree.items:
            if isinstance(item, tree.Use):
                used = self.follow(item, path, trail)
                if used is not None:
                    unit.uses.append(used)
        return unit

    def follow(self, use: tree.Use, path: Path | None, trail: tuple[Path, ...]) -> Unit | None:
        """The unit that `use "..."` names, or `None` after a report."""
        target = self.locate(use, path)
        if target is None:
            return None
        if target in trail:
            names = " -> ".join(p.name for p in (*trail[trail.index(target) :], target))
            self.report("NL0317", f"`use` goes in a circle: {names}", use, "this closes the circle")
            return None
        if target in self.units:
            return self.units[target]
        if len(self.units) >= MAX_USES:
            self.report("NL0316", f"more than {MAX_USES} files are used", use, "one file too many")
            return None
        text = _read(target, self.bag, use, self.library)
        return (
            None if text is None else self.enter(SourceFile(_label(target, self.root), text), target, trail)
        )

    def locate(self, use: tree.Use, path: Path | None) -> Path | None:
        """The file a `use` means: beside the file, else in the library; never outside both."""
        wanted = use.path.value
        if not wanted.endswith(_SUFFIXES) or "\0" in wanted:
            self.report(
                "NL0316",
                f'`use "{wanted}"` names no .nl or .yaml file',
                use,
                "not a path that ends in .nl or .yaml",
                help="programs of the library are known by name, without `use`",
            )
            return None
        bases = [
            b
            for b in (path.parent if path is not None else None, self.library.root.resolve())
            if b is not None
        ]
        roots = [r for r in (self.root, self.library.root.resolve()) if r is not None]
        found = [(base / wanted).resolve() for base in bases]
        allowed = [p for p in found if any(p.is_relative_to(r) for r in roots)]
        if not allowed:
            self.report(
                "NL0316",
                f'`use "{wanted}"` leaves the folder of the program',
                use,
                "outside of the allowed folders",
                help="a program may use files below its own folder and files of the library",
            )
            return None
        for candidate in allowed:
            if candidate.is_file():
                return candidate
        near = get_close_matches(wanted, [name for base in bases for name in _programs(base)], n=1)
        self.report(
            "NL0316",
            f'there is no file "{wanted}"',
            use,
            "not found beside this file, nor in the library",
            help=f'did you mean "{near[0]}"?' if near else "",
            edit=Edit(use.path.span, f'"{near[0]}"', f'use "{near[0]}"') if near else None,
        )
        return None

    def report(
        self,
        code: str,
        message: str,
        use: tree.Use,
        label: str,
        help: str = "",  # noqa: A002
        edit: Edit | None = None,
    ) -> None:
        """A finding at a `use` line."""
        self.bag.add(Diagnostic(code, message, use.path.span, label, help=help, edit=edit))


def _programs(folder: Path) -> list[str]:
    """Programs in a folder and in the folders below it, by their path from there."""
    found = (p for pattern in ("*", "*/*") for p in islice(folder.glob(pattern), 1000))
    return [p.relative_to(folder).as_posix() for p in found if p.suffix in _SUFFIXES]


def _label(path: Path, root: Path | None) -> str:
    """How a used file is called in messages."""
    return path.relative_to(root).as_posix() if root is not None and path.is_relative_to(root) else path.name


def _read(path: Path, bag: DiagnosticBag, use: tree.Use | None, library: Library) -> str | None:
    """The text of a file, or `None` after a report."""
    inner = DiagnosticBag()
    file = read_source(path, inner)
    for finding in inner.items:
        if finding.code == "NL0801":
            known = sorted({name for _, name in library.index})
            here = (f"{path}{ending}" for ending in _SUFFIXES)
            beside = next((name for name in here if Path(name).is_file()), "")
            near = f"did you mean `{beside}`?" if beside else did_you_mean(path.stem, known)
            listed = (
                near or "give a file, the name of a library program (see `nldsl list`), or the text itself"
            )
            finding = replace(finding, help=_specification_of(path) or listed)
        bag.add(replace(finding, span=use.path.span if use is not None else None))
    return file.text if file is not None else None


def _specification_of(path: Path) -> str:
    """What to say if the folder of a run was given."""
    texts = sorted((path / "spec").glob("*.*")) if (path / "run.json").is_file() else []
    return f"it is a run: its specification is `{texts[0]}`" if texts else ""


def duplicate_definitions(unit: Unit) -> Iterator[Diagnostic]:
    """Names that one file defines twice within one kind."""
    seen: dict[tuple[str, str], Span] = {}
    for item in unit.tree.items:
        if isinstance(item, tree.Definition):
            key, name = (str(item.kind), item.name.id), item.name
        elif isinstance(item, tree.Variant):
            key, name = ("model", item.name.id), item.name
        elif isinstance(item, tree.Train):
            key, name = ("train", item.target.id), item.target
        else:
            continue
        if key in seen:
            word = "section `train`" if key[0] == "train" else key[0]
            yield Diagnostic(
                "NL0310",
                f"{word} `{key[1]}` is defined twice",
                name.span,
                "defined again here",
                secondary=(Label(seen[key], "first defined here"),),
                help="rename one of them; names are one per kind and file",
            )
        seen.setdefault(key, name.span)
