"""A timeline for a terminal: one line per level and kind of event, a cell for one or more tokens."""

from __future__ import annotations

from bisect import bisect_left

from rich.text import Text

from nldsl.view.timeline import Timeline, Times, Track

_DENSITY = " ▁▂▃▄▅▆▇█"
_STYLES = {"reads": "blue", "writes": "magenta", "commits": "bold green", "bases": "yellow", "resets": "red"}
_LEFT, _RIGHT = 12, 9
_WIDEST = 128


def render_timeline(line: Timeline, columns: int = 100) -> Text:
    """The timeline in at most `columns` columns."""
    room = max(8, min(columns - _LEFT - _RIGHT, _WIDEST))
    shown = Text(line.name, style="bold", no_wrap=True, overflow="crop")
    for unit in ("tokens", "steps"):
        tracks = [t for t in line.tracks if t.unit == unit]
        if tracks:
            shown.append_text(_axis(unit, line.length(unit), room))
        for track in tracks:
            shown.append_text(_track(track, line.length(unit), room))
    return shown


def _axis(unit: str, length: int, room: int) -> Text:
    cell = -(-length // room)
    many = f"one cell is {cell} {unit}" if cell > 1 else f"one cell is one {unit.removesuffix('s')}"
    words = "one sequence" if unit == "tokens" else "training"
    return Text(f"\n\n{words}: {length} {unit}, {many}\n", style="dim")


def _track(track: Track, length: int, room: int) -> Text:
    text = Text()
    text.append(f"\nlevel {track.level}  {track.frequency}", style="bold")
    text.append(f"  {track.kind}: {', '.join(track.names)}\n", style="italic")
    for name, times in track.lanes:
        text.append(f"  {name:<{_LEFT - 3}} ", style="dim")
        text.append(cells(times, length, room, mark=name not in ("reads", "writes")), style=_STYLES[name])
        text.append(f" {len(times):>{_RIGHT - 2},}\n", style="dim")
    return text


def cells(times: Times, length: int, room: int, mark: bool = False) -> str:
    """How dense `times` are in each cell; with `mark` a sign where there is any.

    Example:
        >>> cells(range(3, 16, 4), 16, 16, mark=True)
        '   ◆   ◆   ◆   ◆'
        >>> cells(range(0, 16), 16, 4)
        '████'
    """
    cell = -(-length // room)
    shown = []
    for start in range(0, length, cell):
        end = min(start + cell, length)
        count = bisect_left(times, end) - bisect_left(times, start)
        if mark:
            shown.append("◆" if count else " ")
        else:
            level = -(-count * (len(_DENSITY) - 1) // (end - start))
            shown.append(_DENSITY[level])
    return "".join(shown)
