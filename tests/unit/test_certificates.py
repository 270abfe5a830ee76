"""Certificates beside compiled files: kept when asked, and worth nothing once something was edited."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nldsl.certify import CertificateWarning, load_compiled, standing
from nldsl.certify.artefact import beside
from tests.unit.commands import run

TEXT = "block twice(x) {\n  return linear(2 * x)\n}\n"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    spec, target = tmp_path / "twice.nl", tmp_path / "twice.py"
    spec.write_text(TEXT)
    assert run("compile", str(spec), "--set", "dim=4", "-o", str(target), "--verify") == 0
    return target


def test_the_certificate_stands_beside_the_file_and_holds(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = json.loads(beside(made).read_text())
    assert kept["certificate"]["passed"] and kept["file"] == "twice.py" and len(kept["sha256"]) == 64
    capsys.readouterr()
    assert run("verify", str(made)) == 0
    assert "as certified: `twice`" in capsys.readouterr().out
    layer = load_compiled(made, seed=1)
    y, _ = layer(torch.ones(1, 2, 4))
    assert y.shape == (1, 2, 4)
    found = vars(layer)["certificate"]
    assert found.problems == () and found.certificate["spec"] == "twice"


def test_an_edited_file_is_not_what_was_certified(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.write_text(made.read_text().replace("2 * x", "3 * x"))
    assert standing(made).problems == ("the file was edited after it was written",)
    assert run("verify", str(made)) == 1
    assert "the certificate does not match: the file was edited" in capsys.readouterr().out
    with pytest.warns(CertificateWarning, match="edited after it was written"):
        load_compiled(made)


def test_an_edited_specification_is_noticed(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.with_suffix(".nl").write_text(TEXT.replace("2", "3"))
    assert run("verify", str(made), "--json") == 1
    data = json.loads(capsys.readouterr().out)
    assert not data["holds"] and "twice.nl` has changed since" in data["problems"][0]


def test_a_file_without_a_certificate_loads(made: Path) -> None:
    beside(made).unlink()
    assert vars(load_compiled(made))["certificate"] is None


def test_a_certificate_that_exists_is_kept_if_it_fits(made: Path, tmp_path: Path) -> None:
    spec, cert = str(made.with_suffix(".nl")), str(tmp_path / "cert.json")
    assert run("verify", spec, "--set", "dim=4", "-o", cert) == 0
    other = tmp_path / "other.py"
    asked = ("compile", spec, "-o", str(other), "--certificate", cert)
    assert run(*asked, "--set", "dim=4") == 0 and standing(other).problems == ()
    data = json.loads(Path(cert).read_text())
    Path(cert).write_text(json.dumps(data | {"passed": False}))
    assert run(*asked, "--set", "dim=4") == 2
    Path(spec).write_text(TEXT.replace("2", "3"))
    Path(cert).write_text(json.dumps(data))
    assert run(*asked, "--set", "dim=4") == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("compile", "SPEC", "--verify"), "NL1034"),
        (("compile", "SPEC", "--verify", "-o", "-"), "NL1034"),
        (("compile", "SPEC", "--verify", "--certificate", "FILE", "-o", "OTHER"), "NL1024"),
        (("compile", "SPEC", "--certificate", "missing.json", "-o", "OTHER"), "NL1001"),
        (("compile", "SPEC", "--certificate", "SPEC", "-o", "OTHER"), "NL1034"),
        (("verify", "missing.py"), "NL1001"),
        (("verify", "FILE", "--long"), "NL1024"),
        (("verify", "BARE"), "NL1034"),
        (("verify", "DAMAGED"), "NL1034"),
    ],
)
def test_bad_requests(
    arguments: tuple[str, ...],
    code: str,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    bare, damaged = tmp_path / "bare.py", tmp_path / "damaged.py"
    for path in (bare, damaged):
        path.write_text("x = 1\n")
    beside(damaged).write_text('{"certificate": {"sections": 3}}')
    names = {"SPEC": made.with_suffix(".nl"), "FILE": made, "OTHER": "o.py", "BARE": bare, "DAMAGED": damaged}
    given = [str(names.get(a, a)) for a in arguments]
    capsys.readouterr()
    size = ["--set", "dim=4"] if given[0] == "compile" else []
    assert run(*given, *size) == 2
    assert code in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"), [("seed", 7), ("torch", "9.9"), ("passed", 1), ("spec", "another")]
)
def test_an_edited_certificate_is_noticed(
    made: Path, key: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads(beside(made).read_text())
    record["certificate"][key] = value
    beside(made).write_text(json.dumps(record))
    assert run("verify", str(made)) == 1
    assert "the certificate was edited after it was written" in capsys.readouterr().out


def test_a_certificate_may_be_laid_out_anew(made: Path) -> None:
    beside(made).write_text(json.dumps(json.loads(beside(made).read_text()), indent=7))
    assert standing(made).problems == ()
