"""One step of a run's function, from its body's first line until it is recorded, fails, or is stopped from outside.

Decides by the kernel's rules (`retry.py`) what an outcome means; what reaches Redis is `held.py`'s.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

from . import capture, outcome
from .attempt import StepCall
from .board import Line
from .codec import encode
from .deadline import TIMEOUT, Deadline
from .errors import Interrupt, PayloadError, StepTimeout
from .function import Function
from .held import HeldJob
from .hooked import Hooked
from .journal import BODILESS, ENDING
from .loop import Driver
from .middleware import Hooks
from .model import Event, Memo
from .records import Claim, Lease
from .retry import retry_delay
from .store import Sent, Store

log = logging.getLogger("flowlib.engine")

CANCELLED, LOST, DRAINED = "cancelled", "lost", "drained"  # why a body was stopped, beside its timeout


class Host(Protocol):
    """What all frames of a process share."""

    store: Store
    rng: random.Random
    driver: Driver
    line: Line
    may_stay: Callable[[float], bool]
    prepare: Callable[[list[Event[Any]]], list[Sent]]
    hooks: Hooks | None

    def assure(self, job: HeldJob) -> None: ...


class Recording:
    """What a frame has in its hand, and what becomes of the attempt that it makes."""

    def __init__(self, host: Host, fn: Function, claim: Claim, by_rq: bool) -> None:
        self.run_id = claim.lease.run
        self.recorder = capture.Recorder(self.run_id)
        self.job = HeldJob(host.store, claim, self.recorder)
        self.deadline: Deadline | None = None
        self.result: Any = None  # what a stock RQ worker is to return,
        self.failure: BaseException | None = None  # or to raise,
        self.retry_in: float | None = None  # or in how many seconds it is to try again
        self._host = host
        self._hooked = None if host.hooks is None else Hooked(host.hooks, claim.lease, claim.record)
        self._sealing = None if host.hooks is None else host.hooks.sealing
        if self._sealing is not None:
            self.job.journal.memos = self._sealing.memos(claim.memos, self._unreadable)
            self.job.open = self._sealing.open
        self._fn = fn
        self._by_rq = by_rq
        self._since = time.monotonic()
        self._unwound = False
        self._refused = 0
        self._fatal: Exception | None = None
        self._unopened = False  # that is because something that is stored cannot be opened
        self._calling: StepCall | None = None

    @property
    def lease(self) -> Lease:
        return self.job.lease

    @property
    def memos(self) -> dict[str, Memo]:
        return self.job.journal.memos

    @property
    def listening(self) -> bool:
        """Whether a body's failure still means anything."""
        return self.alive

    @property
    def alive(self) -> bool:
        """False once the function is being unwound: what its code makes of that is of no interest."""
        return not (self._unwound or self.job.lost)

    def enter(self, call: StepCall) -> None:
        self._host.assure(self.job)
        if self.job.losses:  # one more has to be seen, should this body be the end of this worker, too
            self.job.confirm()
        if self._hooked is not None:
            try:
                self._hooked.enter(call.op, self.job.attempt)
            except Exception as error:
                self.fail(call, error, 0.0)
                call.value()  # raises it: there is no attempt left
        self._calling = call
        self.recorder.step, self.recorder.attempt = call.op.key, self.job.attempt
        self._host.line.body(call.options.timeout)

    def leave(self, error: BaseException | None = None) -> BaseException | None:
        """Returns what the attempt has failed with, once its hooks have had their say."""
        self._calling = None
        self._host.line.rest()
        self._speak()
        return error if self._hooked is None else self._hooked.leave(error)

    def seal(self, encoded: bytes) -> bytes:
        """As it is to be stored."""
        return encoded if self._sealing is None else self._sealing.seal(encoded)

    def commit(self, call: StepCall, seconds: float) -> None:
        """The body has returned."""
        op = call.op
        try:
            encoded = encode(call.result, where=f"step {op.id!r}: result")
            stored = self._stored(encoded, f"step {op.id!r}: its result")
            call.read(encoded)
        except Exception as error:
            self.fail(call, error, seconds)
            return
        self._check_state(len(stored), f"step {op.id!r}")
        self.result = call.result if stored is encoded else None
        memo, clear = Memo(stored, None, op.kind), None if stored is encoded else Memo(encoded, None, op.kind)
        self._record_memo(call, memo, "ok", None if op.kind in BODILESS else seconds, call.events, clear)

    def _stored(self, encoded: bytes, what: str) -> bytes:
        """As it is to be stored. Raises PayloadError when that is too much."""
        stored, limit = self.seal(encoded), self._fn.limits.output_bytes
        if len(stored) > limit:
            told = f"{what} of {len(stored)} bytes is over the limit of {limit} bytes"
            raise PayloadError(f"{told}: store it elsewhere and return where")
        return stored

    def _unreadable(self, error: Exception) -> NoReturn:
        """A memo cannot be opened, for now or for ever: that is no business of the function's."""
        self._fatal, self._unopened = error, True
        self._unwind()

    def _check_state(self, more: int, what: str) -> None:
        limit = self._fn.limits.state_bytes
        if self.job.memo_bytes + more > limit and ENDING not in self.memos:
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
        self, call: StepCall, memo: Memo, verdict: str, seconds: float | None, events: Sequence[Sent] = (),
        clear: Memo | None = None,
    ) -> None:  # fmt: skip
        self.job.commit(call.op, memo, verdict, seconds, events, clear)
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
