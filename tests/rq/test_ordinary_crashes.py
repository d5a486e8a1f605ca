"""Ordinary RQ jobs on a `flow worker --rq-jobs` that is killed: none is lost, none is repeated that RQ would not repeat."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue, Retry, get_current_job
from rq.command import send_stop_job_command
from rq.job import Job, JobStatus

from flowlib import App, Event
from flowlib.keys import Keys
from flowlib.server import Server
from flowlib.store import Store
from flowlib.testing import AFTER, BEFORE
from tests.crash.ledger import PATH
from tests.databases import MANY, Databases, strides
from tests.patience import until

from .doomed import WorkerProcess, note, notes_of

FURTHEST = MANY  # more commands than the story takes


# -- the jobs ----------------------------------------------------------------------------------------------------------


def work() -> None:
    note("ran")


def work_at_second_try() -> None:
    note("ran")
    job = get_current_job()
    assert job is not None
    if [line[0] for line in notes_of(Path(os.environ[PATH]))].count(job.id) == 1:
        raise ConnectionError("the first try fails")


def wait() -> str:
    """Until the test lets it go."""
    note("ran")
    while not Path(os.environ[PATH] + ".gate").exists():
        time.sleep(0.01)
    return "waited"


def block() -> None:
    """In one system call."""
    note("ran")
    time.sleep(100)


def hog(seconds: int) -> str:
    """Holds the interpreter lock: nothing else of this process gets a word in."""
    note("ran")
    ctypes.PyDLL(None).sleep(seconds)
    return "hogged"


def overstay() -> None:
    """Hears no alarm."""
    note("ran")
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(100)


def called_back(job: Job, connection: Redis, *_: Any) -> None:
    connection.incr(f"called back:{job.id}")


# -- killed at every command -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("when", [BEFORE, AFTER])
@strides(14)
def test_a_worker_killed_at_any_command_loses_no_job(databases: Databases, when: str, stride: int) -> None:
    """RQ's windows W1 to W4 and W8: for every n until the jobs are done without reaching n."""
    passed = threading.Event()

    def survive(url: str, notes: Path, at: int) -> list[str] | None:
        if passed.is_set():
            return None
        killed, faults = live_through(url, notes, at, when)
        if not killed:
            passed.set()
        return faults if killed or faults else None

    tried = databases.try_each(range(1, FURTHEST, stride), survive)
    survivals = {at: faults for at, faults in tried.items() if faults is not None}
    assert {at: faults for at, faults in survivals.items() if faults} == {}
    assert passed.is_set(), f"nobody passed: raise FURTHEST over {FURTHEST}"
    assert len(survivals) >= 50 / stride, f"only {len(survivals)} places to be killed at"


def live_through(url: str, notes: Path, at: int, when: str) -> tuple[bool, list[str]]:
    with Redis.from_url(url) as client:
        queue = Queue("old", connection=client)
        queue.enqueue(work, job_id="once")
        parent = queue.enqueue(work, job_id="parent", retry=Retry(max=3), on_success=Callback(called_back))
        queue.enqueue(work, job_id="child", depends_on=parent, retry=Retry(max=3))
        queue.enqueue(work_at_second_try, job_id="late", retry=Retry(max=3, interval=1))
        doomed = WorkerProcess(url, notes, at, when)
        until(lambda: doomed.ends(within=0.05) or settled(client))
        killed = doomed.stop() == -signal.SIGKILL
        if not settled(client):
            # As if the duties of the dead one had run out, ours and RQ's: that would take seconds, in each case.
            client.delete(Keys().housekeeper, "rq:scheduler-lock:old")
            healthy = WorkerProcess(url, notes)
            with contextlib.suppress(AssertionError):  # told below
                until(lambda: healthy.ends(within=0.05) or settled(client))
            assert healthy.stop() == 0
        return killed, list(faults_of(client, notes))


def settled(client: Redis) -> bool:
    waiting = [f"rq:{kind}:old" for kind in ("queue", "wip", "scheduled", "deferred", "ready")]
    return client.exists("rq:queue:old:intermediate", "flow:ordinary:old", *waiting) == 0


