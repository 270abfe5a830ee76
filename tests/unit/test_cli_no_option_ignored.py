"""No option is accepted and ignored: what would have no effect is refused by name, whatever its value."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.spec.elaborate import check
from tests.unit.commands import run

GOOD = "block twice(x) {\n  return 2 * x\n}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "good.nl").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --heldout 0.05 is the default: that it was said at all is what counts.
@pytest.mark.parametrize(
    "line",
    [
        "data tokenizer good.nl -o t.json --heldout 0.05",
        "data tokenizer good.nl -o t.json --packed",
        "data tokenizer good.nl -o t.json --tokenizer x.json",
        "data tokenizer good.nl -o t.json --label-field y",
        "data prepare good.nl -o shards --vocab 4096",
        "convert good.nl --from text",
        "timeline good.nl --set x=4 --json -o t.svg",
        "plan hope_tiny --parallel fsdp",
        "test good.nl --set x=4 --case {} --examples 20",
        "test good.nl --set x=4 --case {} --seed 0",
        "test good.nl --set x=4 --case {} --output small.nl",
        "test good.nl --set x=4 --write t.py --json",
        "test good.nl --set x=4 --write t.py --case {}",
        "test good.nl --set x=4 --write t.py --output small.nl",
    ],
)
def test_an_option_without_effect_is_refused(
    line: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.iterdir())
    assert run(*line.split()) == 2
    told = capsys.readouterr()
    assert "error[NL1024]: `--" in told.err and "help:" in told.err and not told.out
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("text", ["", "# later\n", "\n\n"])
@pytest.mark.parametrize("name", ["empty.nl", "empty.yaml"])
def test_a_file_with_nothing_in_it_is_not_ok(
    text: str, name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_text(text)
    assert run("check", name) == 1
    assert "error[NL0320]: the file defines nothing" in capsys.readouterr().err


def test_files_of_maps_and_rules_alone_are_ok() -> None:
    assert check("rule slow(lr) { W = W - lr * g }\n") == []
    assert check("map f(z) { return z }\n") == []


def test_a_starter_goes_where_it_is_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("new", "mine", "-o", "-") == 0
    assert capsys.readouterr().out.startswith("# mine: a layer")
    assert run("new", "mine", "-o", "mine.yaml") == 0
    assert (folder / "mine.yaml").read_text().startswith("nldsl: 1\n")
    assert run("check", "mine.yaml") == 0
    assert run("new", "mine", "--output", "mine.yaml") == 2


def test_a_plot_is_an_svg(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plot", "run", "-o", "curves.png") == 2
    assert "error[NL1015]" in capsys.readouterr().err
