"""What a job waits for before its run goes on: a time, or an event that is told by its name and the fields of its data.

Waits are found by a *digest*: of the names of the fields by which they are matched, and of the values there. Values are
compared in their readable form, so that a UUID that came as JSON is the same UUID; 1, 1.0, True and "1" are not the same.

Pure: no Redis, no RQ, no clock, no randomness.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from .codec import decode, encode
from .errors import LONGEST_WAIT, ConfigError, PayloadError
from .hints import field_hints
from .model import Event, EventType
from .readable import jsonable
from .shape import fields_of, rebuild
from .triggers import check_awaited_name, check_condition

LONGEST_SLEEP = timedelta(seconds=LONGEST_WAIT)
ABSENT = ""  # instead of a digest: the event has not all of the fields


class Due:
    """When a sleep ends: after a delay, counted by the server from the moment it is recorded, or at a fixed time."""

    __slots__ = ("delay_ms", "until_ms")

    def __init__(self, *, delay_ms: float | None = None, until_ms: float | None = None) -> None:
        self.delay_ms = delay_ms
        self.until_ms = until_ms


class Told(Due):
    """A wait for what is told to this very step: how the run that it has invoked ends, or what a promise comes to."""

    def args(self, run: str, key: str, retries: int) -> tuple[Any, ...]:
        """What it waits for, as the script takes it; `retries` is how often the run was put back after it had failed."""
        raise NotImplementedError

    def timed_out(self, step_id: str) -> Exception:
        """What is recorded when its time is over."""
        raise NotImplementedError


class Wait(Due):
    """For an event, as long as the delay at most; `match` is for people, and `since_ms` from when on it looks back.

    One with `when` is registered by its fields like any other. An event that fits these wakes the run, and its function
    is asked; nothing is lost meanwhile, because it then looks at all that have come since it looked the last time.
    """

    __slots__ = ("digest", "fields", "match", "name", "since_ms", "type", "when")

    def __init__(
        self,
        event: str | EventType[Any],
        match: Mapping[str, Any],
        delay_ms: float,
        since_ms: int | None,
        when: Callable[[Event[Any]], object] | None = None,
    ) -> None:
        super().__init__(delay_ms=delay_ms)
        self.name = event if isinstance(event, str) else event.name
        self.type: Any = Any if isinstance(event, str) else event.type
        self.fields = json.dumps(sorted(match))
        self.digest = digest_of(self.fields, [match[path] for path in sorted(match)])
        self.match = json.dumps(jsonable(match), ensure_ascii=False)
        self.since_ms = since_ms
        self.when = when

    @property
    def veiled(self) -> str:
        """`match` without its values."""
        return json.dumps(dict.fromkeys(json.loads(self.fields), "…"), ensure_ascii=False)

    def takes(self, step_id: str, stored: Mapping[str, Any]) -> bool:
        """Is that the event? One that is of another type is not, to one that asks. Raises what `when` raises."""
        if digest_in(self.fields, stored["data"]) != self.digest:
            return False
        if self.when is None:
            return True
        try:
            event = self.event(step_id, stored)
        except PayloadError:
            return False
        return event is not None and bool(self.when(event))

    def event(self, step_id: str, stored: Mapping[str, Any] | None) -> Event[Any] | None:
        """What the function is given. Raises PayloadError for data that does not fit the event's type."""
        if stored is None:
            return None
        where = f"step {step_id!r}: event {stored['id']!r}: data"
        return Event(stored["name"], rebuild(stored["data"], self.type, where), stored["id"], stored["ts"])


def after(step_id: str, what: str, duration: timedelta | float) -> timedelta:
    """As it was given, if it is one and not too long. Raises ConfigError."""
    if not isinstance(duration, timedelta):
        try:
            duration = timedelta(seconds=duration)
        except (TypeError, ValueError, OverflowError):
            raise ConfigError(
                f"step {step_id!r}: {what} takes a timedelta or seconds, at most 366 days, got {duration!r}"
            ) from None
    if duration > LONGEST_SLEEP:
        raise ConfigError(f"step {step_id!r}: {duration} is too long a {what}: at most 366 days")
    return duration


