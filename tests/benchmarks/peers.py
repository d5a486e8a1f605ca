"""The systems that are compared, behind one protocol. A further peer is a class here and a module with its chain."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import redis
import rq

from flowlib import Event
from tests.benchmarks import flow_chain, rq_chain
from tests.benchmarks.chain import advance, start_of


class Peer(Protocol):
    """One system. `share` is its part of the runs, for the slow ones; `lacks` what its figure does not pay for."""

    name: str
    lacks: str
    share: float

    def prepare(self, redis_url: str) -> None:
        """Use this fresh server from now on."""
        ...

    def submit(self, runs: Sequence[int]) -> None:
        """Start so many runs, one call for each."""
        ...

    def submit_together(self, runs: Sequence[int]) -> None:
        """Start them by one call."""
        ...

    def worker_command(self) -> list[str]:
        """The command line of one worker process."""
        ...


class Flowlib:
    name = "flowlib"
    lacks = "nothing of it: memo, lease, history, metrics and RQ's own records are written for every step"
    share = 1.0

    def prepare(self, redis_url: str) -> None:
        flow_chain.app.connect(redis_url)

    def submit(self, runs: Sequence[int]) -> None:
        for run in runs:
            flow_chain.app.send(self._event(run))

    def submit_together(self, runs: Sequence[int]) -> None:
        flow_chain.app.send([self._event(run) for run in runs])

    def worker_command(self) -> list[str]:
        flow = str(Path(sys.executable).with_name("flow"))
        return [flow, "worker", "tests.benchmarks.flow_chain:app", "--log-level", "WARNING"]

    def _event(self, run: int) -> Event[dict[str, object]]:
        return Event(flow_chain.EVENT, start_of(run))


class Rq:
    """RQ's own workers; each step's success callback enqueues the next."""

    def __init__(self, worker_class: str, lacks: str, share: float = 1.0) -> None:
        self.name = f"rq {worker_class}"
        self.lacks = lacks
        self.share = share
        self._worker_class = worker_class
        self._url = ""

    def prepare(self, redis_url: str) -> None:
        self._url = redis_url
        self._queue = rq.Queue(rq_chain.QUEUE, connection=redis.Redis.from_url(redis_url))

    def submit(self, runs: Sequence[int]) -> None:
        for run in runs:
            self._queue.enqueue(advance, start_of(run), on_success=rq.Callback(rq_chain.go_on))

    def submit_together(self, runs: Sequence[int]) -> None:
        on_success = rq.Callback(rq_chain.go_on)
        jobs = [rq.Queue.prepare_data(advance, args=(start_of(run),), on_success=on_success) for run in runs]
        self._queue.enqueue_many(jobs)

    def worker_command(self) -> list[str]:
        work = f"from tests.benchmarks.rq_chain import work; work({self._worker_class!r}, {self._url!r})"
        return [sys.executable, "-c", work]


BASELINE = "rq SimpleWorker"
PEERS: tuple[Peer, ...] = (
    Flowlib(),
    Rq(
        "SimpleWorker",
        "a crash between result and next job repeats a step or forks the chain; no recovery, no history",
    ),
    Rq("Worker", "the same, but a step that takes its process down leaves the worker up", share=0.06),
)
