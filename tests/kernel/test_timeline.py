"""A run's history told as steps and attempts."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlib.journal import ENTRY
from flowlib.model import ErrorInfo, HistoryEntry, StepRecord
from flowlib.timeline import steps_of

ERROR = ErrorInfo("ValueError", "no", "Traceback …", "a", 1)


class Writer:
    """A history as the scripts write it: one entry per second."""

    def __init__(self) -> None:
        self.entries: list[HistoryEntry] = []
        self._clock = count(1000)

    def write(self, what: str, step: str = ENTRY, attempt: int = 1, /, **detail: Any) -> int:
        at = next(self._clock)
        self.entries.append(HistoryEntry(at, what, step, attempt, "w", detail))
        return at

    def start(self) -> None:
        self.write("started", event="test", id="e")
        self.write("queued", job="j", queue="flow", kind="run")
        self.write("claimed", job="j", queue="flow", waited=1.0)

    def queued(self, step: str, attempt: int = 1) -> int:
        return self.write("queued", step, attempt, job="j", queue="flow", kind="run")

    def claimed(self, step: str, attempt: int = 1, waited: float = 1.0) -> int:
        return self.write("claimed", step, attempt, job="j", queue="flow", waited=waited)

    def failed(self, step: str, attempt: int, outcome: str = "retry", level: str = "step") -> int:
        retry_at = (self.entries[-1].at + 11) * 1000
        return self.write(
            "failed", step, attempt, level=level, outcome=outcome, error=ERROR.as_dict(), retry_at=retry_at
        )

    def recorded(self, step: str, attempt: int, outcome: str = "ok") -> int:
        more = {} if outcome == "ok" else {"error": ERROR.as_dict()}
        return self.write("recorded", step, attempt, outcome=outcome, bytes=9, seconds=0.5, **more)

    def steps(self) -> list[StepRecord]:
        return list(steps_of(self.entries))


@pytest.fixture
def history() -> Writer:
    writer = Writer()
    writer.start()
    return writer


def test_a_run_without_steps_has_none(history: Writer) -> None:
    history.write("log", level="INFO", logger="x", text="hello")
    history.write("completed", bytes=3)
    assert history.steps() == []


def test_a_step_waits_and_runs(history: Writer) -> None:
    queued = history.queued("1:a")
    started = history.claimed("1:a", waited=0.75)
    history.write("log", "1:a", level="INFO", logger="x", text="hello")
    ended = history.recorded("1:a", 1)
    (step,) = history.steps()
    (attempt,) = step.attempts
    assert (step.id, step.kind, step.status, step.bytes) == ("a", "run", "completed", 9)
    assert (attempt.number, attempt.outcome, attempt.worker) == (1, "ok", "w")
    assert (attempt.queued, attempt.started, attempt.ended) == (started - 0.75, started, ended)
    assert queued < started < ended


def test_steps_come_in_the_order_in_which_they_came_up_each_occurrence_by_itself(history: Writer) -> None:
    """BEHAVIOURS 7."""
    for key in ("1:b", "1:a", "2:b"):
        history.claimed(key)
        history.recorded(key, 1)
    assert [step.id for step in history.steps()] == ["b", "a", "b (2)"]


def test_a_failed_attempt_says_what_when_and_when_again(history: Writer) -> None:
    """BEHAVIOURS 41."""
    history.claimed("1:a")
    failed = history.failed("1:a", 1, "timeout")
    (step,) = history.steps()
    assert step.status == "retrying"
    (attempt,) = step.attempts
    assert (attempt.outcome, attempt.ended, attempt.error) == ("timeout", failed, ERROR)
    assert attempt.retry_at == failed + 10


def test_a_step_that_failed_for_good_carries_its_error(history: Writer) -> None:
    history.claimed("1:a")
    history.recorded("1:a", 1, "failed")
    (step,) = history.steps()
    assert (step.status, step.attempts[-1].outcome, step.attempts[-1].error) == ("failed", "failed", ERROR)


def test_a_sleep_says_until_when(history: Writer) -> None:
    history.write("sleeping", "1:nap", kind="sleep", until=5_000_000.0, job="j", queue="flow")
    (nap,) = history.steps()
    assert (nap.kind, nap.status, nap.until, nap.attempts) == ("sleep", "sleeping", 5000.0, ())
    history.queued("1:nap")
    history.claimed("1:nap")
    history.recorded("1:nap", 1)
    assert history.steps()[0].status == "completed"


def test_a_wait_says_for_what_and_what_came(history: Writer) -> None:
    """BEHAVIOURS 61. A worker that has looked at an event that was not the one made no attempt."""
    asked = {"event": "it", "match": '{"a": 1}', "timeout": 60_000.0, "since": 4_000_000.0, "until": 5_000_000.0}
    for key in ("1:a", "1:b", "1:c"):
        history.write("waiting", key, kind="wait", job="j", queue="flow", **asked)
        history.write("queued", key, job="j", queue="flow", woken=True)
        history.claimed(key)
    history.recorded("1:b", 1)
    history.write("waiting", "1:c", kind="wait", job="j", queue="flow", **asked)
    history.write("recorded", "1:c", outcome="ok", bytes=9, kind="wait", event="e")
    history.write("queued", "1:c", job="j", queue="flow", woken=True)
    history.claimed("1:c")
    waits = [step.wait for step in history.steps() if step.wait is not None]
    assert [(wait.event, wait.match, wait.timeout, wait.since) for wait in waits] == [("it", '{"a": 1}', 60, 4000)] * 3
    assert [(wait.found, wait.timed_out) for wait in waits] == [(None, False), (None, True), ("e", False)]
    assert [step.status for step in history.steps()] == ["running", "completed", "completed"]
    assert [len(step.attempts) for step in history.steps()] == [1, 1, 0]


def test_an_error_after_a_recorded_step_changes_nothing_of_that_step(history: Writer) -> None:
    """BEHAVIOURS 32: attempts of the function are not the step's."""
    history.claimed("1:a")
    history.recorded("1:a", 1)
    before = history.steps()
    history.failed("1:a", 1, level="function")
    history.queued("1:a", 1)
    history.claimed("1:a")
    assert history.steps() == before
    history.write("completed", "1:a", bytes=1)
    assert history.steps() == before


