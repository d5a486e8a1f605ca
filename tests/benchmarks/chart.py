"""Draws a stored result as bars, an SVG file beside it: plain text, no library. It looks right on a light and a dark page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median

from tests.benchmarks.parts import LESS, MORE
from tests.benchmarks.report import number
from tests.benchmarks.results import Results
from tests.benchmarks.roster import FLOWLIB, SYSTEMS

WIDTH, LEFT, RIGHT = 860, 150, 130  # of the page, its names, its figures
BAR, GAP, HEAD, FOOT = 9, 10, 58, 62

STYLE = """
  text { font-family: system-ui, sans-serif; font-size: 12px; fill: #1f2937 }
  .title { font-size: 15px; font-weight: 600 }
  .note { font-size: 11px; fill: #6b7280 }
  .bar0 { fill: #64748b } .bar1 { fill: #cbd5e1 }
  .ours .bar0 { fill: #2563eb } .ours .bar1 { fill: #93c5fd } .ours text { font-weight: 600 }
  .spread { stroke: #111827; stroke-width: 1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e5e7eb } .note { fill: #9ca3af } .spread { stroke: #f9fafb }
    .bar0 { fill: #94a3b8 } .bar1 { fill: #475569 } .ours .bar0 { fill: #60a5fa } .ours .bar1 { fill: #1d4ed8 }
  }
"""


@dataclass(frozen=True)
class Panel:
    part: str
    title: str
    note: str
    figures: tuple[str, str]  # dark and pale
    better: str


PANELS = (
    Panel(
        "steps", "Steps per second",
        "chains of ten no-op steps; dark: one worker process, pale: two; more is better",
        ("steps_1", "steps_2"), MORE,
    ),
    Panel(
        "latency", "One run of ten steps on an idle worker, ms",
        "from the call that sends it to the body of its last step; dark: median, pale: 99th percentile; less is better",
        ("run_p50", "run_p99"), LESS,
    ),
)  # fmt: skip


def draw(file: Path) -> Path:
    """Writes FILE's figures to FILE with .svg for its ending, and returns where."""
    target = file.with_suffix(".svg")
    target.write_text(svg(Results.read(file)))
    return target


def svg(results: Results) -> str:
    body: list[str] = []
    top = 0
    for panel in PANELS:
        if panel.part in results.figures:
            body += _panel(results, panel, top)
            top += _height(results, panel)
    machine = results.machine
    where = f"{machine.get('cores')} cores ({machine.get('processor')}), Python {machine.get('python')}"
    foot = [
        f"{where}, {machine.get('server')}, {results.at[:10]}",
        "Median of the rounds, thin line: least to most; every system in turn, on a fresh server each. Repeat it: make bench",
    ]
    body += [_text(LEFT, top + 24 + 17 * line, text, "note") for line, text in enumerate(foot)]
    height = top + FOOT
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="flowlib beside other systems">'
    return "\n".join([head, f"<style>{STYLE}</style>", *body, "</svg>\n"])


def _panel(results: Results, panel: Panel, top: int) -> Iterator[str]:
    yield _text(LEFT, top + 26, panel.title, "title")
    yield _text(LEFT, top + 44, panel.note, "note")
    rows = _rows(results, panel)
    most = max(max(values) for _, bars in rows for values in bars if values)
    scale = (WIDTH - LEFT - RIGHT) / most
    for row, (system, bars) in enumerate(rows):
        y = top + HEAD + row * _row_height()
        yield f'<g class="{"ours" if system.startswith(FLOWLIB.name) else "theirs"}">'
        yield _text(LEFT - 8, y + BAR + 4, system, anchor="end")
        for which, values in enumerate(bars):
            if values:
                yield from _bar(values, which, y + which * BAR, scale)
        figures = " / ".join(number(median(values)) if values else "–" for values in bars)
        end = max(max(values) for values in bars if values) * scale
        yield _text(round(LEFT + end + 8), y + BAR + 4, figures)
        yield "</g>"


def _bar(values: Sequence[float], which: int, y: int, scale: float) -> Iterator[str]:
    width = max(1.0, median(values) * scale)
    yield f'<rect class="bar{which}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 1}"/>'
    if len(values) > 1:
        least, most, middle = LEFT + min(values) * scale, LEFT + max(values) * scale, y + (BAR - 1) / 2
        yield f'<line class="spread" x1="{least:.1f}" x2="{most:.1f}" y1="{middle}" y2="{middle}"/>'


def _rows(results: Results, panel: Panel) -> list[tuple[str, list[list[float]]]]:
    """Each system with the values of both figures, the best first."""
    rows = []
    for system in SYSTEMS:
        bars = [results.values(panel.part, system.name, figure) for figure in panel.figures]
        if bars[0]:
            rows.append((system.name, bars))
    return sorted(rows, key=lambda row: median(row[1][0]), reverse=panel.better == MORE)


def _height(results: Results, panel: Panel) -> int:
    return HEAD + len(_rows(results, panel)) * _row_height()


def _row_height() -> int:
    return 2 * BAR + GAP


def _text(x: int, y: int, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
