"""One system set up to be measured: a fresh server, a producer, as many worker processes as asked for, an empty file of marks.

Every figure comes from the marks that the steps leave, from the server's own books, or from the system's process table.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, NamedTuple

import redis

from flowlib.server import ANY_PORT, Server
from tests.benchmarks.chain import MARKS_VARIABLE, URL_VARIABLE, Marks
from tests.benchmarks.postgres import postgres
from tests.benchmarks.restate import restate
from tests.benchmarks.roster import POSTGRES, REDIS, RESTATE, System

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds without a step: something is wrong
POLL = 0.005
BATCH = 500  # runs handed in by one call

Process = subprocess.Popen[bytes]


class Broken(Exception):
    """A system does not do what it should; the message has what its processes said."""


class Call(NamedTuple):
    """When a call of the producer began and ended, by the clock that the marks have, too."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Bench:
    """`client` speaks to the system's Redis, and is None where it has another server."""

    def __init__(self, system: System, url: str, folder: Path, client: redis.Redis | None) -> None:
        self.system = system
        self.url = url
        self.marks = Marks(folder / "marks")
        self.folder = folder
        self._client = client
        self._log = folder / "said"
        self._environment = {
            **os.environ,
            "FLOW_REDIS_URL": url,
            URL_VARIABLE: url,
            MARKS_VARIABLE: str(self.marks.path),
        }
        self._producer: subprocess.Popen[str] | None = None

    @property
    def client(self) -> redis.Redis:
        assert self._client is not None, f"{self.system.name} does not use Redis"
        return self._client

    # -- the producer ------------------------------------------------------------------------------------------------

    def submit(self, runs: Sequence[int]) -> Call:
        """One call of the system's library for each run."""
        return self.call("submit", list(runs))

    def submit_together(self, runs: Sequence[int]) -> Call:
        """As few calls as it takes, if the library can do that."""
        function = "submit_together" if self.system.together else "submit"
        calls = [self.call(function, list(runs[i : i + BATCH])) for i in range(0, len(runs), BATCH)]
        return Call(calls[0].began, calls[-1].ended)

    def call(self, function: str, *arguments: Any) -> Call:
        """Let the producer call this function of the system's module."""
        if self._producer is None:
            self._producer = self._start_producer()
        return Call(*self._ask(json.dumps([function, arguments])))

    def _start_producer(self) -> subprocess.Popen[str]:
        with self._log.open("ab") as log:
            self._producer = subprocess.Popen(
                [self.system.python, "-m", "tests.benchmarks.producer", self.system.module],
                cwd=ROOT, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self._ask("")
        return self._producer

    def _ask(self, line: str) -> list[float]:
        assert self._producer is not None
        assert self._producer.stdin is not None
        assert self._producer.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            if line:
                print(line, file=self._producer.stdin, flush=True)
        if not (reply := self._producer.stdout.readline()):
            raise Broken(f"{self.system.name}: its producer ended; it said:\n{self._said()}")
        times: list[float] = json.loads(reply)
        return times

    # -- workers -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def workers(self, count: int = 1, *options: str, last: bool = False) -> Iterator[list[Process]]:
        """That many worker processes. The last ones on a server are killed at the end: others stop in good order."""
        command = [self.system.python, *self.system.worker, *options]
        with self.processes(count, command, patience=0.0 if last else 10.0) as started:
            yield started

    @contextlib.contextmanager
    def processes(self, count: int, command: Sequence[str], patience: float = 10.0) -> Iterator[list[Process]]:
        """At the end they get `patience` to stop, and whatever they forked is gone, too."""
        started: list[Process] = []
        try:
            with self._log.open("ab") as log:
                while len(started) < count:
                    started.append(self._spawn(command, log))
            yield started
        finally:
            _end(started, patience)

    def _spawn(self, command: Sequence[str], log: IO[bytes]) -> Process:
        return subprocess.Popen(
            command, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip

    def wait_for_marks(self, processes: Sequence[Process], marks: int) -> None:
        """Until there are so many. Raises Broken if they do not come."""
        self.wait_for(processes, lambda: self.marks.count, marks, "steps were run")

    def wait_for(self, processes: Sequence[Process], count: Callable[[], int], goal: int, what: str) -> None:
        seen, since = -1, 0.0
        while (now := count()) < goal:
            if now > seen:
                seen, since = now, time.monotonic()
            elif any(process.poll() is not None for process in processes) or time.monotonic() - since > PATIENCE:
                states = ", ".join("runs" if process.poll() is None else "ended" for process in processes)
                raise Broken(
                    f"{self.system.name}: {now} of {goal} {what}, then no more; its workers: {states}; they said:\n"
                    f"{self._said()}"
                )
            time.sleep(POLL)

    def drain(self, runs: int, steps: int, count: int = 1, *options: str, last: bool = False) -> float:
        """Steps per second while workers do what is waiting, from the first mark to the last: their start does not count."""
        done = self.marks.count
        with self.workers(count, *options, last=last) as processes:
            self.wait_for_marks(processes, done + runs * steps)
        return rate([mark.at for mark in self.marks.read(done)])

    def close(self) -> None:
        if self._producer is not None:
            self._producer.kill()
            self._producer.communicate()

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]


@contextlib.contextmanager
def bench(system: System, config: Mapping[str, str] | None = None) -> Iterator[Bench]:
    """A server of its own, gone at the end. Redis keeps its default settings here: AOF everysec, no RDB, over TCP."""
    with TemporaryDirectory(prefix="flow-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        client = None
        if system.store == REDIS:
            server = stack.enter_context(Server.start(port=ANY_PORT, config=config))
            client = stack.enter_context(contextlib.closing(server.client()))
            url = server.url
        elif system.store == POSTGRES:
            url = stack.enter_context(postgres(folder))
        elif system.store == RESTATE:
            url = stack.enter_context(restate(folder))
        else:
            url = f"sqlite:///{folder / 'store.sqlite'}"
        yield stack.enter_context(contextlib.closing(Bench(system, url, folder, client)))


def _end(processes: Sequence[Process], patience: float) -> None:
    for process in processes if patience else ():
        process.terminate()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def rate(times: Sequence[float]) -> float:
    return (len(times) - 1) / (max(times) - min(times))


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: a value that was seen."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def used_memory(client: redis.Redis) -> int:
    """Bytes that the server has allocated."""
    return int(client.info("memory")["used_memory"])
