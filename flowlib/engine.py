"""One job: claim, replay, execute, commit, chain.

`Frame` is a run's function alive in this process: it answers the step calls of the user's code, records each step, and
chains to the next. Owns the order in which things reach Redis; decides by the kernel's rules (`journal.py`,
`retry.py`); knows nothing of queues' polling, signals or processes, which are the worker's.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, TypeVar

from . import capture, outcome
from .codec import annotation_of, decode, encode
from .deadline import TIMEOUT, BodyStopped, Deadline
from .errors import ConfigError, Interrupt, PayloadError, StepFailed, StepTimeout, WorkerLost
from .function import Function
from .journal import ENTRY, SLEEP, Journal, Op, Place, id_of
from .model import UNSENT, ErrorInfo, Event, Memo
from .retry import NO_OPTIONS, Options, options_of, retry_delay
from .step import LONGEST_SLEEP, AsyncStep, Due, Step
from .store import Claim, Lease, Store, pack_memo, text

log = logging.getLogger("flowlib.engine")
T = TypeVar("T")

CANCELLED, LOST, DRAINED = "cancelled", "lost", "drained"  # why a body was stopped, beside its timeout
_body: ContextVar[StepCall | None] = ContextVar("flow_body", default=None)  # the call whose body runs in this context


class Engine:
    """What all frames of a process share. `may_stay` tells whether a chained job may be run here at once."""

    def __init__(
        self,
        store: Store,
        worker: str,
        *,
        lease_ms: int,
        may_stay: Callable[[float], bool] = lambda _: False,
        rng: random.Random | None = None,
        exec_prefix: str = "",
    ) -> None:
        self.store = store
        self.worker = worker
        self.lease_ms = lease_ms
        self.may_stay = may_stay
        self.rng = rng or random.Random()
        self.frame: Frame | None = None
        self._token = f"{exec_prefix}{self.rng.getrandbits(64):016x}"
        self._executions = 0
        self.done: tuple[int, int, float] = (
            0,
            0,
            0.0,
        )  # jobs ended well, failed, and their seconds, since the last beat
        self._runner: asyncio.Runner | None = None

    def next_exec(self) -> str:
        self._executions += 1
        return f"{self._token}-{self._executions}"

    def count(self, ended: str, seconds: float) -> None:
        ok, failed, spent = self.done
        self.done = (ok + (ended == outcome.FINISHED), failed + (ended == outcome.FAILED), spent + seconds)

    def play(self, fn: Function, claim: Claim, *, by_rq: bool = False) -> Frame:
        """Run the claimed job, and as many of its successors as may stay here."""
        frame = self.frame = Frame(self, fn, claim, by_rq)
        try:
            frame.play()
        finally:
            self.frame = None
        return frame

    def drive(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end on this process's loop, and leave no task of it behind."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        try:
            return self._runner.run(coroutine)
        finally:
            loop = self._runner.get_loop()
            if left := asyncio.all_tasks(loop):
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()


class Frame:
    """A run's function, alive in this process, and the lease of the job that it is at."""

    def __init__(self, engine: Engine, fn: Function, claim: Claim, by_rq: bool) -> None:
        self.engine = engine
        self.store = engine.store
        self.fn = fn
        self.lease: Lease = claim.lease
        self.run_id = claim.lease.run
        self.journal = Journal(claim.memos, claim.step, claim.kind)
        self.by_rq = by_rq
        self.losses = claim.losses
        self.step_attempt, self.calls = claim.attempt, claim.calls
        self.held = claim.step in claim.memos  # the step of the job that we hold is recorded
        self.ended = outcome.of_entry(claim.step)  # how RQ is to see that job
        if self.held:
            self.ended = outcome.of_memo(claim.memos[claim.step])
        self.result: Any = None  # what a stock RQ worker is to return
        self.failure: BaseException | None = None  # or to raise
        self.retry_in: float | None = None
        self.recorder = capture.Recorder(self.run_id)
        self.since = time.monotonic()
        self.deadline: Deadline | None = None
        self._record = claim.record
        self._bytes = claim.bytes
        self._commit: Callable[[], None] = lambda: None
        self._took = 0.0
        self._unwound = False
        self._fatal: Exception | None = None
        self._calling: StepCall | None = None

    # -- the function as a whole -------------------------------------------------------------------------------------

    def play(self) -> None:
        """From the function's start to wherever this worker may take it; afterwards Redis knows all of it."""
        try:
            self._play()
            if self._fatal is not None:
                self._finish("failed", error=outcome.describe(self._fatal, self._fatal_step, self.step_attempt))
        except Interrupt:
            pass  # the lease was lost while reporting: whoever has it now goes on

    def _play(self) -> None:
        speaking = capture.speaking.set(self.recorder)
        self._speak(self.calls)
        try:
            if self.losses >= self.fn.limits.losses and (self.held or self.journal.mine == ENTRY):
                raise WorkerLost(id_of(self.journal.mine) or "(start)", self.losses)
            result = self._call_function(self._event())
            encoded = b"" if self._unwound else self._encode_result(result)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if not self._unwound:
                self._fail_between_steps(error)
        except (Interrupt, BaseExceptionGroup):  # a TaskGroup wraps an Interrupt up
            if not self._unwound:
                raise
        else:
            if not self._unwound:
                self._finish("completed", result=encoded)
        finally:
            capture.finish(self.recorder)
            capture.speaking.reset(speaking)

    def _event(self) -> Event[Any]:
        record = self._record
        name, stamp = text(record["event_name"]), float(record["event_ts"])
        trigger = self.fn.trigger_for(name)
        data = decode(record["data"], trigger.type if trigger else Any)
        ts = datetime.fromtimestamp(stamp / 1000, UTC) if stamp else UNSENT
        return Event(name, data, text(record["event_id"]), ts)

    def _call_function(self, event: Event[Any]) -> Any:
        if not self.fn.is_async:
            return self.fn.body(event, Step(self))

        async def call() -> Any:
            return await self.fn.body(event, AsyncStep(self))

        return self.engine.drive(call())

    def _encode_result(self, result: Any) -> bytes:
        encoded = encode(result, where=f"run {self.run_id}: result")
        limit = self.fn.limits.output_bytes
        if len(encoded) > limit:
            raise PayloadError(
                f"run {self.run_id}: its result of {len(encoded)} bytes is over the limit of {limit} bytes"
            )
        return encoded

    def _fail_between_steps(self, error: BaseException) -> None:
        """An error that left the function: final when it is a step's own, else the last job comes back to replay it."""
        info = outcome.describe(error, None, self.calls)
        delay = retry_delay(error, self.calls, self.fn.options, self.engine.rng.random())
        if delay is None:
            self._finish("failed", error=info)
            return
        log.info(
            "run %s: error between steps, call %d: %s; again in %.3g s", self.run_id, self.calls, info.message, delay
        )
        self.retry_in = delay
        self._report(
            lambda: self.store.fail_attempt(
                self.lease, self.journal.mine, info, level="function", attempt=self.calls, delay_ms=round(delay * 1000),
                outcome="retry", seconds=0, label="", lines=self.recorder.drain(),
            )
        )  # fmt: skip

    def _finish(self, status: str, *, result: bytes = b"", error: ErrorInfo | None = None) -> None:
        ended = self.ended
        if error is not None and not self.held:
            ended = outcome.of_error(error)
        recorded = self.journal.mine if self.held else ""
        self._report(
            lambda: self.store.finish_run(
                self.lease, recorded, ended, status, result=result, error=error, lines=self.recorder.drain()
            )
        )
        self.engine.count(ended[0], self._took)

    # -- the Frame that step.py speaks to ----------------------------------------------------------------------------

    @property
    def attempt(self) -> int:
        return self.step_attempt if self._in_body else self.calls

    @property
    def _in_body(self) -> bool:
        """Is it a step's body that speaks? Coroutines beside that of the body are the function's, and may go on."""
        return self._calling is not None and (not self.fn.is_async or _body.get() is self._calling)

    def guard(self, step_id: str) -> None:
        """Refuse a call where none may be made. A step inside a step fails the run: its body may be tried again."""
        if self._calling is not None and self._in_body:
            outer = self._calling.op.id
            self._fatal = ConfigError(
                f"nested steps: step {step_id!r} was called inside step {outer!r}: call it from the function itself"
            )
        if self._unwound or self._fatal is not None:
            self._unwind()

    def begin(
        self, kind: str, step_id: str, target: Callable[..., Any] | None, options: Options, due: Due | None
    ) -> StepCall:
        self.guard(step_id)
        op = self.journal.ask(kind, step_id, "" if target is None else _target(target))
        lower = options_of(target) if target is not None else NO_OPTIONS
        if options is lower is NO_OPTIONS:
            merged = self.fn.options
        else:
            merged = options.over(lower).over(self.fn.options)
        place = self.journal.place(op)
        if place is Place.NEXT:
            if len(self.journal.memos) >= self.fn.limits.steps:
                self._fatal = ConfigError(
                    f"step limit: step {step_id!r} would be over the {self.fn.limits.steps} of a run"
                )
                self._unwind()
            self._chain(op, merged, due)
        call = StepCall(self, op, target, merged)
        if op.key == self.journal.mine:
            self._speak(self.calls)
            if call.open and self.losses >= self.fn.limits.losses:
                self.fail(call, WorkerLost(op.id, self.losses), 0.0)
        return call

    def drive(self, coroutine: Coroutine[Any, Any, T]) -> T:
        async def body() -> T:
            if self.deadline is not None:
                self.deadline.attach()
            return await coroutine

        return self.engine.drive(body())

    # -- one step ----------------------------------------------------------------------------------------------------

    def enter(self, call: StepCall) -> None:
        self._calling, call.outside = call, _body.set(call)
        self.recorder.step, self.recorder.attempt = call.op.key, self.step_attempt

    def leave(self, call: StepCall) -> None:
        self._calling = None
        _body.reset(call.outside)
        self._speak(self.calls)

    def commit(self, call: StepCall, seconds: float) -> None:
        limits, op = self.fn.limits, call.op
        try:
            encoded = encode(call.result, where=f"step {op.id!r}: result")
            if len(encoded) > limits.output_bytes:
                raise PayloadError(
                    f"step {op.id!r}: its result of {len(encoded)} bytes is over the limit of {limits.output_bytes} bytes: "
                    f"store it elsewhere and return where"
                )
        except PayloadError as error:
            self.fail(call, error, seconds)
            return
        if self._bytes + len(encoded) > limits.state_bytes:
            self._fatal = PayloadError(
                f"state size: with the {len(encoded)} bytes of step {op.id!r} the run's memos are over the limit of "
                f"{limits.state_bytes} bytes"
            )
            self._unwind()
        self._record_memo(op, Memo(encoded), "ok", None if op.kind == SLEEP else seconds)

    def fail(self, call: StepCall, error: BaseException, seconds: float) -> None:
        """An attempt failed: the job comes back later, or the error is the step's outcome."""
        op, attempt = call.op, self.step_attempt
        info = outcome.describe(error, op.id, attempt)
        delay = retry_delay(error, attempt, call.options, self.engine.rng.random())
        kind = TIMEOUT if isinstance(error, StepTimeout) else "retry"
        if delay is None:
            log.warning(
                "run %s: step %r failed for good, attempt %d: %s: %s",
                self.run_id,
                op.id,
                attempt,
                info.type,
                info.message,
            )
            self.failure = error
            self._record_memo(op, Memo(error=info), TIMEOUT if kind == TIMEOUT else "failed", seconds)
            return
        log.info(
            "run %s: step %r, attempt %d: %s: %s; again in %.3g s",
            self.run_id,
            op.id,
            attempt,
            info.type,
            info.message,
            delay,
        )
        self.retry_in = delay
        self._report(
            lambda: self.store.fail_attempt(
                self.lease, op.key, info, level="step", attempt=attempt, delay_ms=round(delay * 1000), outcome=kind,
                seconds=seconds, label=_label(op.id), lines=self.recorder.drain(),
            )
        )  # fmt: skip
        self._unwind()

    def stopped(self, call: StepCall, reason: str, seconds: float) -> None:
        """The body was ended from outside."""
        if reason == TIMEOUT:
            assert call.options.timeout is not None
            self.fail(call, StepTimeout(call.op.id, call.options.timeout), seconds)
            return
        if reason == DRAINED:
            self._report(lambda: self.store.release_job(self.lease, "shutdown", lines=self.recorder.drain()))
        else:
            log.warning("run %s: step %r was stopped (%s): its result is dropped", self.run_id, call.op.id, reason)
        self._unwind()

    def _record_memo(self, op: Op, memo: Memo, verdict: str, seconds: float | None) -> None:
        packed, lines, lease, attempt = pack_memo(memo), self.recorder.drain(), self.lease, self.step_attempt

        def commit() -> None:
            self.store.commit_step(
                lease,
                op.key,
                packed,
                attempt=attempt,
                outcome=verdict,
                seconds=seconds,
                label=_label(op.id),
                lines=lines,
            )

        commit()
        self._commit = commit
        self._took = seconds or 0.0
        self._bytes += len(packed)
        self.journal.record(op, memo)
        self.held = True
        self.ended = outcome.of_memo(memo)
        if self.by_rq:
            self._unwind()  # RQ's success callback takes it from here

    def _chain(self, op: Op, options: Options, due: Due | None) -> None:
        """End our job and make that of `op`; go on when it may stay here, else stop the function at this place."""
        if due is not None and due.until_ms is not None:
            _check_sleep(op.id, due.until_ms / 1000 - time.time())
        spec = outcome.job_spec(self.lease, text(self._record["location"]), op.key, op.kind, options, self.fn.queue)
        stay = due is None and spec.queue == self.lease.queue and self.engine.may_stay(self.since)
        mode = "sleep" if due is not None else "place" if stay else "push"
        exec = self.engine.next_exec() if stay else ""
        recorded, ended = (self.journal.mine, self.ended) if self.held else ("", self.ended)
        reply = self._report(
            lambda: self.store.chain_job(
                self.lease, recorded, ended, mode, spec, exec=exec, lease_ms=self.engine.lease_ms,
                sleep_ms="" if due is None or due.delay_ms is None else f"{due.delay_ms:.3f}",
                until_ms="" if due is None or due.until_ms is None else f"{due.until_ms:.3f}",
                lines=self.recorder.drain(),
            )
        )  # fmt: skip
        self.engine.count(ended[0], self._took)
        if reply != "placed":
            self._unwind()
        self.lease = replace(self.lease, exec=exec, job=spec.id, queue=spec.queue)
        self.journal.move_to(op)
        self.held, self.ended = False, outcome.SUPERSEDED
        self.step_attempt = self.calls = 1
        self.losses = 0

    def _report(self, transition: Callable[[], str]) -> str:
        reply = transition()
        if reply == "unrecorded":  # the script cache was empty just when the memo went out
            self._commit()
            reply = transition()
        if reply == "fenced":
            log.warning(
                "run %s: the lease of job %s was lost: what it did here is dropped", self.run_id, self.lease.job
            )
            self._unwind()
        return reply

    def _speak(self, attempt: int) -> None:
        self.recorder.live = self.journal.live
        self.recorder.step, self.recorder.attempt = self.journal.mine, attempt

    @property
    def alive(self) -> bool:
        """False once the function is being unwound: what its code makes of that is of no interest."""
        return not self._unwound

    @property
    def _fatal_step(self) -> str | None:
        return id_of(self.journal.mine) or None

    def _unwind(self) -> None:
        self._unwound = True
        raise Interrupt


