"""A program that fails, made small: statements, clauses, terms and operations go while it still fails.

Every candidate is a text that is read, elaborated and compiled like any other; what does not make a program
is no candidate.  Nothing here knows what the words of the language mean.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from nldsl.certify.cases import Case, FailedError, UnfitError
from nldsl.certify.clocks import blocks_below
from nldsl.certify.tested import Tested
from nldsl.diagnostics import DiagnosticBag, SpecError
from nldsl.source import SourceFile
from nldsl.spec.loader import Bundle, load
from nldsl.spec.program import Program
from nldsl.syntax import tree as t
from nldsl.syntax.printer import to_text

SECONDS = 60.0
"""How long one failure is made smaller."""
_STATEMENTS = ("body", "orelse")
_OPTIONAL = ("init", "reset", "per_head", "default", "clock")
_CLAUSES = tuple(f.name for f in fields(t.Clauses) if f.name not in ("span", "minimize", "by"))


@dataclass(frozen=True)
class Smallest:
    """The smallest text that fails, the block or model in it, its arguments, and how it fails."""

    text: str
    block: str | None
    arguments: tuple[tuple[str, Any], ...]
    failed: FailedError
    before: int
    """Statements of the files that the failure was found in."""
    after: int


@dataclass
class _Root:
    """What is being reduced: one tree, and which definition of it is run."""

    tree: t.Tree
    label: str
    block: str | None
    arguments: dict[str, Any]


def reduce(tested: Tested, failed: FailedError, seconds: float = SECONDS) -> Smallest:
    """The smallest program and case in which the same property still fails in the same way."""
    end = time.monotonic() + seconds
    bundle = load(tested.source, DiagnosticBag())
    start = _root(bundle, tested, failed.case)
    search = _Search(tested, failed, end)
    found = search.attempt(start) or failed
    for candidate in _alone(bundle, tested.subject(failed.case).program, start.arguments):
        answer = search.attempt(candidate)
        if answer is not None:
            start, found = candidate, answer
            break
    root, found = search.descend(start, found)
    found = search.shorten(root, found)
    kept = tuple(sorted(_fitting(root.tree, root.block, root.arguments).items()))
    before = statements(bundle.main.tree)
    return Smallest(to_text(root.tree), root.block, kept, found, before, statements(root.tree))


def statements(node: object) -> int:
    """How many statements a tree has, definitions included.

    Example:
        >>> statements(load("block f(x) {\\n  y = 2 * x\\n  return y\\n}\\n", DiagnosticBag()).main.tree)
        3
    """
    own = isinstance(node, t.Statement | t.Definition | t.Variant | t.Train)
    return own + sum(statements(child) for child in _children(node))


def _children(node: object) -> Iterator[object]:
    if isinstance(node, tuple):
        yield from node
    elif isinstance(node, t.Node):
        yield from (getattr(node, f.name) for f in fields(node) if f.name != "span")


# --- what is run -----------------------------------------------------------------------------


def _root(bundle: Bundle, tested: Tested, case: Case) -> _Root:
    """The file of the specification, every argument spelt out."""
    wanted = bundle.wanted
    block = tested.block or (wanted[1] if wanted is not None and wanted[0] == "block" else None)
    arguments = {**tested.small, **dict(case.arguments)}
    return _Root(bundle.main.tree, bundle.main.file.name, block, arguments)


def _alone(bundle: Bundle, program: Program, arguments: dict[str, Any]) -> Iterator[_Root]:
    """Every block that the program calls, by itself, the innermost first."""
    names = dict.fromkeys(b.name for b in blocks_below(program.root))
    for name in reversed(list(names)):
        found = bundle.main.find("block", name)
        if found is None or (name == program.name and program.kind == "block"):
            continue
        _, unit = found
        static = next((dict(b.static) for b in blocks_below(program.root) if b.name == name), {})
        own = {n: v for n, v in static.items() if isinstance(v, int | float | str | bool)}
        width = {"dim": arguments.get("dim", 8)}
        yield _Root(unit.tree, unit.file.name, name, {**own, **width})


def _fitting(tree: t.Tree, block: str | None, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that the definitions which are left still have; `dim` sizes inputs."""
    items = [i for i in tree.items if isinstance(i, t.Definition)]
    wanted = [i for i in items if i.name.id == block] or items
    names = {p.name.id for i in wanted for p in i.params}
    variants = any(isinstance(i, t.Variant) for i in tree.items)
    return {n: v for n, v in arguments.items() if n in names or n == "dim" or variants}


