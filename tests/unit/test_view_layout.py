"""Layouts: nothing overlaps or leaves the canvas, wires keep off boxes, nets say what transfers say."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pytest

from nldsl.graph import LevelGraph, build_graph, graph_of
from nldsl.view.arrange import PORTS, arrange
from nldsl.view.geometry import Layout, Rect
from nldsl.view.layout import lay_out
from nldsl.view.measure import fit, width, wrap
from nldsl.view.nets import bundle, expand
from tests.unit import handmade as h

LONG = "a_name_that_is_much_too_long_for_any_box_" * 2


def nested() -> LevelGraph:
    inner = h.block("inner", [], [h.Call((h.value("y"),), h.layer(), (h.value("x"),), "layer")])
    outer = h.block("outer", [], [h.Repeat((h.value("y"),), inner, (h.value("x"),), 2, "blocks")])
    return build_graph(
        h.only(h.block("root", [], [h.Repeat((h.value("y"),), outer, (h.value("x"),), 3, "blocks")]))
    )


def long_names() -> LevelGraph:
    body = [h.linear("k", "x"), h.linear("eta", "x"), h.write(LONG, "k", "k"), h.read("y", LONG, "k")]
    return build_graph(h.only(h.block(LONG, [h.memory(LONG, level=LONG)], body)))


GRAPHS: dict[str, Callable[[], LevelGraph]] = {
    "hope": lambda: graph_of("hope"),
    "hope_attention": lambda: graph_of("hope_attention"),
    "transformer": lambda: graph_of("transformer"),
    "gated_deltanet": lambda: graph_of("gated_deltanet"),
    "one block": lambda: build_graph(h.only(h.layer())),
    "no memory": lambda: graph_of("swiglu", block="swiglu", dim=8),
    "twelve": lambda: build_graph(h.twelve()),
    "nested": nested,
    "long names": long_names,
    "model": lambda: build_graph(h.model(h.layer(), h.chain((4, 16, 64)), h.layer())),
}


@pytest.fixture(params=sorted(GRAPHS), scope="module")
def graph(request: pytest.FixtureRequest) -> LevelGraph:
    return GRAPHS[request.param]()


@pytest.fixture(scope="module")
def layout(graph: LevelGraph) -> Layout:
    return lay_out(graph)


def test_boxes_do_not_overlap(layout: Layout) -> None:
    for a, b in combinations(layout.boxes, 2):
        assert not a.rect.overlaps(b.rect), (a.item.id, b.item.id)


def test_everything_has_its_box(graph: LevelGraph, layout: Layout) -> None:
    assert {b.item.id for b in layout.boxes} == {p.id for p in (*graph.problems, *graph.ports)}
    assert {b.level.number for b in layout.bands} == {level.number for level in graph.levels}


def test_boxes_lie_in_the_band_of_their_level(graph: LevelGraph, layout: Layout) -> None:
    bands = {band.level.number: band.rect for band in layout.bands}
    for box in layout.boxes:
        if any(box.item.id == p.id for p in graph.problems):
            assert box.rect.inside(bands[graph.level_of(box.item.id).number])


def test_bands_stack_from_fast_to_slow(graph: LevelGraph, layout: Layout) -> None:
    assert [b.level.number for b in layout.bands] == [level.number for level in reversed(graph.levels)]
    for above, below in zip(layout.bands, layout.bands[1:], strict=False):
        assert above.rect.bottom <= below.rect.y + 1e-6


def test_nothing_leaves_the_canvas(layout: Layout) -> None:
    rects = [b.rect for b in (*layout.boxes, *layout.bands, *layout.columns, *layout.frames)]
    rects += [e.rect for e in layout.legend] + [c.header for c in layout.columns]
    assert all(rect.inside(layout.canvas) for rect in rects)
    for route in layout.routes:
        for wire in route.wires:
            assert all(0 <= x <= layout.canvas.w and 0 <= y <= layout.canvas.h for x, y in wire.points)


def test_boxes_keep_off_the_labels_of_levels(layout: Layout) -> None:
    for band in layout.bands:
        assert not any(band.label.overlaps(box.rect) for box in layout.boxes)
        assert band.label.inside(band.rect)


def test_wires_run_through_no_box(layout: Layout) -> None:
    for route in layout.routes:
        for wire in route.wires:
            for (x1, y1), (x2, y2) in zip(wire.points, wire.points[1:], strict=False):
                line = Rect(min(x1, x2), min(y1, y2), abs(x2 - x1) + 1e-3, abs(y2 - y1) + 1e-3)
                hit = [b.item.id for b in layout.boxes if line.overlaps(shrunk(b.rect))]
                assert not hit, (route.net.kind, hit)


def test_wires_of_different_nets_do_not_lie_on_each_other(layout: Layout) -> None:
    lines = []
    for number, route in enumerate(layout.routes):
        for wire in route.wires:
            for (x1, y1), (x2, y2) in zip(wire.points, wire.points[1:], strict=False):
                lines.append(
                    (number, x1 == x2, x1 if x1 == x2 else y1, *sorted((y1, y2) if x1 == x2 else (x1, x2)))
                )
    for (n, upright, at, low, high), (m, other, place, start, end) in combinations(lines, 2):
        if n != m and upright == other and abs(at - place) < 1.0:
            assert min(high, end) - max(low, start) < 1.0, (layout.routes[n].net, layout.routes[m].net)


def test_wires_end_at_their_boxes(layout: Layout) -> None:
    boxes = {b.item.id: b.rect for b in layout.boxes}
    for route in layout.routes:
        ends = {w.member for w in route.wires if w.member}
        assert ends == set(route.net.members)
        arrows = {w.member for w in route.wires if w.arrow}
        assert arrows == set(route.net.targets)
        for wire in route.wires:
            if wire.member:
                x, y = wire.points[-1]
                rect = boxes[wire.member]
                assert rect.x <= x <= rect.right and y in (rect.y, rect.bottom)


def test_nets_stand_for_exactly_the_transfers(graph: LevelGraph) -> None:
    wanted = {(t.kind, t.source, t.target) for t in graph.transfers if not t.wraps}
    assert expand(bundle(graph)) == wanted


def test_rows_hold_every_problem_once(graph: LevelGraph) -> None:
    rows = arrange(graph, bundle(graph))
    assert sorted(id for row in rows if row.level != PORTS for id in row.items) == sorted(
        p.id for p in graph.problems
    )
    assert rows[-1].level == PORTS


def test_frames_hold_their_columns_and_no_others(graph: LevelGraph, layout: Layout) -> None:
    for frame in layout.frames:
        for column in layout.columns:
            within = frame.rect.x <= column.rect.x and column.rect.right <= frame.rect.right
            assert within == (frame.frame.id in column.zone.frames)


def test_hope_reads_in_program_order() -> None:
    layout = lay_out(graph_of("hope"))
    assert [c.zone.label for c in layout.columns] == ["hope", "self_modifying_titans", "cms", "training"]


def test_a_layout_is_the_same_every_time() -> None:
    assert lay_out(graph_of("hope")) == lay_out(graph_of("hope"))


def test_text_is_cut_to_its_room() -> None:
    for words in ("self_modifying_titans", "W" * 40, "—" * 30):
        for mono in (False, True):
            assert width(fit(words, 11, 80, mono), 11, mono) <= 80
    lines = wrap("same frequency as 3.1, but `B` at t needs `A` at t and so on", 10, 100, 3)
    assert len(lines) == 3 and all(width(line, 10) <= 100 for line in lines)


def shrunk(rect: Rect) -> Rect:
    """Without its edge: wires end there."""
    return Rect(rect.x + 0.5, rect.y + 0.5, rect.w - 1, rect.h - 1)
