"""The scripts against a model of them: three workers whose calls come twice, late, or never, in any order.

Each rule is what a worker, a housekeeper or a mishap may do at any moment. The script has to give the model's verdict,
and afterwards all of Redis has to be what the model says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
import redis as redis_py
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flowlib.journal import ENTRY, RUN, SLEEP
from flowlib.outcome import job_id
from flowlib.testing import Stored, faults_in

from .conftest import Desk
from .model_of_runs import FENCED, FUTURE, UNRECORDED, Held, Model
from .scripts import Scripts, differences

WORKERS = ("anna", "bert", "carl")
STEPS = tuple(f"1:{name}" for name in "abcdefgh")
which = st.integers(0, 3)  # of those that are there
workers = st.sampled_from(WORKERS)


@dataclass
class Frame:
    """What a worker knows of its job; of what has become of it meanwhile it knows nothing."""

    worker: str
    exec: str
    claimed: str
    at: str
    step: str
    attempt: int
    calls: int
    losses: int
    memos: set[str] = field(default_factory=set)
    placed: bool = True  # Redis knows that the run is at this step
    before: str = ""  # the recorded step before one that is not placed
    kind: str = RUN

    @property
    def recorded(self) -> bool:
        return self.step in self.memos

    def held(self) -> Held:
        recorded = self.before if not self.placed else self.step if self.recorded else ""
        return Held(
            self.worker,
            self.exec,
            self.claimed,
            self.claimed[:26],
            self.at,
            self.step,
            recorded,
            self.attempt,
            self.losses,
        )

    def next(self) -> str:
        return next((step for step in STEPS if step not in self.memos and step != self.step), "")


def has(condition: Callable[[Frame], bool]) -> Any:
    return precondition(lambda machine: any(condition(frame) for frame in machine.frames.values()))


def settled(frame: Frame) -> bool:
    """It may go on from here."""
    return frame.placed and (frame.recorded or frame.step == ENTRY)


def in_body(frame: Frame) -> bool:
    return not frame.recorded and frame.step != ENTRY


class Machine(RuleBasedStateMachine):
    def __init__(self, desk: Desk, admin: redis_py.Redis) -> None:
        super().__init__()
        self.desk, self.admin = desk, admin

    @initialize()
    def begin(self) -> None:
        self.admin.flushall()
        self.desk.store.register_app("desk", {"errand": self.desk.function})
        self.model, self.scripts = Model(), Scripts(self.desk)
        self.frames: dict[str, Frame] = {}
        self.unheard: dict[str, str] = {}  # worker -> its claim whose reply was lost
        self.sent: list[tuple[Any, ...]] = []
        self.numbers, self.past = count(1), count(1)
        self._ask("start", self._name(1))

    def _name(self, number: int) -> str:
        return f"{number:026d}"

    def _ask(self, name: str, *args: Any) -> Any:
        """The model's verdict has to be that of the script."""
        expected, verdict = getattr(self.model, name)(*args), getattr(self.scripts, name)(*args)
        assert verdict == expected, f"{name}{args}: {verdict}, not {expected}"
        self.sent.append((name, *args))
        return verdict

    def _frame(self, number: int, condition: Callable[[Frame], bool]) -> Frame:
        fitting = [frame for frame in self.frames.values() if condition(frame)]
        return fitting[number % len(fitting)]

    def _tell(self, frame: Frame, name: str, *args: Any) -> str:
        verdict: str = self._ask(name, *args)
        if verdict == FENCED:
            self.frames.pop(frame.worker)
        return verdict

    def _leave(self, frame: Frame, name: str, *args: Any) -> None:
        self._tell(frame, name, *args)
        self.frames.pop(frame.worker, None)

    # -- workers -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.model.runs) < 3)
    @rule()
    def start(self) -> None:
        self._ask("start", self._name(len(self.model.runs) + 1))

    @precondition(lambda self: len(self.frames) < len(WORKERS))
    @rule(worker=workers, heard=st.sampled_from([True, True, True, False]))
    def claim(self, worker: str, heard: bool) -> None:
        """A claim that was not answered is sent again, by the same name."""
        if worker in self.frames:
            return
        exec = self.unheard.pop(worker, None) or f"{worker}-{next(self.numbers)}"
        claimed = self._ask("claim", worker, exec)
        if not heard:
            self.unheard[worker] = exec
        elif not isinstance(claimed, str):
            name, step, attempt, calls, losses, memos = claimed
            kind = self.model.jobs[name].kind
            self.frames[worker] = Frame(worker, exec, name, name, step, attempt, calls, losses, set(memos), kind=kind)

    @has(settled)
    @rule(number=which)
    def go_on(self, number: int) -> None:
        """In place to the next step; Redis hears of it later."""
        frame = self._frame(number, settled)
        if frame.next():
            frame.before, frame.step, frame.placed, frame.kind = frame.step, frame.next(), False, RUN
            frame.attempt = frame.calls = 1

    @has(lambda frame: not frame.placed)
    @rule(number=which)
    def place(self, number: int) -> None:
        frame = self._frame(number, lambda frame: not frame.placed)
        held = frame.held()
        if self._tell(frame, "place", held, frame.step) == "placed":
            frame.placed, frame.at = True, job_id(held.run, frame.step)

    @has(in_body)
    @rule(number=which)
    def commit(self, number: int) -> None:
        """I1, I2: also under who has lost the lease, and does not know it."""
        frame = self._frame(number, in_body)
        new, held = not frame.placed, frame.held()
        memo = f'"{frame.worker} {frame.exec}"'
        if self._tell(frame, "commit", held, memo, new, frame.kind) != FENCED:
            frame.memos.add(frame.step)
            frame.losses, frame.placed, frame.at = 0, True, job_id(held.run, frame.step)

    @has(lambda frame: frame.placed and in_body(frame))
    @rule(number=which, act=st.sampled_from(["place", "chain", "finish"]))
    def go_on_without_the_memo(self, number: int, act: str) -> None:
        """I9: the memo was posted, and got lost; whoever goes on is told so, and nothing is written."""
        frame = self._frame(number, lambda frame: frame.placed and in_body(frame))
        held, to = frame.held()._replace(recorded=frame.step), frame.next()
        if to:
            verdict = self._tell(frame, act, held, *{"place": [to], "chain": [to, RUN], "finish": []}[act])
            assert verdict in (FENCED, UNRECORDED, "recorded") or frame.step in self.model.runs[held.run].memos

    @has(lambda frame: frame.placed)
    @rule(number=which, kind=st.sampled_from([RUN, RUN, SLEEP]))
    def chain(self, number: int, kind: str) -> None:
        """Also from a step that was not run, because the function asks for another one now."""
        frame = self._frame(number, lambda frame: frame.placed)
        if frame.next():
            self._leave(frame, "chain", frame.held(), frame.next(), kind)

    @has(lambda frame: frame.placed and (settled(frame) or frame.kind == RUN))
    @rule(number=which, delay=st.booleans())
    def fail(self, number: int, delay: bool) -> None:
        frame = self._frame(number, lambda frame: frame.placed and (settled(frame) or frame.kind == RUN))
        held, level = frame.held(), "step" if in_body(frame) else "function"
        tries = frame.attempt if level == "step" else frame.calls
        self._leave(frame, "fail", held._replace(attempt=tries), level, delay)

    @has(lambda frame: frame.placed)
    @rule(number=which)
    def finish(self, number: int) -> None:
        frame = self._frame(number, lambda frame: frame.placed)
        self._leave(frame, "finish", frame.held())

    @has(lambda frame: frame.placed)
    @rule(number=which, delay=st.booleans())
    def release(self, number: int, delay: bool) -> None:
        frame = self._frame(number, lambda frame: frame.placed)
        self._leave(frame, "release", frame.held(), delay)

    @has(lambda frame: True)
    @rule()
    def renew(self) -> None:
        """Who hears that its lease is lost ends its step."""
        lost = self._ask("renew", [frame.held().lease for frame in self.frames.values()])
        for frame in [frame for frame in self.frames.values() if frame.held().lease in lost]:
            del self.frames[frame.worker]

    @has(lambda frame: frame.placed)
    @rule(number=which)
    def show(self, number: int) -> None:
        """Where RQ's tools look; nothing moves."""
        frame = self._frame(number, lambda frame: frame.placed)
        held = frame.held()
        lease = self.model.jobs[held.claimed].lease if held.claimed in self.model.jobs else ""
        if lease == held.lease:
            self.desk.store.wire.call(
                self.desk.store._pack("show_job", frame.worker, held.lease, frame.exec, frame.at, "flow")
            )

    # -- mishaps -----------------------------------------------------------------------------------------------------

    @rule(back=st.integers(0, 12))
    def send_again(self, back: int) -> None:
        """A reply was lost, or a copy of the call was long on its way: its sender may have gone on, or lost its lease."""
        call = self.sent[-1 - back % len(self.sent)]
        self._ask(*call)
        self.sent.pop()

    @has(lambda frame: True)
    @rule(number=which)
    def vanish(self, number: int) -> None:
        """kill -9, of which nobody knows yet."""
        del self.frames[self._frame(number, lambda frame: True).worker]

    @precondition(lambda self: self.model.leases)
    @rule(worker=workers, blameless=st.booleans())
    def die(self, worker: str, blameless: bool) -> None:
        """Its supervisor knows at once. A new one of that name has nothing of it."""
        self.frames.pop(worker, None)
        self.unheard.pop(worker, None)
        self._ask("reap", worker, blameless)

    @precondition(lambda self: self.model.leases)
    @rule(number=which)
    def expire(self, number: int) -> None:
        """Its worker was stopped, or hung, for longer than the lease; it may still come back."""
        lease = sorted(self.model.leases)[number % len(self.model.leases)]
        self.model.leases[lease] = next(self.past)
        self.desk.store.client.zadd(self.desk.store.keys.leases, {lease: self.model.leases[lease]})

    @precondition(lambda self: any(at < FUTURE for at in self.model.leases.values()))
    @rule()
    def reap(self) -> None:
        self._ask("reap", "", False)

    @precondition(lambda self: self.model.timers)
    @rule(number=which)
    def fall_due(self, number: int) -> None:
        name = sorted(self.model.timers)[number % len(self.model.timers)]
        at, keys, client = next(self.past), self.desk.store.keys, self.desk.store.client
        self.model.timers[name] = at
        client.zadd(keys.timers, {name: at})
        run = self.model.runs[name[:26]]
        if run.due and run.job == name:
            run.due = at
            client.hset(keys.run(name[:26]), "due", at)

    @precondition(lambda self: any(at < FUTURE for at in self.model.timers.values()))
    @rule()
    def fire(self) -> None:
        self._ask("fire")

    @precondition(lambda self: len(self.sent) > 8)
    @rule(number=which)
    def cancel(self, number: int) -> None:
        run = sorted(self.model.runs)[number % len(self.model.runs)]
        self._ask("cancel", run, f"token {next(self.numbers)}")

    @precondition(
        lambda self: any(run.status == "running" and self._misplaced(run.job) for run in self.model.runs.values())
    )
    @rule(number=which)
    def reconcile(self, number: int) -> None:
        self._ask("reconcile", sorted(self.model.runs)[number % len(self.model.runs)])

    @precondition(lambda self: self.model.queue or self.model.timers)
    @rule(number=which, deleted=st.booleans())
    def lose_job(self, number: int, deleted: bool) -> None:
        """A stock worker popped it and died; or somebody has emptied the queue."""
        waiting = sorted({*self.model.queue, *self.model.timers})
        name = waiting[number % len(waiting)]
        self.model._take_away(name)
        client = self.desk.store.client
        client.lrem("rq:queue:flow", 0, name)
        client.zrem("flow:timers", name)
        client.zrem("rq:scheduled:flow", name)
        if deleted:
            self.model.jobs.pop(name, None)
            client.delete(f"rq:job:{name}")

    @rule(number=st.integers(0, 10))
    def deliver_twice(self, number: int) -> None:
        """RQ's own resend of a push, also of a job that is long over."""
        name = sorted(self.model.jobs)[number % len(self.model.jobs)] if self.model.jobs else ""
        if name and self.desk.store.client.exists(f"rq:job:{name}"):
            self.model.queue.append(name)
            self.desk.store.client.rpush("rq:queue:flow", name)

    @rule()
    def suspend_or_resume(self) -> None:
        self.model.suspended = not self.model.suspended
        client, key = self.desk.store.client, self.desk.store.keys.rq_suspended
        _ = client.set(key, 1) if self.model.suspended else client.delete(key)

    @rule()
    def flush_scripts(self) -> None:
        """As a restart does."""
        self.admin.script_flush()

    # -- always ------------------------------------------------------------------------------------------------------

    @invariant()
    def all_of_redis_is_what_the_model_says(self) -> None:
        """I1, I2, I6; and nothing is stranded or miscounted (I4, I7) but runs disturbed from outside."""
        stored = Stored(self.desk.store)
        assert differences(self.model, stored) == []
        disturbed = {name[:26] for name in self.model.queue if self._misplaced(name)}
        disturbed |= {
            name for name, run in self.model.runs.items() if run.status == "running" and self._misplaced(run.job)
        }
        assert [fault for fault in faults_in(stored) if not any(run in fault for run in disturbed)] == []

    def _misplaced(self, name: str) -> bool:
        if name not in self.model.jobs:
            return True
        run = self.model.runs[name[:26]]
        return (
            not self.model.moves(name)
            or len(self.model.places(name)) != 1
            or run.job != name
            or run.status != "running"
        )


def drive(desk: Desk, admin: redis_py.Redis, examples: int, steps: int, new: bool = False) -> None:
    """`new`: other examples each time."""

    class OnThisServer(Machine):
        def __init__(self) -> None:
            super().__init__(desk, admin)

    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=not new,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(OnThisServer, settings=how)


def test_whatever_comes_in_whatever_order_the_scripts_keep_their_promises(desk: Desk, redis: redis_py.Redis) -> None:
    """BEHAVIOURS 39, 40, 97, 98, 130, 132, 142, 146, 147; I1, I2, I4, I6, I7."""
    drive(desk, redis, examples=18, steps=40)


@pytest.mark.chaos
def test_the_scripts_keep_their_promises_for_long(desk: Desk, redis: redis_py.Redis) -> None:
    """I1, I2, I4, I6, I7."""
    drive(desk, redis, examples=1_000, steps=80, new=True)