def test_an_error_before_the_function_came_to_the_step_is_no_success_of_it(history: Writer) -> None:
    history.claimed("1:a")
    history.failed("1:a", 1, level="function")
    (step,) = history.steps()
    assert (step.status, step.attempts[0].outcome, step.attempts[0].error) == ("retrying", "retry", ERROR)


def test_a_step_that_was_superseded_is_open_no_more_once_it_comes_again(history: Writer) -> None:
    """BEHAVIOURS 14."""
    history.claimed("1:a")
    history.queued("1:b")
    history.claimed("1:b")
    history.recorded("1:b", 1)
    history.claimed("1:a")
    history.recorded("1:a", 1)
    a, b = history.steps()
    assert [attempt.outcome for attempt in a.attempts] == ["superseded", "ok"]
    assert [attempt.outcome for attempt in b.attempts] == ["ok"]


@pytest.mark.parametrize(
    ("kind", "status"), [("failed", "failed"), ("cancelled", "cancelled"), ("completed", "cancelled")]
)
def test_when_the_run_ends_in_the_middle_of_a_step_so_does_the_step(history: Writer, kind: str, status: str) -> None:
    """BEHAVIOURS 15 and 97: a step in a step, a limit, a cancel."""
    history.claimed("1:done")
    history.recorded("1:done", 1)
    history.claimed("1:a")
    ended = history.write(kind, "1:a", **({"error": ERROR.as_dict()} if kind == "failed" else {}))
    done, a = history.steps()
    assert done.status == "completed"
    assert (a.status, a.attempts[0].outcome, a.attempts[0].ended) == (status, status, ended)
    assert a.attempts[0].error == (ERROR if kind == "failed" else None)


@pytest.mark.parametrize("waiting", ["queued", "retrying", "sleeping"])
def test_a_step_that_waits_when_its_run_is_cancelled_is_cancelled(history: Writer, waiting: str) -> None:
    """BEHAVIOURS 98."""
    if waiting == "sleeping":
        history.write("sleeping", "1:a", kind="sleep", until=5_000_000.0)
    else:
        history.queued("1:a")
    if waiting == "retrying":
        history.claimed("1:a")
        history.failed("1:a", 1)
    assert history.steps()[0].status == waiting
    history.write("cancelled", "1:a", reason="")
    assert history.steps()[0].status == "cancelled"


# -- any life of a step ----------------------------------------------------------------------------------------------------

MISHAPS = st.lists(st.sampled_from(["retry", "timeout", "lost", "released"]), max_size=8)


def live(history: Writer, key: str, mishaps: list[str], outcome: str) -> None:
    number = 1
    for mishap in mishaps:
        history.claimed(key, number)
        if mishap in ("lost", "released"):
            history.write(mishap, key, number, job="j", queue="flow")
        else:
            history.failed(key, number, mishap)
            number += 1
            history.queued(key, number)
    history.claimed(key, number)
    history.recorded(key, number, outcome)


@given(MISHAPS, st.sampled_from(["ok", "failed", "timeout"]))
def test_every_try_is_an_attempt_with_its_outcome_and_its_times(mishaps: list[str], outcome: str) -> None:
    """BEHAVIOURS 37 and 41: losses and hand-backs are shown, and do not count."""
    history = Writer()
    history.start()
    live(history, "1:a", mishaps, outcome)
    (step,) = history.steps()
    assert step.status == ("completed" if outcome == "ok" else "failed")
    assert [attempt.outcome for attempt in step.attempts] == [*mishaps, outcome]
    numbers = [attempt.number for attempt in step.attempts]
    assert numbers[0] == 1
    assert numbers[-1] == 1 + sum(mishap in ("retry", "timeout") for mishap in mishaps)
    times = [at for attempt in step.attempts for at in (attempt.started, attempt.ended)]
    assert None not in times
    assert times == sorted(at for at in times if at is not None)


@given(MISHAPS, MISHAPS, st.integers(0, 60), st.integers(0, 60))
def test_of_a_history_that_lost_its_beginning_the_rest_is_told(
    one: list[str], other: list[str], lost: int, unwritten: int
) -> None:
    history = Writer()
    history.start()
    live(history, "1:a", one, "failed")
    live(history, "1:b", other, "ok")
    history.write("completed", "1:b", bytes=1)
    part = history.entries[lost : len(history.entries) - unwritten]
    steps = steps_of(part)
    assert [step.id for step in steps] == list(
        dict.fromkeys(e.step[2:] for e in part if e.step and e.kind != "completed")
    )
    for step in steps:
        claims = [e for e in part if e.kind == "claimed" and e.step == f"1:{step.id}"]
        recorded = any(e.kind == "recorded" and e.step == f"1:{step.id}" for e in part)
        assert len(step.attempts) == max(len(claims), recorded)  # who is recorded was tried, though its claim is lost
        assert all(attempt.ended is not None for attempt in step.attempts[:-1])
