"""Worker processes for crash tests, forked from a process that has imported everything: each is there in milliseconds."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
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

from flowlib.testing import run_worker
from tests import access

from . import ledger

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # a dead worker's duties pass on within seconds; a machine may be busy

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([f"tests.crash.{each}" for each in ("fleet", "story", "mixture", "waiting", "leavings")])
_alone = threading.Lock()  # starting a process asks all others for their exit codes, and each can be read once only


class Forked:
    """A process of the fleet. What it writes is in a log beside `notes`, where its step bodies note what they do."""

    def __init__(self, work: Callable[..., None], notes: Path, *args: Any, ledger_url: str = "") -> None:
        environment = {ledger.PATH: str(notes), ledger.URL: ledger_url}
        self._process = _forks.Process(target=_begin, args=(work, environment, *args), daemon=True)
        with _alone:
            self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

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

    def send(self, signal_number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            if not self.ends(within=0):
                os.kill(self.pid, signal_number)

    def stop(self) -> int:
        """In good order, as a deployment does it; the exit code, that of its kill if it was dead already."""
        self.send(signal.SIGTERM)
        return self.exit_code

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        assert self.ends()


class WorkerProcess(Forked):
    """One worker of the app at MODULE:APP. It may do no more than deploy/redis.conf lets it, on a server that knows of that."""

    def __init__(self, location: str, url: str, notes: Path, **settings: Any) -> None:
        looks_at = settings.pop("ledger_url", url)
        super().__init__(_work, notes, location, access.limited(url), settings, ledger_url=looks_at)


class CommandProcess(Forked):
    """`flow` or `rq` with these arguments, and the processes that it starts."""

    def __init__(self, program: str, arguments: list[str], notes: Path) -> None:
        super().__init__(_command, notes, program, arguments)

    @property
    def children(self) -> list[int]:
        """Empty where the system does not say it in this way."""
        with contextlib.suppress(OSError):
            tasks = Path(f"/proc/{self.pid}/task").iterdir()
            return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
        return []


def until(condition: Callable[[], Any]) -> Any:
    """What `condition` returns as soon as that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return found


def _begin(work: Callable[..., None], environment: dict[str, str], *args: Any) -> None:
    if sys.platform == "linux":  # end with the tests, however those end
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    log = os.open(f"{environment[ledger.PATH]}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(environment)
    work(*args)


def _work(location: str, url: str, settings: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.WARNING)
    run_worker(location, url, **settings)


def _command(program: str, arguments: list[str]) -> None:
    os.chdir(ROOT)
    command = importlib.import_module({"flow": "flowlib.cli", "rq": "rq.cli"}[program]).main
    sys.exit(command(arguments))
