"""A text becomes pieces; wrong braces are repaired on the way, so that each is reported once."""

from __future__ import annotations

from nldsl.diagnostics import DiagnosticBag
from nldsl.syntax.limits import MAX_REPAIRS, MAX_TOKENS
from nldsl.syntax.pieces import Piece
from nldsl.syntax.repair import Repair
from nldsl.syntax.scan import Place, Scanned, scan
from nldsl.syntax.structure import Splitter


def split(place: Place) -> list[Piece]:
    """The pieces of the outermost level of a text; wrong braces are repaired and reported once each."""
    tokens = _significant(place.text)
    if _too_many(tokens, place):
        return []
    repairs: list[Repair] = []
    while True:
        found = DiagnosticBag()
        attempt = Splitter(Place(place.text, place.locate, found), tokens, len(repairs) < MAX_REPAIRS)
        pieces = attempt.split()
        if attempt.repair is None:
            break
        repairs.append(attempt.repair)
        tokens = attempt.repair.apply(tokens)
    for repair in repairs:
        edit, where = repair.edit(place.text)
        place.report(
            repair.code,
            repair.message,
            repair.span,
            label=repair.label,
            help=repair.help,
            edit=edit,
            edit_at=where,
        )
    for diagnostic in found.items:
        if not place.full:
            place.bag.add(diagnostic)
    return pieces


def _too_many(tokens: list[Scanned], place: Place) -> bool:
    words = [token for token in tokens if token.kind != "newline"]
    if len(words) > MAX_TOKENS:
        where = (words[MAX_TOKENS].start, words[MAX_TOKENS].end)
        message = f"the text has more than {MAX_TOKENS} words and signs"
        place.report("NL0806", message, where, help="split it into several files and join them with `use`")
    return len(words) > MAX_TOKENS


def _significant(text: str) -> list[Scanned]:
    """Words and signs without comments, never two line ends in a row."""
    found: list[Scanned] = []
    for token in scan(text):
        double = token.kind == "newline" and found and found[-1].kind == "newline"
        if token.kind != "comment" and not double:
            found.append(token)
            if len(found) > 2 * MAX_TOKENS + 2:
                break  # enough to know that there are too many
    return found
