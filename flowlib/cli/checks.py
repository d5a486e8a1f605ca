"""What `flow doctor` looks at. Nothing here changes anything, and what may not be looked at is said to be so."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import redis

from flowlib.address import connect
from flowlib.cluster import MARK
from flowlib.metrics import families
from flowlib.metrics.reading import Reading
from flowlib.store import Store
from flowlib.worker.housekeeping import Housekeeper

from .output import took

OK, WARN, FAIL = "ok", "warn", "fail"
PINGS = 50
SLOW, VERY_SLOW = 0.005, 0.05  # seconds of a ping: a step costs one or two round trips
FULL, VERY_FULL = 0.8, 0.95
LATE = 30.0  # seconds since a worker last looked at the timers; while one lives it is never more than a few
AGAIN = 1.0  # seconds between two looks for stranded runs: RQ's own moves are not atomic

ABILITIES = b"""#!lua flags=no-writes
return cmsgpack.pack({redis.call('XLEN', KEYS[1]), redis.call('TIME')})"""


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    status: str
    says: str
    remedy: str = ""


@dataclass
class Look:
    """One look at a server, for all checks."""

    store: Store
    version: str
    info: dict[str, Any] = field(init=False)
    values: dict[families.Family, dict[families.Labels, float]] = field(init=False)
    now: float = field(init=False)

    def __post_init__(self) -> None:
        client = self.store.client
        sections = ("server", "memory", "persistence", "cluster")
        self.info = {name: value for section in sections for name, value in client.info(section).items()}
        seconds, micros = client.time()
        self.now = seconds + micros / 1e6
        url, keys = self.store.url, self.store.keys
        with connect(url, keys, decode_responses=True, encoding_errors="backslashreplace") as reader:
            self.values = dict(Reading(reader, keys).values)


def run_checks(store: Store) -> Iterator[Check]:
    look = Look(store, store.check_server())
    for name, check in CHECKS.items():
        try:
            yield Check(name, *check(look))
        except redis.ResponseError as error:
            yield Check(name, WARN, f"cannot check: {error}")


Verdict = tuple[str, str] | tuple[str, str, str]


def _version(look: Look) -> Verdict:
    says = f"{'Valkey' if 'valkey_version' in look.info else 'Redis'} {look.version}"
    if look.info.get("cluster_enabled") and MARK not in look.store.url:
        says = f"{says}, one node of a cluster: after a failover nobody would find its keys by this address"
        return WARN, says, "redis+cluster:// in place of redis://"
    return OK, says


def _abilities(look: Look) -> Verdict:
    try:
        look.store.client.execute_command("EVAL", ABILITIES, 1, look.store.keys.events)
    except redis.ResponseError as error:
        return FAIL, f"they do not all work: {error}", "Redis >= 7.0 or Valkey, with Lua and streams permitted"
    return OK, "Lua scripts and streams work"


def _latency(look: Look) -> Verdict:
    times = []
    for _ in range(PINGS):
        began = time.perf_counter()
        look.store.client.ping()
        times.append(time.perf_counter() - began)
    middle = statistics.median(times)
    says = f"a round trip takes {middle * 1000:.2f} ms (median of {PINGS})"
    if middle < SLOW:
        return OK, says
    return FAIL if middle > VERY_SLOW else WARN, says, "bring Redis nearer to the workers: each step waits for it"


def _append_only(look: Look) -> Verdict:
    if not look.info.get("aof_enabled"):
        return FAIL, "no append-only file: a restart forgets all runs", "appendonly yes"
    if look.info.get("aof_last_write_status", "ok") != "ok":
        return FAIL, "the append-only file cannot be written", "look at the disk: it may be full"
    return OK, "on: runs survive a restart"


def _fsync(look: Look) -> Verdict:
    setting = cast(dict[str, str], look.store.client.config_get("appendfsync")).get("appendfsync")
    if setting is None:
        return WARN, "cannot check: CONFIG says nothing of it"
    if setting == "no":
        return WARN, "no: a power cut may lose much more than a second", "appendfsync everysec"
    return OK, f"{setting}: a power cut loses {'nothing' if setting == 'always' else 'the last second or two'}"


def _eviction(look: Look) -> Verdict:
    policy = look.info.get("maxmemory_policy")
    if policy is None:
        return WARN, "cannot check: INFO says nothing of it"
    if policy != "noeviction":
        return FAIL, f"{policy}: a full server deletes keys, and so runs", "maxmemory-policy noeviction"
    return OK, "noeviction"


def _memory(look: Look) -> Verdict:
    used, most = int(look.info["used_memory"]), int(look.info.get("maxmemory") or 0)
    if not most:
        says = f"{_megabytes(used)} used, without a limit: the kernel may kill the server"
        return WARN, says, "maxmemory, 60 % of the machine's"
    says = f"{_megabytes(used)} of {_megabytes(most)} used ({used / most:.0%})"
    if used / most < FULL:
        return OK, says
    return FAIL if used / most > VERY_FULL else WARN, says, "raise maxmemory; when it is full, new events are refused"


def _workers(look: Look) -> Verdict:
    """By queue; a queue without a worker fails as soon as something waits in it."""
    alive = {queue: 0.0 for queue, _ in look.values.get(families.WORKERS, {})}
    for (queue, _), count in look.values.get(families.WORKERS, {}).items():
        alive[queue] += count
    if not alive:
        return WARN, "no worker has ever run here", "flow worker MODULE:APP"
    waiting = {queue: look.values[families.QUEUE_JOBS][queue, "queued"] for queue in alive}
    deserted = [queue for queue in alive if waiting[queue] and not alive[queue]]
    says = ", ".join(f"{queue}: {alive[queue]:.0f}" for queue in sorted(alive))
    if deserted:
        jobs = ", ".join(f"{queue!r} has {waiting[queue]:.0f}" for queue in deserted)
        return FAIL, f"jobs wait where nobody works: {jobs}", f"flow worker MODULE:APP --queues {','.join(deserted)}"
    idle = [queue for queue in alive if not alive[queue]]
    if idle:
        return WARN, f"{says}: nobody works on {', '.join(idle)}", f"flow worker MODULE:APP --queues {','.join(idle)}"
    return OK, says


def _waiting(look: Look) -> Verdict:
    latency = look.values.get(families.QUEUE_LATENCY, {})
    slowest = max(latency, key=lambda labels: latency[labels], default=None)
    if slowest is None or latency[slowest] < 60:
        return OK, "no job has been waiting for long"
    says = f"the oldest job in {slowest[0]!r} has been waiting for {took(latency[slowest])}"
    return WARN, says, "start more workers"


def _timers(look: Look) -> Verdict:
    tick = look.values.get(families.SCHEDULER_TICK, {}).get(())
    if tick is None:
        return WARN, "no worker has ever looked at them", "flow worker MODULE:APP"
    age = max(0.0, look.now - tick)
    if age > LATE:
        due = look.values[families.TIMERS_DUE][()]
        says = f"last looked at {took(age)} ago, {due:.0f} are due"
        return FAIL if due else WARN, says, "start a worker: any will do"
    return OK, f"last looked at {took(age)} ago"


def _events(look: Look) -> Verdict:
    """An app that nobody runs any more keeps every event from being forgotten."""
    client, key = look.store.client, look.store.keys.events
    groups: Any = client.xinfo_groups(key) if client.exists(key) else []
    behind = []
    for group in groups:
        last = group["last-delivered-id"].decode()
        for entry, _ in cast(list[tuple[bytes, Any]], client.xrange(key, f"({last}", count=1)):
            behind.append((look.now - int(entry.split(b"-")[0]) / 1000, group["name"].decode(), group["lag"]))
    age, app, lag = max(behind, default=(0.0, "", 0))
    if age < LATE:
        return OK, "every app has read them"
    unread = "some" if lag is None else lag
    says = f"{app!r} has not read {unread}, the first of them sent {took(age)} ago: they are kept for it"
    return WARN, says, f"start a worker of {app!r}, or `flow forget {app}` if it is gone for good"


def _stranded(look: Look) -> Verdict:
    housekeeper = Housekeeper(look.store, "doctor", event_retention_ms=0)
    stranded = housekeeper.stranded()
    if stranded:
        time.sleep(AGAIN)
        stranded &= housekeeper.stranded()
    if stranded:
        named = ", ".join(sorted(stranded)[:3]) + (" …" if len(stranded) > 3 else "")
        says = f"{len(stranded)} have nothing that moves them: {named}"
        return FAIL, says, "start a worker: it puts them back within half a minute"
    return OK, "none"


def _parked(look: Look) -> Verdict:
    """Runs of functions that are gone, or that are not there yet."""
    active = look.values.get(families.RUNS_ACTIVE, {})
    parked = {f"{app}/{fn}": count for (app, fn, state), count in active.items() if state == "parked" and count}
    if not parked:
        return OK, "none"
    says = ", ".join(f"{count:.0f} of {function}" for function, count in sorted(parked.items()))
    remedy = "start a worker of an app that declares it, or `flow cancel` them"
    return FAIL, f"{says}: no worker that came by knows the function", remedy


def _megabytes(number: int) -> str:
    return f"{number / 2**20:.0f} MB" if number < 2**30 else f"{number / 2**30:.1f} GB"


CHECKS: dict[str, Callable[[Look], Verdict]] = {
    "server": _version,
    "abilities": _abilities,
    "latency": _latency,
    "append-only file": _append_only,
    "appendfsync": _fsync,
    "eviction": _eviction,
    "memory": _memory,
    "workers": _workers,
    "queues": _waiting,
    "timers": _timers,
    "events": _events,
    "stranded runs": _stranded,
    "parked runs": _parked,
}
