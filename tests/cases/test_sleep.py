"""Sleeps: never too early, once, and without a worker."""

from __future__ import annotations

import math
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from rq.registry import ScheduledJobRegistry

from flowlib import Event
from tests.cases.case import Case, in_place, only_sync
from tests.patience import until


def test_what_comes_after_a_sleep_starts_when_it_is_over_and_what_came_before_runs_once(case: Case) -> None:
    """BEHAVIOURS 50."""
    times: dict[str, float] = {}

    def note(name: str) -> None:
        case.ledger.append(name)
        times[name] = time.monotonic()

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("before", note, "before")
        yield step.sleep("pause", timedelta(seconds=0.25))
        yield step.run("between", note, "between")
        yield step.sleep("again", 0.25)
        note("after")

    run = case.run()
    assert run.status == "completed"
    assert case.ledger == ["before", "between", "after"]
    assert times["between"] - times["before"] >= 0.25
    assert times["after"] - times["between"] >= 0.25
    assert [(step.id, step.kind, step.status) for step in run.steps] == [
        ("before", "run", "completed"),
        ("pause", "sleep", "completed"),
        ("between", "run", "completed"),
        ("again", "sleep", "completed"),
    ]


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-7))], ids=str)
def test_sleep_until_goes_on_at_the_time_and_not_before(case: Case, zone: timezone) -> None:
    """BEHAVIOURS 51."""
    when = datetime.now(zone) + timedelta(seconds=0.3)

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.sleep_until("opening", when)
        case.ledger.append(datetime.now(UTC))

    run = case.run()
    (woke,) = case.ledger
    assert woke >= when
    assert run.steps[0].until == pytest.approx(when.timestamp(), abs=0.001)


def test_a_sleep_is_not_repeated_when_what_comes_after_it_fails(case: Case) -> None:
    """BEHAVIOURS 52."""

    @case.function(retries=2)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.sleep("pause", 0.2)
        case.ledger.append("awake")
        if step.attempt < 3:
            raise ValueError("between")
        yield step.run("flaky", case.body("flaky", fails=2))

    run = case.run()
    assert run.status == "completed"
    assert len(case.entries(run.id, "sleeping")) == 1
    assert run.ended is not None
    assert run.ended - run.created >= timedelta(seconds=0.2)


@only_sync
def test_short_sleeps_never_end_early_and_how_late_they_do_is_told(
    case: Case, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """BEHAVIOURS 54: within 20 ms on an idle machine. It is measured and not judged, for a machine may be busy."""
    naps = [0.30, 0.05, 0.25, 0.10, 0.20, 0.15]
    start = time.time() + 0.3
    late: dict[float, float] = {}

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        due = start + event.data["nap"]
        yield step.sleep_until("nap", datetime.fromtimestamp(due, UTC))
        late[event.data["nap"]] = time.time() - due

    case.start()
    for run_id in [case.send({"nap": nap}) for nap in naps]:
        case.ended(run_id)
    assert sorted(late) == sorted(naps)
    assert all(lateness >= -0.001 for lateness in late.values()), late  # stored in milliseconds
    told = ", ".join(f"{lateness * 1000:.1f}" for lateness in late.values())
    record_property("ms_late", told)
    with capsys.disabled():
        print(f"\nsleeps of less than a second ended {told} ms late")


TOO_LONG = timedelta(days=366, seconds=1)


@pytest.mark.parametrize(
    ("duration", "message"),
    [
        (TOO_LONG, "step 'nap': 366 days, 0:00:01 is too long a sleep: at most 366 days"),
        (TOO_LONG.total_seconds(), "step 'nap': 366 days, 0:00:01 is too long a sleep: at most 366 days"),
        (math.inf, "step 'nap': sleep takes a timedelta or seconds, at most 366 days, got inf"),
        (math.nan, "step 'nap': sleep takes a timedelta or seconds, at most 366 days, got nan"),
        ("1h", "step 'nap': sleep takes a timedelta or seconds, at most 366 days, got '1h'"),
    ],
    ids=str,
)
@in_place
def test_a_sleep_that_makes_no_sense_fails_at_the_call(case: Case, duration: Any, message: str) -> None:
    """BEHAVIOURS 55."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", duration)

    run = case.run()
    assert run.error is not None
    assert (run.error.type, run.error.message) == ("ConfigError", message)


@pytest.mark.parametrize(
    "when",
    [datetime(2027, 1, 1), "tomorrow", datetime.now(UTC) + timedelta(days=367), datetime.max.replace(tzinfo=UTC)],
    ids=["naive", "text", "far", "end-of-time"],
)
@in_place
def test_a_sleep_until_that_makes_no_sense_fails_at_the_call(case: Case, when: Any) -> None:
    """BEHAVIOURS 55."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.sleep_until("nap", when)

    run = case.run()
    assert run.error is not None
    assert run.error.type == "ConfigError"
    assert run.error.message.startswith("step 'nap': ")
    assert "aware datetime" in run.error.message or "366 days" in run.error.message


def test_a_sleep_of_no_time_or_less_returns_at_once(case: Case) -> None:
    """BEHAVIOURS 55."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.sleep("no", 0)
        yield step.sleep("less", timedelta(days=-400))
        yield step.sleep("past", -1.5)
        yield step.sleep_until("gone", datetime(2020, 1, 1, tzinfo=UTC))
        yield step.run("step", case.body("step"))

    run = case.run()
    assert (run.status, case.ledger) == ("completed", ["step"])
    assert [step.id for step in run.steps if step.until] in ([], ["gone"])


@in_place
def test_a_sleeping_run_holds_no_worker_and_says_until_when(case: Case) -> None:
    """To RQ it is a scheduled job."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        if event.data["long"]:
            yield step.sleep("night", timedelta(hours=8))
        return "awake"

    before = time.time()
    sleeper = case.send({"long": True})
    until(lambda: case.app.runs.get(sleeper).state == "sleeping")
    assert case.run({"long": False}).result == "awake"
    run = case.app.runs.get(sleeper)
    assert (run.status, run.step) == ("running", "night")
    (night,) = run.steps
    assert night.status == "sleeping"
    assert night.until == pytest.approx(before + 8 * 3600, abs=10)
    client = case.app.store.client
    registry = ScheduledJobRegistry("flow", connection=client)
    (job,) = registry.get_job_ids()
    assert registry.get_scheduled_time(job).timestamp() == pytest.approx(night.until, abs=1)
    assert client.zcard(case.app.store.keys.leases) == 0


@in_place
def test_a_run_that_wakes_goes_before_those_that_came_after_it(case: Case) -> None:
    """BEHAVIOURS 53: a worker that takes one step at a time, and a backlog."""
    gate, held = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        gate.wait(20)

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        name = event.data["name"]
        if name == "old":
            yield step.sleep("nap", 0.2)
        yield step.run("work", hold if name == "busy" else case.body(name))

    case.start(threads=1)
    old = case.send({"name": "old"})
    until(lambda: case.app.runs.get(old).state == "sleeping")
    runs = [old, case.send({"name": "busy"})]
    assert held.wait(20)
    runs += [case.send({"name": f"new-{n}"}) for n in range(5)]
    until(lambda: case.app.runs.get(old).state == "queued")
    gate.set()
    assert {case.ended(run).status for run in runs} == {"completed"}
    assert case.ledger[0] == "old"
    assert len(case.ledger) == 6
