"""What the scripts promise, without Redis: runs, their jobs, the queue, timers and leases, as plain Python.

One method per transition, with the verdict that its script has to give. Left out are RQ's books, metrics and lifetimes:
`check_invariants` looks after those. Scores are small numbers for what is past, large ones for what is to come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from flowlib.journal import ENTRY, RUN, SLEEP
from flowlib.outcome import job_id

FUTURE = 1_000_000
ENDED = ("finished", "failed")
FENCED, UNRECORDED = "fenced", "unrecorded"


class Held(NamedTuple):
    """What a worker believes of the job that it has, when it speaks."""

    worker: str
    exec: str
    claimed: str  # the job that the lease is named after
    run: str
    at: str  # the run's job, as far as Redis knows
    step: str
    recorded: bool  # the step of that job is, which has ended with it
    after: str  # the memo that must be there, or ''
    attempt: int = 1
    losses: int = 0

    @property
    def lease(self) -> str:
        return f"{self.claimed}:{self.exec}"


@dataclass
class Job:
    run: str
    step: str
    kind: str = RUN
    status: str = "queued"
    attempt: int = 1
    calls: int = 1
    losses: int = 0
    lease: str = ""
    worker: str = ""
    failed_by: str = ""


class Wish(NamedTuple):
    """What a run may wait for: an event of that name, and of that `kind` (None: of any)."""

    name: str
    kind: str | None = None
    asks: bool = False  # then the function is asked, and takes only what is good
    looks_back: bool = False


class Wait(NamedTuple):
    """A wish that is registered: an event finds it."""

    wish: Wish
    since: int  # how many events there had been
    asks: bool


@dataclass
class Run:
    job: str
    step: str = ENTRY
    kind: str = RUN
    status: str = "running"
    state: str = "queued"
    attempt: int = 1
    due: int = 0  # 0: it waits for no time
    memos: dict[str, str] = field(default_factory=dict)
    bytes: int = 0
    asks: tuple[str, int, int] = ("", 0, 0)  # the wait at which its function was asked, its time, how far it had looked
    left_by: str = ""  # the lease under which it was chained or finished last
    cancelled: tuple[str, ...] = ()  # the token, and what was replied to it


class Model:
    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.jobs: dict[str, Job] = {}
        self.remains: dict[
            str, Job
        ] = {}  # what is written to jobs that somebody has deleted: to all others there is none
        self.queue: list[str] = []
        self.timers: dict[str, int] = {}
        self.leases: dict[str, int] = {}
        self.claims: dict[str, str] = {}  # worker -> the last lease that it claimed
        self.waits: dict[str, Wait] = {}
        self.memo_bytes = 0  # of all runs, however often their bytes are told anew
        self.suspended = False
        self._to_come = count(FUTURE)

    # -- a job's life ------------------------------------------------------------------------------------------------

    def start(self, run: str) -> bool:
        """Once."""
        if run in self.runs:
            return False
        self.runs[run] = Run(run)
        self.jobs[run] = Job(run, ENTRY)
        self.queue.append(run)
        return True

    def claim(self, worker: str, exec: str) -> object:
        """The first job in the queue that its run waits for; that of an earlier try of this call, if it has it still."""
        if self.suspended:
            return "suspended"
        earlier = self.claims.get(worker, "")
        if earlier.endswith(f":{exec}") and earlier in self.leases:
            return self._take(earlier.split(":")[0], worker, exec) or "idle"
        while self.queue:
            name = self.queue.pop(0)
            if name in self.jobs and self.jobs[name].status == "queued":
                taken = self._take(name, worker, exec)
                if taken:
                    self.claims[worker] = f"{name}:{exec}"
                    return taken
        return "idle"

    def _take(self, name: str, worker: str, exec: str) -> object:
        if name not in self.jobs:
            return None
        job, run, lease = self.jobs[name], self.runs[self.jobs[name].run], f"{name}:{exec}"
        if run.status != "running" or run.job != name:
            if job.status not in ENDED:
                job.status = "canceled"
            return None
        if run.due and self.timers.get(name, 0) >= FUTURE:
            job.status, job.worker = "scheduled", ""
            return None
        if job.lease != lease or lease not in self.leases:
            self.leases.pop(job.lease, None)
            self.leases[lease] = next(self._to_come)
            job.status, job.lease, job.worker = "started", lease, worker
            run.due, run.state = 0, "running"
            self.waits.pop(name, None)  # its time is over: no event decides any more
        step, until, looked = run.asks
        return name, job.step, job.attempt, job.calls, job.losses, dict(run.memos), (step, until < FUTURE, looked)

    def commit(self, held: Held, memo: str, new: bool, kind: str, after: str) -> str:
        """The first write wins (I1). `new`: Redis hears of the step's job only now that it is over."""
        if held.lease not in self.leases:
            return FENCED
        run, name = self.runs[held.run], job_id(held.run, held.step)
        if after and after not in run.memos:
            return UNRECORDED
        if held.step in run.memos:
            return "recorded"
        run.bytes = self.record(run, held.step, memo)  # its worker says how many there are: here, of this one
        if new:
            self.leave(held)
            self.put(name, Job(held.run, held.step, kind, "finished", lease=held.lease, worker=held.worker))
            run.job, run.step, run.kind, run.attempt = name, held.step, kind, 1
        else:
            self.job_at(held.at).status = "finished"
        return "suspended" if self.suspended else "recorded"

    def record(self, run: Run, key: str, memo: str) -> int:
        """Its bytes; one of them says what it is."""
        run.memos[key] = memo
        self.memo_bytes += len(memo) + 1
        return len(memo) + 1

    def place(self, held: Held, to: str) -> str:
        """On to the next job under the same lease."""
        run, name = self.runs[held.run], job_id(held.run, to)
        if held.lease not in self.leases:
            return FENCED
        if held.after and held.after not in run.memos:
            return UNRECORDED
        if run.job == name or to in run.memos:
            return "placed"
        self.leave(held)
        self.put(name, Job(held.run, to, RUN, "started", 1, 1, held.losses, held.lease, held.worker))
        run.job, run.step, run.kind, run.attempt, run.due = name, to, RUN, 1, 0
        return "placed"

    def chain(self, held: Held, to: str, kind: str) -> str:
        """On to the next job, for whoever claims it; a sleep is due later."""
        run, name = self.runs[held.run], job_id(held.run, to)
        verdict = "scheduled" if kind == SLEEP else "queued"
        if held.lease not in self.leases:
            return verdict if run.left_by == held.lease else FENCED
        if held.after and held.after not in run.memos:
            return UNRECORDED
        del self.leases[held.lease]
        self.leave(held)
        self.put(name, Job(held.run, to, kind))
        run.job, run.step, run.kind, run.attempt, run.due, run.left_by = name, to, kind, 1, 0, held.lease
        if kind == SLEEP:
            run.state, run.due = "sleeping", self.schedule(name)
        else:
            run.state = "queued"
            self.queue.append(name)
        return verdict

    def leave(self, held: Held) -> None:
        """A job that was not recorded ends as it is left: the first one, or one that asked for another step."""
        if not held.recorded:
            self.job_at(held.at).status = "finished" if held.at == held.run else "canceled"

    def fail(self, held: Held, level: str, delay: bool) -> str:
        job, run = self.job_at(held.at), self.runs[held.run]
        if job.failed_by == held.exec:
            return "retrying"
        if held.lease not in self.leases:
            return FENCED
        if held.after and held.after not in run.memos:
            return UNRECORDED
        del self.leases[held.lease]
        job.failed_by = held.exec
        if level == "step":
            job.attempt = run.attempt = held.attempt + 1
        else:
            job.calls, run.attempt = held.attempt + 1, 1
        run.state, run.due = ("retrying", self.schedule(held.at)) if delay else ("queued", 1)
        if not delay:
            self.enqueue(held.at, front=False)
        return "retrying"

    def finish(self, held: Held) -> str:
        run = self.runs[held.run]
        if held.lease not in self.leases:
            return "finished" if run.left_by == held.lease else FENCED
        if held.after and held.after not in run.memos:
            return UNRECORDED
        del self.leases[held.lease]
        if not held.recorded:
            self.job_at(held.at).status = "failed"
        run.status, run.state, run.due, run.left_by = "completed", "", 0, held.lease
        return "finished"

    def release(self, held: Held, delay: bool) -> str:
        if held.lease not in self.leases:
            return FENCED
        del self.leases[held.lease]
        if delay:
            self.schedule(held.at)
        else:
            self.enqueue(held.at)
        self.runs[held.run].state = "queued"
        return "released"

    def renew(self, leases: list[str]) -> list[str]:
        """Those that are lost."""
        for lease in leases:
            if lease in self.leases:
                self.leases[lease] = next(self._to_come)
        return [lease for lease in leases if lease not in self.leases]

    # -- keeping house -----------------------------------------------------------------------------------------------

    def cancel(self, name: str, token: str) -> tuple[str, ...]:
        run = self.runs[name]
        if run.cancelled[:1] == (token,):
            return run.cancelled[1:]
        if run.status != "running":
            return "ended", run.status
        job, worker = self.jobs.get(run.job), ""
        self.take_away(run.job)
        self.waits.pop(run.job, None)
        if job is None:
            for lease in [lease for lease in self.leases if lease[:26] == name]:
                del self.leases[lease]
        else:
            held = job.lease in self.leases
            if held:
                worker = job.worker
                del self.leases[job.lease]
            if not (held and job.status in ENDED):
                job.status = "canceled"
        run.status, run.state, run.due = "cancelled", "", 0
        run.cancelled = token, "cancelled", run.job, worker
        return run.cancelled[1:]

    def reap(self, worker: str, blameless: bool) -> list[tuple[str, str]]:
        """Leases that ran out, or all of a dead worker: their jobs go to the front, one after the other."""
        reaped = []
        for lease in sorted(self.leases, key=lambda lease: self.leases[lease]):
            run = self.runs[lease[:26]]
            job = self.jobs.get(run.job)
            if (job is None or job.worker != worker) if worker else self.leases[lease] >= FUTURE:
                continue
            del self.leases[lease]
            if job is not None and job.lease == lease and run.status == "running":
                reaped.append((run.job, job.worker))
                self.take_away(run.job)
                self.enqueue(run.job)
                job.losses += not blameless
                run.state = "queued"
        return reaped

    def fire(self) -> int:
        due = sorted((at, name) for name, at in self.timers.items() if at < FUTURE)
        for _, name in reversed(due):
            del self.timers[name]
            job = self.jobs.get(name)
            if job and job.status == "scheduled" and self.runs[job.run].job == name:
                self.enqueue(name)
                self.runs[job.run].state = "queued"
        return len(due)

    def reconcile(self, name: str) -> bool:
        """Only if nothing would move it."""
        run = self.runs[name]
        if run.status != "running" or self.moves(run.job):
            return False
        if run.job not in self.jobs and any(lease[:26] == name for lease in self.leases):
            return False  # whose it is cannot be told any more: that lease runs out first
        self.take_away(run.job)
        if run.job not in self.jobs:
            self.put(run.job, Job(name, run.step, run.kind, attempt=run.attempt))
        if run.due >= FUTURE:
            self.schedule(run.job, run.due)
        else:
            self.enqueue(run.job)
            run.state = "queued"
        return True

    # -- what RQ's tools do: they know of no lease, and of no timer of ours --------------------------------------------

    def lose(self, name: str) -> None:
        self.take_away(name)

    def delete(self, name: str) -> None:
        self.queue = [each for each in self.queue if each != name]
        self.jobs.pop(name, None)
        self.remains.pop(name, None)

    def deliver(self, name: str) -> None:
        self.queue.append(name)

    def requeue(self, name: str) -> None:
        self.jobs[name].status = "queued"
        self.queue.append(name)

    # -- where a job is ----------------------------------------------------------------------------------------------

    def places(self, name: str) -> list[str]:
        job = self.jobs[name]
        leased = self.runs[job.run].job == name and job.lease in self.leases
        return ["lease"] * leased + ["timer"] * (name in self.timers) + ["queue"] * self.queue.count(name)

    def moves(self, name: str) -> bool:
        """Something will move it: a place at which it may be, with the status that it has."""
        where = {"queued": "queue", "scheduled": "timer"}.get(
            self.jobs[name].status if name in self.jobs else "", "lease"
        )
        return name in self.jobs and ("lease" in self.places(name) or where in self.places(name))

    def job_at(self, name: str) -> Job:
        return self.jobs.get(name) or self.remains.setdefault(name, Job("", ""))

    def put(self, name: str, job: Job) -> None:
        self.jobs[name] = job
        self.remains.pop(name, None)

    def enqueue(self, name: str, front: bool = True) -> None:
        job = self.job_at(name)
        job.status, job.worker = "queued", ""
        self.queue.insert(0 if front else len(self.queue), name)

    def schedule(self, name: str, at: int = 0) -> int:
        """For a time to come, unless it is said for which."""
        job = self.job_at(name)
        job.status, job.worker = "scheduled", ""
        self.timers[name] = at or next(self._to_come)
        return self.timers[name]

    def take_away(self, name: str) -> None:
        self.timers.pop(name, None)
        self.queue = [each for each in self.queue if each != name]
