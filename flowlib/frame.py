"""A run's function, alive in this process: claim in hand, replay, execute, commit, chain.

`Frame` answers the step calls of the user's code, has each step recorded, and goes on to the next. Decides by the
kernel's rules (`journal.py`, `retry.py`) what happens, in which order; what reaches Redis is `held.py`'s. Knows nothing
of queues, polling, signals or processes, which are the worker's.
"""

from __future__ import annotations

import inspect
import logging
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NoReturn, Protocol, TypeVar, cast
from uuid import uuid4

from . import capture, outcome
from .attempt import Known, StepCall, body
from .board import Line
from .codec import decode, encode
from .deadline import TIMEOUT, BodyStopped, Deadline
from .errors import ConfigError, Interrupt, PayloadError, StepTimeout, WorkerLost
from .function import Function
from .held import HeldJob
from .journal import BODILESS, ENTRY, Op, Place, id_of
from .loop import Driver
from .model import UNSENT, Event, Memo
from .records import Claim, Lease, text
from .retry import NO_OPTIONS, Options, options_of, retry_delay
from .step import AsyncStep, Step
from .store import Sent, Store
from .wait import LONGEST_SLEEP, Due, Wait

log = logging.getLogger("flowlib.engine")
T = TypeVar("T")

CANCELLED, LOST, DRAINED = "cancelled", "lost", "drained"  # why a body was stopped, beside its timeout


MADE: dict[str, Callable[[], Any]] = {"now": partial(datetime.now, UTC), "uuid": uuid4, "random": random.random}


class Host(Protocol):
    """What all frames of a process share."""

    store: Store
    rng: random.Random
    driver: Driver
    line: Line
    may_stay: Callable[[float], bool]
    prepare: Callable[[list[Event[Any]]], list[Sent]]

    @property
    def is_sure(self) -> bool: ...


