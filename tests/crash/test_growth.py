"""A worker and a producer after many steps and events: as large as before, with as many threads, sockets and files."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from flowlib import App, Event
from flowlib.server import Server
from flowlib.store import Store
from tests.patience import until

from .fleet import WorkerProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is where it is read")

STEPS = 20  # of a run
KINDS = ("many", "many", "many-failing", "many", "many", "many-async")


@dataclass(frozen=True)
class Size:
    kilobytes: int
    threads: int
    files: int  # sockets among them


def size_of(pid: int) -> Size:
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes, threads = (int(re.findall(rf"{field}:\s+(\d+)", status)[0]) for field in ("VmRSS", "Threads"))
    return Size(kilobytes, threads, len(list(Path(f"/proc/{pid}/fd").iterdir())))


class Load:
    def __init__(self, server: Server, notes: Path) -> None:
        self.store = Store(server.url)
        self.app = App("leavings").connect(store=self.store)
        self.worker = WorkerProcess("tests.crash.leavings:app", server.url, notes, queues=["leavings"])
        self._sent = 0

    def run(self, steps: int) -> Size:
        """The worker's size after so many more steps of all kinds, each of a name that there was not before."""
        runs = steps // STEPS
        self.app.send([Event(f"leavings/{KINDS[n % len(KINDS)]}", {"steps": STEPS}) for n in range(runs)])
        self._sent += runs
        until(lambda: self._ended() == self._sent)
        return size_of(self.worker.pid)

    def _ended(self) -> int:
        keys = self.store.keys
        return int(self.store.client.zcard(keys.runs("leavings"))) - int(
            self.store.client.zcard(keys.active("leavings"))
        )


@pytest.fixture
def load(fresh_server: Server, tmp_path: Path) -> Iterator[Load]:
    load = Load(fresh_server, tmp_path / "notes")
    yield load
    assert load.worker.stop() == 0
    load.store.close()


def judge(sizes: Sequence[Size], bytes_allowed: float) -> None:
    """A leak is in every round, so the calmest one tells: one more buffer, or arena, comes now and then.

    A pool has as many connections as threads have ever used it at one moment: later on it may be one more for each.
    """
    warm, later = sizes[0], sizes[-1]
    assert later.threads <= warm.threads
    assert later.files <= warm.files + warm.threads, f"from {warm} to {later}"
    grown = min(after.kilobytes - before.kilobytes for before, after in pairwise(sizes))
    assert grown * 1024 < bytes_allowed, f"it grows: {sizes}"


@pytest.mark.slow
def test_a_worker_is_flat_over_many_steps(load: Load) -> None:
    sizes = [load.run(steps=1_500) for _ in range(4)]
    judge(sizes, bytes_allowed=1_500 * 100)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_worker_is_flat_over_very_many_steps(load: Load) -> None:
    sizes = [load.run(steps=5_000) for _ in range(60)]
    print("after every 50 000 steps:", *sizes[9::10], sep="\n")
    judge(sizes[19::10], bytes_allowed=50_000 * 5)


def test_a_producer_is_flat_over_many_events(redis_url: str) -> None:
    app = App("leavings", redis_url=redis_url)

    def send(events: int) -> Size:
        for _ in range(events // 2):
            app.send(Event("leavings/short", {"text": "x" * 100}))
            app.send([Event("leavings/short", {"text": "x" * 100}) for _ in range(10)])
        return size_of(os.getpid())

    warm = send(1000)
    later = send(4000)
    app.store.close()
    judge([warm, later], bytes_allowed=22_000 * 50)


def test_threads_that_have_sent_leave_no_connection_behind(redis_url: str) -> None:
    """A web server's threads come and go."""
    app = App("leavings", redis_url=redis_url)
    before = size_of(os.getpid())
    for _ in range(30):
        thread = threading.Thread(target=app.send, args=(Event("leavings/short", {}),))
        thread.start()
        thread.join()
    assert size_of(os.getpid()).files <= before.files + 1
    app.store.close()
