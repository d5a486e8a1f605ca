"""Counters: what they say is what the histories say, to the last attempt (I7)."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flowlib import Event, NonRetriable, StepFailed
from flowlib.model import HistoryEntry, Run
from flowlib.records import Lease
from flowlib.runs import Runs
from flowlib.store import Store
from flowlib.wire import Packed, Wire
from tests.cases.case import SYNC, WAYS, Case
from tests.patience import until

from .conftest import Desk
from .numbers import Numbers

OUTCOMES = ("ok", "retry", "failed", "timeout", "lost")


@pytest.fixture(params=[SYNC])
def case(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Case]:
    case = Case(request.param, redis_url)
    yield case
    case.close()


all_ways = pytest.mark.parametrize("case", WAYS, indirect=True, ids=str)


class Twice(Wire):
    """All transitions are sent twice, as when the reply of the first is lost. But a pop that is repeated is another pop."""

    def tell(self, packed: Packed) -> bool:
        return super().tell(packed) and super().tell(packed)

    def post(self, packed: Packed, heard: Callable[[Any], None]) -> None:
        super().post(packed, heard)
        super().post(packed, heard)

    def call_all(self, batch: list[Packed]) -> list[Any]:
        if not any(script is None or script.name == "claim_job" for _, script in batch):
            super().call_all(batch)
        return super().call_all(batch)


def forever() -> None:
    while True:
        time.sleep(0.001)


async def forever_async() -> None:
    await asyncio.Event().wait()


def declare_all_that_can_happen(case: Case) -> None:
    hang = forever_async if case.way.is_async else forever
    hangs = [hang]

    @case.function(on="good")
    def good(event: Any, step: Any) -> Any:
        a = yield step.run("a", case.body("a", 1))
        for i in range(3):
            yield step.run(f"part[{i}]", case.body(i, i))
        return a + (yield step.run("flaky", case.body("flaky", 1, fails=2)))

    @case.function(on="bad")
    def fails(event: Any, step: Any) -> Any:
        yield step.run("a", case.body("a"))
        yield step.run("bad", case.body("bad", fails=99, error=NonRetriable("no")))

    @case.function(on="slow", name="slow-one")
    def slow(event: Any, step: Any) -> Any:
        yield step.options(timeout=0.05).run("hangs", lambda: hangs.pop()() if hangs else "at last")

    @case.function(on="given-up")
    def given_up(event: Any, step: Any) -> Any:
        try:
            yield step.options(timeout=0.05, retries=0).run("hangs", hang)
        except StepFailed:
            return "compensated"

    @case.function(on="sleepy")
    def sleepy(event: Any, step: Any) -> Any:
        yield step.sleep("nap", 0.01)
        yield step.sleep("long", 3600 if event.data else 0.01)


def let_all_happen(case: Case) -> None:
    for name in ("good", "good", "bad", "slow", "given-up", "sleepy"):
        case.run(event=Event(name, {}))
    asleep = case.send(event=Event("sleepy", {"for": "long"}))
    until(lambda: is_asleep(case.app.runs.get(asleep)))
    for _ in range(2):
        case.app.store.cancel_run(asleep, "not wanted")
    case.app.send(Event("nobody's", {}))
    until(lambda: Numbers.at(case.app.store.url).by("events_received_total", "event").get(("_other",)))


def is_asleep(run: Run) -> bool:
    return (run.state, run.step) == ("sleeping", "long")


@all_ways
@pytest.mark.parametrize("wire", [Wire, Twice])
def test_counters_are_exact_also_when_every_reply_is_lost_once(case: Case, wire: type[Wire]) -> None:
    """I7"""
    declare_all_that_can_happen(case)
    case.start(store=Store(case.app.store.url, patience=20, wire=wire))
    let_all_happen(case)
    told = Numbers.at(case.app.store.url)
    assert told.by("events_received_total", "app", "event") == {
        ("case", "good"): 2, ("case", "bad"): 1, ("case", "slow"): 1, ("case", "given-up"): 1, ("case", "sleepy"): 2,
        ("case", "_other"): 1,
    }  # fmt: skip
    assert told.by("runs_started_total", "function") == {
        ("good",): 2, ("fails",): 1, ("slow-one",): 1, ("given-up",): 1, ("sleepy",): 2,
    }  # fmt: skip
    assert told.by("runs_finished_total", "function", "status") == {
        ("good", "completed"): 2, ("fails", "failed"): 1, ("slow-one", "completed"): 1, ("given-up", "completed"): 1,
        ("sleepy", "completed"): 1, ("sleepy", "cancelled"): 1,
    }  # fmt: skip
    assert told.by("step_attempts_total", "function", "step", "outcome") == {
        ("good", "a", "ok"): 2, ("good", "part", "ok"): 6, ("good", "flaky", "ok"): 2, ("good", "flaky", "retry"): 2,
        ("fails", "a", "ok"): 1, ("fails", "bad", "failed"): 1,
        ("slow-one", "hangs", "timeout"): 1, ("slow-one", "hangs", "ok"): 1, ("given-up", "hangs", "timeout"): 1,
    }  # fmt: skip
    assert told.by("recovered_steps_total", "cause") == {("timeout",): 2}
    assert told.by("runs_active", "state") == {}
    assert_as_in_the_histories(case.app.runs, told)


def assert_as_in_the_histories(runs: Runs, told: Numbers) -> None:
    counts: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    seconds: dict[str, dict[tuple[str, ...], float]] = defaultdict(lambda: defaultdict(float))
    for run in runs.list():
        history = runs.history(run.id)
        for entry in history:
            for name, labels, value in counted(run.function, entry):
                counts[name][labels] += value
                if name == "step_duration_seconds_count":
                    seconds["step_duration_seconds_sum"][labels] += entry.detail["seconds"]
        if run.finished:
            counts["run_duration_seconds_count"][run.function, run.status] += 1
            seconds["run_duration_seconds_sum"][run.function, run.status] += history[-1].at - history[0].at
    for name, labels in LABELS.items():
        if name.endswith("_sum"):
            assert told.by(name, *labels) == pytest.approx(seconds[name], abs=1e-4), name
        else:
            assert told.by(name, *labels) == counts[name], name


LABELS = {
    "runs_started_total": ("function",),
    "runs_finished_total": ("function", "status"),
    "run_duration_seconds_count": ("function", "status"),
    "run_duration_seconds_sum": ("function", "status"),
    "step_attempts_total": ("function", "step", "outcome"),
    "step_duration_seconds_count": ("function", "step"),
    "step_duration_seconds_sum": ("function", "step"),
    "step_queue_wait_seconds_count": ("queue",),
    "recovered_steps_total": ("cause",),
    "memo_bytes_total": ("function",),
}


def counted(function: str, entry: HistoryEntry) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """What an entry of a history must have counted: name, label values, by how much."""
    step, detail = re.sub(r"^\d+:([^\[]+).*", r"\1", entry.step), entry.detail
    match entry.kind:
        case "started":
            yield "runs_started_total", (function,), 1
        case "completed" | "cancelled":
            yield "runs_finished_total", (function, entry.kind), 1
        case "failed" if "level" not in detail:
            yield "runs_finished_total", (function, "failed"), 1
        case "claimed" if "waited" in detail:
            yield "step_queue_wait_seconds_count", (detail["queue"],), 1
        case "failed" if detail["level"] == "step":
            yield from attempt(function, step, detail["outcome"])
        case "recorded":
            yield "memo_bytes_total", (function,), detail["bytes"]
            if detail["seconds"] is not None:
                yield from attempt(function, step, detail["outcome"])
        case "lost":
            yield "recovered_steps_total", ("lost_worker",), 1
        case "recovered":
            yield "recovered_steps_total", ("orphan",), 1


def attempt(function: str, step: str, outcome: str) -> Iterator[tuple[str, tuple[str, ...], int]]:
    yield "step_attempts_total", (function, step, outcome), 1
    yield "step_duration_seconds_count", (function, step), 1
    if outcome == "timeout":
        yield "recovered_steps_total", ("timeout",), 1


@all_ways
def test_an_error_between_steps_is_no_attempt_of_a_step(case: Case) -> None:
    failures = iter([ValueError("between")])

    @case.function()
    def f(event: Any, step: Any) -> Any:
        yield step.run("a", case.body("a", 1))
        for failure in failures:
            raise failure
        yield step.run("b", case.body("b", 2))

    assert case.run().status == "completed"
    told = Numbers.at(case.app.store.url)
    assert told.by("step_attempts_total", "step", "outcome") == {("a", "ok"): 1, ("b", "ok"): 1}
    assert_as_in_the_histories(case.app.runs, told)


def test_an_operator_sees_which_part_is_more_likely_to_fail_than_the_rest(case: Case) -> None:
    @case.function()
    def import_contacts(event: Any, step: Any) -> Any:
        yield step.run("validate", case.body("validate", True))
        yield step.run("enrich", case.body(f"enrich {event.data['run']}", fails=2))
        yield step.run("store", case.body("store", 3))

    for run in range(5):
        case.run({"run": run})
    attempts = Numbers.at(case.app.store.url).by("step_attempts_total", "step", "outcome")

    def wrong(*steps: str) -> float:
        """The part of these steps' attempts that went wrong."""
        of_these = [(outcome, count) for (step, outcome), count in attempts.items() if step in steps]
        return sum(count for outcome, count in of_these if outcome != "ok") / sum(count for _, count in of_these)

    assert wrong("validate", "enrich", "store") == 10 / 25
    assert wrong("enrich") == 10 / 15
    assert wrong("validate") == wrong("store") == 0


