"""`Reading`: what the scripts have counted, and how things stand at this moment, in three round trips of bounded cost.

Every age is by the server's clock. Series are there before they first count, because `rate()` does not see an increment
that a series begins with.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import redis

from flowlib.keys import Keys
from flowlib.model import ENDED, STATES

from . import families as f
from .families import Family, Labels

VERSIONS = (version("flowlib-rq"), version("rq"))
OLDEST = 100  # unfinished runs of an app that are looked at for the oldest of each function
MOST_LEASES = 1000
# From its head a queue holds the jobs that came back to its front, the latest first, then the others, the earliest first.
# The oldest is where the two meet: near the head, and never more than twice as deep as the place before it in this list.
PLACES = (0, *(2**power for power in range(17)))

Command = tuple[Any, ...]


class Reading:
    """`values[family][label values]`, read when it is made. Raises RedisError."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self.values: dict[Family, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        self._client, self._keys = client, keys
        self._found: dict[tuple[str, ...], Any] = {}
        self._look_around()
        self._look_at_each()
        self._look_closer()
        self._server()
        self._timers()
        for app in self._apps:
            self._functions(app)
            self._counters(app)
            self._oldest_runs(app)
        self._jobs()
        self._workers()

    # -- asking ------------------------------------------------------------------------------------------------------

    def _ask(self, commands: Mapping[tuple[str, ...], Command]) -> None:
        """In one round trip; the replies are `found` under the names of their commands. A refused CONFIG is None."""
        pipe = self._client.pipeline(transaction=False)
        for command in commands.values():
            pipe.execute_command(*command)
        for (name, command), reply in zip(commands.items(), pipe.execute(raise_on_error=False), strict=True):
            refused = isinstance(reply, Exception)
            if refused and command[0] != "CONFIG GET":
                raise reply
            self._found[name] = None if refused else reply

    def _look_around(self) -> None:
        keys = self._keys
        self._ask(
            {
                ("time",): ("TIME",),
                ("info",): ("INFO", "server", "memory"),
                ("config", "maxmemory-policy"): ("CONFIG GET", "maxmemory-policy"),
                ("config", "appendonly"): ("CONFIG GET", "appendonly"),
                ("apps",): ("SMEMBERS", keys.apps),
                ("queues",): ("SMEMBERS", keys.queues),
                ("workers",): ("SMEMBERS", keys.rq_workers),
                ("leases",): ("ZRANGE", keys.leases, 0, MOST_LEASES - 1),
                ("first timer",): ("ZRANGE", keys.timers, 0, 0, "WITHSCORES"),
                ("tick",): ("GET", keys.tick),
            }
        )
        seconds, micros = self._found["time",]
        self._now = seconds * 1000 + micros / 1000  # ms, as in our keys
        self._apps, self._queues = sorted(self._found["apps",]), sorted(self._found["queues",])
        self._leased = [composite.partition(":")[0] for composite in self._found["leases",]]

    def _look_at_each(self) -> None:
        keys = self._keys
        commands: dict[tuple[str, ...], Command] = {("due",): ("ZCOUNT", keys.timers, "-inf", self._now)}
        for app in self._apps:
            commands["counters", app] = "HGETALL", keys.metrics(app)
            commands["functions", app] = "HGETALL", keys.functions(app)
            commands["oldest", app] = "ZRANGE", keys.active(app), 0, OLDEST - 1
        for queue in self._queues:
            commands["queued", queue] = "LLEN", keys.rq_queue(queue)
            commands["delayed", queue] = "ZCARD", keys.rq_scheduled(queue)
            for place in PLACES:
                commands["waiting", queue, str(place)] = "LINDEX", keys.rq_queue(queue), place
        for worker in self._found["workers",]:
            commands["worker", worker] = "HMGET", worker, "queues", "state"
        self._ask(commands)

    def _look_closer(self) -> None:
        keys = self._keys
        jobs = set(self._leased).union(*map(self._waiting, self._queues))
        runs = [run for app in self._apps for run in self._found["oldest", app]]
        self._ask(
            {
                **{("job", job): ("HMGET", keys.rq_job(job), "origin", "flow_queued") for job in jobs},
                **{("run", run): ("HMGET", keys.run(run), "function", "created") for run in runs},
            }
        )

    def _waiting(self, queue: str) -> set[str]:
        """Some of the jobs that wait in a queue, the oldest or one nearly as old among them."""
        return {job for place in PLACES if (job := self._found["waiting", queue, str(place)]) is not None}

    # -- telling -----------------------------------------------------------------------------------------------------

    def _age(self, since_ms: str | None) -> float:
        return max(0.0, self._now - float(since_ms)) / 1000 if since_ms else 0.0

    def _server(self) -> None:
        info, values = self._found["info",], self.values
        values[f.BUILD_INFO][*VERSIONS, info.get("valkey_version") or info["redis_version"]] = 1
        most = info["maxmemory"]
        values[f.MEMORY_USED][()] = info["used_memory"] / most if most else 0
        for check, setting, wanted in (("noeviction", "maxmemory-policy", "noeviction"), ("aof", "appendonly", "yes")):
            if (settings := self._found["config", setting]) is not None:
                values[f.CONFIG_OK][check,] = settings.get(setting) == wanted

    def _timers(self) -> None:
        self.values[f.TIMERS_DUE][()] = self._found["due",]
        first = self._found["first timer",]
        self.values[f.SCHEDULER_LAG][()] = self._age(first[0][1]) if first else 0
        if tick := self._found["tick",]:
            self.values[f.SCHEDULER_TICK][()] = float(tick) / 1000

    def _functions(self, app: str) -> None:
        """The series of what the app declares, at 0."""
        values = self.values
        for cause in f.CAUSES:
            values[f.RECOVERED][app, cause] += 0
        for function, described in self._found["functions", app].items():
            values[f.RUNS_STARTED][app, function] += 0
            values[f.RUNS_RETRIED][app, function] += 0
            values[f.MEMO_BYTES][app, function] += 0
            for status in sorted(ENDED):
                values[f.RUNS_FINISHED][app, function, status] += 0
            for state in STATES:
                values[f.RUNS_ACTIVE][app, function, state] += 0
            if json.loads(described).get("asks"):
                values[f.CONDITIONS_FAILED][app, function] += 0
            for outcome in f.TICKS if json.loads(described).get("cron") else ():
                values[f.CRON_TICKS][app, function, outcome] += 0
            for event in (declared := json.loads(described))["on"]:
                values[f.EVENTS_RECEIVED][app, event] += 0
            self._queue(declared["queue"])

    def _counters(self, app: str) -> None:
        for field, count in self._found["counters", app].items():
            name, a, x, b = field.split("|", 3)
            if name in ("attempts", "label"):
                for outcome in f.OUTCOMES:
                    self.values[f.STEP_ATTEMPTS][app, a, b, outcome] += 0
            if name in f.COUNTED:
                family, labels = f.COUNTED[name]
                self.values[family][labels(app, a, x, b)] += int(count)
            if name == "attempts":  # x is the outcome, and behind a colon the bucket of its duration, if it had one
                outcome, _, bucket = x.partition(":")
                if bucket:
                    self.values[f.STEP_DURATION][app, a, b, bucket] += int(count)
                if outcome == "timeout":
                    self.values[f.RECOVERED][app, "timeout"] += int(count)

    def _oldest_runs(self, app: str) -> None:
        ages = self.values[f.OLDEST_ACTIVE]
        runs = self._found["oldest", app]
        if len(runs) < OLDEST:
            ages.update({(app, function): 0 for function in self._found["functions", app]})
        for function, created in (self._found["run", run] for run in reversed(runs)):
            if function is not None:  # the run has not ended meanwhile
                ages[app, function] = self._age(created)

    def _queue(self, queue: str) -> None:
        for state in ("queued", "running", "delayed"):
            self.values[f.QUEUE_JOBS][queue, state] += 0
        self.values[f.QUEUE_LATENCY][queue,] += 0
        for state in ("idle", "busy"):
            self.values[f.WORKERS][queue, state] += 0

    def _jobs(self) -> None:
        jobs, latency = self.values[f.QUEUE_JOBS], self.values[f.QUEUE_LATENCY]
        for queue in self._queues:
            self._queue(queue)
            jobs[queue, "queued"] = self._found["queued", queue]
            jobs[queue, "delayed"] = self._found["delayed", queue]
            latency[queue,] = max((self._age(self._found["job", job][1]) for job in self._waiting(queue)), default=0)
        for job in self._leased:
            if (queue := self._found["job", job][0]) in self._queues:
                jobs[queue, "running"] += 1

    def _workers(self) -> None:
        """Those that listen on our queues. A dead worker is in RQ's list until RQ cleans it, but its hash expires."""
        workers = self.values[f.WORKERS]
        for worker in self._found["workers",]:
            queues, state = self._found["worker", worker]
            for queue in (queues or "").split(","):
                if (queue, "idle") in workers:
                    workers[queue, "busy" if state == "busy" else "idle"] += 1
