"""Where flowlib's time goes: the server's commands and scripts in one drain, the worker's Python in another."""

from __future__ import annotations

import io
import pstats
import sys
from collections import defaultdict
from collections.abc import Iterable
from importlib import resources

import redis
from rich.console import Console
from rich.table import Table

from flowlib.wire import script
from tests.benchmarks.bench import bench, rate
from tests.benchmarks.chain import STEPS
from tests.benchmarks.report import new_table
from tests.benchmarks.roster import FLOWLIB

# The slow log names the script. It would also take in each command that a script calls, and slow the script by a fifth, so
# it begins above those.
FLOOR_US = 10
LOG_SCRIPTS = {"slowlog-log-slower-than": str(FLOOR_US), "slowlog-max-len": "1000000"}

Row = tuple[str, int, float]  # what, calls, microseconds


def profile(console: Console, runs: int) -> None:
    _profile_server(console, runs)
    _profile_worker(console, runs)


def _profile_server(console: Console, runs: int) -> None:
    with bench(FLOWLIB, LOG_SCRIPTS) as at:
        at.submit_together(range(runs))
        at.client.config_resetstat()
        at.client.slowlog_reset()
        steps = at.drain(runs, STEPS)
        commands = _commands(at.client)
        scripts = _scripts(at.client, commands)
    console.print(f"{runs} runs of {STEPS} steps, not profiled: {steps:,.0f} steps/s, {1e6 / steps:,.0f} µs per step")
    console.print("The server's time in scripts:", _table("script", scripts, runs * STEPS))
    console.print("The server's time in commands, of which evalsha's holds those that scripts call:")
    console.print(_table("command", commands, runs * STEPS))


def _profile_worker(console: Console, runs: int) -> None:
    with bench(FLOWLIB) as at:
        at.submit_together(range(runs))
        file = at.folder / "profile"
        with at.processes(1, [sys.executable, "-m", "tests.benchmarks.profiled_worker", str(file)]) as workers:
            at.wait_for_marks(workers, runs * STEPS)
        steps = rate([mark.at for mark in at.marks.read()])
        told = io.StringIO()
        pstats.Stats(str(file), stream=told).strip_dirs().sort_stats("tottime").print_stats(25)
    console.print(f"One worker's main thread under cProfile, {runs * STEPS} steps at {steps:,.0f} a second:")
    console.print(told.getvalue().partition("\n\n")[2].strip(), markup=False)


def _commands(client: redis.Redis) -> list[Row]:
    stats = client.info("commandstats")
    return [(name.removeprefix("cmdstat_"), int(s["calls"]), s["usec"]) for name, s in stats.items()]


def _scripts(client: redis.Redis, commands: list[Row]) -> list[Row]:
    names = {script(name).sha: name for name in _script_names()}
    spent: dict[str, list[int]] = defaultdict(list)
    for entry in client.slowlog_get(1_000_000):
        words = entry["command"].split(b" ", 2)
        if words[0].upper() == b"EVALSHA":
            spent[names.get(words[1], "?")].append(entry["duration"])
    rows: list[Row] = [(name, len(took), sum(took)) for name, took in spent.items()]
    (calls, usec), *_ = ((calls, usec) for name, calls, usec in commands if name == "evalsha")
    quick = (f"(under {FLOOR_US} µs)", calls - sum(row[1] for row in rows), usec - sum(row[2] for row in rows))
    return [*rows, quick]


def _script_names() -> Iterable[str]:
    folder = resources.files("flowlib") / "lua"
    return (file.name.removesuffix(".lua") for file in folder.iterdir() if file.name.endswith(".lua"))


def _table(what: str, rows: list[Row], steps: int) -> Table:
    """The fifteen that take most."""
    table = new_table(what, "calls", "calls/step", "µs/call", "µs/step")
    for name, calls, usec in sorted(rows, key=lambda row: -row[2])[:15]:
        table.add_row(name, f"{calls:,}", f"{calls / steps:.2f}", f"{usec / max(calls, 1):.1f}", f"{usec / steps:.1f}")
    return table
