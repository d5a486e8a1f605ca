"""Ordinary RQ jobs, those that no run has put into a queue, performed as RQ's own worker would: `flow worker --rq-jobs`.

Owns the lease of such a job, its alarm, and how it is stopped from outside. All of RQ's books (status, registries, results,
callbacks, retries, dependents) are written by RQ's own code, in this process, as its SimpleWorker does. Knows nothing of
steps and runs.

This is the one place where pickle from Redis is opened, and only when asked for.
"""

from __future__ import annotations

import contextlib
import logging
import time
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast
from uuid import uuid4

import redis
from redis.exceptions import OutOfMemoryError, ReadOnlyError
from rq import Queue
from rq.exceptions import AbandonedJobError, NoSuchJobError, ShutDownImminentException
from rq.executions import Execution
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.serializers import DefaultSerializer, JSONSerializer
from rq.timeouts import BaseDeathPenalty, BaseTimeoutException
from rq.utils import now

from flowlib.board import Line
from flowlib.deadline import Deadline
from flowlib.frame import CANCELLED, DRAINED, LOST
from flowlib.store import Store

from .chores import Chores, QuietWorker

log = logging.getLogger("flowlib.worker")

ORDINARY = "ordinary"  # what a claim says that has found such a job before any step
PASSING = (redis.ConnectionError, redis.TimeoutError, OutOfMemoryError, ReadOnlyError)
PAUSE = 0.2
SELDOM = 2.0  # seconds without a look at them, because there was always a step to be claimed


