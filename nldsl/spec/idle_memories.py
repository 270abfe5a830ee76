"""NL0411 in rules: memories on which the weight does not depend, however often they are updated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nldsl.spec.session import Session
from nldsl.spec.streams import walk
from nldsl.syntax import tree

_WITHIN = (tree.Repeat, tree.For, tree.If, tree.Every, tree.LevelDecl)


def check_rule_memories(session: Session, item: tree.Definition) -> None:
    """A memory that only itself or such memories read: a warning, for it may be there to be looked at."""
    flows = list(_flows(item.body, frozenset()))
    reached, before = {"W"}, 0
    while len(reached) > before:
        before = len(reached)
        reached |= {name for target, read in flows if target in reached for name in read}
    for node in walk(item.body):
        for name in node.names if isinstance(node, tree.MemoryDecl) else ():
            if name.id not in reached:
                session.report(
                    "NL0411",
                    f"the weight does not depend on memory `{name.id}` of rule `{item.name.id}`",
                    name.span,
                    "kept for every weight, and never asked",
                    help=f"let `W = ...` read `{name.id}`, or remove it",
                    severity="warning",
                )


def _flows(body: Iterable[tree.Statement], asked: frozenset[str]) -> Iterator[tuple[str, set[str]]]:
    """What is set, and the names it depends on: those of the conditions around it, `asked`, too."""
    for statement in body:
        if isinstance(statement, _WITHIN):
            inner = [*statement.body, *(statement.orelse if isinstance(statement, tree.If) else ())]
            own = [v for key, v in vars(statement).items() if key not in ("body", "orelse", "span")]
            yield from _flows(inner, asked | _names(own))
        elif isinstance(statement, tree.Assign):
            for target in statement.targets:
                yield target.id, set(asked | _names([statement.value]))
        elif isinstance(statement, tree.Write):
            for target in statement.targets:
                yield target.id, set(asked | _names([statement.terms, statement.clauses]))


def _names(nodes: Iterable[object]) -> frozenset[str]:
    """All names in expressions, those of functions and of what is indexed included."""
    return frozenset(node.id for node in walk(tuple(nodes)) if isinstance(node, tree.Name))
