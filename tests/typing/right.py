"""Right uses: mypy and pyright find nothing to say. Nobody runs this file; see test_typing.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flowlib import (
    App,
    AsyncPromise,
    AsyncStep,
    Backoff,
    Called,
    Ending,
    Event,
    EventType,
    Future,
    Limits,
    Middleware,
    NonRetriable,
    Promise,
    RetryAfter,
    Run,
    RunFailed,
    Step,
    StepFailed,
    cron,
    matching,
    run_cancelled,
    run_failed,
    step_options,
    trigger,
)
from flowlib.middleware import ClaimCheck, Encryption, LogContext, RunInfo, StepInfo, Tracing
from flowlib.model import Attempt, ErrorInfo, HistoryEntry, StepRecord


@dataclass(frozen=True)
class Upload:
    key: str
    user_email: str


@dataclass
class Check:
    is_valid: bool
    errors: list[str]


app = App("contacts", queue="flow", retries=2, backoff=Backoff(first=1), timeout=timedelta(minutes=1))
uploaded = EventType("api/contact_list.uploaded", Upload)
renamed = EventType("renamed", str)


def validate(key: str) -> Check:
    return Check(bool(key), [])


@step_options(retries=8, backoff=timedelta(seconds=1), timeout=30, queue="high")
def enrich(key: str, *, chunk: int = 100) -> list[str]:
    return [key] * chunk


async def store(rows: list[str], table: str = "contacts") -> int:
    return len(rows) + len(table)


def nothing() -> None: ...


@app.function(on=uploaded)
def counted(event: Event[Upload], step: Step) -> int:
    return len(event.data.key)


@app.function(on=uploaded)
async def spelled(event: Event[Upload], step: AsyncStep) -> str:
    return event.data.key


@app.function(on=uploaded, retries=4, limits=Limits(steps=10))
def import_contacts(event: Event[Upload], step: Step) -> int:
    check: Check = step.run("validate", validate, event.data.key)
    if not check.is_valid:
        return 0
    rows: list[str] = step.run("enrich", enrich, event.data.key, chunk=2)
    same: list[str] = step.run("enrich again", enrich, key=event.data.key)
    step.sleep("cooling-off", timedelta(hours=1))
    step.sleep("briefly", 0.5)
    since: timedelta = step.now() - datetime(2027, 1, 1, tzinfo=UTC)
    token: str = step.uuid().hex
    half: bool = step.random() < 0.5
    patched: bool = step.patched("ask-twice")
    child: int = step.invoke("child", counted, Upload("k", "a@example.com"))
    awaited: str = step.invoke("awaited", spelled, Upload("k", "a@example.com"), timeout=60, detached=True)
    begun: Future[int] = step.start("begun", counted, Upload("k", "a@example.com"))
    by_name: Any = step.invoke("by-name", "other/bill", {"any": "thing"})
    promise: Promise[bool] = step.promise("ok", as_=bool, timeout=timedelta(days=1))
    ok: bool = promise.result()
    step.run("mail", str.upper, promise.token)
    step.log.info("%s", [child, awaited, begun.result(), by_name, ok])
    found: Event[Upload] | None = step.wait_for_event("more", uploaded, match={"key": "k"}, timeout=60, since=event.ts)
    named: Event[Any] | None = step.wait_for_event("named", "plain.name", when=lambda each: bool(each.data))
    either: Event[Upload] | Event[str] | None = step.wait_for_any(
        "either", uploaded, renamed, timeout=60, since=event.ts
    )
    whichever: Event[Any] | None = step.wait_for_any("whichever", uploaded, renamed, "plain.name", match={"key": "k"})
    step.log.info("%s", [either and either.data, whichever])
    step.log.info("%s", [found and found.data.user_email, named])
    told: str = step.send_event("tell", uploaded(event.data))
    all_told: list[str] = step.send_event("tell all", [uploaded(event.data), renamed("x")])
    step.log.info("%s", [since, token, half, patched, told, all_told])
    step.sleep_until("opening", datetime(2027, 1, 1, tzinfo=UTC))
    total: int = step.options(retries=8, backoff=5, timeout=timedelta(minutes=1), queue="low").run("store", store, rows)
    step.on_rollback(store, rows, table="more")
    step.options(retries=9).on_rollback(nothing)
    step.run("nothing", nothing)
    number: float = step.run("inline", lambda: 1.5)
    later: Future[int] = step.submit("beside", store, rows, table="beside")
    total += later.result() + sum(step.gather(later, step.options(retries=1).submit("again", store, rows)))
    chunks: list[list[str]] = step.map("each", enrich, ["a", "b"], limit=2)
    partly: list[list[str] | StepFailed] = step.map("each", enrich, ["a", "b"], return_errors=True)
    awaiting: list[int | StepFailed] = step.map("stores", store, [rows], return_errors=True)
    step.log.info("%s", awaiting)
    soon: Future[Event[Upload] | None] = step.expect_event("soon", uploaded, match={"key": "k"})
    late: Future[None] = step.timer("late", timedelta(hours=1))
    step.log.info("%s", [step.first(soon, late) is late, chunks, partly])
    try:
        total += step.run("more", store, same, table="more")
    except StepFailed as failed:
        step.log.warning("%s: %s %s %s", failed.step, failed.type, failed.message, failed.traceback)
    return total + int(number) + step.attempt + len(step.run_id)


@app.function(on=uploaded, name="import-async")
async def import_contacts_async(event: Event[Upload], step: AsyncStep) -> list[str]:
    check: Check = await step.run("validate", validate, event.data.key)
    rows: list[str] = await step.options(retries=0).run("enrich", enrich, event.data.key, chunk=2)
    total: int = await step.run("store", store, rows, table="contacts")
    step.on_rollback(store, rows, table="more")
    await step.sleep("cooling-off", 30)
    told: str = await step.send_event("tell", uploaded(event.data))
    all_told: list[str] = await step.send_event("tell all", [uploaded(event.data)])
    step.log.info("%s", [step.now().isoformat(), step.uuid().hex, step.random(), told, all_told])
    await step.sleep_until("opening", datetime(2027, 1, 1, tzinfo=UTC))
    one, two = await asyncio.gather(step.run("one", enrich, "a"), step.run("two", store, rows))
    chunks: list[list[str]] = await step.map("each", enrich, ["a", "b"], limit=2)
    step.log.info("%s", [one[0].upper(), two + 1, chunks])
    child: int = await step.invoke("child", counted, Upload("k", "a@example.com"))
    awaited: str = await step.invoke("awaited", spelled, Upload("k", "a@example.com"), timeout=60, detached=True)
    by_name: Any = await step.invoke("by-name", "other/bill", {"any": "thing"})
    partly: list[int | StepFailed] = await step.map("some", abs, [1, -2], return_errors=True)
    awaiting: list[int | StepFailed] = await step.map("stores", store, [rows], return_errors=True)
    step.log.info("%s", awaiting)
    promise: AsyncPromise[bool] = step.promise("ok", as_=bool, timeout=3600)
    token: str = promise.token
    ok: bool = await promise.result()
    patched: bool = step.patched("ask-twice")
    where: tuple[str, int] = (step.run_id, step.attempt)
    step.log.info("%s", [by_name, partly, token, patched, where])
    step.log.info("%s", [child, awaited, ok])
    found: Event[Upload] | None = await step.wait_for_event("again", uploaded, when=lambda each: each.data.key == "k")
    named: Event[Any] | None = await step.wait_for_event("named", "plain.name", timeout=timedelta(days=2))
    either: Event[Upload] | Event[str] | None = await step.wait_for_any("either", uploaded, renamed, timeout=60)
    whichever: Event[Any] | None = await step.wait_for_any("whichever", uploaded, renamed, "plain.name")
    step.log.info("%s", [either and either.data, whichever])
    step.log.info("%s", [found and found.data.user_email, named])
    return [*check.errors, *rows, str(total)]


@app.function(on="plain.name", start_timeout=60, run_timeout=timedelta(days=1))
def plain(event: Event[dict[str, Any]], step: Step) -> str:
    return str(event.data["key"])


def tell_us(event: Event[Ending], step: Step) -> None:
    error: ErrorInfo | None = event.data.error
    step.run("tell", nothing)
    step.log.info("%s %s %s", event.data.run, error and error.message, event.data.event.data)


async def tell_them(event: Event[Ending], step: AsyncStep) -> None: ...


def is_large(event: Event[Upload]) -> bool:
    return len(event.data.key) > 10


@app.function(on=uploaded, name="told", on_failure=tell_us, on_success=tell_them, on_cancel=tell_us)
def told(event: Event[Upload], step: Step) -> None: ...


@app.function(on=uploaded, cancel_on=[matching(renamed, "key"), "plain.name", uploaded], name="cancelled")
@app.function(on=uploaded, cancel_on=matching("plain.name", {"id": "key"}), name="cancelled-too")
def cancelled(event: Event[Upload], step: Step) -> None: ...


@app.function(on=run_failed)
def watch(event: Event[Ending], step: Step) -> None: ...


@app.function(on=trigger(uploaded, when=is_large))
def large(event: Event[Upload], step: Step) -> None: ...


@app.function(on=[trigger("user/*", when=lambda event: bool(event.data["plan"])), trigger(uploaded), run_cancelled])
def some(event: Event[Any], step: Step) -> None: ...


@app.function(on=["plain.name", uploaded, renamed])
def several(event: Event[Any], step: Step) -> None: ...


@app.function(on=cron("0 3 * * *", tz="Europe/Berlin", missed="latest", overlap="skip", jitter=timedelta(minutes=5)))
def nightly(event: Event[dict[str, Any]], step: Step) -> str:
    tick: datetime = event.data["tick"]
    return tick.isoformat()


@app.function(on=[cron("@hourly", jitter=30), cron("*/10 * * * * *", missed="all", overlap="allow"), uploaded])
async def often(event: Event[Any], step: AsyncStep) -> None: ...


# A decorated function is still itself.
as_it_was: Callable[[Event[Upload], Step], int] = import_contacts
as_it_was_async: Callable[[Event[Upload], AsyncStep], Coroutine[Any, Any, list[str]]] = import_contacts_async
still: list[str] = enrich("a", chunk=1)


def give_up(key: str) -> None:
    raise NonRetriable(key) if key else RetryAfter(timedelta(seconds=5))


class Timing(Middleware):
    name = "timing"

    @contextmanager
    def send(self, event: Event[Any], meta: dict[str, str]) -> Iterator[None]:
        meta["sent"] = event.name
        yield

    @contextmanager
    def start(self, run: RunInfo) -> Iterator[None]:
        told: Mapping[str, str] = run.meta
        yield print(run.app, run.function, run.run_id, run.event_name, run.event_id, told)

    @contextmanager
    def call(self, run: RunInfo) -> Iterator[None]:
        yield

    @contextmanager
    def step(self, step: StepInfo) -> Iterator[None]:
        number: int = step.attempt
        yield print(step.run.run_id, step.id, step.kind, number)

    def encode(self, data: bytes) -> bytes | None:
        return None if len(data) < 100 else data[::-1]

    def decode(self, payload: bytes) -> bytes:
        return payload[::-1]


sealed = App(
    "sealed",
    middleware=[
        Timing(), Encryption({"new": b"0" * 32, "old": "c2VjcmV0"}, decrypt_only=True),
        ClaimCheck("s3://bucket/flow", over=1000), LogContext(), Tracing(),
    ],
)  # fmt: skip
same: App = app.connect("redis://10.0.0.5:6379/0")

called: Called[int] = app.call(counted, Upload("k", "a@example.com"))
counted_up: int = called.result(timeout=timedelta(seconds=30))
spelled_out: str = app.call(spelled, Upload("k", "a@example.com")).result()
unknown: Any = app.call("other/bill", {"any": "thing"}).result(30)
app.promises.resolve("token", {"by": "ada"})
app.promises.reject("token", "over budget")


async def ask() -> int:
    return await called.result_async(timeout=30)


def look(run: Run) -> list[str]:
    try:
        app.runs.result(run.id)
    except RunFailed as failed:
        told: list[str | int | None] = [failed.type, failed.message, failed.traceback, failed.step, failed.attempt]
        print(told)
    steps: tuple[StepRecord, ...] = run.steps
    attempts: list[Attempt] = [attempt for step in steps for attempt in step.attempts]
    outputs: dict[str, Any] = app.runs.outputs(run.id)
    print(attempts, outputs, run.parent, run.replay_of, run.replays, run.retried, run.reason, run.finished)
    started: list[str] = app.runs.of_event(run.event.id)
    return started


one: str = app.send(uploaded(Upload("k", "e"), id="upload-17", ts=datetime.now(UTC)))
many: list[str] = app.send([uploaded(Upload("k", "e")), renamed("new"), Event("other", {"a": 1})])
event: Event[Upload] = uploaded(Upload("k", "e"))


async def produce() -> list[str]:
    first: str = await app.send_async(renamed("new"))
    rest: list[str] = await app.send_async([renamed("newer")])
    return [first, *rest]


run: Run = app.runs.get("01J")
runs: list[Run] = app.runs.list(status="failed", function="import-contacts", since=timedelta(hours=1), limit=5)
result: int = app.runs.result(run.id, timeout=30)  # Any: the caller knows the function
text: str = app.runs.result(run.id, timeout=timedelta(seconds=30))
history: list[HistoryEntry] = app.runs.history(run.id)
app.runs.cancel(run.id, reason="not wanted")
again: str = app.runs.retry(run.id)
anew: str = app.runs.replay(run.id, from_step="store", set={"enrich": ["ada"]})
matched: list[Run] = app.runs.list(match={"key": "2026/list.csv"}, limit=None)
