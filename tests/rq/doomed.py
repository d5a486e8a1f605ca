"""Worker processes for RQ's jobs that die at an exact command, whoever sends it: our scripts or RQ's own code."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from typing import Any

from redis.connection import AbstractConnection
from rq import get_current_job

from flowlib.store import Store
from flowlib.testing import AFTER, BEFORE
from flowlib.wire import FOREVER
from flowlib.worker import FlowWorker

from .shop import app

LEDGER = "RQ_JOBS_LEDGER"
PATIENCE = 60.0  # machines may be busy

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.rq.doomed"])
_alone = threading.Lock()  # starting a process asks all others for their exit codes, and each can be read once only


class WorkerProcess:
    """One `flow worker --rq-jobs`; with `at`, its main thread's `at`-th command to Redis is its last."""

    def __init__(self, url: str, notes: Path, at: int = 0, when: str = BEFORE, **settings: Any) -> None:
        target = (url, str(notes), at, when, {"lease_ms": 500, "rq_jobs": True, **settings})
        self._process = _forks.Process(target=_work, args=target, daemon=True)
        with _alone:
            self._process.start()

    def send(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            if not self.ends(within=0):
                os.kill(self._process.pid, number)

    def ends(self, within: float = PATIENCE) -> bool:
        return bool(connection.wait([self._process.sentinel], within))

    @property
    def exit_code(self) -> int:
        """Waits for its end."""
        assert self.ends(), "a worker does not end"
        with _alone:
            self._process.join()
            assert self._process.exitcode is not None
            return self._process.exitcode

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        return self.exit_code

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        assert self.ends()


def until(condition: Callable[[], Any]) -> Any:
    """What `condition` returns as soon as that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found


def note(*words: object) -> None:
    """What job bodies do, outside of Redis; in one write, which no kill tears."""
    job = get_current_job()
    assert job is not None
    file = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, (" ".join([job.id, *map(str, words)]) + "\n").encode())
    finally:
        os.close(file)


def notes_of(path: Path) -> list[tuple[str, ...]]:
    return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []


def _work(url: str, notes: str, at: int, when: str, settings: dict[str, Any]) -> None:
    if sys.platform == "linux":  # end with the tests, however those end
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    log = os.open(f"{notes}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.INFO)
    os.environ[LEDGER], os.environ["FLOW_REDIS_URL"] = notes, url
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
