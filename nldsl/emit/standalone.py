"""One file without our package: emitted code with the runtime functions it uses written into it."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from nldsl.emit.imports import in_sections
from nldsl.emit.printer import print_imports
from nldsl.emit.sources import (
    Binding,
    Definition,
    StandaloneError,
    bindings,
    global_names,
    is_text,
    read_source,
    rename,
)
from nldsl.emit.statements import Import

Key = tuple[str, str]
"""Module and name of a definition."""


@dataclass
class _Closure:
    """Definitions that are needed, modules in dependency order, and imports from elsewhere."""

    definitions: dict[Key, Definition] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    external: dict[str, Binding] = field(default_factory=dict)

    def add(self, module: str, name: str) -> Key:
        """Take in a definition and all it needs; where it is really defined."""
        source = read_source(module)
        if name not in source.definitions:
            if name in source.imports:
                return self._follow(source.imports[name], module)
            raise StandaloneError(f"`{module}` has no `{name}`")
        key = (module, name)
        if key not in self.definitions:
            self._take(source.definitions[name])
            for registration in source.registering(name):
                if (module, registration.name) not in self.definitions:
                    self._take(registration)
            if module not in self.modules:
                self.modules.append(module)
        return key

    def target(self, module: str, local: str) -> Key | None:
        """The definition that a name in a module stands for, if it is one of ours."""
        source = read_source(module)
        if local in source.definitions:
            return module, local
        binding = source.imports.get(local)
        if binding is None or not binding.internal or binding.name is None:
            return None
        return self.target(binding.module, binding.name)

    def import_external(self, binding: Binding) -> None:
        """Take in an import; two different ones of the same name are refused."""
        if self.external.setdefault(binding.local, binding) != binding:
            raise StandaloneError(f"`{binding.local}` is imported from two places")

    def ordered(self) -> list[Definition]:
        """Imported modules first, each in the order of its file: decorators above what they decorate."""
        order: list[str] = []
        for module in self.modules:
            self._visit(module, set(), order)
        return [
            definition
            for module in order
            for definition in sorted(
                (d for key, d in self.definitions.items() if key[0] == module), key=lambda d: d.line
            )
        ]

    def _visit(self, module: str, under_way: set[str], order: list[str]) -> None:
        """Append a module to `order` behind those of ours that it imports."""
        if module in order or module in under_way:
            return
        under_way.add(module)
        for local in read_source(module).imports:
            found = self.target(module, local)
            if found is not None and found[0] in self.modules:
                self._visit(found[0], under_way, order)
        order.append(module)

    def _take(self, definition: Definition) -> None:
        self.definitions[definition.module, definition.name] = definition
        for needed in sorted(definition.uses):
            self._need(definition.module, needed)

    def _need(self, module: str, local: str) -> None:
        source = read_source(module)
        if local in source.definitions:
            self.add(module, local)
        elif local in source.imports:
            binding = source.imports[local]
            if binding.internal:
                self._follow(binding, module)
            else:
                self.import_external(binding)

    def _follow(self, binding: Binding, module: str) -> Key:
        if binding.name is None:
            raise StandaloneError(f"`{module}` imports the module `{binding.module}` as a whole")
        return self.add(binding.module, binding.name)


def inline(source: str) -> str:
    """The emitted module `source` as one file that imports nothing of ours.

    The functions, classes and constants it imports, and those they need, are copied from our
    source files as text, in dependency order.  Where two of them share a name, the later one is
    renamed, as is one with the name of a builtin.  Raises `StandaloneError` if something stands in
    the way: an import of a whole module, a relative import, a name that cannot be told apart.
    """
    tree = ast.parse(source)
    imported = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    own = [node for node in tree.body if node not in imported and not is_text(node)]
    body = _body(source, tree, own)
    closure = _Closure()
    wanted: dict[str, Key] = {}
    for binding in (b for node in imported for b in bindings(node, "the emitted module")):
        if not binding.internal:
            closure.import_external(binding)
        elif binding.name is None:
            raise StandaloneError(f"the emitted module imports the module `{binding.module}` as a whole")
        elif binding.local in wanted:
            raise StandaloneError(f"`{binding.local}` is imported from two places")
        else:
            wanted[binding.local] = closure.add(binding.module, binding.name)
    names = _names(closure, wanted, taken=_top_names(own))
    if any(names[key] != local for local, key in wanted.items()):
        body = rename(body, {local: names[key] for local, key in wanted.items() if names[key] != local})
    head = ast.get_docstring(tree, clean=False)
    doc = "" if head is None else "\n".join(source.splitlines()[: tree.body[0].end_lineno]) + "\n\n"
    parts = [_definition_text(closure, definition, names) for definition in closure.ordered()]
    text = doc + _imports(closure) + _spaced([*parts, ("", False, body)] if body else parts)
    return _checked(text)


def _body(source: str, tree: ast.Module, own: list[ast.stmt]) -> str:
    """The emitted code below its imports."""
    if not own:
        return ""
    lines = source.splitlines()
    last = max((n.end_lineno or 0 for n in tree.body if n not in own and n.lineno < own[0].lineno), default=0)
    return "\n".join(lines[last:]).strip("\n")


def _top_names(own: Iterable[ast.stmt]) -> set[str]:
    """Names the emitted module gives its own definitions."""
    names: set[str] = set()
    for node in own:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        else:
            names |= {
                n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }
    return names


def _names(closure: _Closure, wanted: dict[str, Key], taken: set[str]) -> dict[Key, str]:
    """The final name of every definition; those the emitted code imports keep theirs if they can.

    Names of Python itself are taken: `sum` of the language would be what every other definition calls.
    """
    names: dict[Key, str] = {}
    taken = taken | set(closure.external) | set(dir(builtins))
    first = list(dict.fromkeys(wanted.values()))
    for module, name in first + [key for key in closure.definitions if key not in first]:
        final = name
        if final in taken:
            final = f"{name}_{module.split('.')[-1]}"
        if final in taken:
            raise StandaloneError(f"`{name}` of `{module}` has the name of something else")
        taken.add(final)
        names[module, name] = final
    return names


def _definition_text(
    closure: _Closure, definition: Definition, names: dict[Key, str]
) -> tuple[str, bool, str]:
    """Module, whether it is a constant, and text of a definition under the final names."""
    local = {definition.name: names[definition.module, definition.name]}
    for used in definition.uses:
        target = closure.target(definition.module, used)
        if target is not None:
            local[used] = names[target]
    return definition.module, definition.is_constant, definition.renamed(local)


def _imports(closure: _Closure) -> str:
    """The import block of everything that comes from elsewhere."""
    merged: dict[tuple[str, str | None], set[str]] = {}
    nodes: list[Import] = []
    for local, binding in closure.external.items():
        if binding.name is None:
            nodes.append(Import(binding.module, alias=None if local == binding.module else local))
        elif local == binding.name:
            merged.setdefault((binding.module, None), set()).add(local)
        else:
            nodes.append(Import(binding.module, (binding.name,), local))
    nodes += [Import(module, tuple(members)) for (module, _), members in merged.items()]
    return print_imports((Import("__future__", ("annotations",)), *in_sections(nodes)))


def _spaced(parts: list[tuple[str, bool, str]]) -> str:
    """The parts with the blank lines between them that the formatter wants."""
    return "".join(_gaps(parts)) + "\n"


def _gaps(parts: list[tuple[str, bool, str]]) -> Iterator[str]:
    previous: tuple[str, bool] | None = None
    for module, constant, text in parts:
        if previous is None:
            gap = "\n" if constant else "\n\n"
        else:
            gap = "\n\n" if constant and previous == (module, True) else "\n\n\n"
        yield gap + text
        previous = (module, constant)


def _checked(text: str) -> str:
    """The text, if it is Python and reads no name that nothing binds."""
    unbound = global_names(text) - set(dir(builtins)) - {"__name__", "__file__"}
    if unbound:
        raise StandaloneError(f"nothing in the standalone file defines `{min(unbound)}`")
    return text
