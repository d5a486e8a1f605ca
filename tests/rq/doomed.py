"""Worker processes for RQ's jobs that die at an exact command, whoever sends it: our scripts or RQ's own code."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis.connection import AbstractConnection
from rq import get_current_job

from flowlib.store import Store
from flowlib.testing import AFTER, BEFORE
from flowlib.wire import FOREVER
from flowlib.worker import FlowWorker
from tests.crash.fleet import Forked
from tests.crash.ledger import Ledger

from .shop import app


class WorkerProcess(Forked):
    """One `flow worker --rq-jobs`; with `at`, its main thread's `at`-th command to Redis is its last."""

    def __init__(self, url: str, notes: Path, at: int = 0, when: str = BEFORE, **settings: Any) -> None:
        super().__init__(_work, notes, url, at, when, {"lease_ms": 500, "rq_jobs": True, **settings})


def note(*words: object) -> None:
    """What job bodies do, outside of Redis."""
    job = get_current_job()
    assert job is not None
    Ledger().write(job.id, *words)


def notes_of(path: Path) -> list[tuple[str, ...]]:
    return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []


def _work(url: str, at: int, when: str, settings: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.INFO)
    os.environ["FLOW_REDIS_URL"] = url
    if at:
        AbstractConnection.send_packed_command = _deadly(AbstractConnection.send_packed_command, at, when)  # type: ignore[method-assign]
    store = Store(url, patience=FOREVER, give_up=lambda: worker._may_give_up())
    worker = FlowWorker(["old", "flow"], app=app.connect(url), store=store, **settings)
    worker.work()


def _deadly(send: Callable[..., None], at: int, when: str) -> Callable[..., None]:
    numbers = itertools.count(1)

    def send_or_die(*arguments: Any, **options: Any) -> None:
        deadly = threading.current_thread() is threading.main_thread() and next(numbers) == at
        if deadly and when == BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)
        send(*arguments, **options)
        if deadly and when == AFTER:
            os.kill(os.getpid(), signal.SIGKILL)

    return send_or_die
