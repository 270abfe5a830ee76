"""Where statements begin and end: lines, brackets and braces, before any grammar is asked.

Faults of this kind (a bracket or brace too few or too many) are reported here, once each; a
statement that is hit by one is marked `broken` and nothing more is said about it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nldsl.syntax.limits import MAX_NESTING
from nldsl.syntax.pieces import (
    CONTINUES,
    HEADER,
    ITEM,
    PAIRS,
    STATEMENT,
    SURE_STATEMENT,
    TOP,
    WANTS_BRACE,
    Piece,
)
from nldsl.syntax.repair import Evidence, Repair, closing, header_text
from nldsl.syntax.scan import Place, Scanned


@dataclass(eq=False)
class _Frame:
    """An open brace: the piece it belongs to and the pieces found inside so far."""

    owner: Piece | None
    pieces: list[Piece] = field(default_factory=list)
    assumed: bool = False
    """No brace was written: the body ends where the indentation does."""


class Splitter:
    """Cuts a text into pieces; one pass over the words, no recursion."""

    def __init__(self, place: Place, tokens: list[Scanned], may_repair: bool) -> None:
        self.place = place
        self.text = place.text
        self.frames = [_Frame(None)]
        self.current: Piece | None = None
        self.tail_of: Piece | None = None
        self.brackets: list[Scanned] = []
        self.evidence = Evidence(self.text)
        self.may_repair = may_repair
        self.repair: Repair | None = None
        self.too_deep = False
        self.tokens = tokens

    def split(self) -> list[Piece]:
        """The pieces of the outermost level; empty if the text breaks a limit."""
        for index, token in enumerate(self.tokens):
            self._take(index, token)
            if self.too_deep or self.repair:
                return []
        self._end_of_text()
        return self.frames[0].pieces

    # --- one word ------------------------------------------------------------------------------

    def _take(self, index: int, token: Scanned) -> None:
        handler = getattr(self, f"_on_{token.kind}", None)
        if handler is None:
            self._extend(token)
        else:
            handler(index, token)

    def _extend(self, token: Scanned) -> Piece:
        if self.current is None:
            self.current = Piece(token.start, token.end)
        self.current.end = token.end
        self.current.tokens += 1
        return self.current

    def _on_name(self, index: int, token: Scanned) -> None:
        fresh = self.current is None and self.tail_of is None
        if fresh:
            self._leave_assumed(token)
            self.evidence.word(token, self.frames[-1].owner)
        if fresh and len(self.frames) > 1 and ITEM.match(self.text, token.start):
            self._brace_missing(token)
        if fresh and len(self.frames) == 1 and TOP.match(self.text, token.start):
            self.evidence.clear()
        self._extend(token)

    def _on_misplaced(self, index: int, token: Scanned) -> None:
        """A brace that is wrong and has been reported: the statement it stands in is not looked at."""
        if self.current is not None:
            self._extend(token).broken = True

    def _on_newline(self, index: int, token: Scanned) -> None:
        if self.current is None:
            return
        if self.brackets:
            if self._statement_follows(index):
                self._bracket_unclosed()
                self._finish()
            return
        if not self._continues_after(index) and not self._list_goes_on(index):
            self._finish(self._next(index))

    def _on_semicolon(self, index: int, token: Scanned) -> None:
        if self.brackets:
            self._bracket_unclosed()
        self._finish()

    def _on_unclosed(self, index: int, token: Scanned) -> None:
        self.place.report(
            "NL0103",
            "this string is never closed",
            (token.start, token.end),
            label='no `"` before the end of the line',
            help='close the string with `"` on the same line',
            edit='"',
            edit_at=(end := token.start + len(self.text[token.start : token.end].rstrip()), end),
        )
        piece = self._extend(token)
        piece.broken = True
        inside = self.text[token.start : token.end].rstrip()
        last = token.start + len(inside) - 1
        depth = inside.count("{") - inside.count("}")
        if inside[-1] in "([":
            self.brackets.append(Scanned("open", last, last + 1))
        elif depth > 0:
            self._on_brace(index, Scanned("brace", last, last + 1))
        elif depth < 0:
            self._on_unbrace(index, Scanned("unbrace", last, last + 1))

    def _on_open(self, index: int, token: Scanned) -> None:
        self._extend(token)
        self.brackets.append(token)
        self._check_depth(token)

    def _on_close(self, index: int, token: Scanned) -> None:
        sign = self.text[token.start]
        piece = self._extend(token)
        if not self.brackets:
            if not piece.broken:
                self.place.report(
                    "NL0104",
                    f"`{sign}` closes nothing",
                    (token.start, token.end),
                    label=f"no open `{'(' if sign == ')' else '['}` in this statement",
                    help=f"remove `{sign}`, or open the bracket before it",
                    edit="",
                )
            piece.broken = True
            return
        opened = self.brackets.pop()
        wanted = PAIRS[self.text[opened.start]]
        if sign != wanted and not piece.broken:
            self.place.report(
                "NL0104",
                f"found `{sign}`, expected `{wanted}`",
                (token.start, token.end),
                secondary=((opened.start, opened.end, "opened here"),),
                help=f"close `{self.text[opened.start]}` with `{wanted}`",
                edit=wanted,
            )
            piece.broken = True

    # --- braces --------------------------------------------------------------------------------

    def _on_brace(self, index: int, token: Scanned) -> None:
        if self.brackets:
            self._bracket_unclosed()
        owner = self.current if self.tail_of is None else None
        if owner is None:
            self._finish()
            owner = self._header_above(token)
            self.frames[-1].pieces.append(owner)
        else:
            self.frames[-1].pieces.append(owner)
            self.current = None
        owner.body, owner.open = [], token.start
        self.evidence.owners.append(owner)
        self.frames.append(_Frame(owner, owner.body))
        self._check_depth(token)

    def _assume_brace(self, piece: Piece, following: Scanned | None) -> None:
        """A header without `{` over lines that are indented: say so once and read on as if it stood there."""
        header = WANTS_BRACE.fullmatch(self.text, piece.start, piece.end)
        if header is None or piece.broken or following is None or following.kind == "brace":
            return
        indented = self.evidence.indent(following.start) > self.evidence.indent(piece.start)
        if not indented or following.kind == "unbrace":
            return
        where = (piece.end - 1, piece.end)
        if self.text[piece.end - 1] == ":":
            self.place.report(
                "NL0109",
                "`:` does not begin a body here",
                where,
                help="write `{` in its place, and `}` behind the last statement",
                edit=" {",
            )
            piece.end -= 1
        else:
            self.place.report(
                "NL0106",
                "`{` is missing behind this header",
                where,
                help="add `{` at the end of the line, and `}` behind the last statement",
            )
        piece.body, piece.open = [], piece.end
        self.frames.append(_Frame(piece, piece.body, assumed=True))

    def _leave_assumed(self, token: Scanned) -> None:
        """Leave bodies that only their indentation holds together."""
        while (owner := self.frames[-1].owner) and self.frames[-1].assumed:
            indent, header = self.evidence.indent(token.start), self.evidence.indent(owner.start)
            if indent > header or (indent == header and token.kind == "unbrace"):
                return
            self._pop(token.start)

    def _header_above(self, token: Scanned) -> Piece:
        """A brace that begins a line belongs to the header above it, if there is one."""
        above = self.frames[-1].pieces
        where = (token.start, token.end)
        if above and above[-1].body is None and HEADER.match(self.text, above[-1].start):
            self.place.report(
                "NL0106",
                "`{` stands on the line of its header",
                where,
                help="move `{` to the end of the line above",
                edit=" {",
                edit_at=(above[-1].end, token.end),
            )
            return above.pop()
        self.place.report(
            "NL0106",
            "`{` without a header before it",
            where,
            help="remove the braces, or name what they belong to, such as `repeat 2 {`",
        )
        return Piece(token.start, token.start, broken=True)

    def _on_unbrace(self, index: int, token: Scanned) -> None:
        if self.brackets:
            self._bracket_unclosed()
        self._finish()
        self._leave_assumed(token)
        if len(self.frames) == 1:
            self._stray_brace(token)
            return
        self.evidence.word(token, self.frames[-1].owner)
        assumed = self.frames[-1].assumed
        owner = self._pop(token.end)
        if not assumed:
            self.evidence.closed(token, owner)
        if self._continues_after(index):
            self.tail_of = owner

    def _pop(self, close: int) -> Piece:
        owner = self.frames.pop().owner
        assert owner is not None  # the outermost frame is never popped
        owner.close = close
        return owner

    def _stray_brace(self, token: Scanned) -> None:
        """One report for a `}` too many, and the lines it cut off from their block with it."""
        if self.may_repair and (repair := self.evidence.extra()):
            self.repair = repair
            return
        pieces = self.frames[0].pieces
        lost = len(pieces)
        while lost and not TOP.match(self.text, pieces[lost - 1].start):
            lost -= 1
        for piece in pieces[lost:]:
            piece.lost = True
        above = pieces[lost - 1] if lost else None
        if above and above.body is None and not above.broken and ITEM.match(self.text, above.start):
            above.lost = True
            where = (above.end - 1, above.end)
            help = "add `{` behind the header"
            self.place.report("NL0106", "this definition has a `}` but no `{`", where, help=help)
            return
        self.place.report(
            "NL0105",
            "`}` closes nothing",
            (token.start, token.end),
            label="every `{` above is closed already",
            help="remove this `}`, or the one too many above it",
        )

    def _brace_missing(self, token: Scanned) -> None:
        """An item begins inside a body: the braces open there were forgotten; close them all."""
        self._report_unclosed((token.start, token.end))
        self._close_all(token.start)

    def _report_unclosed(self, found: tuple[int, int] | None) -> None:
        owners = [f.owner for f in self.frames if f.owner and not f.assumed]
        if not owners:
            return
        if self.may_repair and (repair := self.evidence.missing()):
            self.repair = repair
            return
        self.place.report(
            "NL0105",
            "this `{` is never closed",
            (owners[-1].open, owners[-1].open + 1),
            label=f"opened by `{header_text(self.text, owners[-1])}`",
            secondary=((*found, "the next definition begins here"),) if found else (),
            help="add `}` behind its last statement",
            **closing(self.text, self.tokens, owners[-1], found),
        )

    # --- ends ----------------------------------------------------------------------------------

    def _finish(self, following: Scanned | None = None) -> None:
        """The statement being read ends here; `following` begins the next line, if one was seen."""
        self.brackets.clear()
        piece, owner = self.current, self.tail_of
        self.current = self.tail_of = None
        if piece is None:
            return
        if owner is None:
            self.frames[-1].pieces.append(piece)
            self._assume_brace(piece, following)
            return
        owner.tail = (piece.start, piece.end)
        owner.broken = owner.broken or piece.broken

    def _end_of_text(self) -> None:
        if self.brackets:
            self._bracket_unclosed()
        self._finish()
        self._report_unclosed(None)
        self._close_all(len(self.text))

    def _close_all(self, offset: int) -> None:
        while len(self.frames) > 1:
            self._pop(offset)

    def _bracket_unclosed(self) -> None:
        opened = self.brackets[-1]
        sign = self.text[opened.start]
        if self.current is not None and not self.current.broken:
            self.place.report(
                "NL0104",
                f"this `{sign}` is never closed",
                (opened.start, opened.end),
                help=f"add `{PAIRS[sign]}` where the {'list' if sign == '[' else 'arguments'} should end",
                edit=PAIRS[sign],
                edit_at=(self.current.end, self.current.end),
            )
            self.current.broken = True
        self.brackets.clear()

    # --- looking ahead -------------------------------------------------------------------------

    def _next(self, index: int) -> Scanned | None:
        """The next word that is not a line end."""
        if index + 1 < len(self.tokens) and self.tokens[index + 1].kind == "newline":
            index += 1
        return self.tokens[index + 1] if index + 1 < len(self.tokens) else None

    def _continues_after(self, index: int) -> bool:
        token = self._next(index)
        return token is not None and token.kind == "name" and bool(CONTINUES.match(self.text, token.start))

    def _list_goes_on(self, index: int) -> bool:
        """A line ends with `,` outside of brackets, and no statement follows: one was forgotten above."""
        token = self._next(index)
        before = self.tokens[index - 1]
        if token is None or self.text[before.start : before.end] != "," or token.kind == "unbrace":
            return False
        return not STATEMENT.match(self.text, token.start) and not ITEM.match(self.text, token.start)

    def _statement_follows(self, index: int) -> bool:
        """Inside brackets: does the next line begin a statement of its own, so that one was forgotten?"""
        token = self._next(index)
        if token is None or token.kind == "unbrace":
            return True
        if token.kind != "name":
            return False
        if ITEM.match(self.text, token.start) or SURE_STATEMENT.match(self.text, token.start):
            return True
        before = self.text[self.tokens[index - 1].start : self.tokens[index - 1].end] if index else ""
        ended = before[-1:].isalnum() or before[-1:] in ')]"_'
        return ended and bool(STATEMENT.match(self.text, token.start))

    def _check_depth(self, token: Scanned) -> None:
        if len(self.frames) - 1 + len(self.brackets) > MAX_NESTING:
            self.too_deep = True
            self.place.report(
                "NL0805",
                f"brackets and braces are nested more than {MAX_NESTING} deep",
                (token.start, token.end),
                help="give the inner parts names of their own, or a block of their own",
            )
