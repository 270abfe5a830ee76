"""`--set` values, and what the operating system refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nldsl.catalog.values import Static
from nldsl.cli import main
from nldsl.cli.common import write_atomic
from nldsl.cli.guard import CommandError, describe_os_error
from nldsl.cli.settings import parse_settings, parse_value
from nldsl.diagnostics import catalogue


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        ("-4", -4),
        ("0.5", 0.5),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("true", True),
        ("false", False),
        ("attention", "attention"),
        ('"raw"', "raw"),
        ("'a b'", "a b"),
        ("[]", ()),
        ("[16]", (16,)),
        ("[16, 64,]", (16, 64)),
        (" [ 1.5 , name ] ", (1.5, "name")),
    ],
)
def test_values(text: str, value: Static) -> None:
    found = parse_value(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 2",
        "a b",
        "[1",
        "1]",
        "[[1]]",
        "[1,,2]",
        "'a",
        "a'b'",
        "1e400",
        "1" * 400,
        "nan-1",
        "__import__('os')",
        "x" * 20_000,
        "{}",
    ],
)
def test_bad_values_are_coded(text: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_value(text)
    assert caught.value.code == "NL1012"
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (["dim"], "NL1010"),
        (["=4"], "NL1011"),
        (["a-b=4"], "NL1011"),
        (["a=1", "a=2"], "NL1013"),
        (["block=x"], "NL1011"),
    ],
)
def test_bad_settings_are_coded(settings: list[str], code: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_settings(settings)
    assert caught.value.code == code


BAD_OPTIONS = {
    "--compile": (["train", "gated_deltanet", "--steps", "1", "--compile", "maybe"], "`maybe`"),
    "--on-fault": (["train", "gated_deltanet", "--steps", "1", "--on-fault", "shrug"], "`shrug`"),
    "--spike": (["train", "gated_deltanet", "--steps", "1", "--spike", "0.5"], "0.5"),
    "--recompute": (["plan", "gated_deltanet", "--recompute", "all"], "`all`"),
    "--precision": (["train", "gated_deltanet", "--steps", "1", "--precision", "int4"], "`int4`"),
    "--steps": (["train", "gated_deltanet"], "`--minutes`"),
    "--parallel": (["train", "gated_deltanet", "--steps", "1", "--parallel", "tensor"], "`tensor`"),
    "--backend": (["train", "gated_deltanet", "--steps", "1", "--backend", "mpi"], "`mpi`"),
    "--parallel ": (["plan", "gated_deltanet", "--devices", "2", "--parallel", "tensor"], "`tensor`"),
    "--heldout": (["data", "prepare", __file__, "--heldout", "2"], "2"),
    "--full": (["verify", "gated_deltanet", "--set", "full=1"], "`full`"),
    "--compile ": (["verify", "gated_deltanet", "--set", "compiled=1"], "`compiled`"),
}
"""By the option at fault: what was typed, and what else the finding says."""


@pytest.mark.parametrize("option", BAD_OPTIONS)
def test_findings_name_the_option_that_was_typed(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, found = BAD_OPTIONS[option]
    place = ["--out", str(tmp_path / "new")] if words[0] in ("train", "data") else []
    with pytest.raises(SystemExit):
        main([*words, *place])
    said = capsys.readouterr().err
    assert option.strip() in said and found in said
    assert "NL0981" in said or "NL1011" in said
    assert not (tmp_path / "new").exists()


def test_settings_keep_their_order_and_allow_equal_signs_in_text() -> None:
    assert parse_settings(["b=1", 'a="x=y"']) == {"b": 1, "a": "x=y"}
    assert parse_settings(None) == {}


@pytest.mark.parametrize("wrong", [FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError])
def test_os_errors_are_coded(wrong: type[OSError]) -> None:
    numbers = {FileNotFoundError: 2, PermissionError: 13, IsADirectoryError: 21, NotADirectoryError: 20}
    code, message, _ = describe_os_error(wrong(numbers[wrong], "text", "a.nl"))
    assert code in catalogue() and "`a.nl`" in message


def test_an_os_error_without_a_name_is_coded_too() -> None:
    assert describe_os_error(OSError("strange"))[0] == "NL1006"


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.txt"
    write_atomic(target, "old")
    monkeypatch.setattr(os, "replace", lambda a, b: (_ for _ in ()).throw(OSError(28, "no space", str(b))))
    with pytest.raises(OSError, match="no space"):
        write_atomic(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_writing_keeps_the_mode_and_follows_links(tmp_path: Path) -> None:
    target, link = tmp_path / "a.txt", tmp_path / "b.txt"
    write_atomic(target, "old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_atomic(link, b"new")
    assert (target.read_text(), link.is_symlink(), target.stat().st_mode & 0o777) == ("new", True, 0o640)


def test_the_input_is_never_overwritten(tmp_path: Path) -> None:
    source, link = tmp_path / "a.nl", tmp_path / "b.nl"
    source.write_text("block f(x) { return x }\n")
    link.hardlink_to(source)
    with pytest.raises(CommandError) as caught:
        write_atomic(link, "", inputs=[source])
    assert caught.value.code == "NL1014"
