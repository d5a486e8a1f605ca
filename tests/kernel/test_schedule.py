"""When a cron ticks: a pure function of the time, right in summer and in winter and on the nights between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlib import App, ConfigError, Event, Step, cron
from flowlib.schedule import MOST, Cron, Decision, event_id

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
NOON = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def ticks(expression: str, after: str, count: int, tz: str = BERLIN) -> list[str]:
    """By the wall of the zone, the date without its year."""
    found = islice(cron(expression, tz=tz).ticks(datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(tz))), count)
    return [tick.astimezone(ZoneInfo(tz)).isoformat(timespec="seconds")[5:] for tick in found]


@pytest.mark.parametrize(
    ("expression", "tz", "after", "expected"),
    [
        ("30 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29T03:00:00+02:00", "03-30T02:30:00+02:00"]),
        ("15 30 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29T03:00:00+02:00", "03-30T02:30:15+02:00"]),
        ("0,20,40 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29T03:00:00+02:00", "03-30T02:00:00+02:00"]),
        ("0 2,3 * * *", BERLIN, "2026-03-28T12:00", ["03-29T03:00:00+02:00", "03-30T02:00:00+02:00"]),
        ("30 2 * * *", NEW_YORK, "2026-03-07T12:00", ["03-08T03:00:00-04:00", "03-09T02:30:00-04:00"]),
    ],
)
def test_a_tick_that_the_clocks_leap_over_comes_once_right_after(
    expression: str, tz: str, after: str, expected: list[str]
) -> None:
    assert ticks(expression, after, 2, tz) == expected


@pytest.mark.parametrize(
    ("expression", "tz", "after", "expected"),
    [
        ("30 2 * * *", BERLIN, "2026-10-24T12:00", ["10-25T02:30:00+02:00", "10-26T02:30:00+01:00"]),
        ("0 30 2 * * *", BERLIN, "2026-10-24T12:00", ["10-25T02:30:00+02:00", "10-26T02:30:00+01:00"]),
        ("30 1 * * *", NEW_YORK, "2026-10-31T12:00", ["11-01T01:30:00-04:00", "11-02T01:30:00-05:00"]),
    ],
)
def test_a_tick_at_a_time_that_there_is_twice_comes_once(
    expression: str, tz: str, after: str, expected: list[str]
) -> None:
    assert ticks(expression, after, 2, tz) == expected


def test_in_the_second_of_two_equal_hours_the_ticks_of_the_first_have_passed() -> None:
    second = datetime(2026, 10, 25, 2, 10, tzinfo=ZoneInfo(BERLIN), fold=1)
    (tick,) = islice(cron("30 2 * * *", tz=BERLIN).ticks(second), 1)
    assert tick == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_with_a_star_in_minutes_or_hours_real_time_counts() -> None:
    assert ticks("*/30 * * * *", "2026-03-29T01:15", 3) == [
        "03-29T01:30:00+01:00", "03-29T03:00:00+02:00", "03-29T03:30:00+02:00",
    ]  # fmt: skip
    assert ticks("*/30 * * * *", "2026-10-25T01:45", 5) == [
        "10-25T02:00:00+02:00", "10-25T02:30:00+02:00", "10-25T02:00:00+01:00", "10-25T02:30:00+01:00", "10-25T03:00:00+01:00",
    ]  # fmt: skip
    assert [len(of_day(day)) for day in ("2026-03-29", "2026-06-15", "2026-10-25")] == [23, 24, 25]


def of_day(day: str) -> list[str]:
    return [tick for tick in ticks("@hourly", f"{day}T00:00", 30) if tick <= f"{day[5:]}T23:59"] + ["the first"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 L * *", ["01-31", "02-28", "03-31", "04-30"]),
        ("0 0 31 * *", ["01-31", "03-31", "05-31", "07-31"]),
        ("0 0 LW * *", ["01-30", "02-27", "03-31", "04-30"]),
        ("0 0 29 2 *", ["02-29", "02-29", "02-29", "02-29"]),
        ("0 0 * * 5L", ["01-30", "02-27", "03-27", "04-24"]),
        ("@yearly", ["01-01", "01-01", "01-01", "01-01"]),
        ("@annually", ["01-01", "01-01", "01-01", "01-01"]),
        ("@Monthly", ["02-01", "03-01", "04-01", "05-01"]),
        ("@weekly", ["01-04", "01-11", "01-18", "01-25"]),
        ("@daily", ["01-02", "01-03", "01-04", "01-05"]),
        ("@midnight", ["01-02", "01-03", "01-04", "01-05"]),
    ],
)
def test_ends_of_months_and_nicknames(expression: str, expected: list[str]) -> None:
    assert [tick[:5] for tick in ticks(expression, "2026-01-01T00:00", 4)] == expected
    assert {tick[5:14] for tick in ticks(expression, "2026-01-01T00:00", 4)} == {"T00:00:00"}


EXPRESSIONS = [
    "30 2 * * *", "0 2,3 * * *", "*/20 1-3 * * *", "15 */2 * * *", "*/30 * * * *", "@hourly", "59 1 * * 0", "30 30 1,2 * * *",
]  # fmt: skip
NIGHTS = [datetime(2026, *day, tzinfo=UTC) for day in ((3, 8), (3, 29), (10, 25), (11, 1), (6, 15))]


@given(
    st.sampled_from(EXPRESSIONS), st.sampled_from([BERLIN, NEW_YORK, "UTC", "Australia/Lord_Howe", "America/Santiago"]),
    st.sampled_from(NIGHTS), st.integers(-86_400, 86_400), st.integers(1, 50_000),
)  # fmt: skip
def test_whoever_looks_from_whenever_sees_the_same_ticks(
    expression: str, tz: str, night: datetime, offset: int, later: int
) -> None:
    """So that workers that have started at different times agree."""
    schedule = cron(expression, tz=tz)
    early = night + timedelta(seconds=offset)
    late = early + timedelta(seconds=later)
    seen = list(islice(schedule.ticks(early), 60))
    assert all(before < after for before, after in pairwise([early, *seen]))
    after_late = [tick for tick in seen if tick > late]
    assert list(islice(schedule.ticks(late), len(after_late))) == after_late


# -- what becomes of ticks ---------------------------------------------------------------------------------------------


def decide(missed: Any, late: timedelta, outage: timedelta = 3 * HOUR, **settings: Any) -> list[Decision]:
    """Of hourly ticks, the last of which was due so long ago."""
    return cron("@hourly", missed=missed, **settings).decide("report", NOON - outage, NOON + late)


def test_missed_ticks_are_passed_over_or_started_as_asked() -> None:
    at = [NOON - 2 * HOUR, NOON - HOUR, NOON]
    assert decide("all", MINUTE * 5) == [Decision(tick, True, 0) for tick in at]
    assert decide("latest", MINUTE * 5) == [Decision(NOON, True, 2)]
    assert decide("skip", MINUTE * 5) == [Decision(NOON, False, 3)]
    assert decide("skip", MINUTE) == [Decision(NOON, True, 2)]


@pytest.mark.parametrize("missed", ["skip", "latest", "all"])
def test_a_tick_in_time_starts_whatever_is_asked_of_missed_ones_and_none_is_early(missed: Any) -> None:
    assert decide(missed, timedelta(0), HOUR) == [Decision(NOON, True, 0)]
    assert decide(missed, -timedelta(milliseconds=1), HOUR) == []


@pytest.mark.parametrize("missed", ["skip", "latest"])
def test_very_many_missed_ticks_are_passed_over_in_portions_and_the_last_counts(missed: Any) -> None:
    schedule, since, passed = cron("* * * * * *", missed=missed), NOON - timedelta(seconds=2 * MOST + 500), 0
    while True:
        (decision,) = schedule.decide("report", since, NOON)
        since, passed = decision.tick, passed + decision.missed
        if decision.starts:
            break
    assert (decision.tick, passed) == (NOON, 2 * MOST + 499)
    assert len(cron("* * * * * *", missed="all").decide("report", NOON - HOUR, NOON)) == MOST


def test_jitter_is_in_range_differs_by_tick_and_function_and_is_the_same_for_everybody() -> None:
    """BEHAVIOURS 123."""
    spread = [cron("@hourly", jitter=timedelta(minutes=10)), cron("@hourly", jitter=600)]
    found = list(islice(spread[0].ticks(NOON), 200))
    offsets = [spread[0].due("report", tick) - tick for tick in found]
    assert offsets == [spread[1].due("report", tick) - tick for tick in found]
    assert all(timedelta(0) <= offset < 10 * MINUTE for offset in offsets)
    assert max(offsets) - min(offsets) > 5 * MINUTE
    assert len(set(offsets)) > 150
    assert offsets != [spread[0].due("other", tick) - tick for tick in found]


def test_jitter_lets_no_tick_overtake_another_and_loses_none() -> None:
    schedule = cron("* * * * *", jitter=HOUR, missed="all")
    since, started, now = NOON, list[datetime](), NOON
    for _ in range(120):
        now += MINUTE
        decisions = schedule.decide("report", since, now)
        started += [decision.tick for decision in decisions]
        since = started[-1] if started else since
    assert started == list(islice(schedule.ticks(NOON), len(started)))
    assert len(started) >= 59
    assert schedule.next_due("report", since) > now  # type: ignore[operator]


def test_the_same_tick_has_one_event_id_in_any_zone() -> None:
    assert event_id("report", NOON) == event_id("report", NOON.astimezone(ZoneInfo(BERLIN)))
    assert event_id("report", NOON) == "cron:report:2026-06-15T12:00:00Z"


# -- declarations ------------------------------------------------------------------------------------------------------


def report(event: Event[Any], step: Step) -> None: ...


WRONG: list[tuple[Any, dict[str, Any]]] = [
    *((expression, {}) for expression in ("", "* * *", "61 * * * *", "0 0 31 2 *", "* * */20 * 1L", "H * * * *", "@reboot", 7)),
    *(("@daily", {"tz": tz}) for tz in ("Europe/Atlantis", "", "../etc", None)),
    *(("@daily", {"jitter": jitter}) for jitter in (-1, "5m", True, timedelta(days=2))),
    *(("@daily", settings) for settings in ({"missed": "none"}, {"overlap": True})),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "settings"), WRONG, ids=repr)
def test_a_wrong_cron_is_refused_where_it_is_declared_and_the_function_is_named(
    expression: Any, settings: dict[str, Any]
) -> None:
    """I10."""
    app = App("shop")
    with pytest.raises(ConfigError, match=r"^function 'report': cron"):
        app.function(on=["placed", cron(expression, **settings)])(report)
    assert app.functions == {}


def test_the_same_cron_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^function 'report': on= has the same cron twice"):
        App("shop").function(on=[cron("@daily"), cron(" @daily ", missed="all")])(report)


def test_crons_stand_alone_or_beside_events_and_are_described() -> None:
    app = App("shop")
    app.function(on=cron("0  3 * * *", tz=BERLIN, missed="all", overlap="skip", jitter=MINUTE), name="one")(report)
    app.function(on=["placed", cron("@hourly"), cron("@daily")], name="three")(report)
    one, three = app.functions.values()
    assert (one.triggers, [t.name for t in three.triggers]) == ((), ["placed"])
    assert [each.name for each in (*one.crons, *three.crons)] == [f"0 3 * * * {BERLIN}", "@hourly UTC", "@daily UTC"]
    described = one.describe()["cron"]
    assert described == [{"expression": "0 3 * * *", "tz": BERLIN, "missed": "all", "overlap": "skip", "jitter": 60.0}]
    assert (Cron(**described[0]),) == one.crons
