"""What ``build_speed.py`` measured, as a text table, as Markdown for the docs, and as a picture.

A result is ``{"machine": {...}, "rounds": N, "cases": [...]}``; a case has lists over the rounds: ``seconds``
by kind of build, ``imports`` by image, ``ratios`` to the baseline, and ``parts`` by kind and step; and once
each ``bytes`` by kind and ``cache_bytes`` by cache.
"""

from __future__ import annotations

import statistics
from html import escape
from typing import Any

KINDS = ("baseline", "baseline again", "cold", "again", "one more", "identical")
RATIOS = ("cold", "again", "one more", "first import")
STEPS = ("render", "verify", "register")
# in the order of a build; the baseline's own phases are not known
PHASES = ("base", "python", "apt", "conda", "pip", "payload", "install", "commands", "image")
GREY, BLUE = "#b0b7c3", "#2563a8"


def spread(values: list[float], digits: int = 2) -> str:
    """``median (least to most)``."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def rows(case: dict[str, Any]) -> list[list[str]]:
    """A line per kind of build: seconds, times faster, megabytes, and seconds of the other steps."""
    found = []
    for kind in KINDS:
        parts = case["parts"].get(kind, [])
        found.append(
            [
                kind,
                spread(case["seconds"][kind]),
                spread(case["ratios"][kind], 1) if kind in case["ratios"] else "",
                f"{case['bytes'][kind] / 1e6:.0f}" if kind in case["bytes"] else "",
                *(
                    spread([part[step] for part in parts]) if parts and step in parts[0] else ""
                    for step in STEPS
                ),
            ]
        )
    return found


def phase_rows(case: dict[str, Any]) -> list[list[str]]:
    """A line per kind of our builds: median seconds of each phase."""
    found = []
    for kind, parts in case["parts"].items():
        phases = [part["phases"] for part in parts if "phases" in part]
        if phases:
            medians = [statistics.median([p.get(name, 0.0) for p in phases]) for name in PHASES]
            found.append(
                [kind, *(f"{seconds:.1f}" if seconds >= 0.05 else "" for seconds in medians)]
            )
    return found


HEADS = ["build", "seconds", "times faster", "MB", *(f"{step} s" for step in STEPS)]


def sentence(case: dict[str, Any]) -> str:
    caches = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in case["cache_bytes"].items())
    return (
        f"First import of pandas: {spread(case['imports']['baseline'])} s in the baseline's image, "
        f"{spread(case['imports']['ours'])} s in ours, {spread(case['ratios']['first import'], 1)} times faster. "
        f"Caches afterwards: {caches}."
    )


def text_table(case: dict[str, Any]) -> str:
    """For the terminal."""
    lines = [f"case {case['case']}: median (least to most)"]
    for title, table in ((HEADS, rows(case)), (["phases", *PHASES], phase_rows(case))):
        widths = [max(map(len, column)) for column in zip(title, *table, strict=True)]
        lines += [
            "  "
            + "  ".join(
                cell.ljust(width) for cell, width in zip(line, widths, strict=True)
            ).rstrip()
            for line in (title, *table)
        ]
    return "\n".join([*lines, "  " + sentence(case)])


def picture(cases: list[dict[str, Any]]) -> str:
    """Bars of the medians with their spread, one group per case, as an SVG."""
    width, left, bar, gap = 760, 190, 18, 34
    longest = max(max(case["seconds"][kind]) for case in cases for kind in KINDS)
    scale = (width - left - 90) / longest
    shapes: list[str] = []
    y = 40
    for case in cases:
        shapes.append(f'<text x="10" y="{y}" class="case">{escape(case["case"])}</text>')
        y += 12
        for kind in KINDS:
            seconds = case["seconds"][kind]
            median = statistics.median(seconds)
            end = left + max(1.0, scale * median)
            colour = GREY if kind.startswith("baseline") else BLUE
            least, most = (left + scale * value for value in (min(seconds), max(seconds)))
            middle = y + bar / 2
            shapes += [
                f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{kind}</text>',
                f'<rect x="{left}" y="{y}" width="{end - left:.1f}" height="{bar}" fill="{colour}"/>',
                f'<path d="M{least:.1f} {middle}H{most:.1f}" stroke="#111827" stroke-width="2"/>',
                f'<text x="{max(end, most) + 6:.1f}" y="{y + 14}">{median:.1f} s</text>',
            ]
            y += bar + 6
        y += gap
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" role="img" '
        'font-family="sans-serif" font-size="13"><title>Seconds to build an image</title>'
        "<style>.case{font-weight:bold;font-size:15px}</style>"
        f'<rect width="{width}" height="{y}" fill="white"/>{"".join(shapes)}</svg>\n'
    )
