"""Ticks to runs: once each, whoever looks and however often; an outage is made by setting back what was decided last."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from flowlib import App, cron
from flowlib.codec import encode
from flowlib.dispatch import Dispatcher
from flowlib.function import Function
from flowlib.runs import Runs
from flowlib.schedule import CRON_EVENT, MOST, Cron
from flowlib.store import Store
from flowlib.testing import check_invariants
from flowlib.ticks import LOOK_EVERY, Ticks
from flowlib.wire import Packed, Wire

APP = "clock"
YEARLY, MINUTELY, EACH_SECOND = "0 0 1 1 *", "* * * * *", "* * * * * *"
HOUR = timedelta(hours=1)


class Clockwork:
    """An app whose workers do nothing but tick; its functions are declared as a test needs them."""

    def __init__(self, url: str) -> None:
        self.store = Store(url, patience=10.0)
        self.runs = Runs(lambda: self.store, APP, {})

    def ticks(self, *crons: Cron, worker: str = "anna", store: Store | None = None, **more: Any) -> Ticks:
        """Of `report`, and of other functions by their names."""
        app = App(APP)
        for name, on in {"report": crons, **more}.items():
            app.function(on=on, name=name)(report)
        found = Ticks(APP, app.functions, "nowhere:app", store or self.store, worker)
        found.declare()
        return found

    @property
    def now(self) -> datetime:
        seconds, micros = self.store.client.time()
        return datetime.fromtimestamp(seconds + micros / 1e6, UTC)

    @property
    def known(self) -> dict[str, str]:
        found: Any = self.store.client.hgetall(self.store.keys.cron(APP))
        return {field.decode(): value.decode() for field, value in found.items()}

    def set_back(self, by: timedelta, schedule: str) -> None:
        """As if nobody had looked for so long."""
        upto = int((self.now - by).timestamp() * 1000)
        assert self.store.client.hset(self.store.keys.cron(APP), f"upto|{schedule}", upto) == 0

    def started(self) -> list[datetime]:
        """The ticks of all runs, in their order."""
        return sorted(run.event.ts for run in self.runs.list(limit=5000))

    def counted(self, function: str = "report") -> dict[str, int]:
        found: Any = self.store.client.hgetall(self.store.keys.metrics(APP))
        counters = {field.decode(): int(value) for field, value in found.items()}
        return {f.split("|")[2]: n for f, n in counters.items() if f.startswith(f"ticks|{function}|")}

    def lives(self, worker: str) -> None:
        self.store.client.hset(self.store.keys.rq_worker(worker), "birth", "today")

    def dies(self, worker: str) -> None:
        self.store.client.delete(self.store.keys.rq_worker(worker))


def report(event: Any, step: Any) -> None: ...


def function_of(ticks: Ticks) -> Function:
    return next(iter(ticks.schedules.values()))[0]


@pytest.fixture
def clockwork(redis_url: str) -> Iterator[Clockwork]:
    clockwork = Clockwork(redis_url)
    yield clockwork
    assert check_invariants(clockwork.store) == []
    clockwork.store.close()


def test_a_schedule_that_is_new_begins_with_its_next_tick(clockwork: Clockwork) -> None:
    before = clockwork.now
    ticks = clockwork.ticks(cron(YEARLY, missed="all"), cron(MINUTELY, tz="Europe/Berlin", missed="all"))
    wait = ticks.look()
    assert 0 <= wait <= LOOK_EVERY
    upto = [float(value) for field, value in clockwork.known.items() if field.startswith("upto|")]
    assert len(upto) == 2
    assert all(before.timestamp() - 1 < ms / 1000 <= clockwork.now.timestamp() for ms in upto)
    assert clockwork.started() == []


def test_a_tick_starts_one_run_that_says_which(clockwork: Clockwork) -> None:
    """BEHAVIOURS 121."""
    ticks = clockwork.ticks(cron(YEARLY, tz="Europe/Berlin", missed="latest"))
    clockwork.set_back(timedelta(days=370), f"report|{YEARLY} Europe/Berlin")
    ticks.look()
    (run,) = clockwork.runs.list()
    event = clockwork.runs.get(run.id).event
    year = datetime(clockwork.now.astimezone(ZoneInfo("Europe/Berlin")).year, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    assert (run.function, run.status, event.name, event.ts) == ("report", "running", CRON_EVENT, year)
    assert event.id == f"cron:report:{year.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert event.data == {
        "app": APP, "function": "report", "expression": YEARLY, "tz": "Europe/Berlin", "tick": year,
    }  # fmt: skip
    assert str(event.data["tick"].tzinfo) == "Europe/Berlin"
    assert clockwork.known[f"last|report|{YEARLY} Europe/Berlin"] == str(int(year.timestamp() * 1000))


@pytest.mark.parametrize("missed", ["skip", "latest", "all"])
def test_after_an_outage_ticks_are_caught_up_as_asked(clockwork: Clockwork, missed: Any) -> None:
    schedule = cron(MINUTELY, missed=missed)
    ticks = clockwork.ticks(schedule)
    since = clockwork.now - timedelta(minutes=25)
    clockwork.set_back(clockwork.now - since, f"report|{MINUTELY} UTC")
    ticks.look()
    started, counted = clockwork.started(), clockwork.counted()
    if missed == "all":
        assert started == list(islice(schedule.ticks(since), len(started)))
        assert len(started) >= 24
        assert counted == {"started": len(started)}
    else:  # a tick that is late by less than a minute is none that was missed
        assert len(started) == 1
        assert timedelta(0) <= clockwork.now - started[0] < 2 * timedelta(minutes=1)
        assert counted["started"] == 1
        assert counted["missed"] >= 23


def test_a_tick_that_is_too_late_is_passed_over_and_counted(clockwork: Clockwork) -> None:
    ticks = clockwork.ticks(cron(YEARLY, jitter=0))
    clockwork.set_back(timedelta(days=3 * 366), f"report|{YEARLY} UTC")
    assert ticks.look() > 0
    assert clockwork.started() == []
    assert clockwork.counted() == {"missed": 3}
    before = clockwork.known
    ticks.look()
    assert (clockwork.known, clockwork.counted()) == (before, {"missed": 3})


def test_a_tick_with_jitter_starts_when_it_is_due_whichever_worker_looks(clockwork: Clockwork) -> None:
    """BEHAVIOURS 123: all that are due, and none before."""
    schedule = cron(MINUTELY, jitter=timedelta(minutes=30), missed="all")
    workers = [clockwork.ticks(schedule, worker=name) for name in ("anna", "bert")]
    since = clockwork.now - HOUR
    clockwork.set_back(HOUR, f"report|{MINUTELY} UTC")
    for _ in range(3):
        for worker in workers:
            worker.look()
    started, now = clockwork.started(), clockwork.now
    ticks = list(takewhile(lambda tick: tick <= now, schedule.ticks(since)))
    assert started == ticks[: len(started)]
    assert all(schedule.due("report", tick) <= now for tick in started)
    assert 25 <= len(started) < len(ticks)
    assert schedule.due("report", ticks[len(started)]) > now - timedelta(minutes=1)


class Twice(Wire):
    """All that is sent is sent twice, as when the reply to the first is lost."""

    def call_all(self, batch: list[Packed]) -> list[Any]:
        super().call_all(batch)
        return super().call_all(batch)


@pytest.mark.parametrize("missed", ["latest", "all"])
def test_workers_that_race_decide_each_tick_once_also_when_replies_are_lost(
    clockwork: Clockwork, redis_url: str, missed: Any
) -> None:
    """BEHAVIOURS 118, 124; I7."""
    schedule = cron(MINUTELY, missed=missed)
    stores = [Store(redis_url, wire=Twice if n % 2 else Wire) for n in range(4)]
    racers = [clockwork.ticks(schedule, worker=f"w{n}", store=store) for n, store in enumerate(stores)]
    since = clockwork.now - 2 * HOUR
    clockwork.set_back(clockwork.now - since, f"report|{MINUTELY} UTC")
    line = threading.Barrier(len(racers))

    def race(racer: Ticks) -> None:
        line.wait(15)
        racer.look()

    threads = [threading.Thread(target=race, args=[racer]) for racer in racers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    upto = int(clockwork.known[f"upto|report|{MINUTELY} UTC"])
    gone = list(takewhile(lambda tick: tick.timestamp() * 1000 <= upto, schedule.ticks(since)))
    assert len(gone) >= 119
    if missed == "all":
        assert clockwork.started() == gone
        assert clockwork.counted() == {"started": len(gone)}
    else:
        assert clockwork.started()[-1] == gone[-1]
        assert sum(clockwork.counted().values()) == len(gone)
    for store in stores:
        store.close()


def test_a_tick_whose_decision_is_forgotten_starts_nothing_again(clockwork: Clockwork) -> None:
    """BEHAVIOURS 124: the run's id follows from function and tick."""
    ticks = clockwork.ticks(cron(YEARLY, missed="all"))
    for _ in range(2):
        clockwork.set_back(timedelta(days=370), f"report|{YEARLY} UTC")
        ticks.look()
    (run,) = clockwork.runs.list()
    once = clockwork.store.keys.once(APP, "report", run.event.id)
    assert clockwork.store.client.delete(once) == 1
    clockwork.set_back(timedelta(days=370), f"report|{YEARLY} UTC")
    ticks.look()
    assert [each.id for each in clockwork.runs.list()] == [run.id]
    assert clockwork.counted() == {"started": 1}


