"""What a run's function asks for, step by step: known, done here, or on to a job of its own; alone or side by side.

Decides by the kernel's rules (`journal.py`) where the function goes on. Knows no coroutines, which are the frame's.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar, cast
from uuid import uuid4

from .attempt import Decoders, Known, StepCall, value_of
from .codec import decode, encode
from .errors import ConfigError, NondeterminismError, StepFailed, StepTimeout, WorkerLost
from .function import Function
from .journal import ENDING, ENTRY, PROMISE, UNKNOWN, Op, Place, id_of
from .model import Event, Memo
from .parallel import Wanted, Wants
from .promise import make_token, secret_key
from .recording import Host, Recording, log
from .records import Claim
from .retry import NO_OPTIONS, Options, options_of
from .rollback import Rollback
from .store import Sent
from .wait import Due, Told, Wait, check_sleep

T = TypeVar("T")

MADE: dict[str, Callable[[], Any]] = {"now": partial(datetime.now, UTC), "uuid": uuid4, "random": random.random}
make_secret = partial(secrets.token_urlsafe, 12)


def vanished(key: str) -> NondeterminismError:
    return NondeterminismError(
        f"step {id_of(key)!r} was submitted, and the function does not ask for it any more: it changed under a run that had "
        f"reached it: let it submit that step as before, or give the run a new start"
    )


def gone(won: str) -> NondeterminismError:
    return NondeterminismError(
        f"step.first: {id_of(won)!r} has come first, and is not among what it is given any more: the function changed under a "
        f"run that had reached it: let it wait for that step, too, as before, or give the run a new start"
    )


class Asking(Recording):
    """The frame that the faces speak to."""

    def __init__(self, host: Host, fn: Function, claim: Claim, by_rq: bool) -> None:
        super().__init__(host, fn, claim, by_rq)
        self._wants = Wants()
        self._losers: dict[str, StepCall] = {}  # that nobody waits for any more, unless they are asked for again
        self.rollback = Rollback(self.run_id)
        self._decoders: Decoders = {}

    @property
    def attempt(self) -> int:
        return self.job.calls if self._calling is None else self.job.attempt

    @property
    def app(self) -> str:
        return self._fn.app

    def guard(self, step_id: str) -> None:
        """Refuse a call where none may be made. A step inside a step fails the run: its body may be tried again."""
        if self._calling is not None:
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

    def recall(self, kind: str, step_id: str, target: Callable[..., Any]) -> Any:
        """The value of a step that is recorded, and not by this job; else UNKNOWN, and it is for `begin`."""
        if self._calling is None and self._fatal is None and not self._unwound and not self.job.lost:
            known = self.job.journal.recall(kind, step_id, target)
            if known is not None:
                return value_of(step_id, target, known[1], self._decoders)
        return UNKNOWN

    def begin(
        self, kind: str, step_id: str, target: Callable[..., Any] | None, options: Options, due: Due | None
    ) -> StepCall:
        journal = self.job.journal
        self.guard(step_id)
        op = journal.ask(kind, step_id, target)
        call = StepCall(self, op, target, self._settle(target, options))
        self.rollback.stop(unless=not call.open)
        if journal.place(op) is Place.NEXT:
            if self._wants or self.job.forked:
                self._wants.add(Wanted(call, due))
                self._reach(call)
            else:
                self._go_to(op, call.options, due)
        if op.key == journal.mine:
            self._take_up(call, due)
        return call

    def offer(
        self,
        kind: str,
        step_id: str,
        target: Callable[..., Any] | None,
        options: Options,
        due: Due | None,
        body: Callable[[Any], None],
    ) -> StepCall | Known:
        """As `begin`, of what is to be done beside: the function goes on, and the body runs when its job is ours."""
        call = self._name(kind, step_id, target, options)
        self.want(call, due, body)
        return call

    def _name(self, kind: str, step_id: str, target: Callable[..., Any] | None, options: Options) -> StepCall | Known:
        journal = self.job.journal
        self.guard(step_id)
        known = journal.recall(kind, step_id, target)
        if known is not None:
            return Known(known[0], step_id, target, known[1], self._decoders)
        call = StepCall(self, journal.ask(kind, step_id, target), target, self._settle(target, options))
        if call.open:
            journal.check(call.op)
        else:
            journal.place(call.op)
            if call.key == journal.mine:  # recorded by us: from here on nobody has seen what the function does
                self._speak()
        return call

    def want(self, call: StepCall | Known, due: Due | None, body: Callable[[Any], None]) -> None:
        """It is to be done beside what comes now, unless it is recorded."""
        if isinstance(call, StepCall) and call.open:
            self._losers.pop(call.key, None)
            self._wants.add(Wanted(call, due, body))

    def promise(self, step_id: str, target: Callable[..., Any], options: Options) -> tuple[StepCall | Known, str]:
        """Nothing waits for it before it is wanted; its token is good from now on."""
        call = self._name(PROMISE, step_id, target, options)
        key = secret_key(call.key)
        is_new = key not in self.memos
        # whoever settles it, with or without a key, compares it
        secret = self._noted(key, make_secret, str, in_clear=True)
        if is_new:
            self.job.settle()  # whoever is given the token may use it at once
        return call, make_token(self.run_id, call.key, secret)

    def cancel_child(self, call: StepCall, reason: str) -> None:
        self.job.cancel_child(call.key, reason)

    def join(self, calls: Sequence[StepCall | Known], any: bool = False) -> None:
        """Until all of them are recorded, or any."""
        for call in calls:
            while isinstance(call, StepCall) and call.open:
                if any and not all(one.open for one in calls):
                    return
                self.guard(call.op.id)
                self._advance(call)

    def race(self, calls: Sequence[StepCall | Known]) -> int:
        """Which of them was recorded first, for good; the others are dropped."""
        self.guard("first")
        keys = [call.key for call in calls]
        key = self.job.journal.next_value(f"first:{keys[0]}")
        memo = self.memos.get(key)
        if memo is None:
            self.join(calls, any=True)
            self.job.keep_value(key, Memo(encode(next(call.key for call in calls if not call.open))))
            memo = self.memos[key]
        won = cast(str, decode(memo.value, str))
        if won not in keys:
            raise gone(won)
        lost = [call for call in calls if call.key != won and isinstance(call, StepCall) and call.open]
        self._lose(lost)
        return keys.index(won)

    def _lose(self, calls: Sequence[StepCall]) -> None:
        """They are dropped before anything else is done; not at once: a promise may be asked for again, and a replay that
        comes to that has its job.
        """
        self._wants.drop(calls)
        self._losers.update((call.key, call) for call in calls)

    def _drop_losers(self) -> None:
        lost, self._losers = [call.op.key for call in self._losers.values() if call.open], {}
        if lost and self.job.forked and not self.job.drop(lost):
            self._unwind()

    def _settle(self, target: Callable[..., Any] | None, options: Options) -> Options:
        own = NO_OPTIONS if target is None else options_of(target)
        return self._fn.options if options is own is NO_OPTIONS else options.over(own).over(self._fn.options)

    def _reach(self, call: StepCall) -> None:
        """Until it is recorded, or its job is ours."""
        while call.open and call.op.key != self.job.journal.mine:
            self._advance(call)

    def _advance(self, call: StepCall) -> None:
        """The function is held up by this call: do of all that it has asked for what is ours, or see what comes first."""
        self.rollback.stop()
        self._drop_losers()
        job, mine = self.job, self._wants.get(self.job.journal.mine)
        if mine is not None and mine.call.open:
            self._perform(mine)
            return
        if job.forked and not job.recorded and job.journal.mine not in ("", *self._wants):
            raise vanished(job.journal.mine)
        wanted = self._wants.held_up_by(call)
        if len(wanted) == 1 and not job.forked:
            self._go_to(call.op, call.options, wanted[0].due)
            return
        self._check_steps(call.op)
        asked = [(w.call.op, w.call.options, w.due) for w in wanted]
        if not job.fork(asked, self._fn.queue, may_stay=self._may_stay):
            self._unwind()

    def _perform(self, wanted: Wanted) -> None:
        call = wanted.call
        self.job.journal.place(call.op)
        self._take_up(call, wanted.due)
        if call.open:
            try:
                wanted.body(call)
            except StepFailed:
                if call.open:
                    raise
                # else a hook has refused the last attempt: that is raised where the result is asked for

    def _take_up(self, call: StepCall, due: Due | None) -> None:
        """Its job is ours; whatever is to be said before its body runs is said now."""
        op = call.op
        asks = isinstance(due, Wait) and due.when is not None
        if call.open and not self._given_up and (asks or (self.job.unarmed and isinstance(due, Wait | Told))):
            self._ask(op, call.options, due)
        self._speak()
        if call.open and self.job.overdue:
            self.job.overdue = False
            self.fail(call, StepTimeout(op.id, call.options.timeout or 0.0), call.options.timeout or 0.0)
        if call.open and self._given_up:
            self.fail(call, WorkerLost(op.id, self.job.losses), 0.0)

    def value(self, name: str, as_: type[T]) -> T:
        """As it was when the function first asked for it at this place."""
        self.guard(name)
        return self._noted(self.job.journal.next_value(name), MADE[name], as_)

    def patched(self, patch: str) -> bool:
        """Had nothing behind this place been done when the function first came here?"""
        self.guard(patch)
        journal = self.job.journal
        return self._noted(journal.patch(patch), self._is_first_here, bool)

    def _is_first_here(self) -> bool:
        """Where the run goes on in several places, a step that is ours does not say that nothing lies behind: all that is
        recorded or open has to have been asked for.
        """
        job = self.job
        if not job.journal.live or not job.was_forked:
            return job.journal.live
        steps = {key for key in self.memos if not key.startswith("=")} | job.open_steps()
        return all(job.journal.has_asked(key) for key in steps)

    def _noted(self, key: str, make: Callable[[], Any], as_: type[T], *, in_clear: bool = False) -> T:
        memo = self.memos.get(key)
        if memo is None:  # also as it is rewound: what lies behind, here or beside, may be recorded
            asked = f"step.{key[1:].partition(':')[0]}()"
            memo = Memo(encode(make(), where=asked))
            stored = memo if in_clear else Memo(self._stored(memo.value, asked))
            self._check_state(len(stored.value), asked)
            self.job.keep_value(key, stored, memo)
            memo = self.memos[key]
        return cast(T, decode(memo.value, as_))

    def undo(self, fn: Callable[..., object], run: Callable[[str], Any]) -> None:
        self.guard("on_rollback")
        key, name = self.job.journal.next_value("undo"), self.rollback.register(fn, run)
        if key not in self.memos and not self.rollback.rewinding:
            self.job.keep_value(key, Memo(encode(name)))

    def prepare(self, events: list[Event[Any]]) -> list[Sent]:
        return self._host.prepare(events)

    def drive(self, awaitable: Awaitable[T]) -> T:
        async def attached() -> T:
            if self.deadline is not None:
                self.deadline.attach()
            return await awaitable

        return self._host.driver.drive(attached())

    def _go_to(self, op: Op, options: Options, due: Due | None) -> None:
        """On to the next step: here when its job may stay, else the function stops at this place."""
        self._check_steps(op)
        if due is not None and due.until_ms is not None:
            check_sleep(op.id, due.until_ms / 1000 - time.time())
        job, default = self.job, self._fn.queue
        queue = options.queue or default
        if due is None and queue == self.lease.queue and self._may_stay:
            job.go_on(op, options, default)
            return
        job.chain(op, options, default, due)  # it may ask the user's code about events, which may raise
        self._unwind()

    @property
    def _may_stay(self) -> bool:
        """A job that turns out to be for another step than the function asks for stays, too: each claim gets on by a step."""
        job = self.job
        if job.suspended or self._by_rq:
            return False
        return self._host.may_stay(self._since) or (not job.recorded and job.journal.mine != ENTRY)

    def _check_steps(self, op: Op) -> None:
        if len(self.memos) >= self._fn.limits.steps and ENDING not in self.memos:
            self._fatal = ConfigError(f"step limit: step {op.id!r} would be over the {self._fn.limits.steps} of a run")
            self._unwind()

    def _ask(self, op: Op, options: Options, wait: Due | None) -> None:
        """An event has come, or the wait's time: unless it is over, the function stops here again."""
        if self.job.chain(op, options, self._fn.queue, wait):
            self._unwind()
