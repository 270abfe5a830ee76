"""Text to tree: every construct of the language, and what a tree holds."""

from __future__ import annotations

import pytest

from nldsl.diagnostics import DiagnosticBag, render_all
from nldsl.source import SourceFile
from nldsl.syntax import parse, tree
from tests.unit import language_snippets as snippets


def parsed(text: str, name: str = "t.nl") -> tree.Tree:
    bag = DiagnosticBag()
    found = parse(SourceFile(name, text), bag)
    assert not bag.items, render_all(bag.items)
    return found


def body(text: str) -> tuple[tree.Statement, ...]:
    item = parsed(f"block f(x) {{\n{text}\n}}").items[0]
    assert isinstance(item, tree.Definition)
    return item.body


def expression(text: str) -> tree.Expr:
    statement = body(f"y = {text}")[0]
    assert isinstance(statement, tree.Assign)
    return statement.value


def sketch(node: tree.Expr) -> str:
    """The expression with every operation in brackets."""
    match node:
        case tree.Binary():
            return f"({sketch(node.left)}{node.op}{sketch(node.right)})"
        case tree.Unary():
            return f"({node.op} {sketch(node.operand)})"
        case tree.Name():
            return node.id
        case tree.Number():
            return str(node.value)
        case _:
            return type(node).__name__


@pytest.mark.parametrize("name", snippets.TEXTS)
def test_every_program_of_the_description_parses(name: str) -> None:
    assert parsed(snippets.TEXTS[name]).items


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a + b * c", "(a+(b*c))"),
        ("(a + b) * c", "((a+b)*c)"),
        ("a - b - c", "((a-b)-c)"),
        ("-x ** 2", "(- (x**2))"),
        ("2 ** -x", "(2**(- x))"),
        ("a ** b ** c", "(a**(b**c))"),
        ("a // b / c @ d", "(((a//b)/c)@d)"),
        ("not a == b and c or d", "(((not (a==b))andc)ord)"),
        ("a<-b", "(a<(- b))"),
        ("a - -b", "(a-(- b))"),
    ],
)
def test_precedence(text: str, meaning: str) -> None:
    assert sketch(expression(text)) == meaning


def test_numbers_are_integers_only_without_point_and_exponent() -> None:
    values = [expression(text) for text in ("4", "4.0", "1e-3", ".5")]
    assert [(type(v.value), v.value) for v in values if isinstance(v, tree.Number)] == [
        (int, 4),
        (float, 4.0),
        (float, 0.001),
        (float, 0.5),
    ]


def test_one_line_write_carries_all_clauses_in_any_order() -> None:
    first, second = body(
        "M[k] <- v project p at commit gradient every 8 tokens retain a toward init by g(lr = 1) "
        "weighted w over 16 tokens minimize dot\n"
        "M[k] <- v minimize dot over 16 tokens weighted w by g(lr = 1) retain a toward init "
        "gradient every 8 tokens at commit project p"
    )
    assert first == second
    assert isinstance(first, tree.Write)
    clauses = first.terms[0].clauses
    assert (
        clauses.at_commit and clauses.over == expression("16") and clauses.gradient_every == expression("8")
    )
    assert clauses.toward == expression("init") and not first.braces


def test_clauses_behind_a_closing_brace_belong_to_the_write() -> None:
    (write,) = body("write S { [a] <- 0 by g(); [b] <- 1 }\n  retain alpha")
    assert isinstance(write, tree.Write) and write.braces and not write.each
    assert write.clauses.retain == expression("alpha") and len(write.terms) == 2


def test_clause_words_are_names_elsewhere() -> None:
    text = "by = 3\nover = by\nretain, project = parts(over, 1, 2)\nweighted += by\nby[x] <- over\nat = by"
    assert [type(s).__name__ for s in body(text)] == ["Assign"] * 4 + ["Write", "Assign"]


def test_statement_words_are_names_elsewhere() -> None:
    text = "memory = 3\nlevel = memory + level\nx = every + init + tokens + step + block + model + head"
    assert [type(s).__name__ for s in body(text)] == ["Assign"] * 3


def test_a_clause_on_its_own_line_continues_the_statement_above_even_over_comments() -> None:
    (write,) = body("M[k] <- v   # first\n\n   # then\n  by gd(lr = 1)\n  retain (1 - a)\n")
    assert isinstance(write, tree.Write) and write.terms[0].clauses.retain is not None


def test_semicolons_end_statements_and_brackets_join_lines() -> None:
    assert len(body("a = 1; b = f(\n  a,\n  2,  # two\n)\nc = [1,\n2]")) == 3


def test_else_if_is_an_if_inside_else() -> None:
    (statement,) = body("if a { b = 1 }\nelse if c { b = 2 } else { b = 3 }")
    assert isinstance(statement, tree.If)
    inner = statement.orelse[0]
    assert isinstance(inner, tree.If) and len(inner.orelse) == 1


def test_spans_cover_what_was_written() -> None:
    write = body("M[ k ] <- (v + 1)  by gd(lr = 1)")[0]
    assert isinstance(write, tree.Write)
    assert write.span.text == "M[ k ] <- (v + 1)  by gd(lr = 1)"
    assert write.terms[0].clauses.span.text == "by gd(lr = 1)"
    whole = parsed(snippets.HOPE)
    assert [item.span.text[:5] for item in whole.items] == ["block", "block", "model", "train", "varia"]
    assert whole.items[0].span.text.endswith("}")


def test_memory_options() -> None:
    item = parsed(snippets.MEMORIES).items[0]
    assert isinstance(item, tree.Definition)
    first, level = item.body[0], item.body[1]
    assert isinstance(first, tree.MemoryDecl) and isinstance(level, tree.LevelDecl)
    assert first.per_head is True and first.init and first.init.kind == "learned"
    assert first.reset and first.reset.kind == "never"
    second, third = level.body
    assert isinstance(second, tree.MemoryDecl) and isinstance(third, tree.MemoryDecl)
    assert second.per_head == expression("2") and second.reset and second.reset.kind == "sequence"
    assert third.init and third.init.kind == "from" and third.init.argument == expression("B")
    assert third.reset and third.reset.count == expression("128")


def test_train_lines() -> None:
    train = parsed(snippets.TRAIN).items[1]
    assert isinstance(train, tree.Train)
    assert [type(s).__name__ for s in train.body] == ["Setting", "Setting", "LevelDecl", "Setting", "Setting"]
    truncate = train.body[3]
    assert isinstance(truncate, tree.Setting) and truncate.unit == "tokens"
