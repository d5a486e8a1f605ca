"""Transitions of events, schedules and what they start."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import redis

from flowlib.function import Function
from flowlib.records import Dispatched, JobSpec, Start, text
from flowlib.wire import Packed, explain

from .link import Link, for_lua

# An event: its id, name, data, ts in ms or 0, and what its middleware has put beside it: JSON, or ""
Sent = tuple[str, str, bytes, int, str]


LONGEST_DOUBT = 600.0  # seconds for which it is in doubt whether events have been stored, before they are sent again
MOST_DOUBTED = 10_000  # events
STANDSTILL = 60.0  # seconds for which a server may stand still before it carries out a try: it looks back from then


class EventStore(Link):
    @cached_property
    def _doubted(self) -> dict[tuple[str, str], float]:
        """By id and name: since when events may have been stored, of which nothing was heard."""
        return {}

    def send_events(self, events: Sequence[Sent]) -> None:
        """Append them to the stream: all of them, or none, and once, also if the reply to the first try is lost; and if
        nothing was heard at all, and they are sent again from this process.
        """
        parts = [part for event in events for part in event]
        began, doubted = time.monotonic(), self._doubted
        since = min((doubted.get(event[:2], began) for event in events), default=began) if doubted else began
        seconds = began - since

        def pack(doubt: float | None) -> Packed:
            looks_back = 0 if doubt is None else round(1000 * (min(doubt, LONGEST_DOUBT) + STANDSTILL))
            return self._pack("send_events", looks_back, *parts, key=self.keys.events)

        try:
            self.wire.call_once(pack(seconds or None), again=lambda: pack(seconds + self._patience))
        except redis.RedisError as error:
            self._doubt({event[:2] for event in events}, began)
            raise explain(error, self.url) from None
        if doubted:
            for event in events:
                doubted.pop(event[:2], None)

    def _doubt(self, names: set[tuple[str, str]], now: float) -> None:
        """What is not sent again for long is forgotten here, and not whenever something is sent."""
        doubted = self._doubted
        for name, since in doubted.copy().items():
            if since < now - LONGEST_DOUBT and name not in names:
                doubted.pop(name, None)
        if len(doubted) < MOST_DOUBTED:
            for name in names:
                doubted.setdefault(name, now)

    def join_events(self, app: str) -> bool:
        return bool(self._call("join_events", app, key=self.keys.events))

    def dispatch_events(self, app: str, events: Sequence[Dispatched]) -> Packed:
        """Start what these events trigger, wake what waits for them, and settle them; packed, for many go in one round trip.

        Replies [1 or 0, run id] for each run, [2, id in the stream, name, fields…] for an event that is to come again.
        """
        return self._pack("dispatch_events", app, for_lua(tuple(events)), key=self.keys.events)

    def start(
        self, fn: Function, run: str, event: tuple[str, str, bytes, int], location: str, spec: JobSpec, meta: str = "",
        cancels: Any = None,
    ) -> Start:  # fmt: skip
        """How an event, (id, name, data, ts in ms), starts a run; what is beside the event, and which others cancel the run,
        as the script takes them.
        """
        window, retention = int(fn.idempotency.total_seconds() * 1000), int(fn.retention.total_seconds())
        event_id, name, data, ts = event
        bounds = (round((seconds or 0) * 1000) for seconds in (fn.start_timeout, fn.run_timeout))
        return (
            fn.name,
            event_id,
            name,
            ts,
            data,
            run,
            window,
            retention,
            location,
            spec.args(),
            *bounds,
            cancels,
            int(fn.undoes),
            meta,
        )

    def plan_ticks(
        self, app: str, worker: str, schedules: Iterable[str], starting: bool
    ) -> tuple[float, dict[str, str]]:
        """The time in ms, and what is known of each schedule, FUNCTION|EXPRESSION ZONE, under the fields of the hash."""
        now, pairs = self._call("plan_ticks", worker, int(starting), *schedules, key=self.keys.cron(app))
        return float(now), dict(zip(map(text, pairs[::2]), map(text, pairs[1::2]), strict=True))

    def start_ticks(self, app: str, decisions: Sequence[tuple[Any, ...]]) -> Packed:
        """Decisions as the script takes them; the reply has for each the run that it has started, or b''."""
        return self._pack("start_ticks", app, for_lua(tuple(decisions)), key=self.keys.cron(app))

    def pause_cron(self, app: str, function: str, paused: bool) -> bool:
        """Whether that has changed anything."""
        key, field = self.keys.cron(app), f"paused|{function}"
        return bool(self.client.hset(key, field, 1) if paused else self.client.hdel(key, field))

    def find_events(self, name: str, after: str, at_most: int = 1000) -> tuple[str, bool, list[tuple[str, Any]]]:
        """Events of that name among the next so many in the stream, the last that was looked at, and may there be more?"""
        looked, more, *found = self._call("find_events", name, after, at_most, key=self.keys.events)
        entries = [(id.decode(), dict(zip(flat[::2], flat[1::2], strict=True))) for id, flat in found]
        return looked.decode(), bool(more), entries
