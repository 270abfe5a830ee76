"""From symbolic routes and the heights of rows to lines in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.view.geometry import End, Junction, Net, Pixel, Rect, Route, Wire
from nldsl.view.routing import LANE, Pin, Plan

CORNER = 7.0
CHANNEL_PAD = 16.0


@dataclass(frozen=True)
class Down:
    """The vertical half: top and height of every channel and row."""

    channels: tuple[tuple[float, float], ...]
    rows: tuple[tuple[float, float], ...]

    def middle(self, row: int) -> float:
        """The y of the middle of a row."""
        top, height = self.rows[row]
        return top + height / 2

    def lane(self, plan: Plan, channel: int, net: int) -> float:
        """The y of a net's trunk in a channel; its middle if the net only passes."""
        top, height = self.channels[channel]
        count = plan.lane_count[channel]
        index = plan.lanes.get((channel, net))
        middle = top + height / 2
        return middle if index is None else middle + (index - (count - 1) / 2) * LANE


def draw_wires(nets: Sequence[Net], plan: Plan, down: Down, boxes: dict[str, Rect]) -> tuple[Route, ...]:
    """The lines of every net."""
    channels: dict[int, list[int]] = {i: [] for i in range(len(nets))}
    for channel, index in sorted(plan.span):
        channels[index].append(channel)
    return tuple(_route(i, net, channels[i], plan, down, boxes) for i, net in enumerate(nets))


def _route(
    index: int, net: Net, channels: list[int], plan: Plan, down: Down, boxes: dict[str, Rect]
) -> Route:
    wires: list[Wire] = []
    dots: list[Pixel] = []
    junctions: list[Junction] = []
    for channel in channels:
        y = down.lane(plan, channel, index)
        low, high = plan.span[channel, index]
        ends = [_pin_end(p, boxes) for p in plan.pins.get((channel, index), [])]
        # Half of a corridor is drawn from the channel above it, half from the one below.
        ends += [End(x, down.middle(row)) for row, x in plan.corridors_at(channel, index)]
        junctions.append(Junction(y, tuple(ends)))
        dots.extend(_meetings(ends, low, high, y))
        wires.extend(_branch(end, ends, low, high, y) for end in ends)
        trunk = _trunk(ends, low, high, y)
        if trunk is not None:
            wires.append(trunk)
    return Route(net, tuple(wires), tuple(dots), tuple(junctions))


def _pin_end(pin: Pin, boxes: dict[str, Rect]) -> End:
    box = boxes[pin.member]
    return End(pin.x, box.y if pin.top else box.bottom, pin.member, pin.arrow)


def _is_corner(end: End, ends: list[End], low: float, high: float) -> bool:
    """Whether the trunk ends in this line alone, so that the two make a corner."""
    at_end = abs(end.x - low) < 0.5 or abs(end.x - high) < 0.5
    return high - low > 2 * CORNER and at_end and sum(abs(e.x - end.x) < 0.5 for e in ends) == 1


def _branch(end: End, ends: list[End], low: float, high: float, y: float) -> Wire:
    if _is_corner(end, ends, low, high):
        inward = end.x + CORNER if abs(end.x - low) < 0.5 else end.x - CORNER
        return Wire(((inward, y), (end.x, y), (end.x, end.y)), end.member, end.arrow)
    return Wire(((end.x, y), (end.x, end.y)), end.member, end.arrow)


def _trunk(ends: list[End], low: float, high: float, y: float) -> Wire | None:
    if high - low < 0.5:
        return None
    left = low + CORNER if any(abs(e.x - low) < 0.5 and _is_corner(e, ends, low, high) for e in ends) else low
    right = (
        high - CORNER if any(abs(e.x - high) < 0.5 and _is_corner(e, ends, low, high) for e in ends) else high
    )
    return Wire(((left, y), (right, y)))


def _meetings(ends: list[End], low: float, high: float, y: float) -> list[Pixel]:
    """Where three or more lines of one net meet."""
    inside = {e.x for e in ends if low + 0.5 < e.x < high - 0.5}
    double = {e.x for e in ends if high - low > 0.5 and sum(abs(o.x - e.x) < 0.5 for o in ends) > 1}
    return [(x, y) for x in sorted(inside | double)]
