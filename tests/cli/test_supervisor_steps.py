"""What the supervisor of `flow worker --processes N` does for the steps that its workers run, of which it knows nothing."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_py

from flowlib import App, Event, RunFailed
from flowlib.server import Server
from flowlib.testing import check_invariants
from tests.cli.conftest import FlowProcess, run_flow
from tests.patience import until

MODULE = """
import ctypes, os, signal, time
from pathlib import Path
from flowlib import App, Event, Limits, Step

app = App("pool", backoff=0.05)
hoarded = []

@app.function(on="go")
def work(event: Event[dict], step: Step) -> int:
    data = event.data
    body = {"wait": wait, "hog": hog, "hoard": hoard, "stubborn": stubborn}[data.get("how", "wait")]
    limits = {name: data[name] for name in ("timeout", "retries") if name in data}
    return step.options(**limits).run("body", body, data["name"])

@app.function(on="doom", retries=0, limits=Limits(losses=3))
def doomed(event: Event[dict], step: Step) -> int:
    return step.run("die", die, event.data["name"])

def die(name: str) -> None:
    note(name)
    os.kill(os.getpid(), signal.SIGKILL)

def note(name: str) -> int:
    with open(f"{name}.pids", "a") as pids:
        pids.write(f"{os.getpid()}\\n")
    return len(Path(f"{name}.pids").read_text().split())

def wait(name: str) -> int:
    note(name)
    while not Path(f"{name}.go").exists():
        time.sleep(0.01)
    return os.getpid()

def hog(name: str) -> int:
    "Nothing else of this process runs meanwhile: the call keeps the interpreter lock."
    note(name)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGALRM])  # which would end it
    ctypes.PyDLL(None).sleep(int(Path(f"{name}.hog").read_text()))
    return os.getpid()

def hoard(name: str) -> int:
    "Keeps so many bytes for good. They are written to, or they would not count."
    hoarded.append(b"x" * int(Path(f"{name}.bytes").read_text()))
    return os.getpid()

def stubborn(name: str) -> int:
    "Does not let itself be stopped, the first time."
    while note(name) == 1:
        try:
            time.sleep(60)
        except BaseException:
            time.sleep(60)
    return os.getpid()
