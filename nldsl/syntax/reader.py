"""From pieces to a tree: every piece is parsed on its own, so every faulty one is reported once."""

from __future__ import annotations

from typing import Any

from lark.exceptions import UnexpectedInput

from nldsl.diagnostics import DiagnosticBag
from nldsl.source import Span
from nldsl.syntax import tree as t
from nldsl.syntax.build import Builder, FaultyStatementError
from nldsl.syntax.grammar import parse_slice
from nldsl.syntax.limits import MAX_ELSE_CHAIN, MAX_STATEMENT_TOKENS
from nldsl.syntax.pieces import Piece
from nldsl.syntax.scan import Place
from nldsl.syntax.slips import explain
from nldsl.syntax.split import split
from nldsl.syntax.versions import about_version

ENTRIES = {
    "file": "item_line",
    "body": "line",
    "level": "line",
    "write": "term",
    "train": "train_line",
    "train level": "train_line",
    "variant": "train_line",
}
_BLOCKS = frozenset({"level", "write_block", "repeat", "for_", "if_", "else_", "every"})
_HEADERS = {
    "file": frozenset({"definition", "train", "variant"}),
    "body": _BLOCKS,
    "train": frozenset({"level"}),
}
_LINES: dict[str, tuple[type, ...]] = {
    "level": (t.MemoryDecl,),
    "train": (t.Setting, t.Group),
    "train level": (t.Group,),
    "variant": (t.Setting, t.Group, t.LevelEdit),
}
_HOLDS = {
    "file": "a file holds `use`, definitions, `train` and `variant`",
    "level": "a level holds `memory` declarations",
    "write": "a write holds terms such as `[k] <- v`",
    "train": "`train` holds settings, `level NAME every N steps { ... }` and groups of parameters",
    "train level": "a level of `train` holds groups such as `matrices by muon(lr = 0.02)`",
    "variant": 'a variant holds `level "path" every C tokens`, groups and settings',
    "body": "a body holds assignments, memories, writes, `return` and blocks of them",
}


