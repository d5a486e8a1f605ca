"""The chain of ten as RQ's users build it: the success callback stores the result and enqueues the next step."""

from __future__ import annotations

import json
from typing import Any

import redis
import rq
from rq.job import Job

from tests.benchmarks.chain import STEPS, advance

QUEUE = "bench"


def go_on(job: Job, connection: redis.Redis, result: dict[str, Any], *_: Any) -> None:
    connection.hset(f"bench:{result['run']}", str(result["step"]), json.dumps(result))
    if result["step"] < STEPS:
        rq.Queue(QUEUE, connection=connection).enqueue(advance, result, on_success=rq.Callback(go_on))


def work(worker_class: str, redis_url: str) -> None:
    """One worker in this process: `SimpleWorker` runs jobs itself, `Worker` forks for each (and finds all imported)."""
    connection = redis.Redis.from_url(redis_url)
    made: rq.Worker = getattr(rq, worker_class)([QUEUE], connection=connection)
    made.work(logging_level="WARNING")
