"""`trigger(...)`: which events start a function: of a name, or of all names below a noun, and if a condition says so.

Pure: no Redis, no RQ, no clock, no randomness.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from .errors import ConfigError, PayloadError
from .model import ENDINGS, Event, EventType
from .schedule import Cron

T = TypeVar("T")

MAX_EVENT_NAME = 256
MAX_EVENT_BYTES = 512 * 1024  # of its data
ANY = "/*"  # behind a noun: all events of it
OURS = "flow/"  # what the names of flowlib's own events begin with


@dataclass(frozen=True, slots=True)
class Trigger(Generic[T]):
    """What `trigger` makes; nothing is checked before a function is declared, whose name the error then has."""

    name: str
    type: Any
    when: Callable[[Event[T]], object] | None = None

    @property
    def is_wild(self) -> bool:
        return self.name.endswith(ANY)

    def takes(self, event_name: str) -> bool:
        """Events of that name, whatever their data say."""
        return event_name == self.name or (self.is_wild and event_name.startswith(self.name[:-1]))


@overload
def trigger(on: EventType[T], /, *, when: Callable[[Event[T]], object] | None = None) -> Trigger[T]: ...
@overload
def trigger(
    on: str, /, *, when: Callable[[Event[dict[str, Any]]], object] | None = None
) -> Trigger[dict[str, Any]]: ...
def trigger(on: Any, /, *, when: Callable[[Event[Any]], object] | None = None) -> Trigger[Any]:
    """Of `@app.function(on=...)`: this EventType, event's name, or `noun/*`; only events for which `when` says yes.

    `when` is asked once for each event, by a worker's dispatcher: it has to be quick, and to look at nothing but the event.
    If it raises, that is recorded and logged, and nothing starts.

    >>> @app.function(on=[trigger("user/*", when=lambda event: event.data["plan"] == "pro"), upgraded])
    ... def welcome(event: Event[Any], step: Step) -> None: ...
    """
    if isinstance(on, EventType):
        return Trigger(on.name, on.type, when)
    return Trigger(on, dict, when)


@dataclass(frozen=True, slots=True)
class Matching:
    """What `matching` makes: an event by name, and which of its fields must be what fields of the run's own event are."""

    name: str
    type: Any
    fields: tuple[tuple[str, str], ...]


def matching(event: EventType[Any] | str, match: str | Sequence[str] | Mapping[str, str] = (), /) -> Matching:
    """Of `@app.function(cancel_on=...)`: this event, if the fields that `match` names are as those of the run's own event.

    They have one name in both, or `match` is a dict: fields of this event, and what they are called in the run's own.
    "user.id" is a field of a field. A run whose event has no such field is not cancelled by it.

    >>> @app.function(on=ordered, cancel_on=matching(order_cancelled, "order_id"))
    ... def fulfil(event: Event[Order], step: Step) -> None: ...
    """
    names = [match] if isinstance(match, str) else list(match)
    pairs = match.items() if isinstance(match, Mapping) else [(name, name) for name in names]
    kind = event.type if isinstance(event, EventType) else Any
    return Matching(event.name if isinstance(event, EventType) else event, kind, tuple(sorted(pairs)))


Cancels = str | EventType[Any] | Matching


def make_cancels(where: str, cancel_on: Cancels | Sequence[Cancels]) -> tuple[Matching, ...]:
    """What a user wrote. Raises ConfigError."""
    given = cancel_on if isinstance(cancel_on, Sequence) and not isinstance(cancel_on, str) else [cancel_on]
    if not all(isinstance(each, str | EventType | Matching) for each in given):
        raise ConfigError(f"{where}: cancel_on= takes events and matching(event, fields), got {cancel_on!r}")
    cancels = tuple(each if isinstance(each, Matching) else matching(each) for each in given)
    for each in cancels:
        check_awaited_name(f"{where}: cancel_on", each.name)
        if not all(isinstance(field, str) and field for pair in each.fields for field in pair):
            raise ConfigError(f"{where}: cancel_on: matching takes names of fields, got {dict(each.fields)!r}")
    return cancels


