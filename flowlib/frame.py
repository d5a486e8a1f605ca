"""A run's function, alive in this process: from its start, over what is recorded, to wherever this worker may take it.

What it asks for on the way is answered by `asking.py`. Knows nothing of queues, polling, signals or processes, which are
the worker's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import nullcontext
from typing import Any

from . import capture, outcome
from .asking import Asking, vanished
from .async_step import AsyncStep
from .attempt import Known, StepCall
from .codec import encode
from .deadline import TIMEOUT, BodyStopped
from .errors import ConfigError, Interrupt, WorkerLost
from .face import pass_over
from .function import Function
from .journal import ENDING, ENTRY, PROMISE, SLEEP, UNDO, id_of
from .model import ErrorInfo
from .parallel import Wants
from .quiet_loop import QuietLoop
from .recording import CANCELLED, DRAINED, LOST, Host, log
from .records import Claim, event_of
from .retry import FINAL, NO_OPTIONS, retry_delay
from .rollback import read_ending
from .step import Step
from .turns import Awaited, Turns
from .wait import Due

__all__ = ["CANCELLED", "DRAINED", "LOST", "Frame"]

UNDONE_AGAIN = 60.0  # seconds after which a run that is to be undone, and cannot be opened, is looked at again


class Frame(Asking):
    """A run's function, alive in this process."""

    def __init__(self, host: Host, fn: Function, claim: Claim, by_rq: bool) -> None:
        super().__init__(host, fn, claim, by_rq)
        self._record = claim.record
        self._loop: QuietLoop  # of an async function
        self._turns = Turns()
        self._caught_up = False

    def play(self) -> None:
        """From the function's start to wherever this worker may take it; afterwards Redis knows all of it."""
        try:
            self._play()
            if self._fatal is not None and (
                not isinstance(self._fatal, FINAL) or (self._unopened and ENDING in self.memos)
            ):
                self._fail_between_steps(self._fatal)
            elif self._fatal is not None:
                step = id_of(self.job.journal.mine) or None
                self._fail(outcome.describe(self._fatal, step, self.job.attempt))
        except Interrupt:
            pass  # the lease was lost while reporting: whoever has it now goes on

    def _play(self) -> None:
        speaking = capture.begin(self.recorder)
        self._speak()
        try:
            if self._given_up and (self.job.recorded or self.job.journal.mine == ENTRY):
                raise WorkerLost(id_of(self.job.journal.mine) or "(start)", self.job.losses)
            if ENDING in self.memos:
                return self._roll_back()
            result = self._call_function()
            what = f"run {self.run_id}: "
            encoded = self._stored(encode(result, where=f"{what}result"), f"{what}its result") if self.alive else b""
        except Interrupt:
            pass
        except BodyStopped:  # the alarm rang on the way into a body, or out of it
            self._stopped_at_the_edge()
        except BaseException as error:
            if self.alive:  # else it is what became of our Interrupt, in a TaskGroup or in the user's hands
                self._fail_between_steps(error)
        else:
            if self.alive:
                self._complete(encoded)
        finally:
            capture.speaking.reset(speaking)

    def _complete(self, result: bytes) -> None:
        self._drop_losers()
        left = [call.op.key for call in self._wants.calls()]
        if lost := self.job.complete(result, left):
            self._fail_between_steps(vanished(lost))

    def _call_function(self) -> Any:
        try:
            event = event_of(self._record, self._fn.trigger_for, self.job.open)
        except Exception as error:
            self._unopened = self.job.open is not None
            if self._unopened and self.rollback.rewinding:
                self._unreadable(error)
            raise
        begins = self.job.journal.mine == ENTRY and self.job.calls == 1 and not self.rollback.rewinding
        try:
            with nullcontext() if self._hooked is None else self._hooked.call(begins):
                if self._fn.is_async:
                    return self._play_coroutine(self._fn.body(event, AsyncStep(self)))
                result = self._fn.body(event, Step(self))
                self.join(self._wants.calls())  # what it has not asked for the result of
                return result
        finally:
            capture.finish(self.recorder)

    def _stopped_at_the_edge(self) -> None:
        call, deadline = self._calling, self.deadline
        if call is None or deadline is None or not self.alive:
            return
        deadline.__exit__(None, None, None)
        self.leave()
        self.stopped(call, deadline.reason or TIMEOUT, 0.0)
        self.job.release("the step was stopped before its body began")

    def _fail_between_steps(self, error: BaseException) -> None:
        """An error that left the function: final when it is a step's own, else the last job comes back to replay it."""
        calls = self.job.calls
        info = outcome.describe(error, None, calls)
        delay = retry_delay(error, calls, self._fn.options, self._host.rng.random())
        if delay is None and self._unopened and ENDING in self.memos:
            delay = UNDONE_AGAIN
        if delay is None:
            self._fail(info)
            return
        log.info("run %s: error between steps, call %d: %s; again in %.3g s", self.run_id, calls, info.message, delay)
        self.retry_in = delay
        self.job.retry_call(info, delay)

    def _fail(self, error: ErrorInfo) -> None:
        """Of a run that nobody can open nobody could undo anything: it may be retried, once that is mended."""
        self.job.finish("failed", error=error, undo=not self._unopened)

    def _roll_back(self) -> None:
        """All that the function has registered up to where it has come; then the run ends as it was to."""
        self.recorder.live = self.job.overdue = False
        with self.rollback.rewind():
            self._call_function()
        if self._unopened:  # what is to be undone is not known now: it is asked for again, however long that takes
            raise Interrupt
        self._check_rewound()
        self._wants, self._losers, self._turns, self._caught_up = Wants(), {}, Turns(), False
        self._speak()
        if self._fn.is_async:
            self._play_coroutine(self.rollback.undo_async())
        else:
            self.rollback.undo()
        self.job.finish(**read_ending(self.memos[ENDING]))

    def _check_rewound(self) -> None:
        """An error on the way may have kept the function from all that it had registered: it is called again, if it may be."""
        rollback, error = self.rollback, self.rollback.ended_by
        if lacking := rollback.lacks(sum(key.startswith(UNDO) for key in self.memos)):
            if isinstance(error, Exception) and retry_delay(error, self.job.calls, self._fn.options, 0.0) is not None:
                raise error
            self.recorder.live = True  # else nobody would hear it
            what = f"{lacking} steps are not undone: the function registers that no more"
            log.error("run %s: %s; it came to %r", self.run_id, what, error)
        rollback.keep_apart(self.job.journal.asked)

    # -- coroutines --------------------------------------------------------------------------------------------------

    def _play_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """To its end, and that of the tasks that it has started.

        All passes see what was recorded side by side in the same order, one after the other, whoever makes them: so they
        go the same way, and whatever races has the same winner.
        """
        self._loop = QuietLoop(self._set_timer)  # type: ignore[abstract]  # what else a loop has to do is refused
        function = self._loop.create_task(coroutine)
        self._catch_up()
        try:
            while True:
                self._loop.run_ready()
                if _has_failed(function):
                    break  # at once: of what it has left behind nothing is wanted
                if not any(not one.is_timer or not function.done() for one in self._turns):
                    break  # what it has left behind may finish its steps, and not go on sleeping
                self._go_on()
            if not function.done():
                raise ConfigError(
                    f"run {self.run_id}: the function waits for something that is no step, and nothing will make it go on"
                )
            return function.result()
        finally:
            self._loop.end()

    def _go_on(self) -> None:
        """Everybody waits: let the first of those go on whose step is recorded, or have the next recorded."""
        self._catch_up()
        first = self._turns.take(self.memos, self.job.order)
        if first is not None:
            first.deliver()
            return
        waiting = next(awaited.call for awaited in self._turns if isinstance(awaited.call, StepCall))
        self.guard(waiting.op.id)
        self._caught_up = False
        self._advance(waiting)

    def _catch_up(self) -> None:
        if self.job.was_forked and not self._caught_up:
            self.job.catch_up()
            self._caught_up = True

    async def turn(self, *calls: StepCall | Known) -> None:
        """Until one of them is recorded, and it is this coroutine's turn to go on."""
        if self._loop.is_idle and any(not call.open and call.key not in self.job.order for call in calls):
            return
        arrived = self._loop.create_future()
        awaited = [Awaited(call, lambda: None if arrived.done() else arrived.set_result(None)) for call in calls]
        for each in awaited:
            self._turns.add(each)
        try:
            await arrived
        except asyncio.CancelledError:
            for each in awaited:
                self._abandon(each)
            raise
        for each in awaited:
            self._turns.discard(each)

    def _set_timer(self, seconds: float, handle: asyncio.TimerHandle) -> None:
        """`asyncio.sleep`, `timeout` and `wait_for`: as good as a step that sleeps."""
        call = self.offer(SLEEP, "timeout", None, NO_OPTIONS, Due(delay_ms=max(0.0, seconds) * 1000), pass_over)
        awaited = Awaited(call, lambda: self._loop.fire(handle), is_timer=True)
        self._turns.add(awaited)
        self._loop.on_cancelled(handle, lambda: self._abandon(awaited))

    def _abandon(self, awaited: Awaited) -> None:
        self._turns.discard(awaited)
        call = awaited.call
        if isinstance(call, StepCall) and call.open:
            if call.op.kind == PROMISE and any(each.call.key == call.key for each in self._turns):
                return  # another coroutine waits for it
            self._lose([call])


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