class Frame:
    """A run's function, alive in this process."""

    def __init__(self, host: Host, fn: Function, claim: Claim, by_rq: bool) -> None:
        self.run_id = claim.lease.run
        self.recorder = capture.Recorder(self.run_id)
        self.job = HeldJob(host.store, claim, self.recorder)
        self.deadline: Deadline | None = None
        self.result: Any = None  # what a stock RQ worker is to return,
        self.failure: BaseException | None = None  # or to raise,
        self.retry_in: float | None = None  # or in how many seconds it is to try again
        self._host = host
        self._fn = fn
        self._by_rq = by_rq
        self.in_loop = fn.is_async
        self._record = claim.record
        self._since = time.monotonic()
        self._unwound = False
        self._over = False
        self._refused = 0
        self._fatal: Exception | None = None
        self._calling: StepCall | None = None
        self._annotations: dict[int, tuple[Any, Any]] = {}  # what its steps return, by the id of what they call

    @property
    def lease(self) -> Lease:
        return self.job.lease

    @property
    def memos(self) -> dict[str, Memo]:
        return self.job.journal.memos

    @property
    def listening(self) -> bool:
        """Whether a body's failure still means anything."""
        return self.alive and not self._over

    @property
    def alive(self) -> bool:
        """False once the function is being unwound: what its code makes of that is of no interest."""
        return not (self._unwound or self.job.lost)

    # -- the function as a whole -------------------------------------------------------------------------------------

    def play(self) -> None:
        """From the function's start to wherever this worker may take it; afterwards Redis knows all of it."""
        try:
            self._play()
            if self._fatal is not None:
                step = id_of(self.job.journal.mine) or None
                self.job.finish("failed", error=outcome.describe(self._fatal, step, self.job.attempt))
        except Interrupt:
            pass  # the lease was lost while reporting: whoever has it now goes on

    def _play(self) -> None:
        speaking = capture.begin(self.recorder)
        self._speak()
        try:
            if self._given_up and (self.job.recorded or self.job.journal.mine == ENTRY):
                raise WorkerLost(id_of(self.job.journal.mine) or "(start)", self.job.losses)
            result = self._call_function(self._event())
            encoded = b"" if not self.alive else self._encode_result(result)
        except Interrupt:
            pass
        except BodyStopped:  # the alarm rang on the way into a body, or out of it
            self._stopped_at_the_edge()
        except BaseException as error:
            if self.alive:  # else it is what became of our Interrupt, in a TaskGroup or in the user's hands
                self._fail_between_steps(error)
        else:
            if self.alive:
                self.job.finish("completed", result=encoded)
        finally:
            capture.speaking.reset(speaking)

    def _event(self) -> Event[Any]:
        record = self._record
        name, stamp = text(record["event_name"]), float(record["event_ts"])
        trigger = self._fn.trigger_for(name)
        event_id = text(record["event_id"])
        data = decode(record["data"], trigger.type if trigger else Any, where=f"event {event_id!r}: data")
        ts = datetime.fromtimestamp(stamp / 1000, UTC) if stamp else UNSENT
        return Event(name, data, event_id, ts)

    def _call_function(self, event: Event[Any]) -> Any:
        try:
            if not self.in_loop:
                return self._fn.body(event, Step(self))
            return self._host.driver.drive(self._call_async(event))
        finally:
            capture.finish(self.recorder)

    async def _call_async(self, event: Event[Any]) -> Any:
        try:
            return await self._fn.body(event, AsyncStep(self))
        finally:
            self._over = True  # bodies of coroutines that it leaves behind are ended, and have failed nothing

    def _stopped_at_the_edge(self) -> None:
        call, deadline = self._calling, self.deadline
        if call is None or deadline is None or not self.alive:
            return
        deadline.__exit__(None, None, None)
        self.leave()
        self.stopped(call, deadline.reason or TIMEOUT, 0.0)
        self.job.release("the step was stopped before its body began")

    def _encode_result(self, result: Any) -> bytes:
        encoded = encode(result, where=f"run {self.run_id}: result")
        limit = self._fn.limits.output_bytes
        if len(encoded) > limit:
            raise PayloadError(
                f"run {self.run_id}: its result of {len(encoded)} bytes is over the limit of {limit} bytes"
            )
        return encoded

    def _fail_between_steps(self, error: BaseException) -> None:
        """An error that left the function: final when it is a step's own, else the last job comes back to replay it."""
        calls = self.job.calls
        info = outcome.describe(error, None, calls)
        delay = retry_delay(error, calls, self._fn.options, self._host.rng.random())
        if delay is None:
            self.job.finish("failed", error=info)
            return
        log.info("run %s: error between steps, call %d: %s; again in %.3g s", self.run_id, calls, info.message, delay)
        self.retry_in = delay
        self.job.retry_call(info, delay)

    # -- the Frame that step.py speaks to ----------------------------------------------------------------------------

    @property
    def attempt(self) -> int:
        return self.job.attempt if self._in_body else self.job.calls

    @property
    def _in_body(self) -> bool:
        """Is it a step's body that speaks? Coroutines beside that of the body are the function's, and may go on."""
        return self._calling is not None and (not self.in_loop or body.get() is self._calling)

    def guard(self, step_id: str) -> None:
        """Refuse a call where none may be made. A step inside a step fails the run: its body may be tried again."""
        if self._calling is not None and self._in_body:
            outer = self._calling.op.id
            self._fatal = ConfigError(
                f"nested steps: step {step_id!r} was called inside step {outer!r}: call it from the function itself"
            )
        if self._fatal is not None or not self.alive:
            self._refused += 1
            if self._refused == 100:
                log.error(
                    "run %s: function %r swallows BaseException and goes on calling steps: this worker is held up by it: let "
                    "what is no Exception pass", self.run_id, self._fn.name,
                )  # fmt: skip
            self._unwind()

    def begin(
        self, kind: str, step_id: str, target: Callable[..., Any] | None, options: Options, due: Due | None
    ) -> StepCall | Known:
        journal = self.job.journal
        if self._calling is None and self._fatal is None and not self._unwound and not self.job.lost:
            known = journal.recall(kind, step_id, target)
            if known is not None:
                return Known(step_id, target, known[1], self._annotations)
        self.guard(step_id)
        op = journal.ask(kind, step_id, target)
        place = journal.place(op)
        own = NO_OPTIONS if target is None else options_of(target)
        settled = self._fn.options if options is own is NO_OPTIONS else options.over(own).over(self._fn.options)
        if place is Place.NEXT:
            self._go_to(op, settled, due)
        elif place is Place.MINE and isinstance(due, Wait) and due.when is not None and not self._given_up:
            self._ask(op, settled, due)
        call = StepCall(self, op, target, settled)
        if op.key == journal.mine:
            self._speak()
            if call.open and self.job.overdue:
                self.job.overdue = False
                self.fail(call, StepTimeout(op.id, settled.timeout or 0.0), settled.timeout or 0.0)
            if call.open and self._given_up:
                self.fail(call, WorkerLost(op.id, self.job.losses), 0.0)
        return call

    def value(self, name: str, as_: type[T]) -> T:
        """As it was when the function first asked for it at this place."""
        self.guard(name)
        return self._noted(self.job.journal.next_value(name), MADE[name], as_)

    def patched(self, patch: str) -> bool:
        """Had nothing behind this place been done when the function first came here?"""
        self.guard(patch)
        journal = self.job.journal
        return self._noted(journal.patch(patch), lambda: journal.live, bool)

    def _noted(self, key: str, make: Callable[[], Any], as_: type[T]) -> T:
        memo = self.memos.get(key)
        if memo is None:
            asked = f"step.{key[1:].partition(':')[0]}()"
            memo = Memo(encode(make(), where=asked))
            self._check_state(len(memo.value), asked)
            self.job.keep_value(key, memo)
        return cast(T, decode(memo.value, as_))

    def prepare(self, events: list[Event[Any]]) -> list[Sent]:
        return self._host.prepare(events)

    def drive(self, coroutine: Coroutine[Any, Any, T]) -> T:
        async def attached() -> T:
            if self.deadline is not None:
                self.deadline.attach()
            return await coroutine

        return self._host.driver.drive(attached())

    async def perform(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A body, from a coroutine. What may block must not hold up the coroutines of other runs."""
        if inspect.iscoroutinefunction(fn):
            return await fn(*args, **kwargs)

        def body() -> Any:
            with nullcontext() if self.deadline is None else self.deadline.here():
                return fn(*args, **kwargs)

        result = await self._host.driver.apart(body)
        return await result if inspect.isawaitable(result) else result

    def _go_to(self, op: Op, options: Options, due: Due | None) -> None:
        """On to the next step: here when its job may stay, else the function stops at this place."""
        if len(self.memos) >= self._fn.limits.steps:
            self._fatal = ConfigError(f"step limit: step {op.id!r} would be over the {self._fn.limits.steps} of a run")
            self._unwind()
        if due is not None and due.until_ms is not None:
            _check_sleep(op.id, due.until_ms / 1000 - time.time())
        job, default = self.job, self._fn.queue
        # A job that turns out to be for another step than the function asks for stays, too: each claim gets on by a step.
        may_stay = self._host.may_stay(self._since) or (not job.recorded and job.journal.mine != ENTRY)
        queue = options.queue or default
        if due is None and queue == self.lease.queue and may_stay and not job.suspended and not self._by_rq:
            job.go_on(op, options, default)
            if job.losses or not self._host.is_sure:
                job.confirm()
            return
        self._unwound = True
        job.chain(op, options, default, due)
        self._unwind()

    def _ask(self, op: Op, options: Options, wait: Wait) -> None:
        """An event has come, or the wait's time: unless it is over, the function stops here again."""
        if self.job.chain(op, options, self._fn.queue, wait):
            self._unwind()

    # -- one step ----------------------------------------------------------------------------------------------------

    def enter(self, call: StepCall) -> None:
        self._calling = call
        self.recorder.step, self.recorder.attempt = call.op.key, self.job.attempt
        self._host.line.body(call.options.timeout)

    def leave(self) -> None:
        self._calling = None
        self._host.line.rest()
        self._speak()

    def commit(self, call: StepCall, seconds: float) -> None:
        """The body has returned."""
        limits, op = self._fn.limits, call.op
        try:
            encoded = encode(call.result, where=f"step {op.id!r}: result")
            if len(encoded) > limits.output_bytes:
                raise PayloadError(
                    f"step {op.id!r}: its result of {len(encoded)} bytes is over the limit of {limits.output_bytes} bytes: "
                    f"store it elsewhere and return where"
                )
            call.read(encoded)
        except PayloadError as error:
            self.fail(call, error, seconds)
            return
        self._check_state(len(encoded), f"step {op.id!r}")
        self.result = call.result
        self._record_memo(
            call, Memo(encoded, None, op.kind), "ok", None if op.kind in BODILESS else seconds, call.events
        )

    def _check_state(self, more: int, what: str) -> None:
        limit = self._fn.limits.state_bytes
        if self.job.memo_bytes + more > limit:
            self._fatal = PayloadError(
                f"state size: with the {more} bytes of {what} the run's memos are over the limit of {limit} bytes"
            )
            self._unwind()

    def fail(self, call: StepCall, error: BaseException, seconds: float) -> None:
        """An attempt failed: the job comes back later, or the error is the step's outcome."""
        op, attempt = call.op, self.job.attempt
        info = outcome.describe(error, op.id, attempt)
        delay = retry_delay(error, attempt, call.options, self._host.rng.random())
        timed_out = isinstance(error, StepTimeout)
        then = "for good" if delay is None else f"again in {delay:.3g} s"
        told = (self.run_id, op.id, attempt, info.type, info.message, then)
        log.log(logging.WARNING if delay is None else logging.INFO, "run %s: step %r, attempt %d: %s: %s; %s", *told)
        if delay is None:
            self.failure = error
            self._record_memo(call, Memo(error=info), TIMEOUT if timed_out else "failed", seconds)
            return
        self.retry_in = delay
        self._unwound = True
        self.job.retry_step(op, info, delay, TIMEOUT if timed_out else "retry", seconds)
        self._unwind()

    def stopped(self, call: StepCall, reason: str, seconds: float) -> None:
        """The body was ended from outside."""
        if reason == TIMEOUT:
            self.fail(call, StepTimeout(call.op.id, call.options.timeout or seconds), seconds)
            return
        self._unwound = True
        if reason == DRAINED:
            self.job.release("shutdown")
        else:
            why = "was cancelled" if reason == CANCELLED else f"the lease of job {self.job.id} was lost"
            log.warning("run %s: %s: what step %r did here is dropped", self.run_id, why, call.op.id)
        self._unwind()

    def _record_memo(
        self, call: StepCall, memo: Memo, verdict: str, seconds: float | None, events: Sequence[Sent] = ()
    ) -> None:
        self.job.commit(call.op, memo, verdict, seconds, events)
        if self._by_rq:
            self._unwind()  # RQ's success callback takes it from here

    @property
    def _given_up(self) -> bool:
        return self.job.losses >= self._fn.limits.losses

    def _speak(self) -> None:
        journal = self.job.journal
        self.recorder.live = journal.live
        self.recorder.step, self.recorder.attempt = journal.mine, self.job.calls

    def _unwind(self) -> NoReturn:
        self._unwound = True
        raise Interrupt


def _check_sleep(step_id: str, seconds: float) -> None:
    if seconds > LONGEST_SLEEP.total_seconds():
        raise ConfigError(f"step {step_id!r}: {timedelta(seconds=seconds)} is too long a sleep: at most 366 days")
