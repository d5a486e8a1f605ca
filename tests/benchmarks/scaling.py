"""What a step costs each of those that have to be more when there are more steps: the server, workers, the network, the disk.

CPU and bytes, no rates: so a busy machine does not spoil them much. From it follows what a million steps a second take.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from flowlib.function import DEFAULT_QUEUE
from flowlib.keys import Keys
from flowlib.store import Store
from tests.benchmarks.bench import Bench, Process, bench
from tests.benchmarks.chain import STEPS
from tests.benchmarks.roster import System
from tests.benchmarks.steps import bytes_of

RUNS = 1500
MANY = 1_000_000  # steps a second
LOAD = 0.6  # of a core: what a server or a worker should have to do at most, in the long run
IDLE = 3.0  # seconds in which an idle worker is listened to
SLEEPERS = 50  # idle workers
PUSHES = 20

NO_REWRITE = {"auto-aof-rewrite-percentage": "0"}  # the file is to grow by what is written, and by nothing else


def measure(system: System, scale: float) -> dict[str, float]:
    runs = max(20, round(RUNS * scale))
    with bench(system, NO_REWRITE) as at:
        at.submit_together(range(2 * runs))
        others = len(at.client.client_list())
        with at.workers(last=True) as workers:
            at.wait_for_marks(workers, runs * STEPS)  # the first half warms up
            before = _books(at, workers[0])
            at.wait_for_marks(workers, 2 * runs * STEPS)
            after = _books(at, workers[0])
            connections = len(at.client.client_list()) - others
            idle_trips = _trips_per_second(at.client, IDLE if scale >= 1 else 0.5)
        total, kept = bytes_of(at)
        idle_us = _idle_worker_us(at)
    steps = after["steps"] - before["steps"]
    figures = {name: (after[name] - before[name]) / steps for name in before if name != "steps"}
    figures |= {"finished_bytes": total / (2 * runs), "kept_bytes": kept / (2 * runs)}
    return figures | {"connections": connections, "idle_trips": idle_trips, "idle_us": idle_us} | _of_many(figures)


def _of_many(figures: dict[str, float]) -> dict[str, float]:
    """For MANY steps a second, in runs of ten."""
    runs = MANY / STEPS
    return {
        "servers": MANY * figures["server_us"] / 1e6 / LOAD,
        "worker_processes": MANY * figures["worker_us"] / 1e6 / LOAD,
        "gigabits": MANY * (figures["bytes_in"] + figures["bytes_out"]) * 8 / 1e9,
        "aof_gb": MANY * figures["aof_bytes"] / 1e9,
        "minute_gb": runs * 60 * (figures["finished_bytes"] - figures["kept_bytes"]) / 1e9,
        "hour_gb": runs * 3600 * figures["kept_bytes"] / 1e9,
    }


def _books(at: Bench, worker: Process) -> dict[str, float]:
    """Microseconds of CPU and bytes so far."""
    info: dict[str, Any] = at.client.info("everything")
    return {
        "steps": at.marks.count,
        "server_us": (info["used_cpu_user"] + info["used_cpu_sys"]) * 1e6,
        "worker_us": _cpu_us(worker),
        "bytes_in": info["total_net_input_bytes"],
        "bytes_out": info["total_net_output_bytes"],
        "aof_bytes": info["aof_current_size"],
    }


def _cpu_us(process: Process) -> float:
    """Of all its threads, as Linux tells."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def _trips_per_second(client: redis.Redis, seconds: float) -> float:
    """Reads from sockets while nothing is to be done, but for those of this question."""
    began, reads = time.monotonic(), client.info("stats")["total_reads_processed"]
    time.sleep(seconds)
    return float(client.info("stats")["total_reads_processed"] - reads - 1) / (time.monotonic() - began)


def _idle_worker_us(at: Bench) -> float:
    """The server's CPU for each idle worker whenever a job comes: all of them wake up, ask for it, and wait again."""
    key = Keys().rq_queue("nobody-else")
    waiting = [at.client.connection_pool.make_connection() for _ in range(SLEEPERS)]

    def wake_all() -> None:
        for connection in waiting:
            connection.send_command("BLMOVE", key, key, "LEFT", "LEFT", 10)
        while at.client.info("clients")["blocked_clients"] < SLEEPERS:
            pass
        at.client.rpush(key, "job")
        for connection in waiting:
            connection.read_response()
        at.client.lpop(key)

    store = Store(at.url)
    waking = _server_us(at.client, wake_all, PUSHES) / SLEEPERS
    asking = _server_us(at.client, lambda: store.claim_job("idle", "none", 1000, "bench", [DEFAULT_QUEUE]), 500)
    for connection in waiting:
        connection.disconnect()
    store.close()
    return waking + asking


def _server_us(client: redis.Redis, act: Callable[[], object], times: int) -> float:
    def used() -> float:
        cpu = client.info("cpu")
        return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"]) * 1e6

    act()
    before = used()
    for _ in range(times):
        act()
    return (used() - before) / times
