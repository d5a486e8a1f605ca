"""`FlowWorker`: an RQ worker whose jobs are steps. To every RQ tool it is an ordinary worker.

The main thread claims and runs, or watches over the threads that do; a beat thread renews leases and obeys requests to
stop; a dispatcher thread turns events into runs, and a cron thread ticks; a housekeeper thread takes its turn at timers
and reaping. A signal only sets a flag: nothing is raised out of a handler but into a step's body, so no claimed job is
ever dropped on the way.
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
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker, WorkerStatus

from flowlib import capture, deadline
from flowlib.app import App
from flowlib.board import Board, Line
from flowlib.dispatch import Dispatcher, check_functions
from flowlib.frame import DRAINED
from flowlib.job import load
from flowlib.loop import SharedLoop
from flowlib.records import Claim
from flowlib.store import Store
from flowlib.ticks import Ticks
from flowlib.wire import FOREVER

from .commands import Commands
from .housekeeping import Housekeeper
from .news import News
from .ordinary import ORDINARY, OrdinaryJobs
from .patience import insist
from .settings import check_settings, queues_of
from .slot import Slot, renew
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
        threads: int = 1,
        board: Board | None = None,
        reconcile_every: float = 15.0,
        rq_jobs: bool = False,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("prepare_for_work", True):  # else it is only looked at, by Worker.all() and the like
            app = app or load(os.environ.get("FLOW_APP", ""))
            check_functions(app.name, app.functions)
            check_settings(
                lease_ms=lease_ms, threads=threads, budget=budget, grace=grace, reconcile_every=reconcile_every
            )
            self._stopping = False
            self._own = store is None
            self.store = store or Store(app.store.url, patience=FOREVER, give_up=self._may_give_up)
            self._hasty = self.store.hasty()  # for what must hold nothing up
            kwargs["connection"] = self.store.client
            self.app = app
            name = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
            queues = list(queues) or queues_of(app)
        kwargs["serializer"] = JSONSerializer
        super().__init__(queues, name, *args, **kwargs)
        self.lease_ms, self.budget, self.grace = lease_ms, budget, grace
        self.worker_ttl = max(60, 6 * lease_ms // 1000)
        self._reconcile_every, self._rq_jobs = reconcile_every, rq_jobs
        self.threads, self.board, self._max_jobs = threads, board, FOREVER
        self.slots: list[Slot] = []
        self._gone = False  # a second signal: do not even wait for Redis any more
        self._drain_by = FOREVER
        self._owns_process = False
        self._cold = threading.Timer(COLD, self._leave)
        self._cold.daemon = True
        self._threads: list[threading.Thread] = []

    # -- the main loop -----------------------------------------------------------------------------------------------

    def work(self, burst: bool = False, *_: Any, max_jobs: int | None = None, **_rest: Any) -> bool:
        """Claim and run jobs until told to stop; with `burst`, until nothing is queued. Tells whether anything was run."""
        self._max_jobs = max_jobs or FOREVER
        self._start(burst)
        try:
            if self.threads == 1:
                self._serve(self.slots[0], burst)
            else:
                self._serve_many(burst)
        finally:
            self._finish()
        return self._jobs > 0

    def _serve(self, slot: Slot, burst: bool) -> None:
        looked = False
        while not self._stopping and not self._worn:
            if self.ordinary.overdue and self.ordinary.run_one(ORDINARY, slot.engine.line):
                continue
            found = self._claim(slot)
            if isinstance(found, Claim):
                self._news.found()
                slot.play(found)
            elif self.ordinary.run_one(found, slot.engine.line):
                self._news.found()
            elif not burst:
                self._wait(found)
            elif events := self.dispatcher.fresh():
                self.dispatcher.dispatch(events)
            elif not looked:
                looked = True  # a burst ends before the threads that look for what others have left come to that
                self.dispatcher.dispatch_unsettled()
                self.dispatcher.dispatch_abandoned()
                self.housekeeper.look_around()
            else:
                break

    def _serve_many(self, burst: bool) -> None:
        """One thread for each slot; this one watches the queues, and hears signals."""
        broken: list[BaseException] = []

        def serve(slot: Slot) -> None:
            try:
                self._serve(slot, burst)
            except BaseException as error:
                broken.append(error)
            finally:
                self._hang_up()
                if not burst:
                    self._stopping = True
                    self._news.end()

        threads = [
            threading.Thread(target=serve, args=[slot], name=f"flow-slot-{n}") for n, slot in enumerate(self.slots)
        ]
        for thread in threads:
            thread.daemon = True
            thread.start()
        while not self._stopping and not burst:
            if self._news.until_idle():
                self._watch("idle")
                self._news.tell()
        self._news.end()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.5)  # signals are heard in between
        if broken:
            raise broken[0]

    def _claim(self, slot: Slot) -> Claim | str:
        try:
            return slot.claim(self.queue_names(), alone=self._idle, rq_jobs=self._rq_jobs)
        except redis.RedisError:
            if not self._stopping:
                raise
            return "idle"

    def _wait(self, found: str) -> None:
        if self.threads == 1:
            self._watch(found)
            return
        if found not in ("idle", ORDINARY):
            time.sleep(0.5)
        self._news.wait()

    def _watch(self, found: str) -> None:
        try:
            if found in ("idle", ORDINARY):
                self._waiter.wait(1.0 if self._rq_jobs else 5.0)  # RQ's jobs may be due, or left by the dead
            else:  # suspended, or only other people's jobs: the queue has a head, so waiting for one would spin
                self._waiter.pause(0.5)
        except redis.RedisError as error:
            log.warning("waiting for work: %s", error)
            self._waiter.pause(0.5)

    @property
    def _jobs(self) -> int:
        return sum(slot.engine.jobs for slot in self.slots) + self.ordinary.done

    @property
    def _worn(self) -> bool:
        return self._max_jobs != FOREVER and self._jobs >= self._max_jobs

    @property
    def _idle(self) -> bool:
        return all(slot.frame is None for slot in self.slots) and not self.ordinary.busy

    def _may_give_up(self) -> bool:
        """Whether to stop waiting for Redis: on the way out, once nothing is held or the time to drain is over."""
        return self._gone or (self._stopping and (self._idle or time.monotonic() > self._drain_by))

    def _may_stay(self, since: float) -> bool:
        return not self._stopping and time.monotonic() - since < self.budget and not self._worn

    # -- birth and death ---------------------------------------------------------------------------------------------

    def _start(self, burst: bool) -> None:
        self._news = News()
        self._loop = SharedLoop()
        self.slots = [
            Slot(
                self.store, self._hasty, self.name, self.app, lease_ms=self.lease_ms, may_stay=self._may_stay,
                driver=None if self.threads == 1 else self._loop.driver(), line=Line(self.board, number),
            )
            for number in range(self.threads)
        ]  # fmt: skip
        self.dispatcher = Dispatcher(
            self.app.name, self.app.functions, self.app.location, self.store, self.name, self.lease_ms, self.app.open
        )
        self.ticks = Ticks(self.app.name, self.app.functions, self.app.location, self.store, self.name)
        self.housekeeper = Housekeeper(
            self.store, self.name, self.queue_names(),
            event_retention_ms=EVENT_RETENTION_MS, reconcile_every=self._reconcile_every,
        )  # fmt: skip
        self.ordinary = OrdinaryJobs(
            self.store, self.name, self.queue_names() if self._rq_jobs else [], lease_ms=self.lease_ms,
            give_up=self._may_give_up,
        )  # fmt: skip
        self._commands = Commands(self.store, self.pubsub_channel_name, self.slots, self.ordinary, self.stop)
        born = self._rq.register_birth  # who sees the worker is to find its functions
        for act in (self.dispatcher.enter, self._commands.subscribe, born, self.dispatcher.enter, self.ticks.declare):
            self._insist(act)
        self._insist(lambda: self.set_state(WorkerStatus.IDLE))
        capture.install()
        if threading.current_thread() is threading.main_thread():
            deadline.install()
            self._waiter.install()
            self._install_signal_handlers()
            self._owns_process = True
        bodies = {
            "beat": self._beat,
            "commands": lambda: self._commands.run(self._is_stopping),
            "housekeeper": lambda: self.housekeeper.run(self._is_stopping),
            "dispatcher": lambda: self.dispatcher.run(self._is_stopping),
            "cron": lambda: self.ticks.run(self._is_stopping),
        }
        if burst:
            del bodies["dispatcher"]  # the main loop dispatches, to know when there is nothing left
        if burst or not self.ticks.schedules:
            del bodies["cron"]
        for name, body in bodies.items():
            thread = threading.Thread(target=self._alongside, args=[body], name=f"flow-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)
        if self.board is not None:
            self.board.report(0)
        log.info("worker %s: app %s, queues %s", self.name, self.app.name, ", ".join(self.queue_names()))

    def _set_ip_address(self, connection: redis.Redis) -> None:
        """In RQ's constructor, which asks Redis for it."""
        self._waiter = Waiter(connection.connection_pool, self.queue_keys())
        self._insist(lambda: super(FlowWorker, self)._set_ip_address(connection))

    def _insist(self, act: Callable[[], object]) -> None:
        """A worker that starts while Redis is full or restarting waits for it, too."""
        insist(act, self.store.url, may_wait=lambda _: not self._stopping, pause=self._waiter.pause)

    def _finish(self) -> None:
        self._stopping = True
        self._gone = True
        self._news.end()
        self._cold.cancel()
        self.dispatcher.wake()
        self.ticks.end()
        self.housekeeper.wake()
        self._commands.wake()
        for thread in self._threads:
            thread.join(timeout=2.0)
        self._waiter.close()
        for slot in self.slots:
            slot.close()
        self._loop.close()
        self._say_goodbye()
        self._hang_up()
        if self._own:
            self.store.client.close()
        log.info("worker %s: stopped", self.name)

    def _alongside(self, body: Callable[[], None]) -> None:
        body()
        self._hang_up()

    def _hang_up(self) -> None:
        """This thread's connections; who ends leaves none open."""
        self._hasty.wire.close()
        self.store.wire.close()

    def _say_goodbye(self) -> None:
        for last in (False, True):  # the first connection that comes to hand may have been dead for long
            try:
                self.housekeeper.resign()
                self.ordinary.close()
                self._rq.register_death()
                self.store.forget_consumers(self.app.name)
                return
            except redis.RedisError as error:
                if last:
                    log.warning("worker %s: could not say goodbye: %s", self.name, error)

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
            self._stop_bodies()
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
                for slot in self.slots:
                    slot.publish()
                if self.board is not None:
                    self.board.report(self._jobs)
            except redis.RedisError as error:
                log.debug("heartbeat: %s", error)
            except Exception:
                log.exception("heartbeat")
            if time.monotonic() > self._drain_by:
                self._stop_bodies()
            time.sleep(min(BEAT, self.lease_ms / 3000))

    def _renew(self) -> None:
        if not renew(
            self.slots, lambda *told: self.store.renew_leases(self.name, self.lease_ms, self.worker_ttl, *told)
        ):
            self._rq.register_birth()
            self.dispatcher.enter()
        self.ordinary.renew()

    def _stop_bodies(self) -> None:
        for slot in self.slots:
            slot.stop(DRAINED)
        self.ordinary.drain()

    # -- for RQ ------------------------------------------------------------------------------------------------------

    def handle_payload(self, message: dict[Any, Any]) -> None:
        """A command, as RQ hands it over."""
        self._commands.take(message)

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        return connection  # the base class would raise the socket timeout to minutes; we never block for long
