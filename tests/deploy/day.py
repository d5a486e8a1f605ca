"""`python -m tests.deploy.day URL`: all that workers, producers, the command line, stock RQ workers and RQ's tools do, once."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from click.testing import CliRunner
from rq import SimpleWorker, Worker
from rq.cli.cli import main as rq_main
from rq.command import send_shutdown_command
from rq.job import Job
from rq.registry import FinishedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from flowlib import App, Event
from flowlib.cli import main
from flowlib.dispatch import Dispatcher
from flowlib.errors import ConfigError
from flowlib.store import Store
from flowlib.wire import FOREVER
from flowlib.worker import FlowWorker
from flowlib.worker.housekeeping import Housekeeper
from flowlib.worker.start import start
from tests.patience import until

from . import chores

LEASE_MS = 1500  # with each third of it a worker tells RQ's tools what it has done: well before anybody's patience ends


class Day:
    def __init__(self, url: str, patience: float = 20.0) -> None:
        self.url = url
        self.app = chores.app.connect(url)
        self.store = self.app.store
        self.client = self.store.client
        self._patience = patience
        store = Store(url, patience=FOREVER, give_up=lambda: self._worker._gone)
        self._worker = FlowWorker(["flow", "other"], app=self.app, store=store, lease_ms=LEASE_MS)
        self._thread = threading.Thread(target=self._worker.work, daemon=True)

    def go_by(self) -> None:
        self._thread.start()
        self.until(lambda: self.client.hget(f"rq:worker:{self._worker.name}", "state"))
        self.produce()
        self.type_commands()
        self.use_rqs_tools()
        self.start_another_of_that_name()
        send_shutdown_command(self.client, self._worker.name)
        self.until(lambda: not self._thread.is_alive())
        self.work_as_rq()
        self.deploy()
        self.keep_house()

    def end(self) -> None:
        chores.gate.set()
        for _ in range(2):  # the second time it does not even wait for Redis
            self._worker.stop()
        self._thread.join()
        self._worker.store.close()
        self.store.close()

    def until(self, condition: Callable[[], Any]) -> Any:
        return until(condition, self._patience)

    def produce(self) -> None:
        assert self.app.runs.result(self.send("chores.all"), self._patience) == 7
        assert self.app.runs.result(self.send("chores.async"), self._patience) == 4
        failing = self.send("chores.failing")
        self.until(lambda: self.app.runs.get(failing).finished)
        waiting = self.send("chores.waiting")
        self.until(lambda: [entry for entry in self.app.runs.history(waiting) if entry.kind == "log"])
        self.until(lambda: StartedJobRegistry("flow", connection=self.client).get_job_ids(cleanup=False))
        self.app.runs.cancel(waiting)
        chores.gate.set()

    def send(self, name: str) -> str:
        event = self.app.send(Event(name, {}))
        (run,) = self.until(lambda: self.app.runs.of_event(event))
        return str(run)

    def type_commands(self) -> None:
        (run, *_) = self.app.runs.list(status="completed")
        assert self.app.runs.outputs(run.id)
        self.store.join_events("gone")
        lines = (
            "functions",
            "runs",
            f"show {run.id}",
            f"logs {run.id}",
            "metrics --once",
            "doctor",
            "forget gone --yes",
        )
        for line in lines:
            said = CliRunner().invoke(main, [*line.split(), "--redis-url", self.url])
            assert said.exit_code == 0, (line, said.output)
            assert "cannot check" not in said.output, said.output

    def use_rqs_tools(self) -> None:
        for line in ("suspend", "info", "resume"):
            said = CliRunner().invoke(rq_main, [line, "--url", self.url])
            assert said.exit_code == 0, (line, said.output)
        (job, *_) = FinishedJobRegistry("flow", connection=self.client, serializer=JSONSerializer).get_job_ids()
        assert self.rq_job(job).get_status() == "finished"
        self.rq_job(job).return_value()
        self.until(lambda: Worker.all(connection=self.client)[0].total_working_time)

    def rq_job(self, id: str) -> Job:
        return Job.fetch(id, connection=self.client, serializer=JSONSerializer)

    def start_another_of_that_name(self) -> None:
        with contextlib.suppress(ConfigError):
            start(self.app, self.url, name=self._worker.name)
            raise AssertionError("two workers have one name")

    def work_as_rq(self) -> None:
        """On one queue, on two, and in a burst: RQ takes its jobs by different commands."""
        ways: list[tuple[list[str], dict[str, Any]]] = [
            (["flow"], {"max_jobs": 2}), (["flow", "other"], {"max_jobs": 2}), (["flow"], {"burst": True}),
        ]  # fmt: skip
        for queues, limit in ways:
            (run,) = self.started("chores.async")
            SimpleWorker(queues, connection=self.client, serializer=JSONSerializer).work(**limit)
            assert self.app.runs.get(run).result == 4
            assert self.rq_job(f"{run}-double").get_status() == "finished"
        (run,) = self.started("chores.doomed")
        SimpleWorker(["flow"], connection=self.client, serializer=JSONSerializer).work(burst=True)
        assert self.app.runs.get(run).status == "failed"

    def deploy(self) -> None:
        """A newer version is there, too, with another function on the same event."""
        newer = App("chores")
        newer.function(on="chores.async", name="newer")(lambda event, step: None)
        worker = SimpleWorker(["flow"], connection=self.client)
        worker.register_birth()
        self.store.register_app("chores", newer.functions, worker.name)
        self.started("chores.async")
        dispatcher = Dispatcher("chores", newer.functions, self.app.location, self.store, worker.name, idle_ms=0)
        dispatcher.dispatch_unsettled()
        assert self.app.runs.list(function="newer")
        worker.register_death()

    def keep_house(self) -> None:
        """A dead worker's job, a run whose job somebody has deleted, a consumer that has gone."""
        house = Housekeeper(self.store, "house", event_retention_ms=0)
        self.started("chores.async")
        assert self.store.claim_job("dead", "exec", 1, "chores", ["flow"]) != "idle"
        assert self.until(house.reap)
        self.client.delete("rq:queue:flow")
        assert house.reconcile(0)
        house.tidy()
        assert self.store.forget_consumers("chores")
        house.bury()

    def started(self, name: str) -> list[str]:
        event = self.app.send(Event(name, {}))
        dispatcher = Dispatcher("chores", self.app.functions, self.app.location, self.store, "tests", idle_ms=0)
        dispatcher.dispatch(dispatcher.fresh())
        dispatcher.dispatch_abandoned()
        return self.app.runs.of_event(event)


@contextlib.contextmanager
def day_at(url: str, patience: float = 20.0) -> Iterator[Day]:
    day = Day(url, patience)
    try:
        yield day
    finally:
        day.end()


if __name__ == "__main__":
    with day_at(sys.argv[1], patience=5.0) as today:
        today.go_by()