class _Search:
    """Greedy descent: the first smaller program that still fails is taken, until none does."""

    def __init__(self, tested: Tested, failed: FailedError, end: float) -> None:
        self.tested, self.failed, self.end = tested, failed, end
        self.seen: set[tuple[str, str | None]] = set()

    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.end

    def attempt(self, root: _Root, case: Case | None = None) -> FailedError | None:
        """How a program fails, if it does, and in the same way."""
        found: FailedError | None = None
        text = to_text(root.tree)
        if case is None and (text, root.block) in self.seen:
            return None
        self.seen.add((text, root.block))
        arguments = _fitting(root.tree, root.block, root.arguments)
        given = replace(case or self.failed.case, arguments=())
        try:
            small = Tested(SourceFile(root.label, text), root.block, arguments, self.tested.build, exact=True)
            small.check(self.failed.name, given)
        except FailedError as failed:
            found = failed if failed.kind == self.failed.kind else None
        except (SpecError, UnfitError):
            found = None
        return found

    def descend(self, root: _Root, found: FailedError) -> tuple[_Root, FailedError]:
        """Take away whatever can go."""
        smaller = True
        while smaller and not self.over():
            smaller = False
            for tree in shorter(root.tree):
                if self.over():
                    break
                candidate = replace(root, tree=tree)
                answer = self.attempt(candidate)
                if answer is not None:
                    root, found, smaller = candidate, answer, True
                    break
        return root, found

    def shorten(self, root: _Root, found: FailedError) -> FailedError:
        """Fewer tokens, one sequence, no mask, one call: what the smaller program still needs."""
        smaller = True
        while smaller and not self.over():
            smaller = False
            for case in _shorter_cases(found.case):
                answer = self.attempt(root, case)
                if answer is not None:
                    found, smaller = answer, True
                    break
        return found


