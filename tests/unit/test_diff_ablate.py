"""`nldsl diff` and `nldsl ablate`: by meaning, with an exit code that says whether anything differs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nldsl.graph import open_program
from nldsl.review import check
from nldsl.view.ablations import TABLES
from nldsl.view.diff import diff_programs
from tests.unit.commands import run

LAYER = """block f(x, heads = 2) {
  level a every 1 token { memory S = matrix() per head }
  k = l2norm(split(linear(x), heads))
  S[k] <- linear(x)  minimize l2  by gd(lr = 0.5)
  return S[k]
}
"""


def differs(before: str, after: str) -> dict[str, object]:
    programs = [open_program(text, block="f", dim=8) for text in (before, after)]
    found = diff_programs(programs[0], programs[1], ("a", "b"))
    return found.to_json() if not found.equal else {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("block", "# a comment\nblock"),
        ("  minimize l2", ""),
        ("  return S[k]", "  y = S[k]\n\n  return y"),
        ("minimize l2  by gd(lr = 0.5)", "by gd(lr = 0.5) minimize l2"),
        ("level a every 1 token {", "level a every 1 tokens {"),
    ],
)
def test_another_way_to_write_it_is_no_difference(old: str, new: str) -> None:
    assert old in LAYER and differs(LAYER, LAYER.replace(old, new)) == {}


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("lr = 0.5", "lr = 0.25", "0.25"),
        ("every 1 token", "every 8 tokens", "8 tokens"),
        ("matrix()", "mlp()", "mlp"),
        ("minimize l2", "minimize dot", "dot"),
        ("heads = 2", "heads = 4", "4"),
        ("by gd(", "by proximal(", "proximal"),
    ],
)
def test_what_means_something_else_is_named(old: str, new: str, word: str) -> None:
    assert old in LAYER and word in json.dumps(differs(LAYER, LAYER.replace(old, new)))


def test_diff_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.nl"
    path.write_text("variant f of hope(depth = 5)\n")
    assert run("diff", "hope", "hope") == 0
    capsys.readouterr()
    assert run("diff", "hope", str(path), "--json") == 1
    assert json.loads(capsys.readouterr().out)
    assert run("diff", "hope@depth=2,dim=64", "hope@depth=3,dim=64") == 1
    assert "3" in capsys.readouterr().out
    assert run("diff", "hope", "hop") == 2 and "NL0801" in capsys.readouterr().err


def test_ablations_of_hope_check_and_change_what_they_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ablate", "hope", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len(TABLES["hope"]) >= 7
    assert run("ablate", "hope", "--write", str(tmp_path)) == 0
    files = sorted(tmp_path.glob("*.nl"))
    assert len(files) == sum(bool(row.spec) and row.spec != "hope" for row in TABLES["hope"])
    for path in files:
        assert check(path) == [], path.name
        assert run("diff", "hope", str(path)) == 1, path.name


def test_a_level_of_training_by_another_name_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "model m(tokens) { return head(embed(tokens, 16, 8), 16) }\n"
    text += "train m { level a every 3 steps { head by sgd(lr = 1) }\n"
    text += "  level b every 1 step { rest by sgd(lr = 1) } }\n"
    one, other = tmp_path / "one.nl", tmp_path / "other.nl"
    one.write_text(text)
    other.write_text(text.replace("level a", "level slow"))
    assert run("diff", str(one), str(other), "--json") == 1
    assert "slow" in capsys.readouterr().out