"""

Pool = Callable[..., FlowProcess]
LEASE = 600.0  # seconds: even the third of it after which it is renewed is longer than any test has time


@pytest.fixture
def app(fresh_server: Server) -> Iterator[App]:
    Path("pool.py").write_text(MODULE)
    app = App("pool", redis_url=fresh_server.url)
    yield app
    app.store.close()


@pytest.fixture
def pool(app: App, fresh_server: Server) -> Iterator[Pool]:
    started: list[FlowProcess] = []

    def start(*arguments: str, lease: float = LEASE, **environment: str) -> FlowProcess:
        command = ("worker", "pool:app", "--processes", "2", "--lease", str(lease), *arguments)
        environment = {"FLOW_REDIS_URL": fresh_server.url, **environment}
        started.append(FlowProcess(*command, environment=environment, log=Path("log")))
        return started[-1]

    yield start
    for supervisor in started:
        supervisor.kill()  # its workers hold its pipe, and end with it


def send(app: App, name: str, event: str = "go", **data: object) -> str:
    app.send(Event(event, {"name": name, **data}, id=name))
    until(lambda: app.runs.of_event(name))
    return app.runs.of_event(name)[0]


def pids(name: str) -> list[int]:
    file = Path(f"{name}.pids")
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def let_go(*names: str) -> None:
    for name in names:
        Path(f"{name}.go").touch()


def log() -> str:
    return Path("log").read_text()


def attempts(app: App, run: str) -> list[tuple[int, str]]:
    return [(attempt.number, attempt.outcome) for step in app.runs.get(run).steps for attempt in step.attempts]


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# -- leases ----------------------------------------------------------------------------------------------------------


def test_a_body_that_hogs_the_interpreter_lock_keeps_its_lease_and_runs_once(app: App, pool: Pool) -> None:
    """BEHAVIOURS 131: its own process can renew nothing, and another would have taken the step over."""
    Path("one.hog").write_text("3")
    pool(lease=1.0)
    run = send(app, "one", how="hog")
    assert app.runs.result(run, 30) == pids("one")[0]
    assert len(pids("one")) == 1
    assert attempts(app, run) == [(1, "ok")]


def test_a_worker_that_is_stopped_loses_its_lease_and_is_told_so_when_it_goes_on(app: App, pool: Pool) -> None:
    """BEHAVIOURS 132, 40: nobody knows for how long, so its step is run elsewhere. The worker itself is left alone."""
    pool(lease=0.5)
    run = send(app, "one")
    until(lambda: attempts(app, run) == [(1, "running")])
    os.kill(pids("one")[0], signal.SIGSTOP)
    until(lambda: len(pids("one")) == 2)
    let_go("one")
    assert app.runs.result(run, 30) == pids("one")[1] != pids("one")[0]
    os.kill(pids("one")[0], signal.SIGCONT)
    until(lambda: re.search(f"the lease of job {run}.* was lost: what .* did here is dropped", log()))
    assert attempts(app, run) == [(1, "lost"), (1, "ok")]
    assert "killed" not in log()


def test_it_outlives_an_outage_of_redis_and_gives_back_then_what_a_worker_had_that_died_meanwhile(
    app: App, pool: Pool, fresh_server: Server
) -> None:
    """BEHAVIOURS 146, 39: neither a lease is waited for nor a beat. The other worker's step is not run again."""
    supervisor = pool()
    runs = [send(app, name) for name in ("one", "two")]
    until(lambda: pids("one") and pids("two"))
    os.kill(pids("one")[0], signal.SIGKILL)
    until(lambda: len(pids("one")) == 2)  # so it knows its Redis by now, and will not look there again for minutes
    fresh_server.kill()
    os.kill(pids("one")[1], signal.SIGKILL)
    until(lambda: "no lease is renewed from here until it answers" in log())
    assert not supervisor.ends(within=0)
    fresh_server.restart()
    until(lambda: len(pids("one")) == 3)
    let_go("one", "two")
    assert [app.runs.result(run, 30) for run in runs] == [pids("one")[2], pids("two")[0]]
    assert len(pids("two")) == 1
    assert check_invariants(app.store) == []


def test_a_step_that_kills_its_worker_again_and_again_is_failed_after_so_many_losses(app: App, pool: Pool) -> None:
    """BEHAVIOURS 37, 39: none of them uses up an attempt, of which it has one; they are shown apart."""
    pool()
    run = send(app, "one", "doom")
    with pytest.raises(RunFailed) as failed:
        app.runs.result(run, 30)
    assert (failed.value.type, failed.value.step) == ("WorkerLost", "die")
    assert "3" in failed.value.message
    assert len(set(pids("one"))) == len(pids("one")) == 3
    assert [entry.kind for entry in app.runs.history(run)].count("lost") == 3
    assert attempts(app, run) == [(1, "lost")] * 2 + [
        (1, "failed")
    ]  # the first died before Redis had heard of the step
    assert check_invariants(app.store) == []


# -- time ------------------------------------------------------------------------------------------------------------


def test_a_step_that_ignores_its_timeout_costs_its_process_and_is_an_attempt_that_timed_out(
    app: App, pool: Pool
) -> None:
    """Its own retries decide what follows. The other step of that process is handed back, with no loss."""
    pool("--kill-after", "0.5", "--processes", "1", "--threads", "2")
    other = send(app, "other")
    until(lambda: attempts(app, other) == [(1, "running")])
    run = send(app, "one", how="stubborn", timeout=0.3, retries=1)
    assert app.runs.result(run, 30) == pids("one")[1] != pids("one")[0]
    assert attempts(app, run) == [(1, "released"), (1, "timeout"), (2, "ok")]
    assert re.search(rf"ERROR .* killed: {run}\S* ran over its time, and its body did not end in 0.5 s", log())
    let_go("other")
    assert app.runs.result(other, 30) == pids("other")[1] == pids("one")[1]
    assert attempts(app, other) == [(1, "released"), (1, "ok")]
    assert check_invariants(app.store) == []