# -- what workers leave behind ---------------------------------------------------------------------------------------


def die(desk: Desk, lease: Lease) -> None:
    """Its worker is not heard of any more, and its lease runs out."""
    desk.store.client.zadd(desk.store.keys.leases, {lease.name: 1})
    assert desk.house.reap() == 1
    assert desk.house.reap() == 0


def numbers(desk: Desk) -> Numbers:
    return Numbers.at(desk.store.url)


def test_the_step_of_a_dead_worker_is_lost_under_the_label_of_its_other_attempts(desk: Desk) -> None:
    die(desk, desk.at_step("enrich[7]"))
    told = numbers(desk)
    assert told.by("step_attempts_total", "step", "outcome") == {("enrich", "lost"): 1}
    assert told.by("recovered_steps_total", "cause") == {("lost_worker",): 1}
    assert told.by("runs_active", "state") == {("queued",): 1}


def test_a_step_that_was_recorded_before_its_worker_died_is_not_lost(desk: Desk) -> None:
    lease = desk.at_step()
    assert desk.commit(lease) == "recorded"
    die(desk, lease)
    told = numbers(desk)
    assert told.by("step_attempts_total", "step", "outcome") == {("a", "ok"): 1}
    assert told.by("recovered_steps_total", "cause") == {("lost_worker",): 1}
    assert_as_in_the_histories(desk.runs, told)


