"""What one worker of all does for everybody: fire timers, put jobs of dead workers back, find stranded runs, trim.

The duty is a short lease in Redis, so a worker that dies with it is replaced within seconds. Nothing here is needed for
safety twice over: each act is one script that looks again at what it changes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import cast

import redis

from flowlib.outcome import make_job
from flowlib.records import text
from flowlib.store import Store
from flowlib.wire import explain

from .channel import Channel

log = logging.getLogger("flowlib.housekeeping")

DUTY_MS = 3000
FRESH = 0.5  # seconds for which it need not be asked whose duty it is: a timer that is due would wait for that
ABSENCE = 0.5  # seconds without an answer after which Redis counts as having been away,
RETURN = 2.0  # seconds for which the workers that waited for it are then heard first,
SELDOM = 10.0  # but one that is merely slow must not put that off for ever
BATCH = 100
CHUNK = 500
ACQUITTED = 86_400.0  # seconds after which a suspect is forgotten: it has ended before it was looked at again
WINDOW, WINDOWS = 1000, 10  # runs of an index that are looked at in one call, and how often in a row
SUSPICION = 5.0  # seconds for which a run must look stranded before it is put back: RQ's own moves are not atomic


class Housekeeper:
    """`run` is the thread's body; the single acts can be called by themselves."""

    def __init__(
        self,
        store: Store,
        worker: str,
        queues: Iterable[str] = (),
        *,
        event_retention_ms: int,
        reconcile_every: float = 15.0,
    ) -> None:
        self.store = store
        self._queues = list(queues)
        self.worker = worker
        self._hasty = store.hasty()
        self._back = -SELDOM  # when Redis came back the last time
        self._kept = -DUTY_MS / 1000  # when the duty was taken, or kept
        self._timers = Channel(store.client, store.keys.timers_channel)
        self._retention_ms = event_retention_ms
        self._every: dict[Callable[[], object], float] = {
            self.reap: 1.0,
            self.reconcile: reconcile_every,
            self.tidy: 1.0,
            self.bury: 30.0,
        }
        self._last: dict[Callable[[], object], float] = {}
        self._suspects: dict[str, float] = {}
        self._cursors: dict[str, int] = {}
        self._places: dict[str, tuple[int, bool]] = {}  # in each index: where to go on, and whether any had expired

    def run(self, stopping: Callable[[], bool]) -> None:
        while not stopping():
            try:
                self._timers.hear(self._keep_house())
            except Exception as error:
                if not stopping():
                    shown = explain(error, self.store.url) if isinstance(error, redis.RedisError) else repr(error)
                    log.warning("housekeeping: %s", shown, exc_info=not isinstance(error, redis.RedisError))
                    time.sleep(0.5)
        self._timers.close()
        self._hasty.wire.close()

    def wake(self) -> None:
        """Let `run` look at once whether it is to stop."""
        self._timers.hang_up()

    def resign(self) -> None:
        """Let another worker have the duty at once."""
        self.store.keep_house(self.worker, 0)

    def _keep_house(self) -> float:
        """Do what is due; returns the seconds until the next look."""
        if time.monotonic() - self._kept > FRESH and not self._keep_duty():
            return DUTY_MS / 3000
        wait = self.fire()
        for act, every in self._every.items():
            if time.monotonic() - self._last.get(act, -math.inf) >= every:
                self._last[act] = time.monotonic()
                act()
                if act == self.reconcile and self._suspects:  # who has the duty may not have it for long
                    self._last[act] += min(0.0, SUSPICION - every)
                wait = min(wait, self.fire())
        return wait

    def _keep_duty(self) -> bool:
        asked = time.monotonic()
        ours = self.store.keep_house(self.worker, DUTY_MS)
        self._hear(asked)
        self._kept = asked if ours else -DUTY_MS / 1000
        return ours

    def _hear(self, asked: float) -> None:
        """If Redis was away: who lives has still to renew its leases."""
        heard = time.monotonic()
        if heard - asked > ABSENCE and heard - self._back > SELDOM:
            self._back = heard
            self._last[self.reap] = heard + RETURN

    def look_around(self) -> None:
        """For who does not stay until `run` comes to it, from any thread: what is due, and what dead workers had."""
        self.fire()
        if time.monotonic() >= self._last.get(self.reap, -math.inf):  # else Redis is just back
            self.reap()
        self._hasty.wire.close()

    def fire(self) -> float:
        """Fire all timers that are due; returns the seconds until the next one, at most 1."""
        while True:
            asked = time.monotonic()
            fired, wait_us = self.store.fire_due(BATCH)
            self._hear(asked)
            if fired < BATCH:
                return 1.0 if wait_us < 0 else min(1.0, wait_us / 1_000_000)

    def reap(self) -> int:
        """Put jobs of dead workers back; never as the first thing that Redis hears when it is back."""
        reaped = self._hasty.reap(BATCH)
        for job, worker in reaped:
            log.warning("job %s: its worker %s is lost: put back", job, worker)
        return len(reaped)

    def reconcile(self, suspicion: float = SUSPICION) -> list[str]:
        """Find unfinished runs with nothing that will move them (I4), and put their current step back.

        Looks at a bounded number of runs per call, round and round; a run must look stranded twice.
        """
        now = time.monotonic()
        recovered = []
        self._suspects = {run: since for run, since in self._suspects.items() if now - since < ACQUITTED}
        for app in self._apps():
            looked_at, stranded = self._look(app)
            found = {run for run, _ in stranded}
            for run in self._suspects.keys() - found:
                if run[:26] in looked_at:
                    del self._suspects[run]
            for run, record in stranded:
                if now - self._suspects.setdefault(run, now) < suspicion:
                    continue
                del self._suspects[run]
                function, location, step, kind, queue = record[:5]
                spec = make_job(app, function, run[:26], location, step, kind, None, queue)
                if self.store.reconcile_run(run, spec):
                    log.warning("run %s had nothing that would move it: its step was put back", run)
                    recovered.append(run)
        return recovered

    def stranded(self) -> set[str]:
        """All runs that look stranded right now, and nothing is changed. One that just moves may look so for a moment."""
        found: set[str] = set()
        for app in self._apps():
            self._cursors[app] = 0
            while True:
                found.update(run for run, _ in self._look(app)[1])
                if not self._cursors[app]:
                    break
        return found

    def _apps(self) -> list[str]:
        return [app.decode() for app in cast(set[bytes], self.store.client.smembers(self.store.keys.apps))]

    def _look(self, app: str) -> tuple[set[str], list[tuple[str, list[str]]]]:
        """The next some thousand unfinished runs, and those of them that look stranded, with their records."""
        client, keys = self.store.client, self.store.keys
        cursor, found = client.zscan(keys.active(app), self._cursors.get(app, 0), count=10 * CHUNK)
        self._cursors[app] = int(cursor)
        runs = [cast(bytes, run).decode() for run, _ in found]
        stranded = []
        for start in range(0, len(runs), CHUNK):
            stranded += self._stranded_of(runs[start : start + CHUNK])
        queued = {record[4] for _, record, status in stranded if status == "queued"}
        in_queue = {job for queue in queued for job in self._jobs_in(queue)}
        lost = [(run, record) for run, record, status in stranded if status != "queued" or record[5] not in in_queue]
        return set(runs), lost

    def _stranded_of(self, runs: list[str]) -> list[tuple[str, list[str], str]]:
        """Those of the runs whose job is neither leased nor timed, with the job's status; a queue has to be looked at."""
        client, keys = self.store.client, self.store.keys
        records = self._records_of(runs)
        pipe = client.pipeline(transaction=False)
        for _, record in records:
            pipe.hmget(keys.rq_job(record[5]), "status", "flow_lease")
            pipe.zscore(keys.timers, record[5])
        replies = pipe.execute()
        states = list(zip(replies[::2], replies[1::2], strict=True))
        pipe = client.pipeline(transaction=False)
        for (_, lease), _ in states:
            pipe.zscore(keys.leases, lease or "")
        leased = pipe.execute()
        return [
            (run, record, (status or b"").decode())
            for (run, record), ((status, _), timed), lease in zip(records, states, leased, strict=True)
            if lease is None and (timed is None or status != b"scheduled")
        ]

    def _records_of(self, runs: list[str]) -> list[tuple[str, list[str]]]:
        """Of those that are unfinished, and of each of their branches, as RUN:BRANCH."""
        client, keys = self.store.client, self.store.keys
        pipe = client.pipeline(transaction=False)
        for run in runs:
            pipe.hmget(keys.run(run), "function", "location", "step", "kind", "queue", "job", "status", "forked")
        records = [(run, [text(v or b"") for v in values]) for run, values in zip(runs, pipe.execute(), strict=True)]
        records = [(run, record) for run, record in records if record[6] == "running"]
        for run, record in [(run, record) for run, record in records if record[7]]:
            for branch in set(cast(dict[bytes, bytes], client.hgetall(keys.open(run))).values()):
                found = client.hmget(keys.branch(run, branch.decode()), "step", "kind", "queue", "job")
                if found[3] is not None:
                    at = [text(v or b"") for v in cast(list[bytes | None], found)]
                    records.append((f"{run}:{branch.decode()}", [*record[:2], *at, record[6]]))
        return records

    def _jobs_in(self, queue: str) -> set[str]:
        client, key, jobs, start = self.store.client, self.store.keys.rq_queue(queue), set[str](), 0
        while part := cast(list[bytes], client.lrange(key, start, start + 10 * CHUNK - 1)):
            jobs.update(job.decode("utf-8", "replace") for job in part)
            start += len(part)
        return jobs

    def tidy(self) -> None:
        """Forget what is over: events that all have read, ended jobs in RQ's registries, expired runs in our index.

        Often, so that it is little each time: nobody is to wait while the server forgets the jobs of half a minute.
        """
        client, keys = self.store.client, self.store.keys
        self.store.trim_events(self._retention_ms)
        seconds, _ = client.time()
        for queue in self._known_queues():
            for registry in ("finished", "failed"):
                client.zremrangebyscore(f"{keys.rq}:{registry}:{queue}", "-inf", seconds)
        for app in self._apps():
            self._forget_expired(app)

    def _forget_expired(self, app: str) -> None:
        """Goes through the index from the oldest run on; begins anew behind the last expired ones, where all are younger."""
        for _ in range(WINDOWS):
            place, found = self._places.get(app, (0, False))
            looked, forgotten = self.store.forget_runs(app, place, WINDOW)
            if looked < WINDOW or (found and not forgotten):
                self._places[app] = (0, False)
                return
            self._places[app] = (place + looked - forgotten, found or forgotten > 0)

    def bury(self) -> None:
        """Forget dead workers: as readers of events, and in RQ's lists; and functions that only they knew."""
        for app in self._apps():
            self.store.forget_consumers(app)
            self.store.forget_functions(app)
        self.store.forget_workers({*self._queues, *self._known_queues()})

    def _known_queues(self) -> list[str]:
        return [queue.decode() for queue in cast(set[bytes], self.store.client.smembers(self.store.keys.queues))]
