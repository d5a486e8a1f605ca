"""The job that this process holds, and the transitions that can be made from it: commit, retry, chain, finish, release.

Owns the lease, what is recorded of the job's step, and how RQ is to see its end. Decides nothing: the engine says what
happened, and this puts it on its way. A transition that is refused because the lease was lost raises `Interrupt`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from . import outcome
from .capture import Recorder, pack_lines
from .errors import Interrupt
from .journal import Journal, Op
from .model import ErrorInfo, Memo
from .records import Claim, Lease, pack_memo, text
from .retry import Options
from .step import Due
from .store import RedisError, Store

log = logging.getLogger("flowlib.engine")
T = TypeVar("T")


class HeldJob:
    """`attempt` counts the step's tries, `calls` those of the function since this job began, `losses` dead workers."""

    def __init__(self, store: Store, claim: Claim, recorder: Recorder) -> None:
        self.store = store
        self.lease: Lease = claim.lease
        self.journal = Journal(claim.memos, claim.step, claim.kind)
        self.attempt, self.calls, self.losses = claim.attempt, claim.calls, claim.losses
        self.recorded = claim.step in claim.memos
        self.memo_bytes = claim.bytes
        self.done: tuple[int, int, float] = (0, 0, 0.0)  # jobs ended well, failed, and their seconds
        self.lost = False
        self._recorder = recorder
        self._location = text(claim.record["location"])
        self._ended = outcome.of_memo(claim.memos[claim.step]) if self.recorded else outcome.of_entry(claim.step)
        self._took = 0.0
        self._send_again: Callable[[], str] = lambda: ""

    def commit(self, op: Op, memo: Memo, verdict: str, seconds: float | None) -> None:
        """Send the memo off; `verdict` is ok, failed or timeout, `seconds` None for what has no body."""
        packed, lines, lease, attempt = pack_memo(memo), self._recorder.drain(), self.lease, self.attempt
        label = label_of(op.id)

        def send() -> str:
            return self.store.commit_step(
                lease, op.key, packed, attempt=attempt, outcome=verdict, seconds=seconds, label=label, lines=lines,
                error=memo.error,
            )  # fmt: skip

        self._report(send)
        self._send_again = send
        self._took = seconds or 0.0
        self._ended = outcome.of_memo(memo)
        self.memo_bytes += len(packed)
        self.recorded = True
        self.journal.record(op, memo)

    def retry_step(self, op: Op, error: ErrorInfo, delay: float, verdict: str, seconds: float) -> None:
        """The step's attempt failed; the job is due again in `delay` seconds."""
        self._retry("step", op.key, error, self.attempt, delay, verdict, seconds, label_of(op.id))

    def retry_call(self, error: ErrorInfo, delay: float) -> None:
        """The function failed between steps; the job is due again, to replay it."""
        self._retry("function", self.journal.mine, error, self.calls, delay, "retry", 0.0, "")

    def place(self, op: Op, options: Options, queue: str, exec: str, lease_ms: int) -> bool:
        """End this job and make that of `op`, ours at once under `exec`. False when RQ's workers are suspended."""
        spec = outcome.job_spec(self.lease, self._location, op.key, op.kind, options, queue)
        recorded, ended, lines = self._recorded_step, self._ended, self._recorder.take()
        packed = pack_lines(lines)
        reply = self._report(lambda: self.store.place_job(self.lease, recorded, ended, spec, exec, lease_ms, packed))
        if reply == "suspended":
            self._recorder.put_back(lines)
            return False
        self._count(ended[0])
        was = self.lease
        self.lease = Lease(was.worker, exec, spec.id, was.run, was.app, was.function, spec.queue)
        self.journal.move_to(op)
        self.recorded, self._ended = False, outcome.SUPERSEDED
        self.attempt = self.calls = 1
        self.losses = 0
        return True

    def chain(self, op: Op, options: Options, queue: str, due: Due | None) -> None:
        """End this job and enqueue that of `op`, or schedule it: whoever claims it goes on from there."""
        spec = outcome.job_spec(self.lease, self._location, op.key, op.kind, options, queue)
        sleep_ms = "" if due is None or due.delay_ms is None else f"{due.delay_ms:.3f}"
        until_ms = "" if due is None or due.until_ms is None else f"{due.until_ms:.3f}"
        recorded, ended, lines = self._recorded_step, self._ended, self._recorder.drain()
        self._report(
            lambda: self.store.chain_job(
                self.lease, recorded, ended, spec, sleep_ms=sleep_ms, until_ms=until_ms, lines=lines
            )
        )
        self._count(ended[0])

    def finish(self, status: str, *, result: bytes = b"", error: ErrorInfo | None = None) -> None:
        """The run has ended."""
        ended = self._ended if self.recorded or error is None else outcome.of_error(error)
        recorded, lines = self._recorded_step, self._recorder.drain()
        self._report(
            lambda: self.store.finish_run(self.lease, recorded, ended, status, result=result, error=error, lines=lines)
        )
        self._count(ended[0])

    def release(self, reason: str) -> None:
        """Hand the job back, as it was."""
        lines = self._recorder.drain()
        self._report(lambda: self.store.release_job(self.lease, reason, lines=lines))

    @property
    def _recorded_step(self) -> str:
        return self.journal.mine if self.recorded else ""

    def _retry(
        self,
        level: str,
        step: str,
        error: ErrorInfo,
        attempt: int,
        delay: float,
        verdict: str,
        seconds: float,
        label: str,
    ) -> None:
        recorded, lines = self._recorded_step, self._recorder.drain()
        self._report(
            lambda: self.store.fail_attempt(
                self.lease, step, error, level=level, attempt=attempt, delay_ms=round(delay * 1000), outcome=verdict,
                seconds=seconds, label=label, lines=lines, recorded=recorded,
            )
        )  # fmt: skip
        self._count(outcome.FAILED)

    def _count(self, ended: str) -> None:
        ok, failed, seconds = self.done
        self.done = (ok + (ended == outcome.FINISHED), failed + (ended == outcome.FAILED), seconds + self._took)
        self._took = 0.0

    def _reach(self, speak: Callable[[], T]) -> T:
        """Redis stays away and this worker may not wait any longer: nothing more can be said for this job."""
        try:
            return speak()
        except RedisError as error:
            self.lost = True
            log.error("run %s: job %s could not be reported: %s", self.lease.run, self.lease.job, error)
            raise Interrupt from error

    def _report(self, transition: Callable[[], str]) -> str:
        reply = self._reach(transition)
        if reply == "unrecorded":  # the script cache was empty just when the memo went out
            self._reach(self._send_again)
            reply = self._reach(transition)
        if reply == "fenced":
            job = self.lease.job
            self.lost = True
            log.warning("run %s: the lease of job %s was lost: what it did here is dropped", self.lease.run, job)
            raise Interrupt
        return reply


def label_of(step_id: str) -> str:
    """The step's label in metrics: what comes before the index of `enrich[17]`."""
    return step_id.partition("[")[0] or step_id
