"""The results as a plot: an SVG of a few bars for each of the main figures."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from benchmarks.results import OURS, Row, Samples
from benchmarks.sites import Legs
from benchmarks.table import number

#: What is shown.
PANELS = (
    ("conn", "cpu"),
    ("idle", "memory"),
    ("q1", "tps"),
    ("q16", "tps"),
    ("down", "cpu"),
    ("up", "cpu"),
)

COLUMNS = 2
WIDTH, PANEL_WIDTH, MARGIN = 860, 410, 20
HEADING, BAR, GAP = 44, 16, 5
LABEL, LONGEST = 74, 260

COLOURS = {OURS: "#1f6feb", "postgresql": "#c9d1d9"}
OTHERS = "#8c959f"


def svg(samples: Samples, facts: Mapping[str, str]) -> str:
    """The text of the file."""
    found = [samples.row(workload, Legs.TLS_PLAIN, metric) for workload, metric in PANELS]
    rows = [row for row in found if row is not None]
    lines: list[str] = []
    top = MARGIN
    for start in range(0, len(rows), COLUMNS):
        line = rows[start : start + COLUMNS]
        for column, row in enumerate(line):
            lines += _panel(row, MARGIN + column * PANEL_WIDTH, top)
        top += HEADING + max(len(row.medians) for row in line) * (BAR + GAP) + MARGIN
    caption = "; ".join(facts.get(name, "") for name in ("processor", "system", "date"))
    lines.append(_text(MARGIN, top, caption, 'class="note"'))
    height = top + MARGIN
    return "\n".join([_OPENING.format(width=WIDTH, height=height), *lines, "</svg>"]) + "\n"


_OPENING = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" font-family="sans-serif" font-size="12" fill="#24292f">
<style>.title {{ font-weight: bold; font-size: 13px }} .note {{ fill: #57606a }}</style>
<rect width="100%" height="100%" fill="#ffffff"/>"""


def _panel(row: Row, left: int, top: int) -> list[str]:
    direction = "less is better" if row.metric.lower_is_better else "more is better"
    lines = [
        _text(left, top + 12, row.workload.title, 'class="title"'),
        _text(left, top + 28, f"{row.metric.title}; {direction}", 'class="note"'),
    ]
    scale = LONGEST / (max(row.medians.values()) or 1)
    for index, (peer, value) in enumerate(row.medians.items()):
        y = top + HEADING - 6 + index * (BAR + GAP)
        length = max(1, round(value * scale))
        colour = COLOURS.get(peer, OTHERS)
        weight = ' font-weight="bold"' if peer == OURS else ""
        lines += [
            _text(left + LABEL - 6, y + 12, peer, f'text-anchor="end"{weight}'),
            f'<rect x="{left + LABEL}" y="{y}" width="{length}" height="{BAR}" fill="{colour}"/>',
            _text(left + LABEL + length + 5, y + 12, number(value), weight.strip()),
        ]
    return lines


def _text(x: int, y: int, text: str, attributes: str) -> str:
    return f'<text x="{x}" y="{y}" {attributes}>{escape(text)}</text>'
