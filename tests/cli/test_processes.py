"""`flow worker --processes N`: a supervisor that knows nothing of steps, and what it does when a worker dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rq.worker import Worker

from flowlib import App, Event
from tests.cli.conftest import FlowProcess
from tests.patience import PATIENCE, until

MODULE = """
import os, time
from pathlib import Path
from flowlib import App, Event, Step

app = App("pool")

@app.function(on="go")
def work(event: Event[dict], step: Step) -> int:
    return step.run("wait", wait, event.data["name"])

def wait(name: str) -> int:
    with open(f"{name}.pids", "a") as pids:
        pids.write(f"{os.getpid()}\\n")
    while not Path(f"{name}.go").exists():
        time.sleep(0.01)
    return os.getpid()
"""

Pool = Callable[..., FlowProcess]
LEASE = "600"  # seconds: even the third of it after which it is renewed is longer than any test has time


@pytest.fixture
def app(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.chdir(tmp_path)
    Path("pool.py").write_text(MODULE)
    app = App("pool", redis_url=redis_url)
    yield app
    app.store.close()


@pytest.fixture
def pool(app: App, redis_url: str) -> Iterator[Pool]:
    started: list[FlowProcess] = []

    def start(*arguments: str) -> FlowProcess:
        command = ("worker", "pool:app", "--processes", "2", "--lease", LEASE, *arguments)
        started.append(FlowProcess(*command, environment={"FLOW_REDIS_URL": redis_url}))
        return started[-1]

    yield start
    for supervisor in started:
        supervisor.kill()  # its workers hold its pipe, and end with it


def send(app: App, name: str) -> str:
    app.send(Event("go", {"name": name}, id=name))
    until(lambda: app.runs.of_event(name))
    return app.runs.of_event(name)[0]


def pids(name: str) -> list[int]:
    file = Path(f"{name}.pids")
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def registered(app: App) -> list[str]:
    return sorted(worker.name for worker in Worker.all(connection=app.store.client))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_runs_are_worked_on_side_by_side(app: App, pool: Pool) -> None:
    """BEHAVIOURS 13, by processes."""
    pool("--name", "anna")
    runs = [send(app, "one"), send(app, "two")]
    until(lambda: pids("one") and pids("two"))
    for name in ("one", "two"):
        Path(f"{name}.go").touch()
    assert len({app.runs.result(run, PATIENCE) for run in runs}) == 2
    assert [name[:6] for name in registered(app)] == ["anna-1", "anna-2"]


def test_a_worker_that_is_killed_loses_its_step_at_once_and_is_started_again(app: App, pool: Pool) -> None:
    """BEHAVIOURS 39; neither its lease is waited for nor the supervisor's next beat: the whole test has less time."""
    supervisor = pool()
    run = send(app, "one")
    until(lambda: pids("one"))
    before = registered(app)
    os.kill(pids("one")[0], signal.SIGKILL)
    until(lambda: len(pids("one")) == 2)
    # the first one may have come just as the supervisor heard which Redis it is
    os.kill(pids("one")[1], signal.SIGKILL)
    until(lambda: len(pids("one")) == 3)
    Path("one.go").touch()
    assert app.runs.result(run, PATIENCE) == pids("one")[2]
    assert len(set(pids("one"))) == 3
    until(lambda: len(set(registered(app)) - set(before)) == 2)
    assert [entry.kind for entry in app.runs.history(run)].count("lost") == 2
    assert supervisor.stop() == 0
    assert "died: signal 9" in supervisor.err


def test_sigterm_lets_both_finish_their_steps_and_takes_no_more(app: App, pool: Pool) -> None:
    """BEHAVIOURS 130."""
    supervisor = pool()
    runs = [send(app, "one"), send(app, "two")]
    until(lambda: pids("one") and pids("two"))
    supervisor.send(signal.SIGTERM)
    until(lambda: supervisor.err.count("draining") == 2)
    app.send(Event("go", {"name": "late"}, id="late"))
    for name in ("one", "two"):
        Path(f"{name}.go").touch()
    assert supervisor.exit_code == 0
    assert [app.runs.get(run).recorded for run in runs] == [1, 1]
    assert pids("late") == []


def test_the_workers_end_when_their_supervisor_is_killed(app: App, pool: Pool) -> None:
    supervisor = pool()
    send(app, "one")
    until(lambda: pids("one"))
    supervisor.kill()
    until(lambda: not alive(pids("one")[0]))


def test_an_app_that_cannot_be_imported_ends_it_all(app: App, pool: Pool) -> None:
    Path("pool.py").write_text("import there_is_no_such_module\n")
    supervisor = pool()
    assert supervisor.exit_code == 1
    assert "there_is_no_such_module" in supervisor.err
    assert "Traceback" not in supervisor.err
