"""Measures one peer, once: a server of its own, one worker process, the latency of single runs, then a drain.

Every figure comes from the marks that the steps leave, or from the server's own books.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import redis

from flowlib.server import ANY_PORT, Server
from tests.benchmarks.chain import MARKS_VARIABLE, STEPS, Marks
from tests.benchmarks.peers import Peer

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # seconds without a step: something is wrong
POLL = 0.005
PAUSE = 0.03  # seconds between two runs of the latency phase: the worker is idle again
SHORT_LIVED = 600  # seconds; keys that expire within are not what a run leaves behind


@dataclass(frozen=True)
class Figures:
    """What one peer did in one round. Costs are per step, bytes per finished run, rates per second."""

    steps: float
    p50_ms: float
    p99_ms: float
    commands: float
    round_trips: float
    server_us: float
    bytes: float
    bytes_kept: float
    submit: float
    submit_together: float
    runs: int
    singles: int
    again: int  # bodies that were run twice
    loop_ms: float  # how fast the machine was just then


class WorkerEnded(Exception):
    """The worker does not do what it should; the message has what it said."""


class Bench:
    """A fresh server and an empty file of marks, and a worker process whenever one is asked for."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.client = server.client()
        self.marks = Marks(folder / "marks")
        self._log = folder / "worker.log"

    @contextlib.contextmanager
    def worker(self, command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
        """One worker process; at the end it stops in good order, and what it forked is gone too."""
        environment = {**os.environ, "FLOW_REDIS_URL": self.server.url, MARKS_VARIABLE: str(self.marks.path)}
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait(self, process: subprocess.Popen[bytes], marks: int) -> None:
        """Until there are so many marks. Raises WorkerEnded if they do not come."""
        seen, since = -1, 0.0
        while (count := self.marks.count) < marks:
            if count > seen:
                seen, since = count, time.monotonic()
            elif process.poll() is not None or time.monotonic() - since > PATIENCE:
                state = "still runs" if process.returncode is None else f"ended with exit code {process.returncode}"
                said = self._log.read_text(errors="replace")[-4000:]
                raise WorkerEnded(
                    f"{count} of {marks} steps were run, then no more; the worker {state}; it said:\n{said}"
                )
            time.sleep(POLL)


@contextlib.contextmanager
def bench(config: Mapping[str, str] | None = None) -> Iterator[Bench]:
    with TemporaryDirectory(prefix="flow-bench-") as folder, Server.start(port=ANY_PORT, config=config) as server:
        made = Bench(server, Path(folder))
        try:
            yield made
        finally:
            made.client.close()


def measure(peer: Peer, runs: int, singles: int) -> Figures:
    with bench() as at:
        loop_ms = _loop_ms()
        peer.prepare(at.server.url)
        latencies = _latencies(at, peer, singles)
        submit, submit_together = _submit(peer, runs)
        before, done = _books(at.client), at.marks.count
        steps = drain(at, peer.worker_command(), runs)
        costs = [(after - b) / (runs * STEPS) for after, b in zip(_books(at.client), before, strict=True)]
        marks = at.marks.read()
        total, kept = _bytes(at.client)
        finished = len(marks) // STEPS
        return Figures(
            steps=steps, p50_ms=percentile(latencies, 50), p99_ms=percentile(latencies, 99),
            commands=costs[0], round_trips=costs[1], server_us=costs[2] * 1e6,
            bytes=total / finished, bytes_kept=kept / finished, submit=submit, submit_together=submit_together,
            runs=runs, singles=singles, again=len(marks[done:]) - len({mark[1:] for mark in marks[done:]}), loop_ms=loop_ms,
        )  # fmt: skip


def _latencies(at: Bench, peer: Peer, singles: int) -> list[float]:
    """Milliseconds from before the submission to the body of the last step; the first three runs only warm up."""
    found = []
    with at.worker(peer.worker_command()) as process:
        for run in range(-3, singles):
            began, done = time.monotonic(), at.marks.count
            peer.submit([run + 3])
            at.wait(process, done + STEPS)
            if run >= 0:
                found.append((at.marks.read(done)[-1].at - began) * 1000)
            time.sleep(PAUSE)
    return found


def _submit(peer: Peer, runs: int) -> tuple[float, float]:
    """Runs per second while nobody works: half of them one by one, the other half by one call."""
    rates = []
    half = runs // 2
    for submit, part in ((peer.submit, range(half)), (peer.submit_together, range(half, runs))):
        began = time.perf_counter()
        submit([10_000 + run for run in part])
        rates.append(len(part) / (time.perf_counter() - began))
    return rates[0], rates[1]


def drain(at: Bench, command: Sequence[str], runs: int) -> float:
    """Steps per second of one worker, from the first mark to the last; its start and end do not count."""
    done = at.marks.count
    with at.worker(command) as process:
        at.wait(process, done + runs * STEPS)
    return rate([mark.at for mark in at.marks.read(done)])


def rate(times: Sequence[float]) -> float:
    return (len(times) - 1) / (max(times) - min(times))


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: a value that was seen."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def _books(client: redis.Redis) -> tuple[float, float, float]:
    """Commands (those that scripts call as well), reads from sockets, and CPU seconds of the server since it started."""
    stats, cpu, commands = client.info("stats"), client.info("cpu"), client.info("commandstats").values()
    return (
        sum(command["calls"] for command in commands),
        stats["total_reads_processed"],
        cpu["used_cpu_user"] + cpu["used_cpu_sys"],
    )


def _bytes(client: redis.Redis) -> tuple[int, int]:
    """What all keys take, and what those take that do not expire shortly."""
    total = kept = 0
    cursor = 0
    while True:
        cursor, keys = cast(tuple[int, list[bytes]], client.scan(cursor, count=1000))
        pipe = client.pipeline(transaction=False)
        for key in keys:
            pipe.memory_usage(key, samples=0)
            pipe.ttl(key)
        replies = pipe.execute()
        for size, ttl in zip(replies[::2], replies[1::2], strict=True):
            total += size or 0
            kept += (size or 0) if ttl == -1 or ttl > SHORT_LIVED else 0
        if cursor == 0:
            return total, kept


def _loop_ms() -> float:
    """The best of three fixed loops: machines have faster and slower minutes."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(200_000):
            pass
        taken.append((time.perf_counter() - began) * 1000)
    return min(taken)
