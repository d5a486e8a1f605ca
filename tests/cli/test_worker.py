"""`flow worker`: a process that runs an app, says what it does, and ends in good order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from flowlib import App, Event
from tests.cli.conftest import ROOT, Flow, FlowProcess, flow_command, free_port
from tests.patience import until

MODULE = """
import logging, os, time
from flowlib import App, Event, Step

log = logging.getLogger("shop")
app = App("shop")

@app.function(on="x")
def work(event: Event[dict], step: Step) -> str:
    step.run("first", first)
    return step.run("second", second, event.data.get("seconds", 0))

def first() -> None:
    log.info("at it", extra={"weight": 3})
    print("printed")

def second(seconds: float) -> str:
    time.sleep(seconds)
    return os.environ.get("FLOW_REDIS_URL", "")
"""

Start = Callable[..., FlowProcess]


@pytest.fixture
def app(redis_url: str) -> Iterator[App]:
    """To send to and to look at; the worker has its own, from shop.py in this folder."""
    Path("shop.py").write_text(MODULE)
    app = App("shop", redis_url=redis_url)
    yield app
    app.store.close()


@pytest.fixture
def start(redis_url: str) -> Iterator[Start]:
    """Starts `flow worker shop:app` with more arguments; what still runs at the end is killed."""
    started: list[FlowProcess] = []

    def start(*arguments: str, **environment: str) -> FlowProcess:
        environment = {"FLOW_REDIS_URL": redis_url, **environment}
        started.append(FlowProcess("worker", "shop:app", *arguments, environment=environment))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


def end(worker: FlowProcess) -> tuple[int, str, list[str]]:
    """By SIGTERM: the exit code, what was printed, and the lines that were logged."""
    return worker.stop(), worker.out, worker.err.splitlines()


def registered(redis: redis_py.Redis) -> Any:
    return redis.smembers("rq:workers")


def test_it_runs_what_is_sent_and_ends_with_code_0_on_sigterm(app: App, redis: redis_py.Redis, start: Start) -> None:
    worker = start()
    app.send(Event("x", {}, id="1"))
    until(lambda: app.runs.list(status="completed"))
    code, out, lines = end(worker)
    assert (code, out) == (0, "printed\n")
    assert not registered(redis)
    (run,) = app.runs.list()
    (at_it,) = [line for line in lines if "at it" in line]
    assert at_it.endswith(f" INFO shop: at it [{run.id} first#1]")


def test_an_app_that_a_function_of_another_module_makes_is_served_where_it_is_named(app: App, start: Start) -> None:
    made = "\n".join(f"    {line}" for line in MODULE.splitlines())
    Path("making.py").write_text(f"def make():{made}\n    return app\n")
    Path("shop.py").write_text("from making import make\n\napp = make()\n")
    worker = start()
    app.send(Event("x", {}))
    until(lambda: app.runs.list(status="completed"))
    assert end(worker)[0] == 0
    (run,) = app.runs.list()
    assert app.store.client.hget(app.store.keys.run(run.id), "location") == b"shop:app"  # where a stock worker finds it


HANGING = """
import asyncio, time
from flowlib import App, AsyncStep, Event, StepFailed

app = App("shop")

@app.function(on="x")
async def work(event: Event[dict], step: AsyncStep) -> str:
    try:
        await step.options(timeout=0.2, retries=0).run("hang", hang)
    except StepFailed as failed:
        return failed.type

async def hang() -> None:
    await asyncio.to_thread(time.sleep, 3600)
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_thread_that_an_async_step_has_left_behind_keeps_no_worker_from_ending(
    app: App, redis: redis_py.Redis, start: Start, threads: str
) -> None:
    Path("shop.py").write_text(HANGING)
    worker = start("--threads", threads)
    app.send(Event("x", {}))
    (run,) = until(lambda: app.runs.list(status="completed"))
    assert run.result == "StepTimeout"
    code, _, lines = end(worker)
    assert code == 0
    assert not registered(redis)
    assert any("1 threads that async steps began do not end" in line for line in lines)


def test_a_step_that_runs_at_sigterm_is_finished(app: App, redis: redis_py.Redis, start: Start) -> None:
    worker = start()
    app.send(Event("x", {"seconds": 1}, id="1"))
    until(lambda: [run for run in app.runs.list() if run.step == "second"])
    assert end(worker)[0] == 0
    (run,) = app.runs.list()
    assert (run.recorded, run.attempt) == (2, 1)


def test_sigterm_while_the_app_is_imported_ends_it_with_code_0(app: App, redis: redis_py.Redis, start: Start) -> None:
    Path("shop.py").write_text("open('importing', 'w').close()\nimport time\ntime.sleep(30)\n" + MODULE)
    worker = start()
    until(Path("importing").exists)
    assert end(worker)[0] == 0
    assert redis.dbsize() == 0


def test_burst_ends_when_nothing_is_queued(app: App, redis: redis_py.Redis, start: Start) -> None:
    app.send([Event("x", {}, id=str(n)) for n in range(3)])
    worker = start("--burst")
    assert worker.exit_code == 0
    assert [run.status for run in app.runs.list()] == ["completed"] * 3


