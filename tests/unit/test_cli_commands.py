"""Each command on good input, on bad input, and as JSON."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nldsl.cli.doctor import _OPTIONAL
from nldsl.source import SourceFile
from nldsl.syntax import format_text
from tests.unit.commands import run

UGLY = "block twice( x ){\n y=2*x\n return y}\n"
GOOD = format_text(SourceFile("good.nl", UGLY))
BAD = "block f(x) {\n  return sigmod(x)\n}\n"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.nl"
    path.write_text(GOOD)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.nl"
    path.write_text(BAD)
    return path


def feed(monkeypatch: pytest.MonkeyPatch, text: str | bytes) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


# --- check -----------------------------------------------------------------------------------


def test_check_says_ok(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", str(good), "hope") == 0
    assert capsys.readouterr().out == f"{good}: ok\nhope: ok\n"


def test_check_reports_every_file_and_leaves_with_1(
    good: Path, bad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", str(bad), str(good)) == 1
    shown = capsys.readouterr()
    assert "sigmoid" in shown.err and "^^^^^^" in shown.err
    assert shown.out == f"{good}: ok\n"


def test_check_as_json(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--json", str(bad)) == 1
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report["ok"] is False and report["errors"] == 1
    finding = report["specs"][0]["findings"][0]
    assert (finding["severity"], finding["line"]) == ("error", 2)


def test_check_reads_stdin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    feed(monkeypatch, BAD)
    assert run("check", "-") == 1
    assert "sigmod" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", [b"\xff\xfe\x00", b"", b"block", b"\x00" * 10, b"[" * 5000, b"nldsl: 1\n? ["]
)
def test_check_survives_anything(
    text: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(monkeypatch, text)
    assert run("check", "-") in (0, 1)
    shown = capsys.readouterr().err
    assert "Traceback" not in shown and "NL1000" not in shown


@pytest.mark.parametrize("name", ["nothing_here", "missing.nl", "/", "a\nb", ""])
def test_check_of_nothing_is_a_finding(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", name) == 1
    shown = capsys.readouterr().err
    assert "error[NL" in shown and "NL1000" not in shown


def test_check_binds_settings(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "hope", "--set", "dim=63") == 1
    assert run("check", "hope", "--set", "dim=64", "--set", "heads=2") == 0


# --- fmt -------------------------------------------------------------------------------------


def test_fmt_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ugly.nl"
    path.write_text(UGLY)
    assert run("fmt", "--check", str(path)) == 1
    assert run("fmt", "--diff", str(path)) == 1
    assert "-block twice( x ){" in capsys.readouterr().out
    assert path.read_text() == UGLY
    assert run("fmt", str(path)) == 0
    assert path.read_text() == GOOD
    assert run("fmt", "--check", str(path)) == 0


def test_fmt_of_stdin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    feed(monkeypatch, UGLY)
    assert run("fmt", "-") == 0
    assert capsys.readouterr().out == GOOD


def test_fmt_leaves_what_does_not_parse(
    tmp_path: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.nl"
    path.write_text("block f(x) { return ) }\n")
    assert run("fmt", str(path), str(good)) == 1
    assert path.read_text() == "block f(x) { return ) }\n"


# --- convert ---------------------------------------------------------------------------------


def test_convert_there_and_back(good: Path, tmp_path: Path) -> None:
    yaml, again = tmp_path / "a.yaml", tmp_path / "again.nl"
    assert run("convert", str(good), "-o", str(yaml)) == 0
    assert yaml.read_text().startswith("nldsl: 1")
    assert run("convert", str(yaml), "-o", str(again)) == 0
    assert again.read_text() == GOOD


def test_convert_of_stdin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    feed(monkeypatch, "nldsl: 1\nblock twice:\n  takes: [x]\n  body:\n    - y = 2 * x\n    - return y\n")
    assert run("convert", "-", "--from", "yaml") == 0
    assert capsys.readouterr().out == GOOD


def test_convert_never_overwrites_its_input(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", str(good), "-o", str(good), "--to", "yaml") == 2
    assert "NL1014" in capsys.readouterr().err
    assert good.read_text() == GOOD


@pytest.mark.parametrize(
    ("name", "form"), [("a.yaml", "text"), ("a.YML", "text"), ("a.nl", "yaml"), ("a.txt", "yaml")]
)
def test_convert_names_no_file_after_the_other_form(
    name: str, form: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    misleading = name != "a.txt"
    assert run("convert", str(good), "-o", str(path), "--to", form) == (2 if misleading else 0)
    assert ("NL1015" in capsys.readouterr().err) == misleading
    assert path.exists() != misleading


@pytest.mark.parametrize("form", ["svg", "dot", "json", "mmd", "html"])
def test_graph_names_no_file_after_another_form(
    form: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.png"
    assert run("graph", str(good), "--set", "x=2", "--format", form, "-o", str(path)) == 2
    assert f"`--format {form}` writes {form}, and `{path}` says png" in capsys.readouterr().err
    assert not path.exists()
    for fits in (f"a.{form}", "a.data"):
        assert run("graph", str(good), "--set", "x=2", "--format", form, "-o", str(tmp_path / fits)) == 0


@pytest.mark.parametrize("option", [["--seed", "0"], ["--top-k", "3"], ["--top-p", "0.5"]])
def test_generate_refuses_what_draws_nothing(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", str(tmp_path), "--temperature", "0", *option) == 2
    said = capsys.readouterr().err
    assert "NL1024" in said and f"`{option[0]}` draws nothing" in said


def test_a_file_of_nothing_is_told_a_block_of_its_own_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("a.yaml", "nldsl: 1\n"), ("a.nl", "")):
        path = tmp_path / name
        path.write_text(text)
        assert run("explain", str(path)) == 1
        help_line = capsys.readouterr().err.rpartition("help: define one: `")[2]
        path.write_text(text + help_line.strip().rstrip("`") + "\n")
        assert run("check", str(path)) == 0
        capsys.readouterr()


def test_convert_of_what_does_not_parse(
    bad: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(monkeypatch, "block f(x) { return ) }")
    assert run("convert", "-") == 1
    assert "error[NL01" in capsys.readouterr().err


# --- graph and explain -----------------------------------------------------------------------


def test_graph_writes_every_form(tmp_path: Path) -> None:
    for form in ("svg", "html", "dot", "json"):
        assert run("graph", "hope", "-o", str(tmp_path / f"hope.{form}")) == 0
    ElementTree.fromstring((tmp_path / "hope.svg").read_text("utf-8"))
    assert (tmp_path / "hope.html").read_text("utf-8").startswith("<!doctype html>")
    assert json.loads((tmp_path / "hope.json").read_text("utf-8"))["schema"] == 1
    for form in ("png", "pdf"):
        expected = 0 if shutil.which("dot") else 1
        assert run("graph", "hope", "-o", str(tmp_path / f"hope.{form}")) == expected


def test_graph_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("graph", "hope", "--set", "chunks=[8, 32]") == 0
    data = json.loads(capsys.readouterr().out)
    assert [level["frequency"] for level in data["levels"]][-1] == "every 8 tokens"


def test_graph_of_a_block(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run("graph", "gated_deltanet", "--block", "gated_deltanet", "--set", "dim=64", "--format", "svg") == 0
    )
    assert capsys.readouterr().out.startswith("<svg")


@pytest.mark.parametrize(
    ("arguments", "code", "exit"),
    [
        (["hope", "-o", "a.gif"], "NL1015", 2),
        (["hope", "-o", "noending"], "NL1015", 2),
        (["hope", "--format", "png"], "NL1016", 2),
        (["hope", "-o", "missing/a.svg"], "NL1001", 2),
        (["hope", "--set", "dim=what is this"], "NL1012", 2),
        (["nothing_here"], "NL0801", 1),
    ],
)
def test_graph_of_bad_input(
    arguments: list[str], code: str, exit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run("graph", *arguments) == exit
    shown = capsys.readouterr()
    assert code in shown.err and shown.out == ""
    assert list(tmp_path.iterdir()) == []


def test_graph_onto_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a.svg"
    folder.mkdir()
    assert run("graph", "hope", "-o", str(folder)) == 2
    assert "NL1003" in capsys.readouterr().err


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", "hope", "--params") == 0
    shown = capsys.readouterr().out
    for expected in (
        "level 4",
        "every 16 tokens",
        "blocks[0..3].cms.F[2].W1",
        "muon(lr = 0.02)",
        "lowerings",
    ):
        assert expected in shown


def test_explain_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", "hope", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["parameter_count"] > 0 and data["lowerings"]
    assert {t["kind"] for t in data["transfers"]} == {"condition", "backpropagate", "initialise", "generate"}


def test_explain_of_bad_input(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", str(bad), "--set", "dim=8") == 1
    assert "sigmoid" in capsys.readouterr().err


# --- new, list, doctor -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["block", "model"])
def test_new_writes_what_checks_and_is_formatted(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("new", "mine", "--kind", kind) == 0
    assert run("check", "mine.nl") == 0
    assert run("fmt", "--check", "mine.nl") == 0
    assert run("graph", "mine.nl", "--set", "dim=32", "-o", "mine.svg") == 0


def test_new_never_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.nl").write_text("kept")
    assert run("new", "mine") == 2
    assert (tmp_path / "mine.nl").read_text() == "kept"


@pytest.mark.parametrize("name", ["1a", "a b", "../a", "a" * 65, "", "for"])
def test_new_refuses_what_is_not_a_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("new", name) == 2
    assert list(tmp_path.iterdir()) == []


def test_list_has_a_line_for_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--json") == 0
    entries = json.loads(capsys.readouterr().out)["entries"]
    names = {(e["kind"], e["name"]) for e in entries}
    wanted = {
        ("models", "hope"),
        ("blocks", "cms"),
        ("rules", "muon"),
        ("objectives", "l2"),
        ("primitives", "linear"),
    }
    assert wanted <= names
    assert all(e["doc"] for e in entries), [e for e in entries if not e["doc"]]


def test_list_of_one_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "models") == 0
    shown = capsys.readouterr().out
    assert "hope" in shown and "orthogonalize" not in shown


def test_doctor_never_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert run("doctor", "--json") == 0
    findings = {f["name"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["dot (graphviz)"]["state"] == "missing"
    assert findings["python"]["state"] == "ok"
    assert run("doctor") == 0


def test_doctor_tells_what_brings_a_missing_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        if name in ("onnxscript", "lm_eval"):
            raise metadata.PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr(metadata, "version", version)
    assert run("doctor", "--json") == 0
    findings = {f["name"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["transformers"]["state"] == findings["pyarrow"]["state"] == "ok"
    for name, extra in {"onnxscript": "onnx", "lm_eval": "ecosystem"}.items():
        assert (
            findings[name]["state"] == "missing" and f"pip install 'nldsl[{extra}]'" in findings[name]["note"]
        )
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for name, (extra, _) in _OPTIONAL.items():
        assert any(word.startswith(name) for word in project["optional-dependencies"][extra]), name


# --- compile ---------------------------------------------------------------------------------


def test_compile_writes_python(tmp_path: Path) -> None:
    target = tmp_path / "hope.py"
    assert run("compile", "hope", "--set", "dim=32", "--set", "heads=2", "-o", str(target)) == 0
    compile(target.read_text("utf-8"), "hope.py", "exec")


def test_compile_of_bad_input(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compile", str(bad), "--set", "dim=8") == 1
    shown = capsys.readouterr()
    assert "sigmoid" in shown.err and shown.out == ""