def _shorter_cases(case: Case) -> Iterator[Case]:
    for tokens in sorted({1, 2, 3, case.tokens // 2, case.tokens - 1}):
        if 0 < tokens < case.tokens:
            cuts = tuple(sorted({c for c in case.cuts if c < tokens} | {tokens}))
            masked = tuple(m for m in case.masked if m[1] < tokens)
            yield replace(case, tokens=tokens, cuts=cuts, masked=masked)
    if case.batch > 1:
        yield replace(case, batch=1, masked=tuple(m for m in case.masked if m[0] == 0))
    yield from (replace(case, masked=tuple(m for m in case.masked if m != gone)) for gone in case.masked)
    if len(case.cuts) > 1:
        yield from (replace(case, cuts=tuple(c for c in case.cuts if c != gone)) for gone in case.cuts[:-1])
    if case.seed:
        yield replace(case, seed=0)


# --- smaller trees ---------------------------------------------------------------------------


def shorter(tree: t.Tree) -> Iterator[t.Tree]:
    """Trees with one thing less, the largest things first.

    Example:
        >>> tree = load("block f(x) {\\n  return silu(2 * x)\\n}\\n", DiagnosticBag()).main.tree
        >>> texts = [to_text(s) for s in shorter(tree) if s.items and s.items[0].body]
        >>> [text.split("return ")[1].split("\\n")[0] for text in texts]
        ['silu(2 * x)', 'silu()', '2 * x', 'silu(2)', 'silu(x)']
    """
    yield from _changed(tree)  # type: ignore[misc]


def _changed(node: object) -> Iterator[object]:
    """The node with one change, its own first, then those of its parts."""
    if isinstance(node, t.Node):
        yield from _own(node)
        for f in fields(node):
            if f.name == "span":
                continue
            for part in _changed(getattr(node, f.name)):
                yield _with(node, **{f.name: part})
    elif isinstance(node, tuple):
        for i, item in enumerate(node):
            yield from ((*node[:i], part, *node[i + 1 :]) for part in _changed(item))


def _with(node: Any, **parts: object) -> Any:
    """The node with other parts."""
    return replace(node, **parts)


def _own(node: t.Node) -> Iterator[t.Node]:
    """What one node can lose."""
    if isinstance(node, t.Definition):
        yield from (_forgotten(node, name) for name in _memories(node.body))
    for name in ("items", *_STATEMENTS, "terms", "names", "args", "params", "values"):
        parts = getattr(node, name, None)
        if isinstance(parts, tuple):
            yield from _without_one(node, name, parts)
    if isinstance(node, t.Clauses):
        yield from (_with(node, **{n: f}) for n in _CLAUSES if (f := _absent(node, n)) is not ...)
    for name in _OPTIONAL:
        if getattr(node, name, None) is not None and not isinstance(
            node, t.LevelDecl | t.Every | t.LevelEdit
        ):
            yield _with(node, **{name: None})
    yield from _inside(node)


def _memories(body: tuple[Any, ...]) -> Iterator[str]:
    """The memories that a body declares."""
    for step in body:
        if isinstance(step, t.MemoryDecl):
            yield from (name.id for name in step.names)
        elif isinstance(step, t.LevelDecl):
            yield from _memories(step.body)


def _forgotten(node: Any, memory: str) -> Any:
    """The same without a memory: its writes go, and what is asked of it is the answer."""
    if isinstance(node, tuple):
        return tuple(_forgotten(item, memory) for item in node if not _only(item, memory))
    if isinstance(node, t.Index) and node.target.id == memory:
        return _forgotten(node.key, memory)
    if isinstance(node, t.Write | t.MemoryDecl):
        name = "targets" if isinstance(node, t.Write) else "names"
        node = _with(node, **{name: tuple(n for n in getattr(node, name) if n.id != memory)})
    if not isinstance(node, t.Node):
        return node
    parts = {f.name: _forgotten(getattr(node, f.name), memory) for f in fields(node) if f.name != "span"}
    return _with(node, **parts)


def _only(item: object, memory: str) -> bool:
    """Whether a statement is about this memory and nothing else."""
    if isinstance(item, t.Write | t.Assign):
        return all(n.id == memory for n in item.targets)
    if isinstance(item, t.MemoryDecl):
        return all(n.id == memory for n in item.names)
    if isinstance(item, t.LevelDecl):
        return all(_only(inner, memory) for inner in item.body)
    return isinstance(item, t.TaskWrite) and item.target.id == memory


def _absent(node: t.Clauses, name: str) -> Any:
    """What a clause is where it is left out; `...` if it is."""
    value = getattr(node, name)
    if value is None or value is False:
        return ...
    return False if value is True else None


def _without_one(node: t.Node, name: str, parts: tuple[Any, ...]) -> Iterator[t.Node]:
    """One part less; where a value goes, its place is taken by what it was made of."""
    for i, part in enumerate(parts):
        rest = (*parts[:i], *parts[i + 1 :])
        if not rest and name in ("names", "terms", "values"):
            continue
        yield _with(node, **{name: rest})
        if name == "body" and isinstance(part, t.Assign) and len(part.targets) == 1 and part.op == "=":
            for value in _names(part.value):
                yield _with(node, **{name: _renamed(rest, part.targets[0].id, value)})


def _names(node: object) -> Iterator[str]:
    """The names inside an expression that stand for values, each once."""
    found: dict[str, None] = {}

    def visit(inner: object) -> None:
        if isinstance(inner, t.Name):
            found.setdefault(inner.id)
        for child in _children(inner):
            if not (isinstance(inner, t.Call) and child is inner.function):
                visit(child)

    visit(node)
    yield from found


def _renamed(node: Any, old: str, new: str) -> Any:
    """The same with another name in the place of `old`."""
    if isinstance(node, tuple):
        return tuple(_renamed(item, old, new) for item in node)
    if isinstance(node, t.Name):
        return replace(node, id=new) if node.id == old else node
    if not is_dataclass(node) or not isinstance(node, t.Node):
        return node
    parts = {f.name: _renamed(getattr(node, f.name), old, new) for f in fields(node) if f.name != "span"}
    return replace(node, **parts)


def _inside(node: t.Node) -> Iterator[t.Node]:
    """An operation replaced by one of its operands; a number by a smaller one."""
    if isinstance(node, t.Call):
        yield from (arg.value for arg in node.args if arg.name is None)
    elif isinstance(node, t.Binary):
        yield from (node.left, node.right)
    elif isinstance(node, t.Unary):
        yield node.operand
    elif isinstance(node, t.Number) and isinstance(node.value, int) and node.value > 2:
        yield replace(node, value=2)
