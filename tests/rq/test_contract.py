"""What RQ itself writes for a job of its own, and what our scripts write for a step, field by field.

Both are made side by side with the RQ that is installed: an upgrade that changes what is stored fails here, not at a user's.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from rq import Callback, Queue, SimpleWorker
from rq.command import send_command, send_shutdown_command, send_stop_execution_command, send_stop_job_command
from rq.job import Job
from rq.serializers import SERIALIZER_ALIASES, JSONSerializer

import flowlib.job
from tests.patience import until

from .conftest import Shop

# What RQ writes and we leave out; a test below shows that RQ reads the same without it.
LEFT_OUT = {"stopped_callback_name", "group_id", "success_callback_timeout", "failure_callback_timeout", "exc_info"}
NOT_YET = {
    "started_at",
    "ended_at",
    "last_heartbeat",
    "worker_name",
}  # RQ writes them empty before there is anything to say
NOT_IN_PLACE = {
    "result_ttl",
    "failure_ttl",
    "success_callback_name",
    "failure_callback_name",
}  # of a step that took no time
SAID_EARLIER = {"scheduled": {"enqueued_at"}, "canceled": {"enqueued_at", "ended_at"}}  # than RQ would
A_DAY_AHEAD = {"rq:wip:<queue>", "rq:executions:<job>"}  # scores: RQ's own cleanup must never take our jobs

seen_inside: list[dict[str, Any]] = []


# -- the twins ---------------------------------------------------------------------------------------------------------


def look() -> str:
    """A job of RQ's own that looks at its own books."""
    from rq import get_current_job

    job = get_current_job()
    assert job is not None
    seen_inside.append(books(job.connection, job.id))
    return "held"


def fail() -> None:
    raise ValueError("it broke")


def called_back(*_: Any) -> None: ...


class Twins:
    """The same job twice: `rq` was made and performed by RQ, `ours` is a step. Each is what `books` says of it."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.queue = Queue("twin", connection=shop.client, serializer=JSONSerializer)
        self.options: dict[str, Any] = {
            "timeout": -1, "result_ttl": 60, "failure_ttl": 7 * 86400,
            "on_success": Callback(f"{__name__}.called_back"), "on_failure": Callback(f"{__name__}.called_back"),
        }  # fmt: skip

    def enqueue(self, function: Callable[[], Any]) -> Job:
        return self.queue.enqueue_call(f"{__name__}.{function.__name__}", **self.options)

    def perform(self) -> None:
        SimpleWorker([self.queue], connection=self.shop.client, serializer=JSONSerializer).work(burst=True)

    def queued(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.look_at(self.enqueue(look)), self.books_of(self.shop.send("order", amount=1))

    def started(self) -> tuple[dict[str, Any], dict[str, Any]]:
        self.enqueue(look)
        self.perform()
        run = self.hold()
        return seen_inside.pop(), self.books_of(f"{run}-hold")

    def finished(self) -> tuple[dict[str, Any], dict[str, Any]]:
        job = self.enqueue(look)
        self.perform()
        run = self.hold()
        self.shop.open_gate()
        self.shop.app.runs.result(run, 10)
        return self.look_at(job), self.books_of(f"{run}-hold")

    def failed(self) -> tuple[dict[str, Any], dict[str, Any]]:
        job = self.enqueue(fail)
        self.perform()
        run = self.run("break")
        until(lambda: self.shop.get(run).finished)
        return self.look_at(job), self.books_of(f"{run}-break")

    def scheduled(self) -> tuple[dict[str, Any], dict[str, Any]]:
        due = {f"job_{key}" if key == "timeout" else key: value for key, value in self.options.items()}
        job = self.queue.enqueue_in(timedelta(hours=1), f"{__name__}.look", **due)
        return self.look_at(job), self.books_of(f"{self.nap()}-nap")

    def canceled(self) -> tuple[dict[str, Any], dict[str, Any]]:
        job = self.enqueue(look)
        job.cancel()
        run = self.nap()
        self.shop.app.runs.cancel(run, "no need")
        return self.look_at(job), self.books_of(f"{run}-nap")

    def run(self, event: str, **data: Any) -> str:
        self.shop.flow_worker()
        return self.shop.send(event, **data)

    def hold(self) -> str:
        run = self.run("hold")
        until(lambda: f"{run}-hold" in self.shop.queue.started_job_registry.get_job_ids(cleanup=False))
        return run

    def nap(self) -> str:
        run = self.run("nap", seconds=3600)
        until(lambda: self.shop.get(run).state == "sleeping")
        return run

    def look_at(self, job: Job) -> dict[str, Any]:
        return self.books_of(job.id)

    def books_of(self, job: str) -> dict[str, Any]:
        return books(self.shop.client, job)


STATUSES = ["queued", "started", "finished", "failed", "scheduled", "canceled"]


@pytest.fixture
def twins(shop: Shop) -> Twins:
    seen_inside.clear()
    return Twins(shop)


# -- how they are compared ---------------------------------------------------------------------------------------------


def books(client: Any, job: str) -> dict[str, Any]:
    """Every key of RQ's in which the job is, by its name without ids; what is in it, as names and forms of values."""
    fields = {name.decode(): value.decode("latin1") for name, value in client.hgetall(f"rq:job:{job}").items()}
    executions = {each["execution_id"] for _, each in stream(client, f"rq:results:{job}")}
    executions |= {each.decode() for each in client.zrange(f"rq:executions:{job}", 0, -1)}
    names = {job: "<job>", **dict.fromkeys(executions, "<execution>")}
    names |= {fields["origin"]: "<queue>"} | ({fields["worker_name"]: "<worker>"} if fields.get("worker_name") else {})
    found = {}
    for key in sorted(each.decode() for each in client.scan_iter("rq:*")):
        value = contents(client, key, job, names)
        if value:
            found[nameless(key, names)] = value
    return found


