"""What to say about a faulty statement, in the user's words: one finding each."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from nldsl.diagnostics import did_you_mean
from nldsl.syntax.expected import expectation
from nldsl.syntax.grammar import accepted
from nldsl.syntax.scan import Place, Scanned, scan


class Finding(NamedTuple):
    """A finding about a statement; the span counts in the whole text."""

    code: str
    message: str
    span: tuple[int, int]
    help: str = ""
    edit: str | None = None


_SIGNS = {
    "←": ("<-", "a memory is written with `<-`"),
    "−": ("-", "this is not a minus sign but a look-alike"),
    "–": ("-", "this is not a minus sign but a dash"),
    "—": ("-", "this is not a minus sign but a dash"),
    "×": ("*", "multiplication is `*`"),
    "·": ("*", "multiplication is `*`"),
    "÷": ("/", "division is `/`"),
    "≤": ("<=", "comparison is `<=`"),
    "≥": (">=", "comparison is `>=`"),
    "≠": ("!=", "comparison is `!=`"),
    "“": ('"', "strings stand in straight double quotes"),
    "”": ('"', "strings stand in straight double quotes"),
    "'": ('"', 'strings stand in double quotes, such as `"raw"`'),
    "^": ("**", "the power of a number is `x ** 2`"),
    "&": ("and", "logic is written `and`"),
    "|": ("or", "logic is written `or`"),
    "!": ("not", "logic is written `not`"),
    "%": (None, "there is no remainder; `//` is integer division"),
    ".": (None, "values have no attributes; write a function call such as `split(z, heads)`"),
    "\\": (None, "a statement goes on over a line end inside `()` and `[]`, or before a clause"),
    "?": (None, "a choice between values is `where(condition, a, b)`"),
    "$": (None, "names consist of letters, digits and `_`"),
    "`": (None, "names stand without quotes"),
}

_FOREIGN = {
    "elif": "write `else if ... {`",
    "elseif": "write `else if ... {`",
    "def": "define a function with `block NAME(x) { ... }`",
    "function": "define a function with `block NAME(x) { ... }`",
    "fn": "define a function with `block NAME(x) { ... }`",
    "class": "define a layer with `block NAME(x) { ... }`",
    "layer": "define a layer with `block NAME(x) { ... }`",
    "while": "loops are static: `repeat n { ... }` or `for c in list { ... }`",
    "import": 'other files are read with `use "file.nl"`',
    "from": 'other files are read with `use "file.nl"`',
    "include": 'other files are read with `use "file.nl"`',
    "let": "write `name = value`",
    "var": "write `name = value`",
    "const": "write `name = value`",
    "lambda": "define a function with `block NAME(x) { ... }`",
    "optimizer": "groups of parameters are assigned as in `matrices by muon(lr = 0.02)`",
}

_FIRST_WORDS = {
    "file": ("block", "model", "map", "objective", "rule", "train", "variant", "use", "nldsl"),
    "body": ("memory", "return", "level", "write", "repeat", "for", "if", "else", "every"),
    "level": ("memory",),
    "train": ("level", "task", "truncate", "clip"),
    "train level": ("matrices", "embeddings", "head", "norms", "rest"),
    "variant": ("level",),
}
_CLAUSES = (
    "minimize",
    "over",
    "weighted",
    "by",
    "retain",
    "toward",
    "gradient every",
    "at commit",
    "project",
)
_BRITISH = re.compile(r"\b(minimise|minimises|orthogonalise|normalise|colour)\b")
_AMERICAN = {
    "minimise": "minimize",
    "minimises": "minimizes",
    "orthogonalise": "orthogonalize",
    "normalise": "normalize",
    "colour": "color",
}


def explain(place: Place, span: tuple[int, int], entry: str, context: str, error: UnexpectedInput) -> None:
    """Report the one finding that fits best to the faulty statement at `span`."""
    slip = _Slip(place.text, span, entry, context, error)
    finding = next(found for check in _CHECKS if (found := check(slip)))
    place.report(finding.code, finding.message, finding.span, help=finding.help, edit=finding.edit)


class _Slip:
    """A faulty statement and where the grammar stopped."""

    def __init__(
        self, text: str, span: tuple[int, int], entry: str, context: str, error: UnexpectedInput
    ) -> None:
        self.start, self.end = span
        self.text = text[self.start : self.end]
        self.entry, self.context = entry, context
        self.tokens = [
            Scanned(t.kind, t.start + self.start, t.end + self.start)
            for t in scan(self.text)
            if t.kind not in ("comment", "newline")
        ]
        self.at = self._stop(error)
        self.expected = accepted(text, self.start, self.end, entry)

    def _stop(self, error: UnexpectedInput) -> int:
        if isinstance(error, UnexpectedToken) and error.token.type != "$END":
            return int(error.token.start_pos or self.start)
        if isinstance(error, UnexpectedCharacters):
            return int(error.pos_in_stream or self.start)
        return self.end

    def word(self, token: Scanned) -> str:
        return self.text[token.start - self.start : token.end - self.start]

    @property
    def found(self) -> Scanned | None:
        """The word or sign the grammar stopped at; `None` at the end of the statement."""
        return next((t for t in self.tokens if t.end > self.at), None)

    @property
    def previous(self) -> str:
        before = [t for t in self.tokens if t.end <= self.at]
        return self.word(before[-1]) if before else ""


def _unknown_character(slip: _Slip) -> Finding | None:
    token = next((t for t in slip.tokens if t.kind == "unknown"), None)
    if token is None:
        return None
    sign, span = slip.word(token), (token.start, token.end)
    if sign == ":":
        return _colon(slip, span)
    if sign in _SIGNS:
        edit, help = _SIGNS[sign]
        if sign == "." and _METHOD.search(slip.text):
            help = "a memory is written with `M[key] <- value` and read with `M[query]`"
        return Finding("NL0102", f"unknown character `{sign}`", span, help, edit)
    if sign.isalpha():
        help = "names consist of the letters a to z, digits and `_`; write `eta` for a Greek letter"
        return Finding("NL0102", f"unknown letter `{sign}` in a name", span, help)
    shown = f"`{sign}`" if sign.isprintable() else f"U+{ord(sign):04X}"
    return Finding("NL0102", f"unknown character {shown}", span, "remove it")


_METHOD = re.compile(r"\.\s*(write|read|update|store|get|set|add)\s*\(")


def _colon(slip: _Slip, span: tuple[int, int]) -> Finding:
    if span[1] == slip.end:
        return Finding(
            "NL0109", "`:` does not begin a body here", span, "bodies stand in braces: `{ ... }`", " {"
        )
    return Finding(
        "NL0109", "`:` has no meaning here", span, "values are given with `=`, and nothing declares a type"
    )


def _foreign_word(slip: _Slip) -> Finding | None:
    first = slip.tokens[0]
    word = slip.word(first)
    if word in _FOREIGN:
        declares = word in ("let", "var", "const") and len(slip.tokens) > 1
        span = (first.start, slip.tokens[1].start if declares else first.end)
        message = f"`{word}` is not a word of the language"
        return Finding("NL0110", message, span, _FOREIGN[word], "" if declares else None)
    return None


def _british(slip: _Slip) -> Finding | None:
    match = _BRITISH.search(slip.text)
    if match is None:
        return None
    word = _AMERICAN[match.group(1)]
    span = (slip.start + match.start(), slip.start + match.end())
    return Finding("NL0111", f"`{match.group(1)}` is spelt `{word}` here", span, f"write `{word}`", word)


def _equal_for_arrow(slip: _Slip) -> Finding | None:
    match = re.match(r"(\w*)\s*\[[^\n=]*\]\s*(=)(?!=)", slip.text)
    if match is None or slip.context not in ("body", "write", "level"):
        return None
    span = (slip.start + match.start(2), slip.start + match.end(2))
    target = match.group(1) or "M"
    return Finding(
        "NL0108",
        f"found `=`, expected `<-`: `{target}[...]` is written, not assigned",
        span,
        f"write `{target}[key] <- value`",
        "<-",
    )


def _arrow_for_equal(slip: _Slip) -> Finding | None:
    match = re.match(r"(\w+)\s*(<-)", slip.text)
    if match is None:
        return None
    span = (slip.start + match.start(2), slip.start + match.end(2))
    name = match.group(1)
    return Finding(
        "NL0108",
        f"`<-` writes to a memory at a key, and `{name}` has none",
        span,
        f"write `{name}[key] <- value`, or `{name} = value` to set it",
    )


_BARE_CLOCK = re.compile(r"\bevery\s+(tokens?|steps?)\b")
_BARE_PATHS = re.compile(r"use\s+([^\s\"].*?)\s*$")
_BARE_ARGUMENT = re.compile(r"\bby\s+(\w+)\s+(\w+)\s*=[^=]")


def _bare(slip: _Slip) -> Finding | None:
    """What lacks the signs around it: a clock its number, a path its quotes, arguments their brackets."""
    if match := _BARE_CLOCK.search(slip.text):
        unit = match.group(1)
        span = (slip.start + match.start(1), slip.start + match.end(1))
        one = unit.removesuffix("s")
        message, help = f"found `{unit}`, expected a number", f"write `every 1 {one}`"
        return Finding("NL0101", message, span, help, f"1 {one}")
    if match := _BARE_PATHS.match(slip.text):
        return _bare_path(match.group(1), (slip.start + match.start(1), slip.start + match.end(1)))
    if match := _BARE_ARGUMENT.search(slip.text):
        span = (slip.start + match.start(2), slip.start + match.end(2))
        help = f"write `{match.group(1)}({match.group(2)} = ...)`"
        return Finding("NL0101", "the arguments of a rule stand in brackets", span, help)
    return None


def _bare_path(found: str, span: tuple[int, int]) -> Finding:
    """`use` without quotes: a file, or names of the library, which need no `use`."""
    paths = [path for path in re.split(r"[,\s]+", found) if path]
    if len(paths) == 1 and not paths[0].isidentifier():
        message, quoted = "the path of `use` stands in double quotes", f'"{paths[0]}"'
        return Finding("NL0101", message, span, f"write `use {quoted}`", quoted)
    lines = "; ".join(f'`use "{path.removesuffix(".nl")}.nl"`' for path in paths)
    help = f"files go one to a line: {lines}; what `nldsl list` shows is known without `use`"
    return Finding("NL0101", "`use` takes the path of one file in double quotes", span, help)


def _missing_brace(slip: _Slip) -> Finding | None:
    words = (*_FIRST_WORDS["file"][:6], "level", "write", "repeat", "for", "if", "else", "every")
    first = slip.word(slip.tokens[0])
    follows = slip.word(slip.tokens[1]) if len(slip.tokens) > 1 else ""
    if slip.entry == "header" or first not in words or follows in ("=", "[", ",", "<-") or not follows:
        return None
    if first == "level" and slip.context in ("variant",):
        return None
    return Finding(
        "NL0106",
        f"`{first}` without a body",
        (slip.end - 1, slip.end),
        "add `{` at the end of this line, and `}` behind the last statement",
    )


def _two_on_a_line(slip: _Slip) -> Finding | None:
    """A header that begins behind another statement of its line."""
    words = (*_FIRST_WORDS["file"][:7], "level", "repeat")
    later = next((t for t in slip.tokens[1:] if slip.word(t) in words), None)
    if slip.entry != "header" or later is None or slip.word(slip.tokens[0]) in words:
        return None
    word = slip.word(later)
    help = f"put a line end or `;` in front of `{word}`"
    return Finding(
        "NL0101", f"`{word}` begins a statement of its own", (later.start, later.end), help, f"; {word}"
    )


def _misspelt_first_word(slip: _Slip) -> Finding | None:
    first = slip.tokens[0]
    word = slip.word(first)
    follows = slip.tokens[1].kind if len(slip.tokens) > 1 else ""
    if first.kind != "name" or follows not in ("name", "number", "string"):
        return None
    if slip.at > slip.tokens[1].start or slip.context == "write":
        return None
    words = _FIRST_WORDS.get(slip.context, _FIRST_WORDS["body"])
    help = did_you_mean(word, words)
    if help and word not in words:
        return Finding("NL0111", f"`{word}` does not begin a statement", (first.start, first.end), help)
    return None


def _misspelt_clause(slip: _Slip) -> Finding | None:
    found = slip.found
    if found is None or found.end - found.start < 2 or found.kind != "name":
        return None
    word = slip.word(found)
    whole = next((clause for clause in _CLAUSES if word in clause.split()[1:]), "")
    help = f"did you mean `{whole}`?" if whole else did_you_mean(word, [c.split()[0] for c in _CLAUSES])
    if help and {"_BY", "_RETAIN"} & slip.expected:
        return Finding("NL0111", f"`{word}` is not a clause", (found.start, found.end), help)
    return None


def _outside(slip: _Slip) -> Finding | None:
    if slip.context != "file" or slip.entry == "header":
        return None
    return Finding(
        "NL0112",
        "this statement stands outside of every definition",
        (slip.start, slip.end),
        "a file holds `use`, `block`, `model`, `map`, `objective`, `rule`, `train` and `variant`",
    )


def _ends_early(slip: _Slip) -> Finding | None:
    if slip.found is not None:
        return None
    last = slip.tokens[-1]
    return Finding(
        "NL0116",
        f"the statement ends behind `{slip.word(last)}`, expected {expectation(slip.expected)}",
        (last.start, last.end),
        _help(slip),
    )


def _unexpected(slip: _Slip) -> Finding | None:
    found = slip.found or slip.tokens[-1]
    return Finding(
        "NL0101",
        f"found `{slip.word(found)}`, expected {expectation(slip.expected)}",
        (found.start, found.end),
        _help(slip),
    )


_CHECKS: tuple[Callable[[_Slip], Finding | None], ...] = (
    _bare,
    _unknown_character,
    _foreign_word,
    _british,
    _equal_for_arrow,
    _arrow_for_equal,
    _missing_brace,
    _two_on_a_line,
    _misspelt_first_word,
    _misspelt_clause,
    _outside,
    _ends_early,
    _unexpected,
)


_FORMS = {
    "line": "a line is `name = value`, `M[key] <- value`, `F minimizes task`, `memory M = map` or `return e`",
    "train_line": "a line is a setting such as `truncate 256 tokens`, or `matrices by muon(lr = 0.02)`",
    "header": "a header is, for example, `block f(x) {`, `level fast every 16 tokens {` or `repeat 2 {`",
    "expr": "a value is, for example, `0.5`, `x`, `linear(x)`, `M[q]` or `[16, 64]`",
    "clock_value": "a clock is `16 tokens`, `10 steps` or `never`",
    "parameter": "a parameter is `x` or `heads = 4`",
    "memory_value": "a memory is, for example, `matrix() per head init zero` or `mlp(4) init learned`",
    "quantity": "a setting is, for example, `next_token`, `1.0` or `256 tokens`",
    "names": "names are separated by `,`",
    "for_value": "a loop is `c in list` or `c, i in list`",
    "rule_value": "a group is, for example, `muon(lr = 0.02)` or `adamw(lr = 3e-4) every 10 steps`",
    "write_target": "a write names its memory, `S`, or several: `each of Mk, Mv`",
}


def _help(slip: _Slip) -> str:
    found = slip.word(slip.found) if slip.found else ""
    if found == "=" and slip.context in ("body", "file"):
        return "a comparison is `==`; an assignment stands on a line of its own"
    if found in ("if", "for"):
        return (
            f"`{found}` stands at the beginning of a statement; a choice between values is `where(c, a, b)`"
        )
    if slip.entry == "term":
        return "a term reads `[key] <- value`, followed by clauses"
    if slip.found is None and slip.previous and {"TOKENS", "STEPS"} <= slip.expected:
        return f"write `every {slip.previous} token{'s' * (slip.previous != '1')}`"
    if slip.found is None and slip.previous and "TOKENS" in slip.expected:
        return f"write `{slip.previous} tokens`"
    if slip.entry == "tail":
        return "clauses are " + ", ".join(f"`{c}`" for c in _CLAUSES)
    if slip.found and slip.found.kind in ("name", "number") and "PLUS" in slip.expected:
        return f"put an operator or a line end between `{slip.previous}` and `{found}`"
    return _FORMS.get(slip.entry, "the form of every statement is in the language reference")