def test_burst_does_what_a_killed_worker_left(app: App, redis: redis_py.Redis, start: Start) -> None:
    """I4, where all workers are bursts: an event that was read, a step that was begun, and a timer that is due."""
    keys = app.store.keys
    worker = start()
    app.send(Event("x", {"seconds": 60}, id="begun"))
    until(lambda: [run for run in app.runs.list() if run.step == "second"])
    worker.kill()
    app.send(Event("x", {}, id="read"))
    reply: Any = redis.xreadgroup("shop", "dead", {keys.events: ">"})
    ((_, ((entry, _),)),) = reply
    leases: Any = redis.zrange(keys.leases, 0, -1)
    assert redis.xclaim(keys.events, "shop", "dead", 0, [entry], idle=3_600_000, justid=True) == [entry]
    assert redis.zadd(keys.leases, dict.fromkeys(leases, 1), xx=True, ch=True) == 1
    Path("shop.py").write_text(MODULE.replace("time.sleep(seconds)", "pass"))
    assert start("--burst").exit_code == 0
    assert [run.status for run in app.runs.list()] == ["completed"] * 2


def test_burst_fires_what_is_due(app: App, redis: redis_py.Redis, start: Start) -> None:
    Path("shop.py").write_text(MODULE.replace('step.run("first", first)', 'step.sleep("first", 3600)'))
    app.send(Event("x", {}, id="1"))
    assert start("--burst").exit_code == 0
    (run,) = app.runs.list()
    assert run.state == "sleeping"
    timers: Any = redis.zrange(app.store.keys.timers, 0, -1)
    assert redis.zadd(app.store.keys.timers, dict.fromkeys(timers, 1), xx=True, ch=True) == 1
    assert start("--burst").exit_code == 0
    assert app.runs.get(run.id).status == "completed"


@pytest.mark.parametrize("by", ["option", "environment"])
def test_json_logs_have_run_step_and_attempt(app: App, start: Start, by: str) -> None:
    app.send(Event("x", {}, id="1"))
    worker = start("--burst", "--log-format", "json") if by == "option" else start("--burst", FLOW_LOG_FORMAT="json")
    assert worker.exit_code == 0
    lines = [json.loads(line) for line in worker.err.splitlines()]
    (at_it,) = [line for line in lines if line["message"] == "at it"]
    assert {"level", "logger", "ts", "weight"} <= at_it.keys()
    assert (at_it["run"], at_it["step"], at_it["attempt"]) == (app.runs.list()[0].id, "first", 1)
    assert all("run" not in line for line in lines if "queues" in line["message"])


def test_what_user_code_logs_at_info_is_in_the_history(app: App, start: Start) -> None:
    """126"""
    app.send(Event("x", {}, id="1"))
    assert start("--burst").exit_code == 0
    history = app.runs.history(app.runs.list()[0].id)
    assert [entry.detail["text"] for entry in history if entry.kind == "log"] == ["at it", "printed"]


def test_its_name_and_queues_are_those_that_were_asked_for(app: App, redis: redis_py.Redis, start: Start) -> None:
    start("--name", "anna", "--queues", "high, low")
    until(lambda: redis.hget("rq:worker:anna", "queues"))
    assert redis.hget("rq:worker:anna", "queues") == b"high,low"
    second = start("--name", "anna")
    assert second.exit_code == 1
    assert second.err.startswith("flow: error: there is a worker named 'anna'")
    assert redis.hget("rq:worker:anna", "queues") == b"high,low"


def test_metrics_are_served_beside_the_work(app: App, redis: redis_py.Redis, start: Start) -> None:
    port = free_port()
    start("--metrics-port", str(port))
    until(lambda: registered(redis))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as reply:
        told = reply.read().decode()
    assert 'flow_workers{queue="flow",state="idle"} 1.0' in told
    assert "python_info" in told  # this process' own


def test_what_the_app_says_of_its_redis_is_heard_unless_an_option_says_otherwise(
    app: App, redis: redis_py.Redis, redis_url: str, start: Start
) -> None:
    Path("shop.py").write_text(MODULE.replace('App("shop")', f'App("shop", redis_url={redis_url!r})'))
    nowhere = "redis://127.0.0.1:1/0"
    assert start("--burst", FLOW_REDIS_URL=nowhere).exit_code == 0
    assert start("--burst", "--redis-url", nowhere).exit_code == 1
    Path("shop.py").write_text(MODULE.replace('App("shop")', f'App("shop", redis_url={nowhere!r})'))
    assert start("--burst", "--redis-url", redis_url).exit_code == 0


def test_a_worker_ends_when_its_lifeline_is_cut(app: App, redis: redis_py.Redis, redis_url: str) -> None:
    """As when `flow dev` is killed."""
    lifeline, held = os.pipe()
    command = flow_command("worker", "shop:app", "--lifeline", str(lifeline), "--redis-url", redis_url)
    worker = subprocess.Popen(
        command, pass_fds=[lifeline], stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    os.close(lifeline)
    try:
        until(lambda: registered(redis))
        os.close(held)
        assert worker.wait(20) == -signal.SIGKILL
    finally:
        worker.kill()
        worker.wait()


def test_flow_app_names_the_app(flow: Flow, app: App, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOW_APP", "shop:app")
    assert flow("worker", "--burst").code == 0
    assert redis.hkeys("flow:functions:shop") == [b"work"]
