"""Faulty texts: one finding per fault, in the user's words, and the rest of the tree comes through."""

from __future__ import annotations

import pytest

from nldsl.diagnostics import Diagnostic, DiagnosticBag
from nldsl.source import SourceFile
from nldsl.syntax import parse, tree
from tests.unit.language_snippets import GATED_DELTANET, HOPE, RULES

GOOD = "block good(x) { return x }\n"


def findings(text: str, name: str = "t.nl") -> tuple[list[Diagnostic], tree.Tree]:
    bag = DiagnosticBag()
    found = parse(SourceFile(name, text), bag)
    return bag.items, found


FIVE = """\
block f(x, n = 3) {
  a = linear(x
  b = linear(x)
  S[b] = x by gd(lr = 1)
  level c every 3 { memory M = matrix() }
  repeat n {
    b = b ^ 2
    b = b + 1
  }
  retrun b
  return b
}
"""


def test_five_faulty_statements_give_five_findings_and_the_rest_comes_through() -> None:
    items, found = findings(FIVE + GOOD)
    assert [d.code for d in items] == ["NL0104", "NL0108", "NL0116", "NL0102", "NL0111"]
    first, second = found.items
    assert isinstance(first, tree.Definition) and isinstance(second, tree.Definition)
    assert [type(s).__name__ for s in first.body] == ["Assign", "Repeat", "Return"]
    repeat = first.body[1]
    assert isinstance(repeat, tree.Repeat) and len(repeat.body) == 1


@pytest.mark.parametrize(
    ("line", "code", "under", "help"),
    [
        ("S[k] = v", "NL0108", "=", "S[key] <- value"),
        ("S <- v", "NL0108", "<-", "S[key] <- value"),
        ("y = g(x, 2", "NL0104", "(", "add `)`"),
        ("y = g(x, 2]", "NL0104", "]", "close `(`"),
        ("y = g(x))", "NL0104", ")", "remove"),
        ("y = [1, 2", "NL0104", "[", "add `]`"),
        ('y = "abc', "NL0103", '"abc', "close the string"),
        ("y = x ^ 2", "NL0102", "^", "x ** 2"),
        ("y = η", "NL0102", "η", "eta"),
        ("M[k] ← v", "NL0102", "←", "<-"),
        ("y: int = 3", "NL0109", ":", "="),
        ("M[k] <- v minimise dot", "NL0111", "minimise", "minimize"),
        ("M[k] <- v retian a", "NL0111", "retian", "retain"),
        ("M[k] <- v by a() by b()", "NL0107", "by b()", "one"),
        ("memory M = matrix() init zero init zero", "NL0107", "init zero", "one"),
        ("elif y { x = 1 }", "NL0110", "elif", "else if"),
        ("while y { x = 1 }", "NL0110", "while", "repeat"),
        ("import y", "NL0110", "import", "use"),
        ("return", "NL0116", "return", "return"),
        ("y = x +", "NL0116", "+", "value"),
        ("y = a b", "NL0101", "b", "operator"),
        ("y = a if b else c", "NL0101", "if", "where"),
        ("y = a < b < c", "NL0101", "<", ""),
        ("y += 1 = 2", "NL0101", "=", ""),
        ("repeat 3", "NL0106", "3", "{"),
        ("level c every 3 { memory M = m() }", "NL0116", "3", "every 3 tokens"),
        ("level c every 3 tokens { x = 1 }", "NL0112", "x = 1", "memory"),
        ("else { x = 1 }", "NL0115", "else", "if"),
        ("y = 1e400", "NL0113", "1e400", "1e308"),
        ("y = 1" + "0" * 4000, "NL0113", "1" + "0" * 4000, "40"),
        ("y = " + "-" * 200 + "x", "NL0807", "y = " + "-" * 200 + "x", "names"),
        ("write S { x = 1 }", "NL0101", "x", "[key] <- value"),
        ('y = f("a\\qb")', "NL0117", '"a\\qb"', "\\n"),
    ],
)
def test_slips(line: str, code: str, under: str, help: str) -> None:
    items, found = findings(f"block f(x) {{\n  z = 1\n  {line}\n  return x\n}}\n{GOOD}")
    assert [d.code for d in items] == [code], items
    assert items[0].span is not None and items[0].span.text == under
    assert help in items[0].help and items[0].help
    assert [d.name.id for d in found.items if isinstance(d, tree.Definition)] == ["f", "good"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("block f(x) {\n  repeat 3 {\n    y = 2\n  return x\n}\n\n" + GOOD, "NL0105"),
        ("block f(x) {\n  return x\n\n" + GOOD, "NL0105"),
        ("block f(x) {\n  return x\n", "NL0105"),
        ("block f(x) {\n  repeat 3 {\n    y = 2\n  }\n  }\n  z = 1\n  return x\n}\n" + GOOD, "NL0105"),
        (GOOD + "}\n" + GOOD, "NL0105"),
        ("block f(x):\n  y = 2\n  return x\n\n" + GOOD, "NL0109"),
        ("block f(x)\n  y = 2\n  return x\n}\n" + GOOD, "NL0106"),
        ("block f(x)\n{\n  y = 2\n  return x\n}\n" + GOOD, "NL0106"),
        ("block f(x) {\n  repeat 2\n    x = x\n  return x\n}\n" + GOOD, "NL0106"),
        ("{ x = 1 }\n" + GOOD, "NL0106"),
        ("blok f(x) { y = 1; return y }\n" + GOOD, "NL0111"),
        ("block (x) { y = 1; return y }\n" + GOOD, "NL0101"),
        ("block f(x, 3) { y = 1; return y }\n" + GOOD, "NL0101"),
        ("block f(x { y = 1; return y }\n" + GOOD, "NL0104"),
        ("x = 3\n" + GOOD, "NL0112"),
        ("train h {\n matrices muon(lr = 1)\n}\n" + GOOD, "NL0116"),
        ("train h {\n M[k] <- v\n}\n" + GOOD, "NL0112"),
        ("nldsl 3\n" + GOOD, "NL0114"),
        ("(" * 200, "NL0805"),
        ("{" * 200, "NL0805"),
        ("block f(x) {\n" + "repeat 2 {\n" * 70 + "}\n" * 71, "NL0805"),
        ("block f(x) { return x }\0", "NL0804"),
        ("x " * 60_000, "NL0806"),
        ("block f(x) { return f(" + "x, " * 3000 + "x) }", "NL0807"),
        ("block f(x) { return " + "x + " * 150 + "x }", "NL0807"),
        (f"block {'f' * 300}(x) {{ return x }}", "NL0808"),
        ("x" * (2 << 20), "NL0802"),
    ],
)
def test_faults_of_structure_are_one_finding(text: str, code: str) -> None:
    if text.startswith("{" * 3):
        items, _ = findings(text)
        assert {d.code for d in items} <= {"NL0106", "NL0805"}
        return
    items, found = findings(text)
    assert [d.code for d in items] == [code], items
    if text.endswith(GOOD):
        assert "good" in [d.name.id for d in found.items if isinstance(d, tree.Definition)]


