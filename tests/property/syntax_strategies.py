# ruff: noqa: E501
"""Random trees that a text can have, and random damage to texts."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from hypothesis import strategies as st

from nldsl.source import SourceFile, Span
from nldsl.syntax import tree as t

NOWHERE = Span(SourceFile("nowhere", ""), 0, 0)
_OPERATORS = ("+", "-", "*", "/", "//", "**", "@", "<", "<=", ">", ">=", "==", "!=", "and", "or")
_WORDS = (
    "x",
    "k",
    "v",
    "alpha",
    "by",
    "over",
    "M1",
    "retain",
    "tokens",
    "level_1",
    "_y",
    "head",
    "init2",
    "self",
)


def node(which: type, /, **fields: Any) -> Any:
    return st.builds(which, span=st.just(NOWHERE), **fields)


names = node(t.Name, id=st.sampled_from(_WORDS))
level_names = node(t.Name, id=st.sampled_from(("fast", "slow", "f", "context", "every1")))
plain = node(t.Name, id=st.sampled_from(("x", "k", "v", "M1", "_y", "self")))
strings = node(t.String, value=st.text(alphabet='ab *[]."\\\n\tü\N{GRINNING FACE}#{};:,', max_size=6))
numbers = node(
    t.Number,
    value=st.one_of(st.integers(0, 10**12), st.floats(0, 1e300, allow_nan=False, allow_infinity=False)),
)


def _compound(inner: Any) -> Any:
    args = st.lists(node(t.Arg, name=st.none() | st.sampled_from(_WORDS), value=inner), max_size=3).map(tuple)
    return st.one_of(
        node(t.ListExpr, items=st.lists(inner, max_size=3).map(tuple)),
        node(t.Unary, op=st.sampled_from(("-", "not")), operand=inner),
        node(t.Binary, op=st.sampled_from(_OPERATORS), left=inner, right=inner),
        node(t.Call, function=names, args=args),
        node(t.Index, target=names, key=inner),
    )


expressions = st.recursive(st.one_of(numbers, strings, names), _compound, max_leaves=6)
some = st.none() | expressions
counts = node(t.Number, value=st.integers(1, 64)) | names
clocks = st.one_of(
    node(t.Clock, count=counts, unit=st.sampled_from(("tokens", "steps"))),
    node(t.Clock, count=st.none(), unit=st.just("never")),
)
clauses = node(
    t.Clauses,
    minimize=some,
    over=some,
    weighted=some,
    by=some,
    retain=some,
    toward=some,
    gradient_every=some,
    at_commit=st.booleans(),
    project=some,
)
no_clauses = node(t.Clauses)
task_clauses = node(t.Clauses, by=some, retain=some, at_commit=st.booleans())
terms = node(t.Term, key=expressions, value=expressions, clauses=clauses)
sources = expressions.filter(
    lambda e: (
        not (isinstance(e, t.Name) and e.id in ("zero", "learned", "fixed"))
        and not (isinstance(e, t.Call) and e.function.id == "learned")
    )
)
inits = st.one_of(
    node(t.Init, kind=st.sampled_from(("zero", "fixed"))),
    node(t.Init, kind=st.just("learned"), argument=some),
    node(t.Init, kind=st.just("from"), argument=sources),
)
resets = st.one_of(
    node(t.Reset, kind=st.sampled_from(("sequence", "never"))),
    node(t.Reset, kind=st.just("tokens"), count=expressions),
)
memories = node(
    t.MemoryDecl,
    names=st.lists(names, min_size=1, max_size=3).map(tuple),
    map=expressions,
    per_head=st.none() | st.just(True) | expressions,
    init=st.none() | inits,
    reset=st.none() | resets,
)
levels = node(t.LevelDecl, name=level_names, clock=clocks, body=st.lists(memories, max_size=2).map(tuple))
simple = st.one_of(
    memories,
    node(
        t.Assign,
        targets=st.lists(names, min_size=2, max_size=3).map(tuple),
        op=st.just("="),
        value=expressions,
    ),
    node(
        t.Assign,
        targets=names.map(lambda n: (n,)),
        op=st.sampled_from(("=", "+=", "*=", "-=", "/=")),
        value=expressions,
    ),
    node(
        t.Write,
        targets=names.map(lambda n: (n,)),
        terms=terms.map(lambda n: (n,)),
        clauses=no_clauses,
    ),
    node(t.TaskWrite, target=names, objective=expressions, clauses=task_clauses),
    node(t.Return, values=st.lists(expressions, min_size=1, max_size=2).map(tuple)),
)
block_writes = node(
    t.Write,
    targets=st.lists(names, min_size=1, max_size=3).map(tuple),
    terms=st.lists(terms, max_size=2).map(tuple),
    clauses=clauses,
    each=st.booleans(),
    braces=st.just(True),
)


def _blocks(inner: Any) -> Any:
    body = st.lists(inner, max_size=3).map(tuple)
    return st.one_of(
        node(t.Repeat, count=expressions, body=body),
        node(t.For, names=st.lists(plain, min_size=1, max_size=2).map(tuple), items=expressions, body=body),
        node(t.If, condition=expressions, body=body, orelse=body),
        node(
            t.Every, clock=node(t.Clock, count=counts, unit=st.sampled_from(("tokens", "steps"))), body=body
        ),
    )


statements = st.recursive(st.one_of(simple, levels, block_writes), _blocks, max_leaves=4)
definitions = node(
    t.Definition,
    kind=st.sampled_from(("block", "model", "map", "objective", "rule")),
    name=plain,
    params=st.lists(node(t.Param, name=plain, default=some), max_size=4).map(tuple),
    body=st.lists(statements, max_size=4).map(tuple),
)
roles = node(t.Name, id=st.sampled_from(("matrices", "embeddings", "head", "norms", "rest", "other")))
groups = node(
    t.Group,
    selectors=st.lists(roles | strings, min_size=1, max_size=3).map(tuple),
    rule=expressions,
    clock=st.none() | clocks,
)
settings = node(
    t.Setting,
    key=node(t.Name, id=st.sampled_from(("task", "truncate", "clip", "learn_generated"))),
    value=st.one_of(numbers, node(t.Name, id=st.sampled_from(("true", "next_token"))), expressions),
    unit=st.sampled_from(("", "tokens", "steps")),
).filter(lambda s: not (isinstance(s.value, t.Name) and s.value.id == "true" and s.unit))
train_levels = node(t.LevelDecl, name=level_names, clock=clocks, body=st.lists(groups, max_size=2).map(tuple))
trains = node(
    t.Train, target=plain, body=st.lists(st.one_of(settings, groups, train_levels), max_size=4).map(tuple)
)
edits = node(t.LevelEdit, path=strings, clock=clocks)
variants = node(
    t.Variant,
    name=plain,
    base=plain,
    args=st.lists(node(t.Arg, name=st.none() | st.sampled_from(_WORDS), value=expressions), max_size=3).map(
        tuple
    ),
    body=st.lists(st.one_of(settings, groups, edits), max_size=3).map(tuple),
)
uses = node(t.Use, path=strings)
trees = node(
    t.Tree, items=st.lists(st.one_of(definitions, definitions, trains, variants, uses), max_size=4).map(tuple)
)

_SNIPPETS = (
    "{", "}", "(", ")", "[", "]", "<-", "=", "==", "\n", ";", ",", '"', "#", " by ", " retain ", "every", "level", "\0",
    "write", "each of", "1e400", "-", "**", ":", "\t", "é", "\u202e", "block f(x) {", "return", "@", "memory M = ", "\r",
    "&a", "*a", "!!x", "- ", ": ", "|", ">", "---", "%", "'", "\\", "?", "{a: ", "<<: ", "\U0001f600", "\ufeff", "\ud800",
)  # fmt: skip


def damage(text: str, seed: int, changes: int) -> str:
    """`text` after some random insertions, deletions, copies and swaps."""
    dice = random.Random(seed)
    for _ in range(changes):
        at = dice.randrange(len(text) + 1)
        to = min(len(text), at + dice.choice((1, 1, 2, 5, 40)))
        other = dice.randrange(len(text) + 1)
        text = dice.choice(
            (
                text[:at] + dice.choice(_SNIPPETS) + text[at:],
                text[:at] + text[to:],
                text[:at] + text[at:to] * 3 + text[to:],
                text[:at] + text[other : other + 30] + text[at:],
                text[:at]
                + chr(dice.choice((0x24, 0x7F, 0x3B1, 0x2028, 0x1F600, dice.randrange(0xD7FF))))
                + text[to:],
            )
        )
    return text


def damage_bytes(data: bytes, seed: int, changes: int) -> bytes:
    """`data` after some random bytes were replaced, inserted or removed."""
    dice = random.Random(seed)
    found = bytearray(data)
    for _ in range(changes):
        at = dice.randrange(len(found) + 1)
        match dice.randrange(3):
            case 0:
                found[at:at] = bytes([dice.randrange(256)])
            case 1:
                del found[at : at + 3]
            case _:
                found[at : at + 1] = bytes([dice.randrange(256)])
    return bytes(found)


@cache
def corpus() -> dict[str, str]:
    """Programs to damage: those of the description and of the library, as text and as YAML."""
    from nldsl.assets import specs_folder
    from nldsl.diagnostics import DiagnosticBag
    from nldsl.syntax import parse, to_yaml
    from tests.unit.language_snippets import TEXTS

    texts = {f"{name}.nl": text for name, text in TEXTS.items()}
    for path in sorted(specs_folder().rglob("*.nl")):
        texts[path.name] = path.read_text(encoding="utf-8")
    yamls = {
        name.replace(".nl", ".yaml"): to_yaml(parse(SourceFile(name, text), DiagnosticBag()))
        for name, text in texts.items()
    }
    return texts | yamls