def contents(client: Any, key: str, job: str, names: dict[str, str]) -> Any:
    match client.type(key):
        case b"hash" if job in key:
            return {name.decode(): form(value) for name, value in client.hgetall(key).items()}
        case b"stream" if job in key:
            return [{name: form(value.encode()) for name, value in entry.items()} for _, entry in stream(client, key)]
        case b"zset":
            now = time.time()
            entries = client.zrange(key, 0, -1, withscores=True)
            mine = {nameless(m.decode(), names): s for m, s in entries if job in key or job in m.decode()}
            unscored = nameless(key, names) in A_DAY_AHEAD
            return {member: "" if unscored else f"in {(score - now) / 60:.0f} min" for member, score in mine.items()}
        case b"list":
            return [nameless(each.decode(), names) for each in client.lrange(key, 0, -1) if job in each.decode()]
        case b"set":
            members = [each.decode() for each in client.smembers(key)]
            return sorted(nameless(each, names) for each in members if job in each)
    return None


def stream(client: Any, key: str) -> list[tuple[bytes, dict[str, str]]]:
    entries = client.xrange(key)
    return [(id, {name.decode(): value.decode() for name, value in entry.items()}) for id, entry in entries]


def nameless(text: str, names: dict[str, str]) -> str:
    return ":".join(names.get(part, part) for part in text.split(":"))


def form(value: bytes) -> str:
    """What a value looks like, to those who parse it."""
    with contextlib.suppress(zlib.error):
        value = zlib.decompress(value)
    text = value.decode()
    if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text):
        return "date"
    if re.fullmatch(r"-?\d+(\.\d+)?(e\+\d+)?", text):
        return "number"
    with contextlib.suppress(ValueError, TypeError):
        name, instance, arguments, keywords = json.loads(text)
        return f"call: {type(name)} {type(instance)} {type(arguments)} {type(keywords)}"
    return text if text in STATUSES else "text" if text else "empty"