class OrdinaryJobs:
    """Those in some queues; with no queues, none are performed, and other people's jobs are looked past.

    `run_one` is called where bodies run, one call per thread at a time; all else may be called from any thread.
    """

    def __init__(
        self,
        store: Store,
        worker: str,
        queues: Sequence[str],
        *,
        lease_ms: int,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self.store = store
        self.worker = worker
        self.give_up = give_up
        self._queues = list(queues)
        self._lease_ms = lease_ms
        self._performing: dict[str, _Performance] = {}  # by execution
        self.done = 0
        self._looked = time.monotonic()
        self._chores: Chores | None = None
        self._warned = False
        if queues:
            self._chores = Chores(store.client, worker, self._queues)
            # Its cleanup calls failure callbacks, and RQ's own timeouts would take SIGALRM away from the steps.
            StartedJobRegistry.death_penalty_class = cast(Any, _Alarm)

    @property
    def busy(self) -> bool:
        return bool(self._performing)

    @property
    def overdue(self) -> bool:
        """Whether steps have kept everybody from looking at them: what is due, and what dead workers have left, waits."""
        return self._chores is not None and time.monotonic() - self._looked > SELDOM

    def run_one(self, found: str, line: Line) -> bool:
        """Perform the next job, if there is one. Takes over, too, what a dead worker has left. `found` is what a claim said."""
        if self._chores is None:
            self._look_past(found)
            return False
        self._looked = time.monotonic()
        self._chores.do()
        execution = uuid4().hex
        try:
            taken = self.store.take_ordinary(self.worker, execution, self._lease_ms, self._queues)
        except redis.RedisError:
            if self.give_up():
                return False
            raise
        if taken is None:
            return False
        try:
            self._perform(*taken, execution, line)
        except Exception as error:
            unknown = not isinstance(error, redis.RedisError)
            log.error("job %s could not be reported, its lease will run out: %s", taken[0], error, exc_info=unknown)
        self.done += 1
        return True

    def _perform(self, job: str, queue: str, died: str, execution: str, line: Line) -> None:
        try:
            performance = _Performance(self, job, queue, execution, line)
        except redis.RedisError:
            raise
        except Exception as error:
            self._refuse(job, queue, execution, error)
            return
        self._performing[execution] = performance
        line.hold(performance.lease)
        try:
            performance.play(died)
        except _Lost:
            log.warning("job %s: its lease was lost: what it did here is dropped", job)
        finally:
            line.free()
            del self._performing[execution]

    def renew(self) -> None:
        """The heartbeat of what is being performed; a supervisor has it, too."""
        held = {each.lease: each for each in list(self._performing.values())}
        if held:
            for lease in self.store.renew_leases("", self._lease_ms, 60, held)[1]:
                held[lease].end(LOST)  # one that has just been reported does not hear it

    def drain(self) -> None:
        """End what is being performed: it fails, and is tried again if it may."""
        for each in list(self._performing.values()):
            each.end(DRAINED)

    def stop(self, job: Any) -> None:
        """RQ's stop-job command."""
        for each in list(self._performing.values()):
            if each.job.id == job:
                each.end(CANCELLED)

    def close(self) -> None:
        if self._chores is not None:
            self._chores.close()

    def _look_past(self, found: str) -> None:
        if found == "foreign" and not self._warned:
            self._warned = True
            log.warning("worker %s: its queues hold jobs that are not its app's: left to other workers", self.worker)

    def _refuse(self, job: str, queue: str, execution: str, error: Exception) -> None:
        """Not even its hash can be read; RQ's worker would end of it."""
        if not isinstance(error, NoSuchJobError):
            log.error("job %s cannot be read: failed", job, exc_info=error)
        keys = self.store.keys
        with self.store.client.pipeline() as pipe:
            pipe.lrem(f"{keys.rq_queue(queue)}:intermediate", 0, job)
            pipe.zrem(keys.ordinary(queue), f"{job}:{execution}")
            pipe.zrem(f"{keys.rq}:wip:{queue}", f"{job}:{execution}")
            if not isinstance(error, NoSuchJobError):
                pipe.zadd(f"{keys.rq}:failed:{queue}", {job: time.time() + 365 * 86400})
            pipe.execute()


class _Lost(BaseException):
    """The lease was lost: nothing of this job may be reported any more."""


class _Stopped(BaseException):
    """RQ's stop-job command."""


class _ShuttingDown(ShutDownImminentException):
    """The worker's grace is over: the job fails, and is tried again if RQ was told to."""

    def __init__(self) -> None:
        super().__init__("the worker is shutting down", {})  # type: ignore[no-untyped-call]


class _Performance(QuietWorker):
    """RQ's own worker, for one job, under the name of ours."""

    def __init__(self, jobs: OrdinaryJobs, job: str, queue: str, execution: str, line: Line) -> None:
        connection = jobs.store.client
        stored = cast(dict[bytes, bytes], connection.hgetall(Job.key_for(job)))
        serializer = _serializer_of(stored.get(b"data", b""))
        self.job = Job(job, connection=connection, serializer=serializer)
        self.job.restore(stored)
        self.queue = Queue(queue, connection=connection, serializer=serializer)
        self.execution_id = execution
        self.lease = f"rq!{queue}!{job}:{execution}"  # as those who renew it call it
        self._jobs, self._line = jobs, line
        self._reason: str | None = None
        self._failing = False  # its failure is being reported: from here on nothing more is to be ended
        self._alarm: _Deadline | None = None
        super().__init__(jobs.worker, [self.queue], connection, serializer)
        self.death_penalty_class = cast(Any, partial(_Alarm, performance=self))

    def play(self, died: str) -> None:
        """Perform the job; or have it fail, as RQ would, if it names a worker that has died when it had begun."""
        execution = Execution(self.execution_id, self.job.id, self.connection, worker_name=self.name)
        execution._job = self.job
        self.executions[execution.id] = execution
        if died:
            error = AbandonedJobError(f"worker {died} died while it performed this job")
            self._finalize_failure(self.job, self.queue, execution, (AbandonedJobError, error, None))
        else:
            self.perform_job(self.job, self.queue, execution)

    # -- ended from outside ------------------------------------------------------------------------------------------

    def end(self, reason: str) -> None:
        """From any thread."""
        if self._failing:
            return
        self._reason = self._reason or reason
        if self._alarm is not None:
            self._alarm.stop(self._reason)

    def arm(self, alarm: _Deadline) -> None:
        self._alarm = alarm
        self._line.body(alarm.seconds)
        if self._reason is not None and not self._failing:  # it came when no alarm was set
            alarm.reason = self._reason
            raise alarm.error()

    def disarm(self) -> None:
        self._line.rest()
        self._alarm = None

    # -- what RQ's worker does before and after a job ----------------------------------------------------------------

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """From here on the job has begun."""
        self._insist(lambda: super(_Performance, self).prepare_job_execution(job, remove_from_intermediate_queue))

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """Comes before any callback and any report."""
        self._check_lease()
        self._insist(lambda: super(_Performance, self).handle_execution_ended(job, queue, heartbeat_ttl))

    def handle_job_success(self, job: Job, *args: Any, **kwargs: Any) -> None:
        """The work is done: it is reported as soon as Redis is there again, once."""
        repeats = job.repeats_left
        tried = False

        def report() -> None:
            nonlocal tried
            if tried and not self._is_leased():
                return  # the lease went with the report: only its reply was lost
            tried, job.repeats_left = True, repeats
            super(_Performance, self).handle_job_success(job, *args, **kwargs)

        self._insist(report)

    def _finalize_failure(self, job: Job, queue: Queue, execution: Execution, exc_info: Any) -> None:
        self._failing = True
        if isinstance(exc_info[1], _Stopped):
            self._check_lease()
            job.ended_at = now()
            self._stopped_job_id = job.id  # so it says that it was stopped, and is not tried again
            self._handle_stopped_job(job, queue, execution)
        else:
            super()._finalize_failure(job, queue, execution, exc_info)

    def cleanup_execution(self, job: Job, pipeline: Any, execution: Execution | None = None) -> None:
        """Part of every report: the lease ends in the same transaction."""
        super().cleanup_execution(job, pipeline, execution)
        pipeline.zrem(self._leases, f"{self.job.id}:{self.execution_id}")

    def _check_lease(self) -> None:
        if self._reason == LOST or not self._insist(self._is_leased):
            raise _Lost

    @property
    def _leases(self) -> str:
        return self._jobs.store.keys.ordinary(self.queue.name)

    def _is_leased(self) -> bool:
        return self.connection.zscore(self._leases, f"{self.job.id}:{self.execution_id}") is not None

    def _insist(self, act: Callable[[], Any]) -> Any:
        while True:
            try:
                return act()
            except PASSING as error:
                if self._jobs.give_up():
                    raise
                log.warning("job %s: Redis: %s: waiting for it", self.job.id, error)
                time.sleep(PAUSE)


def _serializer_of(data: bytes) -> Any:
    """RQ does not note how it has packed a job: JSON begins with the list's bracket, pickle does not."""
    with contextlib.suppress(zlib.error):  # RQ reads what is not compressed, too
        data = zlib.decompress(data)
    return JSONSerializer if data.startswith(b"[") else DefaultSerializer


# -- timeouts ----------------------------------------------------------------------------------------------------------


class _Deadline(Deadline):
    """A deadline that raises what RQ raises, inside the job, and as often: once."""

    again = None

    def __init__(self, seconds: float | None, timed_out: BaseException) -> None:
        super().__init__(seconds)
        self._timed_out = timed_out

    def error(self) -> BaseException:
        if self.reason == CANCELLED:
            return _Stopped()
        if self.reason == LOST:
            return _Lost()
        if self.reason == DRAINED:
            return _ShuttingDown()
        return self._timed_out


class _Alarm(BaseDeathPenalty):
    """RQ's timeout of a job or a callback, for any thread; RQ's own would take SIGALRM for itself."""

    def __init__(
        self, timeout: float, exception: type[BaseTimeoutException], performance: _Performance | None = None, **_: Any
    ) -> None:
        self._deadline = _Deadline(timeout if timeout > 0 else None, _with_message(exception, timeout))
        self._performance = performance

    def setup_death_penalty(self) -> None:
        self._deadline.__enter__()
        if self._performance is not None:
            try:
                self._performance.arm(self._deadline)
            except BaseException:
                self.cancel_death_penalty()
                raise

    def cancel_death_penalty(self) -> None:
        if self._performance is not None:
            self._performance.disarm()
        self._deadline.__exit__(None, None, None)


def _with_message(exception: type[BaseTimeoutException], timeout: float) -> BaseTimeoutException:
    """As RQ words it. Another thread can only be sent a class, so the message is in that."""
    message = f"Task exceeded maximum timeout value ({timeout} seconds)"
    body = {"__module__": exception.__module__, "__init__": lambda self: exception.__init__(self, message)}
    return cast(BaseTimeoutException, type(exception.__name__, (exception,), body)())
