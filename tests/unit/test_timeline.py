"""The timeline of a program against the trace of the interpreter, which shares no code with it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from nldsl.cli.app import main
from nldsl.graph import open_program
from nldsl.reference import Event, Interpreter
from nldsl.spec.program import Program
from nldsl.view.timeline import MOST, Track, timeline
from nldsl.view.timeline_svg import draw_timeline
from nldsl.view.timeline_text import cells, render_timeline
from tests.conformance.builders import draw

CLOCKS = """
block clocks(x) {
  level a every 1 token  { memory A = matrix() init zero }
  level b every 3 tokens { memory B = matrix() init zero }
  level c every 4 tokens { memory C = matrix() init zero reset every 10 tokens }
  k = l2norm(x)
  A[k] <- x  by gd(lr = 0.1)
  B[k] <- A[k]  by gd(lr = 0.1)
  C[k] <- x  by gd(lr = 0.1)
  return A[k] + B[k] + C[k]
}
"""

TASK = """
model learns(tokens, vocab = 7) {
  x = embed(tokens, vocab, 8)
  for c, i in [3, 6] {
    level f every c tokens { memory F = mlp(1) }
    F minimizes task  by gd(lr = 0.01)
    x = x + F[norm(x)]
  }
  return head(x, vocab)
}
train learns { task next_token
  level pretraining every 1 step { matrices, embeddings, head, norms, rest by adamw(lr = 1e-3) }
}
"""


def opened(tmp_path: Path, text: str, **arguments: int) -> Program:
    path = tmp_path / "spec.nl"
    path.write_text(text)
    return open_program(str(path), **arguments)


def track(tracks: tuple[Track, ...], name: str) -> Track:
    return next(t for t in tracks if name in t.names)


def at(trace: list[Event], memory: str, kind: str) -> list[int]:
    """Tokens of a kind of event of a memory, in the first sample."""
    return [e.token for e in trace if (e.memory, e.sample, e.kind) == (memory, 0, kind)]


@pytest.mark.parametrize("length", [1, 3, 4, 12, 23])
def test_writes_and_commits_are_those_of_the_interpreter(tmp_path: Path, length: int) -> None:
    program = opened(tmp_path, CLOCKS, x=4)
    trace: list[Event] = []
    Interpreter(program, draw(program), trace=trace).run(torch.randn(1, length, 4, dtype=torch.float64))
    line = timeline(program, length)
    for memory in "ABC":
        found = track(line.tracks, memory)
        assert list(found.reads) == list(range(length))
        assert list(found.writes) == at(trace, memory, "write"), memory
        assert list(found.commits) == at(trace, memory, "commit"), memory
    assert list(track(line.tracks, "C").resets) == [t for t in (9, 19) if t < length]
    assert not track(line.tracks, "A").resets


@pytest.mark.parametrize("length", [1, 4, 13])
def test_task_memories_act_when_the_target_is_there(tmp_path: Path, length: int) -> None:
    """The error of token t is known with token t + 1: the commit of the interpreter's t shows at t + 1."""
    program = opened(tmp_path, TASK)
    trace: list[Event] = []
    tokens = torch.arange(length).reshape(1, length) % 7
    Interpreter(program, draw(program), trace=trace).learn(tokens)
    line = timeline(program, length)
    for index in (0, 1):
        found = track(line.tracks, f"F[{index}]")
        assert list(found.writes) == list(range(1, length))
        assert list(found.commits) == [t + 1 for t in at(trace, f"F[{index}]", "commit")]


def test_what_waits_rises_and_falls(tmp_path: Path) -> None:
    found = track(timeline(opened(tmp_path, CLOCKS, x=4), 24).tracks, "C")
    pending = [found.pending(t) for t in range(24)]
    assert pending[:10] == [1, 2, 3, 0, 1, 2, 3, 0, 1, 0]
    assert max(pending) == 3


def test_step_clocks_run_along_training() -> None:
    line = timeline(open_program("hope"))
    steps = [t for t in line.tracks if t.unit == "steps"]
    assert [t.kind for t in steps] == ["optimiser memory", "slow parameters"]
    assert all(list(t.commits) == list(range(line.steps)) for t in steps)
    assert line.tokens == 512, "twice the slowest token clock"


def test_levels_stand_from_fast_to_slow() -> None:
    levels = [float(t.level) for t in timeline(open_program("hope_attention")).tracks]
    assert levels == sorted(levels, reverse=True)


def test_the_picture_is_xml_that_names_every_track() -> None:
    line = timeline(open_program("hope"))
    root = ElementTree.fromstring(draw_timeline(line))
    words = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "hope over time" in words and "Mk, Mv, Me, Ma" in words and "F[2]" in words
    assert sum(word == "commits" for word in words) == len(line.tracks)
    assert "level 4 · every 16 tokens" in words


def test_very_long_timelines_stay_small() -> None:
    program = open_program("hope")
    assert len(draw_timeline(timeline(program, MOST))) < 60_000
    assert len(json.dumps(timeline(program, MOST).to_json())) < 5_000
    with pytest.raises(ValueError, match="1 to 65536 tokens"):
        timeline(program, MOST + 1)


def test_the_terminal_shows_lines_that_fit() -> None:
    line = timeline(open_program("hope"))
    for columns in (40, 80, 200):
        shown = render_timeline(line, columns).plain.splitlines()
        bars = [row for row in shown if row.startswith("  ")]
        assert bars and max(map(len, bars)) <= columns
    assert cells(range(15, 64, 16), 64, 64, mark=True).count("◆") == 4


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as leaving:
            main(["timeline", *arguments])
        assert isinstance(leaving.value.code, int)
        return leaving.value.code

    assert run("hope") == 0
    assert "level 3  every 64 tokens  memory: M" in capsys.readouterr().out
    assert run("hope", "--tokens", "64", "--json") == 0
    tracks = json.loads(capsys.readouterr().out)["tracks"]
    assert tracks[0]["commits"] == {"first": 15, "every": 16, "count": 4}
    assert run("hope", "-o", str(tmp_path / "t.svg")) == 0
    assert (tmp_path / "t.svg").read_text().startswith("<svg")
    assert run("hope", "-o", str(tmp_path / "t.png")) == 2
    assert run("hope", "--tokens", "0") == 2