# -- jobs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", STATUSES)
def test_a_step_is_stored_as_rq_stores_a_job(twins: Twins, status: str) -> None:
    """The same keys of the same types, the same fields in the same forms; a field more only if its name begins with flow_."""
    rq, ours = getattr(twins, status)()
    theirs, its = rq.pop("rq:job:<job>"), ours.pop("rq:job:<job>")
    assert its["status"] == theirs["status"] == status
    spared = LEFT_OUT | {name for name in NOT_YET if theirs[name] == its.get(name, "empty") == "empty"}
    spared |= SAID_EARLIER.get(status, set())
    spared |= NOT_IN_PLACE if status == "failed" else set()
    assert {name: form for name, form in its.items() if not name.startswith("flow_") and name not in spared} == {
        name: form for name, form in theirs.items() if name not in spared
    }
    if status == "canceled":  # RQ would list it for ever
        assert rq.pop("rq:canceled:<queue>").keys() == {"<job>"}
    for entry in [*rq.get("rq:results:<job>", ()), *ours.get("rq:results:<job>", ())]:
        for time_of in ("execution_started_at", "execution_ended_at"):
            entry.pop(time_of, None)  # RQ reads None without
    assert ours == rq


def test_a_step_that_took_no_time_is_stored_with_less(twins: Twins) -> None:
    """It has ended when its job is made: what only waiting and running jobs need is left out."""
    rq, _ = twins.finished()
    run = twins.run("order", amount=1)
    twins.shop.app.runs.result(run, 10)
    its = twins.books_of(f"{run}-reserve")["rq:job:<job>"]
    its = {name: value for name, value in its.items() if not name.startswith("flow_")}
    assert its.keys() >= rq["rq:job:<job>"].keys() - LEFT_OUT - NOT_IN_PLACE
    assert its.items() <= rq["rq:job:<job>"].items()


@pytest.mark.parametrize("status", STATUSES)
def test_rq_reads_the_same_without_the_fields_that_we_leave_out(twins: Twins, status: str) -> None:
    getattr(twins, status)()
    (key,) = [
        key for key in twins.shop.client.scan_iter("rq:job:*") if twins.shop.client.hget(key, "origin") == b"twin"
    ]
    job = key.decode().removeprefix("rq:job:")

    def as_rq_reads_it() -> dict[str, Any]:
        fetched = Job.fetch(job, connection=twins.shop.client, serializer=JSONSerializer)
        callbacks = (fetched.success_callback_timeout, fetched.failure_callback_timeout, fetched.stopped_callback)
        read = {name: value for name, value in fetched.to_dict().items() if name not in LEFT_OUT}
        return {**read, "callbacks": callbacks, "group": fetched.group_id, "why": fetched.latest_result()}

    before = as_rq_reads_it()
    twins.shop.client.hdel(key, *LEFT_OUT, *[name for name in NOT_YET if not twins.shop.client.hget(key, name)])
    assert as_rq_reads_it() == before


def test_the_callbacks_of_a_step_are_found_by_their_names(twins: Twins) -> None:
    run = twins.shop.send("order", amount=1)
    job = twins.shop.job(run)
    assert job.success_callback is flowlib.job.chain
    assert job.failure_callback is flowlib.job.chain_failed
    assert Callback(flowlib.job.chain).name == "flowlib.job.chain"
    assert job.func is flowlib.job.run_step


def test_the_serializer_that_reads_our_jobs_has_the_name_that_we_tell_people() -> None:
    assert SERIALIZER_ALIASES["json"] is JSONSerializer
    assert JSONSerializer.loads(JSONSerializer.dumps(["a", None, [1], {}])) == ["a", None, [1], {}]


# -- workers -----------------------------------------------------------------------------------------------------------