def test_two_schedules_of_a_function_that_tick_at_once_start_one_run(clockwork: Clockwork) -> None:
    """BEHAVIOURS 120: also where overlapping runs are not wanted, it does not overlap with itself."""
    ticks = clockwork.ticks(
        cron(YEARLY, missed="latest", overlap="skip"), cron("@yearly", missed="latest", overlap="skip")
    )
    for expression in (YEARLY, "@yearly"):
        clockwork.set_back(timedelta(days=370), f"report|{expression} UTC")
    ticks.look()
    assert len(clockwork.started()) == 1
    assert clockwork.counted() == {"started": 1}


def look_until(ticks: Ticks, condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(min(0.1, ticks.look()))


def test_a_tick_is_passed_over_and_counted_while_an_earlier_run_is_unfinished(clockwork: Clockwork) -> None:
    ticks = clockwork.ticks(cron(EACH_SECOND, overlap="skip"), other=[cron(EACH_SECOND), cron(YEARLY, overlap="skip")])
    look_until(ticks, lambda: clockwork.counted().get("overlapping", 0) >= 1)
    (run,) = clockwork.runs.list(function="report")
    assert clockwork.counted()["started"] == 1
    assert clockwork.counted("other")["started"] >= 2
    clockwork.runs.cancel(run.id)
    look_until(ticks, lambda: clockwork.counted()["started"] == 2)
    assert len(clockwork.runs.list(function="report")) == 2
    assert len(clockwork.known["runs|report"].split()) == 1


@pytest.mark.parametrize("missed", ["skip", "latest", "all"])
def test_ticks_of_a_paused_function_are_caught_up_only_if_that_is_asked_for(clockwork: Clockwork, missed: Any) -> None:
    ticks = clockwork.ticks(cron(MINUTELY, missed=missed), other=cron(YEARLY, missed="latest"))
    assert clockwork.store.pause_cron(APP, "report", True)
    assert not clockwork.store.pause_cron(APP, "report", True)
    clockwork.set_back(timedelta(minutes=5), f"report|{MINUTELY} UTC")
    clockwork.set_back(timedelta(days=370), f"other|{YEARLY} UTC")
    for _ in range(2):
        assert 0 < ticks.look() <= LOOK_EVERY
    assert [run.function for run in clockwork.runs.list()] == ["other"]
    assert clockwork.store.pause_cron(APP, "report", False)
    ticks.look()
    started = len(clockwork.runs.list(function="report"))
    assert started in {"skip": (0, 1), "latest": (1,), "all": (5, 6)}[missed]  # a minute may just have begun
    assert (clockwork.counted().get("paused", 0) >= 5) == (missed == "skip")


def test_a_long_pause_keeps_nobody_busy(clockwork: Clockwork) -> None:
    ticks = clockwork.ticks(cron(EACH_SECOND, missed="all"))
    clockwork.store.pause_cron(APP, "report", True)
    clockwork.set_back(timedelta(seconds=3 * MOST), f"report|{EACH_SECOND} UTC")
    assert sum(ticks.look() for _ in range(3)) > 0
    assert clockwork.started() == []


def test_a_pause_that_comes_between_look_and_start_holds_the_tick_back(clockwork: Clockwork) -> None:
    ticks = clockwork.ticks(cron(YEARLY, missed="latest"))
    schedule = f"report|{YEARLY} UTC"
    clockwork.set_back(timedelta(days=370), schedule)
    upto = clockwork.known[f"upto|{schedule}"]
    (_, settings), since = ticks.schedules[schedule], datetime.fromtimestamp(int(upto) / 1000, UTC)
    decisions = settings.decide("report", since, clockwork.now)
    decided = list(ticks._decided(schedule, function_of(ticks), settings, upto, decisions))
    clockwork.store.pause_cron(APP, "report", True)
    ticks._carry_out(decided)
    assert (clockwork.started(), clockwork.known[f"upto|{schedule}"]) == ([], upto)
    clockwork.store.pause_cron(APP, "report", False)
    ticks._carry_out(decided)
    assert len(clockwork.started()) == 1


# -- which schedules there are -----------------------------------------------------------------------------------------


def test_a_changed_schedule_ticks_in_the_new_way_only_while_old_workers_are_about(clockwork: Clockwork) -> None:
    """BEHAVIOURS 122: the worker that has started last says what there is."""
    clockwork.lives("old")
    old = clockwork.ticks(cron(YEARLY, missed="latest"), worker="old")
    clockwork.lives("new")
    new = clockwork.ticks(cron(MINUTELY, missed="latest"), worker="new")
    assert old.look() == pytest.approx(LOOK_EVERY, abs=1)
    new.look()
    assert {field for field in clockwork.known if "|" in field} == {f"upto|report|{MINUTELY} UTC"}
    assert clockwork.started() == []
    clockwork.dies("new")  # gone back to what was before
    old.look()
    assert {field for field in clockwork.known if "|" in field} == {f"upto|report|{YEARLY} UTC"}
    clockwork.dies("old")
    new.look()
    assert {field for field in clockwork.known if "|" in field} == {f"upto|report|{MINUTELY} UTC"}
    assert clockwork.started() == []


def test_after_a_new_registration_what_is_new_ticks_what_is_changed_ticks_anew_and_what_is_gone_does_not(
    clockwork: Clockwork,
) -> None:
    """BEHAVIOURS 122: each tick once, though the old worker goes on looking."""
    clockwork.lives("old")
    clockwork.lives("new")
    old = clockwork.ticks(
        cron(YEARLY, missed="all"), worker="old", gone=cron(YEARLY, missed="all"), kept=cron(YEARLY, missed="all")
    )
    new = clockwork.ticks(
        cron("0 0 1 2 *", missed="all"), worker="new", kept=cron(YEARLY, missed="all"), added=cron(YEARLY, missed="all")
    )
    new.look()
    ticking = {field.removeprefix("upto|") for field in clockwork.known if field.startswith("upto|")}
    assert ticking == {"report|0 0 1 2 * UTC", f"kept|{YEARLY} UTC", f"added|{YEARLY} UTC"}
    for schedule in ticking:
        clockwork.set_back(timedelta(days=3 * 366), schedule)
    for _ in range(2):
        for ticks in (old, new):
            ticks.look()
    started: dict[str, list[datetime]] = {}
    for run in clockwork.runs.list(limit=None):
        started.setdefault(run.function, []).append(run.event.ts)
    assert set(started) == {"report", "kept", "added"}
    assert {(ts.month, ts.day) for ts in started["report"]} == {(2, 1)}
    assert {(ts.month, ts.day) for ts in started["kept"] + started["added"]} == {(1, 1)}
    assert all(len(ts) == len(set(ts)) >= 2 for ts in started.values())


def test_a_schedule_that_is_gone_is_forgotten_and_comes_back_without_its_past(clockwork: Clockwork) -> None:
    """BEHAVIOURS 122."""
    clockwork.lives("new")
    old = clockwork.ticks(cron(YEARLY, missed="all"), worker="old")
    clockwork.set_back(timedelta(days=370), f"report|{YEARLY} UTC")
    clockwork.ticks(worker="new", report="placed")
    old.look()
    assert clockwork.known == {"declared": "new"}
    clockwork.ticks(cron(YEARLY, missed="all"), worker="newer").look()
    assert clockwork.started() == []


def test_an_app_without_schedules_stores_nothing(clockwork: Clockwork) -> None:
    clockwork.ticks(report="placed")
    assert clockwork.known == {}


def test_ticks_begin_anew_on_a_server_that_has_forgotten_all(clockwork: Clockwork) -> None:
    ticks = clockwork.ticks(cron(YEARLY, missed="all"))
    clockwork.store.client.delete(clockwork.store.keys.cron(APP))
    ticks.look()
    assert f"upto|report|{YEARLY} UTC" in clockwork.known
    assert clockwork.started() == []


def test_an_app_that_is_forgotten_leaves_no_schedule(clockwork: Clockwork) -> None:
    clockwork.store.join_events(APP)
    clockwork.ticks(cron(YEARLY))
    assert clockwork.store.forget_app(APP, 0)[0] == "forgotten"
    assert clockwork.known == {}


# -- the loop, and calls by hand ---------------------------------------------------------------------------------------


def test_the_loop_starts_ticks_as_they_come_and_ends_at_once(clockwork: Clockwork) -> None:
    ticks = clockwork.ticks(cron(EACH_SECOND))
    thread = threading.Thread(target=ticks.run, args=[lambda: False])
    thread.start()
    deadline = time.monotonic() + 20
    while len(clockwork.started()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ticks.end()
    thread.join(20)
    assert not thread.is_alive()
    for run in clockwork.runs.list():
        print(f"{(run.created - run.event.ts).total_seconds() * 1000:.1f} ms late")
        assert run.created >= run.event.ts


def test_a_call_by_hand_starts_the_function_that_it_names_once(clockwork: Clockwork) -> None:
    app = App(APP).connect(store=clockwork.store)
    app.function(on=cron(YEARLY), name="report")(report)
    app.function(on=cron(YEARLY), name="other")(report)
    clockwork.store.join_events(APP)
    dispatcher = Dispatcher(APP, app.functions, "nowhere:app", clockwork.store, "anna", idle_ms=0)
    for data in ({"app": APP, "function": "report"}, {"app": "elsewhere", "function": "report"}, {}, 7):
        clockwork.store.send_events([(str(data), CRON_EVENT, encode(data), 0, "")])
    entries = dispatcher.fresh()
    assert len(dispatcher.dispatch(entries)) == 1
    assert dispatcher.dispatch(entries) == []
    assert [run.function for run in clockwork.runs.list()] == ["report"]
