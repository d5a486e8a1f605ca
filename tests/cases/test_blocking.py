"""Bodies that block, in a worker process as it is deployed: a timeout or a cancel ends them, and the worker goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flowlib import App, Event, RunFailed
from tests.forks import Command
from tests.patience import PATIENCE, until

STUCK = """
import asyncio, time
from flowlib import App

app = App("stuck")

@app.function(on="sync", retries=0)
def blocked(event, step):
    if event.data["block"]:
        step.options(timeout=event.data.get("timeout")).run("block", time.sleep, 60)
    return "free"

@app.function(on="async", retries=0)
async def waiting(event, step):
    if event.data["block"]:
        await step.options(timeout=event.data.get("timeout")).run("block", asyncio.sleep, 60)
    return "free"
"""


@pytest.fixture
def stuck(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """The app, with a worker in a process of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stuck.py").write_text(STUCK)
    worker = Command("flow", ["worker", "stuck:app"], tmp_path, environment={"FLOW_REDIS_URL": redis_url})
    app = App("stuck", redis_url=redis_url)
    yield app
    assert worker.stop() == 0
    app.store.close()


def send(app: App, name: str, **data: object) -> str:
    event_id = app.send(Event(name, data))
    until(lambda: app.store.client.hexists(app.store.keys.functions("stuck"), "waiting"))
    (run_id,) = until(lambda: app.runs.of_event(event_id))
    return str(run_id)


@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_timeout_ends_a_blocking_call(stuck: App, face: str) -> None:
    """The call would last for a minute."""
    run_id = send(stuck, face, block=True, timeout=0.2)
    with pytest.raises(RunFailed, match=r"StepTimeout: step 'block' ran longer than its timeout of 0.2 s") as failed:
        stuck.runs.result(run_id, timeout=PATIENCE)
    assert (failed.value.step, failed.value.attempt) == ("block", 1)
    assert stuck.runs.result(send(stuck, face, block=False), timeout=PATIENCE) == "free"


@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_cancel_ends_a_blocking_call(stuck: App, face: str) -> None:
    """BEHAVIOURS 97: the worker is free for the next run at once, and the one that was cancelled stays so."""
    run_id = send(stuck, face, block=True)
    until(lambda: (run := stuck.runs.get(run_id)).state == "running" and run.step == "block")
    stuck.runs.cancel(run_id, reason="not wanted")
    assert stuck.runs.result(send(stuck, face, block=False), timeout=PATIENCE) == "free"
    run = stuck.runs.get(run_id)
    assert (run.status, run.reason) == ("cancelled", "not wanted")
    assert [(step.status, step.attempts[-1].outcome) for step in run.steps] == [("cancelled", "cancelled")]
