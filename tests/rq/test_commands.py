"""RQ's commands to a worker of ours: suspend, resume, shut down, stop a job."""

from __future__ import annotations

import time

import pytest
from rq import Worker
from rq.command import send_command, send_shutdown_command, send_stop_job_command
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from flowlib import RunCancelled
from flowlib.worker import FlowWorker
from tests.patience import until

from .conftest import Shop


def test_while_suspended_nothing_is_taken_and_after_resume_all_goes_on(shop: Shop) -> None:
    """A step that is running ends and is recorded; the one after it is not begun."""
    worker = shop.flow_worker()
    run = shop.send("hold")
    until(lambda: shop.diary() == ["hold"])
    shop.rq("suspend")
    shop.open_gate()
    until(lambda: shop.kinds(run, "hold")[-1:] == ["recorded"] and shop.kinds(run, "after"))
    other = shop.send("order", amount=1)
    looks_again(worker)
    assert shop.kinds(run, "after") == ["queued"]
    assert shop.queue.job_ids == [f"{run}-after", other]
    assert shop.diary() == ["hold"]
    shop.rq("resume")
    assert shop.app.runs.result(run, 10) == "held"
    assert shop.app.runs.result(other, 10) == 2
    assert shop.faults() == []


def looks_again(worker: FlowWorker) -> None:
    """Until it has asked for a job twice from now on and had both answers: a third time, its question may be under way."""
    engine = worker.slots[0].engine
    asked = engine._executions
    until(lambda: engine._executions >= asked + 3)


def test_suspension_for_a_time_ends_by_itself(shop: Shop) -> None:
    shop.flow_worker()
    shop.rq("suspend", "--duration", "1")
    over = time.time() + max(0, shop.client.pttl("rq:suspended")) / 1000
    run = shop.send("order", amount=1)
    assert shop.app.runs.result(run, 10) == 2
    (claimed, *_) = [entry for entry in shop.app.runs.history(run) if entry.kind == "claimed"]
    assert claimed.at > over - 0.05


def test_the_shutdown_command_lets_the_running_step_end_and_takes_nothing_more(shop: Shop) -> None:
    """BEHAVIOURS 130."""
    worker = shop.flow_worker()
    run = shop.send("hold")
    until(lambda: shop.diary() == ["hold"])
    send_shutdown_command(shop.client, worker.name)
    until(lambda: worker._stopping)
    waiting = shop.send("order", amount=1)
    shop.open_gate()
    until(lambda: Worker.count(connection=shop.client) == 0)
    assert shop.kinds(run, "hold")[-1] == "recorded"
    assert shop.kinds(run, "after") == ["queued"]
    assert shop.queue.job_ids == [waiting, f"{run}-after"]
    assert shop.faults() == []


def test_the_stop_job_command_ends_the_body_and_cancels_the_run(shop: Shop) -> None:
    """BEHAVIOURS 97, as far as a worker in a thread can be interrupted: at its next line."""
    worker = shop.flow_worker()
    run = shop.send("hold")
    until(lambda: shop.get(run).step == "hold")
    send_stop_job_command(shop.client, f"{run}-hold", serializer=JSONSerializer)
    with pytest.raises(RunCancelled, match=f"job {run}-hold was stopped by a command"):
        shop.app.runs.result(run, 10)
    until(lambda: worker.slots[0].frame is None)
    assert shop.job(run, "hold").get_status() == JobStatus.CANCELED
    assert shop.diary() == ["hold"]
    assert shop.app.runs.result(shop.send("order", amount=1), 10) == 2
    assert shop.faults() == []


def test_a_command_for_another_job_stops_nothing(shop: Shop) -> None:
    """It came late: the worker is at another job by now. Commands are heard in order."""
    worker = shop.flow_worker()
    run = shop.send("hold")
    until(lambda: shop.diary() == ["hold"])
    send_command(shop.client, worker.name, "stop-job", job_id=f"{run}-earlier")
    send_shutdown_command(shop.client, worker.name)
    until(lambda: worker._stopping)
    shop.open_gate()
    until(lambda: Worker.count(connection=shop.client) == 0)
    assert shop.kinds(run, "hold")[-1] == "recorded"
    assert shop.get(run).status == "running"
