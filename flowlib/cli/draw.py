"""Lanes as lines of text, drawn to scale: one row per step, each kind of segment with a shade and a colour of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from .lanes import BACKOFF, FAILED, LOST, OK, ON_WORKER, RUNNING, SLEEP, WAIT, Lane, Segment
from .output import took

#              kind: (shade, the same in ASCII, colour)
SHADES = {
    WAIT: ("░", ".", "yellow"),
    OK: ("█", "#", "green"),
    FAILED: ("▓", "x", "red"),
    LOST: ("╳", "!", "magenta"),
    BACKOFF: ("┄", "-", "red"),
    SLEEP: ("─", "z", "blue"),
    RUNNING: ("▶", ">", "cyan"),
}
LABEL, INFO = 28, 16  # at most so many cells for a step's name; and room for what stands behind its bar
NARROWEST = 20


def draw(lanes: Sequence[Lane], start: float, end: float, *, width: int, unicode: bool) -> list[Text]:
    """The rows, with a time axis above and a legend below."""
    label = min(LABEL, max((cell_len(lane.step) for lane in lanes), default=0))
    bar = max(NARROWEST, width - label - INFO - 2)
    scale = bar / max(end - start, 1e-6)
    shade = 0 if unicode else 1
    rows = [Text(" " * (label + 1)).append(_axis(end - start, bar), "dim")]
    used: set[str] = set()
    for lane in lanes:
        row = Text(set_cell_size(lane.step, label) + " ")
        for kind, cells in _runs_of_cells(lane.segments, start, scale, bar):
            used.add(kind)
            row.append((SHADES[kind][shade] if kind else " ") * cells, SHADES[kind][2] if kind else "")
        rows.append(row.append(f" {_told(lane)}", "dim"))
    legend = Text(" " * (label + 1))
    for kind in SHADES:
        if kind in used:
            legend.append(SHADES[kind][shade] * 2, SHADES[kind][2]).append(f" {kind}   ")
    return [*rows, legend]


def _told(lane: Lane) -> str:
    times = f" {lane.tries}x" if lane.tries > 1 else ""
    return f"{took(lane.working)}{times}" if lane.tries else ""


def _runs_of_cells(segments: Sequence[Segment], start: float, scale: float, bar: int) -> list[tuple[str, int]]:
    """(kind, how many cells) from left to right. Whatever was on a worker is seen, however short; waiting is rounded."""
    cells = [""] * bar
    for segment in sorted(segments, key=lambda s: s.kind in ON_WORKER):
        first, last = (segment.start - start) * scale, (segment.end - start) * scale
        left, right = round(first), round(last)
        if segment.kind in ON_WORKER:
            left = min(math.floor(first), bar - 1)
            right = max(right, left + 1)
        for cell in range(max(left, 0), min(right, bar)):
            cells[cell] = segment.kind
    joined: list[tuple[str, int]] = []
    for kind in cells:
        if joined and joined[-1][0] == kind:
            joined[-1] = (kind, joined[-1][1] + 1)
        else:
            joined.append((kind, 1))
    return joined


def _axis(seconds: float, bar: int) -> str:
    """Times below each other's places: 0 at the left, the whole at the right, as many between as there is room for."""
    parts = max(1, min(4, bar // 16))
    line = "0"
    for part in range(1, parts + 1):
        said = took(seconds * part / parts)
        at = round(bar * part / parts) - (cell_len(said) if part == parts else cell_len(said) // 2)
        line = line.ljust(at) + said
    return line
