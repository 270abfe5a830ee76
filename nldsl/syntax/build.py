"""From the concrete tree of one statement to nodes of the language."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lark import Token
from lark import Tree as Concrete

from nldsl.source import Span
from nldsl.syntax import tree as t
from nldsl.syntax.limits import MAX_DIGITS, MAX_EXPRESSION_DEPTH, MAX_NAME
from nldsl.syntax.scan import Place

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}
ROLES = ("matrices", "embeddings", "head", "norms", "rest")
_CLAUSE_WORDS = {"gradient_every": "gradient every", "at_commit": "at commit"}


class FaultyStatementError(Exception):
    """The statement is faulty and has been reported; it is left out of the tree."""


class Builder:
    """Turns concrete trees into nodes; one method per rule of the grammar."""

    def __init__(self, place: Place) -> None:
        self.place = place

    # --- helpers -------------------------------------------------------------------------------

    def span(self, node: Any) -> Span:
        """Where a concrete tree or token was written."""
        start, end = _extent(node)
        return self.place.locate(start, end)

    def build(self, node: Any) -> Any:
        """The node for a concrete tree."""
        method: Callable[[Any], Any] = getattr(self, f"on_{node.data}")
        return method(node)

    def top(self, node: Any) -> Any:
        """As `build`, after checking that operators are not nested too deep to be walked."""
        self.check_depth(node)
        return self.build(node)

    def check_depth(self, node: Any) -> None:
        """Report operators that are nested too deep to be walked."""
        if _depth(node) > MAX_EXPRESSION_DEPTH:
            raise self.fault(
                "NL0807",
                f"this expression nests more than {MAX_EXPRESSION_DEPTH} operations",
                node,
                "give its parts names of their own",
            )

    def fault(self, code: str, message: str, node: Any, help: str = "") -> FaultyStatementError:
        """Report, and return the exception that leaves the statement out."""
        self.place.report(code, message, _extent(node), help=help)
        return FaultyStatementError(message)

    def name(self, token: Token) -> t.Name:
        if len(token) > MAX_NAME:
            raise self.fault("NL0808", f"a name has at most {MAX_NAME} characters", token, "shorten it")
        return t.Name(span=self.span(token), id=str(token))

    def string(self, token: Token) -> t.String:
        text = re.sub(r"\\(.)", lambda m: self._escape(m.group(1), token), str(token)[1:-1])
        return t.String(span=self.span(token), value=text)

    def _escape(self, sign: str, token: Token) -> str:
        if sign not in _ESCAPES:
            raise self.fault(
                "NL0117",
                f"unknown escape `\\{sign}` in a string",
                token,
                'strings know `\\"`, `\\\\`, `\\n`, `\\t` and `\\r`',
            )
        return _ESCAPES[sign]

    def args(self, node: Any) -> tuple[t.Arg, ...]:
        return tuple(self.build(a) for a in node.children) if node else ()

    # --- expressions ---------------------------------------------------------------------------

    def on_number(self, node: Any) -> t.Number:
        token = node.children[0]
        value = parse_number(str(token))
        if value is None:
            raise self.fault(
                "NL0113",
                "this number is out of range",
                token,
                f"numbers have at most {MAX_DIGITS} characters and stay below 1e308",
            )
        return t.Number(span=self.span(token), value=value)

    def on_string(self, node: Any) -> t.String:
        return self.string(node.children[0])

    def on_name(self, node: Any) -> t.Name:
        return self.name(node.children[0])

    def on_list(self, node: Any) -> t.ListExpr:
        items = node.children[0]
        values = tuple(self.build(c) for c in items.children) if items else ()
        return t.ListExpr(span=self.span(node), items=values)

    def on_unary(self, node: Any) -> t.Unary:
        op, operand = node.children
        return t.Unary(span=self.span(node), op=str(op), operand=self.build(operand))  # type: ignore[arg-type]

    def on_binary(self, node: Any) -> t.Binary:
        left, op, right = node.children
        return t.Binary(span=self.span(node), op=str(op), left=self.build(left), right=self.build(right))

    def on_call(self, node: Any) -> t.Call:
        function, arguments = node.children
        return t.Call(span=self.span(node), function=self.name(function), args=self.args(arguments))

    def on_index(self, node: Any) -> t.Index:
        target, key = node.children
        return t.Index(span=self.span(node), target=self.name(target), key=self.build(key))

    def on_positional(self, node: Any) -> t.Arg:
        return t.Arg(span=self.span(node), name=None, value=self.build(node.children[0]))

    def on_named(self, node: Any) -> t.Arg:
        name, value = node.children
        return t.Arg(span=self.span(node), name=self.name(name).id, value=self.build(value))

    # --- clocks and memories -------------------------------------------------------------------

    def on_clock(self, node: Any) -> t.Clock:
        count, unit = node.children
        return t.Clock(span=self.span(node), count=self.build(count), unit=_unit(unit))

    def on_clock_never(self, node: Any) -> t.Clock:
        return t.Clock(span=self.span(node), count=None, unit="never")

    def on_names(self, node: Any) -> tuple[t.Name, ...]:
        return tuple(self.name(c) for c in node.children)

    def on_memory(self, node: Any) -> t.MemoryDecl:
        _, names, value = node.children
        return self.memory(self.build(names), value, self.span(node))

    def memory(self, names: tuple[t.Name, ...], value: Any, span: Span) -> t.MemoryDecl:
        """A memory declaration from the concrete tree of what stands behind its `=`."""
        map_, *options = value.children
        found: dict[str, Any] = {}
        for option in options:
            kind = str(option.data).split("_")[0]
            if kind in found:
                word = "per head" if kind == "per" else kind
                raise self.fault("NL0107", f"a second `{word}` for one memory", option, "keep one of them")
            found[kind] = self.build(option)
        return t.MemoryDecl(
            span=span,
            names=names,
            map=self.build(map_),
            per_head=found.get("per"),
            init=found.get("init"),
            reset=found.get("reset"),
        )

    def on_per_head(self, node: Any) -> t.Expr | bool:
        count = node.children[2]
        return True if count is None else self.build(count)

    def on_init(self, node: Any) -> t.Init:
        value = self.build(node.children[1])
        span = self.span(node)
        if isinstance(value, t.Name) and value.id in ("zero", "learned", "fixed"):
            return t.Init(span=span, kind=value.id)  # type: ignore[arg-type]
        if isinstance(value, t.Call) and value.function.id == "learned":
            if len(value.args) != 1 or value.args[0].name:
                raise self.fault(
                    "NL0101", "`learned` takes one argument", node, 'write `init learned("first")`'
                )
            return t.Init(span=span, kind="learned", argument=value.args[0].value)
        return t.Init(span=span, kind="from", argument=value)

    def on_reset_sequence(self, node: Any) -> t.Reset:
        return t.Reset(span=self.span(node), kind="sequence")

    def on_reset_tokens(self, node: Any) -> t.Reset:
        return t.Reset(span=self.span(node), kind="tokens", count=self.build(node.children[1]))

    def on_reset_never(self, node: Any) -> t.Reset:
        return t.Reset(span=self.span(node), kind="never")

    # --- lines of a body -----------------------------------------------------------------------

    def on_assign(self, node: Any) -> t.Assign:
        names, op, value = node.children
        sign = str(op.children[0])
        if len(names.children) > 1 and sign != "=":
            raise self.fault(
                "NL0101", f"`{sign}` takes one name on its left", names, "write one statement per name"
            )
        targets = self.build(names)
        return t.Assign(span=self.span(node), targets=targets, op=sign, value=self.build(value))  # type: ignore[arg-type]

    def on_setting_equal(self, node: Any) -> t.Setting:
        key, value = node.children
        return t.Setting(span=self.span(node), key=self.name(key), value=self.build(value))

    def on_return_(self, node: Any) -> t.Return:
        return t.Return(span=self.span(node), values=tuple(self.build(c) for c in node.children[1:]))

    def on_write(self, node: Any) -> t.Write:
        target, key, value, *clauses = node.children
        start, end = _extent(node)
        bracket = self.place.text.index("[", target.end_pos)
        term = t.Term(
            span=self.place.locate(bracket, end),
            key=self.build(key),
            value=self.build(value),
            clauses=self.clauses(clauses, (end, end)),
        )
        none = t.Clauses(span=self.place.locate(end, end))
        return t.Write(
            span=self.place.locate(start, end), targets=(self.name(target),), terms=(term,), clauses=none
        )

    def on_term(self, node: Any) -> t.Term:
        key, value, *clauses = node.children
        end = _extent(node)[1]
        return t.Term(
            span=self.span(node),
            key=self.build(key),
            value=self.build(value),
            clauses=self.clauses(clauses, (end, end)),
        )

    def on_task_write(self, node: Any) -> t.TaskWrite:
        target, objective, *clauses = node.children
        end = _extent(node)[1]
        found = self.clauses(clauses, (end, end))
        if found.minimize is not None:
            raise self.fault("NL0107", "`minimize` beside `minimizes`", node, "name the objective once")
        return t.TaskWrite(
            span=self.span(node), target=self.name(target), objective=self.build(objective), clauses=found
        )

    def clauses(self, nodes: list[Any], empty: tuple[int, int]) -> t.Clauses:
        """Clauses in any order, one of each kind; `empty` is where they would stand."""
        found: dict[str, Any] = {}
        for node in nodes:
            kind = str(node.data)
            if kind in found:
                word = _CLAUSE_WORDS.get(kind, kind)
                raise self.fault(
                    "NL0107", f"a second `{word}` in one write", node, "keep one clause of each kind"
                )
            found[kind] = True if kind == "at_commit" else self.build(node.children[0])
        extent = (_extent(nodes[0])[0], _extent(nodes[-1])[1]) if nodes else empty
        return t.Clauses(span=self.place.locate(*extent), **found)

    # --- lines of `train`, `variant` and the outermost level -----------------------------------

    def on_setting(self, node: Any) -> t.Setting:
        key, quantity = node.children
        if self.place.text[key.end_pos : key.end_pos + 1] == "[":
            raise self.fault(
                "NL0112", "a write cannot stand here", node, "memories are written in a block or a rule"
            )
        if str(key) in ROLES:
            raise self.fault(
                "NL0116", f"`by` is missing behind `{key}`", node, f"write `{key} by adamw(lr = 3e-4)`"
            )
        return self.setting(self.name(key), quantity, self.span(node))

    def setting(self, key: t.Name, quantity: Any, span: Span) -> t.Setting:
        """A setting of `train` from its key and the concrete tree of its value."""
        value, unit = quantity.children
        return t.Setting(span=span, key=key, value=self.build(value), unit=_unit(unit) if unit else "")

    def on_group(self, node: Any) -> t.Group:
        selectors, rule = node.children
        return self.group(tuple(self.build(c) for c in selectors.children), rule, self.span(node))

    def group(self, selectors: tuple[t.Name | t.String, ...], rule: Any, span: Span) -> t.Group:
        """A parameter group from its selectors and the concrete tree of rule and clock."""
        value, clock = rule.children
        built = self.build(clock) if clock is not None else None
        return t.Group(span=span, selectors=selectors, rule=self.build(value), clock=built)

    def on_selector(self, node: Any) -> t.Name | t.String:
        token = node.children[0]
        return self.string(token) if token.type == "STRING" else self.name(token)

    def on_level_edit(self, node: Any) -> t.LevelEdit:
        path, clock = node.children
        return t.LevelEdit(span=self.span(node), path=self.string(path), clock=self.build(clock))

    def on_use(self, node: Any) -> t.Use:
        return t.Use(span=self.span(node), path=self.string(node.children[1]))

    def on_variant(self, node: Any) -> t.Variant:
        name, base, arguments = node.children
        return t.Variant(
            span=self.span(node), name=self.name(name), base=self.name(base), args=self.args(arguments)
        )

    def on_parameter(self, node: Any) -> t.Param:
        name, default = node.children
        value = self.build(default) if default is not None else None
        return t.Param(span=self.span(node), name=self.name(name), default=value)


def parse_number(text: str) -> int | float | None:
    """The value of a number as written; `None` if it is out of range.

    Example:
        >>> parse_number("1e-3"), parse_number("16"), parse_number("1e400")
        (0.001, 16, None)
    """
    if len(text) > MAX_DIGITS:
        return None
    if text.isdigit():
        return int(text)
    value = float(text)
    return value if abs(value) < float("inf") else None


def _unit(token: Token) -> Any:
    return "tokens" if token.type == "TOKENS" else "steps"


def _extent(node: Any) -> tuple[int, int]:
    if isinstance(node, Token):
        return int(node.start_pos or 0), int(node.end_pos or 0)
    return int(getattr(node.meta, "start_pos", 0)), int(getattr(node.meta, "end_pos", 0))


def _depth(node: Any) -> int:
    """Height of a concrete tree, without recursion."""
    deepest, stack = 0, [(node, 1)]
    while stack:
        tree, depth = stack.pop()
        deepest = max(deepest, depth)
        stack.extend((child, depth + 1) for child in tree.children if isinstance(child, Concrete))
    return deepest
