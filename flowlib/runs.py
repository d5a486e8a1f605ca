"""Reading runs for people and programs: lists, one run, its history, its result; and ending one from outside.

Reads what the scripts wrote; writes nothing itself. The same for the API and the command line.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar, cast

import msgpack
import redis

from . import again
from .codec import annotation_of, decode
from .errors import NotFound, RunCancelled, RunEnded, RunFailed, RunTimeout
from .function import Function
from .journal import id_of, is_step
from .middleware import Sealing
from .model import CANCELLED, COMPLETED, ENDED, FAILED, UNSENT, Event, HistoryEntry, Run
from .records import text, unpack_error, unpack_memo
from .sealed import veiled
from .store import Store
from .timeline import steps_of
from .wait import has_fields
from .wire import explain

CHUNK = 500
R = TypeVar("R")
Listed = list  # `Runs.list` hides the builtin inside the class


class Runs:
    """The runs of one app, or of all apps. `app.runs` is one of these.

    >>> for run in app.runs.list(status="failed", since=timedelta(hours=1)):
    ...     print(run.id, run.error.message)
    """

    def __init__(
        self,
        store: Callable[[], Store],
        app: str | None,
        functions: Mapping[str, Function],
        sealing: Sealing | None = None,
    ) -> None:
        self._store = store
        self._sealing = sealing
        self._app = app
        self._functions = functions

    def list(
        self,
        *,
        status: str | None = None,
        function: str | None = None,
        event: str | None = None,
        since: datetime | timedelta | None = None,
        match: Mapping[str, Any] | None = None,
        limit: int | None = 100,
    ) -> Listed[Run]:
        """The newest runs first, without their data. `event` is an event's name or id; `since` a datetime, or how long ago
        at most; `match` are fields of the event's data and the values that they must have, as in `step.wait_for_event`.

        >>> app.runs.list(function="import-contacts", match={"key": "2026/list.csv"})
        """
        found: Listed[Run] = []
        for run in self._newest_first(self._oldest(since), with_data=bool(match)):
            if (
                (status is None or status in (run.status, run.state))
                and (function is None or run.function == function)
                and (event is None or event in (run.event.name, run.event.id))
                and (not match or has_fields(run.event.data, match))
            ):
                found.append(run)
                if len(found) == limit:
                    break
        return found

    def get(self, run_id: str) -> Run:
        """One run with its steps and attempts. Raises NotFound.

        >>> app.runs.get(run_id).steps[0].attempts
        """
        if not run_id.isalnum():
            raise _unknown(run_id)
        store = self._store()
        with _Explained(store):
            pipe = store.client.pipeline(transaction=False)
            pipe.hgetall(store.keys.run(run_id))
            pipe.hlen(store.keys.memo(run_id))
            record, recorded = pipe.execute()
        if not record or (self._app is not None and record[b"app"].decode() != self._app):
            raise _unknown(run_id)
        run = self._run(run_id, record, recorded, with_data=True)
        return _with(run, steps=steps_of(self.history(run_id)))

    def history(self, run_id: str, start: int = 0) -> Listed[HistoryEntry]:
        """What happened to a run, in order, log lines included; `start` skips entries.

        The list is bounded: `run.dropped` says how many of the oldest are gone.

        >>> [entry.detail["text"] for entry in app.runs.history(run_id) if entry.kind == "log"]
        """
        store = self._store()
        with _Explained(store):
            raw = cast(Listed[bytes], store.client.lrange(store.keys.history(run_id), start, -1))
        return [_entry(line) for line in raw]

    def outputs(self, run_id: str) -> dict[str, Any]:
        """What each step returned, by step id, as stored (without its type); a step that failed is left out."""
        store = self._store()
        with _Explained(store):
            memos = cast(dict[bytes, bytes], store.client.hgetall(store.keys.memo(run_id)))
        steps = {key: unpack_memo(memo) for each, memo in memos.items() if is_step(key := text(each))}
        return {id_of(key): self._lenient(memo.value, Any) for key, memo in steps.items() if memo.error is None}

    def result(self, run_id: str, timeout: timedelta | float | None = None) -> Any:
        """Wait for the run to end and return what its function returned; `timeout` in seconds or as a timedelta.

        Raises RunFailed, RunCancelled, RunTimeout (the run goes on) and NotFound.

        >>> total = app.runs.result(run_id, timeout=30)
        """
        return self._result(run_id, self._wait(run_id, timeout, may_come=False))

    def result_of_call(self, run_id: str, function: str, timeout: timedelta | float | None = None) -> Any:
        """As `result`, of a run that may not have begun yet."""
        app, _, name = function.partition("/")
        store = self._store()
        with _Explained(store):
            known = store.client.hexists(store.keys.functions(app), name)
        if not known:
            raise NotFound(
                f"function {function} does not exist: `flow functions` lists those that workers have declared"
            )
        return self._result(run_id, self._wait(run_id, timeout, may_come=True))

    def _result(self, run_id: str, run: Run) -> Any:
        if run.status == COMPLETED:
            return run.result
        if run.status == CANCELLED:
            raise RunCancelled(run_id, run.reason)
        assert run.status == FAILED and run.error is not None
        error = run.error
        raise RunFailed(run_id, error.type, error.message, error.traceback, error.step, error.attempt)

    def cancel(self, run_id: str, reason: str = "") -> None:
        """End a run from outside: nothing of it is left in a queue; a body that is running is interrupted.

        Raises NotFound, and RunEnded when it has ended already.

        >>> app.runs.cancel(run_id, reason="duplicate order")
        """
        self.get(run_id)
        store = self._store()
        with _Explained(store):
            verdict, *more = store.cancel_run(run_id, reason)
        if verdict == "unknown":
            raise _unknown(run_id)
        if verdict == "ended":
            raise RunEnded(run_id, more[0])

    def retry(self, run_id: str) -> str:
        """Put a failed run back to the step that failed, in place: what is recorded stays, its attempts begin anew.

        Returns the id of the step that is tried again, or "" when the run failed in the code behind its last step. Raises
        NotFound (it may have expired), and RunNotFailed for any other run.

        >>> app.runs.retry(run_id)
        'charge'
        """
        self.get(run_id)
        store = self._store()
        with _Explained(store):
            step = again.retry(store, run_id)
        if step is None:
            raise _unknown(run_id)
        return step

    def replay(self, run_id: str, *, from_step: str | None = None, set: Mapping[str, Any] | None = None) -> str:
        """A new run of the same event; returns its id. The run that there is stays as it is; each tells of the other.

        All steps run anew, but with `from_step` what was recorded before that step first came up is kept. `set` gives
        steps a value in place of what they would return. Steps are named as `flow show` names them. Raises NotFound for a
        run or a step that there is not, and PayloadError for a value that cannot be stored.

        >>> app.runs.replay(run_id, from_step="store", set={"enrich": []})
        '01J...'
        """
        self.get(run_id)
        store = self._store()
        with _Explained(store):
            new = again.replay(store, run_id, lambda: self.history(run_id), self._sealing, from_step, set or {})
        if new is None:
            raise _unknown(run_id)
        return new

    def of_event(self, event_id: str) -> Listed[str]:
        """Ids of the runs that an event id has started, as long as its idempotency window lasts.

        >>> app.runs.of_event("upload-17")
        """
        store = self._store()
        with _Explained(store):
            names = {app: cast(set[bytes], store.client.hkeys(store.keys.functions(app))) for app in self._apps()}
            asked = [store.keys.once(app, text(fn), event_id) for app, fns in names.items() for fn in fns]
            found = cast(Listed[bytes | None], store.client.mget(asked)) if asked else []
        return [run.decode() for run in found if run is not None]

    # -- below: reading ----------------------------------------------------------------------------------------------

    def _oldest(self, since: datetime | timedelta | None) -> float:
        """In ms. How long ago is counted by the server's clock, as the runs are dated by it."""
        if since is None:
            return 0
        if isinstance(since, datetime):
            return since.timestamp() * 1000
        store = self._store()
        with _Explained(store):
            seconds, micros = store.client.time()
        return (seconds + micros / 1e6 - since.total_seconds()) * 1000

    def _apps(self) -> Listed[str]:
        if self._app is not None:
            return [self._app]
        store = self._store()
        return sorted(name.decode() for name in cast(set[bytes], store.client.smembers(store.keys.apps)))

    def _newest_first(self, oldest: float, with_data: bool) -> Iterator[Run]:
        store = self._store()
        with _Explained(store):
            apps = self._apps()
        if len(apps) == 1:
            yield from self._of_app(apps[0], oldest, with_data)
            return
        import heapq

        of_each = [self._of_app(app, oldest, with_data) for app in apps]
        yield from heapq.merge(*of_each, key=lambda run: run.created, reverse=True)

    def _of_app(self, app: str, oldest: float, with_data: bool) -> Iterator[Run]:
        """Each once, and all that were there as it began, whatever begins and expires meanwhile (BEHAVIOURS 134)."""
        store, last = self._store(), math.inf
        seen = set[bytes]()  # those that have begun at the last time
        while True:
            with _Explained(store):
                reply = store.client.zrevrangebyscore(
                    store.keys.runs(app), last, oldest, start=0, num=CHUNK + len(seen), withscores=True
                )
                found = cast(Listed[tuple[bytes, float]], reply)
                names = [name.decode() for name, _ in found if name not in seen]
                pipe = store.client.pipeline(transaction=False)
                for run_id in names:
                    pipe.hgetall(store.keys.run(run_id))
                    pipe.hlen(store.keys.memo(run_id))
                told = pipe.execute() if names else []
            records = zip(names, told[::2], told[1::2], strict=True)
            yield from (
                self._run(run_id, record, recorded, with_data) for run_id, record, recorded in records if record
            )
            if len(found) < CHUNK + len(seen):
                return
            last = found[-1][1]
            seen = {name for name, at in found if at == last}

    def _wait(self, run_id: str, patience: timedelta | float | None, may_come: bool) -> Run:
        timeout = patience.total_seconds() if isinstance(patience, timedelta) else patience
        deadline = None if timeout is None else time.monotonic() + timeout
        run = self._get(run_id, may_come)
        if run is not None and run.status in ENDED:
            return run
        store = self._store()
        with _Explained(store), store.client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(store.keys.ended_channel(run_id))
            while (run := self._get(run_id, may_come)) is None or run.status not in ENDED:
                left = 2.0 if deadline is None else min(2.0, deadline - time.monotonic())
                if left <= 0:
                    raise RunTimeout(run_id, timeout or 0.0)
                channel.get_message(timeout=left)
        return run

    def _lenient(self, raw: bytes, as_: Any) -> Any:
        """Stored data that does not fit today's types, or cannot be opened, is shown as it is stored."""
        open = veiled if self._sealing is None else self._sealing.open
        for kind, how in ((as_, open), (Any, open), (Any, veiled)):
            with suppress(Exception):
                return decode(raw, kind, open=how)
        return f"<{len(raw)} bytes that are damaged>"

    def _get(self, run_id: str, may_come: bool) -> Run | None:
        try:
            return self.get(run_id)
        except NotFound:
            if not may_come:
                raise
        return None

    def _run(self, run_id: str, raw: dict[bytes, bytes], recorded: int, with_data: bool = False) -> Run:
        r = {key.decode(): value for key, value in raw.items()}
        function, stamp = r["function"].decode(), float(r["event_ts"])
        known = self._functions.get(function)
        trigger = known.trigger_for(text(r["event_name"])) if known else None
        data = self._lenient(r["data"], trigger.type if trigger else Any) if with_data else None
        event = Event(text(r["event_name"]), data, text(r["event_id"]), _when(stamp) if stamp else UNSENT)
        result = None
        if r.get("result"):
            result = self._lenient(r["result"], annotation_of(known.body) if known else Any)
        return Run(
            id=run_id, app=r["app"].decode(), function=function, status=r["status"].decode(), state=r["state"].decode(),
            event=event, created=_when(float(r["created"])), ended=_when(float(r["ended"])) if r.get("ended") else None,
            result=result, error=unpack_error(r["error"]) if r.get("error") else None, reason=text(r.get("reason", b"")),
            step=id_of(text(r["step"])), attempt=int(r["attempt"]), recorded=recorded - int(r.get("values", 0)),
            memo_bytes=int(r["bytes"]), dropped=int(r["dropped"]), retried=int(r.get("retries", 0)),
            replay_of=text(r.get("replay_of", b"")), replays=tuple(text(r.get("replays", b"")).split()),
            parent=text(r.get("parent", b"")),
        )  # fmt: skip


