"""What must hold at every instant, checked over all that is stored: every key of flowlib and of RQ, read at one moment.

For tests only: it holds up all writers while it reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack

from .journal import BODILESS, ENTRY, INVOKE, PROMISE, WAIT, is_step
from .model import RUNNING
from .store import Store


def check_invariants(store: Store) -> list[str]:
    """What is wrong with all that is stored: nothing, if every promise holds. Each line names the run, job or counter.

    Checked are: every unfinished run has exactly one thing that will move it (I4), memos are written once (I1), ended runs
    have left nothing behind (I6), leases, timers and queues agree with the jobs, counters with the histories (I7).
    Counters are compared only while no run has expired and no history was cut.

    >>> assert check_invariants(app.store) == []
    """
    return faults_in(Stored(store))


def faults_in(stored: Stored) -> list[str]:
    """What `check_invariants` says, of what was read before."""
    checks = (_unfinished, _branches, _ended, _leases, _timers, _queues, _memos, _waits, _gauges, _counters)
    return [fault for check in checks for fault in check(stored)]


class Stored:
    """All keys of flowlib and of RQ, read while nobody could write."""

    def __init__(self, store: Store) -> None:
        self.prefix, self.rq = store.keys.prefix, store.keys.rq
        self.values: dict[str, Any] = {}
        self.expiring: set[str] = set()
        with _still(store):
            self._read(store)
        self.leases: dict[str, float] = self.values.get(store.keys.leases, {})
        self.timers: dict[str, float] = self.values.get(store.keys.timers, {})
        self.runs: dict[str, dict[str, str]] = self.under(f"{self.prefix}:run:")
        self.branches: dict[str, dict[str, str]] = self.under(f"{self.prefix}:branch:")
        self.at = {record["job"]: (named, record) for named, record in [*self.runs.items(), *self.branches.items()]}
        self.jobs = {job: f for job, f in self.under(f"{self.rq}:job:").items() if "flow_run" in f}
        self.queued = Counter(
            job for key, jobs in self.under(f"{self.rq}:queue:").items() if ":" not in key for job in jobs
        )
        self.histories = {run: [msgpack.unpackb(e, strict_map_key=False, unicode_errors="surrogatepass") for e in entries]
                          for run, entries in self.under(f"{self.prefix}:history:").items()}  # fmt: skip

    def _read(self, store: Store) -> None:
        client = store.client
        keys = sorted({key for prefix in (self.prefix, self.rq) for key in client.scan_iter(f"{prefix}:*", count=1000)})
        for key, (kind, ttl, value) in zip(keys, store.read_keys(keys), strict=True):
            if kind == b"none":
                continue  # it has just expired
            name = key.decode()
            if kind in (b"hash", b"zset"):
                value = dict(zip(value[::2], map(float, value[1::2]) if kind == b"zset" else value[1::2], strict=True))
            self.values[name] = value if name.startswith(f"{self.prefix}:history:") else _readable(value)
            if ttl >= 0:
                self.expiring.add(name)

    def under(self, prefix: str) -> dict[str, Any]:
        """The values of all keys that begin so, by the rest of their names."""
        return {key[len(prefix) :]: value for key, value in self.values.items() if key.startswith(prefix)}

    def jobs_of(self, run: str) -> list[str]:
        """At which the run is."""
        own = [self.runs[run]["job"]] if run in self.runs else []
        return own + [record["job"] for named, record in self.branches.items() if named.startswith(run)]

    def places(self, job: str) -> list[str]:
        """All that will move a job: each as the status that the job must have there."""
        fields = self.jobs.get(job, {})
        leased = job in self.at and fields.get("flow_lease") in self.leases  # a lease goes on with its run
        return ["started"] * leased + ["scheduled"] * (job in self.timers) + ["queued"] * self.queued[job]


@contextmanager
def _still(store: Store) -> Iterator[None]:
    """Nobody writes, scripts included, and nothing expires."""
    store.client.client_pause(10_000, all=False)
    try:
        yield
    finally:
        store.client.client_unpause()


def _readable(value: Any) -> Any:
    match value:
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case dict():
            return {_readable(key): _readable(each) for key, each in value.items()}
        case list() | set():
            return [_readable(each) for each in value]
    return value


def _unfinished(stored: Stored) -> Iterator[str]:
    listed = {run for runs in stored.under(f"{stored.prefix}:active:").values() for run in runs}
    for run in listed | {run for run, record in stored.runs.items() if record["status"] == RUNNING}:
        record = stored.runs.get(run, {})
        if run not in listed or record.get("status") != RUNNING:
            yield f"run {run}: {'listed' if run in listed else 'not listed'} as unfinished, status {record.get('status')}"
            continue
        yield from _moved(stored, run, record)


def _moved(stored: Stored, named: str, record: dict[str, str]) -> Iterator[str]:
    """Of a run, or RUN:BRANCH."""
    job = record["job"]
    fields, places = stored.jobs.get(job), stored.places(job)
    if fields is None or fields["flow_run"] != named[:26]:
        yield f"run {named}: its job {job} is gone (I4)"
    elif len(places) != 1:
        yield f"run {named}: its job {job} ({fields['status']}) is moved forward by {places or 'nothing'} (I4)"
    elif fields["status"] not in _STATUSES[places[0]] and not _with_stock_worker(fields):
        yield f"run {named}: its job {job} is {fields['status']} and should be {places[0]}"
    elif record["state"] not in _STATES[places[0]]:
        yield f"run {named}: its state is {record['state']!r}, its job is {places[0]}"


def _branches(stored: Stored) -> Iterator[str]:
    """Of runs that go on in several places, each is known, and moved forward."""
    open_steps = stored.under(f"{stored.prefix}:open:")
    for named, record in stored.branches.items():
        run, _, branch = named.partition(":")
        if stored.runs.get(run, {}).get("status") != RUNNING:
            yield f"run {named}: a branch of a run that is not there, or has ended (I6)"
        elif open_steps.get(run, {}).get(record["entry"]) != branch:
            yield f"run {named}: is at {record['entry']!r}, and open are {open_steps.get(run)}"
        else:
            yield from _moved(stored, named, record)
    for run, steps in open_steps.items():
        record = stored.runs.get(run, {})
        places = {named.partition(":")[2] for named in stored.branches if named.startswith(run)}
        if record.get("forked") != "1" or len(steps) - len(places) != 1 or record.get("entry") not in steps:
            yield f"run {run}: at {record.get('entry')!r} and in branches {sorted(places)}, open are {steps}"


# A step's job has ended when its memo is written; the lease stays while the function goes on to the next.
_STATUSES = {"started": {"started", "finished", "failed"}, "scheduled": {"scheduled"}, "queued": {"queued"}}
_STATES = {
    "started": {"running"},
    "scheduled": {"sleeping", "waiting", "retrying", "parked", "queued"},
    "queued": {"queued"},
}


def _with_stock_worker(fields: dict[str, str]) -> bool:
    """RQ itself keeps the status of a job that one of its own workers runs."""
    return ":rq-" in fields.get("flow_lease", "")


def _ended(stored: Stored) -> Iterator[str]:
    for run, record in stored.runs.items():
        if record["status"] == RUNNING:
            continue
        kept = {f"{stored.prefix}:{kind}:{run}" for kind in ("run", "memo", "history")} & stored.values.keys()
        if forever := kept - stored.expiring:
            yield f"run {run}: {record['status']}, and {', '.join(sorted(forever))} would stay for ever"
        if record["state"]:
            yield f"run {run}: {record['status']}, and its state is still {record['state']!r}"
    for job, fields in stored.jobs.items():
        record = stored.runs.get(fields["flow_run"], {})
        if (record.get("status") != RUNNING or job not in stored.at) and stored.places(job):
            yield f"job {job}: its run is {record.get('status')} and at {record.get('job')}, yet it is {stored.places(job)}"


def _leases(stored: Stored) -> Iterator[str]:
    for lease in stored.leases:
        if not any(stored.jobs.get(job, {}).get("flow_lease") == lease for job in stored.jobs_of(lease[:26])):
            yield f"lease {lease}: its run's job is not there, or another execution has it"
    for registry, listed in stored.under(f"{stored.rq}:wip:").items():
        for composite in listed:
            lease = stored.jobs.get(composite.split(":", 1)[0], {}).get("flow_shown")
            if lease is not None and lease not in stored.leases:
                yield f"{composite}: RQ lists it as started in {registry}, and nobody has its lease"


def _timers(stored: Stored) -> Iterator[str]:
    mirrored = {job for jobs in stored.under(f"{stored.rq}:scheduled:").values() for job in jobs}
    bounds = {f"{run}!{bound}" for run, record in stored.runs.items() if record["status"] == RUNNING
              for bound in ("start", "end") if f"{bound}s_by" in record}  # fmt: skip
    for bound in bounds ^ {name for name in stored.timers if "!" in name}:
        yield f"timer {bound}: {'is not there' if bound in bounds else 'its run has no such bound'}"
    for job in stored.timers.keys() - bounds:
        if job not in stored.jobs:
            yield f"timer of job {job}: there is no such job"
        elif job not in mirrored and not _with_stock_worker(stored.jobs[job]):
            yield f"timer of job {job}: not in RQ's scheduled registry"
    for job in mirrored & stored.jobs.keys():
        if job not in stored.timers and not _with_stock_worker(stored.jobs[job]):
            yield f"job {job}: RQ lists it as scheduled, and it has no timer"


def _queues(stored: Stored) -> Iterator[str]:
    for job, times in stored.queued.items():
        if times > 1 and stored.jobs.get(job, {}).get("status") == "queued":
            yield f"job {job}: {times} times in its queue"


def _memos(stored: Stored) -> Iterator[str]:
    for run, record in stored.runs.items():
        if record.get("dropped") != "0":
            continue
        memos = stored.values.get(f"{stored.prefix}:memo:{run}", {})
        written: Counter[str] = Counter()
        for _, kind, step, *_, detail in stored.histories.get(run, ()):
            written[step] += kind in ("recorded", "kept") and is_step(step)
            written[step] -= kind == "retried" and "dropped" in detail  # a retry forgets the step that failed
        written = +written
        if str(len(memos) - written.total()) != record.get("values", "0"):
            yield f"run {run}: {len(memos)} memos, but {written.total()} steps and {record.get('values', 0)} values (I1)"
        if written != Counter(filter(is_step, memos)):
            yield f"run {run}: has memos {sorted(memos)}, and its history records {sorted(written.elements())} (I1)"


def _waits(stored: Stored) -> Iterator[str]:
    """Registered is who waits and is on no worker; and nothing else is in the indexes."""
    for app in {run["app"] for run in stored.runs.values()} | stored.under(f"{stored.prefix}:waits:").keys():
        waits = stored.values.get(f"{stored.prefix}:waits:{app}", {})
        apps = {run: record["app"] for run, record in stored.runs.items()}
        waiting = {job for job, (run, at) in stored.at.items() if apps[run[:26]] == app and at["state"] == "waiting"}
        for job in waiting - waits.keys():
            yield f"job {job}: its run waits for an event, and nobody knows for which"
        for job in waits:
            (run, at), places = stored.at.get(job, (job, {})), stored.places(job)
            record = stored.runs.get(run[:26], {})
            at_it = record.get("status") == RUNNING and at.get("kind") in (WAIT, INVOKE, PROMISE)
            recorded = at.get("step") in stored.values.get(f"{stored.prefix}:memo:{job[:26]}", {})
            if not at_it or recorded or "started" in places:
                yield f"job {job}: registered as waiting, its run is {record.get('status')} at {record.get('job')}, {places}"
        listed = sorted(job for jobs in stored.under(f"{stored.prefix}:waiters:{app}:").values() for job in jobs)
        counted = sum(int(n) for by in stored.under(f"{stored.prefix}:fields:{app}:").values() for n in by.values())
        cancels = [name[:26] for runs in stored.under(f"{stored.prefix}:cancels:{app}:").values() for name in runs]
        if listed != sorted(waits) or counted != len(waits) + len(cancels):
            yield f"app {app}: {sorted(waits)} wait, {listed} are to be found, {counted} are counted"
        if over := [run for run in cancels if stored.runs[run]["status"] != RUNNING]:
            yield f"app {app}: events are still expected that would cancel {over}"


def _gauges(stored: Stored) -> Iterator[str]:
    for app, metrics in stored.under(f"{stored.prefix}:metrics:").items():
        runs = [run for run in stored.runs.values() if run["app"] == app and run["state"]]
        real = Counter(f"active|{run['function']}|{run['state']}|" for run in runs)
        shown = Counter({name: int(value) for name, value in metrics.items() if name.startswith("active|")})
        for gauge in sorted(real.keys() | shown.keys()):
            if real[gauge] != shown[gauge]:
                yield f"app {app}: {gauge} is {real[gauge]} and shown as {shown[gauge]} (I7)"


def _counters(stored: Stored) -> Iterator[str]:
    for app, metrics in stored.under(f"{stored.prefix}:metrics:").items():
        listed = stored.values.get(f"{stored.prefix}:runs:{app}", {})
        runs = {run: stored.runs[run] for run in listed if run in stored.runs}
        if len(runs) != len(listed) or any(record["dropped"] != "0" for record in runs.values()):
            continue
        real: Counter[str] = Counter()
        for run, record in runs.items():
            real.update(_told_by(record["function"], stored.histories[run]))
            real[f"runs_started|{record['function']}"] += 1
            if record["status"] != RUNNING:
                real[f"runs_finished|{record['function']}|{record['status']}"] += 1
        shown: Counter[str] = Counter()
        for name, value in metrics.items():
            shown[_total(name)] += int(value)
        for total in sorted(name for name in real.keys() | shown.keys() if name.startswith(_TOTALS)):
            if real[total] != shown[total]:
                yield f"app {app}: {total} happened {real[total]} times, counted {shown[total]} (I7)"


_TOTALS = ("runs_", "attempts", "recovered", "queue_wait")


def _total(name: str) -> str:
    """A counter's name without its labels of steps and its buckets."""
    parts = name.split("|")
    if parts[0] in ("step_seconds", "queue_wait"):
        return "sums" if parts[2] == "sum" else parts[0]
    return "|".join(part.partition(":")[0] for part in parts[:3] if part)


def _told_by(function: str, history: list[Any]) -> Iterator[str]:
    """The totals that one run's history calls for."""
    without_body = {ENTRY}  # what may be lost without an attempt being lost
    for _, kind, step, _, _, detail in history:
        match kind:
            case "claimed" if "waited" in detail:
                yield "queue_wait"
            case "sleeping" | "waiting":
                without_body.add(step)
            case "queued" if detail.get("kind") in BODILESS:
                without_body.add(step)
            case "recorded":
                without_body.add(step)
                if detail.get("seconds") is not None:
                    yield f"attempts|{function}|{detail['outcome']}"
            case "failed" if detail.get("level") == "step":
                yield f"attempts|{function}|{detail['outcome']}"
            case "lost":
                yield "recovered|lost_worker"
                if step not in without_body:
                    yield f"attempts|{function}|lost"
            case "recovered":
                yield "recovered|orphan"
            case "retried":
                without_body.discard(step)
                yield from (f"runs_retried|{function}", f"runs_finished|{function}|failed")
