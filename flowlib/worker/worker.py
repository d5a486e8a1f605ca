"""`FlowWorker`: an RQ worker whose jobs are steps. To every RQ tool it is an ordinary worker.

The main thread claims and runs; a beat thread renews the lease and obeys requests to stop; a dispatcher thread turns
events into runs; a housekeeper thread takes its turn at timers and reaping. A signal only sets a flag: nothing is raised
out of a handler but into a step's body, so no claimed job is ever dropped on the way.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import redis
from rq.command import parse_payload
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker, WorkerStatus

from flowlib import capture, deadline
from flowlib.app import App
from flowlib.dispatch import Dispatcher, check_functions
from flowlib.engine import CANCELLED, DRAINED, LOST, Engine, Frame, now
from flowlib.function import DEFAULT_QUEUE
from flowlib.job import load
from flowlib.records import Claim
from flowlib.store import Store
from flowlib.wire import FOREVER, explain

from .housekeeping import Housekeeper
from .waiter import Waiter

log = logging.getLogger("flowlib.worker")

LEASE_MS = 10_000
BUDGET = 10.0  # seconds for which a run may stay on this worker before others get their turn
GRACE = 30.0  # seconds that a running step gets to finish after SIGTERM
COLD = 2.0  # seconds after a second signal
BEAT = 0.05  # seconds; a step that runs for two of them has its job made, shown in RQ's registries, its lines in its history
EVENT_RETENTION_MS = 24 * 3600 * 1000


class FlowWorker(BaseWorker):
    """Runs the functions of one app. `work()` returns after SIGTERM, SIGINT or RQ's shutdown command.

    >>> FlowWorker(["high", "flow"], app=app).work()

    It can also be named to RQ: `FLOW_APP=workers.contacts:app rq worker -w flowlib.worker.FlowWorker flow`.
    """

    def __init__(
        self,
        queues: Any = (),
        name: str | None = None,
        *args: Any,
        app: App | None = None,
        store: Store | None = None,
        lease_ms: int = LEASE_MS,
        budget: float = BUDGET,
        grace: float = GRACE,
        reconcile_every: float = 15.0,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("prepare_for_work", True):  # else it is only looked at, by Worker.all() and the like
            app = app or load(os.environ.get("FLOW_APP", ""))
            check_functions(app.name, app.functions)
            self._stopping = False
            self.store = store or Store(app.store.url, patience=FOREVER, give_up=self._may_give_up)
            self._hasty = Store(self.store.url, patience=0, client=self.store.client)  # for what must hold nothing up
            kwargs["connection"] = self.store.client
            self.app = app
            name = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
            queues = list(queues) or queues_of(app)
        kwargs["serializer"] = JSONSerializer
        super().__init__(queues, name, *args, **kwargs)
        self.lease_ms, self.budget, self.grace = lease_ms, budget, grace
        self.worker_ttl = max(60, 6 * lease_ms // 1000)
        self._reconcile_every = reconcile_every
        self._seen = self._shown = ""  # jobs: the one at the last beat, the last that RQ's registries list
        self._gone = False  # a second signal: do not even wait for Redis any more
        self._drain_by = FOREVER
        self._owns_process = False
        self._cold = threading.Timer(COLD, self._leave)
        self._cold.daemon = True
        self._threads: list[threading.Thread] = []

    # -- the main loop -----------------------------------------------------------------------------------------------

    def work(self, burst: bool = False, *_: Any, max_jobs: int | None = None, **_rest: Any) -> bool:
        """Claim and run jobs until told to stop; with `burst`, until nothing is queued. Tells whether anything was run."""
        self._start(burst)
        done = 0
        try:
            while not self._stopping and (max_jobs is None or done < max_jobs):
                if burst:
                    self.dispatcher.dispatch(self.dispatcher.fresh())
                found = self._claim()
                if isinstance(found, Claim):
                    self._run(found)
                    done += 1
                elif burst:
                    break
                else:
                    self._wait(found)
        finally:
            self._finish()
        return done > 0

    def _claim(self) -> Claim | str:
        try:
            return self.store.claim_job(
                self.name, self.engine.next_exec(), self.lease_ms, self.app.name, self.queue_names()
            )
        except redis.RedisError:
            if not self._stopping:
                raise
            return "idle"

    def _run(self, claim: Claim) -> None:
        function = self.app.functions.get(claim.lease.function) if claim.lease.app == self.app.name else None
        if function is None:
            what = f"{claim.lease.app}/{claim.lease.function}"
            log.warning("run %s is of %s, which this worker does not know: handed back", claim.lease.run, what)
            self.store.release_job(claim.lease, f"unknown function {what}", delay_ms=1000)
            return
        log.info("run %s: %s claimed", claim.lease.run, claim.step or "start")
        self.engine.play(function, claim)

    def _wait(self, found: str) -> None:
        try:
            if found == "idle":
                self._waiter.wait(5.0)
            else:  # suspended, or only other people's jobs: the queue has a head, so waiting for one would spin
                self._waiter.pause(0.5)
        except redis.RedisError as error:
            log.warning("waiting for work: %s", error)
            self._waiter.pause(0.5)

    def _may_give_up(self) -> bool:
        """Whether to stop waiting for Redis: on the way out, once nothing is held or the time to drain is over."""
        holding = self.engine.frame is not None
        return self._gone or (self._stopping and (not holding or time.monotonic() > self._drain_by))

    def _may_stay(self, since: float) -> bool:
        return not self._stopping and time.monotonic() - since < self.budget

    # -- birth and death ---------------------------------------------------------------------------------------------

    def _start(self, burst: bool) -> None:
        self.engine = Engine(self.store, self.name, lease_ms=self.lease_ms, may_stay=self._may_stay)
        self.dispatcher = Dispatcher(
            self.app.name, self.app.functions, self.app.location, self.store, self.name, self.lease_ms
        )
        self.housekeeper = Housekeeper(
            self.store, self.name, event_retention_ms=EVENT_RETENTION_MS, reconcile_every=self._reconcile_every
        )
        self._waiter = Waiter(self.store.client.connection_pool, self.queue_keys())
        self._insist(lambda: self.store.register_app(self.app.name, self.app.functions))
        self._insist(lambda: self.store.join_events(self.app.name))
        self._insist(self._rq.register_birth)
        self._insist(lambda: self.set_state(WorkerStatus.IDLE))
        self._rq.subscribe()
        capture.install()
        if threading.current_thread() is threading.main_thread():
            deadline.install()
            self._waiter.install()
            self._install_signal_handlers()
            self._owns_process = True
        bodies = {
            "beat": self._beat,
            "housekeeper": lambda: self.housekeeper.run(self._is_stopping),
            "dispatcher": lambda: self.dispatcher.run(self._is_stopping),
        }
        if burst:
            del bodies["dispatcher"]  # the main loop dispatches, to know when there is nothing left
        for name, body in bodies.items():
            thread = threading.Thread(target=body, name=f"flow-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)
        log.info("worker %s: app %s, queues %s", self.name, self.app.name, ", ".join(self.queue_names()))

    def _insist(self, act: Callable[[], object]) -> None:
        """A worker that starts while Redis is full or restarting waits for it, too."""
        while True:
            try:
                act()
                return
            except redis.RedisError as error:
                if self._stopping:
                    raise
                log.warning("worker %s: %s: waiting for it", self.name, explain(error, self.store.url))
                self._waiter.pause(1.0)

    def _finish(self) -> None:
        self._stopping = True
        self._gone = True
        self._cold.cancel()
        self.dispatcher.wake()
        for thread in self._threads:
            thread.join(timeout=2.0)
        self._waiter.close()
        self.engine.close()
        try:
            self.housekeeper.resign()
            self._rq.unsubscribe()
            self._rq.register_death()
        except redis.RedisError as error:
            log.warning("worker %s: could not say goodbye: %s", self.name, error)
        log.info("worker %s: stopped", self.name)

    @property
    def _rq(self) -> Any:
        """RQ's own methods, which carry no annotations."""
        return self

    def _is_stopping(self) -> bool:
        return self._stopping

    def _install_signal_handlers(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        """First: take no new work and finish the running step. Second: hand it back and leave, in any case."""
        if self._stopping:
            if not self._gone and self._owns_process:
                self._cold.start()
            self._drain_by = 0.0
            self._gone = True
            self._stop_body(self.engine.frame, DRAINED)
        else:
            self._drain_by = time.monotonic() + self.grace
            self._stopping = True

    def _leave(self) -> None:
        log.error(
            "worker %s: what runs here does not let itself be stopped: leaving, its lease will run out", self.name
        )
        os._exit(1)

    def stop(self) -> None:
        """As SIGTERM, from any thread."""
        self._on_signal(signal.SIGTERM, None)
        if not self._gone:
            self._waiter.wake()

    # -- the beat ----------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        renewed = 0.0
        while not self._gone:
            try:
                if time.monotonic() - renewed >= self.lease_ms / 3000:
                    renewed = time.monotonic()
                    self._renew()
                self._publish()
            except redis.RedisError as error:
                log.debug("heartbeat: %s", error)
            except Exception:
                log.exception("heartbeat")
            if time.monotonic() > self._drain_by:
                self._stop_body(self.engine.frame, DRAINED)
            time.sleep(min(BEAT, self.lease_ms / 3000))

    def _renew(self) -> None:
        frame = self.engine.frame
        body = frame.deadline if frame is not None else None  # now: afterwards it may be that of the next step
        held = [frame.lease.name] if frame is not None else []
        done = self.engine.take_done()
        asked = now()
        registered, lost = self.store.renew_leases(self.name, self.lease_ms, self.worker_ttl, held, done)
        if not lost:
            self.engine.confirmed = max(asked, self.engine.confirmed)
        if not registered:
            self._rq.register_birth()
        if lost and body is not None:
            body.stop(LOST)  # a body that has ended by now does not hear it

    def _publish(self) -> None:
        """What should be seen of a step while it runs: its log lines, and its place in RQ's registries."""
        frame = self.engine.frame
        if frame is None:
            return
        lease, job = frame.lease, frame.job.id
        if job == self._seen and job != self._shown and frame.deadline is not None:
            self._shown = job
            frame.job.place(self._hasty)
            self._hasty.show_job(lease, job)
        self._seen = job
        if lines := frame.recorder.take():
            try:
                self._hasty.add_lines(lease, capture.pack_lines(lines))
            except redis.RedisError:
                frame.recorder.put_back(lines)
                raise

    def _stop_body(self, frame: Frame | None, reason: str) -> None:
        """End the body that runs in this frame, unless the worker has gone on to another run meanwhile."""
        body = frame.deadline if frame is not None and frame is self.engine.frame else None
        if body is not None:
            body.stop(reason)

    # -- RQ's commands -----------------------------------------------------------------------------------------------

    def handle_payload(self, message: dict[Any, Any]) -> None:
        """RQ's commands: shutdown, stop-job and stop-execution. Stopping a step's job cancels its run."""
        payload = parse_payload(message)
        match payload.get("command"):
            case "shutdown":
                self.stop()
            case "stop-job" | "stop-execution":
                frame = self.engine.frame
                job = frame.job.id if frame is not None else ""
                if frame is not None and job == payload.get("job_id"):
                    self.store.cancel_run(frame.run_id, f"job {job} was stopped by a command")
                    self._stop_body(frame, CANCELLED)
            case other:
                log.info("command %r is not for this kind of worker", other)

    def unsubscribe(self) -> None:
        """The base class tells its thread to stop after it has unsubscribed: often too late, and it waits for a second."""
        if self.pubsub_thread:
            self.pubsub_thread.stop()
        super().unsubscribe()  # type: ignore[no-untyped-call]

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:  # noqa: ARG002
        """The base class lets its thread die of anything but a ConnectionError: commands would go unheard."""
        log.debug("commands: %s", exc)
        time.sleep(0.5)

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        return connection  # the base class would raise the socket timeout to minutes; we never block for long


def queues_of(app: App) -> list[str]:
    """The queues that an app's functions use, its default one last."""
    named = dict.fromkeys(fn.queue for fn in app.functions.values())
    named.pop(DEFAULT_QUEUE, None)
    return [*named, DEFAULT_QUEUE]
