"""`flow cron list`, `trigger`, `pause` and `resume`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from flowlib import App
from flowlib.runs import Runs
from flowlib.store import Store
from flowlib.worker import FlowWorker
from tests.patience import PATIENCE, until

from . import office
from .conftest import Flow

KEY = "upto|report|0 3 1 1 * Europe/Berlin"


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    """What a worker of the office has declared, and no worker."""
    store = Store(redis_url)
    store.register_app("office", office.app.functions)
    store.client.sadd(store.keys.apps, "office")
    yield store
    store.close()


@pytest.fixture
def at_work(store: Store) -> Iterator[App]:
    app = office.app.connect(store=Store(store.url))
    worker = FlowWorker(app=app, store=Store(store.url))
    thread = threading.Thread(target=worker.work)
    thread.start()
    until(lambda: store.client.hexists(store.keys.cron("office"), KEY))
    yield app
    worker.stop()
    thread.join(PATIENCE)
    app.store.close()


def test_the_list_tells_when_each_ticks_next_in_its_own_zone(flow: Flow, store: Store) -> None:
    year = datetime.now(UTC).year
    store.client.hset(store.keys.cron("office"), "last|report|0 3 1 1 * Europe/Berlin", 1_767_232_800_000)
    lines = flow("cron", "list").out.splitlines()
    assert lines[0].split() == ["FUNCTION", "CRON", "ZONE", "NEXT", "LAST"]
    assert lines[1].split() == ["office/clean", "@monthly", "UTC", *lines[1].split()[3:5], "+0000"]
    assert "0 3 1 1 *  Europe/Berlin" in lines[2]
    assert "-01-01 03:00:00 +0100  2026-01-01 03:00:00 +0100" in lines[2]
    document = flow("cron", "list", "--json", "--app", "office").document
    assert [each["function"] for each in document] == ["clean", "report"]
    assert document[1] == {
        "app": "office", "function": "report", "expression": "0 3 1 1 *", "tz": "Europe/Berlin", "missed": "latest",
        "overlap": "allow", "jitter": 0.0, "next": document[1]["next"], "last": "2026-01-01T02:00:00.000Z", "paused": False,
    }  # fmt: skip
    assert document[1]["next"] in [f"{each}-01-01T02:00:00.000Z" for each in (year, year + 1)]
    assert flow("cron", "list", "--app", "other", "--json").document == []


def test_no_schedules_is_no_error(flow: Flow) -> None:
    said = flow("cron", "list")
    assert (said.code, said.out) == (0, "")
    assert "no schedules yet" in said.err


def test_functions_shows_the_schedule(flow: Flow, store: Store) -> None:
    assert "cron 0 3 1 1 * Europe/Berlin" in flow("functions").out
    assert "office/post, cron @monthly UTC" in flow("functions").out


def test_pause_and_resume_are_kept_and_shown(flow: Flow, store: Store) -> None:
    assert flow("cron", "pause", "report").out == "office/report is paused\n"
    assert flow("cron", "pause", "office/report").out == "office/report is already paused\n"
    assert [each["paused"] for each in flow("cron", "list", "--json").document] == [False, True]
    assert [line.split()[-1] == "paused" for line in flow("cron", "list").out.splitlines()] == [False, False, True]
    assert flow("cron", "resume", "report", "--json").document == {
        "app": "office", "function": "report", "paused": False,
    }  # fmt: skip
    assert flow("cron", "resume", "report").out == "office/report ticks, as it was\n"


@pytest.mark.parametrize("act", ["trigger", "pause", "resume"])
def test_a_function_that_there_is_not_or_that_is_not_the_only_one_is_refused(
    flow: Flow, store: Store, act: str
) -> None:
    for name in ("nothing", "by-post", "other/report"):
        said = flow("cron", act, name)
        assert (said.code, said.out) == (1, "")
        assert f"no function {name!r} has a cron" in said.err
    twin = App("annex")
    twin.function(on=office.app.functions["report"].crons, name="report")(office.report)
    store.register_app("annex", twin.functions)
    assert "may be any of annex/report, office/report: say its app" in flow("cron", act, "report").err


def test_trigger_starts_a_run_now_and_once_per_call_also_of_a_paused_function(flow: Flow, at_work: App) -> None:
    flow("cron", "pause", "report")
    said = [flow("cron", "trigger", "report").out for _ in range(2)]
    document = flow("cron", "trigger", "office/report", "--json").document
    runs = {*(line.split()[1] for line in said), *document["runs"]}
    assert len(runs) == 3
    found = at_work.runs.list()
    assert {run.id for run in found} == runs
    for run in runs:
        tick = at_work.runs.result(run, PATIENCE)
        assert datetime.fromisoformat(tick).tzinfo is not None
    assert {run.event.name for run in found} == {"flow/cron"}


def test_trigger_without_a_worker_says_so_and_the_run_starts_when_there_is_one(
    flow: Flow, store: Store, request: pytest.FixtureRequest
) -> None:
    said = flow("cron", "trigger", "report")
    assert (said.code, said.out) == (0, "")
    assert "will start a run when a worker is up" in said.err
    request.getfixturevalue("at_work")
    until(lambda: Runs(lambda: store, "office", {}).list())
