"""The top-level definitions of our own source files, read as text: what a standalone file is cut from."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = "nldsl"
ROOT = Path(__file__).resolve().parent.parent


class StandaloneError(ValueError):
    """A file that cannot be made standalone; the message says which statement is in the way."""


@dataclass(frozen=True)
class Binding:
    """What an import binds: `import module as local` (name `None`) or `from module import name as local`."""

    local: str
    module: str
    name: str | None

    @property
    def internal(self) -> bool:
        """Whether it comes from our own package."""
        return self.module.split(".")[0] == PACKAGE


@dataclass(frozen=True)
class Definition:
    """A function, class or constant of a module, with its comments and decorators, as text."""

    module: str
    name: str
    line: int
    text: str

    @property
    def is_constant(self) -> bool:
        """Whether it is an assignment or a registration, neither function nor class."""
        return not isinstance(ast.parse(self.text).body[0], ast.FunctionDef | ast.ClassDef)

    @property
    def uses(self) -> frozenset[str]:
        """Names of the module that it reads, in bodies, bases, defaults and annotations."""
        return global_names(self.text) - {self.name}

    def renamed(self, names: Mapping[str, str]) -> str:
        """Its text with other names for itself and for what it reads."""
        changed = {old: new for old, new in names.items() if old != new}
        return rename(self.text, changed) if changed else self.text


@dataclass(frozen=True)
class Source:
    """A module: its definitions and imports by local name, and calls that register definitions."""

    definitions: Mapping[str, Definition]
    imports: Mapping[str, Binding]
    registrations: tuple[Definition, ...]

    def registering(self, name: str) -> list[Definition]:
        """The registrations that mention a definition: they go where it goes."""
        return [call for call in self.registrations if name in call.uses]


@cache
def read_source(module: str) -> Source:
    """The definitions and imports of a module of our package, without importing it."""
    path = ROOT.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.is_file():
        raise StandaloneError(f"`{module}` has no source file to take definitions from")
    return parse_source(module, path.read_text(encoding="utf-8"))


def parse_source(module: str, text: str) -> Source:
    """The definitions and imports of a module, given its text."""
    lines = text.splitlines()
    definitions: dict[str, Definition] = {}
    imports: dict[str, Binding] = {}
    registrations: list[Definition] = []
    body = ast.parse(text).body
    for index, node in enumerate(body):
        found = _imports(node)
        imports.update({binding.local: binding for part in found for binding in bindings(part, module)})
        if found or is_text(node):
            continue
        following = body[index + 1] if index + 1 < len(body) else None
        end = following.end_lineno if following is not None and is_text(following) else node.end_lineno
        start = _first_line(node, lines)
        code = "\n".join(lines[start - 1 : end])
        if isinstance(node, ast.Expr):
            registrations.append(Definition(module, f"line {start}", start, code))
            continue
        name = _defined(node, module)
        if name in definitions:
            raise StandaloneError(f"`{module}` defines `{name}` twice")
        definitions[name] = Definition(module, name, start, code)
    return Source(definitions, imports, tuple(registrations))


def _imports(node: ast.stmt) -> list[ast.Import | ast.ImportFrom]:
    """The imports of a statement: itself, or what stands under `if TYPE_CHECKING`."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return [part for part in node.body if isinstance(part, ast.Import | ast.ImportFrom)]
    return [node] if isinstance(node, ast.Import | ast.ImportFrom) else []


def bindings(node: ast.Import | ast.ImportFrom, module: str) -> Iterator[Binding]:
    """What an import statement binds; `from __future__` binds nothing."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if "." in alias.name and alias.asname is None:
                raise StandaloneError(f"`{module}` imports `{alias.name}` without a name of its own")
            yield Binding(alias.asname or alias.name, alias.name, None)
    elif node.level or node.module is None:
        raise StandaloneError(f"`{module}` has a relative import")
    elif node.module != "__future__":
        for alias in node.names:
            yield Binding(alias.asname or alias.name, node.module, alias.name)


def is_text(node: ast.stmt) -> bool:
    """Whether a statement is a bare string: a docstring, of a module or of the constant above it."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def global_names(text: str) -> frozenset[str]:
    """Names that code reads and does not bind in the scope where it reads them.

    Example:
        >>> sorted(global_names("def f(x, y=z): return x + w"))
        ['w', 'z']
    """
    table = symtable.symtable(text, "<definition>", "exec")
    return frozenset(_reads(table, top=True)) - _written(table)


def rename(text: str, names: Mapping[str, str]) -> str:
    """The code with other global names; refused where a local variable has one of them.

    Example:
        >>> rename("def f(x): return f(x - 1) + g", {"f": "h"})
        'def h(x): return h(x - 1) + g'
    """
    tree = ast.parse(text)
    lines = text.splitlines()
    edits: list[tuple[int, int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.arg in names:
            raise StandaloneError(f"the name `{node.arg}` is used by two definitions, once as a parameter")
        if isinstance(node, ast.Name) and node.id in names:
            if isinstance(node.ctx, ast.Store) and node not in _top_targets(tree):
                raise StandaloneError(f"the name `{node.id}` is used by two definitions, once as a variable")
            edits.append((node.lineno, node.col_offset, node.id))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names:
            offset = 4 if isinstance(node, ast.FunctionDef) else 6
            edits.append((node.lineno, node.col_offset + offset, node.name))
    for line, column, old in sorted(edits, reverse=True):
        row = lines[line - 1].encode()
        lines[line - 1] = (row[:column] + names[old].encode() + row[column + len(old) :]).decode()
    return "\n".join(lines)


def _reads(table: symtable.SymbolTable, top: bool) -> Iterator[str]:
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (top or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _reads(child, top=False)


def _written(table: symtable.SymbolTable) -> frozenset[str]:
    return frozenset(
        symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()
    )


def _top_targets(tree: ast.Module) -> list[ast.expr]:
    targets: list[ast.expr] = []
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AnnAssign):
            targets.append(node.target)
    return targets


def _first_line(node: ast.stmt, lines: list[str]) -> int:
    """The line of the first decorator, or of the comment above it."""
    start = node.lineno
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        start = min([start, *(decorator.lineno for decorator in node.decorator_list)])
    while start > 1 and lines[start - 2].startswith("#"):
        start -= 1
    return start


def _defined(node: ast.stmt, module: str) -> str:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        targets = [node.target]
    if len(targets) == 1 and isinstance(targets[0], ast.Name):
        return targets[0].id
    raise StandaloneError(f"line {node.lineno} of `{module}` is neither a definition nor an import")
