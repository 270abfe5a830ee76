"""The LALR tables of the language, built once per process."""

from __future__ import annotations

from functools import cache

from lark import Lark, TextSlice, Token, Tree
from lark.exceptions import UnexpectedInput

from nldsl.assets import grammar_text
from nldsl.syntax.tables import kept

STARTS = (
    "item_line",
    "header",
    "line",
    "term",
    "tail",
    "train_line",
    "expr",
    "parameter",
    "memory_value",
    "clock",
    "clock_value",
    "quantity",
    "names",
    "for_value",
    "rule_value",
    "selectors",
    "write_target",
)
"""The entries of the grammar, one per place a statement or a YAML scalar can stand at."""


@cache
def parser() -> Lark:
    """The parser; building it takes some 70 ms, so it is kept in memory and its tables on disk."""
    text = grammar_text()
    return kept(text, STARTS, lambda: build_parser(text))


def build_parser(text: str) -> Lark:
    """The parser of a grammar, built now."""
    return Lark(
        text,
        parser="lalr",
        lexer="contextual",
        propagate_positions=True,
        maybe_placeholders=True,
        start=list(STARTS),
    )


def parse_slice(text: str, start: int, end: int, entry: str) -> Tree[Token]:
    """The concrete tree of `text[start:end]` read as `entry`; positions count in the whole text.

    Raises:
        lark.exceptions.UnexpectedInput: the slice is not an `entry`.
    """
    return parser().parse(TextSlice(text, start, end), start=entry)


def accepted(text: str, start: int, end: int, entry: str) -> frozenset[str]:
    """The terminals that could stand where the grammar stops in a faulty `text[start:end]`."""
    interactive = parser().parse_interactive(TextSlice(text, start, end), start=entry)
    try:
        for _ in interactive.iter_parse():
            pass
        interactive.feed_eof()  # type: ignore[no-untyped-call]
    except UnexpectedInput:
        pass
    return frozenset(interactive.accepts())  # type: ignore[no-untyped-call]
