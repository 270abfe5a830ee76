"""What could have stood at a place, in the user's words instead of the grammar's."""

from __future__ import annotations

_GROUPS: tuple[tuple[frozenset[str], frozenset[str], str], ...] = (
    (
        frozenset({"NAME", "NUMBER", "STRING"}),
        frozenset({"_LPAR", "_LSQB", "MINUS", "NOT", "EACH"}),
        "a value",
    ),
    (
        frozenset({"PLUS", "TIMES"}),
        frozenset({"MINUS", "POWER", "COMPARE", "AND", "OR"}),
        "an operator such as `+`",
    ),
    (
        frozenset({"_BY", "_RETAIN"}),
        frozenset({"_MINIMIZE", "_OVER", "_WEIGHTED", "_TOWARD", "_GRADIENT", "AT", "_PROJECT"}),
        "a clause such as `by gd(lr = 0.1)`",
    ),
    (frozenset({"TOKENS", "STEPS"}), frozenset(), "`tokens` or `steps`"),
)
_WORDS = {
    "NAME": "a name",
    "STRING": "a string",
    "NUMBER": "a number",
    "$END": "the end of the statement",
    "_ARROW": "`<-`",
    "UPDATE": "`+=`",
    "_EQUAL": "`=`",
    "_COMMA": "`,`",
    "_LPAR": "`(`",
    "_RPAR": "`)`",
    "_LSQB": "`[`",
    "_RSQB": "`]`",
    "KIND": "`block`",
    "COMPARE": "a comparison such as `<`",
    "POWER": "`**`",
    "TIMES": "`*`",
    "PLUS": "`+`",
    "MINUS": "`-`",
}


def expectation(accepted: frozenset[str]) -> str:
    """What could have stood where the grammar stopped.

    An operator can follow every value; it is named only if nothing more telling can.
    """
    left, phrases = set(accepted) - {"OR", "AND"}, []
    for needed, more, phrase in _GROUPS:
        if needed <= left:
            left -= needed | more
            phrases.append(phrase)
    operator = _GROUPS[1][2]
    named = sorted({_WORDS.get(name, f"`{name.strip('_').lower()}`") for name in left})
    phrases = sorted(phrases, key=lambda p: p == operator) if phrases else []
    options = [p for p in phrases if p != operator] + named
    if not options:
        options = phrases or ["something else"]
    options = options[:4]
    return options[0] if len(options) == 1 else ", ".join(options[:-1]) + " or " + options[-1]
