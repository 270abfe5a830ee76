"""`Layout` -> SVG.  Every colour is an attribute and a class, so that a page can restyle it."""

from __future__ import annotations

from collections.abc import Mapping

from nldsl.graph import Port, Problem
from nldsl.graph.compare import Status
from nldsl.graph.levels import spoken
from nldsl.view.boxes import FINE, LINE, PAD, box_text
from nldsl.view.geometry import KINDS, Band, Box, Column, Entry, FrameBox, Layout, Rect, Route
from nldsl.view.legend import SIZE as LEGEND_SIZE
from nldsl.view.measure import fit, width, wrap
from nldsl.view.svg import Attribute, element, joined, rounded, text
from nldsl.view.theme import LIGHT, MONO, SANS, role
from nldsl.view.wires import CORNER

_STROKE = 1.7


def draw_svg(layout: Layout, colours: dict[str, str] = LIGHT) -> str:
    """The picture as one SVG document that needs nothing else.

    What a comparison added, removed or changed is marked, the rest of the wires steps back.
    """
    canvas = layout.canvas
    root: dict[str, Attribute] = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {canvas.w:.0f} {canvas.h:.0f}",
        "width": round(canvas.w),
        "height": round(canvas.h),
        "font_family": SANS,
        "role": "img",
    }
    return (
        element("svg", root, "\n", joined(_Pen(colours, dict(layout.marks)).everything(layout)), "\n") + "\n"
    )


