"""A worker killed between any two of its commands to Redis, one after the other: the run ends right, nothing is repeated.

Each case has a database of its own on one server: a worker that is killed at its n-th command, before it is sent or right
after, then a healthy one. The ledger is outside Redis.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowlib import App, Event
from flowlib.store import Store
from flowlib.testing import AFTER, BEFORE, check_invariants, cut
from tests.databases import Databases, strides
from tests.patience import until

from . import forked
from .doom import SETTINGS, cut_late
from .fleet import WorkerProcess
from .ledger import AGAIN, START, Ledger
from .story import ANSWERS, STEPS, TOLD


@dataclass(frozen=True)
class Tale:
    """A run that is to survive: where its app is, the event that starts it, its steps, its result, how often bodies run."""

    app: str
    event: str
    steps: list[str]
    told: list[Any]
    tries: dict[str, int]


STORY = Tale("tests.crash.story:app", "crash.story", STEPS, TOLD, {"first": 1, "flaky": 2, "doomed": 1, "last": 1})
FORKED = Tale("tests.crash.forked:app", "crash.forked", forked.STEPS, forked.TOLD, forked.TRIES)
COROUTINES = Tale(
    "tests.crash.forked:app", "crash.coroutines", forked.COROUTINES, forked.TOLD_BY_COROUTINES,
    forked.TRIES_OF_COROUTINES,
)  # fmt: skip
FURTHEST = 120  # more commands than the main thread of a worker sends for a tale
COMMANDS = 42  # about as many as it sends


@dataclass
class Survival:
    """One case: what was wrong with it, if anything, and whether the worker was killed at all."""

    at: int
    killed: bool
    faults: list[str]


CHAOS = pytest.mark.chaos


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("tale", "when"),
    [
        pytest.param(STORY, BEFORE, id="before"),
        pytest.param(STORY, AFTER, id="after"),
        pytest.param(FORKED, BEFORE, id="forked-before", marks=CHAOS),
        pytest.param(FORKED, AFTER, id="forked-after"),
        pytest.param(COROUTINES, BEFORE, id="coroutines-before", marks=CHAOS),
        pytest.param(COROUTINES, AFTER, id="coroutines-after"),
    ],
)
@strides(2)
def test_a_worker_killed_at_any_command_loses_nothing_and_repeats_no_recorded_step(
    databases: Databases, tale: Tale, when: str, stride: int
) -> None:
    """BEHAVIOURS 142, 143; I1, I3, I4: for every n until a run passes without reaching n."""
    passed = threading.Event()

    def survive(url: str, notes: Path, at: int) -> Survival | None:
        if passed.is_set():
            return None
        survival = live_through(tale, url, notes, at=at, when=when)
        if not survival.killed:
            passed.set()
        return survival

    survivals = [each for each in databases.try_each(range(1, FURTHEST, stride), survive).values() if each is not None]
    assert {each.at: each.faults for each in survivals if each.faults} == {}
    assert passed.is_set(), f"no run passed: raise FURTHEST over {FURTHEST}"
    kills = [each.at for each in survivals if each.killed]
    assert len(kills) >= 3 * len(tale.steps) / stride, (
        f"only {len(kills)} places to be killed at: does the wire still count?"
    )


@pytest.mark.slow
@pytest.mark.timeout(120)
@strides(5)
def test_a_worker_killed_at_any_command_of_any_of_its_threads_loses_nothing_either(
    databases: Databases, stride: int
) -> None:
    """For every n up to `FURTHEST`, as beats and waiting threads send by the clock, the more the longer it takes."""

    def survive(url: str, notes: Path, at: int) -> Survival:
        return live_through(STORY, url, notes, at=at, when=AFTER, any_thread=True)

    survivals = databases.try_each(range(1, FURTHEST, stride), survive)
    assert {at: each.faults for at, each in survivals.items() if each.faults} == {}
    assert sum(each.killed for each in survivals.values()) >= 3 * len(STORY.steps) / stride


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("tale", "when", "stride"),
    [
        pytest.param(STORY, BEFORE, 3, id="story-before"),
        pytest.param(STORY, AFTER, 1, id="story-after"),
        pytest.param(STORY, BEFORE, 1, id="story-before-all", marks=CHAOS),
        *[pytest.param(FORKED, when, 1, id=f"forked-{when}", marks=CHAOS) for when in (BEFORE, AFTER)],
        *[pytest.param(COROUTINES, when, 1, id=f"coroutines-{when}", marks=CHAOS) for when in (BEFORE, AFTER)],
    ],
)
def test_a_connection_that_breaks_at_any_command_loses_and_repeats_nothing(
    databases: Databases, tale: Tale, when: str, stride: int
) -> None:
    """BEHAVIOURS 146; I1, I3: the worker lives on, and sends again what was not answered. No body runs twice."""

    def survive(url: str, notes: Path, at: int) -> Survival:
        return live_through(tale, url, notes, fault=cut, at=at, when=when)

    survivals = databases.try_each(range(1, COMMANDS, stride), survive)
    assert {at: each.faults for at, each in survivals.items() if each.faults or each.killed} == {}


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("tale", [FORKED, COROUTINES], ids=["forked", "coroutines"])
@strides(3)
def test_a_reply_that_is_lost_while_others_go_on_repeats_nothing(databases: Databases, tale: Tale, stride: int) -> None:
    """I3: whoever asks again finds the run where the others have brought it, and must not take that for its own doing."""

    def survive(url: str, notes: Path, at: int) -> Survival:
        patient = {**SETTINGS, "lease_ms": 3000}  # so that none is lost because the machine is busy
        app = connected(tale, url)
        other = WorkerProcess(tale.app, url, notes, **patient)
        unlucky = WorkerProcess(tale.app, url, notes, **patient, fault=cut_late, at=at, when=AFTER)
        until(lambda: app.store.client.scard("rq:workers") == 2)
        app.send(Event(tale.event, {}, id="once"))
        survival = outlive(tale, app, unlucky, notes, at)
        assert other.stop() == 0
        return survival

    survivals = databases.try_each(range(1, COMMANDS, stride), survive)
    assert {at: each.faults for at, each in survivals.items() if each.faults or each.killed} == {}


def live_through(tale: Tale, url: str, notes: Path, **place: Any) -> Survival:
    app = connected(tale, url)
    app.send(Event(tale.event, {}, id="once"))
    return outlive(tale, app, WorkerProcess(tale.app, url, notes, **SETTINGS, **place), notes, place["at"])


def connected(tale: Tale, url: str) -> App:
    return App(tale.app.split(".")[2].partition(":")[0]).connect(store=Store(url))


def outlive(tale: Tale, app: App, doomed: WorkerProcess, notes: Path, at: int) -> Survival:
    """With a healthy worker behind the doomed one, if that was killed."""
    store = app.store
    until(lambda: doomed.ends(within=0.05) or has_ended(app))
    killed = doomed.stop() == -signal.SIGKILL
    faults = check_invariants(store)
    if not has_ended(app):
        store.client.delete(store.keys.housekeeper)  # as if the duty of the dead one had run out: seconds, in each case
        healthy = WorkerProcess(tale.app, store.url, notes, **SETTINGS)
        with contextlib.suppress(AssertionError):  # told below, with the run's history
            until(lambda: healthy.ends(within=0.05) or has_ended(app))
        assert healthy.stop() == 0
    faults += [*faults_of(tale, app, notes, crashes=int(killed)), *check_invariants(store)]
    store.close()
    return Survival(at, killed, faults)


def has_ended(app: App) -> bool:
    """Until then, the run gets its answers whenever it waits for one."""
    runs = app.runs.list()
    for run in runs:
        if run.state == "waiting" and run.step in ANSWERS:
            app.send([Event(f"crash.{run.step}", {"to": {"run": run.id}, "n": n}) for n in ANSWERS[run.step]])
    return any(run.finished for run in runs)


def faults_of(tale: Tale, app: App, notes: Path, crashes: int) -> Iterator[str]:
    """What is wrong with the one run of the app."""
    if not (runs := app.runs.list()):
        yield "the event has started nothing"
        return
    (run,) = runs
    history = app.runs.history(run.id)
    told = "\n".join(f"{entry.at:.3f} {entry.kind} {entry.step} {entry.worker}" for entry in history)
    if (run.status, run.result) != ("completed", tale.told):
        said = Path(f"{notes}.log").read_text()
        yield f"the run is {run.status} ({run.state}) with {run.result!r}, error {run.error}:\n{told}\n{said}"
    lines = Ledger(notes).lines()
    yield from (f"step {line.step!r} was recorded and was started again" for line in lines if line.word == AGAIN)
    started = Counter(line.step for line in lines if line.word == START)
    if (extra := started - Counter(tale.tries)) and extra.total() > crashes:
        said = "\n".join(f"{line.at:.3f} {line.word} {line.step} {line.pid}" for line in lines)
        yield f"started {extra} times too often for {crashes} crashes:\n{told}\n{said}"
    if lacking := Counter(tale.tries) - started:
        yield f"started {lacking} times too few"
    recorded = Counter(entry.step for entry in history if entry.kind == "recorded")
    if recorded != Counter(f"1:{step}" for step in tale.steps):
        yield f"memos were written {recorded} times"


def test_the_deadly_worker_can_be_started_by_hand_and_dies_by_sigkill(redis_url: str, tmp_path: Path) -> None:
    """At its second command: the first claim."""
    command = [sys.executable, "-m", "flowlib.testing", "worker", STORY.app, "--redis-url", redis_url]
    ended = subprocess.run(
        [*command, "--kill-at", "2", "--when", "after"], timeout=20, capture_output=True, check=False
    )
    assert ended.returncode == -9, ended.stderr.decode()
    assert b"Traceback" not in ended.stderr
