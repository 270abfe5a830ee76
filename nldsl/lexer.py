"""Highlighting for Pygments: the text form, under the name `nldsl`."""

from __future__ import annotations

from typing import ClassVar

from pygments.lexer import RegexLexer, bygroups, words
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Text

DEFINITIONS = ("block", "model", "map", "objective", "rule", "train", "variant")
"""Words that begin an item with a name behind them."""
STATEMENTS = (
    "return",
    "repeat",
    "for",
    "in",
    "if",
    "else",
    "write",
    "each",
    "of",
    "memory",
    "level",
    "every",
)
CLAUSES = (
    "minimize",
    "minimizes",
    "over",
    "weighted",
    "by",
    "retain",
    "toward",
    "gradient",
    "at",
    "commit",
    "project",
)
MODIFIERS = ("per", "head", "init", "reset", "never", "tokens", "token", "steps", "step", "sequence")
CONSTANTS = ("true", "false", "zero", "learned", "fixed", "identity", "self", "task")
WORDS = ("and", "or", "not")


class NldslLexer(RegexLexer):
    """Pygments' view of a specification.

    Example:
        >>> [str(t) for t, v in NldslLexer().get_tokens("S[k] <- v by gd(lr = 1)") if v in ("<-", "by", "gd")]
        ['Token.Operator', 'Token.Keyword', 'Token.Name.Function']
    """

    name = "nldsl"
    aliases: ClassVar[list[str]] = ["nldsl", "nl"]
    filenames: ClassVar[list[str]] = ["*.nl"]
    mimetypes: ClassVar[list[str]] = ["text/x-nldsl"]
    url = "https://pypi.org/project/nldsl"

    tokens: ClassVar[dict[str, list[object]]] = {
        "root": [
            (r"#[^\n]*", Comment.Single),
            (r'"(\\.|[^"\\\n])*"', String.Double),
            (
                r"^(\s*)(variant)(\s+)([A-Za-z_]\w*)(\s+)(of)(\s+)([A-Za-z_]\w*)",
                bygroups(Text, Keyword.Declaration, Text, Name.Class, Text, Keyword, Text, Name.Class),
            ),
            (
                rf"^(\s*)({'|'.join(DEFINITIONS)})(\s+)([A-Za-z_]\w*)",
                bygroups(Text, Keyword.Declaration, Text, Name.Class),
            ),
            (r'^(\s*)(use)(\s*)(?=")', bygroups(Text, Keyword.Namespace, Text)),
            (r"^(\s*)(nldsl)(\s+)(?=\d)", bygroups(Text, Keyword.Namespace, Text)),
            (r"(level)(\s+)([A-Za-z_]\w*)", bygroups(Keyword, Text, Name.Namespace)),
            # `head` is a function, except where it says of what there is one.
            (r"(per)(\s+)(head)\b", bygroups(Keyword.Type, Text, Keyword.Type)),
            (rf"(?!(?:{'|'.join((*STATEMENTS, *CLAUSES, *WORDS))})\b)[A-Za-z_]\w*(?=\s*\()", Name.Function),
            (words((*STATEMENTS, *CLAUSES), prefix=r"\b", suffix=r"\b"), Keyword),
            (words(MODIFIERS, prefix=r"\b", suffix=r"\b"), Keyword.Type),
            (words(CONSTANTS, prefix=r"\b", suffix=r"\b"), Keyword.Constant),
            (words(WORDS, prefix=r"\b", suffix=r"\b"), Operator.Word),
            (r"[A-Za-z_]\w*", Name),
            (r"(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", Number),
            (r"<-|<=|>=|==|!=|\*\*|//|[-+*/]=|[-+*/@<>=]", Operator),
            (r"[()\[\]{},;]", Punctuation),
            (r"\s+", Text),
        ]
    }
