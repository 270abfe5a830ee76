"""Pictures and tables of a level graph: svg, html, dot, png, pdf, and the explanation as text."""

from nldsl.graph.model import PAINTERS
from nldsl.view.dot import draw_dot, render_dot
from nldsl.view.draw import draw_svg
from nldsl.view.explain import Explanation, explain, explain_program
from nldsl.view.geometry import Layout
from nldsl.view.layout import lay_out
from nldsl.view.page import draw_html
from nldsl.view.table import render_explanation

__all__ = [
    "Explanation",
    "Layout",
    "draw_dot",
    "draw_html",
    "draw_svg",
    "explain",
    "explain_program",
    "lay_out",
    "render_dot",
    "render_explanation",
]

PAINTERS.setdefault("svg", lambda graph: draw_svg(lay_out(graph)))
