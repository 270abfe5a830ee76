"""A timeline as SVG: lanes per level, what is written but not yet visible as a rising edge."""

from __future__ import annotations

from nldsl.view.measure import fit, wrap
from nldsl.view.svg import Attribute, element, joined, plain, text
from nldsl.view.theme import LIGHT, SANS, role
from nldsl.view.timeline import Timeline, Times, Track

COLOURS = {
    "reads": "condition", "writes": "generate", "commits": "initialise",
    "bases": "non-parametric", "resets": "backpropagate",
}  # fmt: skip
"""The colour role of each kind of event."""

_LABEL, _MARGIN, _AXIS, _LANE, _PAD = 236.0, 24.0, 34.0, 13.0, 10.0
_SAW, _COUNT, _TITLE = 26.0, 74.0, 56.0
_CLOSEST = 4.0
"""Pixels between marks; closer ones become a bar."""


def draw_timeline(
    line: Timeline, wide: float = 1180.0, colours: dict[str, str] = LIGHT, titled: bool = True
) -> str:
    """The timeline as one SVG document that needs nothing else."""
    pen = _Pen(line, wide, colours)
    y, parts = (_TITLE if titled else 4.0), []
    for unit, words in (("tokens", "along one sequence"), ("steps", "along training")):
        tracks = [track for track in line.tracks if track.unit == unit]
        if not tracks:
            continue
        parts.append(pen.axis(unit, words, y))
        y += _AXIS
        for index, track in enumerate(tracks):
            parts.append(pen.track(track, y, index))
            y += tall(track)
        y += _PAD
    height = y + 34
    root: dict[str, Attribute] = {
        "xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {wide:.0f} {height:.0f}",
        "width": round(wide), "height": round(height), "font_family": SANS, "role": "img",
        "data_left": pen.left, "data_right": pen.right,
    }  # fmt: skip
    paper: dict[str, Attribute] = {"class": "fill-paper", "width": wide, "height": height}
    body = [
        element("title", {}, text(f"Timeline of {line.name}")),
        element("rect", {**paper, "fill": colours["paper"]}),
        *(
            [pen.words(fit(f"{line.name} over time", 19, wide - 48), _MARGIN, 36, 19, weight=700)]
            if titled
            else []
        ),
        *parts,
        pen.legend(y + 6),
    ]
    return element("svg", root, "\n", joined(body), "\n") + "\n"


def tall(track: Track) -> float:
    """How high the band of a track is."""
    return (
        2 * _PAD + _LANE * len(track.lanes) + (_SAW if has_saw(track) else 0) + (0 if has_saw(track) else 8)
    )


def has_saw(track: Track) -> bool:
    """Whether something written waits to become visible."""
    return bool(track.writes) and len(track.commits) < len(track.writes)


