"""What the scripts promise of events, of who waits for them, and of values, as `model_of_runs` says it of the rest.

Events are told apart by their numbers, from 1 on, in the order of the stream.
"""

from __future__ import annotations

from typing import NamedTuple

from flowlib.journal import WAIT
from flowlib.outcome import job_id

from .model_of_runs import FENCED, UNRECORDED, Held, Job, Model, Wait, Wish

# Of a run's steps, one after the other; each run begins at another place, so that two often wait for the same.
WISHES = (
    Wish("it"),
    Wish("it", "a", looks_back=True),
    Wish("it", asks=True),
    Wish("it", "a"),
    Wish("oh", "b", asks=True, looks_back=True),
    Wish("it", "b", asks=True),
    Wish("oh", "b"),
    Wish("it", "b", looks_back=True),
)


class Sent(NamedTuple):
    name: str
    kind: str | None
    good: bool

    def fits(self, wish: Wish) -> bool:
        """As far as the script can tell."""
        return self.name == wish.name and wish.kind in (None, self.kind)


def told(number: int) -> str:
    """The memo of who has waited for it."""
    return f'"event {number}"'


class ModelWithEvents(Model):
    def __init__(self) -> None:
        super().__init__()
        self.stream: list[Sent] = []
        self.settled: set[int] = set()

    def send(self, event: Sent) -> int:
        self.stream.append(event)
        return len(self.stream)

    def note(self, held: Held, key: str, memo: str, after: str) -> str:
        """A value: the first write wins (I1)."""
        run = self.runs[held.run]
        if held.lease not in self.leases:
            return FENCED
        if after and after not in run.memos:
            return UNRECORDED
        if key not in run.memos:
            run.bytes += self.record(run, key, memo)
        first = run.memos[key]
        return "recorded" if first == memo else f"recorded {first}"

    def find(self, name: str, after: int, at_most: int) -> tuple[int, bool, list[int]]:
        """Up to which event it was looked, whether there may be more, and those of that name."""
        looked = range(after + 1, min(after + at_most, len(self.stream)) + 1)
        found = [number for number in looked if self.stream[number - 1].name == name]
        return max(looked, default=after), len(looked) == at_most, found

    def listen(
        self, held: Held, to: str, wish: Wish, looked: int | None, found: int | None, is_over: bool | None
    ) -> str:
        """On to a wait. `is_over` is of one that has come back, because its function was to be asked."""
        run, name = self.runs[held.run], job_id(held.run, to)
        if held.lease not in self.leases:
            return "scheduled" if run.left_by == held.lease else FENCED
        if held.after and held.after not in run.memos:
            return UNRECORDED
        if looked is not None and not found and any(event.name == wish.name for event in self.stream[looked:]):
            return "behind"
        asks = wish.asks and not found
        if asks and is_over:
            return "over"
        del self.leases[held.lease]
        self.leave(held)
        self.put(name, Job(held.run, to, WAIT))
        run.job, run.step, run.kind, run.attempt, run.state, run.left_by = name, to, WAIT, 1, "waiting", held.lease
        run.due = self.schedule(name, 1 if is_over else 0)
        self.waits[name] = Wait(wish, len(self.stream), asks)
        if wish.asks:
            run.asks = to, run.due, len(self.stream) if looked is None else looked
        if found:
            self._deliver(name, found)
        return "scheduled"

    def dispatch(self, numbers: list[int], known: tuple[str, ...]) -> list[tuple[int, str, list[str]]]:
        """Those that are to come again, for there are waits by fields of which the dispatcher does not know."""
        again: list[tuple[int, str, list[str]]] = []
        live: dict[str, list[str]] = {}
        for number in numbers:
            event = self.stream[number - 1]
            fields = live.setdefault(event.name, self.fields(event.name))
            if set(fields) <= set(known):
                for each in fields:
                    self._wake(number, event, each)
                self.settled.add(number)
            else:
                again.append((number, event.name, fields))
        return again

    def fields(self, name: str) -> list[str]:
        """By which the waits for events of that name are matched."""
        return list(dict.fromkeys(fields_of(wait.wish) for wait in self.waits.values() if wait.wish.name == name))

    def _wake(self, number: int, event: Sent, fields: str) -> None:
        """The first to wait goes to the very front. An event that is older than a wait does not reach it."""
        waiting = [
            (wait.since, job)
            for job, wait in self.waits.items()
            if event.fits(wait.wish) and fields_of(wait.wish) == fields
        ]
        for since, job in sorted(waiting, reverse=True):
            if since < number:
                self._deliver(job, number)

    def _deliver(self, name: str, number: int) -> None:
        run, wait = self.runs[name[:26]], self.waits.pop(name)
        if not wait.asks:
            run.bytes += self.record(run, run.step, told(number))
        run.due = 0
        job = self.job_at(name)
        if job.status == "scheduled":
            self.timers.pop(name, None)
            self.enqueue(name)
            run.state = "queued"


def fields_of(wish: Wish) -> str:
    return "[]" if wish.kind is None else '["k"]'
