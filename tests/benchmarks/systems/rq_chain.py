"""RQ's own workers: the chain as its users build it. The success callback stores the result and enqueues the next step.

`python -m tests.benchmarks.systems.rq_chain SimpleWorker` is a worker: `SimpleWorker` runs jobs itself, `Worker` forks for each
(and finds all imported). `--with-scheduler` is for jobs with a time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import redis
import rq
from rq.job import Job

from tests.benchmarks.chain import STEPS, advance, start_of, url

QUEUE = "bench"


@cache
def queue() -> rq.Queue:
    return rq.Queue(QUEUE, connection=redis.Redis.from_url(url()))


def go_on(job: Job, connection: redis.Redis, result: dict[str, Any], *_: Any) -> None:
    connection.hset(f"bench:{result['run']}", str(result["step"]), json.dumps(result))
    if result["step"] < STEPS:
        rq.Queue(QUEUE, connection=connection).enqueue(advance, result, on_success=rq.Callback(go_on))


def submit(runs: Sequence[int]) -> None:
    for run in runs:
        queue().enqueue(advance, start_of(run), on_success=rq.Callback(go_on))


def submit_together(runs: Sequence[int]) -> None:
    on_success = rq.Callback(go_on)
    queue().enqueue_many([rq.Queue.prepare_data(advance, args=(start_of(run),), on_success=on_success) for run in runs])


def nap(naps: Sequence[tuple[int, float]]) -> None:
    for run, until in naps:
        queue().enqueue_at(datetime.fromtimestamp(until, UTC), advance, start_of(run))


def work(worker_class: str, *options: str) -> None:
    made: rq.Worker = getattr(rq, worker_class)([QUEUE], connection=redis.Redis.from_url(url()))
    made.work(logging_level="WARNING", with_scheduler="--with-scheduler" in options)


if __name__ == "__main__":
    # Jobs name their callback by its module, and the one that runs here is called __main__.
    import tests.benchmarks.systems.rq_chain as importable

    importable.work(*sys.argv[1:])