class _Pen:
    """Draws with one table of colours."""

    def __init__(self, colours: dict[str, str], marks: Mapping[str, Status]) -> None:
        self.colours, self.marks = colours, marks

    def everything(self, layout: Layout) -> list[str]:
        canvas = layout.canvas
        return [
            element("title", {}, text(f"Levels of {layout.name}")),
            element("defs", {}, *(self.arrow_head(kind) for kind in KINDS)),
            self.rect(canvas, "paper", radius=0),
            self.heading(layout),
            *(self.band(band, i) for i, band in enumerate(layout.bands)),
            *(self.column(column) for column in layout.columns),
            *(self.frame(frame) for frame in layout.frames),
            *(self.route(route, i) for i, route in enumerate(layout.routes)),
            *(self.box(box) for box in layout.boxes),
            element("g", {"class": "legend"}, *(self.entry(entry) for entry in layout.legend)),
        ]

    def heading(self, layout: Layout) -> str:
        name = self.words(fit(layout.name, 21, layout.canvas.w - 48), 24, 42, 21, weight=700)
        return element("g", {"class": "heading"}, name, self.words(layout.summary, 24, 64, 13, colour="soft"))

    def rect(self, at: Rect, fill: str, edge: str = "", radius: float = 6, **more: Attribute) -> str:
        paint: dict[str, Attribute] = {
            "class": f"fill-{fill}" + (f" stroke-{edge}" if edge else ""),
            "x": at.x,
            "y": at.y,
            "width": at.w,
            "height": at.h,
            "rx": radius,
            "fill": self.colours[fill] if fill != "none" else "none",
        }
        if edge:
            paint["stroke"] = self.colours[edge]
        return element("rect", {**paint, **more})

    def words(
        self,
        words: str,
        x: float,
        y: float,
        size: float,
        colour: str = "ink",
        weight: int = 400,
        **more: Attribute,
    ) -> str:
        paint: dict[str, Attribute] = {
            "class": f"fill-{colour}",
            "x": x,
            "y": y,
            "font_size": size,
            "fill": self.colours[colour],
        }
        if weight != 400:
            paint["font_weight"] = weight
        return element("text", {**paint, **more}, text(words))

    def arrow_head(self, kind: str) -> str:
        path = element("path", {"class": f"fill-{kind}", "d": "M0 0L8 4L0 8Z", "fill": self.colours[kind]})
        head: dict[str, Attribute] = {
            "id": f"head-{kind}",
            "viewBox": "0 0 8 8",
            "refX": 7.5,
            "refY": 4,
            "markerWidth": 8,
            "markerHeight": 8,
            "orient": "auto",
            "markerUnits": "userSpaceOnUse",
        }
        return element("marker", head, path)

    def band(self, band: Band, index: int) -> str:
        level, room = band.level, band.label
        rect = self.rect(band.rect, "band-a" if index % 2 == 0 else "band-b", radius=8)
        y = room.y + 16
        lines = [self.words(f"Level {level.number}", room.x, y, 15, weight=700)]
        y += 18
        for line in wrap(level.frequency, 12.5, room.w, 1):
            lines.append(self.words(line, room.x, y, 12.5, weight=600))
            y += 16
        for line in wrap(" · ".join(level.names), 11.5, room.w, 2):
            lines.append(self.words(line, room.x, y, 11.5, colour="soft", font_style="italic"))
            y += 15
        left = max(1, int((room.bottom - y) // 13.5) + 1)
        for line in wrap(level.reason.replace("`", ""), 10.5, room.w, left):
            lines.append(self.words(line, room.x, y, 10.5, colour="soft"))
            y += 13.5
        hint = element("title", {}, text(level.reason))
        label = element("g", {"class": "band-label"}, *lines)
        return element("g", {"class": "band", "data-level": level.number}, hint, rect, label)

    def column(self, column: Column) -> str:
        head = column.header
        name = fit(column.zone.label, 13, head.w)
        said = self.words(name, head.x + head.w / 2, head.y + 17, 13, weight=600, text_anchor="middle")
        return element("g", {"class": "header", "data-zone": column.zone.id}, said)

    def frame(self, box: FrameBox) -> str:
        frame = box.frame
        outline = self.rect(
            box.rect,
            "none",
            "frame",
            radius=12,
            stroke_width=1.4,
            stroke_dasharray="2 5",
            stroke_linecap="round",
        )
        words = f"{frame.label} ×{frame.count}"
        if frame.count > 1:
            words += " · each copy feeds the next"
        words = fit(words, 11.5, box.badge.w)
        wide = width(words, 11.5) + 16
        pill = self.rect(Rect(box.badge.x, box.badge.y - 9, wide, 19), "frame", radius=9.5)
        middle, y = box.badge.x + wide / 2, box.badge.y + 4.5
        said = self.words(words, middle, y, 11.5, colour="paper", weight=600, text_anchor="middle")
        return element("g", {"class": "frame", "data-frame": frame.id}, outline, pill, said)

    def route(self, route: Route, index: int) -> str:
        net, parts = route.net, []
        for wire in route.wires:
            paint: dict[str, Attribute] = {
                "class": f"stroke-{net.kind}",
                "d": rounded(wire.points, CORNER),
                "fill": "none",
                "stroke": self.colours[net.kind],
                "stroke_width": _STROKE,
            }
            if wire.arrow:
                paint["marker_end"] = f"url(#head-{net.kind})"
            if wire.member:
                paint["data_member"] = wire.member
            parts.append(element("path", paint))
        for x, y in route.dots:
            dot: dict[str, Attribute] = {"class": f"fill-{net.kind}", "cx": x, "cy": y, "r": 2.6}
            parts.append(element("circle", {**dot, "fill": self.colours[net.kind]}))
        hint = element("title", {}, text(_said(route)))
        name = f"net {net.kind} {net.status}".rstrip()
        about: dict[str, Attribute] = {"class": name, "data_net": index, "data_kind": net.kind}
        if self.marks and not net.status:
            about["opacity"] = "0.3"
        if net.status == "removed":
            about["stroke_dasharray"] = "3 4"
        return element("g", about, hint, *parts)

    def box(self, box: Box) -> str:
        return (
            self.port(box.item, box.rect) if isinstance(box.item, Port) else self.problem(box.item, box.rect)
        )

    def port(self, port: Port, at: Rect) -> str:
        name = self.words(
            fit(port.name, 12, at.w - 20), at.x + at.w / 2, at.y + 17.5, 12, colour="port-ink", weight=600,
            text_anchor="middle",
        )  # fmt: skip
        return element(
            "g", {"class": "node port", "data_id": port.id}, self.rect(at, "port", radius=13), name
        )

    def problem(self, problem: Problem, at: Rect) -> str:
        kind = role(problem.kind)
        edge: dict[str, Attribute] = {"stroke_width": 1.6}
        if problem.kind == "optimiser memory":
            edge["stroke_dasharray"] = "5 3"
        corner = 2 if problem.kind == "slow parameters" else 8
        words = box_text(problem, at.w)
        parts = [
            element("title", {}, text(f"{problem.id}: {problem.kind}")),
            self.rect(at, kind, f"{kind}-edge", radius=corner, **edge),
        ]
        for i, line in enumerate(words.name):
            parts.append(self.words(line, at.x + PAD, at.y + 21 + LINE * i, words.size, weight=700))
        if words.badge:
            y = at.y + 20
            parts.append(self.words(words.badge, at.right - PAD, y, FINE, colour="soft", text_anchor="end"))
        for i, line in enumerate(words.lines, len(words.name)):
            y = at.y + 23 + LINE * i
            fine = self.words(line, at.x + PAD, y, FINE, colour="soft", font_family=MONO)
            parts.append(element("g", {"class": "fine"}, fine))
        said = f"{problem.name}, {problem.kind}, {spoken(problem.clock)}"
        about: dict[str, Attribute] = {
            "class": f"node {kind}", "data_id": problem.id, "tabindex": 0, "role": "button",
            "aria_label": said,
        }  # fmt: skip
        if problem.id in self.marks:
            about["class"] = f"node {kind} {self.marks[problem.id]}"
            parts.append(self.mark(self.marks[problem.id], at))
        return element("g", about, *parts)

    def mark(self, status: Status, at: Rect) -> str:
        """A frame around what a comparison found, and a sign for those who see no colours."""
        grown = Rect(at.x - 4, at.y - 4, at.w + 8, at.h + 8)
        outline = self.rect(grown, "none", status, radius=11, stroke_width=2.6)
        dot: dict[str, Attribute] = {"class": f"fill-{status}", "cx": at.right + 2, "cy": at.y - 2, "r": 9}
        paint: dict[str, Attribute] = {"fill": self.colours[status]}
        sign = {"added": "+", "removed": "\N{MINUS SIGN}", "changed": "~"}[status]
        words = self.words(sign, at.right + 2, at.y + 3, 14, "paper", 700, text_anchor="middle")
        return element("g", {"class": "mark"}, outline, element("circle", {**dot, **paint}), words)

    def entry(self, entry: Entry) -> str:
        at = entry.rect
        words = self.words(entry.text, at.x + 30, at.y + 15, LEGEND_SIZE, colour="soft")
        if entry.what == "box":
            kind = role(entry.sample)
            dashed: dict[str, Attribute] = {"stroke_dasharray": "4 2"} if kind == "optimiser-memory" else {}
            corner = 1 if kind == "slow-parameters" else 4
            sample = self.rect(
                Rect(at.x, at.y + 4, 22, 14), kind, f"{kind}-edge", corner, stroke_width=1.5, **dashed
            )
            return element("g", {}, sample, words)
        line: dict[str, Attribute] = {
            "class": f"stroke-{entry.sample}",
            "d": f"M{at.x:.1f} {at.y + 11:.1f}h22",
            "stroke": self.colours[entry.sample],
            "stroke_width": 2.2,
            "fill": "none",
            "marker_end": f"url(#head-{entry.sample})",
        }
        return element("g", {"data_legend": entry.sample}, element("path", line), words)


def _said(route: Route) -> str:
    net = route.net
    carried = dict.fromkeys(word for _, _, words in net.carries for word in words)
    ends = f"{', '.join(net.sources)} -> {', '.join(net.targets)}"
    return f"{net.kind} ({', '.join(carried)}): {ends}" if carried else f"{net.kind}: {ends}"
