"""The only module that speaks Redis: one typed method per transition, each one `.lua` file in one round trip.

Owns connections and what goes over them; decides nothing. Reading for people (lists, timelines) is in `runs.py`.
"""

from __future__ import annotations

import copy
import json
import os
import secrets
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgpack
import redis

from .address import Unusable, connect, shown
from .errors import ServerError
from .function import Function
from .keys import Keys
from .model import ErrorInfo
from .records import Claim, Dispatched, End, JobSpec, Lease, Start, read_claim, text, told
from .wire import Packed, PackedArgs, Wire, explain, script

RedisError = redis.RedisError
MIN_SERVER = (7, 0)
PATIENCE = 5.0  # seconds that a producer waits for Redis
MOST_LABELS = 1000  # that a process remembers
STEP_EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, "+Inf")


Sent = tuple[str, str, bytes, int]  # an event: its id, name, data, and ts in ms or 0


class Store:
    """Transitions on one Redis. Each thread gets a connection of its own; `patience` is how long to wait for Redis."""

    def __init__(
        self,
        url: str,
        *,
        keys: Keys | None = None,
        patience: float = PATIENCE,
        give_up: Callable[[], bool] = lambda: False,
        wire: type[Wire] = Wire,
        client: redis.Redis | None = None,
    ) -> None:
        self.url = url
        self.keys = keys or Keys()
        self._patience = patience
        self._give_up = give_up
        self._wire_class = wire
        try:
            self.client = client or connect(url, self.keys)
        except ValueError as error:
            # it may quote a part of the password
            hidden = not isinstance(error, Unusable) and ("@" in url or "password" in url)
            why = "" if hidden else f": {error}"
            raise ServerError(f"{shown(url)!r} is no Redis URL{why}; e.g. redis://127.0.0.1:6379/0") from None
        self._local: Any = threading.local()
        self._labels: dict[tuple[str, str, str], str] = {}
        self._step_fields: dict[tuple[tuple[str, str, str], str, int], tuple[str, str]] = {}
        self._head = PackedArgs(self.keys.leases, self.keys.prefix, self.keys.rq)

    @property
    def wire(self) -> Wire:
        wire: Wire | None = getattr(self._local, "wire", None)
        if wire is None or wire.pid != os.getpid():  # a forked child must not speak on its parent's connection
            wire = self._local.wire = self._wire_class(
                self.client.connection_pool, patience=self._patience, give_up=self._give_up
            )
        return wire

    def alone(self) -> Store:
        """The same with one connection for all threads: for one run at a time, whose code speaks from several in turn."""
        twin = copy.copy(self)
        twin._local = SimpleNamespace()
        return twin

    def hasty(self) -> Store:
        """The same without patience: for what is to be done now or not at all."""
        twin = copy.copy(self)
        twin._local, twin._patience = threading.local(), 0
        return twin

    def close(self) -> None:
        self.wire.close()
        self.client.close()

    def check_server(self) -> str:
        """The server's version. Raises ServerError when it cannot be used."""
        try:
            info = self.client.info("server")
        except redis.RedisError as error:
            raise explain(error, self.url) from None
        version = str(info.get("valkey_version") or info.get("redis_version", "0"))
        if tuple(int(part) for part in version.split(".")[:2]) < MIN_SERVER:
            raise ServerError(f"Redis {version} is too old: flowlib needs Redis 7.0 or newer, or any Valkey")
        return version

    def _pack(self, name: str, *args: Any, key: str | None = None) -> Packed:
        head = self._head if key is None else PackedArgs(key, self.keys.prefix, self.keys.rq)
        return script(name).pack(head, args)

    def _call(self, name: str, *args: Any, key: str | None = None) -> Any:
        return self.wire.call(self._pack(name, *args, key=key))

    def _pack_held(self, name: str, lease: Lease, *args: Any) -> Packed:
        return script(name).pack(self._head, args, lease.packed)

    def _call_held(self, name: str, lease: Lease, *args: Any) -> str:
        return cast(str, self.wire.call(self._pack_held(name, lease, *args)).decode())

    def register_app(self, app: str, functions: Mapping[str, Function]) -> None:
        """Tell tools that do not import the app what it declares; functions that are gone are forgotten."""
        key = self.keys.functions(app)
        described: dict[Any, Any] = {name: json.dumps(function.describe()) for name, function in functions.items()}
        with self.client.pipeline() as pipe:
            pipe.sadd(self.keys.apps, app)
            pipe.delete(key)
            pipe.hset(key, mapping=described)
            pipe.execute()

    # -- events ------------------------------------------------------------------------------------------------------

    def send_events(self, events: Sequence[Sent]) -> None:
        """Append them to the stream: all of them, or none."""
        try:
            self._call("send_events", *(part for event in events for part in event), key=self.keys.events)
        except redis.RedisError as error:
            raise explain(error, self.url) from None

    def join_events(self, app: str) -> bool:
        return bool(self._call("join_events", app, key=self.keys.events))

    def dispatch_events(self, app: str, events: Sequence[Dispatched]) -> Packed:
        """Start what these events trigger, wake what waits for them, and settle them; packed, for many go in one round trip.

        Replies [1 or 0, run id] for each run, [2, id in the stream, name, fields…] for an event that is to come again.
        """
        return self._pack("dispatch_events", app, _for_lua(tuple(events)), key=self.keys.events)

    def start(self, fn: Function, run: str, event: tuple[str, str, bytes, int], location: str, spec: JobSpec) -> Start:
        """How an event, (id, name, data, ts in ms), starts a run."""
        window, retention = int(fn.idempotency.total_seconds() * 1000), int(fn.retention.total_seconds())
        event_id, name, data, ts = event
        return (fn.name, event_id, name, ts, data, run, window, retention, location, spec.args())

    def plan_ticks(
        self, app: str, worker: str, schedules: Iterable[str], starting: bool
    ) -> tuple[float, dict[str, str]]:
        """The time in ms, and what is known of each schedule, FUNCTION|EXPRESSION ZONE, under the fields of the hash."""
        now, pairs = self._call("plan_ticks", worker, int(starting), *schedules, key=self.keys.cron(app))
        return float(now), dict(zip(map(text, pairs[::2]), map(text, pairs[1::2]), strict=True))

    def start_ticks(self, app: str, decisions: Sequence[tuple[Any, ...]]) -> Packed:
        """Decisions as the script takes them; the reply has for each the run that it has started, or b''."""
        return self._pack("start_ticks", app, _for_lua(tuple(decisions)), key=self.keys.cron(app))

    def pause_cron(self, app: str, function: str, paused: bool) -> bool:
        """Whether that has changed anything."""
        key, field = self.keys.cron(app), f"paused|{function}"
        return bool(self.client.hset(key, field, 1) if paused else self.client.hdel(key, field))

    def find_events(self, name: str, after: str, at_most: int = 1000) -> tuple[str, bool, list[tuple[str, Any]]]:
        """Events of that name among the next so many in the stream, the last that was looked at, and may there be more?"""
        looked, more, *found = self._call("find_events", name, after, at_most, key=self.keys.events)
        entries = [(id.decode(), dict(zip(flat[::2], flat[1::2], strict=True))) for id, flat in found]
        return looked.decode(), bool(more), entries

    def forget_consumers(self, app: str, idle_ms: int = 600_000) -> int:
        return int(self._call("forget_consumers", app, idle_ms, key=self.keys.events))

    def forget_runs(self, app: str, start: int, count: int) -> tuple[int, int]:
        """How many runs of the index were looked at, from that place on, and how many were forgotten: they have expired."""
        looked, forgotten = self._call("forget_runs", start, count, key=self.keys.runs(app))
        return int(looked), int(forgotten)

    def forget_workers(self, queues: Iterable[str]) -> int:
        return int(self._call("forget_workers", *queues, key=self.keys.rq_workers))

    def forget_app(self, app: str, silent_ms: int) -> tuple[str, int]:
        """`forgotten` and how many events it had not read, or why not: `unknown`, `alive`, `unfinished` and how many runs."""
        verdict, number = self._call("forget_app", app, silent_ms, key=self.keys.events)
        return verdict.decode(), int(number)

    def trim_events(self, retention_ms: int) -> int:
        return int(self._call("trim_events", retention_ms, key=self.keys.events))

    def send_all(self, batch: list[Packed]) -> list[Any]:
        return self.wire.call_all(batch)

    # -- a job's life ------------------------------------------------------------------------------------------------

    def claim_job(
        self,
        worker: str,
        exec: str,
        lease_ms: int,
        app: str,
        queues: Iterable[str],
        *,
        alone: bool = True,
        rq_jobs: bool = False,
    ) -> Claim | str:
        """A job, or why there is none: `idle`, `suspended` or `foreign`; with `rq_jobs` also `ordinary`: such a job is first.

        `alone`: nothing else runs on this worker.
        """
        reply = self._call("claim_job", worker, exec, lease_ms, app, int(alone), int(rq_jobs), *queues)
        return reply.decode() if isinstance(reply, bytes) else read_claim(reply, worker, exec)

    def adopt_job(self, worker: str, exec: str, lease_ms: int, job: str, held: str = "") -> Claim | str:
        """The lease of a job that a stock RQ worker has popped, or why not: `unknown`, `stale` or `leased`."""
        reply = self._call("adopt_job", worker, exec, lease_ms, job, held)
        return reply.decode() if isinstance(reply, bytes) else read_claim(reply, worker, exec)

    def commit_step(
        self,
        lease: Lease,
        job: str,
        step: str,
        memo: bytes,
        ended: End,
        *,
        total: int,
        attempt: int,
        outcome: str,
        seconds: float | None,
        label: str,
        lines: bytes,
        error: ErrorInfo | None = None,
        after: str = "",
        events: Sequence[Sent] = (),
        left: End | None = None,
        spec: JobSpec | None = None,
    ) -> Packed:
        """To be told: on its way before the function goes on (I9). Its verdict, for who wants one, is `recorded`,
        `suspended`, `fenced`, or `unrecorded`: the step `after` which it comes is not, so this one is not either.

        `job` is the run's, as far as Redis knows; `spec` that of the step if it has none yet, and `left` then how the other
        one ends. `events` go into the stream with the memo, or not at all. `total` is the bytes of all memos; `seconds`
        is None for what has no body: a sleep.
        """
        detail: dict[str, Any] = {"bytes": len(memo), "outcome": outcome, "seconds": seconds}
        if error is not None:
            detail["error"] = error.as_dict()
        fresh: tuple[Any, ...] = ()
        if spec is not None and left is not None:
            detail["kind"] = spec.kind
            fresh = (*left, 1000 * (seconds or 0), spec.args())
        entry = told("recorded", step, attempt, lease.worker, detail)
        metrics = None if seconds is None else self._step_metrics(lease, outcome, label, seconds)
        rest = (step, memo, total, entry, lines, *ended, job, metrics, after, tuple(events) or None, *fresh)
        return self._pack_held("commit_step", lease, _for_lua(rest))

    def note_value(self, lease: Lease, key: str, memo: bytes, total: int, after: str) -> Packed:
        """As commit_step, of a value that has no job; never `suspended`."""
        return self._pack_held("note_value", lease, key, memo, total, after)

    def place_job(
        self, lease: Lease, job: str, recorded: str, left: End, spec: JobSpec, *, age_ms: float, losses: int
    ) -> str:
        """`placed`, `fenced` or `unrecorded`. `left` is how `job` ends, the run's so far; the new one began `age_ms` ago."""
        entry = told("claimed", spec.step, 1, lease.worker, {"kind": spec.kind, "queue": spec.queue, "in_place": True})
        return self._call_held("place_job", lease, job, recorded, *left, f"{age_ms:.3f}", losses, entry, *spec.args())

    def chain_job(
        self,
        lease: Lease,
        job: str,
        recorded: str,
        ended: End,
        spec: JobSpec,
        *,
        sleep_ms: str = "",
        until_ms: str = "",
        lines: bytes = b"",
        wait: tuple[Any, ...] = (),
    ) -> str:
        """`queued`, `scheduled`, `fenced`, `unrecorded` or `behind`; a sleep is for some ms, or until a time in ms.

        So is a `wait`, as the script takes it."""
        mode = "wait" if wait else "sleep" if sleep_ms or until_ms else "push"
        more = [_for_lua(wait)] if wait else []
        return self._call_held(
            "chain_job", lease, job, recorded, *ended, mode, sleep_ms, until_ms, lines, *spec.args(), *more
        )

    def fail_attempt(
        self,
        lease: Lease,
        job: str,
        step: str,
        error: ErrorInfo,
        *,
        level: str,
        attempt: int,
        delay_ms: int,
        outcome: str,
        seconds: float,
        label: str,
        lines: bytes,
        recorded: str = "",
    ) -> str:
        """`retrying`, `fenced` or `unrecorded`. `level` is `step`, or `function` for an error between steps."""
        packed = msgpack.packb(error.as_dict(), unicode_errors="surrogatepass")
        metrics = self._step_metrics(lease, outcome, label, seconds) if level == "step" else ()
        failure = (job, level, attempt, delay_ms, packed, outcome, f"{seconds:.6f}")
        return self._call_held("fail_attempt", lease, *failure, lines, step, recorded, *metrics)

    def finish_run(
        self,
        lease: Lease,
        job: str,
        recorded: str,
        ended: End,
        status: str,
        *,
        result: bytes = b"",
        error: ErrorInfo | None = None,
        lines: bytes = b"",
    ) -> Packed:
        """To be posted; the verdict is `finished`, `fenced` or `unrecorded`."""
        packed = b"" if error is None else msgpack.packb(error.as_dict(), unicode_errors="surrogatepass")
        return self._pack_held("finish_run", lease, job, recorded, *ended, status, result, packed, lines)

    def release_job(self, lease: Lease, reason: str, *, job: str = "", delay_ms: int = 0, lines: bytes = b"") -> str:
        """Of `job`, if the run is further than what was claimed."""
        return self._call_held("release_job", lease, job or lease.job, delay_ms, reason, lines)

    def cancel_run(self, run: str, reason: str) -> tuple[str, ...]:
        """('unknown',), ('ended', status) or ('cancelled', job, worker that runs it or '')."""
        return tuple(part.decode() for part in self._call("cancel_run", run, reason, secrets.token_hex(8)))

    def show_job(self, lease: Lease, job: str) -> None:
        """List a job that has been running for a moment where RQ's tools look."""
        self._call("show_job", lease.worker, lease.name, lease.exec, job, lease.queue)

    def _step_metrics(self, lease: Lease, outcome: str, label: str, seconds: float) -> tuple[Any, ...]:
        asked = (lease.app, lease.function, label)
        edge = bisect_left(STEP_EDGES, seconds, hi=len(STEP_EDGES) - 1)
        fields = self._step_fields.get((asked, outcome, edge))
        if fields is None:
            if len(self._step_fields) >= MOST_LABELS:  # step ids may be made of data: no two alike, for months
                self._labels.clear()
                self._step_fields.clear()
            named = self._labels.get(asked)
            if named is None:
                reply = self._call("name_label", *asked, key=self.keys.metrics(lease.app))
                named = self._labels[asked] = text(reply)
            bucket = f"{outcome}:{STEP_EDGES[edge]}"
            fields = f"attempts|{lease.function}|{bucket}|{named}", f"step_seconds|{lease.function}|sum|{named}"
            self._step_fields[asked, outcome, edge] = fields
        return (*fields, round(seconds * 1_000_000))

    # -- ordinary RQ jobs --------------------------------------------------------------------------------------------

    def take_ordinary(
        self, worker: str, exec: str, lease_ms: int, queues: Iterable[str]
    ) -> tuple[str, str, str] | None:
        """(job, queue, a worker that died when it had begun it or '') of the next RQ job that is no step; now leased."""
        reply = self._call("take_ordinary", worker, exec, lease_ms, *queues)
        return None if reply is None else (text(reply[0]), text(reply[1]), text(reply[2]))

    def expire_ordinary(self, worker: str) -> None:
        """That worker has died: its leases need not run out."""
        client, keys = self.client, self.keys
        for composite in cast(set[bytes], client.smembers(f"{keys.rq_worker(worker)}:executions")):
            queue = cast(bytes | None, client.hget(keys.rq_job(text(composite).partition(":")[0]), "origin"))
            if queue is not None:
                client.zadd(keys.ordinary(text(queue)), {composite: 0}, xx=True)

    # -- keeping house -----------------------------------------------------------------------------------------------

    def renew_leases(
        self, worker: str, lease_ms: int, worker_ttl: int, held: Iterable[str], done: tuple[int, int, float] = (0, 0, 0)
    ) -> tuple[bool, list[str]]:
        """Heartbeat: is the worker still registered with RQ, and which leases were lost.

        `done`: how many jobs it ended well and failed since the last beat, and the seconds that they took.
        """
        registered, *lost = self._call("renew_leases", worker, lease_ms, worker_ttl, *done, *held)
        return bool(registered), [composite.decode() for composite in lost]

    def add_lines(self, lease: Lease, lines: bytes) -> None:
        """Log lines of a step that is still running."""
        self._call("add_lines", lease.worker, lease.run, lines)

    def keep_house(self, worker: str, ms: int) -> bool:
        return bool(self._call("keep_house", worker, ms, key=self.keys.housekeeper))

    def fire_due(self, at_most: int = 100) -> tuple[int, int]:
        """How many timers were fired, and the ms until the next is due (-1: none)."""
        fired, wait = self._call("fire_due", at_most, key=self.keys.timers)
        return int(fired), int(wait)

    def reap(
        self, at_most: int = 100, worker: str = "", *, blameless: bool = False, overdue: Iterable[str] = ()
    ) -> list[tuple[str, str]]:
        """Jobs of dead workers that were put back, each with the worker that had it.

        Those whose leases have run out; or those of a worker that is known to have died, at once. When that was ended on
        purpose its jobs are blameless: handed back, and no loss is counted; but for those of `overdue` leases: the
        attempt has run into its timeout, and whoever claims the job next says so.
        """
        flat = [part.decode() for part in self._call("reap", at_most, worker, int(blameless), *overdue)]
        return list(zip(flat[::2], flat[1::2], strict=True))

    def reconcile_run(self, run: str, spec: JobSpec) -> bool:
        return bool(self._call("reconcile_run", run, *spec.args()))


def _for_lua(args: tuple[Any, ...]) -> bytes:
    """Many arguments as one; Lua has one kind of strings, and its msgpack too."""
    return cast(bytes, msgpack.packb(args, use_bin_type=False, unicode_errors="surrogatepass"))
