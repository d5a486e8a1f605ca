"""Transitions that keep the house: leases, timers, what dead workers left, and what nobody reads any more."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from flowlib.function import Function, heard_by, subscribed_by
from flowlib.records import JobSpec, Lease, text
from flowlib.wire import script

from .link import Link


class HouseStore(Link):
    def register_app(self, app: str, functions: Mapping[str, Function], worker: str = "") -> None:
        """Tell tools that do not import the app, and other apps, what it declares.

        What only `worker`, as RQ knows it, declares is forgotten once that is gone, unless nobody is there.
        """
        told = [part for name, each in functions.items() for part in (name, json.dumps(each.describe()))]
        on = [f"{event} {name}" for event, names in subscribed_by(functions.values()).items() for name in names]
        self._call(
            "register_app", worker, app, heard_by(functions.values()), "\n".join(sorted(on)), *told, key=self.keys.apps
        )

    def forget_functions(self, app: str) -> None:
        """Those that no worker of the app knows any more, if there is any worker of it."""
        self._call("forget_functions", app, key=self.keys.apps)

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
        """How many timers were fired, and the µs until the next is due (-1: none)."""
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

    def forget_consumers(self, app: str) -> int:
        return int(self._call("forget_consumers", app, key=self.keys.events))

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

    def read_keys(self, keys: Sequence[bytes], at_once: int = 200) -> Iterator[tuple[bytes, int, Any]]:
        """The type of each, the ms until it expires or -1, and its value as Redis gives it to scripts.

        Also while writing is paused: then no script can be loaded, so it comes along.
        """
        source, head = script("read_keys").source, (self.keys.leases, self.keys.prefix, self.keys.rq)
        for start in range(0, len(keys), at_once):
            yield from cast(list[Any], self.client.eval(source, 1, *head, *keys[start : start + at_once]))  # type: ignore[arg-type]
