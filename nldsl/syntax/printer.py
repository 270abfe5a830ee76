"""A tree as canonical text, with the comments and empty lines of the text it came from."""

from __future__ import annotations

from nldsl.source import SourceFile
from nldsl.syntax import show
from nldsl.syntax import tree as t
from nldsl.syntax.columns import WIDTH, Line, layout
from nldsl.syntax.margin import Margin


def to_text(tree: t.Tree) -> str:
    """The tree in the text form, without comments.

    Example:
        >>> from nldsl.diagnostics import DiagnosticBag
        >>> from nldsl.syntax.parse import parse
        >>> print(to_text(parse(SourceFile("a.nl", "block f( x ){return 2*x}"), DiagnosticBag())), end="")
        block f(x) {
          return 2 * x
        }
    """
    return format_tree(tree, None)


def format_tree(tree: t.Tree, file: SourceFile | None) -> str:
    """The tree in the text form, with the comments and empty lines of `file`, which it was parsed from."""
    printer = _Printer(Margin(file))
    printer.tree(tree)
    return "\n".join(layout(printer.lines)) + "\n" if printer.lines else ""


class _Printer:
    """Collects lines; `margin` gives comments back at the places they were taken from."""

    def __init__(self, margin: Margin) -> None:
        self.margin = margin
        self.lines: list[Line] = []
        self.opened = False
        """The last line opened a body: no empty line behind it."""

    # --- lines and comments --------------------------------------------------------------------

    def push(self, indent: int, text: str, gap: bool = False) -> None:
        if gap and self.lines and not self.opened:
            self.lines.append(Line(0, ()))
        self.opened = text.endswith("{")
        self.lines.append(Line(indent, (text,)))

    def lead(self, offset: int, indent: int, gap: bool = False) -> None:
        """Comments on lines of their own above what begins at `offset`; `gap` wants an empty line above."""
        for index, (own, words) in enumerate(self.margin.before(offset)):
            self.push(indent, words, own or (gap and not index))

    def statement_lines(self, indent: int, texts: list[str], start: int, end: int, gap: bool = False) -> None:
        """A statement of one or more lines, its trailing comment behind the last."""
        before = len(self.lines)
        self.lead(start, indent, gap)
        own_gap = self.margin.gap(start) or (gap and len(self.lines) == before)
        comments = self.margin.behind(end)
        if len(comments) > 1:
            for words in comments:
                self.push(indent, words, own_gap)
                own_gap = False
            comments = []
        for index, text in enumerate(texts):
            self.push(indent + (2 if index else 0), text, own_gap and not index)
        if comments:
            self.lines[-1].comment = comments[0]

    # --- outermost level -----------------------------------------------------------------------

    def tree(self, tree: t.Tree) -> None:
        if self.margin.version:
            self.statement_lines(0, [f"nldsl {tree.version}"], *self.margin.version)
        previous: t.Item | None = None
        for item in tree.items:
            apart = previous is not None and not (_is_line(item) and type(previous) is type(item))
            self.item(item, apart or (previous is None and self.margin.version is not None))
            previous = item
        self.lead(len(self.margin.text) + 1, 0)

    def item(self, item: t.Item, gap: bool) -> None:
        start, end = item.span.start, item.span.end
        match item:
            case t.Use():
                self.statement_lines(0, [f"use {show.show(item.path)}"], start, end, gap)
            case t.Definition():
                params = [show.param(p) for p in item.params]
                header = self.fill(f"{item.kind} {item.name.id}(", params, ") {", 0)
                self.block(header, item.body, start, 0, gap)
            case t.Train():
                self.block([f"train {item.target.id} {{"], item.body, start, 0, gap)
            case t.Variant():
                self.variant(item, gap)

    def variant(self, item: t.Variant, gap: bool) -> None:
        head = f"variant {item.name.id} of {item.base.id}"
        tail = " {" if item.body else ""
        args = [show.argument(a) for a in item.args]
        header = self.fill(f"{head}(", args, f"){tail}", 0) if args else [head + tail]
        if item.body:
            self.block(header, item.body, item.span.start, 0, gap)
        else:
            self.statement_lines(0, header, item.span.start, item.span.end, gap)

    # --- bodies --------------------------------------------------------------------------------

    def block(
        self,
        header: list[str],
        body: tuple[t.Statement, ...] | tuple[t.Term, ...],
        start: int,
        indent: int,
        gap: bool = False,
        closing: str = "}",
        end: int | None = None,
    ) -> None:
        """A header, its body and the closing brace; on one line if it was written so and fits."""
        opened, closed = self.margin.brace_after(start)
        one_line = bool(self.margin.text) and "\n" not in self.margin.text[start:closed]
        behind = opened + 1 if not one_line else closed + 1 if end is None else end
        whole = f"{header[0]} {_inside(body)} {closing}"
        if one_line and _inside(body) and header[0][0] != "}" and 2 * indent + len(whole) <= WIDTH:
            self.statement_lines(indent, [whole], start, behind, gap)
            return
        self.statement_lines(indent, header, start, behind, gap)
        if len(header) > 1:
            self.lines[-1].indent = indent
        for node in body:
            self.statement(node, indent + 1)
        self.lead(closed, indent + 1)
        self.statement_lines(indent, [closing], closed, closed + 1 if end is None else end)

    def statement(self, node: t.Statement | t.Term, indent: int) -> None:
        start = node.span.start
        match node:
            case t.LevelDecl():
                self.level(node, indent)
            case t.Repeat():
                self.block([f"repeat {show.show(node.count)} {{"], node.body, start, indent)
            case t.For():
                header = f"for {show.names(node.names)} in {show.show(node.items)} {{"
                self.block([header], node.body, start, indent)
            case t.Every():
                self.block([f"{show.every(node.clock)} {{"], node.body, start, indent)
            case t.If():
                self.if_(node, indent)
            case t.Write() if node.braces:
                self.write(node, indent)
            case t.Term():
                self.simple(show.term(node), node, indent)
            case _:
                self.simple(show.line(node), node, indent)

    def simple(self, texts: list[str], node: t.Statement | t.Term, indent: int) -> None:
        """A statement without braces, broken before clauses, or inside brackets, if it is too long."""
        whole = "  ".join(texts)
        lines = [whole]
        if 2 * indent + len(whole) > WIDTH:
            lines = texts if len(texts) > 1 else self.broken(node, whole, indent)
        self.statement_lines(indent, lines, node.span.start, node.span.end)
        if len(lines) == 1:
            self.cells(node)

    def cells(self, node: t.Statement | t.Term) -> None:
        """Cut the line just written where it may line up with its neighbours."""
        line = self.lines[-1]
        sign = " <- " if isinstance(node, t.Write) else f" {node.op} " if isinstance(node, t.Assign) else ""
        if sign and sign in line.cells[0]:
            left, _, right = line.cells[0].partition(sign)
            line.kind, line.cells = "assign", (left, sign.strip(), right)
        elif isinstance(node, t.Group):
            line.kind, line.cells = "group", (show.selectors(node), f"by {show.rule(node)}")

    def broken(self, node: t.Statement | t.Term, whole: str, indent: int) -> list[str]:
        """A long statement broken inside the outermost brackets of its value."""
        value: t.Expr | None = None
        if isinstance(node, t.Assign | t.Term):
            value = node.value
        elif isinstance(node, t.Return):
            value = node.values[-1]
        if isinstance(value, t.Call):
            inner = [show.argument(a) for a in value.args]
            return self.fill(whole[: len(whole) - len(show.arguments(value.args)) - 1], inner, ")", indent)
        if isinstance(value, t.ListExpr):
            inner = [show.show(item) for item in value.items]
            return self.fill(whole[: len(whole) - len(", ".join(inner)) - 1], inner, "]", indent)
        return [whole]

    def fill(self, head: str, parts: list[str], tail: str, indent: int) -> list[str]:
        """`head`, `parts` with commas, `tail`: on one line if it fits, else as many per line as fit."""
        whole = head + ", ".join(parts) + tail
        if 2 * indent + len(whole) <= WIDTH or not parts:
            return [whole]
        lines, line = [head], ""
        for index, part in enumerate(parts):
            text = part + ("," if index + 1 < len(parts) else "")
            if line and 2 * indent + 4 + len(line) + 1 + len(text) > WIDTH:
                lines.append(line)
                line = text
            else:
                line = f"{line} {text}".lstrip()
        return [*lines, line, tail] if tail.endswith("{") else [*lines, line + tail]

    # --- statements with braces ----------------------------------------------------------------

    def level(self, node: t.LevelDecl, indent: int) -> None:
        start = node.span.start
        header = f"level {node.name.id} {show.every(node.clock)} {{"
        opened, closed = self.margin.brace_after(start)
        if len(node.body) == 1 and not self.margin.any_between(opened, closed):
            whole = f"{header} {'  '.join(show.line(node.body[0]))} }}"
            if 2 * indent + len(whole) <= WIDTH:
                self.statement_lines(indent, [whole], start, closed + 1)
                self.level_cells(node)
                return
        self.block([header], node.body, start, indent)

    def level_cells(self, node: t.LevelDecl) -> None:
        """Cut a level of one line so that clocks and memories of neighbours line up."""
        inner = node.body[0]
        head = (f"level {node.name.id}", show.every(node.clock))
        if isinstance(inner, t.MemoryDecl):
            left, right = f"{{ memory {show.names(inner.names)}", f"= {show.memory(inner)} }}"
            self.lines[-1].kind, self.lines[-1].cells = "level", (*head, left, right)

    def if_(self, node: t.If, indent: int) -> None:
        """`if`, and every `else` behind it on the line of the closing brace."""
        header, start = f"if {show.show(node.condition)} {{", node.span.start
        whole = f"{header} {_inside(node.body)} }} else {{ {_inside(node.orelse)} }}"
        written = self.margin.text[start : node.span.end]
        both = _inside(node.body) and _inside(node.orelse)
        if both and written and "\n" not in written and 2 * indent + len(whole) <= WIDTH:
            self.statement_lines(indent, [whole], start, node.span.end)
            return
        current: t.If | None = node
        body = node.body
        while True:
            orelse = current.orelse if current else ()
            if not orelse:
                self.block([header], body, start, indent)
                return
            opened, closed = self.margin.brace_after(start)
            self.open_else(header, body, (start, opened, closed), indent)
            following = orelse[0] if len(orelse) == 1 and isinstance(orelse[0], t.If) else None
            if following is not None:
                header, body = f"}} else if {show.show(following.condition)} {{", following.body
            else:
                header, body = "} else {", orelse
            current, start = following, closed

    def open_else(
        self, header: str, body: tuple[t.Statement, ...], where: tuple[int, int, int], indent: int
    ) -> None:
        """Header and body of an `if` whose closing brace stands on the line of the `else`."""
        start, opened, closed = where
        self.statement_lines(indent, [header], start, opened + 1)
        for inner in body:
            self.statement(inner, indent + 1)
        self.lead(closed, indent + 1)

    def write(self, node: t.Write, indent: int) -> None:
        word = "write each of" if node.each else "write"
        closing = "  ".join(["}", *show.clauses(node.clauses)])
        self.block(
            [f"{word} {show.names(node.targets)} {{"],
            node.terms,
            node.span.start,
            indent,
            closing=closing,
            end=node.span.end if self.margin.text else None,
        )


def _is_line(item: t.Item) -> bool:
    return isinstance(item, t.Use) or (isinstance(item, t.Variant) and not item.body)


def _inside(body: tuple[t.Statement, ...] | tuple[t.Term, ...]) -> str:
    """The only statement of a body as text, if it has one and that has no braces of its own."""
    if len(body) != 1:
        return ""
    node = body[0]
    if isinstance(node, t.Term):
        return "  ".join(show.term(node))
    if isinstance(node, t.LevelDecl | t.Repeat | t.For | t.If | t.Every):
        return ""
    return "" if isinstance(node, t.Write) and node.braces else "  ".join(show.line(node))
