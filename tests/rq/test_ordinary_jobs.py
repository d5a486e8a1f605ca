"""Ordinary RQ jobs under `flow worker --rq-jobs`: they do, and leave behind, the same as under RQ's own worker."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rq import Callback, Queue, RateLimit, Repeat, Retry, Worker
from rq.command import send_command, send_shutdown_command, send_stop_job_command
from rq.group import Group
from rq.job import Dependency, Job, JobStatus
from rq.registry import ScheduledJobRegistry
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus

from flowlib import Event
from tests.forks import Command
from tests.patience import until

from . import jobs
from .conftest import Shop
from .shop import app, note

Scenario = Callable[[Queue], Any]


def enqueue(queue: Queue, id: str, function: Any, *arguments: Any, **options: Any) -> Job:
    return queue.enqueue_call(function, arguments, job_id=f"{queue.name}-{id}", **options)


def callbacks(**timeout: int) -> dict[str, Any]:
    return {
        "on_success": Callback(jobs.succeeded, **timeout),
        "on_failure": Callback(jobs.failed, **timeout),
        "on_stopped": Callback(jobs.stopped, **timeout),
    }


def a_family(queue: Queue) -> None:
    good = enqueue(queue, "good", jobs.add, 1)
    bad = enqueue(queue, "bad", jobs.break_down)
    child = enqueue(queue, "child", jobs.add, 2, depends_on=good)
    enqueue(queue, "grandchild", jobs.add, 3, depends_on=child)
    enqueue(queue, "orphan", jobs.add, 4, depends_on=[good, bad])
    enqueue(queue, "patient", jobs.add, 5, depends_on=Dependency([bad], allow_failure=True))


def one_that_cannot_be_read(queue: Queue) -> None:
    job = enqueue(queue, "garbled", jobs.add, 1)
    queue.connection.hset(job.key, "data", zlib.compress(b"\x80no pickle"))


REFUSE, LATE = Callback(jobs.refuse), Retry(max=3, interval=[3600, 7200, 10_000])
LIMIT = RateLimit("one at a time", concurrency=1)

SCENARIOS: dict[str, Scenario] = {
    "success": lambda q: enqueue(q, "sum", jobs.add, 1, 2),
    "keywords": lambda q: q.enqueue(jobs.add, a=1, b=5, job_id=f"{q.name}-sum", description="a sum"),
    "coroutine": lambda q: enqueue(q, "sum", jobs.add_later, 1, 2),
    "meta": lambda q: enqueue(q, "sum", jobs.add, 1, 2, meta={"colour": "red"}),
    "no-result": lambda q: enqueue(q, "sum", jobs.add, 1, 2, result_ttl=0),
    "eternal-result": lambda q: enqueue(q, "sum", jobs.add, 1, 2, result_ttl=-1),
    "failure": lambda q: enqueue(q, "bad", jobs.break_down, failure_ttl=77),
    "success-callback": lambda q: enqueue(q, "sum", jobs.add, 1, 2, **callbacks(timeout=5)),
    "failure-callback": lambda q: enqueue(q, "bad", jobs.break_down, **callbacks()),
    "broken-success-callback": lambda q: enqueue(q, "sum", jobs.add, 1, 2, on_success=REFUSE),
    "broken-failure-callback": lambda q: enqueue(q, "bad", jobs.break_down, on_failure=REFUSE),
    "retries": lambda q: enqueue(q, "flaky", jobs.first_times_fail, 2, retry=Retry(max=2), **callbacks()),
    "too-few-retries": lambda q: enqueue(q, "flaky", jobs.first_times_fail, 2, retry=Retry(max=1), **callbacks()),
    "late-retry": lambda q: enqueue(q, "flaky", jobs.first_times_fail, 1, retry=LATE),
    "asks-for-retry": lambda q: enqueue(q, "again", jobs.ask_for_retry, **callbacks()),
    "repeat": lambda q: enqueue(q, "often", jobs.add, 1, 2, repeat=Repeat(times=2)),
    "dependents": a_family,
    "timeout": lambda q: enqueue(q, "long", jobs.last_too_long, timeout=1, **callbacks()),
    "no-timeout": lambda q: enqueue(q, "sum", jobs.add, 1, 2, timeout=-1),
    "cannot-be-stored": lambda q: enqueue(q, "odd", jobs.return_what_cannot_be_stored),
    "cannot-be-read": one_that_cannot_be_read,
    "no-such-function": lambda q: enqueue(q, "none", "tests.rq.jobs.there_is_none", **callbacks()),
    "at-the-front": lambda q: [enqueue(q, f"{n}", jobs.add, n, at_front=n == 3) for n in range(4)],
    "group": lambda q: Group.create(q.connection, name=q.name).enqueue_many(
        q, [Queue.prepare_data(jobs.add, [n], job_id=f"{q.name}-{n}") for n in range(2)]
    ),
    "rate-limit": lambda q: [enqueue(q, f"{n}", jobs.add, n, rate_limit=LIMIT) for n in range(3)],
}


def seen(client: Any, queue: str) -> dict[str, Any]:
    """All that RQ stores of a queue and its jobs: times are left out, results are as RQ reads them."""
    found: dict[str, Any] = {"diary": client.lrange(jobs.diary(queue), 0, -1)}
    for key in sorted(each.decode() for each in client.scan_iter(f"rq:*{queue}*")):
        kind, _, rest = key.removeprefix("rq:").partition(":")
        if kind == "job" and client.type(key) == b"hash":
            found[key] = fields(client, key)
        elif kind == "results":
            results = Result.all(Job(rest, connection=client))
            found[key] = [(each.type, repr_of(each.return_value), last_line(each.exc_string or "")) for each in results]
            assert all(each.worker_name and each.execution_id and each.execution_started_at for each in results)
        elif client.type(key) == b"list":
            found[key] = client.lrange(key, 0, -1)
        elif client.type(key) == b"set":
            found[key] = client.smembers(key)
        elif client.type(key) == b"zset":
            found[key] = set(client.zrange(key, 0, -1))
        else:
            found[key] = client.get(key)
        if (ttl := client.pttl(key)) > 0:
            found[f"{key} lives"] = round(ttl / 60_000)
    return found


def fields(client: Any, key: str) -> dict[str, Any]:
    found: dict[str, Any] = {name.decode(): value for name, value in client.hgetall(key).items()}
    for varying in ("created_at", "enqueued_at", "started_at", "ended_at", "last_heartbeat", "worker_name"):
        found[varying] = bool(found.get(varying))
    if "exc_info" in found:
        found["exc_info"] = last_line(zlib.decompress(found["exc_info"]).decode())
    return found


def last_line(traceback: str) -> str:
    return traceback.strip().rpartition("\n")[2]


def repr_of(value: Any) -> str:
    return re.sub("0x[0-9a-f]+", "", repr(value))


def test_jobs_do_and_leave_behind_the_same_as_under_rqs_own_worker(shop: Shop) -> None:
    """Whatever RQ itself stores for a job, a rate limit, a group: a job cannot tell who has performed it."""
    queues = {name: Queue(f"old-{name}", connection=shop.client) for name in SCENARIOS}

    def after(work: Callable[[list[Queue]], None]) -> dict[str, Any]:
        shop.client.flushall()
        for name, scenario in SCENARIOS.items():
            scenario(queues[name])
        work(list(queues.values()))
        (worker,) = shop.client.scan_iter("rq:worker:*")
        counts = shop.client.hmget(worker, "successful_job_count", "failed_job_count")
        return {name: seen(shop.client, queue.name) for name, queue in queues.items()} | {"counts": counts}

    expected, found = after(shop.work_off), after(shop.flow_burst)
    for name, what in expected.items():
        assert found[name] == what, name
    assert list(shop.client.scan_iter("flow:ordinary:*")) == []


# -- beside the steps --------------------------------------------------------------------------------------------------

MARK = "opened"


class Trap:
    """Whoever unpickles it writes to the file, and gets a number."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., int], tuple[Path, str]]:
        return Path.write_text, (self.file, MARK)