def check_sleep(step_id: str, seconds: float) -> None:
    if seconds > LONGEST_SLEEP.total_seconds():
        raise ConfigError(f"step {step_id!r}: {timedelta(seconds=seconds)} is too long a sleep: at most 366 days")


def make_wait(
    step_id: str,
    event: str | EventType[Any],
    match: Mapping[str, Any] | None,
    timeout: timedelta | float | None,
    since: datetime | None,
    when: Callable[[Event[Any]], object] | None = None,
) -> Wait:
    """What the user asked for. Raises ConfigError, and PayloadError for a value that no event can have."""
    where = f"step {step_id!r}"
    if not isinstance(event, str | EventType):
        raise ConfigError(f"{where}: wait_for_event takes an EventType or an event's name, got {event!r}")
    check_awaited_name(where, event if isinstance(event, str) else event.name)
    if match is not None and not (isinstance(match, Mapping) and all(isinstance(path, str) for path in match)):
        raise ConfigError(f"{where}: match takes a dict of fields and their values, got {match!r}")
    if since is not None and (not isinstance(since, datetime) or since.tzinfo is None):
        raise ConfigError(f"{where}: since takes an aware datetime (with a tzinfo), got {since!r}")
    check_condition(where, when)
    kind = Any if isinstance(event, str) else event.type
    for path in match or {}:
        check_field(where, kind, path)
    values = {path: decode(encode(value, where=f"{where}: match.{path}")) for path, value in (match or {}).items()}
    delay = LONGEST_SLEEP if timeout is None else after(step_id, "timeout", timeout)
    since_ms = None if since is None else int(since.timestamp() * 1000)
    return Wait(event, values, max(0.0, delay.total_seconds() * 1000), since_ms, when)


def digest_in(fields: str, data: Any) -> str:
    """The digest of an event's data by these fields, or ABSENT."""
    try:
        return digest_of(fields, [value_at(path, data) for path in _paths(fields)])
    except KeyError:
        return ABSENT


def value_at(path: str, data: Any) -> Any:
    """Raises KeyError."""
    for name in path.split("."):
        if not isinstance(data, dict):
            raise KeyError(path)
        data = data[name]
    return data


def has_fields(data: Any, match: Mapping[str, Any]) -> bool:
    """Whether data has these fields with these values, as a wait would match them."""
    fields = json.dumps(sorted(match))
    return digest_in(fields, data) == digest_of(fields, [match[path] for path in sorted(match)])


@lru_cache(maxsize=1000)
def _paths(fields: str) -> tuple[str, ...]:
    return tuple(json.loads(fields))


def digest_of(fields: str, values: list[Any]) -> str:
    """Of the names of the fields, sorted, as JSON, and the values in that order."""
    told = json.dumps([fields, jsonable(values)], sort_keys=True)
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def check_field(where: str, kind: Any, path: str) -> None:
    """As far as the type says what fields there are. Raises ConfigError."""
    for name in path.split("."):
        kind = _plain(kind)
        known = fields_of(kind)
        if known is None:
            return
        if name not in known:
            holder = getattr(get_origin(kind) or kind, "__name__", kind)
            raise ConfigError(
                f"{where}: match: {holder} has no field {name!r} of {path!r}: it has {', '.join(sorted(known))}"
            )
        kind = field_hints(get_origin(kind) or kind, get_args(kind)).get(name, Any)


def _plain(kind: Any) -> Any:
    """X of `X | None`."""
    if get_origin(kind) in (Union, UnionType):
        others = [arg for arg in get_args(kind) if arg is not NoneType]
        return others[0] if len(others) == 1 else Any
    return kind
