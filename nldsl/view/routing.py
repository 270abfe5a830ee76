"""Orthogonal wires for nets: trunks in the channels between rows, corridors between boxes.

Channel `c` lies above row `c`.  A net uses all channels from its highest to its lowest member; in
each it has one horizontal trunk on a lane of its own, and where it passes a row it takes a corridor
between two boxes.  So no wire runs through a box, and no two wires lie on each other.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from nldsl.view.arrange import Row
from nldsl.view.columns import Across
from nldsl.view.geometry import Net

LANE = 9.0
_KEEP_BOX, _KEEP_WIRE, _KEEP_FRAME = 9.0, 7.0, 6.0
_PORT_PITCH, _PORT_MARGIN, _STEP = 15.0, 14.0, 2.0


@dataclass
class Pin:
    """An end of a net at a box: `top` says at which edge, `arrow` whether the net comes in there."""

    net: int
    member: str
    top: bool
    channel: int
    arrow: bool
    x: float = 0.0


@dataclass
class Plan:
    """Symbolic routes: pins by channel and net, corridors by net and row, lanes by channel and net."""

    pins: dict[tuple[int, int], list[Pin]] = field(default_factory=lambda: defaultdict(list))
    corridors: dict[tuple[int, int], float] = field(default_factory=dict)
    lanes: dict[tuple[int, int], int] = field(default_factory=dict)
    lane_count: dict[int, int] = field(default_factory=dict)
    span: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)

    def corridors_at(self, channel: int, net: int) -> list[tuple[int, float]]:
        """(row, x) of the corridors of a net that open into a channel, from above and from below."""
        found = ((row, self.corridors.get((net, row))) for row in (channel - 1, channel))
        return [(row, x) for row, x in found if x is not None]


def plan_routes(rows: Sequence[Row], nets: Sequence[Net], across: Across) -> Plan:
    """Decide pins, corridors and lanes of every net."""
    return _Router(rows, nets, across).run()


class _Taken:
    """The x of all vertical lines of a channel, sorted, each with its net."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, int]] = []

    def add(self, x: float, net: int) -> None:
        insort(self.lines, (x, net))

    def near(self, x: float, distance: float) -> Iterator[tuple[float, int]]:
        """The lines less than `distance` away from `x`."""
        for other, net in self.lines[bisect_left(self.lines, (x - distance, -1)) :]:
            if other >= x + distance:
                return
            yield abs(other - x), net