def test_when_it_may_not_be_tried_again_the_timeout_is_what_becomes_of_the_step(app: App, pool: Pool) -> None:
    """Also of one that has kept its worker from saying that it had begun it."""
    Path("one.hog").write_text("60")
    pool("--kill-after", "0.2", "--processes", "1")
    run = send(app, "one", how="hog", timeout=0.2, retries=0)
    with pytest.raises(RunFailed, match=r"StepTimeout.*0\.2 s"):
        app.runs.result(run, 30)
    assert len(pids("one")) == 1
    assert attempts(app, run)[-1] == (1, "timeout")
    assert check_invariants(app.store) == []


def test_a_cancelled_body_that_does_not_hear_of_it_is_ended_with_its_process(app: App, pool: Pool) -> None:
    """BEHAVIOURS 97: a call that keeps the interpreter lock for a minute."""
    Path("one.hog").write_text("60")
    pool("--kill-after", "0.3", lease=1.5)
    run = send(app, "one", how="hog")
    until(lambda: pids("one"))
    app.runs.cancel(run, "enough")
    until(lambda: not lives(pids("one")[0]))
    assert "was lost, and its body did not end in 0.3 s" in log()
    let_go("two", "three")
    for name in ("two", "three"):
        app.runs.result(send(app, name), 30)
    assert app.runs.get(run).status == "cancelled"
    assert check_invariants(app.store) == []


# -- the end ---------------------------------------------------------------------------------------------------------


def test_a_second_sigterm_hands_all_back_and_what_does_not_hear_it_too(app: App, pool: Pool) -> None:
    """BEHAVIOURS 130, 37: neither an attempt nor a loss is held against a step, also when its worker had to be killed."""
    Path("deaf.hog").write_text("60")
    supervisor = pool("--grace", "60", "--kill-after", "0.3")
    runs = [send(app, "one"), send(app, "deaf", how="hog")]
    until(lambda: pids("one") and pids("deaf"))
    supervisor.send(signal.SIGTERM)
    until(lambda: log().count("draining") == 2)
    assert not supervisor.ends(within=0)
    assert supervisor.stop() == 0
    kinds = [[entry.kind for entry in app.runs.history(run)][-1] for run in runs]
    assert kinds == ["released", "released"]
    assert not lives(pids("deaf")[0])
    assert check_invariants(app.store) == []


def test_a_worker_ends_with_its_supervisor_whatever_it_is_at(app: App, pool: Pool) -> None:
    Path("one.hog").write_text("60")
    supervisor = pool("--processes", "1")
    send(app, "one", how="hog")
    until(lambda: pids("one"))
    supervisor.kill()
    until(lambda: not lives(pids("one")[0]))


def test_a_burst_ends_when_all_workers_have_found_nothing_more(app: App, pool: Pool) -> None:
    names = [f"{n}" for n in range(6)]
    app.send([Event("go", {"name": name}, id=name) for name in names])
    let_go(*names)
    assert pool("--burst").exit_code == 0
    assert [run.status for run in app.runs.list()] == ["completed"] * 6
    assert "died" not in log()