def test_our_worker_is_stored_as_rq_stores_its_own(shop: Shop) -> None:
    """But for what RQ counts before there is anything to count."""

    def stored(name: str) -> tuple[dict[str, str], set[str]]:
        key, client = f"rq:worker:{name}", shop.client
        fields: Any = client.hgetall(key)
        listed = {each.decode() for each in client.scan_iter("rq:*") if is_member(client, each, key)}
        return {name.decode(): form(value) for name, value in fields.items()}, listed

    class Spy(SimpleWorker):
        def execute_job(self, job: Job, queue: Queue) -> None:
            super().execute_job(job, queue)
            seen_inside.append({"worker": stored(self.name)})

    queue = Queue("flow", connection=shop.client, serializer=JSONSerializer)
    queue.enqueue("tests.rq.jobs.add", 1)
    Spy([queue], connection=shop.client, serializer=JSONSerializer).work(burst=True)
    theirs, lists = seen_inside.pop()["worker"]
    worker = shop.flow_worker()
    shop.app.runs.result(shop.send("order", amount=1), 10)
    until(lambda: shop.client.hget(f"rq:worker:{worker.name}", "total_working_time") not in (None, b"0"))
    until(lambda: shop.client.hget(f"rq:worker:{worker.name}", "state") == b"idle")
    ours, our_lists = stored(worker.name)
    assert {name: value for name, value in ours.items() if not name.startswith("flow_")} == theirs
    assert our_lists == lists


def is_member(client: Any, key: bytes, member: str) -> bool:
    return client.type(key) == b"set" and bool(client.sismember(key, member))


def test_rqs_commands_say_what_our_worker_listens_to(shop: Shop) -> None:
    """On the channel of its name, in the words that `handle_payload` knows."""
    worker = shop.flow_worker()
    job = Queue("old", connection=shop.client).enqueue("tests.rq.jobs.add", 1)
    shop.store.take_ordinary(worker.name, "execution", 1000, ["old"])
    ears = shop.client.pubsub(ignore_subscribe_messages=True)
    ears.subscribe(worker.pubsub_channel_name)
    ears.get_message(timeout=5)
    send_command(shop.client, worker.name, "kill-horse")
    send_stop_job_command(shop.client, job.id)
    send_stop_execution_command(shop.client, job.id, "execution")
    send_shutdown_command(shop.client, worker.name)
    heard: list[dict[str, Any]] = []
    while len(heard) < 4:
        said = ears.get_message(timeout=5)
        assert said is not None
        heard.append(json.loads(said["data"]))
    ears.close()
    assert heard == [
        {"command": "kill-horse"},
        {"command": "stop-job", "job_id": job.id},
        {"command": "stop-execution", "job_id": job.id, "execution_id": "execution"},
        {"command": "shutdown"},
    ]


# -- names -------------------------------------------------------------------------------------------------------------

UNDER_OTHER_NAMES = """
from rq import Queue, Worker
from rq.job import Job
from flowlib import Event
from flowlib.worker import FlowWorker
from tests.rq import jobs
from tests.rq.shop import app
import sys

app.connect(sys.argv[1])
client = app.store.client
job = Queue("flow", connection=client).enqueue(jobs.add, 1)
app.store.join_events("shop")
event = app.send(Event("order", {"amount": 1}))
FlowWorker(app=app, rq_jobs=True).work(burst=True)
(run,) = app.runs.of_event(event)
print(job.return_value(), app.runs.get(run).result, Job.fetch(run, client, "json").get_status().value)
"""


@pytest.mark.skipif("FLOW_TEST_ACL" in os.environ, reason="that user may touch the usual names only")
def test_with_prefixes_of_ones_own_rq_and_we_still_meet(shop: Shop) -> None:
    """RQ reads its prefix when it is imported: another process."""
    for key in shop.client.scan_iter("*"):
        shop.client.delete(key)
    prefixes = {"RQ_KEY_PREFIX": "team", "FLOW_KEY_PREFIX": "ours", "FLOW_REDIS_URL": shop.url}
    command = [sys.executable, "-c", UNDER_OTHER_NAMES, shop.url]
    ended = subprocess.run(
        command, env={**os.environ, **prefixes}, capture_output=True, text=True, timeout=40, check=False
    )
    assert ended.stdout.split()[-3:] == ["2", "2", "finished"], ended.stderr
    keys = {key.decode().partition(":")[0] for key in shop.client.scan_iter("*")}
    assert keys - {"shop", "jobs"} == {"team", "ours"}