def faults_of(client: Redis, notes: Path) -> Iterator[str]:
    ran = [line[0] for line in notes_of(notes)]
    for id, times in (("once", 1), ("parent", 2), ("child", 2), ("late", 3)):
        status, kept = Job.fetch(id, connection=client).get_status(), client.hgetall(f"rq:job:{id}")
        begun = status == JobStatus.FAILED  # it may have been killed on the last step to its body: nobody can tell
        if not (0 if begun else 1) <= ran.count(id) <= times:
            yield f"job {id} ran {ran.count(id)} times"
        if status != JobStatus.FINISHED and (id != "once" or status != JobStatus.FAILED):
            yield f"job {id} is {status}: {kept}"
    if not client.get("called back:parent"):
        yield "the callback was not called"
    if not settled(client):
        yield "not all is done"
    if client.keys("rq:execution*"):
        yield f"left behind: {client.keys('rq:execution*')}"


# -- in the middle of a job --------------------------------------------------------------------------------------------


class Site:
    """One queue, and worker processes that serve it."""

    def __init__(self, server: Server, notes: Path) -> None:
        self.server = server
        self.notes = notes
        self.client: Any = server.client()
        self.queue = Queue("old", connection=self.client)
        self._workers: list[WorkerProcess] = []

    def worker(self, **settings: Any) -> WorkerProcess:
        self._workers.append(WorkerProcess(self.server.url, self.notes, **settings))
        return self._workers[-1]

    def enqueue(self, function: Any, **options: Any) -> Job:
        return self.queue.enqueue(
            function, on_failure=Callback(called_back), on_stopped=Callback(called_back), **options
        )

    def runs(self, job: Job, times: int = 1) -> None:
        """Until its body has begun so often."""
        until(lambda: self.times(job) >= times)

    def times(self, job: Job) -> int:
        return [line[0] for line in notes_of(self.notes)].count(job.id)

    def calls(self, job: Job) -> int:
        return int(self.client.get(f"called back:{job.id}") or 0)

    def let_go(self) -> None:
        Path(f"{self.notes}.gate").touch()

    def log(self) -> str:
        return Path(f"{self.notes}.log").read_text()

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self.client.close()


@pytest.fixture
def site(fresh_server: Server, tmp_path: Path) -> Iterator[Site]:
    site = Site(fresh_server, tmp_path / "notes")
    yield site
    site.close()


def test_a_job_whose_worker_is_killed_fails_within_the_lease_as_an_abandoned_one(site: Site) -> None:
    """W4: RQ would find it after minutes, and would not repeat it either: nobody has said that it may be repeated."""
    job = site.enqueue(wait)
    victim = site.worker()
    site.runs(job)
    victim.kill()
    site.worker()
    until(lambda: job.get_status() == JobStatus.FAILED)
    result: Any = job.latest_result()
    assert "AbandonedJobError: worker " in result.exc_string
    assert (site.times(job), site.calls(job)) == (1, 1)
    assert settled(site.client)


def test_a_job_with_retries_left_is_tried_again_when_its_worker_is_killed(site: Site) -> None:
    job = site.enqueue(wait, retry=Retry(max=1))
    victim = site.worker()
    site.runs(job)
    victim.kill()
    site.worker()
    site.runs(job, times=2)
    site.let_go()
    until(lambda: job.get_status() == JobStatus.FINISHED)
    assert (job.return_value(), site.calls(job)) == ("waited", 1)
    assert settled(site.client)


def test_a_worker_whose_death_was_seen_has_its_job_taken_over_at_once(site: Site) -> None:
    """The supervisor sees it; a lease of a minute need not run out."""
    job = site.enqueue(wait, retry=Retry(max=1))
    victim = site.worker(lease_ms=60_000, name="victim")
    site.runs(job)
    victim.kill()
    with closing(Store(site.server.url)) as store:
        store.expire_ordinary("victim")
    site.worker(lease_ms=60_000)
    site.runs(job, times=2)
    site.let_go()
    until(lambda: job.get_status() == JobStatus.FINISHED)


def test_a_worker_that_was_frozen_past_its_lease_reports_nothing(site: Site) -> None:
    """W20: RQ would let both report."""
    job = site.enqueue(wait, retry=Retry(max=1))
    frozen = site.worker()
    site.runs(job)
    frozen.send(signal.SIGSTOP)
    site.worker()
    site.runs(job, times=2)
    site.let_go()
    until(lambda: job.get_status() == JobStatus.FINISHED)
    frozen.send(signal.SIGCONT)
    until(lambda: "its lease was lost" in site.log())
    assert len(job.results()) == 1
    assert frozen.stop() == 0


