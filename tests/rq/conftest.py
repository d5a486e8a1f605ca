"""`shop`: the app on a server of its own, and both kinds of workers for it: ours, and those of the installed RQ."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer

from flowlib import Event, Run
from flowlib.dispatch import Dispatcher
from flowlib.store import Store
from flowlib.testing import check_invariants
from flowlib.wire import FOREVER
from flowlib.worker import FlowWorker
from flowlib.worker.housekeeping import Housekeeper
from tests.forks import Command
from tests.patience import PATIENCE, until

from . import jobs
from .shop import DIARY, GATE, app


class Shop:
    def __init__(self, redis_url: str, folder: Path) -> None:
        self.url = redis_url
        self._folder = folder
        self.app = app.connect(redis_url)
        self.store = app.store
        self.client = self.store.client
        self.store.register_app("shop", app.functions)
        self.store.join_events("shop")
        self.dispatcher = Dispatcher("shop", app.functions, app.location, self.store, "tests", idle_ms=60_000)
        self.house = Housekeeper(self.store, "tests", event_retention_ms=0)
        self._workers: list[tuple[FlowWorker, threading.Thread]] = []

    # -- runs --------------------------------------------------------------------------------------------------------

    def send(self, name: str, **data: Any) -> str:
        """The id of the run that the event has started; it takes no worker."""
        event = app.send(Event(name, data))
        self.dispatcher.dispatch(self.dispatcher.fresh())
        (run,) = until(lambda: app.runs.of_event(event))
        return str(run)

    def get(self, run: str) -> Run:
        return app.runs.get(run)

    def job(self, run: str, step: str = "") -> Job:
        """As any of RQ's tools would fetch it; the first job of a run has no step's name."""
        return Job.fetch(f"{run}-{step}" if step else run, connection=self.client, serializer=JSONSerializer)

    def kinds(self, run: str, step: str) -> list[str]:
        """What happened to a step, in order."""
        return [entry.kind for entry in app.runs.history(run) if entry.step == f"1:{step}" and entry.kind != "log"]

    def diary(self) -> list[str]:
        noted: Any = self.client.lrange(DIARY, 0, -1)
        return [word.decode() for word in noted]

    def open_gate(self) -> None:
        self.client.rpush(GATE, "open")

    def open_all_gates(self) -> None:
        self.open_gate()
        self.client.rpush(jobs.GATE, *["open"] * 10)

    def faults(self) -> list[str]:
        return check_invariants(self.store)

    # -- workers -----------------------------------------------------------------------------------------------------

    @property
    def queue(self) -> Queue:
        return Queue("flow", connection=self.client, serializer=JSONSerializer)

    def flow_worker(self, **settings: Any) -> FlowWorker:
        """Ours, in a thread; the fixture ends it."""
        store = Store(self.url, patience=FOREVER, give_up=lambda: worker._gone)
        worker = FlowWorker(app=app, store=store, **{"lease_ms": 5000, **settings})
        thread = threading.Thread(target=worker.work, name="flow-worker", daemon=True)
        thread.start()
        self._workers.append((worker, thread))
        until(lambda: self.client.hget(f"rq:worker:{worker.name}", "state"))
        return worker

    def simple_worker(self, worker_class: type[SimpleWorker] = SimpleWorker) -> None:
        """RQ's own, in this process, until nothing is queued."""
        worker_class([self.queue], connection=self.client, serializer=JSONSerializer).work(burst=True)

    def work_off(self, queues: list[Queue]) -> None:
        """RQ's own, as it comes, until nothing is queued."""
        SimpleWorker(queues, connection=self.client).work(burst=True)

    def flow_burst(self, queues: list[Queue]) -> None:
        """Ours, for RQ's jobs too, until nothing is queued."""
        names = [queue.name for queue in queues]
        worker = FlowWorker(names, app=app, store=Store(self.url), lease_ms=5000, rq_jobs=True)
        thread = threading.Thread(target=worker.work, args=[True], daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a worker does not end"
        worker.store.close()

    def rq(self, *arguments: str) -> str:
        """RQ's command line, as a user types it: what it says."""
        beside = Path(mkdtemp(dir=self._folder))
        ended = Command("rq", [*arguments, "--url", self.url], beside, environment={"FLOW_REDIS_URL": self.url})
        assert ended.exit_code == 0, ended.err
        return ended.out + ended.err

    def fork_worker(self) -> str:
        """RQ's own, with a process for each job, until nothing is queued; what it says on the way."""
        return self.rq("worker", "--serializer", "rq.serializers.JSONSerializer", "--burst", "flow")

    def stop_workers(self) -> None:
        workers, self._workers = self._workers, []
        for worker, thread in workers:
            if thread.is_alive():
                worker.stop()
        deadline = time.monotonic() + PATIENCE
        for worker, thread in workers:
            while thread.is_alive():  # its threads wait for events and for timers: let there be some
                assert time.monotonic() < deadline, "a worker does not end"
                app.send(Event("wake up", None))
                self.client.publish(self.store.keys.timers_channel, "")
                thread.join(0.02)
            worker.store.close()


@pytest.fixture
def shop(redis_url: str, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(redis_url, tmp_path)
    yield shop
    shop.open_all_gates()
    shop.stop_workers()
    shop.store.close()


__all__ = ["Shop"]
