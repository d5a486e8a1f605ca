"""What RQ's workers do between jobs, for a worker that performs RQ's jobs: schedule what is due, clean the registries up.

All of it is RQ's own code under RQ's own locks; steps, whose timers are ours, are left alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import redis
from rq import Queue, Worker
from rq.job import Job
from rq.registry import ScheduledJobRegistry
from rq.scheduler import RQScheduler
from rq.scripts import acquire_or_refresh_lock

log = logging.getLogger("flowlib.worker")

TICK, MAINTENANCE = 1.0, 600.0  # seconds; as RQ's scheduler and workers have them
LOCK = 3  # seconds; RQ's scheduler, a process of its own, takes a minute


class QuietWorker(Worker):
    """RQ's worker as a set of methods, under the name of a worker that is registered already; it opens nothing."""

    def __init__(self, name: str, queues: Sequence[Queue], connection: redis.Redis, serializer: Any = None) -> None:
        super().__init__(queues, name, connection=connection, serializer=serializer, prepare_for_work=False)

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        return connection  # RQ would raise its socket timeout to minutes; we never block for long


class _Due(ScheduledJobRegistry):
    """Without the steps, whose timers are ours."""

    def get_jobs_to_schedule(self, *args: Any, **kwargs: Any) -> list[str]:
        due = super().get_jobs_to_schedule(*args, **kwargs)
        return [job for job in due if not self.connection.hexists(Job.key_for(job), "flow_run")]


class _Scheduler(RQScheduler):
    """In turns with all others under RQ's lock, which is given up soon: between two ticks a job may run for an hour."""

    def acquire_locks(self, auto_start: bool = False) -> set[str]:  # noqa: ARG002 - RQ starts a process with it
        def is_ours(queue: str) -> bool:
            lock = self.get_locking_key(queue)
            return acquire_or_refresh_lock(self.connection, lock, self.name, LOCK) != "taken"

        self._acquired_locks = {queue for queue in self._queue_names if is_ours(queue)}
        due: Any = _Due  # RQ's constructors carry no annotations
        self._scheduled_job_registries = [
            due(queue, self.connection, serializer=self.serializer) for queue in self._acquired_locks
        ]
        return self._acquired_locks


class Chores:
    """What RQ's worker does between jobs: enqueue what is due, under RQ's lock; clean the registries up now and then."""

    def __init__(self, client: redis.Redis, worker: str, queues: Sequence[str]) -> None:
        self._mine = threading.Lock()
        self._ticked = self._cleaned = float("-inf")
        self._cleaner: Any = QuietWorker(worker, [Queue(name, connection=client) for name in queues], client)
        scheduler: Any = _Scheduler
        self._scheduler = scheduler(queues, connection=client, name=worker)
        self._scheduler._connection = client  # it would make one of its own, for another process

    def do(self) -> None:
        if not self._mine.acquire(blocking=False):
            return  # another thread is at it
        try:
            if time.monotonic() - self._ticked > TICK:
                self._ticked = time.monotonic()
                self._tick()
            if time.monotonic() - self._cleaned > MAINTENANCE:
                self._cleaned = time.monotonic()
                self._cleaner.clean_registries()
                self._cleaner.clean_group_registries()
        except Exception:
            log.exception("RQ's own chores")
        finally:
            self._mine.release()

    def close(self) -> None:
        self._scheduler.release_locks()

    def _tick(self) -> None:
        self._scheduler.acquire_locks()
        self._scheduler.enqueue_scheduled_jobs()
        for queue in self._cleaner.queues:
            queue.ready_job_registry.cleanup()  # dependents whose parent's worker died before it could enqueue them
