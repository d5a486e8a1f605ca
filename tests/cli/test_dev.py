"""`flow dev` in one terminal, the other commands in a second one: the whole story, in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import redis as redis_py

from flowlib.server import Server
from tests.cli.conftest import FlowProcess, Said, run_flow
from tests.patience import until

MODULE = """
import os, time
from dataclasses import dataclass
from flowlib import App, Event, EventType, Step

app = App("shop")

@dataclass(frozen=True)
class Order:
    id: str

placed = EventType("shop/order.placed", Order)

@app.function(on=placed)
def fulfil(event: Event[Order], step: Step) -> str:
    step.run("charge", charge, event.data.id)
    return step.run("pack", pack)

def charge(id: str) -> int:
    print(f"charging {id}", flush=True)  # in one piece: others write to this terminal, too
    while not os.path.exists("open"):
        time.sleep(0.02)
    return os.getpid()

def pack() -> str:
    return "VERSION 1"
"""


FOLLOWED = ["charge, attempt 1", "charging o1", "the run has completed"]


class Dev(FlowProcess):
    """`flow dev shop:app` in this folder, and what it says."""

    def __init__(self, *arguments: str) -> None:
        super().__init__("dev", "shop:app", *arguments)

    @property
    def lines(self) -> list[str]:
        return f"{self.out}{self.err}".splitlines()

    def wait_for(self, text: str, times: int = 1) -> None:
        try:
            until(lambda: sum(text in line for line in self.lines) >= times)
        except AssertionError:
            raise AssertionError(f"{text!r} was not said {times}x: {self.lines}") from None

    def end(self, how: signal.Signals = signal.SIGINT) -> int:
        self.send(how)
        return self.exit_code


@pytest.fixture
def dev() -> Iterator[Callable[..., Dev]]:
    """Starts one and waits until its worker is up; what still runs at the end is killed."""
    Path("shop.py").write_text(MODULE)
    started: list[Dev] = []

    def start(*arguments: str) -> Dev:
        started.append(Dev(*arguments))
        started[-1].wait_for("In another terminal")
        return started[-1]

    yield start
    for each in started:
        each.kill()


def client() -> redis_py.Redis:
    url = Server.find(Path(".flow"))
    assert url is not None
    return redis_py.Redis.from_url(url)


def workers() -> set[bytes]:
    with contextlib.closing(client()) as redis:
        return cast(set[bytes], redis.smembers("rq:workers"))


def pids() -> list[int]:
    """Of the workers, as RQ knows them."""
    with contextlib.closing(client()) as redis:
        return [int(redis.hget(name, "pid") or 0) for name in redis.smembers("rq:workers")]


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2] if Path("/proc").exists() else True


def send(id: str, *more: str) -> Said:
    return run_flow("send", "shop/order.placed", "--data", json.dumps({"id": id}), "--id", id, *more)


def test_two_terminals(dev: Callable[..., Dev]) -> None:
    """Send, look, follow, and stop with Ctrl-C: no flags, no Redis, nothing left running, and the runs are kept."""
    first = dev()
    assert any("shop/fulfil  on shop/order.placed" in line for line in first.lines)
    said = send("o1")
    first.wait_for("charging o1")
    run = run_flow("runs", "--json").document[0]["id"]
    started = f"run {run}  fulfil\n" if "0 of 1 runs have started yet" not in said.err else ""  # a machine may be busy
    assert said.out == f"event o1 is sent\n{started}"

    listed = run_flow("runs").out.splitlines()[1].split()
    assert listed[:3] == [run, "shop/fulfil", "running"]
    assert "▶" in run_flow("show", "last", PYTHONIOENCODING="utf-8").out
    assert ">" in run_flow("show", run, PYTHONIOENCODING="ascii").out
    following = FlowProcess("logs", run[:20], "-f")
    until(lambda: len(following.out.splitlines()) == 2)
    Path("open").touch()
    assert following.exit_code == 0
    for line, part in zip(following.out.splitlines()[:3], FOLLOWED, strict=True):
        assert part in line
    assert '"VERSION 1"' in run_flow("show", run).out
    checks = run_flow("doctor", "--json").document["checks"]
    assert [check for check in checks if check["status"] == "fail" and check["name"] != "latency"] == []

    server, worker = json.loads(Path(".flow/server.lock").read_text())["pid"], pids()[0]
    assert first.end() == 0
    assert not lives(worker)
    assert not lives(server)
    assert run_flow("runs").code == 1  # no server any more

    dev()
    assert run_flow("runs", "--json").document[0]["id"] == run


def test_a_save_brings_the_new_code_and_a_step_that_runs_is_finished_first(dev: Callable[..., Dev]) -> None:
    first = dev()
    send("o1")
    first.wait_for("charging o1")
    Path("shop.py").write_text(MODULE.replace("VERSION 1", "VERSION 2"))
    first.wait_for("shop.py saved: starting again")
    Path("open").touch()
    until(lambda: run_flow("runs", "--json").document[0]["status"] == "completed")
    shown = run_flow("show", "last", "--json").document
    assert shown["result"] == "VERSION 2"
    assert [attempt["outcome"] for attempt in shown["steps"][0]["attempts"]] == ["ok"]
    assert sum("charging" in line for line in first.lines) == 1


def test_code_that_cannot_be_imported_is_told_and_its_repair_is_taken(dev: Callable[..., Dev]) -> None:
    first = dev()
    Path("shop.py").write_text(MODULE + "\noops = nothing")
    first.wait_for("name 'nothing' is not defined (shop.py:")
    first.wait_for("again in")
    Path("shop.py").write_text(MODULE)
    first.wait_for("saved: starting again", times=2)
    Path("open").touch()
    assert send("o1", "--wait", "--timeout", "15").code == 0


def test_a_worker_that_dies_is_replaced(dev: Callable[..., Dev]) -> None:
    first = dev("--workers", "2", "--no-reload")
    until(lambda: len(workers()) == 2)
    before = workers()
    os.kill(pids()[0], signal.SIGKILL)
    first.wait_for("died: signal 9")
    until(lambda: len(workers() - before) == 1)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda how: how.name)
def test_however_it_ends_nothing_is_left_running(dev: Callable[..., Dev], how: signal.Signals) -> None:
    first = dev("--workers", "2")
    until(lambda: len(workers()) == 2)
    processes = [*pids(), json.loads(Path(".flow/server.lock").read_text())["pid"]]
    assert all(map(lives, processes))
    assert first.end(how) == (-how if how == signal.SIGKILL else 0)
    until(lambda: not any(map(lives, processes)))


def test_fresh_forgets_what_was_before(dev: Callable[..., Dev]) -> None:
    Path("open").touch()
    first = dev("--no-reload")
    assert send("o1", "--wait", "--timeout", "15").code == 0
    assert run_flow("dev", "shop:app", "--fresh").err.startswith("flow: error: another `flow dev` runs on .flow")
    first.end()
    dev("--fresh", "--no-reload")
    assert run_flow("runs", "--json").document == []


def test_another_redis_is_used_when_told(redis: redis_py.Redis, redis_url: str, dev: Callable[..., Dev]) -> None:
    dev("--redis-url", redis_url, "--no-reload")
    assert len(redis.smembers("rq:workers")) == 1
    assert not Path(".flow").exists()
