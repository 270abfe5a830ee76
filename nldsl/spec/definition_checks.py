"""Checks that need only the text: names taken twice, unused parameters, statements nothing reaches."""

from __future__ import annotations

from nldsl.diagnostics import Label, did_you_mean
from nldsl.library import PRIMITIVES
from nldsl.source import Span
from nldsl.spec.frame import assigned_names
from nldsl.spec.idle_arguments import check_arguments
from nldsl.spec.idle_memories import check_rule_memories
from nldsl.spec.loader import Unit, duplicate_definitions
from nldsl.spec.session import Session
from nldsl.spec.streams import walk
from nldsl.syntax import tree

RESERVED = {"true", "false", "self", "init", "zero", "learned", "identity", "task"}
"""Words with a meaning of their own."""
TARGETS = {"label"}
"""Streams that a task reads, not the body of the model."""
IN_RULES = {"W": "the weight", "g": "the gradient", "step": "the count of steps"}
"""What every rule is given."""
OF_GROUPS = {"params", "param_names", "name", "every"}
"""What a group of parameters says itself, beside the arguments of its rule."""
COUNTED = {"gathered", "arrived", "calls"}
"""What an optimizer keeps of a weight on a slow clock, beside the memories of its rule."""
BUILT_IN_MAPS = {"matrix", "softmax", "like"}


def check_definitions(session: Session, unit: Unit) -> None:
    """Every check of this module on every definition of a file."""
    for finding in duplicate_definitions(unit):
        session.bag.add(finding)
    for item in unit.tree.items:
        if isinstance(item, tree.Definition):
            _name(session, item)
            _parameters(session, item)
            _memories(session, item)
            _unused(session, item)
            _unreachable(session, item.body)
            if item.kind == "rule":
                check_rule_memories(session, item)
        if isinstance(item, tree.Definition | tree.Train | tree.Variant):
            check_arguments(session, item, unit)
        if isinstance(item, tree.Train) and unit.find("model", item.target.id) is None:
            session.report(
                "NL0318",
                f"unknown model `{item.target.id}`",
                item.target.span,
                "nothing to train",
                help=did_you_mean(item.target.id, unit.names("model")),
            )


def _name(session: Session, item: tree.Definition) -> None:
    """A definition must not hide a primitive or a word of the language."""
    name = item.name.id
    function = item.kind == "block" and name in PRIMITIVES
    if function or name in RESERVED or (item.kind == "map" and name in BUILT_IN_MAPS):
        session.report(
            "NL0322",
            f"`{name}` is a {'primitive' if function else 'word'} of the language",
            item.name.span,
            "taken",
            help="choose another name",
        )


def _parameters(session: Session, item: tree.Definition) -> None:
    """Parameters have different names."""
    seen: dict[str, Span] = {}
    for parameter in item.params:
        name = parameter.name.id
        if name in seen:
            session.report(
                "NL0311",
                f"parameter `{name}` is declared twice",
                parameter.name.span,
                "declared again here",
                secondary=(Label(seen[name], "first declared here"),),
            )
        elif item.kind == "rule":
            _of_a_rule(session, parameter.name, OF_GROUPS, "a word of the groups of an optimizer")
        elif name in RESERVED:
            session.report("NL0322", f"`{name}` is a word of the language", parameter.name.span, "taken")
        seen.setdefault(name, parameter.name.span)


def _memories(session: Session, item: tree.Definition) -> None:
    """Memories of a rule have names that nothing else in an optimizer has."""
    for node in walk(item.body) if item.kind == "rule" else ():
        for name in node.names if isinstance(node, tree.MemoryDecl) else ():
            _of_a_rule(session, name, COUNTED, "what an optimizer on a slow clock keeps")


def _of_a_rule(session: Session, name: tree.Name, others: set[str], what: str) -> None:
    if name.id in IN_RULES or name.id in others:
        said = f"`{name.id}` is {IN_RULES.get(name.id, what)} in every rule"
        session.report("NL0322", said, name.span, "taken", help="choose another name")


def _unused(session: Session, item: tree.Definition) -> None:
    """NL0328 for a parameter nothing uses; NL0323, a warning, for a variable nothing reads."""
    used = mentioned(item)
    for position, parameter in enumerate(item.params):
        stream = item.kind == "model" and parameter.default is None and parameter.name.id in TARGETS
        target = item.kind == "objective" and position == 1  # Every objective takes one.
        if parameter.name.id not in used and not stream and not target:
            option = parameter.default is not None
            session.report(
                "NL0328",
                f"`{parameter.name.id}` of {item.kind} `{item.name.id}` is never used",
                parameter.name.span,
                "has no effect",
                help="use it, or remove it: an option without effect misleads",
                severity="error" if option else "warning",
            )
    if item.kind == "rule":
        used |= {"W"}
    for name, span in assigned_names(item.body).items():
        if name not in used | {"_"} and name not in {p.name.id for p in item.params}:
            if not _declares(item, name):
                session.report(
                    "NL0323", f"`{name}` is assigned but never read", span, "never read", severity="warning"
                )


def mentioned(item: tree.Definition) -> set[str]:
    """Names that a definition reads somewhere, `heads` of a bare `per head` included."""
    used: set[str] = set()
    for node in walk((item.body, tuple(p.default for p in item.params if p.default is not None))):
        used |= _reads(node)
    return used


def _reads(node: tree.Node) -> set[str]:
    """Names that this node itself reads."""
    children: list[object] = []
    extra = {"heads"} if isinstance(node, tree.MemoryDecl) and node.per_head is True else set()
    if isinstance(node, tree.Assign):
        children = [*(node.targets if node.op != "=" else ())]
    if isinstance(node, tree.Call):
        children = [node.function]
    elif isinstance(node, tree.Index):
        children = [node.target]
    return extra | {c.id for c in (*children, *_expressions(node)) if isinstance(c, tree.Name)}


def _expressions(node: tree.Node) -> list[object]:
    """Children that are read: all but the names a statement assigns or declares."""
    hidden = {
        "targets",
        "names",
        "name",
        "function",
        "target",
        "key" if isinstance(node, tree.Setting) else "",
    }
    found: list[object] = []
    for field, value in vars(node).items():
        if field not in hidden and field != "span":
            found.extend(value if isinstance(value, tuple) else (value,))
    return found


def _declares(item: tree.Definition, name: str) -> bool:
    """Whether `name` is a memory or the variable of a `for`; those have checks of their own."""
    return any(
        isinstance(n, tree.MemoryDecl | tree.For) and name in {x.id for x in n.names} for n in walk(item.body)
    )


def _unreachable(session: Session, body: tuple[tree.Statement, ...]) -> None:
    """NL0325 for statements behind a `return` of the same body."""
    for position, statement in enumerate(body):
        if isinstance(statement, tree.Return) and position + 1 < len(body):
            session.report(
                "NL0325",
                "statements behind `return` are never reached",
                body[position + 1].span,
                "never reached",
                secondary=(Label(statement.span, "returns here"),),
                help="remove them, or move them above",
            )
        for part in ("body", "orelse"):
            inner = getattr(statement, part, ())
            if inner:
                _unreachable(session, inner)
