"""Ordinary RQ jobs, as a team has them that does not know of flowlib yet. What they do they note in their queue's diary."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from rq import Retry, get_current_job
from rq.job import Job

GATE = "jobs:gate"


def diary(queue: str) -> str:
    return f"jobs:diary:{queue}"


def note(word: str) -> str:
    job = get_current_job()
    assert job is not None
    job.connection.rpush(diary(job.origin), word)
    return word


def add(a: int, b: int = 1) -> int:
    note(f"add {a} {b}")
    return a + b


async def add_later(a: int, b: int) -> int:
    await asyncio.sleep(0.001)
    return add(a, b)


def break_down() -> None:
    note("break")
    raise ValueError("it broke")


def first_times_fail(times: int) -> str:
    """Counts in the job's meta, so that both are tried."""
    job = get_current_job()
    assert job is not None
    job.meta["tries"] = job.meta.get("tries", 0) + 1
    job.save_meta()
    note(f"try {job.meta['tries']}")
    if job.meta["tries"] <= times:
        raise ConnectionError("not yet")
    return "worked"


def ask_for_retry() -> Any:
    note("again")
    return Retry(max=1)


def return_what_cannot_be_stored() -> Any:
    return lambda: None


def last_too_long() -> None:
    note("long")
    while True:
        time.sleep(0.005)


def hold() -> str:
    """Until the test opens the gate."""
    note("hold")
    job = get_current_job()
    assert job is not None
    while job.connection.lpop(GATE) is None:
        time.sleep(0.005)
    return "held"


def succeeded(job: Job, connection: Any, result: Any) -> None:
    connection.rpush(diary(job.origin), f"{job.id} succeeded with {result}")


def failed(job: Job, connection: Any, kind: type[BaseException], error: BaseException, _traceback: Any) -> None:
    connection.rpush(diary(job.origin), f"{job.id} failed with {kind.__name__}: {error}")


def stopped(job: Job, connection: Any) -> None:
    connection.rpush(diary(job.origin), f"{job.id} stopped")


def refuse(*_: Any) -> None:
    raise RuntimeError("the callback broke")