def test_without_the_flag_such_jobs_are_looked_past_and_that_is_said_once(
    shop: Shop, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """I11: their pickles stay closed, too, until a worker comes that has the flag."""
    opened = tmp_path / "opened"
    job = Queue("flow", connection=shop.client).enqueue(jobs.add, Trap(opened), job_id="sum")
    shop.flow_worker()
    assert shop.app.runs.result(shop.send("order", amount=1), 10) == 2
    until(lambda: "hold jobs that are not its app's" in caplog.text)
    assert shop.app.runs.result(shop.send("order", amount=2), 10) == 3
    assert caplog.text.count("hold jobs that are not its app's") == 1
    assert shop.queue.job_ids == ["sum"]
    assert shop.client.hget("rq:job:sum", "status") == b"queued"
    assert not opened.exists()
    shop.flow_worker(rq_jobs=True)
    until(lambda: shop.client.hget("rq:job:sum", "status") == b"finished")
    assert opened.exists()
    assert job.return_value() == 1 + len(MARK)


def test_steps_and_ordinary_jobs_of_one_queue_are_begun_in_their_order(shop: Shop) -> None:
    queue = Queue("flow", connection=shop.client)
    queue.enqueue(note, "one")
    shop.send("order", amount=1)
    queue.enqueue(note, "two")
    queue.enqueue(note, "three")
    last = shop.send("order", amount=2)
    shop.flow_worker(rq_jobs=True)
    assert shop.app.runs.result(last, 10) == 3
    assert shop.diary() == ["one", "reserve", "charge", "two", "three", "reserve", "charge"]
    assert shop.faults() == []


def test_a_job_that_was_packed_as_json_is_read_as_json(shop: Shop) -> None:
    job = Queue("flow", connection=shop.client, serializer=JSONSerializer).enqueue(jobs.add, 1, b=2, meta={"a": 1})
    shop.flow_worker(rq_jobs=True)
    until(lambda: job.get_status() == JobStatus.FINISHED)
    assert job.return_value() == 3


def test_what_is_due_is_enqueued_without_any_scheduler(shop: Shop) -> None:
    """`enqueue_in`, and a retry with an interval; a sleep of ours is not touched."""
    shop.flow_worker(rq_jobs=True)
    sleeping = shop.send("nap", seconds=3600)
    queue = Queue("flow", connection=shop.client)
    later = queue.enqueue_in(timedelta(seconds=1), jobs.add, 1)
    again = queue.enqueue(jobs.first_times_fail, 1, retry=Retry(max=1, interval=1))
    until(lambda: later.get_status() == again.get_status() == JobStatus.FINISHED)
    assert again.return_value() == "worked"
    assert shop.get(sleeping).state == "sleeping"
    assert shop.faults() == []


@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_due_is_done_while_there_is_always_a_step_to_claim(shop: Shop, threads: int) -> None:
    steps = 300 * threads
    app.send([Event("be slow", {}) for _ in range(steps)])
    while shop.queue.count < steps:
        shop.dispatcher.dispatch(shop.dispatcher.fresh())
    later = Queue("flow", connection=shop.client).enqueue_in(timedelta(seconds=1), jobs.add, 1)
    shop.flow_worker(rq_jobs=True, threads=threads)
    registry = ScheduledJobRegistry("flow", shop.client)
    until(lambda: later.id not in registry.get_job_ids(cleanup=False))
    assert len(shop.app.runs.list(status="running", limit=steps)) > steps / 10
    assert shop.queue.count


def test_a_job_that_is_twice_in_the_queue_is_performed_once(shop: Shop) -> None:
    """RQ's window W13: a lost reply of the producer's, which it has sent again."""
    queue = Queue("flow", connection=shop.client)
    job = queue.enqueue(jobs.add, 1)
    queue.push_job_id(job.id)
    last = queue.enqueue(jobs.add, 2)
    shop.flow_worker(rq_jobs=True)
    until(lambda: last.get_status() == JobStatus.FINISHED)
    assert shop.client.lrange(jobs.diary("flow"), 0, -1) == [b"add 1 1", b"add 2 1"]


def test_a_job_whose_hash_is_garbled_fails_and_holds_nobody_up(shop: Shop) -> None:
    """RQ's own worker would end of it."""
    queue = Queue("flow", connection=shop.client)
    job = queue.enqueue(jobs.add, 1)
    shop.client.hset(job.key, "created_at", "yesterday")
    last = queue.enqueue(jobs.add, 2)
    shop.flow_worker(rq_jobs=True)
    until(lambda: last.get_status() == JobStatus.FINISHED)
    assert queue.failed_job_registry.get_job_ids() == [job.id]
    assert shop.client.exists("rq:queue:flow:intermediate", "flow:ordinary:flow", "rq:wip:flow") == 0


def test_a_suspended_worker_takes_no_such_job_either(shop: Shop) -> None:
    queue = Queue("flow", connection=shop.client)
    shop.rq("suspend")
    job = queue.enqueue(jobs.add, 1)
    assert shop.store.take_ordinary("a worker", "an execution", 1000, ["flow"]) is None
    assert queue.job_ids == [job.id]
    shop.rq("resume")
    assert shop.store.take_ordinary("a worker", "an execution", 1000, ["flow"]) == (job.id, "flow", "")


# -- while it runs -----------------------------------------------------------------------------------------------------


def test_a_running_job_is_where_rqs_tools_look_for_it(shop: Shop) -> None:
    worker = shop.flow_worker(rq_jobs=True)
    queue = Queue("flow", connection=shop.client)
    job = queue.enqueue(jobs.hold)
    until(lambda: is_running(job))
    (seen_worker,) = Worker.all(connection=shop.client)
    assert seen_worker.get_state() == WorkerStatus.BUSY
    (execution,) = seen_worker.get_current_executions()
    assert (execution.job_id, execution.worker_name) == (job.id, worker.name)
    assert job.get_executions() == [execution]
    assert queue.started_job_registry.get_job_ids() == [job.id]
    assert queue.intermediate_queue.get_job_ids() == []
    assert "1 executing" in shop.rq("info")
    shop.client.rpush(jobs.GATE, "open")
    until(lambda: job.get_status() == JobStatus.FINISHED)
    until(lambda: Worker.all(connection=shop.client)[0].get_state() == WorkerStatus.IDLE)
    assert Worker.all(connection=shop.client)[0].get_current_executions() == []


def test_a_long_job_keeps_its_lease_and_its_place_in_rqs_registry(shop: Shop) -> None:
    """A second worker that looks for what the dead have left does not find it; RQ's cleanup, too, sees it alive."""
    shop.flow_worker(rq_jobs=True, lease_ms=600)
    queue = Queue("flow", connection=shop.client)
    job = queue.enqueue(jobs.hold)
    until(lambda: is_running(job))
    (beat,) = job.get_executions()
    shop.flow_worker(rq_jobs=True, lease_ms=600)
    client: Any = shop.client
    ((lease, until_ms),) = client.zrange("flow:ordinary:flow", 0, -1, withscores=True)
    until(lambda: client.zscore("flow:ordinary:flow", lease) > until_ms + 1200)
    client.zadd("rq:wip:flow", {lease: 1})
    until(lambda: client.zscore("rq:wip:flow", lease) > 1)
    assert job.get_executions()[0].last_heartbeat > beat.last_heartbeat
    shop.client.rpush(jobs.GATE, "open")
    until(lambda: job.get_status() == JobStatus.FINISHED)
    assert shop.client.lrange(jobs.diary("flow"), 0, -1) == [b"hold"]


@pytest.mark.parametrize("retry", [None, Retry(max=3)], ids=["no-retry", "retry"])
def test_the_stop_job_command_stops_it_and_it_is_not_tried_again(shop: Shop, retry: Retry | None) -> None:
    shop.flow_worker(rq_jobs=True)
    queue = Queue("flow", connection=shop.client)
    job = queue.enqueue(jobs.hold, retry=retry, **callbacks())
    until(lambda: shop.client.exists(jobs.diary("flow")))
    stop(shop, job)
    after = queue.enqueue(jobs.add, 1)
    until(lambda: after.get_status() == JobStatus.FINISHED)
    assert shop.client.lrange(jobs.diary("flow"), 0, -1) == [b"hold", f"{job.id} stopped".encode(), b"add 1 1"]
    assert queue.failed_job_registry.get_job_ids() == [job.id]
    assert job.get_status() == JobStatus.STOPPED


def test_a_command_for_another_job_does_not_stop_it(shop: Shop) -> None:
    worker = shop.flow_worker(rq_jobs=True)
    job = Queue("flow", connection=shop.client).enqueue(jobs.hold)
    until(lambda: is_running(job))
    send_command(shop.client, worker.name, "stop-job", job_id="another")
    send_shutdown_command(shop.client, worker.name)  # commands are heard in their order
    until(lambda: worker._stopping)
    shop.client.rpush(jobs.GATE, "open")
    until(lambda: Worker.count(connection=shop.client) == 0)
    assert job.get_status() == JobStatus.FINISHED


def test_several_threads_perform_jobs_side_by_side_and_the_right_one_is_stopped(shop: Shop) -> None:
    shop.flow_worker(rq_jobs=True, threads=3)
    queue = Queue("flow", connection=shop.client)
    held = [queue.enqueue(jobs.hold, **callbacks()) for _ in range(3)]
    until(lambda: all(is_running(job) for job in held))
    assert queue.started_job_registry.count == 3
    stop(shop, held[1])
    late = queue.enqueue(jobs.last_too_long, job_timeout=1)
    until(lambda: late.get_status() == JobStatus.FAILED)
    result: Any = late.latest_result()
    assert "JobTimeoutException: Task exceeded maximum timeout value (1 seconds)" in result.exc_string
    shop.client.rpush(jobs.GATE, "open", "open")
    until(lambda: [job.get_status() for job in held] == [JobStatus.FINISHED, JobStatus.STOPPED, JobStatus.FINISHED])


def stop(shop: Shop, job: Job) -> None:
    """RQ's commands may go unheard: they are said once, to whoever listens at that moment."""
    until(lambda: send_stop_job_command(shop.client, job.id) or job.get_status() == JobStatus.STOPPED)


def is_running(job: Job) -> bool:
    return job.get_status() == JobStatus.STARTED


def test_the_command_line_has_a_flag_for_it(shop: Shop, tmp_path: Path) -> None:
    """It reaches the processes of a supervisor, too."""
    job = Queue("old", connection=shop.client).enqueue(jobs.add, 1)
    command = ["worker", "tests.rq.shop:app", "--queues", "old", "--rq-jobs"]
    ended = Command("flow", [*command, "--processes", "2", "--burst", "--redis-url", shop.url], tmp_path)
    assert ended.exit_code == 0, ended.err
    assert job.return_value() == 2