def test_sigterm_lets_the_job_end_and_takes_no_other(site: Site) -> None:
    """W10; BEHAVIOURS 130."""
    job = site.enqueue(wait)
    worker = site.worker()
    site.runs(job)
    worker.send(signal.SIGTERM)
    other = site.enqueue(wait)
    assert not worker.ends(within=0.5), "it did not wait for its job"
    site.let_go()
    assert worker.exit_code == 0
    assert (job.get_status(), other.get_status()) == (JobStatus.FINISHED, JobStatus.QUEUED)
    assert site.queue.job_ids == [other.id]


@pytest.mark.parametrize("retry", [None, Retry(max=1)], ids=["no-retry", "retry"])
def test_a_job_that_outlasts_the_grace_fails_as_rqs_own_shutdown_makes_it(site: Site, retry: Retry | None) -> None:
    job = site.enqueue(block, retry=retry)
    worker = site.worker(grace=0.3)
    site.runs(job)
    assert worker.stop() == 0
    assert job.get_status() == (JobStatus.QUEUED if retry else JobStatus.FAILED)
    assert "the worker is shutting down" in site.log()
    assert site.client.exists("flow:ordinary:old", "rq:wip:old") == 0


def test_a_job_that_blocks_is_ended_at_its_timeout_and_steps_still_can_be(site: Site) -> None:
    """SIGALRM is lent to the job, not given away."""
    late = site.enqueue(block, job_timeout=1)
    stopped = site.enqueue(block)
    after = site.enqueue(work)
    site.worker()
    site.runs(stopped)
    send_stop_job_command(site.client, stopped.id)
    until(lambda: after.get_status() == JobStatus.FINISHED)
    assert (late.get_status(), stopped.get_status()) == (JobStatus.FAILED, JobStatus.STOPPED)
    result: Any = late.latest_result()
    assert "JobTimeoutException: Task exceeded maximum timeout value (1 seconds)" in result.exc_string
    assert (site.calls(late), site.calls(stopped)) == (1, 1)
    with closing(Store(site.server.url)) as store:
        steps = App("shop").connect(store=store)
        event = steps.send(Event("block", {}))
        (run,) = until(lambda: steps.runs.of_event(event))
        until(lambda: steps.runs.get(run).finished)
        assert "StepTimeout" in str(steps.runs.get(run).error)


@pytest.mark.slow
def test_a_job_that_hogs_the_interpreter_lock_keeps_its_lease_and_one_that_overstays_is_ended(site: Site) -> None:
    """BEHAVIOURS 131: the supervisor speaks for the worker that cannot, and kills what does not hear its alarm."""
    command = [
        sys.executable, "-m", "flowlib.cli", "worker", "tests.rq.shop:app", "--queues", "old", "--rq-jobs",
        "--redis-url", site.server.url, "--processes", "2", "--lease", "1", "--kill-after", "0.5",
    ]  # fmt: skip
    with subprocess.Popen(command, env={**os.environ, PATH: str(site.notes)}) as supervisor:
        try:
            slow = site.enqueue(hog, args=(2,))
            until(lambda: slow.get_status() == JobStatus.FINISHED)
            assert (slow.return_value(), site.times(slow)) == ("hogged", 1)
            late = site.enqueue(overstay, job_timeout=1)
            until(lambda: late.get_status() == JobStatus.FAILED)
            assert (site.times(late), site.calls(late)) == (1, 1)
            result: Any = late.latest_result()
            assert "AbandonedJobError" in result.exc_string
        finally:
            supervisor.terminate()


def test_a_result_waits_for_redis_to_come_back(site: Site) -> None:
    """W17: RQ's worker would end, and its work be lost."""
    job = site.enqueue(wait)
    worker = site.worker(lease_ms=60_000)
    site.runs(job)
    site.server.kill()
    site.let_go()
    until(lambda: "waiting for it" in site.log())
    site.server.restart()
    until(lambda: job.get_status() == JobStatus.FINISHED)
    assert (job.return_value(), site.times(job), len(job.results())) == ("waited", 1, 1)
    assert worker.stop() == 0
