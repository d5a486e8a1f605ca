"""How worker processes come and go: by small programs that stand in for workers, and real signals. No Redis, no steps."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowlib import board as board_module
from flowlib.worker import supervisor as module
from flowlib.worker.keeper import Keeper
from flowlib.worker.supervisor import Supervisor
from tests.patience import until

# Its argument says what becomes of it; `ledger` tells what it did, in the order in which it was done.
WORKER = f"""
import importlib.util, os, signal, sys, time
spec = importlib.util.spec_from_file_location("board", {board_module.__file__!r})
module = sys.modules["board"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
behaviour, options = sys.argv[1], dict(zip(sys.argv[2::2], sys.argv[3::2]))
board = module.Board.at(int(options["--board"]))

def note(word):
    ledger = os.open("ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(ledger, f"{{word}} {{os.getpid()}}\\n".encode())
    os.close(ledger)

def leave(*_):
    note("told")
    if behaviour != "stubborn":
        sys.exit(0)

signal.signal(signal.SIGTERM, leave)
if behaviour == "broken":
    note("broken")
    sys.exit(3)
note("up")
board.report(0)
jobs, hoard = 0, []
if behaviour == "late":
    board.hold(0, "job:1")
    board.body(0, time.monotonic() + 0.1)
while True:
    time.sleep(0.02)
    if behaviour == "busy":
        jobs += 1
        board.report(jobs)
    if behaviour == "greedy":
        hoard.append(os.urandom(1 << 22))
"""

Fleet = Callable[..., Supervisor]


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Fleet]:
    """Starts a supervisor of stand-ins that behave so. It waits for nothing longer than it must."""
    Path("worker.py").write_text(WORKER)
    caplog.set_level(logging.INFO, "flowlib.supervisor")
    monkeypatch.setattr(module, "MARGIN", 0.3)
    monkeypatch.setattr(module, "FIRST_WAIT", 0.1)
    started: list[Supervisor] = []

    def start(behaviour: str, count: int = 2, **settings: Any) -> Supervisor:
        command = [sys.executable, "-S", "worker.py", behaviour]
        settings = {"grace": 0.1, "kill_after": 0.3, **settings}
        supervisor = Supervisor(count, command, os.environ, Keeper(10.0), prefix="x", **settings)
        started.append(supervisor)
        supervisor.start()
        return supervisor

    yield start
    for supervisor in started:
        supervisor.stop()


def told() -> list[tuple[str, int]]:
    ledger = Path("ledger").read_text() if Path("ledger").exists() else ""
    return [(word, int(pid)) for word, pid in map(str.split, ledger.splitlines())]


def count(word: str) -> int:
    return Counter(word for word, _ in told())[word]


def mended_until(supervisor: Supervisor, holds: Callable[[], Any]) -> None:
    def look() -> Any:
        supervisor.mend()
        return holds()

    until(look)


def transitions(caplog: pytest.LogCaptureFixture) -> Counter[str]:
    return Counter(getattr(record, "transition", "") for record in caplog.records)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# -- birth -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
def test_a_worker_inherits_no_socket_and_nothing_but_its_lifeline_and_its_board(fleet: Fleet) -> None:
    """A connection that two processes write to is a broken one."""
    careless = socket.socketpair()
    for end in careless:
        end.set_inheritable(True)
    supervisor = fleet("steady", count=1)
    mended_until(supervisor, lambda: count("up") == 1)
    (_, pid) = told()[0]
    opened = {int(fd.name): fd.readlink().name for fd in Path(f"/proc/{pid}/fd").iterdir()}
    beyond = {fd: name for fd, name in opened.items() if fd > 2}
    assert len(beyond) <= 2, beyond  # the mapped memory keeps a descriptor of its own
    assert not [name for name in beyond.values() if name.startswith("socket")]
    for end in careless:
        end.close()


def test_one_that_cannot_be_started_is_waited_for_longer_and_longer_and_reported(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = fleet("broken", count=1)
    mended_until(supervisor, lambda: transitions(caplog)["backed off"] >= 3)
    waits = [record.detail.rpartition("again in ")[2] for record in caplog.records if record.transition == "backed off"]  # type: ignore[attr-defined]
    assert waits[:3] == ["0.1 s", "0.2 s", "0.4 s"]
    assert count("broken") <= 4


def test_it_is_still_waited_for_after_a_thousand_failures(fleet: Fleet) -> None:
    """2 to the power of that is more than a float can hold."""
    supervisor = fleet("broken", count=1)
    supervisor._places[0].short_lived = 5000
    mended_until(supervisor, lambda: not supervisor.names)
    assert supervisor._places[0].due - time.monotonic() <= module.LONGEST_WAIT


# -- death -----------------------------------------------------------------------------------------------------------


def test_one_that_dies_is_followed_at_once_by_one_with_another_name(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = fleet("steady")
    mended_until(supervisor, lambda: count("up") == 2)
    before = supervisor.names
    os.kill(told()[0][1], signal.SIGKILL)
    mended_until(supervisor, lambda: count("up") == 3)
    assert len(set(before) & set(supervisor.names)) == 1
    assert transitions(caplog) == {"started": 3, "died": 1}
    assert any(record.levelname == "WARNING" and "signal 9" in record.message for record in caplog.records)


def test_all_are_told_to_go_and_those_that_do_not_are_killed(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    """BEHAVIOURS 130, for those that do."""
    stubborn, steady = fleet("stubborn"), fleet("steady")
    mended_until(stubborn, lambda: count("up") == 4)
    stubborn.stop()
    steady.stop()
    assert not [pid for _, pid in told() if lives(pid)]
    assert count("told") == 4
    assert transitions(caplog) == {"started": 4, "draining": 4, "killed": 2, "stopped": 2}


def test_one_whose_body_runs_over_its_time_is_killed_and_followed_at_once(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """Not counted as a failure of the worker: that would keep the next one waiting."""
    supervisor = fleet("late", count=1)
    mended_until(supervisor, lambda: transitions(caplog)["killed"] == 3)
    assert transitions(caplog)["backed off"] == 0
    (first, *_) = [record for record in caplog.records if getattr(record, "transition", "") == "killed"]
    assert "job:1 ran over its time" in first.message


def test_one_that_was_stopped_is_left_alone_and_gets_its_time_when_it_goes_on(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """It can do nothing while it is stopped: neither hold a lease nor end its body. BEHAVIOURS 132."""
    supervisor = fleet("late", count=1, kill_after=60.0)
    mended_until(supervisor, lambda: supervisor.held == ["job:1"])
    (child,) = supervisor._children
    os.kill(child.pid, signal.SIGSTOP)
    mended_until(supervisor, lambda: supervisor.held == [])
    supervisor._kill_after = 0.0
    seen = child._looked
    mended_until(supervisor, lambda: child._looked > seen)
    assert transitions(caplog)["killed"] == 0
    os.kill(child.pid, signal.SIGCONT)
    mended_until(supervisor, lambda: transitions(caplog)["killed"] == 1)


# -- succession ------------------------------------------------------------------------------------------------------


def fewest() -> int:
    """How few were up and not told to go, at any time since the first two were up."""
    up, levels = set[int](), list[int]()
    for word, pid in told():
        (up.add if word == "up" else up.discard)(pid)
        levels.append(len(up))
    return min(levels[1:])


@pytest.mark.parametrize(
    ("behaviour", "limits"), [("busy", {"max_jobs": 5}), ("greedy", {"max_memory": 40 << 20})], ids=["jobs", "memory"]
)
def test_a_worn_one_is_replaced_before_it_goes(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, behaviour: str, limits: dict[str, int]
) -> None:
    """There is never one fewer than there should be; it is drained, and not killed, however worn it is."""
    supervisor = fleet(behaviour, **limits, grace=20.0)
    mended_until(supervisor, lambda: transitions(caplog)["stopped"] >= 4)
    assert fewest() == 2
    assert transitions(caplog)["killed"] == transitions(caplog)["died"] == 0
    (why, *_) = [record.detail for record in caplog.records if record.transition == "recycled"]  # type: ignore[attr-defined]
    assert ("jobs" if behaviour == "busy" else "MB of memory") in why


def test_one_that_is_too_large_from_the_start_is_not_replaced_all_the_time(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = fleet("steady", count=1, max_memory=1)
    mended_until(supervisor, lambda: transitions(caplog)["recycled"] >= 4)
    assert supervisor._places[0].due - supervisor._looked > 2 * module.FIRST_WAIT
