"""Pictures of runs: every point is where its number says, runs are told apart, bad folders are findings."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nldsl.cli import main
from nldsl.train.config import RunConfig
from nldsl.train.plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, compare_svg

SVG = "{http://www.w3.org/2000/svg}"


def log_of(start: float, steps: int = 4) -> list[dict[str, float]]:
    records: list[dict[str, float]] = []
    for step in range(1, steps + 1):
        records.append(
            {"step": step, "tokens": 100 * step, "seconds": step / 2, "bits_per_byte": start - step}
        )
    records.append(
        {"step": steps, "tokens": 100 * steps, "seconds": 2.0, "heldout_bits_per_byte": start - 2.5}
    )
    return records


def nldsl(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0)


@pytest.mark.parametrize("by", ["step", "tokens", "seconds"])
def test_points_are_where_their_numbers_say(by: str) -> None:
    runs = {"first <run>": log_of(8.0), "second": log_of(7.0, 2)}
    picture = ElementTree.fromstring(compare_svg(runs, by))
    lines = [line.get("points", "").split() for line in picture.iter(f"{SVG}polyline")]
    assert [len(points) for points in lines] == [4, 1, 2, 1]
    first, last = (tuple(map(float, lines[0][i].split(","))) for i in (0, -1))
    assert first[0] == pytest.approx(LEFT + (WIDTH - LEFT - RIGHT) / 4, abs=0.1) and first[1] == TOP
    assert last == pytest.approx((WIDTH - RIGHT, HEIGHT - BOTTOM), abs=0.1)
    names = [text.text for text in picture.iter(f"{SVG}text")]
    assert {"first <run>", "second", by} <= set(names)
    colours = {line.get("stroke") for line in picture.iter(f"{SVG}polyline")}
    assert len(colours) == 2


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, start in (("a", 8.0), ("b", 7.0)):
        (tmp_path / name).mkdir()
        RunConfig("x", steps=4).write(tmp_path / name)
        lines = [json.dumps(record) + "\n" for record in log_of(start)]
        (tmp_path / name / "log.jsonl").write_text("".join(lines) + '{"step": 5, "cut')
    assert nldsl("plot", "a", "b", "-o", "both.svg") == 0
    said = capsys.readouterr().out
    assert "a: 4 steps, 5.5000 bits per byte held out" in said and "b: 4 steps, 4.5000" in said
    ElementTree.parse(tmp_path / "both.svg")
    (tmp_path / "c").mkdir()
    assert nldsl("plot", "a", "c") == 1 and "NL0982" in capsys.readouterr().err
    RunConfig("x", steps=4).write(tmp_path / "c")
    assert nldsl("plot", "a", "c") == 1 and "NL0982" in capsys.readouterr().err
    assert nldsl("plot", "a", "--by", "mood") == 2
    assert nldsl("plot", "a", "-o", "both.png") == 2 and "NL1015" in capsys.readouterr().err
    assert not (tmp_path / "both.png").exists()
