"""A worker in the middle of a step: told to end, frozen past its lease, without Redis, with a full one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rq.suspension import resume, suspend

from flowlib import App, Event
from flowlib.records import text
from flowlib.server import Server
from flowlib.store import Store
from flowlib.testing import check_invariants
from tests import access
from tests.patience import PATIENCE, until

from .fleet import WorkerProcess
from .ledger import END, START, Ledger
from .proxy import Proxy
from .waiting import gate


class Scene:
    """One server, and workers of the app that waits."""

    def __init__(self, server: Server, notes: Path) -> None:
        self.server = server
        self.notes = notes
        self.store = Store(server.url)
        self.app = App("waiting").connect(store=self.store)
        self._workers: list[WorkerProcess] = []

    def worker(self, **settings: Any) -> WorkerProcess:
        url = settings.pop("url", self.server.url)
        worker = WorkerProcess("tests.crash.waiting:app", url, self.notes, **settings)
        self._workers.append(worker)
        return worker

    def send(self) -> str:
        event = self.app.send(Event("crash.wait", {}))
        (run,) = until(lambda: self.app.runs.of_event(event))
        return str(run)

    def waits(self, times: int = 1) -> None:
        """Until so many bodies have begun to wait."""
        until(lambda: self.count(START, "wait") >= times)

    def let_go(self) -> None:
        gate(self.notes).touch()

    def count(self, word: str, step: str) -> int:
        return sum((line.word, line.step) == (word, step) for line in Ledger(self.notes).lines())

    def kinds(self, run: str, step: str) -> list[str]:
        return [entry.kind for entry in self.app.runs.history(run) if entry.step == f"1:{step}"]

    def log(self) -> str:
        log = Path(f"{self.notes}.log")
        return log.read_text() if log.exists() else ""

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self.store.close()


@pytest.fixture
def scene(fresh_server: Server, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(fresh_server, tmp_path / "notes")
    yield scene
    scene.close()


class Late:
    """The address of a server whose replies can be withheld."""

    def __init__(self, scene: Scene) -> None:
        self.proxy = Proxy(scene.server.socket)
        self.url = f"redis://{access.USER}:{access.PASSWORD}@127.0.0.1:{self.proxy.port}/0?socket_timeout=60"


@pytest.fixture
def late(scene: Scene) -> Iterator[Late]:
    late = Late(scene)
    yield late
    late.proxy.close()


# -- told to end -----------------------------------------------------------------------------------------------------


def test_sigterm_lets_the_running_step_end_and_takes_nothing_more(scene: Scene) -> None:
    """BEHAVIOURS 130."""
    worker = scene.worker()
    run = scene.send()
    scene.waits()
    other = scene.send()
    worker.send(signal.SIGTERM)
    assert not worker.ends(within=0.5), "it did not wait for its step"
    scene.let_go()
    assert worker.exit_code == 0
    assert scene.kinds(run, "wait")[-1] == "recorded"
    assert scene.kinds(run, "go-on") == ["queued"]
    assert scene.app.runs.get(other).state == "queued"
    assert scene.count(START, "wait") == 1
    assert check_invariants(scene.store) == []


def test_a_step_that_outlasts_the_grace_is_handed_back_and_nothing_is_held_against_it(scene: Scene) -> None:
    """BEHAVIOURS 130, 37: neither an attempt nor a loss is counted."""
    worker = scene.worker(grace=0.3)
    run = scene.send()
    scene.waits()
    assert worker.stop() == 0
    assert scene.kinds(run, "wait")[-1] == "released"
    assert scene.count(END, "wait") == 0
    assert check_invariants(scene.store) == []
    scene.let_go()
    heir = scene.worker()
    assert scene.app.runs.result(run, PATIENCE) == heir.pid
    (waited, _) = scene.app.runs.get(run).steps
    assert [(attempt.number, attempt.outcome) for attempt in waited.attempts] == [(1, "released"), (1, "ok")]


def test_a_second_sigterm_cuts_the_step_short(scene: Scene) -> None:
    """DESIGN §7."""
    worker = scene.worker(grace=60.0)
    run = scene.send()
    scene.waits()
    while not worker.ends(within=0.2):
        worker.send(signal.SIGTERM)
    assert worker.exit_code == 0
    assert scene.kinds(run, "wait")[-1] == "released"
    assert check_invariants(scene.store) == []


# -- cancelled -------------------------------------------------------------------------------------------------------


def test_a_body_whose_run_is_cancelled_is_ended_and_its_worker_takes_other_work(scene: Scene) -> None:
    """BEHAVIOURS 97, 98: it would have waited for ever."""
    scene.worker()
    run = scene.send()
    until(lambda: scene.kinds(run, "wait"))
    scene.app.runs.cancel(run, "changed my mind")
    other = scene.send()
    scene.waits(times=2)
    assert scene.count(END, "wait") == 0
    assert scene.kinds(run, "wait") == ["claimed", "cancelled"]
    scene.let_go()
    scene.app.runs.result(other, PATIENCE)
    assert scene.app.runs.get(run).status == "cancelled"
    assert check_invariants(scene.store) == []


# -- frozen ----------------------------------------------------------------------------------------------------------


def test_a_worker_that_was_frozen_past_its_lease_drops_its_result_and_says_so(scene: Scene) -> None:
    """BEHAVIOURS 132, 40, 147: as a paused machine, or one that swaps."""
    frozen = scene.worker(lease_ms=500)
    run = scene.send()
    until(lambda: scene.kinds(run, "wait"))
    frozen.send(signal.SIGSTOP)
    heir = scene.worker(lease_ms=500)
    scene.waits(times=2)
    scene.let_go()
    assert scene.app.runs.result(run, PATIENCE) == heir.pid
    frozen.send(signal.SIGCONT)
    until(lambda: f"the lease of job {run}-wait was lost" in scene.log())
    assert frozen.stop() == 0
    assert heir.stop() == 0
    assert scene.app.runs.get(run).result == heir.pid
    assert scene.kinds(run, "wait") == ["claimed", "lost", "claimed", "recorded"]
    assert scene.count(START, "go-on") == 1
    assert check_invariants(scene.store) == []


@pytest.mark.parametrize("begun", [False, True], ids=["a-run", "a-step-whose-worker-died"])
def test_what_a_worker_hears_of_too_late_is_not_begun_there(scene: Scene, late: Late, begun: bool) -> None:
    """I3, BEHAVIOURS 40: the answer to its claim comes when another worker has done it all; ten minutes of storm found it."""
    client = scene.store.client
    worker = scene.worker(lease_ms=500) if begun else scene.worker(url=late.url, lease_ms=500, name="late")
    if not begun:
        suspend(client)
    run = scene.send()
    if begun:
        until(lambda: scene.kinds(run, "wait"))
        suspend(client)
        worker.kill()
        worker = scene.worker(url=late.url, lease_ms=500, name="late")
    until(lambda: scene.app.runs.get(run).state == "queued")
    late.proxy.withhold(b"crash.wait")
    resume(client)
    until(lambda: "late" in [entry.worker for entry in scene.app.runs.history(run) if entry.kind == "claimed"])
    heir = scene.worker(lease_ms=500)
    scene.let_go()
    assert scene.app.runs.result(run, PATIENCE) == heir.pid
    late.proxy.release()
    until(lambda: f"run {run}: the lease of job" in scene.log())
    assert worker.pid not in {line.pid for line in Ledger(scene.notes).lines()}
    assert worker.stop() == heir.stop() == 0
    assert check_invariants(scene.store) == []


# -- without Redis ---------------------------------------------------------------------------------------------------


def test_a_result_that_could_not_be_reported_is_reported_when_redis_is_back(scene: Scene) -> None:
    """BEHAVIOURS 146, DESIGN §7: the lease still stands, so nothing is run again."""
    worker = scene.worker(lease_ms=10_000)
    run = scene.send()
    scene.waits()
    scene.server.kill()
    scene.let_go()
    until(lambda: scene.count(END, "wait") == 1)
    assert not worker.ends(within=0.3), "it did not wait for Redis"
    scene.server.restart()
    assert scene.app.runs.result(run, PATIENCE) == worker.pid
    assert scene.count(START, "wait") == 1
    assert worker.stop() == 0
    assert check_invariants(scene.store) == []


def test_an_outage_longer_than_the_lease_ends_right_too(scene: Scene) -> None:
    """BEHAVIOURS 146, 37: whoever reports first; no attempt is used up."""
    worker = scene.worker(lease_ms=500)
    run = scene.send()
    scene.waits()
    scene.server.kill()
    assert not worker.ends(within=1.0), "it did not wait for Redis"
    scene.server.restart()
    scene.let_go()
    assert scene.app.runs.result(run, PATIENCE) == worker.pid
    assert {attempt.number for attempt in scene.app.runs.get(run).steps[0].attempts} == {1}
    assert worker.stop() == 0
    assert check_invariants(scene.store) == []


def test_a_worker_with_a_full_redis_records_its_step_goes_on_and_takes_new_work_when_there_is_room(
    scene: Scene,
) -> None:
    """BEHAVIOURS 37: it does not quit, and no attempt is used up."""
    worker = scene.worker()
    run = scene.send()
    scene.waits()
    other = scene.send()
    scene.store.client.config_set("maxmemory", 1)
    scene.let_go()
    assert scene.app.runs.result(run, PATIENCE) == worker.pid
    until(lambda: "waiting for it" in scene.log())
    assert not worker.ends(within=0)
    assert scene.app.runs.get(other).state == "queued"
    scene.store.client.config_set("maxmemory", 0)
    assert scene.app.runs.result(other, PATIENCE) == worker.pid
    assert {a.number for each in (run, other) for s in scene.app.runs.get(each).steps for a in s.attempts} == {1}
    assert worker.stop() == 0
    assert check_invariants(scene.store) == []


def test_a_worker_that_starts_while_redis_is_away_waits_for_it(scene: Scene) -> None:
    """BEHAVIOURS 146: RQ's constructor asks Redis for the worker's address."""
    event = scene.app.send(Event("crash.wait", {}))
    scene.let_go()
    url = access.limited(scene.server.url)
    scene.server.kill()
    worker = scene.worker(url=url)
    until(lambda: "waiting for it" in scene.log())
    scene.server.restart()
    (run,) = until(lambda: scene.app.runs.of_event(event))
    assert scene.app.runs.result(run, PATIENCE) == worker.pid
    assert worker.stop() == 0


# -- the one who fires timers ----------------------------------------------------------------------------------------


def test_sleeps_end_although_the_worker_that_fires_timers_dies_when_they_are_due(scene: Scene) -> None:
    """BEHAVIOURS 148; I4: another one takes that duty over, within seconds: it asks each third of the time a duty lasts."""
    workers = {worker.pid: worker for worker in (scene.worker(), scene.worker())}
    client, keys = scene.store.client, scene.store.keys
    scene.app.send([Event("crash.nap", {"seconds": 2.0}) for _ in range(100)])
    until(lambda: client.zcard(keys.timers) == 100)
    holder = text(until(lambda: client.get(keys.housekeeper)))
    (pid,) = [pid for pid in workers if f"-{pid}-" in holder]
    lasts: Any = client.pttl(keys.housekeeper)
    assert 0 < lasts * 4 / 3 < 5000
    workers[pid].kill()
    until(lambda: {run.status for run in scene.app.runs.list(limit=200)} == {"completed"})
    late = []
    for run in scene.app.runs.list(limit=200):
        nap = scene.app.runs.get(run.id).steps[0]
        (woken,) = [e.at for e in scene.app.runs.history(run.id) if (e.kind, e.step) == ("recorded", "1:nap")]
        assert nap.until is not None
        late.append(woken - nap.until)
    print(f"the first one wakes {min(late):.3f} s after it is due, the last one {max(late):.3f} s")
    assert len(late) == 100
    assert min(late) >= 0
    assert check_invariants(scene.store) == []
