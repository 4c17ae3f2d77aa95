"""A drawing as SVG: one file without scripts, fonts or links, readable aloud."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from .diagram import Box, Diagram
from .picture import LABEL_SIZE, Line, Picture, Placed, picture
from .text_width import text_width

__all__ = ["svg"]

ROUND = 8.0
LEGEND_HEIGHT = 34.0

STYLE = """\
svg { background: #ffffff }
text { font-family: ui-sans-serif, "Helvetica Neue", Helvetica, Arial, sans-serif }
.name { font-size: 13px; font-weight: 600; fill: #16202a }
.kind { font-size: 11px; fill: #52606d }
.label { font-size: 11px; fill: #344250; paint-order: stroke; stroke: #ffffff; stroke-width: 4px;
  stroke-linejoin: round }
.box { stroke-width: 1.4; fill: #f3f5f7; stroke: #8795a1 }
.Action .box { fill: #e6f1fb; stroke: #2f78b7 }
.Choice .box { fill: #fdf4d8; stroke: #b98a10 }
.ExpressionEval .box, .Pass .box { fill: #f0eefb; stroke: #7a6bc4 }
.Wait .box, .CreateWebInput .box, .AwaitWebInput .box { fill: #e6f6ef; stroke: #2c8f6b }
.failing .box { stroke: #b83232 }
.Fail .box { fill: #fbe4e4; stroke: #b83232; stroke-width: 2 }
.ends { fill: none; stroke-width: 1.2; stroke: #2f3d4a }
.line { fill: none; stroke: #5b6975; stroke-width: 1.4 }
.line.bad { stroke: #b83232 }
.line.catch { stroke-dasharray: 5 4 }
.mark { fill: #16202a }
"""


def svg(content: Diagram, title: str) -> str:
    """The text of an SVG file that shows ``content``."""
    placed = picture(content)
    height = placed.height + LEGEND_HEIGHT
    width = max(placed.width, 500.0)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}" height="{_n(height)}"'
        f' viewBox="0 0 {_n(width)} {_n(height)}" role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(_in_words(content))}</desc>',
        f"<style>{STYLE}</style>",
        "<defs>",
        _arrowhead("head", "#5b6975"),
        _arrowhead("bad-head", "#b83232"),
        "</defs>",
        f'<rect width="{_n(width)}" height="{_n(height)}" fill="#ffffff"/>',
        *_start(placed),
        *(_line(line, content) for line in placed.lines),
        *(part for item in placed.boxes for part in _box(item)),
        *_labels(placed),
        *_legend(placed.height + 10.0),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _in_words(content: Diagram) -> str:
    """What the drawing shows, for those who cannot see it."""
    sentences = [content.comment] if content.comment else []
    sentences.append(f"The flow begins with {content.start}.")
    for name, box in content.boxes.items():
        ways = []
        for arrow in content.arrows:
            if arrow.source == name:
                reason = {"catch": "on an error"}.get(arrow.kind, "")
                reason = f"if {arrow.label}" if arrow.kind == "choice" and arrow.label else reason
                reason = "otherwise" if arrow.label == "otherwise" else reason
                ways.append(f"{arrow.target} {reason}".strip())
        then = f"; then {', or '.join(ways)}" if ways else "; the flow ends there"
        sentences.append(f"{name} ({box.subtitle}){then}.")
    return " ".join(sentences)


def _arrowhead(name: str, color: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8"'
        f' markerHeight="8" orient="auto-start-reverse">'
        f'<path d="M0 1 L9.5 5 L0 9 z" fill="{color}"/></marker>'
    )


def _start(placed: Picture) -> Iterator[str]:
    x, y = placed.start
    yield f'<circle class="mark" cx="{_n(x)}" cy="{_n(y - 26)}" r="6"/>'
    yield f'<path class="line" d="M{_n(x)} {_n(y - 20)} V{_n(y)}" marker-end="url(#head)"/>'


# --- lines ----------------------------------------------------------------------------------------


def _line(line: Line, content: Diagram) -> str:
    bad = content.boxes[line.arrow.target].fails
    classes = [
        "line",
        *(["bad"] if bad else []),
        *(["catch"] if line.arrow.kind == "catch" else []),
    ]
    head = f' marker-end="url(#{"bad-head" if bad else "head"})"' if line.pointed else ""
    path = _curve(line.bends) if line.curved else _rounded(line.bends)
    words = f"{line.arrow.source} to {line.arrow.target}"
    if line.arrow.label:
        words += f": {line.arrow.label}"
    elif line.arrow.kind == "catch":
        words += " on an error"
    return (
        f'<path class="{" ".join(classes)}" d="{path}"{head}><title>{escape(words)}</title></path>'
    )


def _curve(points: list[tuple[float, float]]) -> str:
    parts = [f"M{_n(points[0][0])} {_n(points[0][1])}"]
    for (x1, y1), (x2, y2) in itertools.pairwise(points):
        if abs(x1 - x2) < 0.5:
            parts.append(f"L{_n(x2)} {_n(y2)}")
        else:
            half = (y1 + y2) / 2
            parts.append(f"C{_n(x1)} {_n(half)} {_n(x2)} {_n(half)} {_n(x2)} {_n(y2)}")
    return " ".join(parts)


def _rounded(points: list[tuple[float, float]]) -> str:
    """Straight parts joined by rounded corners."""
    corners = [points[0]]
    for point in points[1:]:
        if math.dist(point, corners[-1]) > 0.1:
            corners.append(point)
    parts = [f"M{_n(corners[0][0])} {_n(corners[0][1])}"]
    for before, here, after in zip(corners, corners[1:], corners[2:], strict=False):
        radius = min(ROUND, math.dist(before, here) / 2, math.dist(here, after) / 2)
        (ax, ay), (bx, by) = _towards(here, before, radius), _towards(here, after, radius)
        parts.append(f"L{_n(ax)} {_n(ay)} Q{_n(here[0])} {_n(here[1])} {_n(bx)} {_n(by)}")
    parts.append(f"L{_n(corners[-1][0])} {_n(corners[-1][1])}")
    return " ".join(parts)


def _towards(
    start: tuple[float, float], end: tuple[float, float], length: float
) -> tuple[float, float]:
    share = length / (math.dist(start, end) or 1.0)
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


# --- boxes and texts ------------------------------------------------------------------------------


def _box(placed: Placed) -> Iterator[str]:
    box = placed.box
    kind = "".join(letter for letter in box.kind if letter.isalnum())
    classes = kind + (" failing" if box.fails else "")
    x, y, middle = placed.x, placed.y, placed.x + placed.width / 2
    yield f"<g class={quoteattr(classes)}><title>{escape(_tip(box))}</title>"
    if box.kind == "Choice":
        yield f'<path class="box" d="{_hexagon(placed)}"/>'
    else:
        radius = 3.0 if box.kind == "Fail" else 9.0
        yield _rectangle("box", x, y, placed.width, placed.height, radius)
    if box.ends:
        yield _rectangle("ends", x + 3.5, y + 3.5, placed.width - 7, placed.height - 7, 6.0)
    yield (
        f'<text class="name" x="{_n(middle)}" y="{_n(y + 19)}" text-anchor="middle">'
        f"{escape(box.name)}</text>"
    )
    yield (
        f'<text class="kind" x="{_n(middle)}" y="{_n(y + 34)}" text-anchor="middle">'
        f"{escape(box.subtitle)}</text></g>"
    )


def _tip(box: Box) -> str:
    words = f"{box.name}: {box.kind}"
    if box.subtitle != box.kind:
        words += f", {box.subtitle}"
    return words + (f". {box.comment}" if box.comment else "")


def _rectangle(name: str, x: float, y: float, width: float, height: float, radius: float) -> str:
    return (
        f'<rect class="{name}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"'
        f' rx="{_n(radius)}"/>'
    )


def _hexagon(placed: Placed) -> str:
    left, top = placed.x, placed.y
    right, bottom, middle = left + placed.width, top + placed.height, top + placed.height / 2
    cut = 14.0
    points = [
        *((left + cut, top), (right - cut, top), (right, middle)),
        *((right - cut, bottom), (left + cut, bottom), (left, middle)),
    ]
    return "M" + " L".join(f"{_n(x)} {_n(y)}" for x, y in points) + " z"


def _labels(placed: Picture) -> Iterator[str]:
    for label in placed.labels:
        tip = f"<title>{escape(label.full)}</title>" if label.full != label.text else ""
        yield (
            f'<text class="label" x="{_n(label.x)}" y="{_n(label.y)}"'
            f' text-anchor="{label.anchor}">{tip}{escape(label.text)}</text>'
        )


def _legend(y: float) -> Iterator[str]:
    entries = (
        ("line", "goes on"),
        ("line catch", "after an error"),
        ("line bad", "ends in failure"),
    )
    x = 24.0
    for classes, words in entries:
        yield f'<path class="{classes}" d="M{_n(x)} {_n(y)} h28"/>'
        yield f'<text class="kind" x="{_n(x + 34)}" y="{_n(y + 4)}">{words}</text>'
        x += 56 + text_width(words, LABEL_SIZE)
    yield _rectangle("ends", x, y - 7, 22, 14, 5)
    yield f'<text class="kind" x="{_n(x + 28)}" y="{_n(y + 4)}">ends well</text>'