def test_a_missing_brace_is_blamed_on_the_brace_that_was_forgotten() -> None:
    (item,), _ = findings("block f(x) {\n  repeat 3 {\n    y = 2\n  return x\n}\n\n" + GOOD)
    assert item.span is not None and item.span.line == 2


def test_python_style_bodies_are_read_as_if_braces_stood_there() -> None:
    items, found = findings("block f(x):\n  repeat 2:\n    x = x + 1\n  return x\n" + GOOD)
    assert [d.code for d in items] == ["NL0109", "NL0109"]
    first = found.items[0]
    assert isinstance(first, tree.Definition)
    assert [type(s).__name__ for s in first.body] == ["Repeat", "Return"]


def test_findings_come_in_the_order_of_the_text_and_are_capped() -> None:
    items, _ = findings("block f(x) {\n" + "  y = x ^ 2\n" * 300 + "}\n")
    assert len(items) == 100
    lines = [d.span.line for d in items if d.span]
    assert lines == sorted(lines)


def test_tabs_and_carriage_returns_are_white_space() -> None:
    items, found = findings("block f(x) {\r\n\ty = x\r\n\treturn y\r\n}\r\n")
    assert not items and found.items


def _without(line: str, sign: str) -> list[str]:
    return [line[:i] + line[i + 1 :] for i, c in enumerate(line) if c == sign]


@pytest.mark.parametrize(
    "sign", ["(", ")", "{", "}", "extra (", "extra )", "extra {", "extra }", "$", "x x x"]
)
def test_one_fault_is_one_finding(sign: str) -> None:
    """Every bracket and brace of three programs is dropped, or one is added to every line."""
    several = []
    for text in (GATED_DELTANET, HOPE, RULES):
        lines = [line.split("  #")[0].rstrip() for line in text.splitlines()]
        for number, line in enumerate(lines):
            if not line.strip() or line.startswith("#"):
                continue
            added = [f"{line} {sign.removeprefix('extra ')}"]
            for damaged in _without(line, sign) if len(sign) == 1 and sign != "$" else added:
                items, _ = findings("\n".join([*lines[:number], damaged, *lines[number + 1 :]]) + "\n")
                assert items, damaged
                if len(items) > 1:
                    several.append((damaged, [(d.code, str(d.span)) for d in items]))
    assert len(several) <= {"extra }": 1, "{": 2}.get(sign, 0), several


@pytest.mark.parametrize(
    ("line", "help", "edit"),
    [
        ("use attention, swiglu", "known without `use`", None),
        ("use parts.nl", 'write `use "parts.nl"`', '"parts.nl"'),
        ("use parts", '`use "parts.nl"`', None),
    ],
)
def test_use_takes_one_file_in_quotes(line: str, help: str, edit: str | None) -> None:
    items, _ = findings(f"{line}\n{GOOD}")
    assert [d.code for d in items] == ["NL0101"]
    assert help in (items[0].help or "")
    assert (items[0].edit.text if items[0].edit else None) == edit


def test_a_header_behind_another_statement_of_its_line() -> None:
    text = "train m { task next_token  level p every 1 step { matrices by muon(lr = 0.1) } }\n"
    items, _ = findings(text)
    assert [d.code for d in items] == ["NL0101"] and "in front of `level`" in (items[0].help or "")
    edit = items[0].edit
    assert edit is not None
    repaired = text[: edit.span.start] + edit.text + text[edit.span.end :]
    assert findings(repaired)[0] == []


@pytest.mark.parametrize(
    ("text", "help"),
    [
        ("block f(x, C = 4) {\n  level a every C { memory M = matrix() }\n}\n", "write `every C tokens`"),
        ("block f(x) {\n  M[x] <- x by gd(lr = 1) every 16 tokens\n}\n", "did you mean `gradient every`?"),
    ],
)
def test_clocks_without_their_words(text: str, help: str) -> None:
    items, _ = findings(text)
    assert [d.help for d in items] == [help]