class _Pen:
    """Draws tracks on one axis per unit."""

    def __init__(self, line: Timeline, wide: float, colours: dict[str, str]) -> None:
        self.line, self.wide, self.colours = line, wide, colours
        self.left, self.right = _MARGIN + _LABEL, wide - _MARGIN - _COUNT

    def at(self, time: float, unit: str) -> float:
        """The x of the left edge of token or step `time`."""
        return self.left + (self.right - self.left) * time / self.line.length(unit)

    def words(self, words: str, x: float, y: float, size: float, colour: str = "ink", weight: int = 400,
              **more: Attribute) -> str:  # fmt: skip
        paint: dict[str, Attribute] = {
            "class": f"fill-{colour}", "x": x, "y": y, "font_size": size, "fill": self.colours[colour],
        }  # fmt: skip
        if weight != 400:
            paint["font_weight"] = weight
        return element("text", {**paint, **more}, text(words))

    def path(self, d: str, colour: str, fill: bool = False, **more: Attribute) -> str:
        name = "fill" if fill else "stroke"
        other: dict[str, Attribute] = {} if fill else {"fill": "none"}
        return element(
            "path", {"class": f"{name}-{colour}", "d": d, name: self.colours[colour], **other, **more}
        )

    def axis(self, unit: str, words: str, y: float) -> str:
        """Ticks at round numbers and what the axis counts."""
        length = self.line.length(unit)
        step = nice(length / 8)
        parts = [self.words(f"{unit} {words}", _MARGIN, y + 22, 12, "soft", 600)]
        for tick in range(0, length + 1, step):
            x = self.at(tick, unit)
            parts.append(self.path(f"M{plain(x)} {plain(y + 26)}v5", "frame"))
            parts.append(self.words(str(tick), x, y + 21, 10.5, "soft", text_anchor="middle"))
        return element("g", {"class": "axis"}, *parts)

    def track(self, track: Track, y: float, index: int) -> str:
        height = tall(track)
        band: dict[str, Attribute] = {
            "x": _MARGIN, "y": y, "width": self.wide - 2 * _MARGIN, "height": height - 3, "rx": 7,
        }  # fmt: skip
        name = "band-a" if index % 2 == 0 else "band-b"
        parts = [
            element("rect", {"class": f"fill-{name}", **band, "fill": self.colours[name]}),
            self.label(track, y),
        ]
        row = y + _PAD
        for lane, times in track.lanes:
            parts.append(self.lane(lane, times, track.unit, row))
            row += _LANE
        if has_saw(track):
            parts.append(self.saw(track, row + 3))
        about: dict[str, Attribute] = {"class": "track", "data_track": self.line.tracks.index(track)}
        hint = f"level {track.level}, {track.frequency}: {', '.join(track.problems)}"
        return element("g", about, element("title", {}, text(hint)), *parts)

    def label(self, track: Track, y: float) -> str:
        x, room = _MARGIN + 14, _LABEL - 62
        kind = role(track.kind)
        bar: dict[str, Attribute] = {"x": _MARGIN, "y": y, "width": 4, "height": tall(track) - 3, "rx": 2}
        paint: dict[str, Attribute] = {"class": f"fill-{kind}-edge", "fill": self.colours[f"{kind}-edge"]}
        names = wrap(", ".join(track.names), 12.5, room, 2)
        under = y + 20 + 15 * len(names)
        parts = [
            element("rect", {**paint, **bar}),
            *(self.words(line, x, y + 20 + 15 * i, 12.5, weight=700) for i, line in enumerate(names)),
            self.words(fit(f"level {track.level} · {track.frequency}", 10.5, room), x, under, 10.5, "soft"),
        ]
        return "".join(parts)

    def lane(self, name: str, times: Times, unit: str, y: float) -> str:
        """Marks where they can be told apart, else a bar as long as they go on."""
        colour, middle = COLOURS[name], y + _LANE / 2
        parts = [
            self.words(name, self.left - 8, middle + 3.5, 9.5, "soft", text_anchor="end"),
            self.path(f"M{plain(self.left)} {plain(middle)}H{plain(self.right)}", "rule", stroke_width=0.6),
            self.words(f"{len(times):,}", self.right + 12, middle + 3.5, 10, colour, 600),
        ]
        shape = self.marks(name, times, unit, middle)
        return "".join([*parts, shape])

    def marks(self, name: str, times: Times, unit: str, y: float) -> str:
        if not times:
            return ""
        colour = COLOURS[name]
        first, last = self.at(times[0], unit), self.at(times[-1] + 1, unit)
        pitch = (self.at(times[-1], unit) - self.at(times[0], unit)) / max(1, len(times) - 1)
        if len(times) > 1 and pitch < _CLOSEST:
            d = f"M{plain(first)} {plain(y - 2.5)}H{plain(last)}v5H{plain(first)}Z"
            return self.path(d, colour, fill=True, fill_opacity=0.75)
        if name in ("reads", "writes"):
            half = min(pitch * 0.3, 5.0) if len(times) > 1 else 2.0
            d = "".join(f"M{plain(self.middle(t, unit) - half)} {plain(y)}h{plain(2 * half)}" for t in times)
            return self.path(d, colour, stroke_width=4, stroke_linecap="round" if half > 2 else "butt")
        r = min(4.6, pitch / 2) if len(times) > 1 else 4.6
        mark = f"l{plain(r)} {plain(r)}l{plain(-r)} {plain(r)}l{plain(-r)} {plain(-r)}Z"
        d = "".join(f"M{plain(self.end(t, unit))} {plain(y - r)}{mark}" for t in times)
        return self.path(d, colour, fill=True)

    def middle(self, time: int, unit: str) -> float:
        return self.at(time + 0.5, unit)

    def end(self, time: int, unit: str) -> float:
        """Commits happen behind the token; the last one stays within the axis."""
        return self.at(time + 1, unit)

    def saw(self, track: Track, y: float) -> str:
        """How much is written but not visible yet: rises with every write, falls at a commit."""
        ends = sorted({-1, *track.commits, *track.resets, self.line.length(track.unit) - 1})
        writes = [sum(a < t <= b for t in _between(track.writes, a, b)) for a, b in _pairs(ends)]
        most, floor = max(writes, default=0), y + _SAW - 6
        parts, top = [], _SAW - 9
        if (self.right - self.left) / len(writes) < _CLOSEST / 2:
            # Teeth that nobody could tell apart: their middle, from the first write to the last.
            first, last = self.at(track.writes[0], track.unit), self.at(track.writes[-1] + 1, track.unit)
            parts.append(f"M{plain(first)} {plain(floor)}v{plain(-top / 2)}H{plain(last)}V{plain(floor)}Z")
            ends = ends[:1]
        for (a, b), count in zip(_pairs(ends), writes, strict=False):
            if not count:
                continue
            x0, x1 = self.at(a + 1, track.unit), self.at(b + 1, track.unit)
            parts.append(
                f"M{plain(x0)} {plain(floor)}L{plain(x1)} {plain(floor - top * count / most)}V{plain(floor)}Z"
            )
        said = self.words("waiting", self.left - 8, floor - 1, 9.5, "soft", text_anchor="end")
        many = self.words(f"≤ {most:,}", self.right + 12, floor - 1, 10, "soft")
        shape = self.path("".join(parts), "generate", fill=True, fill_opacity=0.28)
        return said + shape + many

    def legend(self, y: float) -> str:
        """What the lanes are, for those that occur."""
        words = {
            "reads": "reads: asked by the forward pass or the optimiser",
            "writes": "writes: the running state moves",
            "commits": "commits: what was written becomes visible",
            "bases": "bases: where gradients are taken moves",
            "resets": "resets: starts anew",
        }
        present = {name for track in self.line.tracks for name, times in track.lanes if times}
        parts, x = [], _MARGIN
        for name, said in words.items():
            if name not in present:
                continue
            dot: dict[str, Attribute] = {
                "class": f"fill-{COLOURS[name]}",
                "cx": x + 5,
                "cy": y + 10,
                "r": 4.5,
            }
            parts.append(element("circle", {**dot, "fill": self.colours[COLOURS[name]]}))
            parts.append(self.words(said, x + 16, y + 14, 11, "soft"))
            x += 40 + 5.9 * len(said)
        return element("g", {"class": "legend"}, *parts)


def _pairs(ends: list[int]) -> list[tuple[int, int]]:
    return list(zip(ends, ends[1:], strict=False))


def _between(times: Times, a: int, b: int) -> Times:
    """The part of `times` from a to b, cheap for ranges."""
    if isinstance(times, range):
        low = max(0, -(-(a + 1 - times.start) // times.step))
        return times[low : max(low, (b - times.start) // times.step + 1)]
    return times


def nice(step: float) -> int:
    """The smallest of 1, 2, 4, 8, 16 ... that is at least `step`: ticks fall on the clocks.

    Example:
        >>> nice(0.3), nice(5.0), nice(64.0)
        (1, 8, 64)
    """
    power = 1
    while power < step:
        power *= 2
    return power
