"""`nldsl check`: its forms of output, its repairs, its watch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nldsl.cli.app import main
from nldsl.cli.watching import files_of, signature, watch
from nldsl.diagnostics import Diagnostic, Edit, apply_edits, catalogue, fix_of
from nldsl.diagnostics.forms import concise, github, to_sarif
from nldsl.review import check
from nldsl.source import SourceFile, Span
from tests.unit.sarif_schema import SARIF

TWO = "block f(x) {\n  y = sigmod(x)  # keep me\n  return y ^ 2\n}\n"
SLOW = """block f(x) {
  level slow every 64 tokens { memory S = matrix() }
  S[l2norm(x)] <- x  by gd(lr = 0.01)
  return S[l2norm(x)]
}
"""


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as leaving:
        main(["check", *arguments])
    assert isinstance(leaving.value.code, int)
    return leaving.value.code


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("two.nl")
    path.write_text(TWO)
    return path


# --- forms -----------------------------------------------------------------------------------


def test_concise_is_one_line_for_each(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("two.nl", "--output", "concise") == 1
    assert capsys.readouterr().out.splitlines() == [
        "two.nl:2:7: error[NL0302] unknown function `sigmod` (change `sigmod` to `sigmoid`)",
        "two.nl:3:12: error[NL0102] unknown character `^` (the power of a number is `x ** 2`)",
    ]


def test_github(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("two.nl", "--output", "github") == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first == (
        "::error file=two.nl,line=2,endLine=2,col=7,endColumn=13,title=NL0302"
        "::unknown function `sigmod`%0Ahelp: did you mean `sigmoid`?"
    )


def test_github_escapes_what_has_a_meaning() -> None:
    file = SourceFile("a,b:c.nl", "x\ny")
    line = github(Diagnostic("NL0101", "50 %\nof: it, all", Span(file, 0, 3), severity="note"))
    assert line == ("::notice file=a%2Cb%3Ac.nl,line=1,endLine=2,title=NL0101::50 %25%0Aof: it, all")
    assert "\n" not in concise(Diagnostic("NL0101", "two\nlines"))


def test_json_is_the_same_by_both_names(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("two.nl", "--json") == 1
    first = capsys.readouterr().out
    assert run("two.nl", "--output", "json") == 1
    assert capsys.readouterr().out == first
    edit = json.loads(first)["specs"][0]["findings"][0]["edit"]
    assert (edit["line"], edit["column"], edit["text"]) == (2, 7, "sigmoid")


def sarif(text: str) -> dict[str, Any]:
    """The results of a log, its structure checked."""
    log: dict[str, Any] = json.loads(text)
    jsonschema.validate(log, SARIF)
    run: dict[str, Any] = log["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    return run


def test_sarif(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("two.nl", "--output", "sarif") == 1
    results = sarif(capsys.readouterr().out)["results"]
    assert [(r["ruleId"], r["level"]) for r in results] == [("NL0302", "error"), ("NL0102", "error")]
    region = {"startLine": 2, "startColumn": 7, "endLine": 2, "endColumn": 13}
    place = results[0]["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "two.nl"}, "region": region}
    change = results[0]["fixes"][0]["artifactChanges"][0]["replacements"][0]
    assert change == {"deletedRegion": region, "insertedContent": {"text": "sigmoid"}}


def test_sarif_without_findings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("hope", "--output", "sarif") == 0
    assert sarif(capsys.readouterr().out)["results"] == []


def test_sarif_of_every_page_and_of_odd_paths(tmp_path: Path) -> None:
    texts = [e.failing for c, e in catalogue().items() if e.failing and c < "NL07" and e.form == "text"]
    for name in ("a b.nl", "c:d.nl", str(tmp_path / "ä.nl")):
        found = [d for text in texts[::7] for d in check(SourceFile(name, text))]
        assert len(sarif(json.dumps(to_sarif(found, "1.0.0")))["results"]) == len(found) > 8
    assert (
        sarif(json.dumps(to_sarif([Diagnostic("NL0801", "no file")], "1.0.0")))["results"][0]["locations"]
        == []
    )


def test_length_names_levels_that_never_fire(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "slow.nl"
    path.write_text(SLOW)
    assert run(str(path)) == 0
    assert "NL0507" not in capsys.readouterr().err
    assert run(str(path), "--length", "64", "--output", "concise") == 0
    assert "NL0507" in capsys.readouterr().out
    assert run(str(path), "--length", "65", "--output", "concise") == 0
    assert capsys.readouterr().out == ""


# --- repairs ---------------------------------------------------------------------------------


def test_fix_changes_what_it_says_and_nothing_else(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two.write_bytes(b"\xef\xbb\xbf" + TWO.replace("\n", "\r\n").encode())
    two.chmod(0o640)
    assert run("two.nl", "--fix") == 0
    good = TWO.replace("sigmod", "sigmoid").replace("^", "**").replace("\n", "\r\n")
    assert two.read_bytes() == b"\xef\xbb\xbf" + good.encode()
    assert two.stat().st_mode & 0o777 == 0o640 and list(Path().iterdir()) == [two]
    shown = capsys.readouterr()
    assert shown.out == "two.nl: ok\n"
    assert shown.err.splitlines() == [
        "fixed two.nl:2:7: NL0302, changed `sigmod` to `sigmoid`",
        "fixed two.nl:3:12: NL0102, changed `^` to `**`",
    ]
    before = two.stat()
    assert run("two.nl", "--fix") == 0 and two.stat() == before


def test_fix_goes_on_while_repairs_show_the_next_mistake(two: Path) -> None:
    two.write_text("block f(x):\n  let y = sigmod(x) × 2\n  retrun y\n")
    assert run("two.nl", "--fix") == 0
    assert two.read_text() == "block f(x) {\n  y = sigmoid(x) * 2\n  return y\n}\n"
    two.write_text("block f(x) {\n  let y = sigmod(x) × 2\n  retrun y\n}\n")
    assert run("two.nl", "--fix") == 0
    assert two.read_text() == "block f(x) {\n  y = sigmoid(x) * 2\n  return y\n}\n"


def test_fix_of_yaml(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(
        "nldsl: 1\nblock f:\n  take: [x]\n  body:\n    - 'y = sigmod(x)'  # why\n    - return y\n"
    )
    assert run(str(path), "--fix") == 0
    assert path.read_text() == (
        "nldsl: 1\nblock f:\n  takes: [x]\n  body:\n    - 'y = sigmoid(x)'  # why\n    - return y\n"
    )


def test_a_repair_that_does_not_answer_its_finding_is_not_made(two: Path) -> None:
    # What is near to `sigmo` cannot stand here: the edit would only trade one mistake for another.
    text = "block f(x) { return linear(x, sigmo) }\n"
    two.write_text(text)
    assert run("two.nl", "--fix") == 1
    assert two.read_text() == text


@pytest.mark.parametrize("name", ["hope", "-"])
def test_only_files_are_repaired(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--fix") == 2
    assert "NL1022" in capsys.readouterr().err


def test_files_that_are_used_are_not_touched(two: Path) -> None:
    Path("top.nl").write_text('use "two.nl"\nblock g(x) { return f(x) }\n')
    run("top.nl", "--fix")
    assert two.read_text() == TWO


def test_every_edit_of_the_catalogue_answers_its_finding() -> None:
    """Whatever is offered as a repair is one."""
    repaired = 0
    for code, entry in catalogue().items():
        for finding in check(entry.failing) if entry.failing and entry.form == "text" else []:
            edit = fix_of(finding)
            if edit is not None:
                after = check(apply_edits(entry.failing, [edit]).text)
                assert (finding.code, finding.message) not in {(d.code, d.message) for d in after}, code
                repaired += 1
    assert repaired >= 20


def test_edits_that_overlap_wait() -> None:
    file = SourceFile("a.nl", "abcdef")
    edits = [
        Edit(Span(file, a, b), text, "")
        for a, b, text in ((2, 4, "X"), (0, 3, "Y"), (4, 4, "i"), (4, 4, "j"))
    ]
    fixed = apply_edits(file.text, [*edits, edits[0]])
    assert fixed.text == "Ydief"
    assert fixed.made == (edits[1], edits[2]) and set(fixed.left) == {edits[0], edits[3]}


# --- watch -----------------------------------------------------------------------------------


def test_watch_looks_again_when_anything_that_takes_part_changes(two: Path) -> None:
    top = Path("top.nl")
    top.write_text('use "two.nl"\nuse "later.nl"\nblock g(x) { return f(x) }\n')
    assert {p.name for p in files_of(["top.nl"])} == {"top.nl", "two.nl", "later.nl"}
    changes = iter(
        [
            lambda: None,
            lambda: two.write_text(TWO + "\n"),
            lambda: Path("later.nl").write_text("block h(x) { return x }\n"),
            lambda: Path("other.nl").write_text("x"),
            top.unlink,
        ]
    )
    rounds: list[int] = []

    def wait() -> None:
        change = next(changes, None)
        if change is None:
            raise KeyboardInterrupt
        change()

    with pytest.raises(KeyboardInterrupt):
        watch(["top.nl"], lambda: rounds.append(len(rounds)), wait)
    assert len(rounds) == 4
    assert signature([two])[two] is not None and signature([Path("none")]) == {Path("none"): None}


def test_watch_ends_with_130(two: Path) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "nldsl", "check", "--watch", "--output", "concise", "two.nl"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert b"NL0302" in first and b"NL0102" in process.stdout.readline()
        two.write_text(TWO.replace("sigmod", "sigmoid"))
        assert b"NL0102" in process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == b"" and b"Traceback" not in err


def test_one_mistake_is_one_finding(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two.write_text(
        "blok g(x) {\n  return 2 * x\n}\n"
        "block f(x, width = 3) {\n"
        "  level m every 1 token { memory S = matrix( }\n"
        "  y = linear(x, + width)\n"
        "  S[g(x)] <- y  by gd(lr = 0.1)\n"
        "  retrun S[y]\n}\n"
    )
    assert run("two.nl", "--output", "concise") == 1
    found = re.findall(r"two.nl:(\d+):\d+: \w+\[(NL\d+)\]", capsys.readouterr().out)
    assert [line for line, _ in found] == ["1", "5", "6", "8"], found
