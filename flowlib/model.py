"""The words of flowlib as plain data: events, memos, runs and what happened to them.

Pure: no Redis, no RQ, no clock, no randomness. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

T = TypeVar("T")

UNSENT = datetime.fromtimestamp(0, UTC)

RUNNING, COMPLETED, FAILED, CANCELLED = "running", "completed", "failed", "cancelled"
STATUSES = (RUNNING, COMPLETED, FAILED, CANCELLED)
ENDED = frozenset(STATUSES) - {RUNNING}

# What an unfinished run is doing right now: waiting in a queue, on a worker, asleep, waiting for an event, backing off, or
# parked, because no worker that came by knows its function.
STATES = ("queued", "running", "sleeping", "waiting", "retrying", "parked")


@dataclass(frozen=True, slots=True)
class Event(Generic[T]):
    """A fact that functions react to.

    `id` makes it idempotent: each function starts at most once per id. Left empty, `send` gives it a unique one.
    `ts` is when it happened; left alone, it is the time at which Redis took it. Runs of one that lies ahead start then, by
    Redis' clock; they are there at once, asleep, and can be cancelled. Those who wait for the event have it at once.

    >>> app.send(Event("api/contact_list.uploaded", {"key": "2026/list.csv"}, id="upload-17"))
    """

    name: str
    data: T
    id: str = ""
    ts: datetime = UNSENT
    type: Any = field(default=None, repr=False, compare=False)  # what an EventType says that the data must fit


@dataclass(frozen=True, slots=True)
class EventType(Generic[T]):
    """A typed declaration of an event: its name, and the type that its data must fit.

    `type` is a dataclass, a pydantic model, a msgspec struct, or any annotation such as `dict` or `list[int]`.

    >>> uploaded = EventType("api/contact_list.uploaded", Upload)
    >>> app.send(uploaded(Upload("2026/list.csv", "ada@example.com"), id="upload-17"))
    """

    name: str
    type: type[T]

    def __call__(self, data: T, *, id: str = "", ts: datetime = UNSENT) -> Event[T]:
        return Event(self.name, data, id, ts, self.type)


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as it is stored: `type` is the class name, `step` and `attempt` say where it came from."""

    type: str
    message: str
    traceback: str = ""
    step: str | None = None
    attempt: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("type", "message", "traceback", "step", "attempt")}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ErrorInfo:
        return cls(**stored)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run has ended: what the events `flow/run.*` tell, and what handlers are given as `event.data`.

    `event` is the one that had started it, its data as they are stored; `result` is None, too, when it is too large for an
    event.

    >>> def tell_us(event: Event[Ending], step: Step) -> None:
    ...     step.run("mail", mail, f"{event.data.function} failed: {event.data.error.message}")
    """

    app: str
    function: str
    run: str
    status: str
    event: Event[Any]
    result: Any = None
    error: ErrorInfo | None = None
    reason: str = ""


ENDINGS = "flow/run."  # what their names begin with

run_finished = EventType("flow/run.finished", Ending)  # in any way
run_completed = EventType("flow/run.completed", Ending)
run_failed = EventType("flow/run.failed", Ending)
run_cancelled = EventType("flow/run.cancelled", Ending)
RUN_EVENTS = (run_finished, run_completed, run_failed, run_cancelled)


@dataclass(slots=True)  # not frozen: a replay makes many
class Memo:
    """The stored outcome of a step: the encoded value, or the error that used up its attempts.

    `kind` is that of the operation whose value it is, as far as it is known.
    """

    value: bytes = b""
    error: ErrorInfo | None = None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a step, in seconds since the epoch by the server's clock."""

    number: int
    queued: float
    started: float
    ended: float | None = None
    outcome: str = "running"
    worker: str = ""
    error: ErrorInfo | None = None
    retry_at: float | None = None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What is known of one step of a run.

    `status` is queued, running, retrying, sleeping, waiting, completed, failed or cancelled. `until` is when a sleep, or the
    wait for an event, ends at the latest. `origin` is "kept" for what the run that is replayed had recorded, "given" for what
    was put in its place. `child` is the run that the step has invoked.
    """

    id: str
    kind: str
    status: str
    attempts: tuple[Attempt, ...] = ()
    until: float | None = None
    bytes: int = 0
    wait: WaitRecord | None = None
    origin: str = ""
    child: str = ""


@dataclass(frozen=True, slots=True)
class WaitRecord:
    """What a step waits for, or has waited for: `match` is JSON, `since` as `until` of its step, `timeout` in seconds.

    `found` is the id of the event that came, `timed_out` that none came in time.
    """

    event: str
    match: str
    timeout: float
    since: float | None = None
    found: str | None = None
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One line of a run's history. `at` is seconds since the epoch; `detail` depends on the `kind`."""

    at: float
    kind: str
    step: str
    attempt: int
    worker: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a function.

    `status` is running, completed, failed or cancelled; while it is running, `state` says what it does right now:
    queued, running (on a worker), sleeping, waiting (for an event), retrying or parked (no worker that came by knows its
    function). Times are aware datetimes by the server's clock. `retried` is how often it has failed and was put back;
    `replay_of` the run whose event it was made to take again, `replays` those that were made so of it; `parent` the run that
    has invoked it.
    """

    id: str
    app: str
    function: str
    status: str
    state: str
    event: Event[Any]
    created: datetime
    ended: datetime | None = None
    result: Any = None
    error: ErrorInfo | None = None
    reason: str = ""
    step: str = ""
    attempt: int = 1
    recorded: int = 0
    memo_bytes: int = 0
    dropped: int = 0
    retried: int = 0
    replay_of: str = ""
    replays: tuple[str, ...] = ()
    parent: str = ""
    steps: tuple[StepRecord, ...] = field(default=(), repr=False)

    @property
    def finished(self) -> bool:
        return self.status in ENDED