class Reader:
    """Reads pieces in a context: the place in a file that says which statements may stand there."""

    def __init__(self, place: Place, *, lenient: bool = False) -> None:
        self.place = place
        self.lenient = lenient
        self.builder = Builder(place)
        self.faulty_before = False
        """The statement above has braces and is faulty: an `else` here may well belong to it."""

    def concrete(self, start: int, end: int, entry: str, context: str) -> Any:
        """The concrete tree of a slice; reports and raises `FaultyStatementError` if there is none."""
        try:
            return parse_slice(self.place.text, start, end, entry)
        except UnexpectedInput as error:
            explain(self.place, (start, end), entry, context, error)
            raise FaultyStatementError from error

    def read(self, pieces: list[Piece], context: str) -> tuple[Any, ...]:
        """The nodes of `pieces`, faulty ones left out."""
        nodes: list[Any] = []
        self.read_into(nodes, pieces, context)
        return tuple(nodes)

    def read_into(self, nodes: list[Any], pieces: list[Piece], context: str) -> None:
        """As `read`, behind `nodes` that stand there already (an `else` joins the `if` before it)."""
        for piece in pieces:
            if self.place.full:
                return
            try:
                node = self.statement(piece, context, nodes)
            except FaultyStatementError:
                self.faulty_before = piece.body is not None
                continue
            self.faulty_before = False
            if node is not None:
                nodes.append(node)

    def statement(self, piece: Piece, context: str, before: list[Any]) -> Any:
        """The node of one piece; `None` if it was merged into the one before (`else`, version)."""
        if piece.lost:
            raise FaultyStatementError
        if piece.tokens > MAX_STATEMENT_TOKENS:
            message = f"this statement has more than {MAX_STATEMENT_TOKENS} words and signs"
            self.place.report(
                "NL0807", message, (piece.start, piece.start + 1), help="give its parts names of their own"
            )
            raise FaultyStatementError(message)
        if piece.body is not None:
            return self.block(piece, context, before)
        if piece.broken:
            raise FaultyStatementError
        node = self.concrete(piece.start, piece.end, ENTRIES[context], context)
        if node.data == "version":
            self._version(node)
            return None
        built = self.builder.top(node)
        if context in _LINES and not isinstance(built, _LINES[context]):
            self._misplaced(piece, context)
        return built

    def _misplaced(self, piece: Piece, context: str) -> None:
        self.place.report(
            "NL0112", "this statement cannot stand here", (piece.start, piece.end), help=_HOLDS[context]
        )
        raise FaultyStatementError

    def _version(self, node: Any) -> None:
        wrong = about_version(str(node.children[1]), "nldsl 1")
        if wrong is not None:
            raise self.builder.fault("NL0114", wrong[0], node, wrong[1])

    # --- statements with braces ----------------------------------------------------------------

    def block(self, piece: Piece, context: str, before: list[Any]) -> Any:
        """The node of a piece with braces; its body is read even if its header is faulty."""
        header, fault = None, None
        try:
            header = self._header(piece, context)
        except FaultyStatementError as error:
            fault = error
        inner = _inner(header, self.place.text[piece.start : piece.end], context)
        above = self.faulty_before
        body = self.read(piece.body or [], inner) if header else self.read_anyhow(piece.body or [], inner)
        self.faulty_before = above
        if header is None or fault:
            raise fault or FaultyStatementError()
        span = self.place.locate(piece.start, piece.last)
        if header.data == "else_":
            self._else(header, body, span, before)
            return None
        if header.data == "write_block":
            return self._write(header, piece, body, span)
        if piece.tail:
            self.place.report(
                "NL0112",
                "clauses stand behind a write",
                piece.tail,
                help="remove them, or put them behind a write",
            )
            raise FaultyStatementError
        return getattr(self, f"_{header.data.rstrip('_')}")(header, body, span)

    def read_anyhow(self, pieces: list[Piece], context: str) -> tuple[Any, ...]:
        """The body of a faulty header: what fits any other kind of body is not a fault of its own."""
        if self.lenient:
            return ()  # only the outermost of several faulty headers is looked into
        contexts = (context, *(c for c in ("body", "write", "train", "variant") if c != context))
        for piece in pieces:
            attempts = []
            for guess in contexts:
                bag = DiagnosticBag()
                reader = Reader(Place(self.place.text, self.place.locate, bag), lenient=True)
                reader.faulty_before = True
                reader.read([piece], guess)
                attempts.append(bag)
            if all(bag.items for bag in attempts):
                for diagnostic in attempts[0].items:
                    self.place.bag.add(diagnostic)
        return ()

    def _header(self, piece: Piece, context: str) -> Any:
        if piece.broken:
            raise FaultyStatementError
        header = self.concrete(piece.start, piece.end, "header", context)
        if header.data not in _HEADERS.get(context, ()):
            self._misplaced(piece, context)
        return header

    def _definition(self, header: Any, body: tuple[Any, ...], span: Span) -> t.Definition:
        kind, name, parameters = header.children
        params = tuple(self.builder.top(p) for p in parameters.children) if parameters else ()
        name = self.builder.name(name)
        return t.Definition(span=span, kind=str(kind), name=name, params=params, body=body)  # type: ignore[arg-type]

    def _train(self, header: Any, body: tuple[Any, ...], span: Span) -> t.Train:
        return t.Train(span=span, target=self.builder.name(header.children[1]), body=body)

    def _variant(self, header: Any, body: tuple[Any, ...], span: Span) -> t.Variant:
        node = self.builder.top(header)
        return t.Variant(span=span, name=node.name, base=node.base, args=node.args, body=body)

    def _level(self, header: Any, body: tuple[Any, ...], span: Span) -> t.LevelDecl:
        name, clock = header.children
        return t.LevelDecl(span=span, name=self.builder.name(name), clock=self.builder.top(clock), body=body)

    def _repeat(self, header: Any, body: tuple[Any, ...], span: Span) -> t.Repeat:
        return t.Repeat(span=span, count=self.builder.top(header.children[0]), body=body)

    def _for(self, header: Any, body: tuple[Any, ...], span: Span) -> t.For:
        names, items = header.children[0].children
        return t.For(span=span, names=self.builder.build(names), items=self.builder.top(items), body=body)

    def _if(self, header: Any, body: tuple[Any, ...], span: Span) -> t.If:
        return t.If(span=span, condition=self.builder.top(header.children[0]), body=body)

    def _every(self, header: Any, body: tuple[Any, ...], span: Span) -> t.Every:
        count, unit = header.children[0].children
        if unit is None:
            raise self.builder.fault(
                "NL0116", "`every` without a unit", header, "write `every 10 steps` or `every 16 tokens`"
            )
        name = "tokens" if unit.type == "TOKENS" else "steps"
        clock = t.Clock(span=self.builder.span(header), count=self.builder.top(count), unit=name)  # type: ignore[arg-type]
        return t.Every(span=span, clock=clock, body=body)

    def _else(self, header: Any, body: tuple[Any, ...], span: Span, before: list[Any]) -> None:
        """Put `else { }` or `else if e { }` into the `if` it follows."""
        chain: list[t.If] = [before[-1]] if before and isinstance(before[-1], t.If) else []
        while chain and len(chain[-1].orelse) == 1 and isinstance(chain[-1].orelse[0], t.If):
            chain.append(chain[-1].orelse[0])
        if self.faulty_before:
            raise FaultyStatementError
        if not chain or chain[-1].orelse:
            raise self.builder.fault(
                "NL0115", "`else` without an `if` before it", header, "write `if e { ... } else { ... }`"
            )
        if len(chain) > MAX_ELSE_CHAIN:
            message = f"more than {MAX_ELSE_CHAIN} `else if` behind one `if`"
            raise self.builder.fault("NL0805", message, header, "use a list and `for`, or several blocks")
        condition = header.children[1]
        orelse = body
        if condition is not None:
            orelse = (t.If(span=span, condition=self.builder.top(condition), body=body),)
        for node in reversed(chain):
            orelse = (t.If(span=node.span.to(span), condition=node.condition, body=node.body, orelse=orelse),)
        before[-1] = orelse[0]

    def _write(self, header: Any, piece: Piece, body: tuple[Any, ...], span: Span) -> t.Write:
        each, names = header.children[0].children
        return t.Write(
            span=span,
            targets=self.builder.build(names),
            terms=body,
            clauses=self.tail(piece),
            each=each is not None,
            braces=True,
        )

    def tail(self, piece: Piece) -> t.Clauses:
        """The clauses behind the closing brace of a write."""
        if piece.tail is None:
            return self.builder.clauses([], (piece.close, piece.close))
        node = self.concrete(*piece.tail, "tail", "write tail")
        self.builder.check_depth(node)
        return self.builder.clauses(node.children, piece.tail)


def _inner(header: Any, text: str, context: str) -> str:
    """The context of a body, from its header, or from its first word if the header is faulty."""
    word = header.data if header else text.split(maxsplit=1)[0] if text.strip() else ""
    if word in ("train", "variant"):
        return str(word)
    if word == "level":
        return "train level" if context == "train" else "level"
    if word in ("write_block", "write"):
        return "write"
    return "body" if context == "file" or header else context


def read_text(place: Place) -> tuple[Any, ...]:
    """The items of a whole text."""
    return Reader(place).read(split(place), "file")
