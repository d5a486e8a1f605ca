"""How many steps a second: a backlog of runs drained by one worker process, then another by two; and what that costs Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import redis

from tests.benchmarks.bench import Bench, bench
from tests.benchmarks.chain import STEPS
from tests.benchmarks.roster import REDIS, System

SECONDS = 3.0  # so long should a drain take
CHUNK = 1000
SHORT_LIVED = 600  # seconds; keys that expire within are not what a run leaves behind


def measure(system: System, scale: float) -> dict[str, float]:
    runs = max(4, round(system.pace * SECONDS * scale / STEPS))
    with bench(system) as at:
        figures = {"loop_ms": loop_ms()}
        at.submit_together(range(runs))
        before = _books(at.client) if system.store == REDIS else []
        figures["steps_1"] = at.drain(runs, STEPS)
        if system.store == REDIS:
            figures |= _costs(at, before, runs)
        if not system.alone:
            at.submit_together(range(runs, 3 * runs))
            figures["steps_2"] = at.drain(2 * runs, STEPS, 2, last=True)
        marks = at.marks.read()
        figures["again"] = len(marks) - len({mark[1:] for mark in marks})
    return figures


def _costs(at: Bench, before: list[float], runs: int) -> dict[str, float]:
    """By step and by finished run; worker's start and end are in it."""
    commands, reads, cpu = ((a - b) / (runs * STEPS) for a, b in zip(_books(at.client), before, strict=True))
    total, kept = bytes_of(at)
    return {
        "commands": commands,
        "round_trips": reads,
        "server_us": cpu * 1e6,
        "bytes": total / runs,
        "bytes_kept": kept / runs,
    }


def _books(client: redis.Redis) -> list[float]:
    """Commands (those that scripts call as well), reads from sockets, and CPU seconds of the server since it started."""
    stats, cpu, commands = client.info("stats"), client.info("cpu"), client.info("commandstats").values()
    return [
        sum(command["calls"] for command in commands),
        stats["total_reads_processed"],
        cpu["used_cpu_user"] + cpu["used_cpu_sys"],
    ]


def bytes_of(at: Bench) -> tuple[int, int]:
    """What all keys of all databases take, and what those take that do not expire shortly."""
    total = kept = 0
    for database in at.client.info("keyspace"):
        with redis.Redis.from_url(at.url.removesuffix("0") + database.removeprefix("db")) as client:
            keys = list(client.scan_iter(count=CHUNK))
            for start in range(0, len(keys), CHUNK):
                for size, ttl in _sizes(client, keys[start : start + CHUNK]):
                    total += size
                    kept += size if ttl == -1 or ttl > SHORT_LIVED else 0
    return total, kept


def _sizes(client: redis.Redis, keys: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Each key's bytes and the seconds that it has to live."""
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.memory_usage(key, samples=0)
        pipe.ttl(key)
    replies = pipe.execute()
    return ((size or 0, ttl) for size, ttl in zip(replies[::2], replies[1::2], strict=True))


def loop_ms() -> float:
    """The best of three fixed loops: machines have faster and slower minutes."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(200_000):
            pass
        taken.append((time.perf_counter() - began) * 1000)
    return min(taken)
