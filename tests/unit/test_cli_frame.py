"""The frame: help costs nothing, exit codes mean what they say, nothing a user types shows a traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import nldsl
from nldsl.cli import guard
from nldsl.cli.app import COMMANDS, requested_command
from nldsl.diagnostics import Diagnostic, SpecError, catalogue
from tests.unit.commands import run

MEASURE = """
import json, sys
before = set(sys.modules)
from nldsl.cli import main
try:
    main({arguments!r})
except SystemExit as leaving:
    code = leaving.code
print(json.dumps([code, sorted(set(sys.modules) - before)]), file=sys.stderr)
"""


def loaded(*arguments: str) -> tuple[int, set[str]]:
    """Exit code and the modules a command imports, in a fresh interpreter."""
    script = MEASURE.format(arguments=list(arguments))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules)


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], []])
def test_help_imports_typer_and_rich_only(arguments: list[str]) -> None:
    code, modules = loaded(*arguments)
    assert code == (0 if arguments else 2)
    ours = {m for m in modules if m.startswith("nldsl")}
    assert ours <= {"nldsl", "nldsl.cli", "nldsl.cli.app", "nldsl.cli.guard"}
    # typer itself looks for pydantic once a callback runs.
    heavy = {"torch", "numpy", "networkx", "lark", "graphviz", "yaml", "ruamel"}
    assert not {m.partition(".")[0] for m in modules} & heavy


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "hope"],
        ["graph", "hope"],
        ["explain", "hope"],
        ["fmt", "--check", "-"],
        ["list"],
        ["doctor"],
        ["check", "--help"],
    ],
)
def test_what_checks_and_draws_never_imports_torch(arguments: list[str]) -> None:
    _, modules = loaded(*arguments)
    assert "torch" not in modules


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


@pytest.mark.parametrize(
    "name", ["new", "check", "fmt", "convert", "explain", "graph", "list", "doctor", "version"]
)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["chekc"], ["check"], ["check", "--nope", "hope"], ["list", "things"], ["graph", "hope", "--set"]],
)
def test_wrong_usage_leaves_with_2_and_says_so(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "Traceback" not in shown.err and shown.err


def test_a_misspelt_command_is_not_loaded() -> None:
    assert requested_command(["--help", "check"]) == "check"
    assert requested_command(["os"]) is None


def test_completion_knows_the_command_that_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_NLDSL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "nldsl graph --")
    assert requested_command([]) == "graph"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == nldsl.__version__
    assert run("version", "--json") == 0
    assert json.loads(capsys.readouterr().out)["nldsl"] == nldsl.__version__


def failing(wrong: BaseException) -> int:
    def command() -> None:
        raise wrong

    return guard.guarded(command)


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (SpecError([Diagnostic("NL0301", "no such thing")]), 1, "error[NL0301]: no such thing"),
        (FileNotFoundError(2, "gone", "a.nl"), 2, "error[NL1001]: `a.nl` does not exist"),
        (FileExistsError(17, "exists", "a"), 2, "error[NL1004]: `a` is a file, expected a directory there"),
        (guard.CommandError("NL1015", "odd", "do this"), 2, "do this"),
        (ValueError("inner\nmore"), 2, "error[NL1000]: internal error: ValueError: inner"),
        (RecursionError("deep"), 2, "NL1000"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (SystemExit(3), 3, ""),
        (SystemExit("text"), 2, ""),
    ],
)
def test_the_guard(wrong: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(wrong) == code
    shown = capsys.readouterr()
    assert said in shown.err and shown.out == "" and "Traceback" not in shown.err


def test_the_traceback_is_there_for_who_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NLDSL_DEBUG", "1")
    assert failing(ValueError("inner")) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "nldsl", "graph", "hope", "--format", "html"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(60) in (0, 1)
    assert said == b""


def test_ctrl_c_leaves_with_130() -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "nldsl", "fmt", "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        # More than a pipe holds: when all is written, the command reads, and it waits for the end.
        assert process.stdin is not None
        process.stdin.write(b"# a line\n" * 100_000)
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in said


def test_every_code_of_the_command_line_is_in_the_catalogue() -> None:

    folder = Path(guard.__file__).parent
    used = {code for path in folder.glob("*.py") for code in re.findall(r"NL10\d\d", path.read_text("utf-8"))}
    assert used <= catalogue().keys()


def test_the_public_api_is_lazy_and_complete() -> None:
    script = "import sys, nldsl; assert 'torch' not in sys.modules; nldsl.check('hope'); nldsl.graph('hope');"
    script += "nldsl.explain('hope'); nldsl.program('hope'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert set(nldsl.__all__) <= set(dir(nldsl))
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = nldsl.nothing_like_this  # type: ignore[attr-defined]


def test_the_graph_is_a_room_and_a_verb() -> None:
    import nldsl.graph as room

    assert nldsl.graph("hope").name == "hope"
    assert room.build_graph and nldsl.graph is room


def test_where_to_write_is_said_in_both_spellings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command's own is in its help; a typing error is none of them."""
    texts = []
    for number, spelling in enumerate(("--out", "--output", "-o")):
        assert run("compile", "linear_attention", spelling, str(tmp_path / f"{number}.py")) == 0
        texts.append((tmp_path / f"{number}.py").read_text())
        (tmp_path / "a.txt").write_text("one")
        (tmp_path / "b.txt").write_text("two")
        given = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
        assert run("data", "prepare", *given, spelling, str(tmp_path / f"data{number}")) == 0
        assert (tmp_path / f"data{number}" / "data.json").is_file()
    assert len(set(texts)) == 1
    assert run("compile", "linear_attention", "--outputs", str(tmp_path / "x.py")) == 2
    capsys.readouterr()
    for command, own in (("compile", "--output"), ("data", "--out")):
        assert run(command, "--help") == 0
        assert set(re.findall(r"--out(?:put)?\b", capsys.readouterr().out)) == {own}
