"""The job that this process holds, and the transitions that can be made from it: commit, retry, chain, finish, release.

Owns the lease, what is recorded of the job's step, and how RQ is to see its end. Decides nothing: the engine says what
happened, and this puts it on its way. A transition that is refused because the lease was lost raises `Interrupt`.

In place a run goes on from step to step under one lease, and Redis hears of a step when it is over: one script writes its
memo and makes its job, ended. Only the job of a step that takes a moment is *placed* before, by the worker's beat.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from . import outcome
from .capture import Recorder
from .child import child_of
from .journal import INVOKE, PROMISE, WAIT, Journal, Op
from .lookback import Found, look_back
from .model import ErrorInfo, Memo
from .records import Claim, JobSpec, pack_memo, read_asks, text, unpack_memo
from .retry import Options
from .sealed import Open
from .store import Sent, Store
from .verdicts import Verdicts
from .wait import Due, Told, Wait
from .wire import Packed

log = logging.getLogger("flowlib.engine")
T = TypeVar("T")

Wanted = tuple[Op, Options, Due | None]

LAST_OF_ITS_MS = 2**64 - 1  # the highest number that an event in the stream has


class HeldJob(Verdicts):
    """`attempt` counts the step's tries, `calls` those of the function since this job began, `losses` dead workers."""

    def __init__(self, store: Store, claim: Claim, recorder: Recorder) -> None:
        super().__init__(store, claim.lease)
        self.journal = Journal(claim.memos, claim.step, claim.kind)
        self.attempt, self.calls, self.losses = claim.attempt, claim.calls, claim.losses
        self.overdue = claim.overdue
        self.recorded = claim.step in claim.memos
        self.memo_bytes = claim.bytes
        self.done: tuple[int, int, float] = (0, 0, 0.0)  # jobs ended well, failed, and their seconds
        self.order: dict[str, int] = {}  # the place of each step that was recorded while others were open
        self.was_forked = "branches" in claim.record
        self.forked = "forked" in claim.record  # it goes on in several places: each step has to be known of at once
        self._retries = int(claim.record.get("retries", 0))
        waits = self.forked or claim.kind in (WAIT, INVOKE, PROMISE)
        self.unarmed = waits and text(claim.record.get("armed", b"")) != claim.step  # a wait, not yet registered
        self.open: Open | None = None  # for data that is sealed
        self._recorder = recorder
        self._location = text(claim.record["location"])
        self._asks = read_asks(claim.record.get("asks"))
        self._at = claim.lease.job  # the run's job, as far as Redis knows
        self._end = outcome.of_memo(claim.memos[claim.step]) if self.recorded else outcome.of_entry(claim.step)
        self._unplaced: JobSpec | None = None  # the job after that, of which Redis has not heard
        self._began, self._after = 0.0, ""  # when that was, and which step must be recorded by then
        self._turn = threading.Lock()  # the beat places the job while its body runs

    @property
    def id(self) -> str:
        """The job that the run is at."""
        unplaced = self._unplaced
        return self._at if unplaced is None else unplaced.id

    # -- in place ----------------------------------------------------------------------------------------------------

    def go_on(self, op: Op, options: Options, queue: str) -> None:
        """To the next step, under the same lease."""
        self._unplaced = outcome.job_spec(self.lease, self._location, op.key, op.kind, options, queue)
        self._began, self._after = time.monotonic(), self._recorded_step
        self.journal.move_to(op)
        self.recorded = False
        self.attempt = self.calls = 1

    def place(self, store: Store) -> str:
        """Let Redis know of the job that the run is at. From any thread, with that thread's patience.

        The verdict; '' if Redis was not asked, because another thread has done it meanwhile.
        """
        with self._turn:
            spec = self._unplaced
            if spec is None or self.lost:
                return ""
            age_ms = 1000 * (time.monotonic() - self._began)
            after = self._after if self._sure else self._last  # a coroutine beside the body may have asked for a value
            place = partial(store.place_job, self.lease, self._at, after, self._end, spec, losses=self.losses)
            verdict = place(age_ms=age_ms)
            if verdict == "unrecorded" and self._sent:  # the body may take long: let Redis have them now
                store.wire.call_all(self._sent[:])
                verdict = place(age_ms=age_ms)
            if verdict == "placed":
                self._has_gone_to(spec.id)
                self._end = outcome.SUPERSEDED
            return verdict

    def confirm(self) -> None:
        """Redis has to know of this job, and to say so, or have said so to the beat, while the lease stood."""
        if self._unplaced is not None:
            self._report(lambda: self.place(self.store))

    def _has_gone_to(self, job: str) -> None:
        self._count(self._end[0])
        self._at, self._unplaced = job, None

    # -- transitions -------------------------------------------------------------------------------------------------

    def commit(
        self,
        op: Op,
        memo: Memo,
        verdict: str,
        seconds: float | None,
        events: Sequence[Sent] = (),
        clear: Memo | None = None,
    ) -> None:
        """Send the memo off, which the function sees as `clear`, and events with it; `verdict` is ok, failed or timeout,
        `seconds` None for what has no body.
        """
        packed, ended = pack_memo(memo), outcome.of_memo(memo)
        self.memo_bytes += len(packed)
        with self._turn:
            spec = self._unplaced
            command = self.store.commit_step(
                self.lease, self._at, op.key, packed, ended, attempt=self.attempt, outcome=verdict, seconds=seconds,
                total=None if self.was_forked else self.memo_bytes, label=label_of(op.id), lines=self._recorder.drain(),
                error=memo.error, after="" if self._sure else self._last, events=events, left=self._end, spec=spec,
            )  # fmt: skip
            if spec is not None:
                self._has_gone_to(spec.id)
        self._send(command, op.key, seconds)
        self._count(ended[0], seconds or 0.0)
        self._end = ("", "", ended[2])
        self.losses = 0
        self.recorded = True
        self.journal.record(op.key, clear or memo)

    def keep_value(self, key: str, memo: Memo, clear: Memo | None = None) -> None:
        """Send off what the function has asked for between its steps. It is for whoever is here first (I1): where the run goes
        on in several places, another may have been, and then that one's is remembered.
        """
        packed = pack_memo(memo)
        after = "" if self._sure else self._last
        note, first = self.store.note_value(self.lease, key, packed, after), b""
        if self.forked:
            first = self._keep_first(note)
        else:
            self._send(note, key, 0.0)
        self.memo_bytes += len(first or packed)
        self.journal.record(key, unpack_memo(first) if first else clear or memo)

    def _keep_first(self, note: Packed) -> bytes:
        """The memo that is kept in place of this one, or b''."""
        first = b""

        def speak() -> str:
            nonlocal first
            verdict, first = self._verdict(self.store.wire.call(note))
            return verdict

        self._report(speak)
        return first

    def retry_step(self, op: Op, error: ErrorInfo, delay: float, verdict: str, seconds: float) -> None:
        """The step's attempt failed; the job is due again in `delay` seconds."""
        self._retry("step", op.key, error, self.attempt, delay, verdict, seconds, label_of(op.id))

    def retry_call(self, error: ErrorInfo, delay: float) -> None:
        """The function failed between steps; the job is due again, to replay it."""
        self._retry("function", self.journal.mine, error, self.calls, delay, "retry", 0.0, "")

    def chain(self, op: Op, options: Options, queue: str, due: Due | None) -> bool:
        """Leave this job and enqueue that of `op`, or schedule it: whoever claims it goes on from there.

        False: it stays, because it is a wait that has come back, and whose time is over.
        """
        self.confirm()
        spec = outcome.job_spec(self.lease, self._location, op.key, op.kind, options, queue)
        lines = self._recorder.drain()

        def leave(sleep_ms: float | None, until_ms: float | None, wait: tuple[Any, ...] = ()) -> str:
            return self._report(
                lambda: self.store.chain_job(
                    self.lease, self._at, self._recorded_step, self._end, spec, sleep_ms=_ms(sleep_ms),
                    until_ms=_ms(until_ms), lines=lines, wait=wait,
                )
            )  # fmt: skip

        try:
            if isinstance(due, Wait):
                verdict = self._register(op, due, leave)
            elif isinstance(due, Told):
                verdict = leave(due.delay_ms, None, due.args(self.lease.run, op.key, self._retries))
            else:
                verdict = leave(None, None) if due is None else leave(due.delay_ms, due.until_ms)
        except Exception:  # of `when`, or of middleware: nothing was said
            self._recorder.take_back()
            raise
        if verdict == "over":
            return False
        self._count(self._end[0])
        return True

    def fork(self, wants: Sequence[Wanted], queue: str, *, may_stay: bool) -> bool:
        """Have all that the function waits for done side by side: what is not open yet gets a branch of its own.

        One of them may stay: it is ours now. Or others have been recorded meanwhile. False: this place is left.
        """
        self.confirm()
        told: list[Any] = []
        lines = self._recorder.drain()
        # what this run goes on with in other places is mostly open: what else there is may be told, too
        specs = dict.fromkeys(range(len(wants)) if not self.forked else [len(wants) - 1])

        def speak() -> str:
            for n in specs:
                op, options, _ = wants[n]
                specs[n] = specs[n] or outcome.job_spec(self.lease, self._location, op.key, op.kind, options, queue)
            asked = [(op.key, specs.get(n), *_times(due)) for n, (op, _, due) in enumerate(wants)]
            verdict, told[:] = self.store.fork_run(
                self.lease, self._at, self._recorded_step, self._end, asked, may_stay=may_stay, lines=lines
            )
            return verdict

        verdict = self._report(speak)
        while verdict == "lacking":
            specs.update(dict.fromkeys(told))
            verdict = self._report(speak)
        if verdict == "behind":
            self._recorder.take_back()
            for key, memo in zip(told[::2], told[1::2], strict=True):
                self.journal.record(text(key), unpack_memo(memo))
                self.memo_bytes += len(memo)
            return True
        self._count(self._end[0])
        if verdict == "left":
            return False
        chosen, alone = told
        self._at, self._end, self.forked = (
            outcome.job_id(self.lease.run, wants[chosen][0].key),
            outcome.SUPERSEDED,
            not alone,
        )
        self.was_forked = True
        self.journal.move_to(wants[chosen][0])
        self.recorded = False
        self.attempt = self.calls = 1
        self.losses = 0
        return True

    def catch_up(self) -> None:
        """Learn what has been recorded side by side, and in which order."""
        self.settle()
        fetch = partial(self.store.recorded_since, self.lease.run, len(self.order), self.journal.memos)
        steps, memos = self._reach(fetch)
        self.order.update({key: place for place, key in enumerate(steps, start=len(self.order))})
        for key, memo in memos.items():
            self.journal.record(key, unpack_memo(memo))
            self.memo_bytes += len(memo)

    def open_steps(self) -> set[str]:
        """All that the run is at, in whatever place."""
        self.settle()
        return self._reach(lambda: self.store.open_steps(self.lease.run))

    def cancel_child(self, key: str, reason: str) -> None:
        """What this step has invoked is not waited for any more."""
        child = child_of(self.lease.run, key, self._retries)
        self._reach(lambda: self.store.cancel_run(child, reason))

    def drop(self, steps: Sequence[str]) -> bool:
        """Nobody waits for these steps any more. False: the job that we hold was for one of them."""
        self.confirm()
        self.settle()
        return self._report(lambda: self.store.drop_branches(self.lease, self._at, steps)) == "dropped"

    def _register(self, op: Op, wait: Wait, leave: Callable[..., str]) -> str:
        """A wait that looks at events has to have looked at all, up to the very moment at which it is registered."""
        step, until, looked = self._asks or ("", None, "")
        if step != op.key:
            until, looked = None, "" if wait.since_ms is None else f"{max(0, wait.since_ms - 1)}-{LAST_OF_ITS_MS}"
        match = wait.match if self.open is None else wait.veiled
        told = (wait.name, wait.fields, wait.digest, match, wait.delay_ms, wait.since_ms)
        found: Found = (None, None)

        def find(after: str) -> tuple[str, bool, list[tuple[str, Any]]]:
            return self._reach(partial(self.store.find_events, wait.name, after))

        while True:
            if looked:
                looked, found = look_back(find, op.id, wait, looked, self.open)
            verdict = leave(wait.delay_ms, until, (*told, looked or None, *found, None if wait.when is None else 1))
            if verdict != "behind":
                return verdict

    def complete(self, result: bytes, left: Sequence[str]) -> str:
        """The function has returned, with these steps left open. A step that is open beside them has vanished: else ''."""
        if not self.forked:
            self.finish("completed", result=result)
            return ""
        self.confirm()
        command = self.store.finish_run(
            self.lease, self._at, self._recorded_step, self._end, "completed", result=result,
            lines=self._recorder.drain(), left=left,
        )  # fmt: skip
        verdict, _, vanished = self._report(lambda: text(self.store.wire.call(command))).partition(" ")
        if verdict == "vanished":
            self._recorder.take_back()
        else:
            self._count(self._end[0])
        return vanished

    def finish(self, status: str, *, result: bytes = b"", error: ErrorInfo | None = None, undo: bool = True) -> None:
        """The run has ended, or begins to undo what it has done."""
        self.confirm()
        ended = self._end if self.recorded or error is None else outcome.of_error(error)
        lines = self._recorder.drain()
        command = self.store.finish_run(
            self.lease, self._at, self._recorded_step, ended, status, result=result, error=error, lines=lines, undo=undo
        )
        sent, wire = self._sent, self.store.wire

        def heard(verdict: bytes) -> None:
            if verdict == b"unrecorded":
                wire.call_all([*sent, command])

        # Its verdict is heard with the next claim. Whatever it is, there is nothing more to be done with this job.
        self._reach(lambda: wire.post(command, heard))
        self._count(ended[0])

    def release(self, reason: str) -> None:
        """Hand the job back, as it was."""
        self.confirm()
        self.settle()
        lines = self._recorder.drain()
        self._report(lambda: self.store.release_job(self.lease, reason, job=self._at, lines=lines))

    @property
    def _recorded_step(self) -> str:
        """What must be recorded before the run goes on: with it, all that was sent before."""
        if not self._sure:
            return self._last
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
        self.confirm()
        lines = self._recorder.drain()
        self._report(
            lambda: self.store.fail_attempt(
                self.lease, self._at, step, error, level=level, attempt=attempt, delay_ms=round(delay * 1000),
                outcome=verdict, seconds=seconds, label=label, lines=lines, recorded=self._recorded_step,
            )
        )  # fmt: skip
        self._count(outcome.FAILED, seconds)

    def _count(self, ended: str, took: float = 0.0) -> None:
        ok, failed, seconds = self.done
        self.done = (ok + (ended == outcome.FINISHED), failed + (ended == outcome.FAILED), seconds + took)


def _times(due: Due | None) -> tuple[float | None, float | None]:
    """A wait is registered by whoever takes its job."""
    return (None, None) if due is None or isinstance(due, Wait | Told) else (due.delay_ms, due.until_ms)


def _ms(number: float | None) -> str:
    return "" if number is None else f"{number:.3f}"


def label_of(step_id: str) -> str:
    """The step's label in metrics: what comes before the index of `enrich[17]`."""
    return step_id.partition("[")[0] or step_id
