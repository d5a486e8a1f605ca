"""The scripts against a model of them: three workers whose calls come twice, late, or never, in any order.

Each rule is what a worker, a housekeeper or a mishap may do at any moment. The script has to give the model's verdict,
and afterwards all of Redis has to be what the model says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from itertools import count
from typing import Any

import redis as redis_py
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from flowlib.testing import Stored, faults_in

from .conftest import Desk
from .model_of_runs import FENCED, UNRECORDED, Model
from .model_of_workers import Call, Frame
from .scripts import Scripts, differences

WORKERS = ("anna", "bert", "carl")
which = st.integers(0, 11)  # of those that are there
seldom = st.sampled_from([False, False, True])


def has(condition: Callable[[Frame], bool]) -> Any:
    return precondition(lambda machine: any(condition(frame) for frame in machine.frames.values()))


def mishap(**drawn: Any) -> Any:
    """A rule for what hinders work. It leaves time for some work in between, as long as there is any."""

    def declare(method: Callable[..., None]) -> Any:
        @wraps(method)
        def counted(machine: Any, **given: Any) -> None:
            machine.mishaps += 1
            method(machine, **given)

        declared: Any = rule(**drawn)
        return precondition(lambda machine: machine.may_be_hindered)(declared(counted))

    return declare


class Machine(RuleBasedStateMachine):
    first_run = 1
    model_of, scripts_of, frame_of = Model, Scripts, Frame

    def __init__(self, desk: Desk, admin: redis_py.Redis) -> None:
        super().__init__()
        self.desk, self.admin = desk, admin

    @initialize(beyond_the_first=st.booleans())
    def begin(self, beyond_the_first: bool) -> None:
        """Two runs, one of them inside a step."""
        self.admin.flushall()
        self.desk.store.register_app("desk", {"errand": self.desk.function})
        self.model, self.scripts = self.model_of(), self.scripts_of(self.desk)
        self.frames: dict[str, Frame] = {}
        self.unheard: dict[str, str] = {}  # worker -> its claim whose reply was lost
        self.sent: list[Call] = []
        self.spoken, self.mishaps, self.requeued = 0, 0, set[str]()
        self.numbers, self.past = count(1), count(1)
        self.start()
        self.claim(0, False)
        self.go_on(0)
        self._speak(self.frames["anna"], "place")
        if beyond_the_first:
            self._speak(self.frames["anna"], "commit")
        self.start()

    @property
    def may_be_hindered(self) -> bool:
        return self.spoken > 2 * self.mishaps or not (self.frames or self.model.queue)

    def _ask(self, name: str, *args: Any) -> Any:
        """The model's verdict has to be that of the script. What is refused changes nothing."""
        expected = getattr(self.model, name)(*args)
        before = self.desk.stored() if expected in (FENCED, UNRECORDED) else None
        verdict = getattr(self.scripts, name)(*args)
        assert verdict == expected, f"{name}{args}: {verdict}, not {expected}"
        assert before is None or before == self.desk.stored(), f"{name}{args} was refused, and wrote"
        self.sent.append((name, *args))
        return verdict

    def _speak(self, frame: Frame, act: str, later: bool = False, again: bool = False) -> None:
        """`again`: the reply was lost; what is said a second time changes nothing."""
        self._say(frame, frame.call(act, later), again)

    def _say(self, frame: Frame, call: Call, again: bool = False) -> None:
        self.spoken += 1
        act, verdict = call[0], ""
        if act == "release" and frame.told:
            verdict = self._settle(frame, frame.told[-1])
        if verdict != FENCED:
            verdict = self._settle(frame, call)
        if again:
            before = self.desk.stored()
            self._ask(*call)
            assert before == self.desk.stored(), f"{call} came again, and changed what is stored"
        if not frame.hear(act, verdict):
            self.frames.pop(frame.worker)

    def _settle(self, frame: Frame, call: Call) -> str:
        """Memos of which the verdict was not awaited may not have arrived: then they are sent again."""
        verdict: str = self._ask(*call)
        if verdict == UNRECORDED:
            for memo in frame.told:
                self._ask(*memo)
            verdict = self._ask(*call)
        frame.told.clear()
        return verdict

    def _frame(self, number: int, condition: Callable[[Frame], bool] = lambda _: True) -> Frame:
        fitting = [frame for frame in self.frames.values() if condition(frame)]
        return fitting[number % len(fitting)]

    # -- workers -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: sum(run.status == "running" for run in self.model.runs.values()) < 2)
    @rule()
    def start(self) -> None:
        self._ask("start", f"{self.first_run + len(self.model.runs):026d}")

    @precondition(lambda self: len(self.frames) < len(WORKERS) and (self.model.queue or self.unheard))
    @rule(number=which, unheard=seldom)
    def claim(self, number: int, unheard: bool) -> None:
        """A claim that was not answered is sent again, by the same name."""
        idle = [worker for worker in WORKERS if worker not in self.frames]
        worker = idle[number % len(idle)]
        exec = self.unheard.pop(worker, None) or f"{worker}-{next(self.numbers)}"
        claimed = self._ask("claim", worker, exec)
        if unheard:
            self.unheard[worker] = exec
        elif claimed == "suspended":
            self._suspend(0)
        elif not isinstance(claimed, str):
            name, step, attempt, calls, losses, memos, asks = claimed
            kind = self.model.jobs[name].kind
            self.frames[worker] = self.frame_of(
                worker, exec, name, name, step, attempt, calls, losses, set(memos), kind=kind, asks=asks
            )

    @has(lambda frame: frame.settled and frame.next != "")
    @rule(number=which)
    def go_on(self, number: int) -> None:
        self._frame(number, lambda frame: frame.settled and frame.next != "").go_on()

    @has(lambda frame: not frame.placed)
    @rule(number=which, again=seldom, unheard=seldom)
    def place(self, number: int, again: bool, unheard: bool) -> None:
        """Who has not heard that it is placed does so again, or has it made when it commits."""
        frame = self._frame(number, lambda frame: not frame.placed)
        if unheard:
            self._ask(*frame.call("place"))
        else:
            self._speak(frame, "place", again=again)

    @has(lambda frame: frame.in_body)
    @rule(number=which, again=seldom)
    def commit(self, number: int, again: bool) -> None:
        """I1, I2."""
        self._speak(self._frame(number, lambda frame: frame.in_body), "commit", again=again)

    @has(lambda frame: frame.in_body)
    @rule(number=which)
    def tell(self, number: int) -> None:
        """Commit, and go on before the verdict is known."""
        frame = self._frame(number, lambda frame: frame.in_body)
        self._ask(*frame.tell())

    @has(lambda frame: frame.in_body)
    @rule(number=which, act=which, later=st.booleans())
    def lose_memo(self, number: int, act: int, later: bool) -> None:
        """I9: it was told and got lost; whatever comes next is refused until it is sent again. It may arrive late, too."""
        frame = self._frame(number, lambda frame: frame.in_body)
        self.sent.append(frame.tell())
        acts = ["commit", *frame.acts()]
        if acts[act % len(acts)] != "commit":
            self._speak(frame, acts[act % len(acts)], later)
        elif frame.next:
            frame.go_on()
            self._speak(frame, "place" if later else "commit")

    @has(lambda frame: frame.settled)
    @rule(
        number=which, act=st.sampled_from(["chain", "chain", "fail", "finish", "release"]), later=seldom, again=seldom
    )
    def leave(self, number: int, act: str, later: bool, again: bool) -> None:
        frame = self._frame(number, lambda frame: frame.settled)
        if act in frame.acts():
            self._speak(frame, act, later, again)

    @has(lambda frame: frame.placed and frame.in_body)
    @rule(number=which, act=st.sampled_from(["chain", "fail", "finish", "release"]), later=seldom, again=seldom)
    def leave_unrecorded(self, number: int, act: str, later: bool, again: bool) -> None:
        """Its step failed, or was not run at all because the function asks for another one now."""
        frame = self._frame(number, lambda frame: frame.placed and frame.in_body)
        if act in frame.acts():
            self._speak(frame, act, later, again)

    @has(lambda frame: True)
    @mishap()
    def renew(self) -> None:
        """Who hears that its lease is lost ends its step."""
        lost = self._ask("renew", [frame.held().lease for frame in self.frames.values()])
        for frame in [frame for frame in self.frames.values() if frame.held().lease in lost]:
            del self.frames[frame.worker]

    @has(lambda frame: frame.placed)
    @mishap(number=which)
    def show(self, number: int) -> None:
        """Where RQ's tools look; nothing moves."""
        frame = self._frame(number, lambda frame: frame.placed)
        self.scripts.show(frame.held())

    # -- what is lost, late, or twice --------------------------------------------------------------------------------

    @mishap(back=which)
    def send_again(self, back: int) -> None:
        """A reply was lost, or a copy of the call was long on its way: its sender may have gone on, or lost its lease."""
        call = self.sent[-1 - back % len(self.sent)]
        self._ask(*call)
        self.sent.pop()

    @has(lambda frame: frame.placed and frame.recorded)
    @mishap(number=which)
    def commit_otherwise(self, number: int) -> None:
        """I1: a step that was run twice by who holds its lease."""
        frame = self._frame(number, lambda frame: frame.placed and frame.recorded)
        if not frame.told:
            self._ask(*frame.call("commit", memo='"otherwise"'))

    @has(lambda frame: True)
    @mishap(number=which, dies=st.booleans(), blameless=st.booleans())
    def vanish(self, number: int, dies: bool, blameless: bool) -> None:
        """kill -9. Nobody knows yet, or its supervisor does at once; a new one of that name has nothing of it."""
        worker = self._frame(number).worker
        del self.frames[worker]
        if dies:
            self.unheard.pop(worker, None)
            self._ask("reap", worker, blameless)

    @precondition(lambda self: self.model.leases)
    @mishap(number=which)
    def expire(self, number: int) -> None:
        """Its worker was stopped, or hung, for longer than the lease; it may still come back."""
        self._expire(sorted(self.model.leases)[number % len(self.model.leases)])

    def _expire(self, lease: str) -> None:
        self.model.leases[lease] = next(self.past)
        self.desk.store.client.zadd(self.desk.store.keys.leases, {lease: self.model.leases[lease]})

    @has(lambda frame: True)
    @mishap(number=which, heir=which, act=which, later=seldom)
    def be_overtaken(self, number: int, heir: int, act: int, later: bool) -> None:
        """I2: stopped past its lease, while another worker has its run; and then it reports all the same."""
        frame = self._frame(number)
        if frame.held().lease in self.model.leases:
            self._expire(frame.held().lease)
        self._ask("reap", "", False)
        if len(self.frames) < len(WORKERS):
            self.claim(heir, False)
        acts = frame.acts()
        self._speak(frame, acts[act % len(acts)], later)

    @precondition(lambda self: self.model.leases)
    @mishap()
    def reap(self) -> None:
        self._ask("reap", "", False)

    @precondition(lambda self: self.model.timers)
    @mishap(number=which)
    def fire(self, number: int) -> None:
        """One falls due."""
        self._fire(sorted(self.model.timers)[number % len(self.model.timers)])

    def _fire(self, name: str) -> None:
        at, keys, client = next(self.past), self.desk.store.keys, self.desk.store.client
        self.model.timers[name] = at
        client.zadd(keys.timers, {name: at})
        run = self.model.runs[name[:26]]
        if run.due and run.job == name:
            run.due = at
            client.hset(keys.run(name[:26]), "due", at)
            if run.asks[0] == run.step:
                run.asks = run.step, at, run.asks[2]
                self.scripts.set_asks(name[:26], run.asks)
        self._ask("fire")

    @precondition(lambda self: any(self._stranded(run) for run in self.model.runs))
    @mishap(number=which)
    def reconcile(self, number: int) -> None:
        self._ask("reconcile", sorted(self.model.runs)[number % len(self.model.runs)])

    # -- from outside ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.jobs)
    @mishap(
        what=st.sampled_from(["cancel", "lose", "delete", "deliver", "requeue", "requeue", "suspend", "flush_scripts"]),
        number=which,
    )
    def disturb(self, what: str, number: int) -> None:
        """What no worker and no housekeeper does."""
        getattr(self, f"_{what}")(number)

    def _run(self, number: int) -> str:
        return sorted(self.model.runs)[number % len(self.model.runs)]

    def _cancel(self, number: int) -> None:
        self._ask("cancel", self._run(number), f"token {next(self.numbers)}")

    def _lose(self, number: int) -> None:
        """A stock worker popped it and died; or somebody has emptied the queue."""
        self._do("lose", self.model.runs[self._run(number)].job)

    def _delete(self, number: int) -> None:
        """Wherever it is, on a worker too: who speaks of it later must do no harm."""
        self._do("delete", self.model.runs[self._run(number)].job)

    def _deliver(self, number: int) -> None:
        """RQ's own resend of a push, also of a job that is long over."""
        self._do("deliver", self._job(number))

    def _requeue(self, number: int) -> None:
        """Somebody does, with RQ's tools; or an RQ scheduler whose clock is fast."""
        self._do("requeue", self._job(number))
        self.requeued.add(self._job(number)[:26])

    def _job(self, number: int) -> str:
        return sorted(self.model.jobs)[number % len(self.model.jobs)]

    def _do(self, name: str, job: str) -> None:
        getattr(self.model, name)(job)
        getattr(self.scripts, name)(job)

    def _suspend(self, number: int) -> None:
        self.model.suspended = not self.model.suspended
        client, key = self.desk.store.client, self.desk.store.keys.rq_suspended
        _ = client.set(key, 1) if self.model.suspended else client.delete(key)

    def _flush_scripts(self, number: int) -> None:
        """As a restart does."""
        self.admin.script_flush()

    # -- always ------------------------------------------------------------------------------------------------------

    @invariant()
    def all_of_redis_is_what_the_model_says(self) -> None:
        """I1, I2, I6; and nothing is stranded or miscounted (I4, I7) but runs disturbed from outside."""
        stored = Stored(self.desk.store)
        wrong = self._differences(stored)
        assert not wrong, wrong
        disturbed = self.requeued | {name[:26] for name in self.model.queue if self._misplaced(name)}
        disturbed |= {name for name in self.model.runs if self._stranded(name)}
        faults = [fault for fault in faults_in(stored) if not any(run in fault for run in disturbed)]
        assert not faults, faults

    def _differences(self, stored: Stored) -> list[str]:
        return differences(self.model, stored)

    def _stranded(self, name: str) -> bool:
        run = self.model.runs[name]
        return run.status == "running" and self._misplaced(run.job)

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
