"""`flow worker` started while Redis is away, loads its data or does not answer: it waits, says so, and hears SIGTERM."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowlib import App, Event
from flowlib.server import Server
from tests.cli.conftest import FlowProcess
from tests.patience import until

MODULE = """
from flowlib import App, Event, Step

app = App("shop")

@app.function(on="x")
def work(event: Event[dict], step: Step) -> str:
    return step.run("first", str)
"""
KEYS, MICROSECONDS = 8_000, 100  # that Redis loads when it starts, and that each takes it
NOWHERE = "redis://127.0.0.1:1/0"

Start = Callable[..., FlowProcess]


@pytest.fixture
def slow_server(tmp_path: Path) -> Iterator[Server]:
    """It takes a while to start again once it has some data."""
    with Server.start(tmp_path / "server", config={"key-load-delay": str(MICROSECONDS)}) as server:
        yield server


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `flow worker shop:app` on that Redis; what still runs at the end is killed."""
    Path("shop.py").write_text(MODULE)
    started: list[FlowProcess] = []

    def start(url: str, *arguments: str) -> FlowProcess:
        environment = {"FLOW_REDIS_URL": url}
        started.append(FlowProcess("worker", "shop:app", *arguments, environment=environment, log=Path("log")))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()  # those of a supervisor end with it


def waiting() -> list[str]:
    return [line for line in Path("log").read_text().splitlines() if line.endswith("waiting for it")]


def away(server: Server) -> Callable[[], None]:
    server.kill()
    return server.restart


def full_of_data(server: Server) -> Callable[[], None]:
    """So that it loads for a while when it is back."""
    with server.client() as client:
        pipe = client.pipeline(transaction=False)
        for number in range(KEYS):
            pipe.set(f"key-{number}", "")
        pipe.execute()
    return away(server)


def frozen(server: Server) -> Callable[[], None]:
    os.kill(server.pid, signal.SIGSTOP)
    return lambda: os.kill(server.pid, signal.SIGCONT)


TROUBLES = [
    pytest.param(away, [], "no Redis at", id="away"),
    pytest.param(away, ["--processes", "2"], "no Redis at", id="away-processes"),
    pytest.param(full_of_data, ["--name", "anna"], "loading", id="loading"),
    pytest.param(frozen, [], "Timeout", id="frozen"),
]


@pytest.mark.parametrize(("trouble", "arguments", "reason"), TROUBLES)
def test_a_worker_that_starts_without_redis_waits_for_it(
    slow_server: Server,
    start: Start,
    trouble: Callable[[Server], Callable[[], None]],
    arguments: list[str],
    reason: str,
) -> None:
    """BEHAVIOURS 146, DESIGN §7; and does not go on about it."""
    url = f"{slow_server.url}{'&' if '?' in slow_server.url else '?'}socket_timeout=2"
    end_trouble = trouble(slow_server)
    try:
        worker = start(url, *arguments)
        until(waiting)
        assert not worker.ends(within=0)
    finally:
        end_trouble()
    assert any(reason in line for line in waiting())
    app = App("shop", redis_url=slow_server.url)
    app.send(Event("x", {}, id="1"))
    until(lambda: app.runs.list(status="completed"))
    app.store.close()
    assert worker.stop() == 0
    assert len(waiting()) <= 6  # for each process and each reason one; it changes while Redis starts
    assert not [word for word in ("Traceback", "died", "backed off") if word in Path("log").read_text()]


@pytest.mark.parametrize("arguments", [[], ["--processes", "2"]], ids=["alone", "processes"])
def test_a_wrong_address_is_told_at_once_and_sigterm_is_heard(start: Start, arguments: list[str]) -> None:
    worker = start(NOWHERE, *arguments)
    until(waiting)
    assert "no Redis at redis://127.0.0.1:1" in waiting()[0]
    assert "start one, or set FLOW_REDIS_URL or --redis-url" in waiting()[0]
    assert worker.stop() == 0
    assert "Traceback" not in Path("log").read_text()