class StepCall:
    """One operation that the function asked for; as a context manager it is one attempt of its body."""

    __slots__ = ("_began", "_deadline", "_frame", "op", "options", "outside", "result", "target")

    outside: Token[StepCall | None]

    def __init__(self, frame: Frame, op: Op, target: Callable[..., Any] | None, options: Options) -> None:
        self._frame = frame
        self.op = op
        self.target = target
        self.options = options
        self.result: Any = None

    @property
    def open(self) -> bool:
        return self.op.key not in self._frame.journal.memos

    def attempt(self) -> AbstractContextManager[None]:
        return self

    def set(self, result: Any) -> None:
        self.result = result

    def value(self) -> Any:
        memo = self._frame.journal.memos[self.op.key]
        if memo.error is not None:
            error = memo.error
            raise StepFailed(self.op.id, error.type, error.message, error.traceback, error.attempt)
        return (
            decode(memo.value, annotation_of(self.target), where=f"step {self.op.id!r}: result")
            if self.target
            else None
        )

    def __enter__(self) -> None:
        self._frame.enter(self)
        self._deadline = self._frame.deadline = Deadline(self.options.timeout)
        self._began = time.perf_counter()
        self._deadline.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        try:
            self._deadline.__exit__(kind, error, at)
        except BodyStopped as late:  # the alarm rang just after the body's last line
            self._deadline.__exit__(kind, error, at)
            error = late
        seconds = time.perf_counter() - self._began
        self._frame.deadline = None
        self._frame.leave(self)
        if error is None:
            self._frame.commit(self, seconds)
        elif self._deadline.reason is not None and isinstance(error, BodyStopped | asyncio.CancelledError):
            self._frame.stopped(self, self._deadline.reason, seconds)
        elif isinstance(error, Exception | SystemExit | asyncio.CancelledError) and self._frame.alive:
            self._frame.fail(self, error, seconds)
        else:
            return False
        return True


def _target(fn: Callable[..., Any]) -> str:
    fn = getattr(fn, "func", fn)
    return f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', type(fn).__qualname__)}"


def _check_sleep(step_id: str, seconds: float) -> None:
    if seconds > LONGEST_SLEEP.total_seconds():
        raise ConfigError(f"step {step_id!r}: {timedelta(seconds=seconds)} is too long a sleep: at most 366 days")


def _label(step_id: str) -> str:
    """The step's label in metrics: what comes before the index of `enrich[17]`."""
    return step_id.partition("[")[0] or step_id