On = str | EventType[Any] | Trigger[Any] | Cron


def make_triggers(where: str, on: On | Sequence[On]) -> tuple[tuple[Trigger[Any], ...], tuple[Cron, ...]]:
    """What a user wrote as triggers and crons; a plain string takes any dict. Raises ConfigError."""
    given = on if isinstance(on, Sequence) and not isinstance(on, str) else [on]
    crons = tuple(each.check(where) for each in given if isinstance(each, Cron))
    others: list[Any] = [each for each in given if not isinstance(each, Cron)]
    if not given or not all(isinstance(each, str | EventType | Trigger) for each in others):
        raise ConfigError(
            f"{where}: on= takes an event name, an EventType, a trigger, a cron, or several of them, got {on!r}"
        )
    if len({cron.name for cron in crons}) < len(crons):
        raise ConfigError(f"{where}: on= has the same cron twice")
    triggers = tuple(each if isinstance(each, Trigger) else trigger(each) for each in others)
    for each in triggers:
        try:
            check_event_name(each.name)
        except PayloadError as error:
            raise ConfigError(f"{where}: {error}") from None
        if "*" in each.name and not (
            each.name.endswith(ANY) and each.name.count("*") == 1 and len(each.name) > len(ANY)
        ):
            raise ConfigError(f"{where}: on={each.name!r}: a * stands for all events of a noun, as in 'user/*'")
        check_condition(f"{where}: trigger", each.when)
    return triggers, crons


def check_event_name(name: object) -> str:
    """Raises PayloadError for a name that no event may have."""
    if not isinstance(name, str) or not name or len(name) > MAX_EVENT_NAME or any(ord(c) < 32 for c in name):
        shown = f"{name[:40]!r}… ({len(name)} characters)" if isinstance(name, str) and len(name) > 40 else repr(name)
        raise PayloadError(
            f"event name {shown}: must be a string of 1 to {MAX_EVENT_NAME} characters, no control characters"
        )
    return name


def check_awaited_name(where: str, name: object) -> None:
    """Of an event that somebody waits for, or is cancelled by: found by its name alone. Raises ConfigError."""
    try:
        check_event_name(name)
    except PayloadError as error:
        raise ConfigError(f"{where}: {error}") from None
    if str(name).endswith(ANY):
        raise ConfigError(
            f"{where}: event name {name!r}: all events of a noun can only start functions: say one event's name"
        )
    if str(name).startswith(OURS) and not str(name).startswith(ENDINGS):
        raise ConfigError(
            f"{where}: event name {name!r}: of flowlib's own events only the ends of runs can be waited for: say run_finished, "
            f"run_completed, run_failed or run_cancelled"
        )


def check_condition(where: str, when: object) -> None:
    """Raises ConfigError."""
    if when is not None and not callable(when):
        raise ConfigError(f"{where}: when takes a function of the event, got {when!r}")
    asked = when if inspect.isroutine(when) else vars(type(when)).get("__call__")
    if inspect.iscoroutinefunction(asked):
        raise ConfigError(f"{where}: when is asked and answers at once: {when!r} is async, and would always say yes")


def check_event_data(what: str, stored: bytes) -> bytes:
    """What is stored of it, as it is. Raises PayloadError."""
    if len(stored) > MAX_EVENT_BYTES:
        raise PayloadError(
            f"{what} of {len(stored)} bytes is over the limit of {MAX_EVENT_BYTES} bytes: store it elsewhere and send where"
        )
    return stored


def check_own_event(name: str) -> None:
    """Raises PayloadError for a name under which only flowlib tells something."""
    if name.startswith(OURS):
        raise PayloadError(
            f"event name {name!r}: what begins with {OURS!r} only flowlib sends: find another name (functions may be on it)"
        )
