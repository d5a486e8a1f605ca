"""Every trouble that a server can be in, while workers work on it: they wait, go on by themselves, and repeat nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from flowlib import Event
from flowlib.server import Server
from tests import access
from tests.patience import until

from .proxy import DOWN, UP
from .troubled import Proxied, proxied

Trouble = Callable[[Proxied], None]
A_WHILE = 0.4
WORKERS, REFUSALS = 2, 25  # refusals: a second at most and per worker


@pytest.fixture
def fleet(fresh_server: Server, tmp_path: Path) -> Iterator[Proxied]:
    """On database 1: then a connection says SELECT, too, before it can be used."""
    with proxied(fresh_server, tmp_path / "notes", db=1) as fleet:
        yield fleet


def scripts_flushed(fleet: Proxied) -> None:
    again_and_again(fleet.client.script_flush)


def clients_killed(fleet: Proxied) -> None:
    def kill() -> None:
        for kind in ("normal", "pubsub"):
            fleet.client.execute_command("CLIENT", "KILL", "TYPE", kind)

    again_and_again(kill)


def paused(fleet: Proxied) -> None:
    fleet.client.client_pause(round(A_WHILE * 1000))
    fleet.endure(A_WHILE)


def full(fleet: Proxied) -> None:
    """Runs under way go on, so who works is no sign of trouble; of idle workers there is a test of its own."""
    fleet.client.config_set("maxmemory", 1)
    time.sleep(A_WHILE)
    fleet.client.config_set("maxmemory", 0)


def busy(fleet: Proxied) -> None:
    """Somebody's script does not come to an end, and new connections are made meanwhile."""

    def spin() -> None:
        with pytest.raises(redis.ResponseError, match=r"[Ss]cript killed"):
            fleet.client.eval("while true do end", 0)

    fleet.client.config_set("busy-reply-threshold", 10)
    thread = threading.Thread(target=spin)
    thread.start()
    fleet.endure(A_WHILE / 2)
    fleet.proxy.cut()
    fleet.endure(A_WHILE / 2)
    fleet.client.script_kill()
    thread.join()


def read_only(fleet: Proxied) -> None:
    """A replica of a master that is not there."""
    fleet.client.replicaof("127.0.0.1", "1")
    fleet.endure(A_WHILE)
    fleet.client.replicaof("NO", "ONE")


def slow(fleet: Proxied) -> None:
    fleet.proxy.delay = 0.05
    assert fleet.goes_on()
    fleet.proxy.delay = 0.0


def silent(fleet: Proxied) -> None:
    """As when a firewall forgets all connections: what is sent arrives nowhere, and nobody is told."""
    fleet.proxy.hush(UP, DOWN)
    fleet.endure(A_WHILE)
    fleet.proxy.speak()


def other_password(fleet: Proxied) -> None:
    allow(fleet, "resetpass", ">changed")
    fleet.proxy.cut()
    fleet.endure(A_WHILE)
    allow(fleet, "resetpass", f">{access.PASSWORD}")


def user_disabled(fleet: Proxied) -> None:
    allow(fleet, "off")
    fleet.proxy.cut()
    fleet.endure(A_WHILE)
    allow(fleet, "on")


def not_permitted(fleet: Proxied) -> None:
    allow(fleet, "-evalsha")
    fleet.endure(A_WHILE / 2)
    allow(fleet, "nocommands")
    fleet.proxy.cut()
    fleet.endure(A_WHILE / 2)
    allow(fleet, *access.rule())


def allow(fleet: Proxied, *rules: str) -> None:
    fleet.client.execute_command("ACL", "SETUSER", access.USER, *rules)


def again_and_again(act: Callable[[], Any]) -> None:
    end = time.monotonic() + A_WHILE
    while time.monotonic() < end:
        act()
        time.sleep(0.02)


TROUBLES: list[Trouble] = [
    scripts_flushed, clients_killed, paused, full, busy, read_only, slow, silent, other_password, user_disabled, not_permitted,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_workers_wait_and_go_on_by_themselves_whatever_befalls_their_server(fleet: Proxied) -> None:
    """BEHAVIOURS 146, 37; I3, I4, I5."""
    fleet.start(runs=9 * len(TROUBLES), seconds=0.45 * len(TROUBLES))
    for trouble in TROUBLES:
        trouble(fleet)
        assert fleet.goes_on(), trouble.__name__
    assert fleet.faults() == []


@pytest.mark.chaos
@pytest.mark.timeout(300)
@pytest.mark.parametrize("round", range(3))
@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.__name__)
def test_workers_go_on_by_themselves_after(trouble: Trouble, round: int, fleet: Proxied) -> None:
    """BEHAVIOURS 146, 37; I3, I4, I5: five times in a row, with four workers."""
    fleet.start(workers=4, runs=200, seconds=8.0)
    for _ in range(5):
        trouble(fleet)
        assert fleet.goes_on()
    assert fleet.faults() == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "outages", [(0.5, 3), pytest.param((30,), marks=pytest.mark.chaos), pytest.param((300,), marks=pytest.mark.chaos)]
)
def test_an_outage_of_any_length_costs_nothing_but_its_time(outages: tuple[float, ...], fleet: Proxied) -> None:
    """BEHAVIOURS 146, DESIGN §7; I3, I4, I5: what was finished is recorded, and no body is started again."""
    fleet.start(seconds=2.0)
    for seconds in outages:
        fleet.server.kill()
        fleet.endure(seconds)
        fleet.server.restart()
        assert fleet.goes_on()
    assert fleet.faults() == []


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_idle_workers_wait_for_a_full_server_to_let_them_have_the_job_that_is_queued(fleet: Proxied) -> None:
    """BEHAVIOURS 37, 146: nothing can be claimed. Who asks in a frenzy mostly waits for answers, so these are counted."""
    fleet.start(workers=WORKERS, runs=8)
    fleet.wait()
    fleet.client.set(fleet.store.keys.rq_suspended, 1)  # so that the job is still queued when the server is full
    fleet.app.send(Event("short", {}, id="event-8"))
    until(lambda: fleet.client.llen(fleet.store.keys.rq_queue("flow")) == 1)
    fleet.client.config_set("maxmemory", 1)
    fleet.client.delete(fleet.store.keys.rq_suspended)
    until(lambda: refusals(fleet))
    seconds = 2.0
    fleet.endure(seconds)
    assert refusals(fleet) < REFUSALS * WORKERS * (seconds + 1)
    assert fleet.client.llen(fleet.store.keys.rq_queue("flow")) == 1
    fleet.client.config_set("maxmemory", 0)
    until(lambda: fleet.ended() == 9)
    assert fleet.faults() == []


def refusals(fleet: Proxied) -> int:
    """By a server that was full, so far."""
    errors: Any = fleet.client.info("errorstats")
    return int(errors.get("errorstat_OOM", {"count": 0})["count"])
