"""What a person does first: `new`, then a look at the block, which nobody gave a width."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_cli_commands import run


@pytest.fixture(autouse=True)
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("new", "mine") == 0


@pytest.mark.parametrize("command", [["explain"], ["timeline"], ["graph", "-o", "mine.svg"]])
def test_a_block_is_shown_at_a_width_of_its_own(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, "mine.nl") == 0
    assert "`mine` is a block: shown with dim = 64" in capsys.readouterr().err
    assert run(*command, "mine.nl", "--set", "dim=32") == 0
    assert "shown with" not in capsys.readouterr().err


def test_two_blocks_are_compared_at_the_same_width(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.nl").write_text(Path("mine.nl").read_text().replace("beta)", "0.5 * beta)"))
    assert run("diff", "mine.nl", "mine.nl") == 0
    assert run("diff", "mine.nl", "other.nl") == 1


def test_what_is_compiled_needs_a_width(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compile", "mine.nl") == 1
    assert "`--set dim=64`" in capsys.readouterr().err


def test_a_file_named_without_its_ending(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "mine") == 1
    assert "did you mean `mine.nl`?" in capsys.readouterr().err


def test_memories_of_one_name_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    text = Path("mine.nl").read_text()
    pair = (
        text
        + text.replace("block mine(", "block twin(")
        + (
            "model m(tokens, vocab = 64, dim = 32) {\n  x = embed(tokens, vocab, dim)\n"
            "  x = x + mine(norm(x))\n  x = x + twin(norm(x))\n  return head(norm(x), vocab)\n}\n"
        )
    )
    Path("pair.nl").write_text(pair)
    assert run("explain", "pair.nl") == 0
    assert "`twin.S` at t needs `mine.S` at t" in capsys.readouterr().out
    assert run("timeline", "pair.nl") == 0
    said = next(line for line in capsys.readouterr().out.splitlines() if "slow parameters" in line)
    roles = said.partition(": ")[2].split(", ")
    assert len(roles) == len(set(roles)) > 1


def test_converting_says_that_comments_stay_behind(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", "mine.nl", "-o", "mine.yaml") == 0
    assert "comments are not carried over: 3 stay behind" in capsys.readouterr().err
    assert run("convert", "mine.yaml") == 0
    assert "stay behind" not in capsys.readouterr().err


def test_a_schedule_outside_of_training_is_no_slip_for_another_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = Path("mine.nl").read_text().replace("sigmoid(linear(x, heads))", "cosine(0.1)")
    Path("mine.nl").write_text(text)
    assert run("check", "mine.nl", "--fix") == 1
    assert "`cosine` is a schedule of steps" in capsys.readouterr().err
    assert Path("mine.nl").read_text() == text


@pytest.mark.parametrize("command", [["plan"], ["train", "--out", "run", "--steps", "1", "--data", "text"]])
def test_a_block_is_not_asked_for_a_width_before_it_is_refused(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text").write_text("some text to be trained on\n" * 200)
    name, *options = command
    assert run(name, "mine.nl", *options) == 1
    said = capsys.readouterr().err
    assert "NL0987" in said and "NL0319" not in said
    Path("mine.nl").write_text(Path("mine.nl").read_text().replace("linear(", "lineer("))
    assert run(name, "mine.nl", *options) == 1
    said = capsys.readouterr().err
    assert "did you mean `linear`" in said and "NL0319" not in said
