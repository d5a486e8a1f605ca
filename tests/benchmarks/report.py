"""Shows what was measured: tables for people, one JSON document for programs. Measures and judges nothing."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from flowlib.server import Server
from tests.benchmarks.measure import SHORT_LIVED, Figures
from tests.benchmarks.peers import BASELINE, Peer

Rounds = Mapping[str, Sequence[Figures]]

SPEED_NOTE = f"""\
Runs: so many sent up front and drained; and so many alone on an idle worker, each timed from the call that sends it
to the body of step 10. Ratios: to {BASELINE} in the same round.
"""
COSTS_NOTE = """\
Commands: also those that scripts call. CPU: of the whole server process, its sockets and AOF included.
Sent: events for flowlib, which its worker turns into runs within the drain; jobs for RQ.
"""


def machine() -> dict[str, str | int | float]:
    with Server.start() as server, server.client() as client:
        info = client.info("server")
    name = "Valkey" if "valkey_version" in info else "Redis"
    return {
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "server": f"{name} {info.get('valkey_version') or info['redis_version']}",
        "rq": version("rq"),
        "redis-py": version("redis"),
        "load": round(os.getloadavg()[0], 2),
    }


def show(console: Console, rounds: Rounds, peers: Sequence[Peer]) -> None:
    console.print(
        "\nChain of ten no-op steps, one worker process: median (least..most) of the rounds", _speed(rounds), SPEED_NOTE
    )
    console.print("What it takes of Redis, and how fast work is handed in: medians", _costs(rounds), COSTS_NOTE)
    console.print("What each figure does not pay for:")
    for peer in peers:
        console.print(f"  {peer.name}: {peer.lacks}")
    for name, figures in rounds.items():
        if again := sum(f.again for f in figures):
            console.print(f"  {name}: {again} bodies were run twice")
    loops = [f.loop_ms for figures in rounds.values() for f in figures]
    console.print(f"A fixed Python loop took {min(loops):.1f} to {max(loops):.1f} ms meanwhile: read ratios above all.")


def _speed(rounds: Rounds) -> Table:
    headings = ("runs, alone", "steps/s", "ratio", "one run: p50 ms", "ratio", "p99 ms", "ratio")
    table = new_table("", *headings)
    base = rounds.get(BASELINE, [])
    for name, figures in rounds.items():
        cells = [f"{figures[0].runs}, {figures[0].singles}"]
        for of in (lambda f: f.steps, lambda f: f.p50_ms, lambda f: f.p99_ms):
            cells += [spread(list(map(of, figures))), _ratio(figures, base, of)]
        table.add_row(name, *cells)
    return table


COSTS: dict[str, Callable[[Figures], float]] = {
    "Redis commands\nper step": lambda f: f.commands,
    "round trips\nper step": lambda f: f.round_trips,
    "server's CPU\nµs per step": lambda f: f.server_us,
    "bytes per run\nat the end": lambda f: f.bytes,
    f"after\n{SHORT_LIVED} s": lambda f: f.bytes_kept,
    "sent per second\none by one": lambda f: f.submit,
    "in one call": lambda f: f.submit_together,
}


def _costs(rounds: Rounds) -> Table:
    table = new_table("", *COSTS)
    for name, figures in rounds.items():
        table.add_row(name, *(_number(median(map(of, figures))) for of in COSTS.values()))
    return table


def new_table(*headings: str) -> Table:
    """Words to the left, figures to the right."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    return table


def _ratio(figures: Sequence[Figures], base: Sequence[Figures], of: Callable[[Figures], float]) -> str:
    ratios = [of(f) / of(b) for f, b in zip(figures, base, strict=False)]
    return f"× {_number(median(ratios))}" if ratios else ""


def spread(values: Sequence[float]) -> str:
    middle = _number(median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))}..{_number(max(values))})"


def _number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def write_json(path: Path, about: Mapping[str, object], rounds: Rounds) -> None:
    figures = {name: [asdict(f) for f in figures] for name, figures in rounds.items()}
    path.write_text(json.dumps({"machine": about, "rounds": figures}, indent=2) + "\n")
