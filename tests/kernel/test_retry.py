"""When the next attempt comes, and when there is none: back-off, options and the verdict on an error."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlib.errors import (
    ConfigError,
    NondeterminismError,
    NonRetriable,
    PayloadError,
    RetryAfter,
    StepFailed,
    StepTimeout,
    WorkerLost,
)
from flowlib.retry import DEFAULTS, Backoff, Options, make_options, options_of, retry_delay, step_options

LONGEST = 366 * 86400.0
SECONDS = st.floats(0, LONGEST)
ROLLS = st.floats(0, 1, exclude_max=True)
BACKOFFS = st.builds(Backoff, first=SECONDS, factor=st.floats(1, 1e6), cap=SECONDS, jitter=st.booleans())
FAILURES = st.integers(1, 10**9)


@given(BACKOFFS, FAILURES, ROLLS)
def test_a_wait_is_never_negative_nor_over_the_cap(backoff: Backoff, failures: int, roll: float) -> None:
    assert 0 <= backoff.delay(failures, roll) <= backoff.cap


@given(BACKOFFS, st.integers(1, 50), ROLLS)
def test_with_jitter_the_wait_is_anywhere_below_the_figure_and_without_it_the_figure(
    backoff: Backoff, failures: int, roll: float
) -> None:
    full = min(backoff.cap, backoff.first * backoff.factor ** (failures - 1))
    assert backoff.delay(failures, roll) == pytest.approx(full * roll if backoff.jitter else full)


@given(BACKOFFS, st.integers(1, 2000), ROLLS)
def test_a_later_failure_never_waits_for_less(backoff: Backoff, failures: int, roll: float) -> None:
    assert backoff.delay(failures, roll) <= backoff.delay(failures + 1, roll)


def test_by_default_ten_seconds_are_doubled_up_to_an_hour() -> None:
    assert DEFAULTS.retries == 4
    assert DEFAULTS.backoff is not None
    assert DEFAULTS.backoff.jitter
    almost_one = math.nextafter(1, 0)
    waits = [round(DEFAULTS.backoff.delay(failures, almost_one), 6) for failures in (1, 2, 3, 9, 10, 10**9)]
    assert waits == [10, 20, 40, 2560, 3600, 3600]
    assert DEFAULTS.backoff.delay(5, 0.0) == 0


def test_a_figure_beyond_all_floats_is_the_cap() -> None:
    assert Backoff(first=1, factor=1e6, cap=60, jitter=False).delay(10**6, 0) == 60
    assert Backoff(first=0, factor=1e6, cap=60, jitter=False).delay(10**6, 0) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"first": -1}, {"factor": 0.5}, {"cap": -0.1}, {"first": math.nan}, {"cap": math.nan}, {"factor": math.nan},
     {"cap": math.inf}, {"first": "10"}, {"cap": 10**400},
     {"factor": math.inf}],
    ids=repr,
)  # fmt: skip
def test_a_backoff_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="first"):
        Backoff(**wrong)


@given(st.integers(0, 50), ROLLS)
def test_there_are_as_many_attempts_as_retries_and_one(retries: int, roll: float) -> None:
    """BEHAVIOURS 25, 26, 33."""
    options = make_options("here", retries=retries, backoff=1).over(DEFAULTS)
    for error in (ValueError("x"), RetryAfter(0)):
        attempts = 1
        while retry_delay(error, attempts, options, roll) is not None:
            attempts += 1
        assert attempts == retries + 1


@pytest.mark.parametrize(
    "error",
    [
        NonRetriable("x"),
        PayloadError("x"),
        ConfigError("x"),
        NondeterminismError("x"),
        StepFailed("a", "T", "m"),
        WorkerLost("a", 5),
        ExceptionGroup("from a TaskGroup", [StepFailed("a", "T", "m"), ExceptionGroup("", [NonRetriable("x")])]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_get_better_is_not_tried_again(error: Exception) -> None:
    """BEHAVIOURS 9, 27, 28, 30."""
    assert retry_delay(error, 1, DEFAULTS, 0.5) is None


@pytest.mark.parametrize(
    "error",
    [ValueError(), StepTimeout("a", 1), SystemExit(1), ExceptionGroup("", [StepFailed("a", "T", "m"), ValueError()])],
    ids=lambda error: type(error).__name__,
)
def test_what_may_pass_is_tried_again(error: BaseException) -> None:
    assert retry_delay(error, 1, DEFAULTS, 0.5) == 5


@given(SECONDS, st.integers(1, 4), ROLLS)
def test_retry_after_is_obeyed_to_the_letter(seconds: float, attempt: int, roll: float) -> None:
    """BEHAVIOURS 35: neither back-off nor jitter nor cap."""
    assert retry_delay(RetryAfter(seconds), attempt, DEFAULTS, roll) == seconds
    assert retry_delay(RetryAfter(timedelta(seconds=1)), attempt, DEFAULTS, roll) == 1


@pytest.mark.parametrize(
    "delay",
    [-1, math.nan, math.inf, sys.float_info.max, LONGEST + 1, 10**400, True, "5", None, timedelta(-1)],
    ids=repr,
)
def test_a_retry_after_that_makes_no_sense_is_refused(delay: Any) -> None:
    with pytest.raises(ConfigError, match="RetryAfter takes"):
        RetryAfter(delay)


OPTIONS = st.builds(
    Options,
    st.none() | st.integers(0, 9),
    st.none() | BACKOFFS,
    st.none() | st.floats(0.1, 10),
    st.none() | st.sampled_from(["high", "flow"]),
)


@given(OPTIONS, OPTIONS, OPTIONS)
def test_options_fill_the_gaps_of_those_above_them(call: Options, step: Options, function: Options) -> None:
    """BEHAVIOURS 22: the call's over the step function's over the function's, each setting by itself."""
    merged = call.over(step).over(function)
    assert merged == call.over(step.over(function))
    for name in ("retries", "backoff", "timeout", "queue"):
        given = [getattr(level, name) for level in (call, step, function)]
        assert getattr(merged, name) == next((value for value in given if value is not None), None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"retries": -1},
        {"retries": 1.5},
        {"retries": True},
        {"retries": "3"},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": math.nan},
        {"timeout": math.inf},
        {"timeout": LONGEST + 1},
        {"timeout": "30"},
        {"timeout": timedelta(0)},
        {"backoff": -1},
        {"backoff": math.nan},
        {"backoff": math.inf},
        {"backoff": "10"},
        {"queue": ""},
        {"queue": "a,b"},
        {"queue": "a b"},
        {"queue": "x" * 101},
        {"queue": 7},
    ],
    ids=repr,
)
def test_wrong_options_are_refused_and_the_message_says_where_and_which(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=rf"^function 'pay': .*{name}"):
        make_options("function 'pay'", **wrong)


def test_times_are_seconds_or_timedeltas() -> None:
    assert make_options("here", timeout=timedelta(minutes=1)).timeout == 60
    assert make_options("here", timeout=5).timeout == 5.0
    for two_seconds in (2, 2.0, timedelta(seconds=2)):
        made = make_options("here", backoff=two_seconds).backoff
        assert made is not None
        assert [made.delay(failures, 0.1) for failures in (1, 2, 50)] == [2, 2, 2]


def test_options_are_found_on_a_step_function_and_through_partial() -> None:
    """BEHAVIOURS 22."""

    @step_options(retries=8, timeout=30, queue="high")
    def enrich(key: str) -> str:
        return key

    expected = Options(retries=8, timeout=30.0, queue="high")
    for found in (enrich, functools.partial(enrich, "a"), functools.partial(functools.partial(enrich), "a")):
        assert options_of(found) == expected
    assert enrich("x") == "x"
    without: list[Callable[..., Any]] = [len, lambda: 1, functools.partial(len)]
    assert [options_of(fn) for fn in without] == [Options()] * 3


def test_wrong_step_options_name_the_function() -> None:
    with pytest.raises(ConfigError, match="step_options of 'enrich': retries"):

        @step_options(retries=-1)
        def enrich() -> None: ...
