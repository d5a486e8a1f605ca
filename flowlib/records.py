"""What the scripts take and give back, as Python: jobs, leases, claims, memos, history entries. Forms only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, cast

import msgpack

from .codec import decode, encode
from .journal import INVOKE, PROMISE, RUN, SEND, SLEEP, WAIT
from .model import ENDINGS, UNSENT, ErrorInfo, Event, Memo
from .sealed import Open, lenient
from .wire import PackedArgs

FAILED_TTL = 7 * 86400  # seconds that RQ keeps a failed step's job
STEP_RESULT_TTL = 60  # seconds that RQ keeps a finished step's job and result; the memo lives with the run

# A job's last status, its outcome as RQ's Result stores it, and the seconds that RQ keeps it.
End = tuple[str, str, int]

Start = tuple[Any, ...]  # a run that begins, as dispatch_events takes it
# An event as it does: its id in the stream, its name for the metrics, its runs, name, id, digests by lists of fields, memo,
# (function, why) of those that it would start if their conditions had not raised, 1 if events of its name may cancel runs,
# the functions that were asked, and where to look for others
Dispatched = tuple[
    str, str, Sequence[Start], str, str, Mapping[str, str], bytes, Sequence[tuple[str, str]], int, Sequence[str]
]


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job that is to be created: `data` is RQ's envelope, JSON; `timeout` whole seconds or -1."""

    id: str
    step: str
    kind: str
    queue: str
    timeout: int
    data: bytes
    description: str
    result_ttl: int = STEP_RESULT_TTL
    failure_ttl: int = FAILED_TTL

    def args(self) -> tuple[Any, ...]:
        return (
            self.id, self.step, self.kind, self.queue, self.timeout, self.data, self.description,
            self.result_ttl, self.failure_ttl,
        )  # fmt: skip


@dataclass(frozen=True)
class Lease:
    """A worker's right to run a job, and those that follow it in place: whoever holds it may write (I2).

    `job` is the one that was claimed; the run may be further by now.
    """

    worker: str
    exec: str
    job: str
    run: str
    app: str
    function: str
    queue: str
    branch: str = ""  # of the run, if it goes on in several places

    @property
    def name(self) -> str:
        return f"{self.job}:{self.exec}"

    @cached_property
    def packed(self) -> PackedArgs:
        """What every transition from the job begins with."""
        run = f"{self.run}:{self.branch}" if self.branch else self.run
        return PackedArgs(self.worker, self.name, self.exec, run, self.app, self.function, self.queue)


@dataclass(slots=True)
class Claim:
    """A job that this worker may run now, with all it takes to replay its run."""

    lease: Lease
    step: str
    kind: str
    attempt: int
    calls: int
    losses: int
    waited: float
    record: dict[str, bytes]
    memos: dict[str, Memo]
    bytes: int
    overdue: bool = False  # the attempt ran over its time, and its process was killed


def read_claim(
    reply: list[Any], worker: str, exec: str, fetch: Callable[[str, bytes], tuple[dict[str, Memo], int]]
) -> Claim | str:
    """`idle` of a run whose memos are gone."""
    job, queue, step, kind, attempt, calls, losses, waited, record, memos, overdue = reply
    run = {k.decode(): v for k, v in zip(record[::2], record[1::2], strict=True)}
    if isinstance(memos, int):
        known, size = fetch(text(job)[:26], run.get("values", b""))
        if len(known) < memos:
            return "idle"
    else:
        known = {text(key): unpack_memo(memo) for key, memo in zip(memos[::2], memos[1::2], strict=True)}
        size = sum(map(len, memos[1::2]))
    lease = Lease(
        worker, exec, job.decode(), job[:26].decode(), run["app"].decode(), run["function"].decode(), queue.decode(),
        run.get("branch", b"").decode(),
    )  # fmt: skip
    return Claim(
        lease, text(step), kind.decode(), int(attempt), int(calls), int(losses), float(waited), run, known, size,
        bool(overdue),
    )  # fmt: skip


def text(raw: bytes) -> str:
    """Ids and names come back as they were written, lone surrogates included."""
    return raw.decode("utf-8", "surrogatepass")


def read_event(entry: str, fields: Mapping[bytes, bytes]) -> tuple[str, str, bytes, int]:
    """Its id, name, data and ts in ms. Raises KeyError, ValueError or OverflowError for one that nobody can read."""
    event_id, name, stamp = text(fields[b"id"]), text(fields[b"name"]), int(float(fields[b"ts"]))
    return event_id, name, fields[b"data"], stamp or int(entry.partition("-")[0])


def event_of(record: Mapping[str, bytes], trigger_for: Callable[[str], Any], open: Open | None = None) -> Event[Any]:
    """What has started a run, its data as its trigger says. Raises PayloadError."""
    name, stamp, event_id = text(record["event_name"]), float(record["event_ts"]), text(record["event_id"])
    trigger = trigger_for(name)
    if name.startswith(ENDINGS):
        open = lenient(open)  # a run may have failed because its data cannot be opened: that is told all the same
    data = decode(record["data"], trigger.type if trigger else Any, where=f"event {event_id!r}: data", open=open)
    return Event(name, data, event_id, datetime.fromtimestamp(stamp / 1000, UTC) if stamp else UNSENT)


def read_asks(raw: bytes | None) -> tuple[str, float, str] | None:
    """Of a run that has asked its function whether an event is the one: at which step, until when, and how far it looked."""
    if not raw:
        return None
    step, until, looked = msgpack.unpackb(raw, unicode_errors="surrogatepass")
    return step, float(until), looked


def event_value(event: tuple[str, str, bytes, int]) -> bytes:
    """The event as the value of a memo, encoded; its data as it was sent."""
    event_id, name, data, stamp = event
    ts = datetime.fromtimestamp(stamp / 1000, UTC)
    return b"".join(
        [b"\x84", *map(encode, ("name", name, "id", event_id, "ts", ts, "data")), data]
    )  # msgpack: a map of four


# What a packed memo begins with: a value tells what kind of operation it is of, so that another one under its id is seen.
_TAGS = {RUN: b"v", "": b"v", SLEEP: b"s", SEND: b"p", WAIT: b"w", INVOKE: b"i", PROMISE: b"m"}
_KINDS = {tag: kind for kind, tag in _TAGS.items() if kind}
_OF_ANY_KIND, _ERROR = b"u", b"e"


def pack_memo(memo: Memo) -> bytes:
    """One byte for what it is, then the value as the codec wrote it, or the error."""
    if memo.error is None:
        return _TAGS.get(memo.kind, _OF_ANY_KIND) + memo.value
    return _ERROR + cast(bytes, msgpack.packb(memo.error.as_dict(), unicode_errors="surrogatepass"))


def unpack_memo(raw: bytes) -> Memo:
    tag = raw[:1]
    return Memo(error=unpack_error(raw[1:])) if tag == _ERROR else Memo(raw[1:], None, _KINDS.get(tag, ""))


def unpack_error(raw: bytes) -> ErrorInfo:
    return ErrorInfo.from_dict(msgpack.unpackb(raw, unicode_errors="surrogatepass"))


def told(kind: str, step: str, attempt: int, worker: str, detail: dict[str, Any]) -> bytes:
    """A history entry but for its time, which the script puts in front."""
    return cast(bytes, msgpack.packb([kind, step, attempt, worker, detail], unicode_errors="surrogatepass"))[1:]
