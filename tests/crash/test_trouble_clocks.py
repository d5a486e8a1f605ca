"""Workers and producers whose clocks are an hour off: the server's clock decides, and only what is displayed may differ."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from flowlib import App
from flowlib.runs import Runs
from flowlib.server import Server
from flowlib.store import Store
from flowlib.testing import check_invariants
from tests import access
from tests.patience import until

from . import ledger
from .ledger import END, START, Ledger
from .waiting import gate

ROOT = Path(__file__).parents[2]
HOUR = 3600


class Station:
    """Processes with clocks of their own, on one server."""

    def __init__(self, server: Server, notes: Path) -> None:
        self.notes = notes
        self.store = Store(server.url)
        self.url = access.limited(server.url)
        self._environment = {**os.environ, ledger.PATH: str(notes), ledger.URL: server.url}
        self._workers: dict[str, subprocess.Popen[bytes]] = {}

    def flow(self, off: float, *arguments: str) -> subprocess.Popen[bytes]:
        """A `flow` command in a process whose clock is off by so many seconds."""
        command = [
            sys.executable,
            "-m",
            "tests.crash.wrong_clock",
            str(off),
            "flow",
            *arguments,
            "--redis-url",
            self.url,
        ]
        with self.notes.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)

    def worker(self, off: float, app: str, *settings: str) -> None:
        name = f"off-by-{off}"
        self._workers[name] = self.flow(off, "worker", f"tests.crash.{app}:app", "--name", name, *settings)

    def send(self, app: App, off: float, name: str, **data: float) -> str:
        """The id of the run that an event from such a process has started."""
        arguments = ["send", name, "--id", f"{name}{off}", "--data", json.dumps(data)]
        assert self.flow(off, *arguments).wait(30) == 0, self.log()
        (run,) = until(lambda: app.runs.of_event(f"{name}{off}"))
        return str(run)

    def stop(self) -> None:
        for worker in self._workers.values():
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0, self.log()

    def count(self, word: str) -> int:
        return sum((line.word, line.step) == (word, "wait") for line in Ledger(self.notes).lines())

    def beats(self) -> None:
        """Until each worker has renewed its leases once more."""

        def heard() -> list[object]:
            """When from each, as RQ's tools show it."""
            return [self.store.client.hget(f"rq:worker:{name}", "last_heartbeat") for name in self._workers]

        before = heard()
        until(lambda: all(now and now != was for was, now in zip(before, heard(), strict=True)))

    def log(self) -> str:
        return self.notes.with_suffix(".log").read_text()

    def close(self) -> None:
        for worker in self._workers.values():
            worker.kill()
            worker.wait()
        self.store.close()


@pytest.fixture
def station(fresh_server: Server, tmp_path: Path) -> Iterator[Station]:
    station = Station(fresh_server, tmp_path / "notes")
    yield station
    station.close()


def test_the_clock_of_these_tests_is_wrong_indeed() -> None:
    asked = f"""
from tests.crash.wrong_clock import shift
shift({HOUR})
import time
from datetime import UTC, datetime
print(time.time(), datetime.now(UTC).timestamp())
"""
    said = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, check=True)
    assert [HOUR - 60 < float(told) - time.time() < HOUR + 60 for told in said.stdout.split()] == [True, True]


@pytest.mark.slow
def test_workers_two_hours_apart_wake_nobody_early_or_late_and_take_nothing_from_each_other(station: Station) -> None:
    """BEHAVIOURS 150: no event is lost, and histories are in the server's time."""
    app = App("waiting").connect(store=station.store)
    for off in (HOUR, -HOUR):
        station.worker(off, "waiting", "--lease", "0.5")
    naps = [station.send(app, off, "crash.nap", seconds=0.2) for off in (HOUR, -HOUR)]
    waits = [station.send(app, off, "crash.wait") for off in (HOUR, -HOUR)]
    until(lambda: station.count(START) == 2)
    for _ in range(3):
        station.beats()
    gate(station.notes).touch()
    for run in [*naps, *waits]:
        app.runs.result(run, 30)
        history = app.runs.history(run)
        assert [entry for entry in history if entry.kind == "lost" or abs(entry.at - time.time()) > 600] == []
    assert [early_or_late(app, run) for run in naps] == [[], []]
    assert station.count(START) == station.count(END) == 2
    assert check_invariants(station.store) == []
    station.stop()


def early_or_late(app: App, run: str) -> list[str]:
    """Sleeps and back-offs of the run that were over before their time, or a minute after it."""
    faults = []
    due: dict[str, float] = {}
    for entry in app.runs.history(run):
        if entry.kind == "queued" and entry.step in due:
            late = entry.at - due.pop(entry.step)
            if not 0 <= late < 60:
                faults.append(f"{entry.step} ended {late:.3f} s after its time")
        elif entry.kind in ("sleeping", "failed"):
            due[entry.step] = entry.detail["until" if entry.kind == "sleeping" else "retry_at"] / 1000
    return [*faults, *(f"{step} never ended" for step in due)]


@pytest.mark.slow
def test_workers_two_hours_apart_start_each_tick_once_at_its_time(station: Station) -> None:
    """BEHAVIOURS 121, 150: the server's clock ticks."""
    runs = Runs(lambda: station.store, "ticking", {})
    for off in (HOUR, -HOUR):
        station.worker(off, "ticking")
    until(lambda: len(runs.list()) >= 3)
    station.beats()  # both have been at it
    station.stop()
    found = sorted(runs.list(), key=lambda run: run.event.ts)
    assert [b.event.ts - a.event.ts for a, b in pairwise(found)] == [timedelta(seconds=1)] * (len(found) - 1)
    assert all(0 <= (run.created - run.event.ts).total_seconds() < 60 for run in found)
    assert abs(found[-1].created.timestamp() - time.time()) < 600
    assert check_invariants(station.store) == []


@pytest.mark.chaos
def test_an_rq_scheduler_with_a_fast_clock_wakes_nobody(station: Station) -> None:
    """BEHAVIOURS 150: it puts jobs into their queue an hour early; whoever finds one there puts it back to its time."""
    app = App("waiting").connect(store=station.store)
    station.worker(0, "waiting")
    run = station.send(app, 0, "crash.nap", seconds=2.5)
    until(lambda: app.runs.get(run).state == "sleeping")
    for _ in range(2):
        schedule_as_rq(station, HOUR)
    app.runs.result(run, 30)
    assert [each.kind for each in app.runs.history(run) if each.kind in ("lost", "recovered")] == []
    assert early_or_late(app, run) == []
    assert check_invariants(station.store) == []
    station.stop()


def schedule_as_rq(station: Station, off: float) -> None:
    """One round of a scheduler of RQ's, in a process whose clock is off."""
    round = f"""
from tests.crash.wrong_clock import shift
shift({off})
from rq.scheduler import RQScheduler
from flowlib.address import connect
scheduler = RQScheduler(["flow"], connection=connect({station.url!r}))
assert scheduler.acquire_locks()
scheduler.enqueue_scheduled_jobs()
scheduler.release_locks()
"""
    subprocess.run([sys.executable, "-c", round], cwd=ROOT, check=True)
