"""Gauges: how things stand at this moment, by the server's clock; and what is said of Redis itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event as Gate
from typing import Any

import prometheus_client
import pytest
import redis as redis_py

from flowlib.metrics import Collector, render
from flowlib.server import Server
from flowlib.store import Store
from tests.cases.case import SYNC, Case
from tests.patience import until

from .conftest import Desk
from .numbers import Numbers


def numbers(at: Desk | Case) -> Numbers:
    return Numbers.at((at.store if isinstance(at, Desk) else at.app.store).url)


@pytest.fixture
def collector(server: Server, redis_url: str) -> Iterator[Collector]:
    yield from collector_of(server)


@pytest.fixture
def fresh_collector(fresh_server: Server) -> Iterator[Collector]:
    yield from collector_of(fresh_server)


def collector_of(server: Server) -> Iterator[Collector]:
    store = Store(server.url)
    collector = Collector(store)
    yield collector
    collector.close()
    store.close()


def scrape(collector: Collector) -> Numbers:
    registry = prometheus_client.CollectorRegistry()
    registry.register(collector)
    return Numbers(prometheus_client.generate_latest(registry))


# -- queues, runs, workers -------------------------------------------------------------------------------------------


def test_a_queue_has_a_latency_while_a_job_waits_and_none_when_it_is_empty(desk: Desk) -> None:
    desk.start()
    first = until(lambda: numbers(desk)("queue_latency_seconds", queue="flow"))
    assert 0 < first < 10
    assert numbers(desk)("queue_latency_seconds", queue="flow") > first
    assert numbers(desk).by("queue_jobs", "queue", "state") == {("flow", "queued"): 1}
    desk.claim()
    assert numbers(desk)("queue_latency_seconds", queue="flow") == 0
    assert numbers(desk).by("queue_jobs", "queue", "state") == {("flow", "running"): 1}


@pytest.mark.parametrize("returned", [0, 1, 5, 70])
def test_jobs_that_came_back_to_the_front_do_not_hide_how_long_the_others_wait(desk: Desk, returned: int) -> None:
    """The front of a queue is younger than what stands behind it: by its head alone, nobody would seem to wait."""
    client, keys = desk.store.client, desk.store.keys
    now = client.time()[0]
    client.sadd(keys.queues, "flow")
    for job, age in enumerate([*range(1, returned + 1), *range(400, 200, -1)]):
        client.rpush(keys.rq_queue("flow"), f"job-{job}")
        client.hset(keys.rq_job(f"job-{job}"), "flow_queued", (now - age) * 1000)
    assert 400 - returned <= numbers(desk)("queue_latency_seconds", queue="flow") <= 410


def test_an_ordinary_rq_job_in_our_queue_is_a_job_that_has_no_age(desk: Desk) -> None:
    client, keys = desk.store.client, desk.store.keys
    client.sadd(keys.queues, "flow")
    client.rpush(keys.rq_queue("flow"), "of-others")
    client.hset(keys.rq_job("of-others"), "data", "x")
    told = numbers(desk)
    assert told("queue_latency_seconds", queue="flow") == 0
    assert told.by("queue_jobs", "queue", "state") == {("flow", "queued"): 1}


@pytest.mark.parametrize("state", ["queued", "running", "sleeping", "retrying"])
def test_a_run_is_in_the_state_that_its_record_says(desk: Desk, state: str) -> None:
    lease = desk.at_step()
    if state == "retrying":
        assert desk.fail(lease) == "retrying"
    elif state != "running":
        assert desk.commit(lease) == "recorded"
        assert (desk.sleep(lease) if state == "sleeping" else desk.push(lease)) in ("scheduled", "queued")
    assert desk.runs.get(lease.run).state == state
    assert numbers(desk).by("runs_active", "function", "state") == {("errand", state): 1}
    of_the_job = {"queued": "queued", "running": "running"}.get(state, "delayed")
    assert numbers(desk).by("queue_jobs", "queue", "state") == {("flow", of_the_job): 1}


def test_a_function_is_as_old_as_its_oldest_unfinished_run(desk: Desk) -> None:
    now = desk.store.client.time()[0]
    runs = []
    for age in (500, 100):
        runs.append(desk.start(f"event of {age}")[1].decode())
        desk.store.client.hset(desk.store.keys.run(runs[-1]), "created", (now - age) * 1000)
    ages = []
    for run in (*runs, None):
        ages.append(numbers(desk)("run_oldest_active_seconds", app="desk", function="errand"))
        if run is not None:
            assert desk.store.cancel_run(run, "")[0] == "cancelled"
    assert ages == [pytest.approx(505, abs=6), pytest.approx(105, abs=6), 0]


def test_a_function_behind_a_hundred_older_runs_of_others_has_no_age_rather_than_a_wrong_one(desk: Desk) -> None:
    client, keys = desk.store.client, desk.store.keys
    now = client.time()[0]
    for i in range(101):
        created = (now - 500 + i) * 1000
        client.zadd(keys.active("desk"), {f"run-{i}": created})
        client.hset(keys.run(f"run-{i}"), mapping={"function": "old" if i < 100 else "errand", "created": created})
    ages = numbers(desk).by("run_oldest_active_seconds", "function")
    assert ages.keys() == {("old",)}
    assert 500 <= ages["old",] < 510


def test_a_worker_is_busy_while_a_body_runs_and_idle_before_and_after(redis_url: str) -> None:
    begun, gate = Gate(), Gate()
    case = Case(SYNC, redis_url)

    def body() -> None:
        begun.set()
        gate.wait(20)

    @case.function()
    def f(event: Any, step: Any) -> Any:
        yield step.run("x", body)

    case.start()
    until(lambda: numbers(case).by("workers", "queue", "state") == {("flow", "idle"): 1})
    run = case.send()
    assert begun.wait(20)
    assert numbers(case).by("workers", "queue", "state") == {("flow", "busy"): 1}
    gate.set()
    case.ended(run)
    until(lambda: numbers(case).by("workers", "queue", "state") == {("flow", "idle"): 1})
    case.close()
    assert numbers(case).by("workers", "queue", "state") == {}


def test_a_worker_that_died_long_ago_or_listens_elsewhere_is_not_counted(desk: Desk) -> None:
    client, keys = desk.store.client, desk.store.keys
    client.sadd(keys.rq_workers, "rq:worker:dead", "rq:worker:elsewhere", "rq:worker:here")
    client.hset("rq:worker:elsewhere", mapping={"queues": "mails", "state": "busy"})
    client.hset("rq:worker:here", mapping={"queues": "mails,flow", "state": "suspended"})
    assert numbers(desk).by("workers", "queue", "state") == {("flow", "idle"): 1}


def test_timers_are_due_and_late_until_somebody_fires_them(desk: Desk) -> None:
    desk.start()
    assert desk.sleep(desk.claim().lease, recorded="", ms=1) == "scheduled"
    until(lambda: numbers(desk)("timers_due"))
    told = numbers(desk)
    assert told("timers_due") == 1
    assert 0 < told("scheduler_lag_seconds") < 10
    assert "flow_scheduler_last_tick_timestamp_seconds" not in told.names
    assert desk.store.fire_due()[0] == 1
    told = numbers(desk)
    assert (told("timers_due"), told("scheduler_lag_seconds")) == (0, 0)
    assert abs(told("scheduler_last_tick_timestamp_seconds") - time.time()) < 10


def test_a_timer_that_is_not_due_yet_is_not_late(desk: Desk) -> None:
    desk.start()
    assert desk.sleep(desk.claim().lease, recorded="", ms=60_000) == "scheduled"
    assert (numbers(desk)("timers_due"), numbers(desk)("scheduler_lag_seconds")) == (0, 0)


# -- Redis -----------------------------------------------------------------------------------------------------------


def test_when_redis_is_down_that_is_all_that_is_said_until_it_is_back(
    fresh_server: Server, fresh_collector: Collector
) -> None:
    assert scrape(fresh_collector)("redis_up") == 1
    fresh_server.kill()
    until(lambda: scrape(fresh_collector).samples == {("flow_redis_up", frozenset()): 0})
    fresh_server.restart()
    until(lambda: scrape(fresh_collector)("redis_up"))
    assert "flow_timers_due" in scrape(fresh_collector).names


def test_a_connection_that_died_between_two_scrapes_is_no_outage(
    fresh_server: Server, fresh_collector: Collector
) -> None:
    before = scrape(fresh_collector)
    fresh_server.restart()
    again = until(lambda: (now := scrape(fresh_collector)).samples != before.samples and now)
    assert again("redis_up") == 1


def test_scrapers_that_come_at_once_cost_redis_one_reading(
    collector: Collector, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowlib.metrics.collector.CACHED", 3600.0)  # on a busy machine they come seconds apart
    redis.config_resetstat()
    with ThreadPoolExecutor(10) as pool:
        readings = list(pool.map(lambda _: collector.collect(), range(10)))
    assert all(reading is readings[0] for reading in readings)
    assert redis.info("commandstats")["cmdstat_time"]["calls"] == 1


def test_a_reading_costs_no_more_when_a_hundred_times_as_many_jobs_wait(desk: Desk, redis: redis_py.Redis) -> None:
    def cost() -> int:
        redis.config_resetstat()
        numbers(desk)
        return sum(stat["calls"] for stat in redis.info("commandstats").values())

    few = cost()
    for i in range(110):
        desk.start(f"event-{i}")
    bounded = cost()
    for i in range(1000):
        desk.start(f"event-more-{i}")
    assert few < bounded
    assert cost() <= bounded + 10


def test_settings_that_risk_the_runs_are_seen(fresh_server: Server) -> None:
    told = Numbers.at(fresh_server.url)
    assert (told("redis_config_ok", check="noeviction"), told("redis_config_ok", check="aof")) == (1, 1)
    assert told("redis_memory_used_ratio") == 0
    with fresh_server.client() as client:
        for setting, value in (("maxmemory-policy", "allkeys-lru"), ("appendonly", "no"), ("maxmemory", "1gb")):
            client.config_set(setting, value)
    told = Numbers.at(fresh_server.url)
    assert (told("redis_config_ok", check="noeviction"), told("redis_config_ok", check="aof")) == (0, 0)
    assert 0 < told("redis_memory_used_ratio") < 0.5


def test_where_config_is_refused_nothing_is_said_of_it_and_all_else_is(fresh_server: Server) -> None:
    with fresh_server.client() as client:
        client.execute_command("ACL", "SETUSER", "flow", "on", ">secret", "~*", "&*", "+@all", "-config")
    store = Store(fresh_server.url.replace("unix://", "unix://flow:secret@"))
    told = Numbers(render(store))
    store.close()
    assert told("redis_up") == 1
    assert {"flow_build_info", "flow_timers_due"} <= told.names
    assert "flow_redis_config_ok" not in told.names


def test_a_wrong_password_is_no_crash(fresh_server: Server) -> None:
    store = Store(fresh_server.url.replace("unix://", "unix://flow:wrong@"))
    assert Numbers(render(store)).samples == {("flow_redis_up", frozenset()): 0}
    store.close()
