"""Events to runs: reads the stream as one consumer of the app's group, starts what each event triggers, wakes what waits.

An event is acknowledged after its runs are stored; so a dispatcher that dies leaves it pending, and another claims it.
Starting is idempotent, so nobody starts anything twice (I5).

A wait is found by the digest of an event's data by the fields that it is matched by. Which fields those are only the
script knows for sure, at the instant at which it settles the event: what it asks for is added, and the event comes again.

Two versions of an app may be at work side by side. An event that functions are on which only others know starts what is
known here, and is handed over to one of those, which finds it among its own. So is one that asks for such a function by name.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import redis

from .child import INVOKE_EVENT, read_invocation
from .codec import decode
from .errors import ConfigError, PayloadError
from .function import Function
from .journal import ENTRY, RUN, WAIT
from .model import Memo
from .outcome import make_job
from .records import Dispatched, Start, event_value, pack_memo, read_event, text
from .sealed import Open
from .store import Store
from .subscriptions import OTHER, Subscriptions, cancels_of
from .ulid import ulid_of
from .wait import ABSENT, digest_in

log = logging.getLogger("flowlib.dispatch")

BATCH = 100
AT_ONCE = 10  # in one script, which holds up everybody else for about a millisecond
HANDED_OVER = 1.0  # seconds after which an event is looked for at the latest that another dispatcher has left to us
BLOCK_MS = 1000  # below redis-py's own socket timeout of 5 s

Entry = tuple[bytes, dict[bytes, bytes]]
Seen = dict[str, tuple[str, str]]  # function -> up to where we looked for events that cancel its run, the one that does


class Dispatcher:
    """One per worker process. `location` is MODULE:APP, which a stock RQ worker needs to find the functions."""

    def __init__(
        self, app: str, functions: Mapping[str, Function], location: str, store: Store, consumer: str, idle_ms: int,
        open: Open | None = None,
    ) -> None:  # fmt: skip
        self._app = app
        self._functions = dict(functions)
        self._open = open  # for data that is sealed
        self._subscriptions = Subscriptions(functions.values(), open)
        self._cancelling = {each.name for function in functions.values() for each in function.cancel_on}
        self._location = location
        self._store = store
        self._consumer = consumer
        self._idle_ms = idle_ms
        self._looked = self._settled = -math.inf
        self._fields: dict[str, tuple[str, ...]] = {}  # by the name of an event: what waits on it are matched by
        self._batch = BATCH  # events to be read at once: fewer where replies do not get through as a whole
        self._reading = 0  # the id of the connection that waits for events, as the server counts

    def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping`; Redis trouble is waited out."""
        wait = 0.1
        reader = self._store.client.client()
        owing = True  # there may be events with us of which we know nothing
        while not stopping():
            try:
                self._reading = cast(int, reader.client_id())
                if owing or time.monotonic() - self._settled > HANDED_OVER:
                    self.dispatch_unsettled(reader)
                    owing, self._settled = False, time.monotonic()
                if time.monotonic() - self._looked > self._idle_ms / 1000:
                    self._looked = time.monotonic()
                    self._fields.clear()
                    self.dispatch_abandoned()
                    self.resume()
                self.dispatch(self.fresh(BLOCK_MS, reader))
                wait, self._batch = 0.1, min(self._batch * 2, BATCH)
            except Exception as error:
                if stopping():
                    break
                log.warning("dispatch: %s: again in %.1f s", error, wait)
                time.sleep(wait)
                wait, self._batch = min(wait * 2, 2.0), max(self._batch // 4, 1)
                self._rejoin()
                owing = True
        reader.close()

    def wake(self) -> None:
        """End the wait for events now, from another thread. A server that does not permit it ends it within a second."""
        with contextlib.suppress(redis.RedisError):
            self._store.client.client_unblock(self._reading)

    def enter(self) -> None:
        """From now on all know the app's functions; and as `join`, which is less to say where connections break."""
        self._store.register_app(self._app, self._functions, self._consumer)
        self.resume()

    def join(self) -> None:
        """From now on events are for this app, too, and so are runs that nobody knew."""
        self._store.join_events(self._app)
        self.resume()

    def resume(self) -> None:
        """Runs that were parked because no worker knew their function, as this one does."""
        while resumed := self._store.resume_parked(self._app, self._functions):
            log.info("dispatch: %d parked runs go on", resumed)

    def fresh(self, block_ms: int | None = None, reader: redis.Redis | None = None) -> list[Entry]:
        """Events that no dispatcher of this app has read."""
        return self._read(">", block_ms, reader)

    def dispatch_unsettled(self, reader: redis.Redis | None = None) -> None:
        """Events that are with this dispatcher and that it has not settled: the reply that brought them was lost, or what
        followed; or another version has handed them over. However many they are, new ones do not wait behind them.
        """
        after = "0"
        while entries := self._read(after, None, reader):
            self.dispatch(entries)
            after = entries[-1][0].decode()
            if len(entries) == self._batch:
                self.dispatch(self.fresh())

    def _read(self, after: str, block_ms: int | None, reader: redis.Redis | None) -> list[Entry]:
        key = self._store.keys.events
        reply: Any = (reader or self._store.client).xreadgroup(
            self._app, self._consumer, {key: after}, self._batch, block_ms
        )
        if isinstance(reply, dict):  # RESP3
            return [entry for batches in reply.values() for batch in batches for entry in batch]
        return [entry for _, entries in reply or [] for entry in entries]

    def dispatch_abandoned(self) -> list[str]:
        """Events that a dispatcher has read and not settled for so long that it must be dead; however many they are, new ones
        do not wait behind them. Returns the ids of new runs.
        """
        started: list[str] = []
        after = b"0-0"
        while True:
            after, entries = self.abandoned(after)
            started += self.dispatch(entries)
            if after == b"0-0":
                return started
            started += self.dispatch(self.fresh())

    def abandoned(self, after: bytes = b"0-0") -> tuple[bytes, list[Entry]]:
        """The next of them, which are ours from now on, and where to go on."""
        reply: Any = self._store.client.xautoclaim(
            self._store.keys.events, self._app, self._consumer, self._idle_ms, after, count=self._batch
        )
        entries = [entry for entry in reply[1] if entry[1]]
        if entries:
            log.info("dispatch: %d events claimed that another dispatcher had left", len(entries))
        return reply[0], entries

    def dispatch(self, entries: list[Entry]) -> list[str]:
        """Start all that these events trigger, wake what waits for them, and settle them: in one round trip, unless the
        script asks for more. Returns the ids of runs that are new."""
        started: list[str] = []
        overtaken: dict[bytes, Seen] = {}
        while entries:
            events = [self._told(entry_id.decode(), fields, overtaken.get(entry_id)) for entry_id, fields in entries]
            batches = [events[i : i + AT_ONCE] for i in range(0, len(events), AT_ONCE)]
            replies = self._store.send_all([self._store.dispatch_events(self._app, batch) for batch in batches])
            again = set()
            for word, what, *more in (reply for batch in replies for reply in batch):
                if word == 1:
                    started.append(what.decode())
                elif word == 2:
                    again.add(what)
                    name, *fields = map(text, more)
                    self._fields[name] = tuple(fields)
                elif word == 3:
                    again.add(what)
                    overtaken.setdefault(what, {})
            entries = [entry for entry in entries if entry[0] in again]
        for run in started:
            log.info("run %s started", run)
        return started

    def _told(self, entry: str, fields: dict[bytes, bytes], seen: Seen | None = None) -> Dispatched:
        """All that the script has to know of an event."""
        try:
            event = read_event(entry, fields)
        except (KeyError, ValueError, OverflowError) as error:
            log.error("event %s in the stream is malformed (%r): it starts nothing", entry, error)
            return entry, OTHER, (), "", "", {}, b"", (), 0, ()
        event_id, name, *_ = event
        meta = text(fields.get(b"meta", b""))
        if name == INVOKE_EVENT:
            nobody = dict.fromkeys(self._fields.get(name, ()), ABSENT)  # of those that could wait for it once
            return entry, name, self._invoked(entry, event, seen, meta), name, event_id, nobody, b"", (), 0, ()
        label, functions, refused = self._subscriptions.started_by(event)
        starts: list[Start] = []
        for function in functions:
            run = ulid_of(int(entry.partition("-")[0]), self._app, function.name, event_id, entry)
            starts.append(self._start(function, run, event, entry, seen, meta))
        matched = self._matched(event, self._fields.get(name, ()))
        cancelling = int(name in self._cancelling)
        return entry, label, starts, name, event_id, *matched, refused, cancelling, self._subscriptions.on(name)

    def _start(
        self, function: Function, run: str, event: tuple[str, str, bytes, int], entry: str, seen: Seen | None, meta: str
    ) -> Start:
        job = make_job(
            self._app, function.name, run, self._location, ENTRY, RUN, function.options.timeout, function.queue
        )
        cancels = self._cancels(function, event, entry, seen) if function.cancel_on else None
        return self._store.start(function, run, event, self._location, job, meta, cancels)

    def _invoked(self, entry: str, event: tuple[str, str, bytes, int], seen: Seen | None, meta: str) -> list[Start]:
        """A run whose id is known already. One of a function that only others know is for them, of one that nobody knows it is
        parked until somebody does."""
        try:
            asked = read_invocation(event[2])
        except PayloadError as error:
            log.error("event %s in the stream is malformed (%r): it starts nothing", entry, error)
            return []
        if asked.app != self._app:
            return []
        known = self._functions.get(asked.function)
        function = known or Function(self._app, asked.function, _nobody, ())
        told = (event[0], event[1], asked.data, event[3])
        start = self._start(function, asked.run, told, entry, seen, meta)
        return [(*start, (asked.parent, int(asked.detached), int(known is None)))]

    def _cancels(self, function: Function, event: tuple[str, str, bytes, int], entry: str, seen: Seen | None) -> Any:
        """What cancels the run, as the script takes it. `seen`: such events were settled before this one; is it one of them?
        Coming here again we look on from where we were: to begin anew each time would never catch up with busy others."""
        try:
            cancels = cancels_of(function, decode(event[2], open=self._open))
        except PayloadError:
            return None
        looked, by = entry, ""
        if seen is not None:
            looked, by = seen.get(function.name, (entry, ""))
            if not by:
                looked, by = self._look_back(looked, {(name, fields): digest for name, fields, digest in cancels})
            seen[function.name] = looked, by
        return [entry, looked, by, *cancels]

    def _look_back(self, after: str, cancels: dict[tuple[str, str], str]) -> tuple[str, str]:
        """Up to where in the stream we have looked, and the first event that cancels, in words; nothing behind it matters."""
        upto, found = "", ""
        for (name, fields), digest in cancels.items():
            looked, more = after, True
            while more and not found:
                looked, more, entries = self._store.find_events(name, looked)
                for at, raw in entries:
                    with contextlib.suppress(KeyError, ValueError, OverflowError, PayloadError):
                        other = read_event(at, raw)
                        if digest_in(fields, decode(other[2], open=self._open)) == digest:
                            found = f"event {name} ({other[0]})"
            upto = upto or looked
        return upto, found

    def _matched(self, event: tuple[str, str, bytes, int], by: tuple[str, ...]) -> tuple[dict[str, str], bytes]:
        """The event's digests by these lists of fields, and what is stored of it for those who wait for it."""
        if not by:
            return {}, b""
        try:
            memo = Memo(event_value(event), None, WAIT)
            data = decode(memo.value, open=self._open)["data"]
        except (ValueError, OverflowError, PayloadError) as error:
            log.error("event %r has data that nobody can read (%s): no run that waits is woken by it", event[0], error)
            return dict.fromkeys(by, ABSENT), b""
        return {fields: digest_in(fields, data) for fields in by}, pack_memo(memo)

    def _rejoin(self) -> None:
        """The group is gone when somebody has emptied Redis; without it nothing would ever be dispatched again."""
        try:
            self.join()
        except Exception as error:
            log.debug("dispatch: %s", error)


def _nobody(event: object, step: object) -> None:
    """The body of a function that this worker does not know."""


def check_functions(app: str, functions: Mapping[str, Function]) -> None:
    """A worker of an app without functions would wait for ever. Raises ConfigError."""
    if not functions:
        raise ConfigError(f"app {app!r} declares no function: decorate one with @app.function(on=...)")