class _Router:
    def __init__(self, rows: Sequence[Row], nets: Sequence[Net], across: Across) -> None:
        self.rows, self.nets, self.across = rows, nets, across
        self.row_of = {id: i for i, row in enumerate(rows) for id in row.items}
        self.taken: dict[int, _Taken] = defaultdict(_Taken)
        self.plan = Plan()
        self.pins_of = [self._pins(index, net) for index, net in enumerate(nets)]
        for pin in (p for pins in self.pins_of for p in pins):
            self.plan.pins[pin.channel, pin.net].append(pin)

    def run(self) -> Plan:
        for index in sorted(range(len(self.nets)), key=lambda i: -self._reach(i)):
            self._take_corridors(index)
        self._place_pins()
        for channel in range(len(self.rows) + 1):
            self._take_lanes(channel)
        return self.plan

    def _pins(self, index: int, net: Net) -> list[Pin]:
        rows = [self.row_of[m] for m in net.members]
        high, low = min(rows), max(rows)
        source_row = sum(self.row_of[s] for s in net.sources) / len(net.sources)
        target_row = sum(self.row_of[t] for t in net.targets) / len(net.targets)
        pins = []
        for member, arrow in [*((s, False) for s in net.sources), *((t, True) for t in net.targets)]:
            row = self.row_of[member]
            other = source_row if arrow else target_row
            top = row == low if row in (high, low) and high != low else (high == low or other < row)
            pins.append(Pin(index, member, top, row if top else row + 1, arrow))
        return pins

    def _reach(self, index: int) -> int:
        channels = [p.channel for p in self.pins_of[index]]
        return max(channels) - min(channels)

    def _take_corridors(self, index: int) -> None:
        """Through every row between two channels of the net, as straight as there is room."""
        pins = self.pins_of[index]
        channels = [p.channel for p in pins]
        centers = sorted(self.across.center(p.member) for p in pins)
        wanted = centers[len(centers) // 2]
        for row in range(min(channels), max(channels)):
            wanted = self._free_corridor(index, row, wanted)
            self.plan.corridors[index, row] = wanted
            self.taken[row].add(wanted, index)
            self.taken[row + 1].add(wanted, index)

    def _free_corridor(self, index: int, row: int, wanted: float) -> float:
        """The nearest free x; there always is one, since to the right there is no end."""
        boxes = [(self.across.left[id], self.across.width[id]) for id in self.rows[row].items]
        for step in count():
            for x in (wanted - step * _STEP, wanted + step * _STEP):
                clear = all(x < left - _KEEP_BOX or x > left + wide + _KEEP_BOX for left, wide in boxes)
                if clear and self._is_free(index, row, x):
                    return x
        raise AssertionError("count() does not end")

    def _is_free(self, index: int, row: int, x: float) -> bool:
        """Whether `x` keeps off the labels, the frames, and the lines of other nets."""
        if x < self.across.start + _KEEP_BOX:
            return False
        if any(abs(x - border) < _KEEP_FRAME for border in self.across.borders):
            return False
        return all(net == index for c in (row, row + 1) for _, net in self.taken[c].near(x, _KEEP_WIRE))

    def _place_pins(self) -> None:
        sides: dict[tuple[str, bool], list[Pin]] = defaultdict(list)
        for pin in (p for pins in self.pins_of for p in pins):
            sides[pin.member, pin.top].append(pin)
        for (member, _), pins in sorted(sides.items(), key=lambda item: (item[1][0].channel, item[0][0])):
            self._place_side(member, pins)

    def _place_side(self, member: str, pins: list[Pin]) -> None:
        left, wide = self.across.left[member], self.across.width[member]
        pins.sort(key=lambda p: (self._pull(p), p.net, p.arrow))
        pitch = min(_PORT_PITCH, (wide - 2 * _PORT_MARGIN) / max(1, len(pins) - 1))
        first = left + wide / 2 - pitch * (len(pins) - 1) / 2
        for i, pin in enumerate(pins):
            straight = self._straight(pin)
            wanted = first + i * pitch if straight is None else straight
            pin.x = self._free_pin(pin, wanted, left + 8, left + wide - 8)
            self.taken[pin.channel].add(pin.x, pin.net)

    def _straight(self, pin: Pin) -> float | None:
        """The x that makes a straight line of a pin and the one other end of its net in the channel."""
        pins = self.plan.pins[pin.channel, pin.net]
        corridors = self.plan.corridors_at(pin.channel, pin.net)
        if len(pins) + len(corridors) != 2:
            return None
        # A pin of a side that is still to come stands at 0, outside of every box.
        other = corridors[0][1] if corridors else next(p.x for p in pins if p is not pin)
        left, wide = self.across.left[pin.member], self.across.width[pin.member]
        return other if left + 8 <= other <= left + wide - 8 else None

    def _free_pin(self, pin: Pin, wanted: float, low: float, high: float) -> float:
        """The x nearest to `wanted` on the box's edge that no vertical line of the channel has."""
        same_edge = sum(p.member == pin.member for p in self.plan.pins[pin.channel, pin.net])
        # Lines of one net may fall into one, except two that end at the same edge of the same box.
        own = 11.0 if same_edge > 1 else 0.0
        taken = self.taken[pin.channel]
        for distance in (5.0, 3.0, 1.5):
            for step in range(int(high - low)):
                for x in (wanted + step, wanted - step):
                    near = taken.near(x, max(own, distance))
                    if low <= x <= high and all(d >= (own if n == pin.net else distance) for d, n in near):
                        return x
        return wanted

    def _pull(self, pin: Pin) -> float:
        """Where the rest of the net lies, seen from a pin."""
        near = [x for _, x in self.plan.corridors_at(pin.channel, pin.net)]
        others = [self.across.center(p.member) for p in self.pins_of[pin.net] if p is not pin]
        found = near or others
        return sum(found) / len(found)

    def _take_lanes(self, channel: int) -> None:
        """Lanes from the top: nets that turn up first, so that they cross fewer that turn down."""
        wanted = []
        for index in range(len(self.nets)):
            ends = self._ends(index, channel)
            xs = [x for x, _ in ends]
            if not xs:
                continue
            self.plan.span[channel, index] = min(xs), max(xs)
            if max(xs) - min(xs) > 0.5:
                wanted.append((sum(down for _, down in ends) / len(ends), max(xs) - min(xs), index))
        lanes: list[list[tuple[float, float]]] = []
        for down, _, index in sorted(wanted):
            low, high = self.plan.span[channel, index]
            free = [i for i, used in enumerate(lanes) if _fits(used, low, high)]
            # What only turns down goes as low as it can, all else as high.
            lane = (free[-1] if down == 1 else free[0]) if free else len(lanes)
            if lane == len(lanes):
                lanes.append([])
            lanes[lane].append((low, high))
            self.plan.lanes[channel, index] = lane
        self.plan.lane_count[channel] = len(lanes)

    def _ends(self, index: int, channel: int) -> list[tuple[float, int]]:
        """(x, +1 down or -1 up) of every vertical line that meets the net's trunk in a channel."""
        pins = self.plan.pins.get((channel, index), [])
        corridors = self.plan.corridors_at(channel, index)
        return [(p.x, 1 if p.top else -1) for p in pins] + [
            (x, 1 if r == channel else -1) for r, x in corridors
        ]


def _fits(used: list[tuple[float, float]], low: float, high: float) -> bool:
    return all(high + LANE < a or b + LANE < low for a, b in used)