def test_a_dead_worker_before_the_first_step_or_at_the_end_of_a_sleep_loses_no_attempt(desk: Desk) -> None:
    desk.start()
    die(desk, desk.claim().lease)
    assert desk.sleep(desk.claim().lease, ms=1, recorded="") == "scheduled"
    until(lambda: desk.store.fire_due()[0])
    die(desk, desk.claim().lease)
    told = numbers(desk)
    assert told.by("step_attempts_total", "step", "outcome") == {}
    assert told.by("recovered_steps_total", "cause") == {("lost_worker",): 2}
    assert_as_in_the_histories(desk.runs, told)


def test_a_run_that_nothing_would_move_is_an_orphan_once(desk: Desk) -> None:
    lease = desk.at_step()
    desk.store.client.zrem(desk.store.keys.leases, lease.name)
    assert desk.house.reconcile(suspicion=0) == [lease.run]
    assert desk.house.reconcile(suspicion=0) == []
    told = numbers(desk)
    assert told.by("recovered_steps_total", "cause") == {("orphan",): 1}
    assert told.by("runs_active", "state") == {("queued",): 1}
    assert_as_in_the_histories(desk.runs, told)


# -- series and labels -----------------------------------------------------------------------------------------------


def test_every_series_of_a_declared_function_is_there_before_it_counts(case: Case) -> None:
    """`rate()` does not see an increment that a series begins with."""

    @case.function(on=["a", "b"], queue="high")
    def f(event: Any, step: Any) -> Any:
        yield step.run("x", case.body("x"))

    case.app.store.register_app(case.app.name, case.app.functions)
    told = Numbers.at(case.app.store.url)
    known = {"app": "case", "function": "f"}
    assert [told("events_received_total", app="case", event=name) for name in "ab"] == [0, 0]
    assert told("runs_started_total", **known) == 0
    assert [told("runs_finished_total", **known, status=s) for s in ("completed", "failed", "cancelled")] == [0, 0, 0]
    assert [told("runs_active", **known, state=s) for s in ("queued", "running", "sleeping", "retrying")] == [0] * 4
    assert told("run_oldest_active_seconds", **known) == 0
    assert told("memo_bytes_total", **known) == 0
    causes = ("lost_worker", "orphan", "timeout")
    assert [told("recovered_steps_total", app="case", cause=cause) for cause in causes] == [0, 0, 0]
    assert [told("queue_jobs", queue="high", state=s) for s in ("queued", "running", "delayed")] == [0, 0, 0]
    assert told("queue_latency_seconds", queue="high") == 0
    assert [told("workers", queue="high", state=state) for state in ("idle", "busy")] == [0, 0]


