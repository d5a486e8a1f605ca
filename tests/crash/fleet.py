"""Worker processes for crash tests, forked from a process that has imported everything: each is there in milliseconds."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from flowlib.testing import run_worker

from . import ledger

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.crash.fleet", "tests.crash.story", "tests.crash.mixture", "tests.crash.waiting"])


def start_worker(location: str, url: str, notes: Path, **settings: Any) -> ForkServerProcess:
    """A worker process whose step bodies note what they do in `notes`; its own log is beside that."""
    process = _forks.Process(target=_work, args=(location, url, str(notes), settings), daemon=True)
    process.start()
    return process


def stop_worker(process: ForkServerProcess) -> int:
    """In good order, as a deployment does it; returns the exit code, that of its kill if it was dead already."""
    process.terminate()
    process.join(10)
    assert process.exitcode is not None, "a worker does not end on SIGTERM"
    return process.exitcode


def until(condition: Callable[[], Any]) -> Any:
    """What `condition` returns as soon as that is true."""
    deadline = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return found


def _work(location: str, url: str, notes: str, settings: dict[str, Any]) -> None:
    if sys.platform == "linux":  # end with the tests, however those end
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    log = os.open(f"{notes}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.WARNING)
    os.environ[ledger.PATH], os.environ[ledger.URL] = notes, url
    run_worker(location, url, **settings)
