"""`flow doctor` and `flow metrics`: what is said of a server, its workers and its runs."""

from __future__ import annotations

import signal
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest
import redis as redis_py

from flowlib import Event
from flowlib.server import ANY_PORT, Server
from tests.cli import shop
from tests.cli.conftest import Flow, Said, Shop, flow_command, free_port
from tests.patience import until


def verdicts(said: Said) -> dict[str, str]:
    return {check["name"]: check["status"] for check in said.document["checks"]}


def told(said: Said, check: str) -> str:
    return next(line for line in said.out.splitlines() if f" {check}: " in line)


def test_all_is_well_where_a_worker_lives(flow: Flow, redis: redis_py.Redis, at_work: Shop) -> None:
    at_work.order("o1")
    until(lambda: redis.exists("flow:tick"))
    redis.config_set("maxmemory", 2**30)
    try:
        said = flow("doctor")
    finally:
        redis.config_set("maxmemory", 0)
    assert said.code == 0
    assert {line.split()[0] for line in said.out.splitlines() if " latency: " not in line} == {"ok"}
    assert told(said, "workers").endswith("workers: flow: 1")
    assert "of 1.0 GB used" in told(said, "memory")


def test_an_empty_server_is_warned_of_and_nothing_is_stored(flow: Flow, redis: redis_py.Redis) -> None:
    said = flow("doctor", "--json")
    assert said.code == 0
    assert said.document["ok"] is True
    assert verdicts(said)["workers"] == verdicts(said)["timers"] == verdicts(said)["memory"] == "warn"
    assert redis.dbsize() == 0


def test_a_server_that_would_lose_runs_fails(flow_anywhere: Flow, careless_server: Server) -> None:
    said = flow_anywhere("doctor", "--redis-url", careless_server.url)
    assert said.code == 1
    assert told(said, "append-only file").startswith("fail")
    assert told(said, "append-only file").endswith("→ appendonly yes")
    assert told(said, "eviction").startswith("fail  eviction: allkeys-lru")
    assert told(said, "appendfsync").startswith("warn")
    assert flow_anywhere("doctor", "--redis-url", careless_server.url, "--json").document["ok"] is False


def test_runs_whose_function_nobody_knows_fail_and_are_listed(flow: Flow, at_work: Shop) -> None:
    run = at_work.bill("b1")
    known = shop.app.functions.pop("collect")
    try:
        at_work.app.send(Event("shop/bill.paid", {"bill": "b1"}))
        until(lambda: at_work.app.runs.get(run).state == "parked")
        said = flow("doctor")
        assert said.code == 1
        assert told(said, "parked runs").startswith(
            "fail  parked runs: 1 of shop/collect: no worker that came by knows"
        )
        (line,) = flow("runs", "--status", "parked").out.splitlines()[1:]
        assert line.startswith(f"{run}  shop/collect  parked")
        assert line.endswith("no worker that came by knows collect")
        assert 'flow_runs_active{app="shop",function="collect",state="parked"} 1.0' in flow("metrics", "--once").out
    finally:
        shop.app.functions["collect"] = known


def test_a_full_server_fails(flow: Flow, redis: redis_py.Redis) -> None:
    redis.config_set("maxmemory", int(redis.info("memory")["used_memory"] * 1.01))
    try:
        said = flow("doctor")
    finally:
        redis.config_set("maxmemory", 0)
    assert said.code == 1
    assert told(said, "memory").startswith("fail")


def test_jobs_in_a_queue_where_nobody_works_fail(flow: Flow, redis: redis_py.Redis, at_work: Shop) -> None:
    redis.sadd("flow:queues", "slow")
    assert told(flow("doctor"), "workers").startswith("warn")
    redis.rpush("rq:queue:slow", "some-job")
    said = flow("doctor")
    assert said.code == 1
    assert "'slow' has 1  → flow worker MODULE:APP --queues slow" in told(said, "workers")


def test_a_stranded_run_is_found_and_left_as_it_is(flow: Flow, redis: redis_py.Redis, at_work: Shop) -> None:
    """I4: a run with nothing that moves it, as no crash can make it, but somebody's `DEL` can."""
    run = at_work.hold()
    at_work.stop()
    assert verdicts(flow("doctor", "--json"))["stranded runs"] == "ok"
    redis.hset(f"flow:run:{run}", mapping={"status": "running", "state": "queued"})
    redis.zadd("flow:active:shop", {run: 1})
    redis.delete("flow:leases", "rq:queue:flow")
    before = redis.hgetall(f"flow:run:{run}")
    said = flow("doctor")
    assert said.code == 1
    assert told(said, "stranded runs").startswith(f"fail  stranded runs: 1 have nothing that moves them: {run}")
    assert redis.hgetall(f"flow:run:{run}") == before


def test_what_may_not_be_looked_at_is_said_to_be_so(flow_anywhere: Flow, managed_server: Server) -> None:
    """As on a managed server, where CONFIG, LATENCY and SLOWLOG are refused."""
    url = f"redis://guest:guest@127.0.0.1:{managed_server.port}/0"
    said = flow_anywhere("doctor", "--redis-url", url)
    assert said.code == 0
    assert told(said, "appendfsync").startswith("warn  appendfsync: cannot check")
    assert told(said, "append-only file").startswith("ok")
    assert told(said, "stranded runs").startswith("ok")
    assert "guest:guest" not in said.out


@pytest.fixture
def careless_server() -> Iterator[Server]:
    settings = {"appendonly": "no", "appendfsync": "no", "maxmemory-policy": "allkeys-lru"}
    with Server.start(config=settings) as server:
        yield server


@pytest.fixture
def managed_server() -> Iterator[Server]:
    with Server.start(port=ANY_PORT) as server:
        with server.client() as client:
            rights = "on >guest ~* &* +@all -@admin -@dangerous +info -config -latency -slowlog"
            client.execute_command("ACL", "SETUSER", "guest", *rights.split())
        yield server


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_metrics_once(flow: Flow, at_work: Shop) -> None:
    at_work.order("o1")
    said = flow("metrics", "--once")
    assert 'flow_runs_finished_total{app="shop",function="fulfil",status="completed"} 1.0' in said.out


def test_metrics_are_served_until_sigterm(flow: Flow, redis_url: str) -> None:
    command = flow_command("metrics", "--port", str(free_port()))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        announced = server.stderr.readline()
        try:
            assert "http://127.0.0.1:" in announced
            with urllib.request.urlopen(announced.split()[2], timeout=20) as reply:
                assert b"flow_redis_up 1.0" in reply.read()
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
