"""DBOS: a workflow of ten steps on a queue, the queue tuned for speed. On SQLite or PostgreSQL: the address says.

`python -m tests.benchmarks.systems.dbos_chain` is a worker.
"""
# pyright: reportMissingImports=false, reportFunctionMemberAccess=false

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

from dbos import DBOS, DBOSClient

from tests.benchmarks.chain import STEPS, start_of, url
from tests.benchmarks.chain import advance as body

QUEUE, NAPS = "bench", "naps"


@DBOS.step()
def advance(previous: dict[str, Any]) -> dict[str, Any]:
    return body(previous)


@DBOS.workflow(name="chain_of_ten")
def chain_of_ten(start: dict[str, Any]) -> int:
    value = start
    for _ in range(STEPS):
        value = advance(value)
    return len(value)


@DBOS.step()
async def wake(previous: dict[str, Any]) -> dict[str, Any]:
    return body(previous)


@DBOS.workflow(name="nap_first")
async def nap_first(start: dict[str, Any], until: float) -> None:
    await DBOS.sleep_async(until - time.time())  # a sleep that is not async holds a thread
    await wake(start)


@cache
def client() -> DBOSClient:
    return DBOSClient(system_database_url=url())


def submit(runs: Sequence[int]) -> None:
    for run in runs:
        client().enqueue({"workflow_name": "chain_of_ten", "queue_name": QUEUE}, start_of(run))


def nap(naps: Sequence[tuple[int, float]]) -> None:
    for run, until in naps:
        client().enqueue({"workflow_name": "nap_first", "queue_name": NAPS}, start_of(run), until)


def prepare() -> None:
    """The tables, and the queues, before anything is sent."""
    _launch("producer")
    DBOS.register_queue(QUEUE, worker_concurrency=8, polling_interval_sec=0.02)
    DBOS.register_queue(NAPS, polling_interval_sec=0.02)
    DBOS.destroy()


def work() -> None:
    _launch(f"worker-{os.getpid()}")  # under one name, the second worker would recover what the first one runs
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    DBOS.destroy()


def _launch(executor: str) -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url(),
            "executor_id": executor,
            "application_version": "1",
            "console_log_level": "WARNING",
        }
    )
    DBOS.launch()


if __name__ == "__main__":
    work()