def test_a_step_has_all_outcomes_as_soon_as_it_has_one(desk: Desk) -> None:
    desk.commit(desk.at_step())
    told = numbers(desk)
    known = {"app": "desk", "function": "errand", "step": "a"}
    outcomes = [told("step_attempts_total", **known, outcome=outcome) for outcome in OUTCOMES]
    assert outcomes == [1, 0, 0, 0, 0]


def test_steps_beyond_a_hundred_of_a_function_are_counted_together(case: Case) -> None:
    @case.function()
    def f(event: Any, step: Any) -> Any:
        for i in range(105):
            yield step.run(f"step-{i}", case.body(i))

    assert case.run().status == "completed"
    steps = Numbers.at(case.app.store.url).by("step_attempts_total", "step")
    assert len(steps) == 101
    assert steps["_other",] == 5
    assert sum(steps.values()) == 105


def test_a_process_asks_once_whether_a_function_has_labels_left(desk: Desk) -> None:
    """Step ids may be made of data; and those that have a label of their own keep it in every process."""
    lease = desk.at_step()
    asked = lease.app, lease.function
    for other in range(100):
        desk.store._name_label((*asked, f"own-{other}"))
    late = Store(desk.store.url)
    called = Counter[str]()

    class Counting(Wire):
        def call(self, packed: Packed) -> Any:
            called["calls"] += 1
            return super().call(packed)

    late._local.wire = Counting(late.client.connection_pool, patience=1.0)
    named = [late._name_label((*asked, label)) for label in ("late", "own-7", "later", "own-99")]
    assert named == ["_other", "own-7", "_other", "own-99"]
    assert called["calls"] == 1
    assert late._name_label((lease.app, "another", "late")) == "late"
    late.close()


@pytest.mark.parametrize("step_id", ["a|b", 'say "hi"', "back\\slash", "two\nlines", "größe ✓", "lone\ud800", "[0]"])
def test_a_step_id_of_any_unicode_makes_a_label_that_prometheus_reads(case: Case, step_id: str) -> None:
    @case.function()
    def f(event: Any, step: Any) -> Any:
        yield step.run(step_id, case.body("x"))

    assert case.run().status == "completed"
    label = step_id.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")
    attempts = Numbers.at(case.app.store.url).by("step_attempts_total", "step", "outcome")
    assert attempts == {(label, "ok"): 1}


def test_an_observation_is_in_the_bucket_of_its_edge_and_in_all_above(desk: Desk) -> None:
    assert desk.commit(desk.at_step(), seconds=0.25) == "recorded"
    told = numbers(desk)
    buckets = told.by("step_duration_seconds_bucket", "le")
    assert sorted(float(le) for (le,) in buckets) == [0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, float("inf")]
    assert set(buckets.values()) == {1}
    assert told.by("step_duration_seconds_sum", "step") == {("a",): 0.25}
