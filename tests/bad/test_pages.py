"""Every page of the catalogue is true: its failing program gives its code and no other, its twin nothing."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from nldsl.cli.app import main
from nldsl.diagnostics import catalogue, render_all
from nldsl.view.codes import code_page, findings_of

ROOT = Path(__file__).resolve().parents[2]
WITH_TEXT = [code for code, entry in catalogue().items() if entry.failing]
WITH_COMMAND = [code for code, entry in catalogue().items() if entry.failing_command]


def run(line: str) -> int:
    with pytest.raises(SystemExit) as leaving:
        main(shlex.split(line)[1:])
    assert isinstance(leaving.value.code, int)
    return leaving.value.code


def test_there_are_at_least_sixty_causes_with_programs() -> None:
    assert len(WITH_TEXT) >= 100


@pytest.mark.parametrize("code", WITH_TEXT)
def test_failing_program_gives_exactly_its_code_and_its_twin_nothing(code: str) -> None:
    entry = catalogue()[code]
    found = findings_of(code, entry.failing)
    assert {d.code for d in found} == {code}, render_all(found)
    assert all(d.span is not None for d in found)
    found = findings_of(code, entry.working)
    assert not found, render_all(found)


@pytest.mark.parametrize("code", WITH_COMMAND)
def test_failing_command_gives_exactly_its_code_and_its_twin_nothing(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = catalogue()[code]
    Path("good.nl").write_text("block f(x) {\n  return 2 * x\n}\n")
    assert run(entry.failing_command) != 0
    assert re.findall(r"error\[(NL\d{4})\]", capsys.readouterr().err) == [code]
    assert run(entry.working_command) == 0
    assert "error[" not in capsys.readouterr().err


@pytest.mark.parametrize("code", [*WITH_TEXT[::10], *WITH_COMMAND[::4], "NL1000"])
def test_page(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"nldsl explain {code.lower()}") == 0
    shown = capsys.readouterr().out
    entry = catalogue()[code]
    assert shown.startswith(f"{code}: {entry.title}\n") and shown == code_page(code) + "\n"
    assert " ".join(entry.explanation.split()) in " ".join(shown.split())
    if entry.failing:
        assert f"[{code}]: " in shown and "example." in shown and "The same without" in shown
    assert run(f"nldsl explain {code} --json") == 0
    page = json.loads(capsys.readouterr().out)
    assert page["code"] == code and page["failing"] == (entry.failing or None)
    assert {d["code"] for d in page["findings"]} == ({code} if entry.failing else set())


def test_list_of_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nldsl explain NL") == 0
    shown = capsys.readouterr().out
    assert set(re.findall(r"^  (NL\d{4})  ", shown, re.MULTILINE)) == set(catalogue())
    assert run("nldsl explain NL05") == 0
    assert {code[:4] for code in re.findall(r"NL\d{4}", capsys.readouterr().out)} == {"NL05"}
    assert run("nldsl explain NL05 --json") == 0
    assert all(c["code"].startswith("NL05") for c in json.loads(capsys.readouterr().out)["codes"])


@pytest.mark.parametrize("line", ["explain NL0412 --latex", "explain hope --latex --params"])
def test_no_option_is_ignored(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"nldsl {line}") == 2
    assert "NL1024" in capsys.readouterr().err


def test_every_code_in_the_source_is_in_the_catalogue_and_the_other_way_round() -> None:
    used: set[str] = set()
    for path in (ROOT / "nldsl").rglob("*.py"):
        if "codes" not in path.parts:
            used |= set(re.findall(r'"(NL\d{4})"', path.read_text(encoding="utf-8")))
    assert used - set(catalogue()) == set()
    assert set(catalogue()) - used == set()
