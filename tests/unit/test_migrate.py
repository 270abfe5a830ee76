"""`nldsl migrate`: older spellings in both forms, comments and layout kept, unknown versions refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.assets import specs_folder
from nldsl.cli import main
from nldsl.diagnostics import DiagnosticBag, SpecError
from nldsl.source import SourceFile
from nldsl.syntax import parse
from nldsl.syntax.migrate import MIGRATIONS, migrate
from nldsl.syntax.versions import CURRENT

OLD = """# a draft
nldsl 0
rule shrink(lr, decay = 0.1) { W = (1 - decay) * W - lr * g }
block old(x,   chunk = 4) {           # layout stays
  level f every chunk tokens { memory F = mlp() }
  level s every 1 token { memory S = matrix() }
  decay = sigmoid(mean(linear(x, 1)))
  F minimises task  by gd(lr = 0.1)
  S[x] <- x  minimise l2  # minimise in a comment stays
    by shrink(lr = 0.1, decay = 0.2)  decay decay
  return S[x] + F[x] * decay
}
"""
NEW = (
    OLD.replace("nldsl 0", "nldsl 1")
    .replace("F minimises", "F minimizes")
    .replace("minimise l2", "minimize l2")
    .replace("decay decay", "retain decay")
)
OLD_YAML = """nldsl: 0  # a draft
block old:
  takes: [x]
  levels:
    s: {every: 1 token, memories: {S: matrix()}}
  body:
    - decay = sigmoid(mean(x))
    - "S[x] <- x minimise l2 by gd(lr = 0.1) decay 0.9"   # one line
    - write: S
      key: x
      value: x
      minimise: l2
      decay: decay
      by: gd(lr = 0.1)
    - return S[x]
"""


def tree(name: str, text: str) -> object:
    bag = DiagnosticBag()
    found = parse(SourceFile(name, text), bag)
    assert bag.items == []
    return found


def test_text_changes_words_and_nothing_else() -> None:
    found = migrate(SourceFile("old.nl", OLD))
    assert found.text == NEW
    assert found.before == 0
    assert "`decay` is spelt `retain`" in found.changes
    tree("old.nl", found.text)


def test_yaml_changes_keys_and_lines() -> None:
    found = migrate(SourceFile("old.yaml", OLD_YAML)).text
    wanted = OLD_YAML.replace("nldsl: 0", "nldsl: 1").replace("minimise", "minimize")
    assert found == wanted.replace("decay 0.9", "retain 0.9").replace("decay: decay", "retain: decay")
    tree("old.yaml", found)


def test_migrating_twice_is_migrating_once() -> None:
    once = migrate(SourceFile("old.nl", OLD)).text
    assert migrate(SourceFile("old.nl", once)).text == once


def test_a_file_without_a_version_is_of_the_current_one() -> None:
    text = "block f(x) { return x }\n"
    assert migrate(SourceFile("f.nl", text)).text == text
    plain = OLD.replace("nldsl 0\n", "")
    assert migrate(SourceFile("old.nl", plain), start=0).text == NEW.replace("nldsl 1\n", "")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.nl", "nldsl 7\n", "newer than version 1"),
        ("a.yaml", "nldsl: 7\n", "newer than version 1"),
        ("a.nl", "nldsl x\n", "not a version"),
    ],
)
def test_unknown_versions_are_coded(name: str, text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        migrate(SourceFile(name, text))
    (finding,) = caught.value.diagnostics
    assert finding.code == "NL0114" and words in finding.message


def test_checking_an_older_file_says_how_to_go_on() -> None:
    bag = DiagnosticBag()
    parse(SourceFile("old.nl", "nldsl 0\nblock f(x) { return x }\n"), bag)
    (finding,) = bag.items
    assert (finding.code, finding.help) == ("NL0114", "run `nldsl migrate` on the file")


def test_migrations_lead_to_the_current_version() -> None:
    assert [m.before for m in MIGRATIONS] == list(range(MIGRATIONS[0].before, CURRENT))


@pytest.mark.parametrize("path", sorted(specs_folder().rglob("*.nl")), ids=lambda p: p.stem)
def test_the_library_is_of_the_current_version(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert migrate(SourceFile(path.name, text)).text == text


def test_command_rewrites_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.nl"
    path.write_text(OLD, encoding="utf-8")
    for arguments, code in ((["--check"], 1), (["--diff"], 1), ([], 0), (["--check"], 0)):
        with pytest.raises(SystemExit) as left:
            main(["migrate", str(path), *arguments])
        assert (left.value.code or 0) == code
    assert path.read_text(encoding="utf-8") == NEW
    assert "migrated from version 0 to 1" in capsys.readouterr().err
