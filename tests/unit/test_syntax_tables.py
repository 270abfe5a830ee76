"""The tables of the parser on disk: the same parser, whatever state they are in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nldsl.assets import specs_folder
from nldsl.diagnostics import DiagnosticBag
from nldsl.source import SourceFile
from nldsl.syntax import grammar, parse, tables, tree

SPECS = sorted(specs_folder().rglob("*.nl"))[::4]
FAULTY = SourceFile("a.nl", "block f(x) { return x + * 2 }")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder, and no parser in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    grammar.parser.cache_clear()
    yield tmp_path / "nldsl"
    grammar.parser.cache_clear()


def everything() -> tuple[list[tree.Tree], list[tuple[str, str]]]:
    """Trees of library files and the findings about a faulty text."""
    bag = DiagnosticBag()
    trees = [parse(SourceFile("a.nl", path.read_text(encoding="utf-8")), bag) for path in SPECS]
    parse(FAULTY, bag)
    return trees, [(d.code, d.message) for d in bag.items]


@pytest.mark.parametrize("damage", [None, b"", b'{"d": 3}', b"[[], {}]", b"\xff"])
def test_kept_tables_are_the_parser(
    cache: Path, damage: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = everything()
    (kept,) = cache.iterdir()
    if damage is not None:
        kept.write_bytes(damage)
    grammar.parser.cache_clear()
    built: list[str] = []
    build = grammar.build_parser
    monkeypatch.setattr(grammar, "build_parser", lambda text: built.append(text) or build(text))
    assert everything() == first and [code for code, _ in first[1]] == ["NL0101"]
    assert len(built) == (damage is not None)
    assert list(cache.iterdir()) == [kept] and kept.stat().st_size > 1000


def test_a_folder_that_cannot_be_written_costs_time_only(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert everything()[1][0][0] == "NL0101"


def test_another_grammar_is_another_file(cache: Path) -> None:
    everything()
    tables.kept(grammar.grammar_text() + "\n", grammar.STARTS, grammar.parser)
    assert len(list(cache.iterdir())) == 2
