"""Cron's scripts against a model of them: workers of two versions that look, decide late, twice or not at all, and die."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

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

from flowlib import App
from flowlib.codec import encode
from flowlib.journal import ENTRY, RUN
from flowlib.outcome import make_job
from flowlib.store import Store

APP, LOCATION = "clock", "nowhere:app"
LONG_AGO, LONG_AFTER = 1_000_000_000_000, 4_000_000_000_000  # ms: 2001 and 2096
WORKERS = ("anna", "bert", "carl")
Call = list[tuple[Any, ...]]

app = App(APP)


@app.function(on="report")
def report(event: Any, step: Any) -> None: ...


@app.function(on="tidy")
def tidy(event: Any, step: Any) -> None: ...


class Schedule(NamedTuple):
    function: str
    gives_way: int  # 1: what a pause holds back is passed over
    minds: int  # 1: it says which runs cron has started; 2: it is passed over while one of them is unfinished


SCHEDULES = {
    "report|a UTC": Schedule("report", 1, 1),
    "report|b UTC": Schedule("report", 0, 2),
    "report|c UTC": Schedule("report", 0, 1),
    "tidy|a UTC": Schedule("tidy", 0, 0),
    "tidy|b UTC": Schedule("tidy", 1, 0),
}
VERSIONS = (("report|a UTC", "report|b UTC", "tidy|a UTC"), ("report|b UTC", "report|c UTC", "tidy|b UTC"), ())


class Model:
    """What is stored for cron; which runs have begun, and which of them are unfinished; what was counted."""

    def __init__(self) -> None:
        self.cron: dict[str, str] = {}
        self.runs: dict[str, bool] = {}
        self.counted: Counter[str] = Counter()
        self.living: set[str] = set()

    def plan(self, worker: str, schedules: tuple[str, ...], starting: bool) -> set[str]:
        """Those that are new: they are decided up to now."""
        new = {each for each in schedules if f"upto|{each}" not in self.cron}
        says = self.cron.get("declared", worker)
        if not (starting or says == worker or says not in self.living) or not (new or (starting and self.cron)):
            return set()
        for name in list(self.cron):
            kind, _, schedule = name.partition("|")
            if kind in ("upto", "last") and schedule not in schedules:
                del self.cron[name]
        self.cron["declared"] = worker
        return new

    def start(self, decisions: Call) -> list[str]:
        return [self._decide(*each) for each in decisions]

    def _decide(self, schedule: str, since: str, tick: int, missed: int, run: str) -> str:
        fn, gives_way, minds = SCHEDULES[schedule]
        paused = f"paused|{fn}" in self.cron
        if self.cron.get(f"upto|{schedule}") != since or (paused and not gives_way):
            return ""
        self.cron[f"upto|{schedule}"] = str(tick)
        self.counted[f"{fn}|{'paused' if paused else 'missed'}"] += missed
        if not run or paused:
            self.counted[f"{fn}|paused"] += bool(run)
            return ""
        of_cron = self.cron.get(f"runs|{fn}", "").split()
        left = [each for each in of_cron if each != run and self.runs[each]]
        if minds == 2 and left:
            self.counted[f"{fn}|overlapping"] += 1
            return ""
        self.cron[f"last|{schedule}"] = str(tick)
        if run in self.runs:
            return ""
        self.runs[run] = True
        self.counted[f"{fn}|started"] += 1
        if minds:
            self.cron[f"runs|{fn}"] = " ".join([*left, run])
        return run


class Machine(RuleBasedStateMachine):
    def __init__(self, store: Store, admin: redis_py.Redis) -> None:
        super().__init__()
        self.store, self.admin, self.key = store, admin, store.keys.cron(APP)

    @initialize(version=st.integers(0, 1), clock=st.sampled_from([LONG_AGO, LONG_AFTER]))
    def begin(self, version: int, clock: int) -> None:
        self.admin.flushall()
        self.clock = clock
        self.model = Model()
        self.versions: dict[str, tuple[str, ...]] = {}
        self.plans: dict[str, dict[str, str]] = {}  # as each worker has seen it when it looked
        self.sent: list[Call] = []
        self.start("anna", version)

    @rule(worker=st.sampled_from(WORKERS), version=st.sampled_from([0, 0, 1, 1, 2]))
    def start(self, worker: str, version: int) -> None:
        """It declares what it knows; and it lives."""
        self.model.living.add(worker)
        self.store.client.delete(self.store.keys.rq_worker(worker))
        self.store.client.hset(self.store.keys.rq_worker(worker), "birth", "now")
        self.versions[worker] = VERSIONS[version]
        self._plan(worker, starting=True)

    @precondition(lambda self: self.versions)
    @rule(number=st.integers(0, 5))
    def look(self, number: int) -> None:
        self._plan(self._worker(number), starting=False)

    def _worker(self, number: int) -> str:
        return sorted(self.versions)[number % len(self.versions)]

    def _plan(self, worker: str, starting: bool) -> None:
        new = self.model.plan(worker, self.versions[worker], starting)
        now, known = self.store.plan_ticks(APP, worker, self.versions[worker], starting)
        for schedule in sorted(new):
            upto = f"upto|{schedule}"
            assert now - 1 <= int(known[upto]) <= now
            self.model.cron[upto] = known[upto] = self._now()
            self.store.client.hset(self.key, upto, known[upto])
        assert known == self.model.cron
        self.plans[worker] = known

    def _now(self) -> str:
        """Put in place of what the server's clock says, which would let the same choices do now this, now that."""
        self.clock += 1
        return str(self.clock)

    @precondition(lambda self: self.plans)
    @rule(
        number=st.integers(0, 5),
        fresh=st.sampled_from([True, True, False]),
        which=st.integers(0, 2),
        many=st.integers(1, 3),
        missed=st.integers(0, 2),
        starts=st.sampled_from([True, True, True, False]),
    )
    def decide(self, number: int, fresh: bool, which: int, many: int, missed: int, starts: bool) -> None:
        """By what it sees now, or has seen long ago: some ticks of a schedule, each upon the one before."""
        worker = self._worker(number)
        if fresh:
            self._plan(worker, starting=False)
        schedules = self.versions[worker]
        if not schedules or (upto := self.plans[worker].get(f"upto|{schedules[which]}")) is None:
            return
        schedule, first = schedules[which], int(float(upto)) // 1000 + 1
        decisions: Call = []
        for tick in range(1000 * first, 1000 * (first + many), 1000):
            run = f"{1 + list(app.functions).index(SCHEDULES[schedule].function)}{tick:025d}" if starts else ""
            decisions.append((schedule, upto, tick, missed, run))
            upto = str(tick)
        self._start(decisions)
        self.sent.append(decisions)

    @precondition(lambda self: self.sent)
    @rule(back=st.integers(0, 5))
    def decide_again(self, back: int) -> None:
        """The reply was lost."""
        self._start(self.sent[-1 - back % len(self.sent)])

    def _start(self, decisions: Call) -> None:
        expected = self.model.start(decisions)
        (replies,) = self.store.send_all([self.store.start_ticks(APP, [self._for_script(*each) for each in decisions])])
        assert [each.decode() for each in replies] == expected

    def _for_script(self, schedule: str, since: str, tick: int, missed: int, run: str) -> tuple[Any, ...]:
        fn, gives_way, minds = SCHEDULES[schedule]
        start = None
        if run:
            job = make_job(APP, fn, run, LOCATION, ENTRY, RUN, None, "flow")
            event = (f"{fn} {tick}", "flow/cron", encode({}, where="data"), tick)
            start = self.store.start(app.functions[fn], run, event, LOCATION, job)
        return schedule, fn, since, tick, missed, gives_way, minds, start

    @rule(fn=st.sampled_from(["report", "tidy"]), paused=st.booleans())
    def pause(self, fn: str, paused: bool) -> None:
        self.store.pause_cron(APP, fn, paused)
        if paused:
            self.model.cron[f"paused|{fn}"] = "1"
        else:
            self.model.cron.pop(f"paused|{fn}", None)

    @precondition(lambda self: any(self.model.runs.values()))
    @rule(which=st.integers(0, 5))
    def end(self, which: int) -> None:
        unfinished = [run for run, is_unfinished in self.model.runs.items() if is_unfinished]
        run = unfinished[which % len(unfinished)]
        self.model.runs[run] = False
        self.store.client.hset(self.store.keys.run(run), "status", "completed")

    @precondition(lambda self: self.model.living)
    @rule(which=st.integers(0, 2), in_good_order=st.booleans())
    def die(self, which: int, in_good_order: bool) -> None:
        """Somebody whose plan was made may still carry it out."""
        worker = sorted(self.model.living)[which % len(self.model.living)]
        self.model.living.remove(worker)
        key, client = self.store.keys.rq_worker(worker), self.store.client
        _ = client.hset(key, "death", "now") if in_good_order else client.delete(key)

    @invariant()
    def all_of_redis_is_what_the_model_says(self) -> None:
        """I7, too."""
        client, keys = self.store.client, self.store.keys
        pipe = client.pipeline(transaction=False)
        for read, key in ((pipe.hgetall, self.key), (pipe.hgetall, keys.metrics(APP))):
            read(key)
        pipe.zrange(keys.runs(APP), 0, -1)
        pipe.llen(keys.rq_queue("flow"))
        pipe.zcard(keys.timers)  # of those whose tick lies ahead
        cron, metrics, runs, queued, timed = pipe.execute()
        assert {field.decode(): value.decode() for field, value in cron.items()} == self.model.cron
        counted = {f[6:-1].decode(): int(n) for f, n in metrics.items() if f.startswith(b"ticks|")}
        assert counted == {name: n for name, n in self.model.counted.items() if n}
        assert {run.decode() for run in runs} == self.model.runs.keys()
        assert (queued, timed)[self.clock > LONG_AFTER] == queued + timed == len(self.model.runs)


def drive(store: Store, admin: redis_py.Redis, examples: int, steps: int, new: bool = False) -> None:
    class OnThisServer(Machine):
        def __init__(self) -> None:
            super().__init__(store, admin)

    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=not new,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(OnThisServer, settings=how)


@pytest.fixture
def store(redis_url: str) -> Any:
    store = Store(redis_url, patience=10.0)
    yield store
    store.close()


@pytest.mark.timeout(400)  # making a failure small may take five minutes
def test_each_tick_is_decided_once_whoever_decides_and_however_late(store: Store, redis: redis_py.Redis) -> None:
    """BEHAVIOURS 121, 122, 124; I7."""
    drive(store, redis, examples=50, steps=30)


@pytest.mark.chaos
def test_each_tick_is_decided_once_for_long(store: Store, redis: redis_py.Redis) -> None:
    drive(store, redis, examples=600, steps=50, new=True)
