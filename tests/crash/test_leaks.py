"""What runs leave behind when their time is over: nothing but the keys that flowlib/keys.py says stay for ever."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import pytest

from flowlib import App, Event, RunEnded
from flowlib import keys as keys_module
from flowlib.server import Server
from flowlib.store import Store
from flowlib.testing import check_invariants
from flowlib.worker.housekeeping import Housekeeper
from tests.patience import until

from .fleet import WorkerProcess

LATER = 8 * 86_400  # seconds: longer than anything is kept
KINDS = (
    "short", "doomed", "short", "asleep", "flaky", "short", "apart", "forked", "waiting", "undoing", "gathered", "invoking",
    "stopped",
)  # fmt: skip
ROW = re.compile(r"^\| `([^`]+)` +\| (\w+) +\| ([^|]*?) +\|", re.MULTILINE)
STUCK = ([b"asleep", b"sleeping"], [b"long", b"running"])
PARTS = {"run": "[0-9A-Z]{26}", "id": ".*", "job": "[0-9A-Z]{26}[A-Za-z0-9_-]*"}


class Table:
    """The tables of keys.py: which key may be there, of which type, and which of them stay."""

    def __init__(self, prefixes: dict[str, str]) -> None:
        assert keys_module.__doc__ is not None
        rows = ROW.findall(keys_module.__doc__)
        self._types = {self._pattern(key, prefixes): kind for key, kind, _ in rows}
        self._staying = [self._pattern(key, prefixes) for key, _, lives in rows if lives.startswith("for ever")]

    def _pattern(self, key: str, prefixes: dict[str, str]) -> re.Pattern[str]:
        parts = re.split(r"\{(\w+)\}", key)
        names = [prefixes.get(part) or PARTS.get(part, "[^:]+") for part in parts[1::2]]
        fixed = map(re.escape, parts[::2])
        return re.compile("".join(part for pair in zip(fixed, [*names, ""], strict=True) for part in pair))

    def unknown(self, found: dict[str, str]) -> dict[str, str]:
        """Keys that no row describes, or that are of another type."""
        return {
            key: kind
            for key, kind in found.items()
            if not any(pattern.fullmatch(key) and kind == of for pattern, of in self._types.items())
        }

    def stays(self, key: str) -> bool:
        return any(pattern.fullmatch(key) for pattern in self._staying)


class Household:
    """Runs of every kind come and go on one server; a worker is killed among them, and some runs are cancelled."""

    def __init__(self, server: Server, notes: Path) -> None:
        self.store = Store(server.url)
        self.client = self.store.client
        self.app = App("leavings").connect(store=self.store)
        self.table = Table({"p": self.store.keys.prefix, "rq": self.store.keys.rq})
        self._url, self._notes = server.url, notes
        self._numbers = count()

    def live_through(self, runs: int) -> None:
        numbered = zip(islice(cycle(KINDS), runs), self._numbers, strict=False)
        events: list[Event[Any]] = [Event(f"leavings/{kind}", {"of": n}, id=f"event-{n}") for kind, n in numbered]
        self.app.send([*events, *events[:: len(KINDS)]])  # some come twice
        workers = [self._worker(), self._worker()]
        until(lambda: self._unfinished(start=runs // 2))
        for run in self._unfinished(start=-3):
            self._cancel(run)  # still queued
        workers[0].kill()
        workers[0] = self._worker()
        self.app.send([Event("leavings/long", {}) for _ in workers])
        until(self._all_have_ended)
        for worker in workers:
            assert worker.stop() == 0

    def _worker(self) -> WorkerProcess:
        queues = ["leavings", "other"]
        return WorkerProcess("tests.crash.leavings:app", self._url, self._notes, queues=queues, lease_ms=1000)

    def _unfinished(self, start: int = 0) -> list[str]:
        runs: Any = self.client.zrange(self.store.keys.active("leavings"), start, -1)
        return [run.decode() for run in runs]

    def _all_have_ended(self) -> bool:
        """Those that would not end by themselves are cancelled: in their sleep, or while a body runs."""
        unfinished = self._unfinished()
        pipe = self.client.pipeline(transaction=False)
        for run in unfinished:
            pipe.hmget(self.store.keys.run(run), "function", "state")
        for run, told in zip(unfinished, pipe.execute(), strict=True):
            if told in STUCK:
                self._cancel(run)
        return not unfinished and not self.client.xpending(self.store.keys.events, "leavings")["pending"]

    def _cancel(self, run: str) -> None:
        with contextlib.suppress(RunEnded):
            self.app.runs.cancel(run)

    def age(self) -> None:
        """As if more than a week had passed: what Redis forgets by itself, and what RQ's registries say of later."""
        pipe = self.client.pipeline(transaction=False)
        names = list(self.client.scan_iter(count=1000))
        for key in names:
            pipe.ttl(key)
        for key, left in zip(names, pipe.execute(), strict=True):
            if left >= 0:
                pipe.expire(key, left - LATER)
        for key in self.client.scan_iter(f"{self.store.keys.rq}:f*", _type="zset"):
            jobs: Any = self.client.zrange(key, 0, -1)
            for job in jobs:
                pipe.zincrby(key, -LATER, job)
        pipe.execute()

    def tidy(self) -> None:
        """As the worker with the duty does."""
        house = Housekeeper(self.store, "tests", event_retention_ms=0)
        house.tidy()
        house.bury()

    def found(self) -> dict[str, str]:
        names = sorted(self.client.scan_iter(count=1000))
        pipe = self.client.pipeline(transaction=False)
        for name in names:
            pipe.type(name)
        return {name.decode(): kind.decode() for name, kind in zip(names, pipe.execute(), strict=True)}


@pytest.fixture
def household(fresh_server: Server, tmp_path: Path) -> Iterator[Household]:
    household = Household(fresh_server, tmp_path / "notes")
    yield household
    household.store.close()


@pytest.mark.slow
def test_of_all_runs_nothing_is_left_but_what_is_said_to_stay(household: Household) -> None:
    """However they ended: well, failed, cancelled by hand, event or parent while they slept, waited or ran, undone; in one
    place or in several, with children and handlers, begun by a worker that was killed."""
    household.live_through(runs=300)
    assert household.table.unknown(household.found()) == {}
    assert check_invariants(household.store) == []
    household.age()
    household.tidy()
    left = household.found()
    assert [key for key in left if not household.table.stays(key)] == []
    assert household.client.hkeys(f"{household.store.keys.prefix}:listeners") == [b"leavings"]  # and no wait
    assert household.client.xlen(household.store.keys.events) == 0
    assert household.client.xinfo_consumers(household.store.keys.events, "leavings") == []


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_the_hundred_thousandth_run_leaves_no_more_than_the_first(household: Household) -> None:
    sizes = []
    for _ in range(50):
        household.live_through(runs=2000)
        household.age()
        household.tidy()
        assert [key for key in household.found() if not household.table.stays(key)] == []
        sizes.append(sum(household.client.memory_usage(key, samples=0) or 0 for key in household.found()))
    print("bytes that stay, after every 2 000 runs:", sizes)
    assert max(sizes) < sizes[0] * 1.5
