"""`Case`: an app of a test's own with a worker in a thread, on a real server; what most tests of behaviour need.

A test writes its function once, as a generator that says `yield` where an async function says `await`; `Case.function`
makes an ordinary function of it, or an async one. A `Way` also says how runs are chained: *in place*, where a run stays
on its worker from step to step, or *replayed*, where every step is claimed anew and the function starts from its top.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import count
from types import ModuleType
from typing import Any

import pytest
from rq.job import Job
from rq.serializers import JSONSerializer

from flowlib import App, AsyncStep, Event, Middleware, Run, RunCancelled, RunFailed, Step
from flowlib.journal import id_of
from flowlib.model import HistoryEntry
from flowlib.runs import Runs
from flowlib.worker import FlowWorker
from tests.patience import PATIENCE, until

THREADS = int(os.environ.get("FLOW_TEST_THREADS", "1"))  # of each worker

Script = Callable[[Event[Any], Any], Any]
_modules = count(1)


@dataclass(frozen=True)
class Way:
    """How the functions of a case are declared, and for how many seconds their runs may stay on one worker."""

    is_async: bool
    budget: float

    def __str__(self) -> str:
        return f"{'async' if self.is_async else 'sync'}-{'in-place' if self.budget else 'replayed'}"


SYNC, ASYNC = Way(False, 10.0), Way(True, 10.0)
WAYS = (SYNC, ASYNC, Way(False, 0.0), Way(True, 0.0))

in_place = pytest.mark.parametrize("case", [SYNC, ASYNC], indirect=True, ids=str)
only_sync = pytest.mark.parametrize("case", [SYNC], indirect=True, ids=str)
only_async = pytest.mark.parametrize("case", [ASYNC], indirect=True, ids=str)


class Case:
    """An app, its workers, and a ledger of what bodies did, kept outside Redis."""

    def __init__(self, way: Way, redis_url: str, name: str = "case") -> None:
        self.way = way
        self.ledger: list[Any] = []
        self._module = ModuleType(f"flow_case_{next(_modules)}")
        self.app = self._app_in_a_module(redis_url, name)
        self._workers: list[tuple[FlowWorker, threading.Thread]] = []

    def _app_in_a_module(self, redis_url: str, name: str) -> App:
        """A worker tells where its app can be imported from, so it has to be at the top of some module."""
        sys.modules[self._module.__name__] = self._module
        exec(f"from flowlib import App; app = App({name!r}, redis_url={redis_url!r})", vars(self._module))
        app = vars(self._module)["app"]
        assert isinstance(app, App)
        return app

    def use_middleware(self, middleware: Sequence[Middleware]) -> None:
        """Before any worker is there."""
        self.use_middleware_of(App("made", middleware=middleware))

    def use_middleware_of(self, made: App) -> None:
        self.app.hooks, self.app.sealing = made.hooks, made.sealing
        self.app.runs = Runs(lambda: self.app.store, self.app.name, self.app.functions, made.sealing)

    # -- declaring ---------------------------------------------------------------------------------------------------

    def function(self, on: Any = "test", **settings: Any) -> Callable[[Script], Script]:
        """As `app.function`, for a generator or a function of one face; retries come at once if not told otherwise."""

        def declare(script: Script) -> Script:
            given: Any = {"backoff": 0, **settings}
            self.app.function(on=on, **given)(self.faced(script))
            return script

        return declare

    def faced(self, script: Script) -> Callable[[Event[Any], Any], Any]:
        """As a function of this case's face."""
        if inspect.iscoroutinefunction(script):
            return script
        return as_async(script) if self.way.is_async else as_sync(script)

    def body(self, name: Any, returns: Any = None, *, fails: int = 0, error: Exception | None = None) -> Any:
        """A step's body that notes its name in the ledger, fails so many times, and then returns."""

        def body() -> Any:
            self.ledger.append(name)
            if self.ledger.count(name) <= fails:
                raise error or ValueError(f"{name} failed")
            return returns

        return body

    # -- working -----------------------------------------------------------------------------------------------------

    def start(self, max_jobs: int | None = None, queues: tuple[str, ...] = (), **settings: Any) -> FlowWorker:
        """One more worker; it is registered and listens to events when this returns."""
        worker = FlowWorker(queues, app=self.app, **{"budget": self.way.budget, "threads": THREADS, **settings})
        thread = threading.Thread(target=worker.work, kwargs={"max_jobs": max_jobs}, name="worker", daemon=True)
        thread.start()
        self._workers.append((worker, thread))
        until(lambda: worker.name in {each.name for each in FlowWorker.all(connection=self.app.store.client)})
        return worker

    def send(self, data: Any = None, *, event: Event[Any] | None = None) -> str:
        """Send an event, with a worker to receive it, and return the id of the run that it started."""
        if not self._workers:
            self.start()
        event_id = self.app.send(event or Event("test", {} if data is None else data))
        (run_id,) = until(lambda: self.app.runs.of_event(event_id))
        return str(run_id)

    def run(self, data: Any = None, *, event: Event[Any] | None = None) -> Run:
        """Send an event and return the run that it started once that has ended, however it did."""
        return self.ended(self.send(data, event=event))

    def ended(self, run_id: str) -> Run:
        with contextlib.suppress(RunFailed, RunCancelled):
            self.app.runs.result(run_id, timeout=PATIENCE)
        return self.app.runs.get(run_id)

    def entries(self, run_id: str, kind: str) -> list[HistoryEntry]:
        return [entry for entry in self.app.runs.history(run_id) if entry.kind == kind]

    def lines(self, run_id: str) -> list[tuple[str, str, int]]:
        """What the run has said: text, step and attempt of each line."""
        return [(entry.detail["text"], id_of(entry.step), entry.attempt) for entry in self.entries(run_id, "log")]

    def jobs(self) -> list[Job]:
        """All jobs that RQ knows of."""
        client = self.app.store.client
        keys = [key.decode() for key in client.scan_iter(f"{self.app.store.keys.rq}:job:*")]
        return [Job.fetch(key.rpartition(":")[2], connection=client, serializer=JSONSerializer) for key in keys]

    def join(self) -> None:
        """Until all workers have ended. Their threads that wait for Redis are woken: by an event, by the timers."""
        for _, thread in self._workers:
            deadline = time.monotonic() + PATIENCE
            while thread.is_alive():
                assert time.monotonic() < deadline, "a worker does not end"
                self.app.send(Event("wake up", None))
                self.app.store.client.publish(self.app.store.keys.timers_channel, "")
                thread.join(0.02)
        self._workers.clear()

    def close(self) -> None:
        for worker, _ in self._workers:
            worker.stop()
        self.join()
        self.app.store.close()
        del sys.modules[self._module.__name__]


def as_sync(script: Script) -> Callable[[Event[Any], Step], Any]:
    def function(event: Event[Any], step: Step):  # type: ignore[no-untyped-def]
        playing: Any = script(event, step)
        if not isinstance(playing, Generator):
            return playing
        value = None
        while True:
            try:
                value = playing.send(value)
            except StopIteration as end:
                return end.value

    return _named(function, script)


def as_async(script: Script) -> Callable[[Event[Any], AsyncStep], Any]:
    async def function(event: Event[Any], step: AsyncStep):  # type: ignore[no-untyped-def]
        playing: Any = script(event, step)
        if not isinstance(playing, Generator):
            return playing
        resume: Callable[[], Any] = functools.partial(next, playing)
        while True:
            try:
                asked = resume()
            except StopIteration as end:
                return end.value
            try:
                resume = functools.partial(playing.send, await asked)
            except BaseException as error:
                resume = functools.partial(playing.throw, error)

    return _named(function, script)


def _named(function: Any, script: Script) -> Any:
    function.__name__, function.__qualname__ = script.__name__, script.__qualname__
    return function