def test_a_worker_that_has_done_its_jobs_is_replaced_and_nothing_of_it_is_lost(app: App, pool: Pool) -> None:
    names = [f"{n}" for n in range(12)]
    let_go(*names)
    supervisor = pool("--max-jobs", "6")
    runs = [send(app, name) for name in names[:8]]
    first = {app.runs.result(run, 30) for run in runs}
    until(lambda: not all(map(lives, first)))
    assert "recycled: has done" in log()
    runs += [send(app, name) for name in names[8:]]
    assert [app.runs.result(run, 30) > 0 for run in runs] == [True] * 12
    assert [attempts(app, run) for run in runs] == [[(1, "ok")]] * 12
    assert supervisor.stop() == 0
    assert check_invariants(app.store) == []


def test_a_worker_that_has_grown_too_large_is_replaced_and_the_next_run_is_its_successors(app: App, pool: Pool) -> None:
    """What it keeps alone is too much, however large it was before."""
    limit = 128 << 20
    Path("one.bytes").write_text(str(limit))
    let_go("two")
    supervisor = pool("--processes", "1", "--max-memory", "128M")
    first = app.runs.result(send(app, "one", how="hoard"), 30)
    (recycled,) = until(lambda: re.findall(r"recycled: has (\d+) MB of memory", log()))
    assert int(recycled) >= limit >> 20
    until(lambda: not lives(first))
    second = app.runs.result(send(app, "two"), 30)
    assert second == pids("two")[0] != first
    assert log().count("recycled") == 1
    assert supervisor.stop() == 0
    assert "killed" not in log()
    assert check_invariants(app.store) == []


def test_without_a_supervisor_a_worker_that_has_done_its_jobs_ends_well(app: App, fresh_server: Server) -> None:
    names = [f"{n}" for n in range(6)]
    app.send([Event("go", {"name": name}, id=name) for name in names])
    let_go(*names)
    said = run_flow("worker", "pool:app", "--max-jobs", "4", FLOW_REDIS_URL=fresh_server.url)
    assert said.code == 0
    assert 1 <= len([run for run in app.runs.list() if run.status == "completed"]) < 6
    assert "Traceback" not in said.err


def test_a_limit_of_memory_needs_a_supervisor(fresh_server: Server) -> None:
    said = run_flow("worker", "pool:app", "--max-memory", "512M", FLOW_REDIS_URL=fresh_server.url)
    assert said.code == 2
    assert "say --processes 1" in said.err


# -- what is said ----------------------------------------------------------------------------------------------------


def test_each_transition_of_a_worker_is_one_line_of_json(app: App, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOW_LOG_FORMAT", "json")
    supervisor = pool()
    send(app, "one")
    until(lambda: pids("one"))
    os.kill(pids("one")[0], signal.SIGKILL)
    until(lambda: len(pids("one")) == 2)
    let_go("one")
    until(lambda: len(app.store.client.keys("rq:worker:*")) == 3)
    assert supervisor.stop() == 0
    lines = [json.loads(line) for line in log().splitlines()]
    told = [(line["transition"], line["worker"]) for line in lines if "transition" in line]
    assert len(told) == len(set(told))
    assert sorted(transition for transition, _ in told) == [
        "died",
        *["draining"] * 2,
        *["started"] * 3,
        *["stopped"] * 2,
    ]


def test_the_supervisor_finds_the_redis_that_the_app_says_itself(app: App, pool: Pool, fresh_server: Server) -> None:
    """It does not import the app: its workers tell it. Else it would renew, and give back, in another Redis."""
    Path("pool.py").write_text(MODULE.replace('App("pool"', f'App("pool", redis_url={fresh_server.url!r}'))
    with Server.start(Path("another")) as another:
        supervisor = pool("--processes", "1", FLOW_REDIS_URL=another.url)
        try:
            run = send(app, "one")
            until(lambda: pids("one"))
            os.kill(pids("one")[0], signal.SIGKILL)
            until(lambda: len(pids("one")) == 2)
            let_go("one")
            assert app.runs.result(run, 30) == pids("one")[1]
            with redis_py.Redis.from_url(another.url) as client:
                assert client.dbsize() == 0
        finally:
            assert supervisor.stop() == 0