class Called(Generic[R]):
    """A run that a producer has called for; it begins when a worker of its app comes by.

    >>> called = app.call(bill, order)
    >>> called.run_id, called.result(timeout=30)
    """

    def __init__(self, runs: Runs, run_id: str, function: str) -> None:
        self._runs, self.run_id, self.function = runs, run_id, function

    def result(self, timeout: timedelta | float | None = None) -> R:
        """As `runs.result`. Raises NotFound when no worker has ever declared the function."""
        return cast(R, self._runs.result_of_call(self.run_id, self.function, timeout))

    async def result_async(self, timeout: timedelta | float | None = None) -> R:  # noqa: ASYNC109 - of the run
        """The same, without holding up the event loop.

        >>> total = await app.call(bill, order).result_async(timeout=30)
        """
        return await asyncio.to_thread(self.result, timeout)


def _unknown(run_id: str) -> NotFound:
    return NotFound(f"run {run_id!r} does not exist: `flow runs` lists those that do")


class _Explained:
    """Redis errors as ServerError."""

    def __init__(self, store: Store) -> None:
        self._url = store.url

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        if isinstance(error, redis.RedisError):
            raise explain(error, self._url) from None


def _with(run: Run, **changes: Any) -> Run:
    from dataclasses import replace

    return replace(run, **changes)


def _entry(raw: bytes) -> HistoryEntry:
    at, kind, step, attempt, worker, detail = msgpack.unpackb(raw, strict_map_key=False, unicode_errors="surrogatepass")
    return HistoryEntry(at / 1000, kind, step, int(attempt), worker, detail if isinstance(detail, dict) else {})


def _when(ms: float) -> datetime:
    """One that Python cannot say is shown as the nearest: it must not keep all other runs from being listed."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC)
    except (ValueError, OverflowError):
        return datetime.max.replace(tzinfo=UTC) if ms > 0 else datetime.min.replace(tzinfo=UTC)
